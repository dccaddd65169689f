"""A coordination tree that passes every call on: what does something more with some of them begins here."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event

from distci.coordination.port import CommitResult, Coordination, Node, Operation, Session, Stat


class PassingCoordination:
    """A :class:`~distci.coordination.port.Coordination` in front of another one."""

    def __init__(self, coordination: Coordination) -> None:
        self._coordination = coordination

    @property
    def session(self) -> Session:
        return self._coordination.session

    def read(self, path: str) -> Node | None:
        return self._coordination.read(path)

    def children(self, path: str) -> Sequence[str]:
        return self._coordination.children(path)

    def exists(self, path: str) -> Stat | None:
        return self._coordination.exists(path)

    def commit(self, *operations: Operation) -> CommitResult:
        return self._coordination.commit(*operations)

    def watch(self, path: str, changed: Event) -> Stat | None:
        return self._coordination.watch(path, changed)

    def sync(self) -> None:
        self._coordination.sync()

    def close(self) -> None:
        self._coordination.close()
