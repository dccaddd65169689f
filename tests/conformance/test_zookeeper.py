"""What the ZooKeeper adapter keeps besides the promises of the port."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from threading import Event, Thread
from typing import Self

import pytest
from conformance.coordination import WAIT_S, answers, closed_by, data_of
from kazoo.client import KazooClient
from kazoo.security import make_digest_acl
from waiting import wait_until

from distci.coordination.port import Committed, Create, Unknown, Write
from distci.coordination.zookeeper import ZooKeeperCoordination
from distci.errors import CoordinationUnavailable, Forbidden


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
    tree = closed_by(stack, ZooKeeperCoordination(server.host, root, session_timeout_s=10))
    session = tree.session.id

    server.forgets.set()
    with ThreadPoolExecutor(1) as pool:
        committing = pool.submit(tree.commit, Create("/a"))
        wait_until(lambda: not server.forgets.is_set())
        with suppress(CoordinationUnavailable):
            tree.exists("/a")
        assert committing.result(WAIT_S) == Unknown()

    wait_until(lambda: answers(tree))
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
    tree, other = (closed_by(stack, ZooKeeperCoordination(zookeeper_hosts, root)) for _ in range(2))
    outside = closed_by(stack, ZooKeeperCoordination(zookeeper_hosts, "/"))
    changed = Event()
    tree.watch(f"/{name}x", changed)

    other.commit(Create(f"/{name}x", b"1"))

    assert changed.wait(WAIT_S)
    assert data_of(tree, f"/{name}x") == b"1"
    assert data_of(outside, f"{root.rstrip('/')}/{name}x") == b"1"


def test_zookeeper_a_session_is_as_long_as_was_granted(zookeeper_hosts: str, stack: ExitStack) -> None:
    tree = closed_by(stack, ZooKeeperCoordination(zookeeper_hosts, "/conformance", session_timeout_s=100))

    # The most that the server of the tests grants.
    assert tree.session.timeout_s == 60


def test_zookeeper_what_its_access_lists_deny_is_forbidden(zookeeper_hosts: str, stack: ExitStack) -> None:
    root = f"/conformance/{uuid.uuid4().hex}"
    tree = closed_by(stack, ZooKeeperCoordination(zookeeper_hosts, root))
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
