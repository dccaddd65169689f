"""The promises of the store port, held against every adapter; then what each adapter promises besides."""

from __future__ import annotations

import inspect
import io
import multiprocessing
import os
import resource
import threading
import time
import tracemalloc
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product, repeat
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, BinaryIO, cast

import boto3.exceptions
import botocore.exceptions
import pytest
import s3transfer.exceptions
from conformance.store_server import Address, Answer, BadNetwork, SharedObjects, bad_network, new_bucket, new_namespace
from services import STORES
from services.ceph import admin, unreachable_ceph
from services.daemon import free_port

from distci.errors import Damaged, DistCIError, Forbidden, Invalid, NoSuchObject, StoreUnavailable
from distci.store import directory as directory_store
from distci.store.attended import AttendedStore
from distci.store.directory import DirectoryStore
from distci.store.port import ObjectInfo, Store
from distci.store.rados import RadosStore
from distci.store.s3 import S3Store, home_of

MIB = 1024 * 1024
WAIT_S = 60

spawn = multiprocessing.get_context("spawn")


@pytest.fixture(params=STORES)
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Address:
    """An empty store of each kind."""
    return _new_address(request, tmp_path)


def _new_address(request: pytest.FixtureRequest, folder: Path) -> Address:
    if request.param == "directory":
        return Address(str(folder / "store"))
    if request.param == "rados":
        return new_namespace(request.getfixturevalue("ceph_configuration"))
    return new_bucket(request.getfixturevalue(f"{request.param}_endpoint"))


@pytest.fixture
def store(address: Address) -> Store:
    return address.open()


@pytest.fixture(
    params=[
        *("removed", "a file", "not mounted"),
        *("nobody listens", "no bucket", "answers 503", "answers 404"),
        *("no pool", "pool removed"),
    ]
)
def unreachable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store that was there and is not any more."""
    if request.param in ("removed", "a file", "not mounted"):
        yield _store_without_its_directory(tmp_path / "store", request.param)
    elif request.param in ("no pool", "pool removed"):
        yield _store_without_its_pool(request.getfixturevalue("ceph_configuration"), request.param)
    elif request.param == "nobody listens":
        yield Address(f"http://127.0.0.1:{free_port()}", "bucket").open(attempts=1)
    elif request.param == "no bucket":
        yield Address(request.getfixturevalue("s3_endpoint"), "never-made").open(attempts=1)
    else:
        status = int(request.param.removeprefix("answers "))
        with bad_network(request.getfixturevalue("s3_endpoint")) as network:
            network.answers = [Answer(method, status) for method in ("GET", "HEAD", "PUT", "DELETE", "POST") * 4]
            yield Address(network.endpoint, "bucket").open(attempts=1)


def _store_without_its_directory(directory: Path, what: str) -> Store:
    store = DirectoryStore(directory, durable=False)
    (directory / ".incoming").rmdir()
    if what != "not mounted":
        directory.rmdir()
    if what == "a file":
        directory.touch()
    return store


def _store_without_its_pool(configuration: Path, what: str) -> Store:
    address = new_namespace(configuration)
    pool = f"tests-{uuid.uuid4().hex}"
    store = RadosStore(SharedObjects(pool, address.namespace, conf=address.place, name="client.admin"))
    if what == "pool removed":
        admin(configuration, "osd", "pool", "create", pool, "1")
        store.put("a/b", b"data")
        admin(configuration, "osd", "pool", "rm", pool, pool, "--yes-i-really-really-mean-it")
    return store


CALLS: dict[str, Callable[[Store, str], object]] = {
    "put": lambda store, key: store.put(key, b"data"),
    "put a stream": lambda store, key: store.put(key, io.BytesIO(b"data")),
    "put_if_absent": lambda store, key: store.put_if_absent(key, b"data"),
    "get": lambda store, key: store.get(key),
    "open": lambda store, key: store.open(key).read(),
    "head": lambda store, key: store.head(key),
    "delete": lambda store, key: store.delete(key),
    "list": lambda store, key: store.list(key),
}


# What is written is read.


@pytest.mark.parametrize("size", [0, 1, 3 * MIB + 1])
def test_bytes_come_back_as_they_were_put(store: Store, size: int) -> None:
    data = os.urandom(size)
    store.put("a/b", data)
    assert store.get("a/b") == data
    assert _read(store, "a/b") == data


@pytest.mark.parametrize("size", [0, 1, 8 * MIB, 20 * MIB + 1])
def test_a_stream_comes_back_as_it_was_put(store: Store, size: int) -> None:
    data = os.urandom(size)
    store.put("a/b", io.BytesIO(data))
    assert _read(store, "a/b") == data


def test_a_stream_that_gives_a_little_at_a_time_is_read_to_its_end(store: Store) -> None:
    data = os.urandom(9 * MIB)
    store.put("a", _stream(data[i : i + 10_000] for i in range(0, len(data), 10_000)))
    assert store.get("a") == data


def test_a_stream_is_put_from_where_it_stands_and_left_open(store: Store) -> None:
    source = io.BytesIO(b"skipped, kept")
    source.seek(9)
    store.put("a", source)
    assert store.get("a") == b"kept"
    assert not source.closed


def test_a_put_replaces_what_was_there(store: Store) -> None:
    store.put("a", b"the first, which is longer")
    store.put("a", io.BytesIO(b"the second"))
    assert store.get("a") == b"the second"
    store.put("a", b"third")
    assert store.get("a") == b"third"


def test_a_range_is_what_a_slice_would_be(store: Store) -> None:
    data = b"0123456789"
    store.put("a", data)
    for start, length in product((0, 1, 9, 10, 11, 10**12), (None, 0, 1, 4, 10, 11, 10**12)):
        expected = data[start:] if length is None else data[start : start + length]
        assert store.get("a", start, length) == expected, (start, length)


def test_a_stream_begins_where_it_is_asked_to(store: Store) -> None:
    data = b"0123456789"
    store.put("a", data)
    for start in (0, 1, 10, 11, 10**12):
        assert _read(store, "a", start) == data[start:], start


def test_a_negative_range_is_refused(store: Store) -> None:
    store.put("a", b"data")
    for start, length in ((-1, None), (-1, 5), (0, -1)):
        with pytest.raises(Invalid):
            store.get("a", start, length)


def test_head_tells_size_and_time(store: Store) -> None:
    before = time.time()
    store.put("a/b", b"12345")
    info = store.head("a/b")
    assert info is not None
    assert (info.key, info.size_bytes) == ("a/b", 5)
    assert before - 2 < info.modified_s < time.time() + 2


def test_listing_tells_what_head_tells(store: Store) -> None:
    store.put("a/b", b"12345")
    assert list(store.list("")) == [store.head("a/b")]


# What is not there is missing; what cannot be reached is not.


@pytest.mark.parametrize("call", ["get", "open"])
def test_reading_what_is_not_there_says_so(store: Store, call: str) -> None:
    store.put("a/b/c", b"data")
    for key in ("b", "a", "a/b", "a/b/c/d", "a/b/cc"):
        with pytest.raises(NoSuchObject, match=f"'{key}'"):
            CALLS[call](store, key)
        assert store.head(key) is None


def test_nothing_of_nothing_is_still_missing(store: Store) -> None:
    with pytest.raises(NoSuchObject):
        store.get("a", 0, 0)


def test_an_empty_store_lists_nothing(store: Store) -> None:
    assert list(store.list("")) == []
    assert list(store.list("a/b/")) == []


def test_a_deleted_object_is_missing(store: Store) -> None:
    store.put("a/b", b"data")
    store.delete("a/b")
    assert store.head("a/b") is None
    assert list(store.list("")) == []


def test_deleting_again_does_nothing(store: Store) -> None:
    store.put("a/b", b"data")
    for _ in range(3):
        store.delete("a/c")
    assert store.get("a/b") == b"data"


def test_an_unreachable_store_is_never_empty(unreachable: Store) -> None:
    for call in CALLS.values():
        with pytest.raises(StoreUnavailable):
            call(unreachable, "a/b")


HOSTILE_PREFIXES = ["/", "/etc/", "a//b", "../", "a/../b", "./a", "a\0b", "a\nb", "é", "a\x7f", "\udcff", "x" * 901]
HOSTILE_KEYS = [*HOSTILE_PREFIXES, "", "..", "a/.", "a/"]


@pytest.mark.parametrize("verb", ["put", "open"])
def test_a_move_of_many_bytes_ends_when_it_shall(store: Store, verb: str) -> None:
    # Given 20 MiB on their way, through a store whose user is asked
    content = bytes(20 * 1024 * 1024)
    left = iter(range(3))

    def checkpoint() -> None:
        if next(left, None) is None:
            raise KeyError("ended on purpose")

    attended = AttendedStore(store, checkpoint)
    store.put("old", content)

    # When the user does not want to go on
    def move() -> None:
        if verb == "put":
            attended.put("new", io.BytesIO(content))
        else:
            with attended.open("old") as stream:
                while stream.read(1024 * 1024):
                    pass

    with pytest.raises(KeyError, match="ended on purpose"):
        move()

    # Then there is no part of it
    assert store.head("new") is None


@pytest.fixture(params=["directory", "s3", "rados"])
def out_of_reach(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store that cannot be touched without an error."""
    if request.param == "directory":
        return _store_without_its_directory(tmp_path / "store", "removed")
    if request.param == "rados":
        return new_namespace(unreachable_ceph(tmp_path)).open()
    return Address(f"http://127.0.0.1:{free_port()}", "bucket").open(attempts=1)


def test_a_hostile_key_is_refused_before_anything_is_touched(out_of_reach: Store) -> None:
    for call, key in product([call for name, call in CALLS.items() if name != "list"], HOSTILE_KEYS):
        with pytest.raises(Invalid):
            call(out_of_reach, key)


def test_a_hostile_prefix_is_refused_before_anything_is_touched(out_of_reach: Store) -> None:
    for prefix in HOSTILE_PREFIXES:
        with pytest.raises(Invalid):
            out_of_reach.list(prefix)
        with pytest.raises(Invalid):
            out_of_reach.list("", after=prefix)


# Listings.

TANGLED_KEYS = [
    *("a", "a-b", "a.b", "a/b", "a/b/c", "a/b-c", "a0", "ab", "A", "a/.b", "a b/c d", "b"),
    *("a=", "a=/b", "a+", "a+/b", "a-", "a-/b", "%2F", "!/~", "".join(map(chr, range(33, 47))) + ":;<=>?@[]^_`{|}~"),
    *("x" * 253, "x" * 254, "x" * 255, "x" * 253 + "/a", "x" * 254 + "/a", "x" * 254 + "-/a", "x" * 254 + "0"),
    "x" * 600 + "/" + "y" * 299,
]
TANGLED_PREFIXES = [
    "",
    "a",
    "a/",
    "a/b",
    "a/b/",
    "a-",
    "a+/",
    "A",
    "x" * 100,
    "x" * 254,
    "x" * 254 + "/",
    "x" * 300,
    "c",
    "a/b/c/d",
]


@pytest.fixture(scope="module", params=STORES)
def tangled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store, to be read only, of keys that get into each other's way, and some that look like our file names."""
    store = _new_address(request, tmp_path_factory.mktemp("tangled")).open()
    for key in reversed(TANGLED_KEYS):
        store.put(key, key.encode())
    return store


def test_keys_that_begin_others_keep_their_own_bytes(tangled: Store) -> None:
    assert [tangled.get(key).decode() for key in TANGLED_KEYS] == TANGLED_KEYS


def test_a_listing_has_every_key_of_its_prefix_in_order(tangled: Store) -> None:
    for prefix in TANGLED_PREFIXES:
        assert _keys(tangled.list(prefix)) == sorted(key for key in TANGLED_KEYS if key.startswith(prefix)), prefix


def test_pages_have_every_key_once_in_order(tangled: Store) -> None:
    for prefix in ("", "a", "x"):
        expected = sorted(key for key in TANGLED_KEYS if key.startswith(prefix))
        assert list(_paged(tangled, prefix, limit=3)) == expected, prefix


def test_a_listing_goes_on_after_any_key_whether_it_is_there_or_not(tangled: Store) -> None:
    for after in ["", "a", "a/", "a/b", "a/b/", "a/b/b", "a/b/c", "a~", "w", "x" * 254, "x" * 254 + ".", "y"]:
        assert _keys(tangled.list("", after)) == sorted(key for key in TANGLED_KEYS if key > after)


def test_a_page_is_no_longer_than_asked_for(tangled: Store) -> None:
    assert _keys(tangled.list("a/", limit=2)) == ["a/.b", "a/b"]


# Who is first.


def test_what_is_there_is_not_replaced_by_put_if_absent(store: Store) -> None:
    assert store.put_if_absent("a/b", b"first")
    assert not store.put_if_absent("a/b", b"second")
    assert store.get("a/b") == b"first"


def test_what_was_deleted_is_absent_again(store: Store) -> None:
    store.put("a/b", b"first")
    store.delete("a/b")
    assert store.put_if_absent("a/b", b"second")
    assert store.get("a/b") == b"second"


def test_of_eight_threads_exactly_one_is_first(store: Store) -> None:
    together = threading.Barrier(8)

    def race(name: int) -> list[bool]:
        together.wait(WAIT_S)
        return [store.put_if_absent(f"race/{i}", str(name).encode()) for i in range(10)]

    with ThreadPoolExecutor(8) as pool:
        wins = list(pool.map(race, range(8)))

    _assert_one_winner_each(store, wins)


def test_of_four_processes_exactly_one_is_first(address: Address, store: Store) -> None:
    together = spawn.Barrier(4)
    racers = [_in_process(_race, address, name, together) for name in range(4)]
    _assert_one_winner_each(store, [_told_by(racer) for _, racer in racers])


def _race(told: Connection, address: Address, name: int, together: Barrier) -> None:
    store = address.open()
    together.wait(WAIT_S)
    told.send([store.put_if_absent(f"race/{i}", str(name).encode()) for i in range(10)])


def _assert_one_winner_each(store: Store, wins: Sequence[Sequence[bool]]) -> None:
    for i, claims in enumerate(zip(*wins, strict=True)):
        assert sum(claims) == 1
        assert int(store.get(f"race/{i}")) == claims.index(True)


# Whole or not at all.


@pytest.mark.parametrize("mebibytes", [0, 1, 20])
def test_a_source_that_breaks_leaves_nothing(store: Store, address: Address, mebibytes: int) -> None:
    with pytest.raises(Damaged, match="the source broke"):
        store.put("a/b", _stream(_broken(mebibytes, Damaged("the source broke"))))
    assert store.head("a/b") is None
    assert list(store.list("")) == []
    assert _leftovers(address) == []


def test_a_source_that_breaks_leaves_the_old_object(store: Store) -> None:
    store.put("a/b", b"old")
    with pytest.raises(Damaged):
        store.put("a/b", _stream(_broken(20, Damaged("the source broke"))))
    assert store.get("a/b") == b"old"


def test_a_source_keeps_its_own_errors(store: Store) -> None:
    with pytest.raises(OSError, match="source"):
        store.put("a/b", _stream(_broken(1, OSError("the source"))))


def test_a_killed_writer_leaves_nothing_to_be_seen(store: Store, address: Address) -> None:
    process, writer = _in_process(_write_and_stall, address)
    assert _told_by(writer) == "stalled"

    process.kill()
    process.join(WAIT_S)

    assert store.head("a/b") is None
    assert list(store.list("")) == []
    store.put("a/b", b"by another")
    assert store.get("a/b") == b"by another"


def _write_and_stall(told: Connection, address: Address) -> None:
    address.open().put("a/b", _stream(_stalled(20, told)))


def test_readers_see_one_version_or_another_never_a_mixture(store: Store) -> None:
    done = threading.Event()
    versions = [bytes([letter]) * MIB for letter in b"abcd"]
    store.put("a", versions[0])

    def read() -> set[bytes]:
        seen = set()
        while not done.is_set():
            seen.add(store.get("a"))
        return seen

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        for version in versions * 3:
            store.put("a", version)
        done.set()
        seen = set().union(*(reader.result() for reader in readers))

    assert seen <= set(versions)


def test_writers_and_deleters_of_neighbours_do_not_disturb_each_other(store: Store) -> None:
    def churn(name: int) -> None:
        for _ in range(10):
            store.put(f"a/b/c/{name}", b"data")
            assert store.get(f"a/b/c/{name}") == b"data"
            store.delete(f"a/b/c/{name}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(churn, range(4)))

    assert list(store.list("")) == []


def test_a_large_stream_needs_little_memory(store: Store) -> None:
    tracemalloc.start()
    try:
        store.put("a", _stream(_zeros(200)))
        with store.open("a") as stream:
            read = sum(map(len, iter(lambda: stream.read(MIB), b"")))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert read == 200 * MIB
    assert peak < 40 * MIB


# The directory by itself.


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "store"


def test_ten_thousand_keys_are_listed_each_once(directory: Path) -> None:
    store = DirectoryStore(directory, durable=False)
    keys = [f"builds/job:{i % 7}/{i:09}/plan.json" for i in range(10_000)]
    for key in keys:
        store.put(key, b"")
    assert list(_paged(store, "builds/", limit=1000)) == sorted(keys)


def test_a_narrow_prefix_reads_only_the_folders_that_can_hold_it(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DirectoryStore(directory, durable=False)
    for key in ("a/b/c/1", "a/b/d/1", "a/bb/c/1", "e/f/1"):
        store.put(key, b"")
    read: list[str] = []
    scandir = os.scandir

    def scan(folder: Path) -> Any:
        read.append(str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", scan)

    assert _keys(store.list("a/b/c")) == ["a/b/c/1"]

    assert read == [str(directory / "a+" / "b+"), str(directory / "a+" / "b+" / "c+")]


def test_an_interrupt_while_a_file_is_closed_is_heard(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = DirectoryStore(directory)
    store.put("a", b"data")
    closed: list[io.FileIO] = []

    def interrupted(file: io.FileIO) -> None:
        if not closed:
            closed.append(file)
            raise KeyboardInterrupt
        io.FileIO.close(file)

    monkeypatch.setattr(directory_store._StoreFile, "close", interrupted)

    with pytest.raises(KeyboardInterrupt):
        store.get("a")


def test_what_an_abandoned_writer_left_is_swept_a_day_later(directory: Path) -> None:
    DirectoryStore(directory)
    left = directory / ".incoming" / "left"
    left.touch()

    DirectoryStore(directory, clock=lambda: time.time() + 23 * 3600)
    assert left.exists()
    DirectoryStore(directory, clock=lambda: time.time() + 25 * 3600)
    assert not left.exists()


def test_files_of_others_are_never_listed(directory: Path) -> None:
    store = DirectoryStore(directory)
    store.put("a/b", b"")
    for name in ("lost+found", "notes.txt", "backup-", "é="):
        (directory / name).mkdir()
        (directory / "a+" / name).touch()
    assert _keys(store.list("")) == ["a/b"]


def test_the_last_object_takes_its_folders_with_it(directory: Path) -> None:
    store = DirectoryStore(directory)
    store.put("a/b/c", b"")
    store.put("a/d", b"")
    store.delete("a/b/c")
    assert sorted(path.name for path in (directory / "a+").iterdir()) == ["d="]
    store.delete("a/d")
    assert [path.name for path in directory.iterdir()] == [".incoming"]


def test_a_stream_goes_on_with_the_version_that_it_was_opened_on(directory: Path) -> None:
    store = DirectoryStore(directory)
    store.put("a", b"old")
    with store.open("a") as stream:
        store.put("a", b"new")
        assert stream.read() == b"old"


@pytest.mark.parametrize("durable", [True, False])
def test_bytes_are_made_durable_before_their_name_and_both_before_the_return(
    directory: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    store = DirectoryStore(directory, durable=durable)
    store.put("a/c", b"")
    steps: list[str] = []
    monkeypatch.setattr(os, "fsync", _recorded(steps, "sync", os.fsync))
    monkeypatch.setattr(os, "replace", _recorded(steps, "move", os.replace))

    store.put("a/b", b"data")

    assert steps == (["sync", "move", "sync"] if durable else ["move"])


def test_a_full_disk_is_unavailable_and_named(directory: Path) -> None:
    _, writer = _in_process(_write_past_the_limit, directory)
    said = _told_by(writer)
    assert said.startswith("StoreUnavailable: store: File too large: ")
    assert str(directory) in said
    assert _leftovers(Address(str(directory))) == []


def _write_past_the_limit(told: Connection, directory: Path) -> None:
    """Files that may not grow stand in for a disk that is full: both refuse the write itself."""
    store = DirectoryStore(directory)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, MIB))
    try:
        store.put("a", _stream(_zeros(3)))
    except DistCIError as error:
        told.send(f"{type(error).__name__}: {error}")


@pytest.mark.parametrize("place", ["file", "file/store"])
def test_a_directory_that_cannot_be_made_is_unavailable_and_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match=str(tmp_path / place)):
        DirectoryStore(tmp_path / place)


# S3 by itself.


@pytest.fixture(params=["s3_endpoint", "gateway_endpoint"])
def bucket(request: pytest.FixtureRequest) -> Address:
    return new_bucket(request.getfixturevalue(request.param))


@pytest.fixture
def network(s3_endpoint: str) -> Iterator[BadNetwork]:
    """A network that may change what is sent, before a server that does not look at signatures."""
    with bad_network(s3_endpoint) as network:
        yield network


@pytest.fixture
def far(s3_endpoint: str, network: BadNetwork) -> S3Store:
    """A bucket, seen through the bad network."""
    return Address(network.endpoint, new_bucket(s3_endpoint).bucket).open_bucket()


def test_a_server_that_lists_less_than_asked_for_is_asked_again(far: S3Store, network: BadNetwork) -> None:
    keys = [f"a/{i:02}" for i in range(20)]
    for key in keys:
        far.put(key, b"")
    network.page_length = 7
    assert _keys(far.list("a/")) == keys
    assert _keys(far.list("a/", after="a/02", limit=15)) == keys[3:18]


def test_objects_that_others_left_in_the_bucket_are_never_listed(bucket: Address) -> None:
    store = bucket.open()
    store.put("a/b", b"")
    for name in ("a/", "é", "a//b"):
        bucket.client().put_object(Bucket=bucket.bucket, Key=name, Body=b"")
    assert _keys(store.list("")) == ["a/b"]
    assert _keys(store.list("", limit=1)) == ["a/b"]


def test_stores_of_different_prefixes_do_not_see_each_other(bucket: Address) -> None:
    one, other = bucket.open_bucket(prefix="x"), bucket.open_bucket(prefix="/xy/z/")
    one.put("a", b"one")
    other.put("a", b"other")
    assert (one.get("a"), other.get("a")) == (b"one", b"other")
    assert _keys(one.list("")) == _keys(other.list("")) == ["a"]
    assert list(one.list("", after="a")) == []
    names = [entry["Key"] for entry in bucket.client().list_objects_v2(Bucket=bucket.bucket)["Contents"]]
    assert names == ["x/a", "xy/z/a"]


@pytest.mark.parametrize("prefix", ["x" * 101, "a//b", "../a", "é"])
def test_a_prefix_that_keys_cannot_have_is_refused(prefix: str) -> None:
    with pytest.raises(Invalid):
        S3Store("bucket", prefix, region="us-east-1")


@pytest.mark.parametrize(("bucket_name", "endpoint"), [("bucket", "nonsense"), ("no bucket", "http://127.0.0.1:9")])
def test_settings_that_cannot_work_are_invalid(bucket_name: str, endpoint: str) -> None:
    with pytest.raises(Invalid):
        Address(endpoint, bucket_name).open().get("a")


def test_a_download_that_breaks_goes_on_where_it_broke(far: S3Store, network: BadNetwork) -> None:
    data = os.urandom(3 * MIB)
    far.put("a", data)
    network.downloads_cut_after = [MIB + 1, 0, 17]
    assert far.get("a") == data
    network.downloads_cut_after = [MIB + 1, 0, 17]
    assert _read(far, "a", start=100) == data[100:]
    network.downloads_cut_after = [10]
    assert far.get("a", 100, 50) == data[100:150]


def test_a_download_that_never_gets_on_is_unavailable(far: S3Store, network: BadNetwork) -> None:
    far.put("a", bytes(MIB))
    network.downloads_cut_after = [1000] + [0] * 20
    with pytest.raises(StoreUnavailable):
        far.get("a")


@pytest.mark.parametrize("replacement", [b"b" * MIB, b"shorter"])
def test_a_download_never_joins_two_versions(far: S3Store, network: BadNetwork, replacement: bytes) -> None:
    far.put("a", b"a" * MIB)
    network.downloads_cut_after = [100_000]
    with far.open("a") as stream:
        assert stream.read(1) == b"a"
        far.put("a", replacement)
        with pytest.raises(StoreUnavailable, match="replaced while it was read"):
            stream.read()


def test_a_conditional_write_that_met_another_is_tried_again(far: S3Store, network: BadNetwork) -> None:
    network.answers = [Answer("PUT", 409)] * 3
    assert far.put_if_absent("a", b"data")
    assert far.get("a") == b"data"


def test_a_conditional_write_that_always_meets_others_is_unavailable(far: S3Store, network: BadNetwork) -> None:
    network.answers = [Answer("PUT", 409)] * 100
    with pytest.raises(StoreUnavailable):
        far.put_if_absent("a", b"data")


@pytest.mark.parametrize("then", [[], [Answer("PUT", 409)]], ids=["refused", "met another"])
def test_a_conditional_write_whose_answer_was_lost_is_neither_won_nor_lost(
    far: S3Store, network: BadNetwork, then: list[Answer]
) -> None:
    network.puts_unanswered = [True]
    network.answers_afterwards = then
    with pytest.raises(StoreUnavailable, match="an answer was lost"):
        far.put_if_absent("a", b"data")
    assert far.get("a") == b"data"


def test_a_throttled_call_is_tried_again(far: S3Store, network: BadNetwork) -> None:
    far.put("a", b"data")
    network.answers = [Answer("GET", 503)]
    assert far.get("a") == b"data"


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (403, "AccessDenied", Forbidden),
        (403, "InvalidAccessKeyId", Forbidden),
        (403, "SignatureDoesNotMatch", Forbidden),
        (400, "ExpiredToken", Forbidden),
        (403, "QuotaExceeded", StoreUnavailable),
        (503, "SlowDown", StoreUnavailable),
        (500, "InternalError", StoreUnavailable),
        (404, "NoSuchUpload", StoreUnavailable),
        (409, "OperationAborted", StoreUnavailable),
        (400, "RequestTimeout", StoreUnavailable),
        (400, "EntityTooLarge", Invalid),
        (501, "NotImplemented", Invalid),
    ],
)
def test_a_refusal_says_what_to_do_about_it(
    network: BadNetwork, status: int, code: str, expected: type[DistCIError]
) -> None:
    body = f"<Error><Code>{code}</Code><Message>Because.</Message></Error>".encode()
    network.answers = [Answer("PUT", status, body)]
    with pytest.raises(expected, match=f"bucket.*{code}.*Because"):
        Address(network.endpoint, "bucket").open(attempts=1).put("a", b"data")


@pytest.mark.parametrize("call", ["list", "get", "head"])
def test_an_answer_that_is_not_of_s3_is_unavailable(network: BadNetwork, call: str) -> None:
    network.answers = [Answer(method, 200, b"<html>log in here</html>") for method in ("GET", "HEAD")]
    with pytest.raises(StoreUnavailable, match=r"bucket.*not how S3 answers"):
        CALLS[call](Address(network.endpoint, "bucket").open(attempts=1), "a")


def test_no_credentials_is_a_denial_that_says_where_they_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "BOTO_CONFIG"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    told = r"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY .*AWS_PROFILE.* access_key and secret_key"
    with pytest.raises(Forbidden, match=told):
        S3Store("bucket", endpoint_url="http://127.0.0.1:9").get("a")


def test_the_probe_is_content_with_a_good_server_and_leaves_nothing(bucket: Address) -> None:
    store = bucket.open_bucket()
    assert store.probe() == ()
    assert list(store.list("")) == []


def test_the_probe_notices_a_server_that_ignores_conditions(far: S3Store, network: BadNetwork) -> None:
    network.dropped_headers = {"if-none-match"}
    (problem,) = far.probe()
    assert "If-None-Match" in problem


def test_the_probe_notices_a_server_that_ignores_ranges(far: S3Store, network: BadNetwork) -> None:
    network.dropped_headers = {"range"}
    (problem,) = far.probe()
    assert "ContentRange" in problem
    assert list(far.list("")) == []


def test_the_probe_names_what_cannot_be_reached(s3_endpoint: str) -> None:
    for address in (Address(f"http://127.0.0.1:{free_port()}", "bucket"), Address(s3_endpoint, "never-made")):
        (problem,) = address.open_bucket(attempts=1).probe()
        assert address.bucket in problem


NEVER_OF_A_STORE = {
    # Roots, which nothing is raised as.
    *("BotoCoreError", "Boto3Error"),
    # Other services, resources, waiters, stubs, event streams.
    *("ApiVersionNotFoundError", "CapacityNotAvailableError", "DynamoDBNeedsConditionError"),
    *("DynamoDBNeedsKeyConditionError", "DynamoDBOperationNotSupportedError", "InfiniteLoopConfigError"),
    *("InvalidEndpointDiscoveryConfigurationError", "InvalidExpressionError", "MD5UnavailableError"),
    *("MissingParametersError", "MissingServiceIdError", "NoVersionFound", "OperationNotPageableError"),
    *("ResourceLoadException", "ResourceNotExistsError", "ServiceNotInRegionError", "StubAssertionError"),
    *("StubResponseError", "UnStubbedResponseError", "UndefinedModelAttributeError", "UnknownAPIVersionError"),
    *(
        "UnknownClientMethodError",
        "UnknownServiceError",
        "UnknownServiceStyle",
        "UnknownTokenProviderError",
        "UnsupportedOutpostResourceError",
    ),
    *("UnsupportedS3ControlArnError", "UnsupportedS3ControlConfigurationError", "UnsupportedServiceProtocolsError"),
    *("WaiterConfigError", "WaiterError"),
    # Parts of s3transfer that we do not call, and mistakes in calling it.
    *("InvalidCrtTransferConfigError", "InvalidSubscriberMethodError", "S3CopyFailedError", "S3DownloadFailedError"),
    *("S3ValidationError", "TransferNotDoneError"),
    # Judged by the server's answer, not by the class.
    *("ClientError", "EventStreamError"),
}


def _library_errors() -> Iterator[Any]:
    for module in (botocore.exceptions, boto3.exceptions, s3transfer.exceptions):
        for name, member in inspect.getmembers(module, inspect.isclass):
            if member.__module__ == module.__name__ and not issubclass(member, Warning):
                yield pytest.param(member, id=f"{module.__name__}.{name}")


@pytest.mark.parametrize("library_error", list(_library_errors()))
def test_every_error_of_the_libraries_has_a_home(library_error: type[Exception]) -> None:
    assert home_of(library_error) or library_error.__name__ in NEVER_OF_A_STORE


# Sources of bytes, and small questions.


class _Pipe:
    """A source that cannot seek and gives no more than one piece at each read."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._piece = b""

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            return b"".join((self._piece, *self._pieces))
        self._piece = self._piece or next(self._pieces, b"")
        given, self._piece = self._piece[:size], self._piece[size:]
        return given


def _stream(pieces: Iterable[bytes]) -> BinaryIO:
    return cast(BinaryIO, _Pipe(pieces))


def _zeros(mebibytes: int) -> Iterator[bytes]:
    return repeat(bytes(MIB), mebibytes)


def _broken(mebibytes: int, error: Exception) -> Iterator[bytes]:
    yield from _zeros(mebibytes)
    raise error


def _stalled(mebibytes: int, told: Connection) -> Iterator[bytes]:
    yield from _zeros(mebibytes)
    told.send("stalled")
    threading.Event().wait()


def _in_process(target: Callable[..., None], *arguments: Any) -> tuple[SpawnProcess, Connection]:
    """Another process that does ``target``, and the connection on which it tells of it."""
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=target, args=(theirs, *arguments), daemon=True)
    process.start()
    return process, ours


def _told_by(process: Connection) -> Any:
    assert process.poll(WAIT_S)
    return process.recv()


def _recorded(steps: list[str], step: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def record(*arguments: Any) -> Any:
        steps.append(step)
        return function(*arguments)

    return record


def _read(store: Store, key: str, start: int = 0) -> bytes:
    with store.open(key, start) as stream:
        return stream.read()


def _keys(page: Iterable[ObjectInfo]) -> list[str]:
    return [info.key for info in page]


def _paged(store: Store, prefix: str, limit: int) -> Iterator[str]:
    after = ""
    while keys := _keys(store.list(prefix, after, limit)):
        yield from keys
        after = keys[-1]


def _leftovers(address: Address) -> list[str]:
    """What an unfinished write left behind the scenes."""
    if address.namespace:
        return address.rados_objects("data/")
    if not address.bucket:
        return os.listdir(Path(address.place, ".incoming"))
    uploads = address.client().list_multipart_uploads(Bucket=address.bucket)
    return [upload["Key"] for upload in uploads.get("Uploads", ())]
