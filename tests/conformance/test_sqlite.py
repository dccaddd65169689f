"""What the SQLite adapter keeps besides the promises of the port."""

from __future__ import annotations

import itertools
import os
import re
import resource
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Barrier

import pytest
from conformance.coordination import SESSION_S, WAIT_S, States, closed_by, data_of, spawn
from waiting import wait_until

from distci.coordination.port import NODE_BYTES_MAX, CommitResult, Committed, Create, SessionState, Write
from distci.coordination.sqlite import SqliteCoordination
from distci.errors import CoordinationUnavailable, InvalidDocument


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Somebody holds the file's one lock for writing, as a stopped process would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        yield
        holder.execute("ROLLBACK")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tree.sqlite"


def _other_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE nodes (path TEXT)")


NOT_TREES: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("not a database, but longer than the header of one\n" * 20),
    "a short text": lambda path: path.write_text("hello"),
    "bytes": lambda path: path.write_bytes(bytes(range(256)) * 16),
    "another database": _other_database,
}


@pytest.mark.parametrize("write", NOT_TREES.values(), ids=NOT_TREES.keys())
def test_sqlite_a_file_that_is_not_a_tree_is_refused_and_left_alone(
    path: Path, write: Callable[[Path], object]
) -> None:
    write(path)
    before = path.read_bytes()

    with pytest.raises(InvalidDocument, match=re.escape(str(path))):
        SqliteCoordination(path)

    assert path.read_bytes() == before


def test_sqlite_an_empty_file_becomes_a_tree(path: Path, stack: ExitStack) -> None:
    path.touch()

    tree = closed_by(stack, SqliteCoordination(path))

    assert tree.commit(Create("/a")) == Committed()


@pytest.mark.parametrize("place", [".", "none/tree.sqlite"])
def test_sqlite_a_place_where_no_file_can_be_opened_is_unavailable(tmp_path: Path, place: str) -> None:
    with pytest.raises(CoordinationUnavailable):
        SqliteCoordination(tmp_path / place)


def test_sqlite_many_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    together = Barrier(8)

    def open_and_create(name: str) -> CommitResult:
        together.wait(WAIT_S)
        with closing(SqliteCoordination(file)) as tree:
            return tree.commit(Create(f"/{name}"))

    with ThreadPoolExecutor(8) as pool:
        for attempt in range(5):
            file = tmp_path / f"{attempt}.sqlite"
            assert list(pool.map(open_and_create, "abcdefgh")) == [Committed()] * 8


def test_sqlite_a_session_is_in_doubt_while_it_cannot_be_renewed(path: Path, stack: ExitStack) -> None:
    clock = Clock()
    tree = closed_by(stack, SqliteCoordination(path, session_timeout_s=3, call_timeout_s=0.1, clock=clock))
    told, session = States(tree.session), tree.session.id

    with _locked(path):
        clock.now_s += 2
        wait_until(lambda: SessionState.DOUBT in told.seen)
        assert tree.session.state is SessionState.DOUBT

    wait_until(lambda: told.seen[-1] is SessionState.CONNECTED)
    assert tree.session.id == session


def test_sqlite_doubt_is_told_before_the_session_is_over_however_long_a_call_may_take(
    path: Path, stack: ExitStack
) -> None:
    tree = closed_by(stack, SqliteCoordination(path, session_timeout_s=3, call_timeout_s=20))
    told = States(tree.session)

    with _locked(path):
        start_s = time.monotonic()
        assert told.wait(WAIT_S)
        assert time.monotonic() - start_s < 3
        assert told.seen == [SessionState.DOUBT]


def test_sqlite_a_session_whose_time_is_over_is_ended_by_the_next_who_looks(path: Path, stack: ExitStack) -> None:
    clock = Clock()
    tree = closed_by(stack, SqliteCoordination(path, session_timeout_s=600, clock=clock))
    told, old = States(tree.session), tree.session.id
    tree.commit(Create("/a", ephemeral=True), Create("/lasting"))

    clock.now_s += 599
    closed_by(stack, SqliteCoordination(path, session_timeout_s=600, clock=clock))
    assert tree.exists("/a") is not None
    clock.now_s += 2
    closed_by(stack, SqliteCoordination(path, session_timeout_s=600, clock=clock))

    assert tree.exists("/a") is None
    with pytest.raises(CoordinationUnavailable, match="session"):
        tree.commit(Create("/a", ephemeral=True))
    assert tree.exists("/a") is None
    assert told.seen == [SessionState.LOST, SessionState.CONNECTED]
    assert tree.session.id not in (old, 0)
    assert tree.commit(Create("/a", ephemeral=True)) == Committed()


def test_sqlite_sessions_of_before_the_machine_was_started_are_over(path: Path, stack: ExitStack) -> None:
    before = closed_by(stack, SqliteCoordination(path, session_timeout_s=600))
    before.commit(Create("/a", ephemeral=True))
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE sessions SET boot = 'another'")

    after = closed_by(stack, SqliteCoordination(path, session_timeout_s=600))

    assert after.exists("/a") is None


def test_sqlite_while_another_holds_the_file_commits_end_in_time_and_take_no_effect(
    path: Path, stack: ExitStack
) -> None:
    tree = closed_by(stack, SqliteCoordination(path, call_timeout_s=1))

    def commit(number: int) -> float:
        start_s = time.monotonic()
        with pytest.raises(CoordinationUnavailable):
            tree.commit(Create(f"/{number}"))
        return time.monotonic() - start_s

    with _locked(path), ThreadPoolExecutor(8) as pool:
        took_s = list(pool.map(commit, range(8)))

    assert max(took_s) < 2
    assert not any(tree.exists(f"/{number}") for number in range(8))
    assert tree.commit(Create("/a")) == Committed()


def test_sqlite_while_another_holds_the_file_reads_go_on(path: Path, stack: ExitStack) -> None:
    tree = closed_by(stack, SqliteCoordination(path, call_timeout_s=0.5))
    tree.commit(Create("/a", b"1"))

    with _locked(path):
        assert data_of(tree, "/a") == b"1"
        assert list(tree.children("/a")) == []


def test_sqlite_a_full_disk_makes_no_half_commits_and_is_survived(path: Path) -> None:
    channel, theirs = spawn.Pipe()
    process = spawn.Process(target=_fill_disk, args=(path, theirs), daemon=True)
    process.start()
    try:
        assert channel.poll(WAIT_S)
        while_full, after = channel.recv()
    finally:
        process.kill()
        process.join()

    assert while_full in ("Unknown", "CoordinationUnavailable")
    assert after == Committed()
    with closing(SqliteCoordination(path)) as tree:
        assert (tree.exists("/a") is None) == (tree.exists("/b") is None)
        assert tree.exists("/after") is not None
    _check_integrity(path)


def _fill_disk(path: Path, channel: Connection) -> None:
    """Commits while files may not grow, as on a full disk, and once more when they may."""
    tree = SqliteCoordination(path)
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    full = path.with_name(f"{path.name}-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (full, most))
    try:
        while_full = type(
            tree.commit(Create("/a", b"x" * NODE_BYTES_MAX), Create("/b", b"x" * NODE_BYTES_MAX))
        ).__name__
    except CoordinationUnavailable:
        while_full = "CoordinationUnavailable"
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    channel.send((while_full, tree.commit(Create("/after"))))


def test_sqlite_a_disk_that_is_full_from_the_start_is_unavailable(path: Path) -> None:
    SqliteCoordination(path).close()
    channel, theirs = spawn.Pipe()
    process = spawn.Process(target=_open_on_full_disk, args=(path, theirs), daemon=True)
    process.start()
    try:
        assert channel.poll(WAIT_S)
        assert channel.recv() == "CoordinationUnavailable"
    finally:
        process.kill()
        process.join()


def _open_on_full_disk(path: Path, channel: Connection) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, most))
    try:
        SqliteCoordination(path)
    except Exception as error:
        channel.send(type(error).__name__)


@pytest.mark.parametrize("attempt", range(3))
def test_sqlite_a_process_killed_amid_commits_tears_nothing_and_its_ephemerals_vanish(
    path: Path, stack: ExitStack, attempt: int
) -> None:
    tree = closed_by(stack, SqliteCoordination(path))
    tree.commit(Create("/pairs"), Create("/ours"))
    channel, theirs = spawn.Pipe()
    writer = spawn.Process(target=_write_pairs, args=(path, theirs), daemon=True)
    writer.start()

    confirmed = -1
    while confirmed < 20 + attempt * 7:
        assert channel.poll(WAIT_S)
        confirmed = channel.recv()
        assert tree.commit(Write("/ours", b"%d" % confirmed)) == Committed()
    assert writer.pid
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    theirs.close()
    with suppress(EOFError):
        while True:
            confirmed = channel.recv()

    left, right = (
        {int(name.partition("-")[0]) for name in tree.children("/pairs") if name.endswith(side)}
        for side in ("left", "right")
    )
    assert left == right
    assert left in (set(range(confirmed + 1)), set(range(confirmed + 2)))
    assert tree.commit(Create("/pairs/survivor")) == Committed()
    assert tree.exists("/writer") is not None
    wait_until(lambda: tree.exists("/writer") is None, 10 * SESSION_S)
    _check_integrity(path)


def _write_pairs(path: Path, channel: Connection) -> None:
    """Commits pairs of nodes for ever and tells the number of each when it is done."""
    tree = SqliteCoordination(path, session_timeout_s=SESSION_S)
    assert tree.commit(Create("/writer", ephemeral=True)) == Committed()
    for number in itertools.count():
        assert tree.commit(Create(f"/pairs/{number}-left"), Create(f"/pairs/{number}-right")) == Committed()
        channel.send(number)


def _check_integrity(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert not database.execute(
            "SELECT path FROM nodes AS node WHERE parent != '' AND NOT EXISTS (SELECT 1 FROM nodes WHERE path = node.parent)"
        ).fetchall()
