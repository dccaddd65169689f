"""What an outage looks like, on a ZooKeeper of one's own."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from threading import Event

import pytest
from conformance.coordination import WAIT_S, States, answers, closed_by, data_of
from services.daemon import accepts, free_port
from services.zookeeper import ZooKeeperServers
from waiting import wait_until

from distci.coordination.port import CommitResult, Committed, Coordination, Create, SessionState, Unknown, Write
from distci.coordination.zookeeper import ZooKeeperCoordination
from distci.errors import CoordinationUnavailable


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
        return closed_by(self._stack, tree)


@pytest.fixture
def own(stack: ExitStack) -> Own:
    return Own(stack)


def reads(tree: Coordination) -> list[Callable[[], object]]:
    return [
        lambda: tree.read("/a"),
        lambda: tree.children("/a"),
        lambda: tree.exists("/a"),
        lambda: tree.watch("/a", Event()),
        tree.sync,
    ]


def test_zookeeper_nobody_answers(stack: ExitStack) -> None:
    port = free_port()

    with pytest.raises(CoordinationUnavailable, match=f"127.0.0.1:{port}"):
        ZooKeeperCoordination(f"127.0.0.1:{port}", "/own", connect_timeout_s=0.5)


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_zookeeper_an_outage_is_never_read_as_an_empty_tree(servers: ZooKeeperServers, own: Own, how: str) -> None:
    tree = own(servers, call_timeout_s=0.3)
    tree.commit(Create("/a"), Create("/a/b"))

    servers.kill(0) if how == "killed" else servers.pause(0)

    for read in reads(tree):
        start_s = time.monotonic()
        with pytest.raises(CoordinationUnavailable):
            read()
        assert time.monotonic() - start_s < 2
    servers.start(0) if how == "killed" else servers.resume(0)
    wait_until(lambda: answers(tree))
    assert list(tree.children("/a")) == ["b"]


def test_zookeeper_a_commit_that_cannot_be_sent_says_so(servers: ZooKeeperServers, own: Own) -> None:
    tree = own(servers, call_timeout_s=0.3)
    servers.kill(0)
    wait_until(lambda: not answers(tree))

    with pytest.raises(CoordinationUnavailable):
        tree.commit(Create("/a"))

    servers.start(0)
    wait_until(lambda: answers(tree))
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

    wait_until(lambda: answers(tree))
    assert (tree.session.id, tree.session.state) == (session, SessionState.CONNECTED)
    assert data_of(tree, "/lasting") == b"1"
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
    wait_until(lambda: answers(tree) and answers(other))

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
    wait_until(lambda: answers(tree))
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
    wait_until(lambda: answers(tree))
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
    wait_until(lambda: answers(tree))
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
    wait_until(lambda: answers(tree))


def test_zookeeper_ensemble_goes_on_without_its_leader(ensemble: ZooKeeperServers, own: Own) -> None:
    tree, other = (own(ensemble, session_timeout_s=20) for _ in range(2))
    sessions = (tree.session.id, other.session.id)
    tree.commit(Create("/a", b"before"), Create("/mine", ephemeral=True))
    other.commit(Create("/theirs", ephemeral=True))

    ensemble.kill(ensemble.leader())

    wait_until(lambda: _writes(tree, "/a", b"after"))
    wait_until(lambda: answers(other))
    assert data_of(other, "/a") == b"after"
    assert (tree.session.id, other.session.id) == sessions
    stats = [other.exists("/mine"), tree.exists("/theirs")]
    assert tuple(stat and stat.owner for stat in stats) == sessions


def test_zookeeper_ensemble_without_a_quorum_is_an_outage(ensemble: ZooKeeperServers, own: Own) -> None:
    tree = own(ensemble, session_timeout_s=20, call_timeout_s=1)
    tree.commit(Create("/a"))

    ensemble.kill(0)
    ensemble.kill(1)
    # The server that is left serves on until it has missed the others.
    wait_until(lambda: "Mode:" not in ensemble.ask(2, "srvr"))
    wait_until(lambda: not answers(tree))

    for read in reads(tree):
        with pytest.raises(CoordinationUnavailable):
            read()
    assert not _writes(tree, "/a", b"1")
    ensemble.start(0)
    wait_until(lambda: _writes(tree, "/a", b"2"))


def test_zookeeper_sync_closes_the_gap_between_servers(zookeeper_ensemble_hosts: str, stack: ExitStack) -> None:
    root = f"/conformance/{uuid.uuid4().hex}"
    trees = [closed_by(stack, ZooKeeperCoordination(hosts, root)) for hosts in zookeeper_ensemble_hosts.split(",")]
    trees[0].commit(Create("/gap"))

    for number in range(30):
        trees[0].commit(Write("/gap", b"%d" % number))
        for tree in trees:
            tree.sync()
            assert data_of(tree, "/gap") == b"%d" % number


def _writes(tree: Coordination, path: str, data: bytes) -> bool:
    try:
        return tree.commit(Write(path, data)) == Committed()
    except CoordinationUnavailable:
        return False
