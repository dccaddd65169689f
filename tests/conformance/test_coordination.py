"""The promises of the coordination port, held against every adapter; then what each adapter promises besides."""

from __future__ import annotations

import inspect
import itertools
import multiprocessing
import os
import re
import resource
import signal
import socket
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Barrier, Event, Thread
from typing import Protocol, Self, TypeVar

import kazoo.exceptions
import pytest
from kazoo.client import KazooClient
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.security import make_digest_acl
from services.daemon import accepts, free_port
from services.zookeeper import ZooKeeperServers
from waiting import wait_until

from distci.coordination.port import (
    NODE_BYTES_MAX,
    Check,
    CommitResult,
    Committed,
    Coordination,
    Create,
    Delete,
    Operation,
    Reason,
    Refused,
    Session,
    SessionState,
    Unknown,
    Write,
)
from distci.coordination.sqlite import SqliteCoordination
from distci.coordination.zookeeper import ZooKeeperCoordination, home_of, outcome_of
from distci.errors import CoordinationUnavailable, DistCIError, Forbidden, Invalid, InvalidDocument

WAIT_S = 30.0
SESSION_S = 1.5
"""A session timeout that a test can wait for."""

Tree = TypeVar("Tree", bound=Coordination)

spawn = multiprocessing.get_context("spawn")


class Opener(Protocol):
    def __call__(self, *, session_timeout_s: float = ..., call_timeout_s: float = ...) -> Coordination: ...


class Cluster(Protocol):
    @property
    def opener(self) -> Opener: ...
    def connect(self, session_timeout_s: float = ..., call_timeout_s: float = ...) -> Coordination: ...
    def expire(self, coordination: Coordination) -> None: ...


class States(Event):
    """Writes down what a session says of itself each time it tells."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.seen: list[SessionState] = []
        self._session = session
        session.notify(self)

    def set(self) -> None:
        self.seen.append(self._session.state)
        super().set()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def tree(cluster: Cluster, stack: ExitStack) -> Coordination:
    """An empty tree."""
    return _closed_by(stack, cluster.connect())


@pytest.fixture
def other(cluster: Cluster, stack: ExitStack) -> Coordination:
    """Somebody else's connection to the same tree."""
    return _closed_by(stack, cluster.connect())


def _closed_by(stack: ExitStack, tree: Tree) -> Tree:
    stack.callback(tree.close)
    return tree


# Nodes


def test_a_node_is_read_as_it_was_created(tree: Coordination) -> None:
    assert tree.commit(Create("/a", b"bytes \x00\xff")) == Committed()

    node = tree.read("/a")

    assert node is not None
    assert node.data == b"bytes \x00\xff"
    assert (node.version, node.stat.owner, node.stat.children) == (0, 0, 0)
    assert node.stat.created_ms == node.stat.modified_ms
    assert abs(node.stat.created_ms / 1000 - time.time()) < 60
    assert tree.exists("/a") == node.stat


def test_a_node_may_hold_nothing_and_as_much_as_the_port_says(tree: Coordination) -> None:
    tree.commit(Create("/empty"), Create("/full", b"x" * NODE_BYTES_MAX))

    assert _data(tree, "/empty") == b""
    assert _data(tree, "/full") == b"x" * NODE_BYTES_MAX


def test_where_there_is_no_node_reading_gives_nothing(tree: Coordination) -> None:
    assert tree.read("/none") is None
    assert tree.exists("/none") is None
    assert tree.read("/none/below") is None
    assert not tree.children("/none")


def test_each_write_counts_the_version_up(tree: Coordination) -> None:
    tree.commit(Create("/a", b"0"))

    assert tree.commit(Write("/a", b"1")) == Committed()
    assert tree.commit(Write("/a", b"2", version=1)) == Committed()

    node = tree.read("/a")
    assert node is not None
    assert (node.data, node.version) == (b"2", 2)
    assert node.stat.modified_ms >= node.stat.created_ms


def test_a_node_made_again_starts_at_version_0(tree: Coordination) -> None:
    tree.commit(Create("/a"))
    tree.commit(Write("/a", b"1"))
    tree.commit(Delete("/a", version=1))

    tree.commit(Create("/a"))

    assert _version(tree, "/a") == 0


def test_the_children_of_a_node_are_the_names_right_below_it(tree: Coordination) -> None:
    names = ["b", "é", "with space", "a%2Fb", "'; --", "_", "%"]
    tree.commit(Create("/a"), *(Create(f"/a/{name}") for name in names), Create("/a/b/deeper"), Create("/aa"))

    assert sorted(tree.children("/a")) == sorted(names)
    assert not tree.children("/aa")
    stat = tree.exists("/a")
    assert stat is not None
    assert stat.children == len(names)


def test_a_deleted_node_is_gone(tree: Coordination) -> None:
    tree.commit(Create("/a"), Create("/a/b"))

    assert tree.commit(Delete("/a/b")) == Committed()

    assert tree.read("/a/b") is None
    assert not tree.children("/a")


def test_what_one_connection_commits_another_reads_after_sync(tree: Coordination, other: Coordination) -> None:
    tree.commit(Create("/a"))

    for number in range(20):
        tree.commit(Write("/a", b"%d" % number))
        other.sync()
        assert _data(other, "/a") == b"%d" % number


def test_every_increment_counts_whoever_makes_it(tree: Coordination, other: Coordination) -> None:
    tree.commit(Create("/count", b"0"))

    def count_up(coordination: Coordination) -> None:
        done = 0
        while done < 10:
            node = coordination.read("/count")
            assert node is not None
            result = coordination.commit(Write("/count", b"%d" % (int(node.data) + 1), node.version))
            assert result in (Committed(), Refused(0, Reason.VERSION))
            done += result == Committed()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count_up, [tree, other, tree, other]))

    tree.sync()
    node = tree.read("/count")
    assert node is not None
    assert (node.data, node.version) == (b"40", 40)


# Transactions

REFUSALS = {
    "create what is there": (Create("/a"), Reason.EXISTS),
    "create below nothing": (Create("/none/x"), Reason.MISSING),
    "create below an ephemeral node": (Create("/ephemeral/x"), Reason.MISSING),
    "write nothing": (Write("/none", b""), Reason.MISSING),
    "write nothing of a version": (Write("/none", b"", version=0), Reason.MISSING),
    "write an older version": (Write("/a", b"", version=0), Reason.VERSION),
    "write a newer version": (Write("/a", b"", version=2), Reason.VERSION),
    "delete nothing": (Delete("/none"), Reason.MISSING),
    "delete another version": (Delete("/a", version=0), Reason.VERSION),
    "delete what has children": (Delete("/a"), Reason.NOT_EMPTY),
    "delete another version of what has children": (Delete("/a", version=5), Reason.VERSION),
    "check nothing": (Check("/none"), Reason.MISSING),
    "check nothing for a version": (Check("/none", version=0), Reason.MISSING),
    "check another version": (Check("/a", version=0), Reason.VERSION),
}
"""What cannot be done on a tree with ``/a`` of version 1, ``/a/child`` and the ephemeral ``/ephemeral``."""


@pytest.fixture
def grown(tree: Coordination) -> Coordination:
    """The tree that ``REFUSALS`` speaks of."""
    tree.commit(Create("/a", b"0"), Create("/a/child"), Create("/ephemeral", ephemeral=True), Write("/a", b"1"))
    return tree


@pytest.mark.parametrize(("operation", "reason"), REFUSALS.values(), ids=REFUSALS.keys())
def test_a_refusal_says_why(grown: Coordination, operation: Operation, reason: Reason) -> None:
    assert grown.commit(operation) == Refused(0, reason)


@pytest.mark.parametrize(("operation", "reason"), REFUSALS.values(), ids=REFUSALS.keys())
def test_one_refused_operation_undoes_all_and_is_named(
    grown: Coordination, operation: Operation, reason: Reason
) -> None:
    before = grown.read("/a")

    result = grown.commit(
        Create("/new"),
        Write("/a", b"2", version=1),
        Write("/a", b"1"),
        Delete("/a/child"),
        Create("/a/child"),
        Check("/a", version=3),
        operation,
        Create("/newer"),
        Check("/none"),
    )

    assert result == Refused(6, reason)
    assert grown.read("/a") == before
    assert grown.exists("/new") is None
    assert grown.exists("/newer") is None
    assert list(grown.children("/a")) == ["child"]


def test_every_reason_is_met_by_a_refusal() -> None:
    assert {reason for _, reason in REFUSALS.values()} == set(Reason)


def test_of_two_that_cannot_be_done_the_first_is_named(tree: Coordination) -> None:
    tree.commit(Create("/a"))

    assert tree.commit(Check("/a"), Delete("/none"), Create("/a")) == Refused(1, Reason.MISSING)


def test_operations_of_a_transaction_see_those_before_them(tree: Coordination) -> None:
    result = tree.commit(
        Create("/a", b"0"),
        Create("/a/b"),
        Write("/a", b"1", version=0),
        Check("/a", version=1),
        Delete("/a/b"),
        Delete("/a", version=1),
        Create("/a", b"again"),
    )

    assert result == Committed()
    assert (_data(tree, "/a"), _version(tree, "/a")) == (b"again", 0)
    assert not tree.children("/a")


def test_creating_and_deleting_one_path_proves_that_nothing_was_there(tree: Coordination) -> None:
    assert tree.commit(Create("/a"), Delete("/a")) == Committed()
    assert tree.exists("/a") is None

    tree.commit(Create("/a"))
    assert tree.commit(Create("/a"), Delete("/a")) == Refused(0, Reason.EXISTS)
    assert tree.exists("/a") is not None


def test_a_check_changes_nothing(tree: Coordination) -> None:
    tree.commit(Create("/a", b"0"))
    before = tree.read("/a")

    assert tree.commit(Check("/a"), Check("/a", version=0)) == Committed()

    assert tree.read("/a") == before


def test_nothing_to_do_is_done(tree: Coordination) -> None:
    assert tree.commit() == Committed()


def test_a_transaction_is_seen_whole_by_others(tree: Coordination, other: Coordination) -> None:
    stop = Event()

    def see() -> set[bool]:
        seen = set()
        while not stop.is_set():
            names = other.children("/pairs")
            seen.add(len(names) % 2 == 0)
        return seen

    tree.commit(Create("/pairs"))
    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(see)
        for number in range(20):
            tree.commit(Create(f"/pairs/{number}-left"), Create(f"/pairs/{number}-right"))
        stop.set()

    assert watching.result() == {True}


# Requests that are wrong

BAD_PATHS = [
    "",
    "/",
    "a",
    "a/b",
    "/a/",
    "//a",
    "/a//b",
    "/.",
    "/..",
    "/a/./b",
    "/a/../b",
    "/nul\0",
    "/line\n",
    "/\x9f",
    "/\ud800",
    "/\ue000",
    "/\uffff",
    "/\U0001f600",
]
"""Not absolute, not plain, or with characters that ZooKeeper does not take."""


@pytest.mark.parametrize("path", BAD_PATHS, ids=ascii)
def test_a_path_that_names_no_place_is_invalid_everywhere(tree: Coordination, path: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: tree.read(path),
        lambda: tree.children(path),
        lambda: tree.exists(path),
        lambda: tree.watch(path, Event()),
        lambda: tree.commit(Create("/innocent"), Create(path)),
        lambda: tree.commit(Create("/innocent"), Write(path, b"")),
        lambda: tree.commit(Create("/innocent"), Delete(path)),
        lambda: tree.commit(Create("/innocent"), Check(path)),
    ]
    for call in calls:
        with pytest.raises(Invalid):
            call()

    assert tree.exists("/innocent") is None


@pytest.mark.parametrize(
    "operation", [Create("/big", b"x" * (NODE_BYTES_MAX + 1)), Write("/a", b"x" * (NODE_BYTES_MAX + 1))]
)
def test_more_bytes_than_a_node_may_hold_are_invalid_and_nothing_takes_effect(
    tree: Coordination, operation: Operation
) -> None:
    tree.commit(Create("/a", b"small"))

    with pytest.raises(Invalid, match=f"{operation.path}: {NODE_BYTES_MAX + 1} bytes"):
        tree.commit(Create("/innocent"), operation)

    assert tree.exists("/innocent") is None
    assert _data(tree, "/a") == b"small"


def test_more_than_a_transaction_may_carry_is_invalid_and_the_session_lives_on(tree: Coordination) -> None:
    """ZooKeeper would cut the connection, and the answer would be lost each time that it is tried."""
    session = tree.session.id

    with pytest.raises(Invalid):
        tree.commit(*(Create(f"/{number}", b"x" * NODE_BYTES_MAX) for number in range(64)))

    assert tree.exists("/0") is None
    assert (tree.session.id, tree.session.state) == (session, SessionState.CONNECTED)


# Watches

CHANGES: dict[str, tuple[Sequence[Operation], Operation]] = {
    "created": ([], Create("/a")),
    "changed": ([Create("/a")], Write("/a", b"1")),
    "deleted": ([Create("/a")], Delete("/a")),
}


@pytest.mark.parametrize("who", ["own", "other"])
@pytest.mark.parametrize(("before", "change"), CHANGES.values(), ids=CHANGES.keys())
def test_a_watch_fires_when_a_node_is(
    tree: Coordination, other: Coordination, who: str, before: Sequence[Operation], change: Operation
) -> None:
    tree.commit(*before)
    changed = Event()

    stat = tree.watch("/a", changed)
    assert stat == tree.exists("/a")
    assert not changed.is_set()
    (tree if who == "own" else other).commit(change)

    assert changed.wait(WAIT_S)


def test_a_watch_fires_for_a_node_that_came_and_went(tree: Coordination, other: Coordination) -> None:
    changed = Event()
    assert tree.watch("/a", changed) is None

    other.commit(Create("/a"), Delete("/a"))

    assert changed.wait(WAIT_S)


def test_a_watch_fires_for_a_node_that_was_made_anew(tree: Coordination, other: Coordination) -> None:
    tree.commit(Create("/a"))
    changed = Event()
    tree.watch("/a", changed)

    other.commit(Delete("/a"), Create("/a"))

    assert changed.wait(WAIT_S)


def test_a_watch_fires_when_the_session_of_an_ephemeral_node_ends(
    cluster: Cluster, tree: Coordination, other: Coordination
) -> None:
    other.commit(Create("/a", ephemeral=True))
    changed = Event()
    tree.watch("/a", changed)

    cluster.expire(other)

    assert changed.wait(WAIT_S)
    assert tree.exists("/a") is None


def test_a_watch_that_fired_can_be_armed_again_and_again(tree: Coordination, other: Coordination) -> None:
    tree.commit(Create("/a"))
    changed = Event()

    for number in range(10):
        changed.clear()
        tree.watch("/a", changed)
        other.commit(Write("/a", b"%d" % number))
        assert changed.wait(WAIT_S)


def test_all_who_watch_a_node_are_told(tree: Coordination, other: Coordination) -> None:
    events = [Event() for _ in range(5)]
    for changed in events:
        tree.watch("/a", changed)

    other.commit(Create("/a"))

    assert all(changed.wait(WAIT_S) for changed in events)


def test_one_event_may_watch_many_nodes(tree: Coordination, other: Coordination) -> None:
    changed = Event()
    for path in ("/a", "/b", "/c"):
        tree.watch(path, changed)

    other.commit(Create("/b"))
    assert changed.wait(WAIT_S)

    changed.clear()
    other.commit(Create("/c"))
    assert changed.wait(WAIT_S)


def test_a_transaction_that_was_refused_sets_no_watch_off(tree: Coordination, other: Coordination) -> None:
    refused, committed = Event(), Event()
    tree.watch("/a", refused)
    tree.watch("/b", committed)

    assert other.commit(Create("/a"), Delete("/none")) == Refused(1, Reason.MISSING)
    other.commit(Create("/b"))

    assert committed.wait(WAIT_S)
    assert not refused.is_set()


def test_no_change_is_missed_by_one_who_looks_at_every_hint(tree: Coordination, other: Coordination) -> None:
    """The loop that everything waits with: arm, look, wait."""
    last = b"49"
    other.commit(Create("/a", b"-"))

    def follow() -> None:
        changed = Event()
        while True:
            changed.clear()
            tree.watch("/a", changed)
            if _data(tree, "/a") == last:
                return
            assert changed.wait(WAIT_S)

    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(follow)
        for number in range(50):
            other.commit(Write("/a", b"%d" % number))
        following.result(WAIT_S)


# Sessions


def test_an_ephemeral_node_shows_its_session(tree: Coordination, other: Coordination) -> None:
    tree.commit(Create("/a", ephemeral=True))

    other.sync()
    stat = other.exists("/a")

    assert stat is not None
    assert stat.owner == tree.session.id != 0
    assert tree.session.id != other.session.id


def test_anybody_may_delete_an_ephemeral_node(tree: Coordination, other: Coordination) -> None:
    tree.commit(Create("/a", ephemeral=True))

    assert other.commit(Delete("/a")) == Committed()

    tree.sync()
    assert tree.exists("/a") is None


def test_closing_ends_the_ephemeral_nodes_at_once_and_nothing_else(cluster: Cluster, tree: Coordination) -> None:
    leaver = cluster.connect(session_timeout_s=60)
    leaver.commit(Create("/a"), Create("/a/ephemeral", ephemeral=True), Create("/a/lasting"))

    leaver.close()

    tree.sync()
    assert list(tree.children("/a")) == ["lasting"]


def test_a_closed_tree_says_so(cluster: Cluster) -> None:
    tree = cluster.connect()
    told = States(tree.session)
    tree.close()

    calls: list[Callable[[], object]] = [
        lambda: tree.read("/a"),
        lambda: tree.children("/a"),
        lambda: tree.exists("/a"),
        lambda: tree.watch("/a", Event()),
        lambda: tree.commit(Create("/a")),
        tree.sync,
    ]
    for call in calls:
        with pytest.raises(CoordinationUnavailable):
            call()

    assert tree.session.state is SessionState.LOST
    assert told.seen[-1] is SessionState.LOST
    tree.close()


def test_an_open_session_is_connected_and_as_long_as_was_asked_for(cluster: Cluster, stack: ExitStack) -> None:
    tree = _closed_by(stack, cluster.connect(session_timeout_s=7))

    assert tree.session.state is SessionState.CONNECTED
    assert tree.session.timeout_s == 7


def test_a_quiet_session_lives_on(cluster: Cluster, tree: Coordination, stack: ExitStack) -> None:
    quiet = _closed_by(stack, cluster.connect(session_timeout_s=SESSION_S))
    session = quiet.session.id
    quiet.commit(Create("/a", ephemeral=True))
    gone = Event()
    tree.watch("/a", gone)

    assert not gone.wait(2.5 * SESSION_S)

    assert tree.exists("/a") is not None
    assert (quiet.session.id, quiet.session.state) == (session, SessionState.CONNECTED)


def test_a_session_that_was_ended_loses_its_nodes_says_so_and_is_followed_by_another(
    cluster: Cluster, tree: Coordination, stack: ExitStack
) -> None:
    victim = _closed_by(stack, cluster.connect(session_timeout_s=2))
    told = States(victim.session)
    old = victim.session.id
    victim.commit(Create("/a", ephemeral=True), Create("/lasting"))

    cluster.expire(victim)

    wait_until(lambda: told.seen[-1:] == [SessionState.CONNECTED] and victim.session.id != old)
    assert SessionState.LOST in told.seen
    assert victim.session.state is SessionState.CONNECTED
    assert tree.exists("/a") is None
    assert tree.exists("/lasting") is not None
    assert victim.commit(Create("/a", ephemeral=True)) == Committed()
    stat = victim.exists("/a")
    assert stat is not None
    assert stat.owner == victim.session.id


def test_nothing_is_committed_under_a_session_that_was_ended(cluster: Cluster, tree: Coordination) -> None:
    """A node made in a hurry belongs to the new session, or is not there."""
    victim = cluster.connect()
    old = victim.session.id

    cluster.expire(victim)
    with suppress(CoordinationUnavailable):
        victim.commit(Create("/a", ephemeral=True))

    stat = tree.exists("/a")
    assert stat is None or stat.owner != old
    victim.close()
    assert tree.exists("/a") is None


def test_a_killed_process_loses_its_ephemeral_nodes_when_its_session_times_out(
    cluster: Cluster, tree: Coordination
) -> None:
    with _holder(cluster, "/a") as holder:
        assert tree.exists("/a") is not None

        os.kill(holder.pid, signal.SIGKILL)

        wait_until(lambda: tree.exists("/a") is None, 10 * SESSION_S)


def test_a_stopped_process_loses_its_session_and_learns_of_it_when_it_goes_on(
    cluster: Cluster, tree: Coordination
) -> None:
    with _holder(cluster, "/a") as holder:
        os.kill(holder.pid, signal.SIGSTOP)
        wait_until(lambda: tree.exists("/a") is None, 10 * SESSION_S)
        assert not holder.channel.poll()

        os.kill(holder.pid, signal.SIGCONT)

        assert holder.channel.poll(WAIT_S)
        assert holder.channel.recv() != holder.session


@dataclass
class Holder:
    """A process with an ephemeral node of its own, which tells of each session that it has."""

    pid: int
    session: int
    channel: Connection


@contextmanager
def _holder(cluster: Cluster, path: str) -> Iterator[Holder]:
    channel, theirs = spawn.Pipe()
    process = spawn.Process(target=_hold, args=(cluster.opener, path, theirs), daemon=True)
    process.start()
    try:
        assert process.pid
        assert channel.poll(WAIT_S)
        yield Holder(process.pid, channel.recv(), channel)
    finally:
        process.kill()
        process.join()


def _hold(opener: Opener, path: str, channel: Connection) -> None:
    tree = opener(session_timeout_s=SESSION_S)
    changed = Event()
    tree.session.notify(changed)
    told = tree.session.id
    assert tree.commit(Create(path, ephemeral=True)) == Committed()
    channel.send(told)
    while True:
        changed.wait()
        changed.clear()
        if tree.session.state is SessionState.CONNECTED and tree.session.id != told:
            told = tree.session.id
            channel.send(told)


def _data(tree: Coordination, path: str) -> bytes | None:
    node = tree.read(path)
    return node.data if node else None


def _version(tree: Coordination, path: str) -> int | None:
    stat = tree.exists(path)
    return stat.version if stat else None


def test_a_tree_outlives_all_who_opened_it(cluster: Cluster, stack: ExitStack) -> None:
    first = cluster.connect()
    first.commit(Create("/a", b"kept"), Create("/a/ephemeral", ephemeral=True), Write("/a", b"kept on"))
    first.close()

    second = _closed_by(stack, cluster.connect())

    assert (_data(second, "/a"), _version(second, "/a")) == (b"kept on", 1)
    assert not second.children("/a")


# What an outage looks like, on a ZooKeeper of one's own


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeperServers]:
    servers = ZooKeeperServers(tmp_path_factory.mktemp("one"))
    yield servers
    servers.stop()


@pytest.fixture(scope="module")
def own_ensemble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeperServers]:
    servers = ZooKeeperServers(tmp_path_factory.mktemp("three"), 3)
    yield servers
    servers.stop()


@pytest.fixture
def servers(own_server: ZooKeeperServers) -> Iterator[ZooKeeperServers]:
    """One ZooKeeper server, to kill and to stop."""
    yield own_server
    _repair(own_server)


@pytest.fixture
def ensemble(own_ensemble: ZooKeeperServers) -> Iterator[ZooKeeperServers]:
    """Three ZooKeeper servers, to kill and to stop."""
    yield own_ensemble
    _repair(own_ensemble)


def _repair(servers: ZooKeeperServers) -> None:
    for index in range(len(servers.ports)):
        servers.resume(index)
        if not accepts(servers.ports[index]):
            servers.start(index)


class Own:
    """Opens a tree of a test's own on servers of its own."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._root = f"/own/{uuid.uuid4().hex}"

    def __call__(
        self, servers: ZooKeeperServers, session_timeout_s: float = 10, call_timeout_s: float = 10
    ) -> ZooKeeperCoordination:
        tree = ZooKeeperCoordination(
            servers.hosts,
            self._root,
            session_timeout_s=session_timeout_s,
            call_timeout_s=call_timeout_s,
            connect_timeout_s=WAIT_S,
        )
        return _closed_by(self._stack, tree)


@pytest.fixture
def own(stack: ExitStack) -> Own:
    return Own(stack)


def _reads(tree: Coordination) -> list[Callable[[], object]]:
    return [
        lambda: tree.read("/a"),
        lambda: tree.children("/a"),
        lambda: tree.exists("/a"),
        lambda: tree.watch("/a", Event()),
        tree.sync,
    ]


def _answers(tree: Coordination) -> bool:
    try:
        tree.sync()
    except CoordinationUnavailable:
        return False
    return True


def test_zookeeper_nobody_answers(stack: ExitStack) -> None:
    port = free_port()

    with pytest.raises(CoordinationUnavailable, match=f"127.0.0.1:{port}"):
        ZooKeeperCoordination(f"127.0.0.1:{port}", "/own", connect_timeout_s=0.5)


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_zookeeper_an_outage_is_never_read_as_an_empty_tree(servers: ZooKeeperServers, own: Own, how: str) -> None:
    tree = own(servers, call_timeout_s=0.3)
    tree.commit(Create("/a"), Create("/a/b"))

    servers.kill(0) if how == "killed" else servers.pause(0)

    for read in _reads(tree):
        start_s = time.monotonic()
        with pytest.raises(CoordinationUnavailable):
            read()
        assert time.monotonic() - start_s < 2
    servers.start(0) if how == "killed" else servers.resume(0)
    wait_until(lambda: _answers(tree))
    assert list(tree.children("/a")) == ["b"]


def test_zookeeper_a_commit_that_cannot_be_sent_says_so(servers: ZooKeeperServers, own: Own) -> None:
    tree = own(servers, call_timeout_s=0.3)
    servers.kill(0)
    wait_until(lambda: not _answers(tree))

    with pytest.raises(CoordinationUnavailable):
        tree.commit(Create("/a"))

    servers.start(0)
    wait_until(lambda: _answers(tree))
    assert tree.exists("/a") is None


def test_zookeeper_closing_in_an_outage_ends(servers: ZooKeeperServers, own: Own) -> None:
    tree = own(servers, call_timeout_s=0.3)
    servers.kill(0)

    start_s = time.monotonic()
    tree.close()

    assert time.monotonic() - start_s < 5
    assert tree.session.state is SessionState.LOST


def test_zookeeper_a_server_that_is_killed_and_started_again_keeps_sessions_and_nodes(
    servers: ZooKeeperServers, own: Own
) -> None:
    tree = own(servers)
    session = tree.session.id
    tree.commit(Create("/lasting", b"1"), Create("/ephemeral", ephemeral=True))

    servers.kill(0)
    assert tree.session.id == session
    servers.start(0)

    wait_until(lambda: _answers(tree))
    assert (tree.session.id, tree.session.state) == (session, SessionState.CONNECTED)
    assert _data(tree, "/lasting") == b"1"
    stat = tree.exists("/ephemeral")
    assert stat is not None
    assert stat.owner == session


def test_zookeeper_a_reconnect_sets_all_watches_and_they_can_be_armed_again(
    servers: ZooKeeperServers, own: Own
) -> None:
    tree, other = (own(servers) for _ in range(2))
    tree.commit(Create("/a"))
    events = {path: Event() for path in ("/a", "/none")}
    for path, changed in events.items():
        tree.watch(path, changed)

    servers.kill(0)
    assert all(changed.wait(WAIT_S) for changed in events.values())
    servers.start(0)
    wait_until(lambda: _answers(tree) and _answers(other))

    for path, changed in events.items():
        changed.clear()
        tree.watch(path, changed)
    other.commit(Write("/a", b"1"), Create("/none"))
    assert all(changed.wait(WAIT_S) for changed in events.values())


def test_zookeeper_an_answer_that_is_late_is_unknown_and_sync_finds_it_out(servers: ZooKeeperServers, own: Own) -> None:
    tree = own(servers, call_timeout_s=0.5)
    servers.pause(0)

    assert tree.commit(Create("/a"), Create("/b")) == Unknown()

    servers.resume(0)
    wait_until(lambda: _answers(tree))
    assert tree.exists("/a") is not None
    assert tree.exists("/b") is not None


def test_zookeeper_the_answer_dies_with_the_server(servers: ZooKeeperServers, own: Own) -> None:
    tree = own(servers, call_timeout_s=2)
    servers.pause(0)

    with ThreadPoolExecutor(1) as pool:
        committing = pool.submit(tree.commit, Create("/a"), Create("/b"))
        wait_until(lambda: tree.transactions == 1)
        servers.kill(0)
        assert committing.result(WAIT_S) == Unknown()

    servers.start(0)
    wait_until(lambda: _answers(tree))
    assert (tree.exists("/a") is None) == (tree.exists("/b") is None)


def test_zookeeper_killed_amid_commits_keeps_what_it_confirmed_and_tears_nothing(
    servers: ZooKeeperServers, own: Own
) -> None:
    tree = own(servers)
    tree.commit(Create("/pairs"))
    results: dict[int, CommitResult] = {}

    def commit_pairs() -> None:
        with suppress(CoordinationUnavailable):
            while Unknown() not in results.values():
                number = len(results)
                results[number] = tree.commit(Create(f"/pairs/{number}-left"), Create(f"/pairs/{number}-right"))

    with ThreadPoolExecutor(1) as pool:
        committing = pool.submit(commit_pairs)
        wait_until(lambda: len(results) > 20)
        servers.kill(0)
        committing.result(WAIT_S)

    servers.start(0)
    wait_until(lambda: _answers(tree))
    left, right = (
        {int(name.partition("-")[0]) for name in tree.children("/pairs") if name.endswith(side)}
        for side in ("left", "right")
    )
    assert left == right
    assert {number for number, result in results.items() if result == Committed()} <= left <= results.keys()


def test_zookeeper_doubt_is_told_after_a_third_of_the_timeout(servers: ZooKeeperServers, own: Own) -> None:
    # Long enough for a busy machine to start the server and take the session up again before it ends.
    tree = own(servers, session_timeout_s=12)
    told = States(tree.session)
    session = tree.session.id

    start_s = time.monotonic()
    servers.kill(0)
    wait_until(lambda: SessionState.DOUBT in told.seen)
    told_s = time.monotonic() - start_s

    assert 4 <= told_s < 12
    assert tree.session.state is SessionState.DOUBT
    servers.start(0)
    wait_until(lambda: told.seen[-1] is SessionState.CONNECTED)
    assert tree.session.id == session


def test_zookeeper_doubt_of_a_server_that_fell_silent_is_told_and_ends(servers: ZooKeeperServers, own: Own) -> None:
    tree = own(servers, session_timeout_s=3)
    told = States(tree.session)

    servers.pause(0)
    wait_until(lambda: SessionState.DOUBT in told.seen)
    assert tree.session.state is SessionState.DOUBT

    servers.resume(0)
    wait_until(lambda: told.seen[-1] is SessionState.CONNECTED)
    wait_until(lambda: _answers(tree))


def test_zookeeper_ensemble_goes_on_without_its_leader(ensemble: ZooKeeperServers, own: Own) -> None:
    tree, other = (own(ensemble, session_timeout_s=20) for _ in range(2))
    sessions = (tree.session.id, other.session.id)
    tree.commit(Create("/a", b"before"), Create("/mine", ephemeral=True))
    other.commit(Create("/theirs", ephemeral=True))

    ensemble.kill(ensemble.leader())

    wait_until(lambda: _writes(tree, "/a", b"after"))
    wait_until(lambda: _answers(other))
    assert _data(other, "/a") == b"after"
    assert (tree.session.id, other.session.id) == sessions
    stats = [other.exists("/mine"), tree.exists("/theirs")]
    assert tuple(stat and stat.owner for stat in stats) == sessions


def test_zookeeper_ensemble_without_a_quorum_is_an_outage(ensemble: ZooKeeperServers, own: Own) -> None:
    tree = own(ensemble, session_timeout_s=20, call_timeout_s=1)
    tree.commit(Create("/a"))

    ensemble.kill(0)
    ensemble.kill(1)
    wait_until(lambda: not _answers(tree))

    for read in _reads(tree):
        with pytest.raises(CoordinationUnavailable):
            read()
    assert not _writes(tree, "/a", b"1")
    ensemble.start(0)
    wait_until(lambda: _writes(tree, "/a", b"2"))


def test_zookeeper_sync_closes_the_gap_between_servers(zookeeper_ensemble_hosts: str, stack: ExitStack) -> None:
    root = f"/conformance/{uuid.uuid4().hex}"
    trees = [_closed_by(stack, ZooKeeperCoordination(hosts, root)) for hosts in zookeeper_ensemble_hosts.split(",")]
    trees[0].commit(Create("/gap"))

    for number in range(30):
        trees[0].commit(Write("/gap", b"%d" % number))
        for tree in trees:
            tree.sync()
            assert _data(tree, "/gap") == b"%d" % number


def _writes(tree: Coordination, path: str, data: bytes) -> bool:
    try:
        return tree.commit(Write(path, data)) == Committed()
    except CoordinationUnavailable:
        return False


# What else the ZooKeeper adapter keeps


def test_zookeeper_a_server_that_accepts_and_never_answers_is_left_before_the_session_is_over(
    zookeeper_hosts: str, stack: ExitStack
) -> None:
    """As one does that is just being started."""
    host, _, real_port = zookeeper_hosts.partition(":")
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(3) as pool:
        start_s = time.monotonic()
        opening = pool.submit(
            ZooKeeperCoordination,
            f"127.0.0.1:{listener.getsockname()[1]}",
            f"/conformance/{uuid.uuid4().hex}",
            session_timeout_s=4,
            connect_timeout_s=WAIT_S,
        )
        with (
            listener.accept()[0],
            listener.accept()[0] as client,
            socket.create_connection((host, int(real_port))) as server,
        ):
            came_back_s = time.monotonic() - start_s
            pool.submit(_forward, client, server)
            pool.submit(_forward, server, client)
            with closing(opening.result(WAIT_S)) as tree:
                assert tree.commit(Create("/a")) == Committed()

    assert came_back_s < 4 * 2 / 3


def test_zookeeper_an_answer_that_a_server_leaves_out_is_a_lost_one(zookeeper_hosts: str, stack: ExitStack) -> None:
    """As some do in the middle of an election; kazoo gives the connection up for good when the next answer comes."""
    server = stack.enter_context(Forgetful(zookeeper_hosts))
    root = f"/conformance/{uuid.uuid4().hex}"
    tree = _closed_by(stack, ZooKeeperCoordination(server.host, root, session_timeout_s=10))
    session = tree.session.id

    server.forgets.set()
    with ThreadPoolExecutor(1) as pool:
        committing = pool.submit(tree.commit, Create("/a"))
        wait_until(lambda: not server.forgets.is_set())
        with suppress(CoordinationUnavailable):
            tree.exists("/a")
        assert committing.result(WAIT_S) == Unknown()

    wait_until(lambda: _answers(tree))
    assert tree.exists("/a") is not None
    assert tree.session.id == session


class Forgetful:
    """A ZooKeeper server that leaves out the next answer to a request once it ``forgets``; a context manager."""

    def __init__(self, hosts: str) -> None:
        host, _, port = hosts.partition(":")
        self._server = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.forgets = Event()

    def __enter__(self) -> Self:
        Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, server = self._listener.accept()[0], socket.create_connection(self._server)
                Thread(target=_forward, args=(client, server), daemon=True).start()
                Thread(target=self._answer, args=(server, client), daemon=True).start()

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError), client, server.makefile("rb") as answers:
            while size := answers.read(4):
                answer = answers.read(int.from_bytes(size))
                # Those below zero are no answers to requests: pings and watches.
                is_answer = int.from_bytes(answer[:4], signed=True) > 0
                if is_answer and self.forgets.is_set():
                    self.forgets.clear()
                else:
                    client.sendall(size + answer)


def _forward(source: socket.socket, target: socket.socket) -> None:
    """Until either end is closed."""
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("root", ["/", "/{name}", "/{name}/deeper", "/{name}/"])
def test_zookeeper_a_tree_stands_below_any_root(zookeeper_hosts: str, stack: ExitStack, root: str) -> None:
    name = uuid.uuid4().hex
    root = root.format(name=name)
    tree, other = (_closed_by(stack, ZooKeeperCoordination(zookeeper_hosts, root)) for _ in range(2))
    outside = _closed_by(stack, ZooKeeperCoordination(zookeeper_hosts, "/"))
    changed = Event()
    tree.watch(f"/{name}x", changed)

    other.commit(Create(f"/{name}x", b"1"))

    assert changed.wait(WAIT_S)
    assert _data(tree, f"/{name}x") == b"1"
    assert _data(outside, f"{root.rstrip('/')}/{name}x") == b"1"


def test_zookeeper_a_session_is_as_long_as_was_granted(zookeeper_hosts: str, stack: ExitStack) -> None:
    tree = _closed_by(stack, ZooKeeperCoordination(zookeeper_hosts, "/conformance", session_timeout_s=100))

    # The most that the server of the tests grants.
    assert tree.session.timeout_s == 60


def test_zookeeper_what_its_access_lists_deny_is_forbidden(zookeeper_hosts: str, stack: ExitStack) -> None:
    root = f"/conformance/{uuid.uuid4().hex}"
    tree = _closed_by(stack, ZooKeeperCoordination(zookeeper_hosts, root))
    owner = KazooClient(zookeeper_hosts)
    owner.start()
    owner.create(f"{root}/secret", b"", acl=[make_digest_acl("somebody", "else", all=True)])
    owner.stop()
    owner.close()

    calls: list[Callable[[], object]] = [
        lambda: tree.read("/secret"),
        lambda: tree.children("/secret"),
        lambda: tree.commit(Write("/secret", b"")),
        lambda: tree.commit(Create("/innocent"), Create("/secret/x")),
    ]
    for call in calls:
        with pytest.raises(Forbidden):
            call()
    assert tree.exists("/innocent") is None


Fate = Reason | type[Unknown] | type[DistCIError]

FATES: dict[str, Fate] = {
    # What a commit may be refused for.
    "NodeExistsError": Reason.EXISTS,
    "NoNodeError": Reason.MISSING,
    "BadVersionError": Reason.VERSION,
    "NotEmptyError": Reason.NOT_EMPTY,
    "NoChildrenForEphemeralsError": Reason.MISSING,
    # After these it is not known whether the request took effect.
    "ConnectionLoss": Unknown,
    "ConnectionClosedError": Unknown,
    "SessionExpiredError": Unknown,
    "OperationTimeoutError": Unknown,
    "RequestTimeoutError": Unknown,
    "CancelledError": Unknown,
    "KazooTimeoutError": Unknown,
    # Ask for the right.
    "NoAuthError": Forbidden,
    "AuthFailedError": Forbidden,
    "InvalidACLError": Forbidden,
    # Fix the request.
    "BadArgumentsError": Invalid,
    "InvalidCallbackError": Invalid,
    "MarshallingError": Invalid,
    # Wait, then try again: these say that nothing took effect, or never reach a commit.
    "KazooException": CoordinationUnavailable,
    "ZookeeperError": CoordinationUnavailable,
    "ConfigurationError": CoordinationUnavailable,
    "ZookeeperStoppedError": CoordinationUnavailable,
    "ConnectionDropped": CoordinationUnavailable,
    "LockTimeout": CoordinationUnavailable,
    "WriterNotClosedException": CoordinationUnavailable,
    "SASLException": CoordinationUnavailable,
    "RolledBackError": CoordinationUnavailable,
    "SystemZookeeperError": CoordinationUnavailable,
    "RuntimeInconsistency": CoordinationUnavailable,
    "DataInconsistency": CoordinationUnavailable,
    "UnimplementedError": CoordinationUnavailable,
    "UnknownSessionError": CoordinationUnavailable,
    "NewConfigNoQuorumError": CoordinationUnavailable,
    "ReconfigInProcessError": CoordinationUnavailable,
    "APIError": CoordinationUnavailable,
    "SessionMovedError": CoordinationUnavailable,
    "NotReadOnlyCallError": CoordinationUnavailable,
    "EphemeralOnLocalSessionError": CoordinationUnavailable,
    "NoWatcherError": CoordinationUnavailable,
    "ReconfigDisabledError": CoordinationUnavailable,
    "SessionClosedRequireSaslError": CoordinationUnavailable,
    "QuotaExceededError": CoordinationUnavailable,
    "ThrottledOpError": CoordinationUnavailable,
}
"""What a commit comes to when kazoo raises one of its classes. A class that kazoo adds needs a place here, chosen by a person."""


def _kazoo_errors() -> dict[str, type[Exception]]:
    walked = {
        error.__name__: error
        for _, error in inspect.getmembers(kazoo.exceptions, inspect.isclass)
        if issubclass(error, Exception)
    }
    return {**walked, "KazooTimeoutError": KazooTimeoutError}


def test_every_error_of_kazoo_has_a_home() -> None:
    assert _kazoo_errors().keys() == FATES.keys()


@pytest.mark.parametrize("name", FATES)
def test_an_error_of_kazoo_in_an_answer_comes_to(name: str) -> None:
    error, fate = _kazoo_errors()[name](), FATES[name]
    innocent = kazoo.exceptions.RuntimeInconsistency()

    if isinstance(fate, Reason):
        assert outcome_of([kazoo.exceptions.RolledBackError(), error, innocent]) == Refused(1, fate)
    elif issubclass(fate, DistCIError):
        with pytest.raises(fate):
            outcome_of([error])
    else:
        assert outcome_of([error]) == Unknown()


@pytest.mark.parametrize("name", FATES)
def test_an_error_of_kazoo_is_one_of_ours_for_a_reader(name: str) -> None:
    fate = FATES[name]

    home = home_of(_kazoo_errors()[name]("why"))

    assert isinstance(
        home, fate if isinstance(fate, type) and issubclass(fate, DistCIError) else CoordinationUnavailable
    )
    assert name in str(home)


def test_an_error_that_is_not_of_kazoo_stays_what_it_is() -> None:
    error = ZeroDivisionError()

    assert home_of(error) is error


# What else the SQLite adapter keeps


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

    tree = _closed_by(stack, SqliteCoordination(path))

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
    tree = _closed_by(stack, SqliteCoordination(path, session_timeout_s=3, call_timeout_s=0.1, clock=clock))
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
    tree = _closed_by(stack, SqliteCoordination(path, session_timeout_s=3, call_timeout_s=20))
    told = States(tree.session)

    with _locked(path):
        start_s = time.monotonic()
        assert told.wait(WAIT_S)
        assert time.monotonic() - start_s < 3
        assert told.seen == [SessionState.DOUBT]


def test_sqlite_a_session_whose_time_is_over_is_ended_by_the_next_who_looks(path: Path, stack: ExitStack) -> None:
    clock = Clock()
    tree = _closed_by(stack, SqliteCoordination(path, session_timeout_s=600, clock=clock))
    told, old = States(tree.session), tree.session.id
    tree.commit(Create("/a", ephemeral=True), Create("/lasting"))

    clock.now_s += 599
    _closed_by(stack, SqliteCoordination(path, session_timeout_s=600, clock=clock))
    assert tree.exists("/a") is not None
    clock.now_s += 2
    _closed_by(stack, SqliteCoordination(path, session_timeout_s=600, clock=clock))

    assert tree.exists("/a") is None
    with pytest.raises(CoordinationUnavailable, match="session"):
        tree.commit(Create("/a", ephemeral=True))
    assert tree.exists("/a") is None
    assert told.seen == [SessionState.LOST, SessionState.CONNECTED]
    assert tree.session.id not in (old, 0)
    assert tree.commit(Create("/a", ephemeral=True)) == Committed()


def test_sqlite_sessions_of_before_the_machine_was_started_are_over(path: Path, stack: ExitStack) -> None:
    before = _closed_by(stack, SqliteCoordination(path, session_timeout_s=600))
    before.commit(Create("/a", ephemeral=True))
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE sessions SET boot = 'another'")

    after = _closed_by(stack, SqliteCoordination(path, session_timeout_s=600))

    assert after.exists("/a") is None


def test_sqlite_while_another_holds_the_file_commits_end_in_time_and_take_no_effect(
    path: Path, stack: ExitStack
) -> None:
    tree = _closed_by(stack, SqliteCoordination(path, call_timeout_s=1))

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
    tree = _closed_by(stack, SqliteCoordination(path, call_timeout_s=0.5))
    tree.commit(Create("/a", b"1"))

    with _locked(path):
        assert _data(tree, "/a") == b"1"
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
    tree = _closed_by(stack, SqliteCoordination(path))
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
