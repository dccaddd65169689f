"""A log has every byte that was printed, once and in order, whatever the store does meanwhile."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from threading import Event, Thread
from time import monotonic

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from waiting import wait_until

from distci import console
from distci.console import LogWriter, read_log
from distci.errors import Damaged, Invalid, StoreUnavailable
from distci.model import BuildId
from distci.store import keys
from distci.store.directory import DirectoryStore
from distci.testing import LossyStore

BUILD = BuildId("team/job", 1)
PREFIX = keys.log(BUILD, "task", "1-1")
MIB = 1024 * 1024


def chunk_key(offset: int) -> str:
    return keys.log_chunk(BUILD, "task", "1-1", offset)


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store", durable=False)


@pytest.fixture
def line(store: DirectoryStore) -> LossyStore:
    return LossyStore(store)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads are repeated at once."""
    monkeypatch.setattr(console, "RETRY_S", 0.001)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 100 bytes, and 1000 bytes that may wait."""
    monkeypatch.setattr(console, "CHUNK_BYTES", 100)
    monkeypatch.setattr(console, "BUFFER_BYTES", 1000)


@pytest.fixture
def start() -> Iterator[Callable[..., LogWriter]]:
    """Starts writers, whose threads end with the test."""
    writers: list[LogWriter] = []

    def begin(store: DirectoryStore | LossyStore, **options: float | Path) -> LogWriter:
        writer = LogWriter(lambda offset, data: store.put(chunk_key(offset), data), **options)  # type: ignore[arg-type]
        writers.append(writer)
        return writer

    yield begin
    for writer in writers:
        writer.abandon()


Start = Callable[..., LogWriter]


def read(store: DirectoryStore | LossyStore, start: int = 0) -> bytes:
    """A complete log from an offset on."""
    return b"".join(read_log(store, PREFIX, start, is_complete=True))


def stored_bytes(store: DirectoryStore | LossyStore) -> int:
    """How many bytes of the log are stored, whole or not."""
    return sum(len(data) for data in read_log(store, PREFIX))


def flood(writer: LogWriter) -> None:
    """Print more than may wait in a small log."""
    for _ in range(100):
        writer.write(b"x" * 100)


# What was written is what is read


def test_a_log_is_what_was_written(store: DirectoryStore, start: Start) -> None:
    writer = start(store)
    writer.write(b"first\n")
    writer.write(b"")
    writer.write(b"second\n")
    assert writer.close() == 13
    assert read(store) == b"first\nsecond\n"
    assert stored_bytes(store) == 13


def test_a_log_of_nothing_is_empty(store: DirectoryStore, start: Start) -> None:
    assert start(store).close() == 0
    assert read(store) == b""
    assert stored_bytes(store) == 0


def test_a_log_that_is_closed_twice_is_stored_once(line: LossyStore, start: Start) -> None:
    writer = start(line, bytes_max=3)
    writer.write(b"hello")
    assert writer.close() == writer.close() == stored_bytes(line)
    assert read(line).count(b"2 more bytes") == 1


@pytest.mark.usefixtures("small")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.binary(max_size=350), max_size=8), begin=st.integers(0, 1500))
def test_random_bytes_come_back_from_every_offset(
    tmp_path_factory: pytest.TempPathFactory, pieces: Sequence[bytes], begin: int
) -> None:
    store = DirectoryStore(tmp_path_factory.mktemp("store"), durable=False)
    writer = LogWriter(lambda offset, data: store.put(chunk_key(offset), data))
    for piece in pieces:
        writer.write(piece)
    data = b"".join(pieces)
    assert writer.close() == len(data) == stored_bytes(store)
    assert read(store, begin) == data[begin:]


def test_c11_what_is_too_much_for_memory_waits_in_a_file_and_is_stored_in_order(
    line: LossyStore, start: Start, tmp_path: Path, small: None
) -> None:
    # Given a store that is away
    line.is_up.clear()
    spool = tmp_path / "spool"
    spool.mkdir()
    writer = start(line, spool=spool, bytes_max=9_000)

    # When more is printed than may wait in memory, nobody waits
    data = random.Random(3).randbytes(10_000)
    for at in range(0, len(data), 100):
        writer.write(data[at : at + 100])

    # Then all of it is stored when the store is back, and nothing is left in the folder
    line.is_up.set()
    writer.close()
    assert read(line) == data[:9_000] + b"\ndistci: the log is full; 1000 more bytes were dropped\n"
    writer.abandon()
    assert list(spool.iterdir()) == []


def test_c11_where_the_disk_has_no_room_whoever_prints_waits_for_the_store(
    line: LossyStore, start: Start, tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "SPOOL_FREE_BYTES_MIN", 2**62)
    line.is_up.clear()
    writer = start(line, spool=tmp_path)
    printing = Thread(target=flood, args=(writer,))
    printing.start()
    printing.join(0.5)
    assert printing.is_alive()

    line.is_up.set()
    printing.join()
    assert writer.close() == 10_000
    assert read(line) == b"x" * 10_000


def test_d24_invalid_utf_8_is_kept_and_costs_nothing_around_it(store: DirectoryStore, start: Start) -> None:
    data = b"good\n\xff\xfe\xc3\n\x00\r\x1b[31m\xed\xa0\x80 good\n"
    writer = start(store)
    writer.write(data)
    writer.close()
    assert read(store) == data


@pytest.mark.timeout(60)
def test_100_mb_of_random_bytes_come_back_within_15_s(store: DirectoryStore, start: Start) -> None:
    rng = random.Random(1)
    block = rng.randbytes(4 * MIB)
    # Blocks that are told apart, in pieces as a pipe gives them
    data = b"".join(b"%8d" % number + block[8:] for number in range(25))
    started_s = monotonic()
    writer = start(store)
    for at in range(0, len(data), 65_536):
        writer.write(data[at : at + 65_536])
    assert writer.close() == len(data)
    position = 0
    for chunk in read_log(store, PREFIX, is_complete=True):
        assert chunk == data[position : position + len(chunk)]
        position += len(chunk)
    assert position == len(data)
    assert monotonic() - started_s < 15


def test_a_log_of_thousands_of_chunks_is_read_over_all_pages(
    store: DirectoryStore, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "CHUNK_BYTES", 1)
    data = random.Random(2).randbytes(2100)
    writer = start(store)
    writer.write(data)
    writer.close()
    assert read(store) == data
    assert read(store, 1999) == data[1999:]
    assert stored_bytes(store) == 2100


def test_lines_of_several_threads_stay_whole(store: DirectoryStore, start: Start) -> None:
    writer = start(store)

    def write(number: int) -> None:
        for count in range(200):
            writer.write(b"thread %d line %d\n" % (number, count))

    threads = [Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    lines = read(store).splitlines()
    for number in range(4):
        assert [one for one in lines if one.startswith(b"thread %d " % number)] == [
            b"thread %d line %d" % (number, count) for count in range(200)
        ]
    assert len(lines) == 800


def test_the_log_of_another_attempt_is_not_read(store: DirectoryStore, start: Start) -> None:
    store.put(keys.log_chunk(BUILD, "task", "1-10", 0), b"of another attempt")
    writer = start(store)
    writer.write(b"own")
    writer.close()
    assert read(store) == b"own"
    assert stored_bytes(store) == 3


def test_a_missing_chunk_is_damage_in_a_complete_log(store: DirectoryStore) -> None:
    store.put(chunk_key(0), b"first\n")
    store.put(chunk_key(13), b"third\n")
    with pytest.raises(Damaged, match="bytes 6 to 13"):
        read(store)


def test_a_chunk_that_is_not_there_yet_is_waited_for_in_a_growing_log(store: DirectoryStore) -> None:
    # Given a store that shows a later chunk before an earlier one
    store.put(chunk_key(0), b"first\n")
    store.put(chunk_key(13), b"third\n")
    assert b"".join(read_log(store, PREFIX)) == b"first\n"
    # When that one appears
    store.put(chunk_key(6), b"second\n")
    assert b"".join(read_log(store, PREFIX, 6)) == b"second\nthird\n"


def test_beyond_its_end_a_log_has_nothing(store: DirectoryStore) -> None:
    store.put(chunk_key(0), b"first\n")
    assert read(store, 6) == read(store, 600) == b""


# Uploads that fail


@pytest.mark.usefixtures("small", "impatient")
@pytest.mark.parametrize("seed", range(10))
def test_d22_uploads_that_fail_and_are_repeated_double_and_lose_nothing(
    line: LossyStore, start: Start, seed: int
) -> None:
    # Given a store that loses half of all uploads, or the answers to them
    rng = random.Random(seed)
    line.fails = lambda: rng.choice(["before", "after", "", ""])
    data = rng.randbytes(rng.randint(2000, 6000))
    # When output comes in pieces of any size
    writer = start(line, flush_after_s=0.001)
    position = 0
    while position < len(data):
        size = rng.choice([1, 7, 100, 101, 399])
        writer.write(data[position : position + size])
        position += size
    # Then the log is that output
    assert writer.close() == len(data)
    assert read(line) == data
    assert len(line.put_keys) > len(set(line.put_keys))


@pytest.mark.usefixtures("impatient")
def test_d23_an_outage_is_waited_for_and_drops_nothing(line: LossyStore, start: Start) -> None:
    # Given a store that is away for many uploads
    line.is_up.clear()
    writer = start(line, flush_after_s=0.001)
    for number in range(100):
        writer.write(b"line %d\n" % number)
    wait_until(lambda: len(line.put_keys) >= 20)
    assert stored_bytes(line) == 0
    # When it is back
    line.is_up.set()
    # Then all of it is there
    writer.close()
    assert read(line) == b"".join(b"line %d\n" % number for number in range(100))


@pytest.mark.usefixtures("small", "impatient")
@pytest.mark.parametrize("failure", ["before", "after"])
def test_b08_a_close_whose_uploads_are_repeated_leaves_the_whole_log(
    line: LossyStore, start: Start, failure: str
) -> None:
    failures = iter([failure] * 3 + [""] + [failure] * 3)
    line.fails = lambda: next(failures, "")
    data = b"".join(b"line %d\n" % number for number in range(80))
    writer = start(line)
    writer.write(data)
    assert writer.close() == len(data)
    assert read(line) == data


@pytest.mark.usefixtures("impatient")
def test_a_close_that_takes_too_long_says_so_and_may_be_repeated(line: LossyStore, start: Start) -> None:
    line.is_up.clear()
    writer = start(line)
    writer.write(b"hello")
    with pytest.raises(StoreUnavailable):
        writer.close(timeout_s=0.05)
    line.is_up.set()
    assert writer.close() == 5
    assert read(line) == b"hello"


def test_what_can_never_be_stored_is_told_to_who_writes_and_who_closes(line: LossyStore, start: Start) -> None:
    line.error = Invalid("refused on purpose")
    writer = start(line, flush_after_s=0.001)
    writer.write(b"hello")
    wait_until(lambda: bool(line.put_keys))
    with pytest.raises(Invalid, match="on purpose"):
        writer.close()
    with pytest.raises(Invalid, match="on purpose"):
        writer.write(b"more")


@pytest.mark.usefixtures("small")
def test_a_writer_that_waits_learns_of_what_can_never_be_stored(line: LossyStore, start: Start) -> None:
    line.error = Invalid("refused on purpose")
    writer = start(line)
    with pytest.raises(Invalid, match="on purpose"):
        flood(writer)


# Back pressure


@pytest.mark.usefixtures("small", "impatient")
def test_who_prints_waits_while_too_much_is_waiting(line: LossyStore, start: Start) -> None:
    # Given a store that is away
    line.is_up.clear()
    writer = start(line)
    taken = 0
    done = Event()

    def print_on() -> None:
        nonlocal taken
        for _ in range(100):
            writer.write(b"x" * 50)
            taken += 50
        done.set()

    thread = Thread(target=print_on, daemon=True)
    thread.start()
    # When as much waits as may
    wait_until(lambda: taken >= 1000)
    tries = len(line.put_keys)
    wait_until(lambda: len(line.put_keys) > tries + 50)
    # Then no more is taken
    assert taken == 1000
    assert not done.is_set()
    # Until it is back
    line.is_up.set()
    assert done.wait(30)
    assert writer.close() == 5000
    assert read(line) == b"x" * 5000


@pytest.mark.usefixtures("impatient")
def test_d22_a_flood_during_an_outage_arrives_whole(line: LossyStore, start: Start) -> None:
    data = random.Random(3).randbytes(20 * MIB)
    line.is_up.clear()
    writer = start(line)

    def print_on() -> None:
        for at in range(0, len(data), MIB):
            writer.write(data[at : at + MIB])

    thread = Thread(target=print_on, daemon=True)
    thread.start()
    wait_until(lambda: len(line.put_keys) > 10)
    line.is_up.set()
    thread.join()
    assert writer.close() == len(data)
    assert read(line) == data


# Following


def test_d25_a_line_is_visible_well_within_a_second(store: DirectoryStore, start: Start) -> None:
    writer = start(store)
    took_s = []
    for number in range(5):
        before = stored_bytes(store)
        printed_s = monotonic()
        writer.write(b"line %d\n" % number)
        wait_until(lambda before=before: stored_bytes(store) > before)  # type: ignore[misc]
        took_s.append(monotonic() - printed_s)
        assert b"".join(read_log(store, PREFIX, before)) == b"line %d\n" % number
    # A busy machine may stand still now and then.
    assert median(took_s) < 1, took_s


def test_a_trickle_does_not_put_off_what_is_waiting(store: DirectoryStore, start: Start) -> None:
    # Given output that never pauses
    writer = start(store)
    started_s = monotonic()
    while not stored_bytes(store):
        writer.write(b"x")
        assert monotonic() - started_s < 1


@pytest.mark.usefixtures("small", "impatient")
def test_a_log_that_is_followed_while_it_is_written_is_read_once_and_in_order(line: LossyStore, start: Start) -> None:
    # Given a writer whose uploads fail now and then, and who prints on when something has been seen
    rng = random.Random(4)
    line.fails = lambda: rng.choice(["before", "after", "", ""])
    data = rng.randbytes(20_000)
    seen = bytearray()
    writer = start(line, flush_after_s=0.001)

    def write() -> None:
        for at in range(0, len(data), 500):
            wait_until(lambda: len(seen) >= at - 1000)  # noqa: B023
            writer.write(data[at : at + 500])
        writer.close()

    thread = Thread(target=write)
    thread.start()
    # When it is read again and again from where the last reading ended
    while len(seen) < len(data):
        seen += b"".join(read_log(line, PREFIX, len(seen)))
        assert data.startswith(seen)
    thread.join()
    # Then that gives the log
    assert bytes(seen) == data


# A log that is full


def test_a_full_log_says_how_much_was_dropped(store: DirectoryStore, start: Start) -> None:
    writer = start(store, bytes_max=10)
    writer.write(b"123456")
    writer.write(b"789012345")
    writer.write(b"more")
    size = writer.close()
    assert read(store) == b"1234567890\ndistci: the log is full; 9 more bytes were dropped\n"
    assert size == stored_bytes(store) == len(read(store))


def test_a_log_that_is_just_full_says_nothing(store: DirectoryStore, start: Start) -> None:
    writer = start(store, bytes_max=10)
    writer.write(b"1234567890")
    assert writer.close() == 10
    assert read(store) == b"1234567890"


@pytest.mark.usefixtures("small")
def test_a_full_log_does_not_hold_who_prints(line: LossyStore, start: Start) -> None:
    # Given a store that is away, and a log with no room left
    line.is_up.clear()
    writer = start(line, bytes_max=1000)
    writer.write(b"x" * 1000)
    # Then what is dropped waits for nothing
    for _ in range(100):
        writer.write(b"y" * 100)
    line.is_up.set()
    writer.close()
    assert b"10000 more bytes were dropped" in read(line)


# A log that nobody wants


@pytest.mark.usefixtures("small")
def test_an_abandoned_log_uploads_no_more_and_holds_nobody(line: LossyStore, start: Start) -> None:
    # Given a store that is away, and somebody who waits for room
    line.is_up.clear()
    writer = start(line)
    thread = Thread(target=flood, args=(writer,), daemon=True)
    thread.start()
    wait_until(lambda: bool(line.put_keys))
    # When nobody wants the log any more
    writer.abandon()
    # Then all go on, and nothing comes later
    thread.join(30)
    assert not thread.is_alive()
    line.is_up.set()
    assert stored_bytes(line) == 0
    assert len(set(line.put_keys)) == 1


def test_what_is_written_to_an_abandoned_log_is_dropped(store: DirectoryStore, start: Start) -> None:
    writer = start(store)
    writer.abandon()
    tracemalloc.start()
    try:
        for _ in range(50):
            writer.write(bytes(MIB))
        assert tracemalloc.get_traced_memory()[0] < 10 * MIB
    finally:
        tracemalloc.stop()
    assert stored_bytes(store) == 0


def test_a_log_may_be_abandoned_twice_and_after_its_end(store: DirectoryStore, start: Start) -> None:
    writer = start(store)
    writer.write(b"hello")
    writer.close()
    writer.abandon()
    writer.abandon()
    assert read(store) == b"hello"
