"""The coordination port with the folders of the map made on demand, and with hints.

A transaction has required operations and *hints*: waking somebody, going idle. A hint may be out of date by the time it
is committed (another poster woke that worker first); then the transaction goes through without that one, since
what it was for is repaired elsewhere (:mod:`distci.protocol.waking`).

A tree may be lost and made anew under those who work with it. Each one that is made has a higher number, its *epoch*, and every
transaction holds to the one that its process knows: whoever slept through the change writes nothing into a tree that it has not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic as monotonic_clock

from distci.coordination.port import (
    Check,
    CommitResult,
    Committed,
    Coordination,
    Create,
    Delete,
    Node,
    Operation,
    Reason,
    Refused,
    Unknown,
    Write,
    leaves_first,
)
from distci.errors import CoordinationUnavailable, VersionConflict, WrongFormat
from distci.protocol import paths
from distci.protocol.records import FORMAT, Formats, from_bytes, to_bytes

TIME_AGE_S = 60.0
"""How long our own clock counts on from a time that the tree gave."""

PREPARE_TRIES = 10


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

    def __init__(
        self,
        coordination: Coordination,
        new_epoch: Callable[[], int] = lambda: 1,
        speaks: Formats | None = None,
        monotonic: Callable[[], float] = monotonic_clock,
    ) -> None:
        """Make the tree if nobody has; :class:`~distci.errors.WrongFormat` when it is of a format that is not spoken here.

        ``new_epoch`` gives a number for a tree that is made: higher each time, however many trees have been lost.
        """
        self.coordination = coordination
        self.epoch = 0
        """The number of the tree that this process knows."""
        self.format = 0
        """The format in force there, which all that takes part speaks."""
        self.speaks = speaks or Formats()
        self._new_epoch = new_epoch
        self._monotonic = monotonic
        self._time: tuple[float, int] | None = None
        self._folders: set[str] = set()
        self.prepare()

    def commit(self, *required: Operation, hints: Sequence[Operation] = (), epoch: int | None = None) -> Done:
        """Commit the required operations, with the hints if they still hold. Missing folders are made on the way.

        Raises CoordinationUnavailable, among other reasons, when the tree is not that of ``epoch`` (None: the one that this
        process knows); from then on it knows the present one.
        """
        known = self.epoch if epoch is None else epoch
        operations = (*required, Check(paths.epoch(known)), *hints)
        for create in operations:
            if isinstance(create, Create):
                self.folder(_parent(create.path))
        result = self.coordination.commit(*operations)
        if not isinstance(result, Refused):
            return Done(result, hints)
        refused = operations[result.index]
        if isinstance(refused, Create) and result.reason is Reason.MISSING:
            # Somebody swept a folder that we knew of: make it again, then the whole transaction again.
            self._require(known, top=f"/{refused.path.split('/')[1]}")
            self._forget(_parent(refused.path))
            return self.commit(*required, hints=hints, epoch=known)
        if result.index == len(required):
            self._require(known)
        if result.index >= len(required):
            return self.commit(*required, hints=[hint for hint in hints if hint is not refused], epoch=known)
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

    def prepare(self) -> None:
        """Learn which tree there is; where there is none, make one."""
        for _ in range(PREPARE_TRIES):
            node = self.coordination.read(paths.FORMAT)
            epochs = [int(name) for name in self.coordination.children(paths.EPOCH)]
            if node is None or not epochs:
                self._make()
                continue
            self._check_format(node)
            self._folders = set(paths.FOLDERS)
            self.epoch = max(epochs)
            return
        raise CoordinationUnavailable("the tree could not be prepared; try again")

    def renew(self, *also: Operation) -> bool:
        """Give the tree a higher epoch as it is, and do something with that; False when something else was done meanwhile.

        Whoever works with the tree goes on, after another look at its format.
        """
        renewed = Create(paths.epoch(self._new_epoch())), Delete(paths.epoch(self.epoch))
        result = self.coordination.commit(*renewed, *also)
        self.prepare()
        return isinstance(result, Committed)

    def raise_format(self) -> None:
        """Put the newest format that is spoken here in force. From then on nobody who does not speak it commits anything.

        Raises VersionConflict when somebody else changed the format meanwhile.
        """
        node = self.coordination.read(paths.FORMAT)
        document = _format(self.speaks.newest)
        if node is None or not self.renew(Write(paths.FORMAT, document, node.version)):
            raise VersionConflict("the format was changed by somebody else, or the answer was lost; look again")

    def _check_format(self, node: Node) -> None:
        document = from_bytes(node.data, paths.FORMAT)
        in_force, oldest = document.get("format", FORMAT), document.get("oldest", FORMAT)
        if not self.speaks.oldest <= in_force or not oldest <= self.speaks.newest:
            raise WrongFormat(
                f"the coordination tree has format {in_force}, and takes {oldest} at least; this version of DistCI speaks "
                f"{self.speaks}: use one that speaks it"
            )
        self.format = in_force

    def _make(self) -> None:
        """All that a tree has from its first moment on, in one transaction; refused when somebody else was first."""
        made = self.coordination.commit(
            Create(paths.FORMAT, _format(self.speaks.newest)),
            Create(paths.CONTROL, to_bytes({"f": FORMAT, "paused": []})),
            *map(Create, paths.FOLDERS),
            Create(paths.epoch(self._new_epoch())),
        )
        if isinstance(made, Refused):
            self._clear()

    def _clear(self) -> None:
        """Delete what is left of a tree whose deletion was broken off, its epoch first; nothing of a tree that is whole.

        Each transaction proves that no other tree has been made meanwhile.
        """
        tops = (*paths.FOLDERS, paths.CONTROL, paths.FORMAT)
        absent = next((top for top in tops if self.coordination.exists(top) is None), None)
        proof = (Create(absent), Delete(absent)) if absent else (Delete(paths.EPOCH), Create(paths.EPOCH))
        for top in (*tops, paths.ACCESS, paths.DEPTHS):
            for path in leaves_first(self.coordination, top):
                self.coordination.commit(*proof, Delete(path))

    def _require(self, epoch: int, top: str = paths.EPOCH) -> None:
        """Hold the caller to a tree that is still there, with all of one of its fixed folders."""
        is_torn = self.coordination.exists(top) is None
        if is_torn:
            self._clear()
        if is_torn or self.coordination.exists(paths.epoch(epoch)) is None:
            self.prepare()
            raise CoordinationUnavailable("the coordination tree was lost, or has been made anew; look again")

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


def _format(in_force: int) -> bytes:
    return to_bytes({"f": FORMAT, "format": in_force, "oldest": in_force})


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
