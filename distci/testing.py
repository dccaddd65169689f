"""What authors of workers and adapters test with. Nothing that is shipped to run imports it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from threading import Event, Lock

from distci.coordination.port import CommitResult, Coordination, Node, Operation, Session, Stat, Unknown
from distci.errors import CoordinationUnavailable


class LossyCoordination:
    """A real coordination tree over a line that loses answers when told to."""

    def __init__(self, coordination: Coordination) -> None:
        self._coordination = coordination
        self.real = coordination
        """The tree itself."""
        self._losses: deque[tuple[bool, Callable[[Sequence[Operation]], bool]]] = deque()
        self._lock = Lock()
        self.lost = 0
        """How many answers have been lost so far."""

    def lose_answer(
        self, *, committed: bool, when: Callable[[Sequence[Operation]], bool] = lambda operations: True
    ) -> None:
        """Lose the answer to the next transaction that ``when`` picks; ``committed``: after it took effect, else before."""
        with self._lock:
            self._losses.append((committed, when))

    def commit(self, *operations: Operation) -> CommitResult:
        with self._lock:
            loss = self._losses[0] if self._losses and self._losses[0][1](operations) else None
            if loss is not None:
                self._losses.popleft()
                self.lost += 1
        if loss is None:
            return self._coordination.commit(*operations)
        if loss[0]:
            self._coordination.commit(*operations)
        return Unknown("the answer was lost on purpose")

    @property
    def session(self) -> Session:
        return self._coordination.session

    def read(self, path: str) -> Node | None:
        return self._coordination.read(path)

    def children(self, path: str) -> Sequence[str]:
        return self._coordination.children(path)

    def exists(self, path: str) -> Stat | None:
        return self._coordination.exists(path)

    def watch(self, path: str, changed: Event) -> Stat | None:
        return self._coordination.watch(path, changed)

    def sync(self) -> None:
        self._coordination.sync()

    def close(self) -> None:
        self._coordination.close()


class CutCoordination(LossyCoordination):
    """One that can be cut off: while :attr:`is_cut`, nothing that is sent takes effect and every call says so."""

    is_cut = False

    def _check(self) -> None:
        if self.is_cut:
            raise CoordinationUnavailable("cut off on purpose")

    def commit(self, *operations: Operation) -> CommitResult:
        self._check()
        return super().commit(*operations)

    def read(self, path: str) -> Node | None:
        self._check()
        return super().read(path)

    def children(self, path: str) -> Sequence[str]:
        self._check()
        return super().children(path)

    def exists(self, path: str) -> Stat | None:
        self._check()
        return super().exists(path)

    def watch(self, path: str, changed: Event) -> Stat | None:
        self._check()
        return super().watch(path, changed)

    def sync(self) -> None:
        self._check()
        super().sync()
