"""What authors of workers and adapters test with. Nothing that is shipped to run imports it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from threading import Event, Lock
from typing import BinaryIO

from distci.coordination.passing import PassingCoordination
from distci.coordination.port import CommitResult, Coordination, Node, Operation, Stat, Unknown
from distci.errors import CoordinationUnavailable, StoreUnavailable
from distci.store.passing import PassingStore
from distci.store.port import Store


class LossyCoordination(PassingCoordination):
    """A real coordination tree over a line that loses answers when told to."""

    def __init__(self, coordination: Coordination) -> None:
        super().__init__(coordination)
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


class LossyStore(PassingStore):
    """A real store over a line that fails, loses answers or delivers twice when told to."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.is_up = Event()
        """While it is not set, nothing can be put."""
        self.is_up.set()
        self.put_keys: list[str] = []
        """The keys of all puts that were begun, repeated ones too."""
        self.fails: Callable[[], str] = lambda: ""
        """What goes wrong with the next put: it fails ``before`` or ``after`` it took effect, takes effect ``twice``, or nothing."""
        self.error: Exception | None = None
        """What a put raises that can never succeed."""

    def put(self, key: str, data: bytes | BinaryIO) -> None:
        self.put_keys.append(key)
        failure = self.fails()
        if self.error:
            raise self.error
        if failure == "before" or not self.is_up.is_set():
            raise StoreUnavailable("failed on purpose before")
        self._store.put(key, data)
        if failure == "twice" and isinstance(data, bytes):
            self._store.put(key, data)
        if failure == "after":
            raise StoreUnavailable("failed on purpose after")
