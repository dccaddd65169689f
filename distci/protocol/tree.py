"""The coordination port with the folders of the map made on demand, and with hints.

A transaction has required operations and *hints*: waking somebody, going idle. A hint may be out of date by the time it
is committed (another poster woke that worker first); then the transaction goes through without that one, since
what it was for is repaired elsewhere (:mod:`distci.protocol.waking`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic as monotonic_clock

from distci.coordination.port import (
    CommitResult,
    Committed,
    Coordination,
    Create,
    Operation,
    Reason,
    Refused,
    Unknown,
    Write,
)
from distci.errors import CoordinationUnavailable, InvalidDocument
from distci.protocol import paths
from distci.protocol.records import FORMAT, from_bytes, to_bytes

TIME_AGE_S = 60.0
"""How long our own clock counts on from a time that the tree gave."""


@dataclass(frozen=True, slots=True)
class Done:
    """How a transaction went, and which of its hints were sent with it."""

    result: CommitResult
    hints: Sequence[Operation] = ()

    @property
    def committed(self) -> bool:
        return isinstance(self.result, Committed)

    @property
    def unknown(self) -> bool:
        return isinstance(self.result, Unknown)

    def refused_at(self, index: int, reason: Reason | None = None) -> bool:
        """Whether it was refused because of that operation (and for that reason)."""
        result = self.result
        return isinstance(result, Refused) and result.index == index and reason in (None, result.reason)


class Tree:
    """What the rest of the protocol commits through. Any thread may use it."""

    def __init__(self, coordination: Coordination, monotonic: Callable[[], float] = monotonic_clock) -> None:
        """Make the fixed folders if nobody has; :class:`~distci.errors.InvalidDocument` when the tree speaks another format."""
        self.coordination = coordination
        self._monotonic = monotonic
        self._time: tuple[float, int] | None = None
        self._folders: set[str] = set()
        self._prepare()

    def commit(self, *required: Operation, hints: Sequence[Operation] = ()) -> Done:
        """Commit the required operations, with the hints if they still hold. Missing folders are made on the way."""
        operations = (*required, *hints)
        for create in operations:
            if isinstance(create, Create):
                self.folder(_parent(create.path))
        result = self.coordination.commit(*operations)
        if not isinstance(result, Refused):
            return Done(result, hints)
        refused = operations[result.index]
        if isinstance(refused, Create) and result.reason is Reason.MISSING:
            # Somebody swept a folder that we knew of: make it again, then the whole transaction again.
            self._forget(_parent(refused.path))
            return self.commit(*required, hints=hints)
        if result.index >= len(required):
            return self.commit(*required, hints=[hint for hint in hints if hint is not refused])
        return Done(result)

    def now_ms(self) -> int:
        """The time by the tree's own clock, which all that it stamps is comparable with; milliseconds since 1970, late rather than early.

        It costs a write a minute, since a tree tells its time by nothing else. Raises CoordinationUnavailable.
        """
        known = self._time
        if known is None or self._monotonic() - known[0] >= TIME_AGE_S:
            # Whatever became of the write: the folder was last written then or before.
            self.coordination.commit(Write(paths.RUNNING, b""))
            stat = self.coordination.exists(paths.RUNNING)
            if stat is None:
                raise CoordinationUnavailable(f"{paths.RUNNING} is gone; the tree is being rebuilt or is not DistCI's")
            self._time = known = (self._monotonic(), stat.modified_ms)
        return known[1] + int((self._monotonic() - known[0]) * 1000)

    def _prepare(self) -> None:
        node = self.coordination.read(paths.FORMAT)
        if node is None:
            creates = [Create(folder) for folder in paths.FOLDERS]
            first = Create(paths.FORMAT, to_bytes({"f": FORMAT, "oldest": FORMAT}))
            self.coordination.commit(first, Create(paths.CONTROL, to_bytes({"f": FORMAT, "paused": []})), *creates)
            node = self.coordination.read(paths.FORMAT)
            if node is None:
                raise CoordinationUnavailable("the tree could not be prepared; try again")
        oldest = from_bytes(node.data, paths.FORMAT).get("oldest")
        if oldest != FORMAT:
            raise InvalidDocument(
                f"{paths.FORMAT}: the tree needs format {oldest} at least; this version speaks {FORMAT}"
            )
        self._folders.update(paths.FOLDERS)

    def folder(self, folder: str) -> None:
        """Make sure that a folder and those above it exist."""
        if folder in self._folders or not folder:
            return
        self.folder(_parent(folder))
        if self.coordination.exists(folder) is None:
            # Refused: somebody else made it, which is as good. A lost answer is found out by the commit that needs it.
            self.coordination.commit(Create(folder))
        self._folders.add(folder)

    def _forget(self, folder: str) -> None:
        while folder not in paths.FOLDERS and folder:
            self._folders.discard(folder)
            folder = _parent(folder)


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
