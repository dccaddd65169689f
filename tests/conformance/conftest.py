"""Coordination trees to hold the adapters and the protocol to their promises on."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest
from kazoo.client import KazooClient
from kazoo.handlers.threading import KazooTimeoutError

from distci.coordination.port import Coordination
from distci.coordination.sqlite import SqliteCoordination
from distci.coordination.zookeeper import ZooKeeperCoordination

SESSION_TIMEOUT_S = 10.0
CALL_TIMEOUT_S = 10.0


class SqliteCluster:
    """A fresh SQLite tree."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.opener = partial(SqliteCoordination, path)
        """Opens the tree, in this process or another."""

    def connect(
        self, session_timeout_s: float = SESSION_TIMEOUT_S, call_timeout_s: float = CALL_TIMEOUT_S
    ) -> SqliteCoordination:
        return self.opener(session_timeout_s=session_timeout_s, call_timeout_s=call_timeout_s)

    def expire(self, coordination: Coordination) -> None:
        """End a session as the tree does when its time is over, behind its owner's back."""
        owner = coordination.session.id
        with closing(sqlite3.connect(self.path, isolation_level=None)) as tree:
            tree.execute("BEGIN IMMEDIATE")
            tree.execute("DELETE FROM nodes WHERE owner = ?", (owner,))
            tree.execute("DELETE FROM sessions WHERE id = ?", (owner,))
            tree.execute("COMMIT")


class ZooKeeperCluster:
    """A fresh root in a ZooKeeper."""

    def __init__(self, hosts: str) -> None:
        self.hosts = hosts
        self.root = f"/conformance/{uuid.uuid4().hex}"
        self.opener = partial(ZooKeeperCoordination, hosts, self.root)
        """Opens the tree, in this process or another."""

    def connect(
        self, session_timeout_s: float = SESSION_TIMEOUT_S, call_timeout_s: float = CALL_TIMEOUT_S
    ) -> ZooKeeperCoordination:
        return self.opener(session_timeout_s=session_timeout_s, call_timeout_s=call_timeout_s)

    def expire(self, coordination: Coordination) -> None:
        """End a session by taking it over and closing it."""
        client = vars(getattr(coordination, "real", coordination))["_client"]
        taken = client.client_id
        is_over = False
        # Its owner takes it back at once; whoever asks for a session that is over is given another.
        while not is_over:
            thief = KazooClient(self.hosts, client_id=taken)
            try:
                thief.start(timeout=2)
                given = thief.client_id
                is_over = given is not None and given[0] != taken[0]
            except KazooTimeoutError:
                # The owner took it back while it was being handed over: once more.
                continue
            finally:
                thief.stop()
                thief.close()


Cluster = SqliteCluster | ZooKeeperCluster


@pytest.fixture(params=["sqlite", "zookeeper"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    """An empty coordination tree of each kind."""
    if request.param == "sqlite":
        yield SqliteCluster(tmp_path / "tree.sqlite")
    else:
        yield ZooKeeperCluster(request.getfixturevalue("zookeeper_hosts"))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes at the end of a test what it is given."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def tree(cluster: Cluster, stack: ExitStack) -> Coordination:
    """An empty tree."""
    return stack.enter_context(closing(cluster.connect()))


@pytest.fixture
def other(cluster: Cluster, stack: ExitStack) -> Coordination:
    """Somebody else's connection to the same tree."""
    return stack.enter_context(closing(cluster.connect()))
