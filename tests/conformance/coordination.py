"""What the tests of the coordination port and of its adapters share."""

from __future__ import annotations

import multiprocessing
from contextlib import ExitStack
from threading import Event
from typing import Protocol, TypeVar

from distci.coordination.port import Coordination, Session, SessionState
from distci.errors import CoordinationUnavailable

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


def closed_by(stack: ExitStack, tree: Tree) -> Tree:
    stack.callback(tree.close)
    return tree


def data_of(tree: Coordination, path: str) -> bytes | None:
    node = tree.read(path)
    return node.data if node else None


def version_of(tree: Coordination, path: str) -> int | None:
    stat = tree.exists(path)
    return stat.version if stat else None


def answers(tree: Coordination) -> bool:
    try:
        tree.sync()
    except CoordinationUnavailable:
        return False
    return True
