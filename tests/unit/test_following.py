"""Feeds are looked at once for all; followers know where they are; logs are read from anywhere."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from threading import Barrier, Event, Thread

import pytest
from waiting import wait_until

from distci import console
from distci.builds import TaskView
from distci.errors import Invalid, NoSuchBuild, StoreUnavailable
from distci.following.feeds import Feed, Feeds
from distci.following.logs import PIECE_BYTES, Log, bytes_of, tokens_of
from distci.following.positions import Position
from distci.model import BuildId, TaskState
from distci.store import keys
from distci.store.directory import DirectoryStore
from distci.store.passing import PassingStore
from distci.store.port import PAGE_LENGTH, ObjectInfo, Store

LOG = Log(BuildId("team/hello", 1), "say", "t.1")
T1, T2, U1 = "t.1", "t.2", "u.1"


class Counting(Feed):
    """Counts how often it is looked at, and does then what it is told to."""

    def __init__(self, delay_s: float | None = 3600.0) -> None:
        super().__init__()
        self.looks = 0
        self.delay_s = delay_s
        self.fails_with: Exception | None = None

    def look(self) -> float | None:
        self.looks += 1
        if self.fails_with:
            raise self.fails_with
        return self.delay_s


class TestFeeds:
    def test_what_many_hold_is_one_and_goes_with_the_last(self) -> None:
        feeds = Feeds()
        first = feeds.hold("a", Counting)
        assert feeds.hold("a", Counting) is first
        wait_until(lambda: first.looks == 1)
        feeds.release("a")
        first.woken.set()
        wait_until(lambda: first.looks == 2)
        feeds.release("a")
        assert len(feeds) == 0
        assert feeds.hold("a", Counting) is not first

    def test_it_is_looked_at_when_it_is_woken_even_during_a_look(self) -> None:
        looking, go_on = Event(), Event()

        class Slow(Counting):
            def look(self) -> float | None:
                looking.set()
                go_on.wait(10)
                return super().look()

        feeds = Feeds()
        feed = feeds.hold("a", Slow)
        assert looking.wait(10)
        feed.woken.set()
        go_on.set()
        wait_until(lambda: feed.looks == 2)

    def test_no_feed_waits_for_one_that_hangs(self) -> None:
        hanging = Event()

        class Hanging(Feed):
            def look(self) -> float | None:
                hanging.wait(30)
                return None

        feeds = Feeds(threads=2)
        feeds.hold("hangs", Hanging)
        feed = feeds.hold("goes on", lambda: Counting(0.001))
        wait_until(lambda: feed.looks > 20)
        hanging.set()

    def test_what_does_not_answer_is_told_and_asked_again(self) -> None:
        told = Event()
        feed = Counting(0.001)
        feed.fails_with = StoreUnavailable("away")
        feed.listen(told.set)
        feeds = Feeds()
        feeds.hold("a", lambda: feed)
        assert told.wait(10)
        assert (feed.trouble, feed.is_over) == ("away", False)
        told.clear()
        feed.fails_with = None
        assert told.wait(10)
        wait_until(lambda: not feed.trouble)

    @pytest.mark.parametrize("error", [NoSuchBuild("none"), ZeroDivisionError()])
    def test_any_other_error_ends_it_and_is_told(self, error: Exception) -> None:
        told = Event()
        feed = Counting()
        feed.fails_with = error
        feed.listen(told.set)
        Feeds().hold("a", lambda: feed)
        assert told.wait(10)
        wait_until(lambda: feed.is_over)
        assert feed.error is not None

    def test_none_is_looked_at_twice_at_a_time(self) -> None:
        class Alone(Counting):
            is_looked_at = False

            def look(self) -> float | None:
                assert not self.is_looked_at
                self.is_looked_at = True
                for _ in range(100):
                    pass
                self.is_looked_at = False
                return super().look()

        feeds = Feeds()
        feed = feeds.hold("a", lambda: Alone(0.0))
        start = Barrier(4)

        def wake() -> None:
            start.wait()
            for _ in range(1000):
                feed.woken.set()

        wakers = [Thread(target=wake) for _ in range(4)]
        for waker in wakers:
            waker.start()
        for waker in wakers:
            waker.join()
        wait_until(lambda: feed.looks > 50)
        assert feed.error is None
        feeds.close()


class TestPositions:
    @pytest.mark.parametrize("text", ["", "t.1:0", "0abz.12:999999"])
    def test_of_one_log_are_read_as_they_are_written(self, text: str) -> None:
        assert str(Position.parse(text, is_single=True)) == text

    @pytest.mark.parametrize("text", ["", "0", "0-3", "1:t.1:5", "0-3,5,4:t.1:5,7:u.2:0"])
    def test_of_a_build_are_read_as_they_are_written(self, text: str) -> None:
        assert str(Position.parse(text, is_single=False)) == text

    @pytest.mark.parametrize("text", ["x", "t.1", "t.1:-1", "t.1:1:1", "0:t.1:1", "a-b", "t.1:1,", "../x.1:1", "t.1:٣"])
    def test_nothing_else_is_one_of_one_log(self, text: str) -> None:
        with pytest.raises(Invalid):
            Position.parse(text, is_single=True)

    @pytest.mark.parametrize("text", ["x", "t.1:1", "-1", "1-", "0:t.1", "0:t.1:x", "0,,1", "999999", "0-999999"])
    def test_nothing_else_is_one_of_a_build(self, text: str) -> None:
        with pytest.raises(Invalid):
            Position.parse(text, is_single=False)

    def test_of_many_tasks_that_are_over_are_short(self) -> None:
        position = Position(is_single=False)
        position.done.update(range(500))
        position.at[500] = T1, 7
        assert str(position) == "0-499,500:t.1:7"

    @pytest.mark.parametrize(
        ("at", "is_through", "tokens", "goes_on_with"),
        [
            (None, False, [], None),
            (None, False, [T1, U1], T1),
            (T1, False, [T1, U1], T1),
            (T1, True, [T1, U1], U1),
            (U1, True, [T1, U1], None),
            # An attempt that was lost left no record, and its ticket goes on with the next one.
            (T1, False, [T2, U1], T2),
            (U1, False, [T1], None),
            (U1, False, [T1, "u.2"], "u.2"),
            (T1, False, [], None),
        ],
    )
    def test_attempts_are_told_in_their_order(
        self, at: str | None, is_through: bool, tokens: list[str], goes_on_with: str | None
    ) -> None:
        position = Position(is_single=True)
        if at:
            position.at[0] = at, 9
        if is_through:
            position.through.add(0)
        assert position.next_token(0, tokens) == goes_on_with


@pytest.mark.parametrize(
    ("state", "token", "recorded", "tokens"),
    [
        (TaskState.WAITING, "", [], []),
        (TaskState.RUNNING, U1, [T1], [T1, U1]),
        (TaskState.READY, T1, [T1], [T1]),
        (TaskState.PASSED, U1, [T1, U1], [T1, U1]),
    ],
)
def test_the_attempts_at_a_task_are_those_on_record_and_the_one_that_runs(
    state: TaskState, token: str, recorded: list[str], tokens: list[str]
) -> None:
    attempts = [{"token": each} for each in recorded]
    assert [*tokens_of(TaskView("say", "shell", (), state, token, "", "", False, attempts, 0))] == tokens


class CountingStore(PassingStore):
    """Counts how often it is asked for a list."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.lists = 0

    def list(self, prefix: str, after: str = "", limit: int = PAGE_LENGTH) -> Sequence[ObjectInfo]:
        self.lists += 1
        return super().list(prefix, after, limit)


class TestReadingALog:
    @pytest.mark.parametrize("seed", range(5))
    def test_pieces_from_anywhere_are_the_bytes_of_the_log(self, tmp_path: Path, seed: int) -> None:
        # Given a log in chunks of very different sizes
        chance = random.Random(seed)
        store, whole = DirectoryStore(tmp_path, durable=False), b""
        for _ in range(200):
            chunk = chance.randbytes(chance.choice([1, 2, 10, 100, 5000]))
            store.put(keys.log_chunk(LOG.build, LOG.task, LOG.token, len(whole)), chunk)
            whole += chunk
        # When it is read from anywhere
        for _ in range(60):
            start, most = chance.randrange(len(whole) + 1), chance.choice([1, 7, 1000, 100_000])
            # Then it is what is there
            assert console.read_piece(store, LOG.prefix, start, most) == whole[start : start + most]
        assert console.read_piece(store, LOG.prefix, len(whole) + 5, 10) == b""
        assert not console.is_more_after(store, LOG.prefix, len(whole))

    def test_what_has_grown_is_read_from_end_to_end_of_chunks(self, tmp_path: Path) -> None:
        # Given a log that grows
        store, whole, read = CountingStore(DirectoryStore(tmp_path, durable=False)), b"", b""
        for number in range(200):
            chunk = b"%d\n" % number
            store.put(keys.log_chunk(LOG.build, LOG.task, LOG.token, len(whole)), chunk)
            whole += chunk
            # When whoever has read to its end asks now and then what has come
            if number % 70 == 0:
                while data := console.read_growth(store, LOG.prefix, len(read)):
                    read += data
                assert read == whole
        while data := console.read_growth(store, LOG.prefix, len(read)):
            read += data
        # Then it is all of it, and asking for nothing new is one list
        assert read == whole
        before = store.lists
        assert console.read_growth(store, LOG.prefix, len(whole)) == b""
        assert store.lists == before + 1

    def test_a_place_in_a_long_log_is_found_with_few_questions(self, tmp_path: Path) -> None:
        store, offset = CountingStore(DirectoryStore(tmp_path, durable=False)), 0
        for _ in range(1000):
            store.put(keys.log_chunk(LOG.build, LOG.task, LOG.token, offset), b"x" * 1000)
            offset += 1000
        for start in (0, 500_000, 500_500, offset - 1, offset):
            before = store.lists
            assert len(console.read_piece(store, LOG.prefix, start, 3000)) == min(3000, offset - start)
            assert store.lists - before <= len(console.BACK), start

    def test_no_byte_behind_a_hole_is_read(self, tmp_path: Path) -> None:
        store = DirectoryStore(tmp_path, durable=False)
        store.put(keys.log_chunk(LOG.build, LOG.task, LOG.token, 0), b"abc")
        store.put(keys.log_chunk(LOG.build, LOG.task, LOG.token, 5), b"fgh")
        assert console.read_piece(store, LOG.prefix, 1, 100) == b"bc"
        assert console.read_piece(store, LOG.prefix, 3, 100) == b""
        assert console.is_more_after(store, LOG.prefix, 3)

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"text\n",
            "ä€😀".encode() * 50_000,
            b"\xff\x00" * 100_000,
            bytes(range(256)) * 1000,
            "\u2028\r\n".encode(),
        ],
    )
    def test_pieces_carry_all_bytes_and_text_as_text(self, data: bytes) -> None:
        # When bytes are cut into pieces
        pieces = [*LOG.pieces(7, data)]
        # Then together they are what they were, none is large, no line of what is sent breaks, and text is not cut within a character
        assert b"".join(piece.data for piece in pieces) == data
        position = 7
        for piece in pieces:
            assert piece.offset == position
            assert 0 < len(piece.data) <= PIECE_BYTES
            assert not {*b"\r\n"} & {*piece.document}
            position = piece.end
        try:
            data.decode()
        except UnicodeDecodeError:
            return
        assert all(b'"text"' in piece.document for piece in pieces)

    def test_documents_are_read_back(self) -> None:
        assert bytes_of({"text": "ä"}) == "ä".encode()
        assert bytes_of({"base64": "/wA="}) == b"\xff\x00"
