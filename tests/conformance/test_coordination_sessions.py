"""The promises of the coordination port, held against every adapter: sessions, how they end, and what ends with them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from threading import Event

import pytest
from conformance.coordination import SESSION_S, WAIT_S, Cluster, Opener, States, closed_by, data_of, spawn, version_of
from waiting import wait_until

from distci.coordination.port import Committed, Coordination, Create, Delete, SessionState, Write
from distci.errors import CoordinationUnavailable


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
    tree = closed_by(stack, cluster.connect(session_timeout_s=7))

    assert tree.session.state is SessionState.CONNECTED
    assert tree.session.timeout_s == 7


def test_a_quiet_session_lives_on(cluster: Cluster, tree: Coordination, stack: ExitStack) -> None:
    quiet = closed_by(stack, cluster.connect(session_timeout_s=SESSION_S))
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
    victim = closed_by(stack, cluster.connect(session_timeout_s=2))
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


def test_a_tree_outlives_all_who_opened_it(cluster: Cluster, stack: ExitStack) -> None:
    first = cluster.connect()
    first.commit(Create("/a", b"kept"), Create("/a/ephemeral", ephemeral=True), Write("/a", b"kept on"))
    first.close()

    second = closed_by(stack, cluster.connect())

    assert (data_of(second, "/a"), version_of(second, "/a")) == (b"kept on", 1)
    assert not second.children("/a")
