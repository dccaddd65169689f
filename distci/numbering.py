"""The numbers of a job's builds: without gaps, whoever gives them out, since each is taken in the transaction that makes its build.

The node that a number is taken from says which was the last. A transaction replaces it in the version that it is known in, so whoever is second is
refused, reads it and takes the next one. Two things make that seldom, and numbers are right without either: the threads of a process take
their turns; and a process that has been alone with a job goes by what it wrote there last, until that is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from threading import Lock

from distci.coordination.port import Create, Operation, Write
from distci.model import BuildId
from distci.protocol import paths
from distci.protocol.records import FORMAT, from_bytes, to_bytes
from distci.protocol.tree import Tree
from distci.store import keys
from distci.store.numbers import last_number
from distci.store.port import Store, objects

TURNS = 64
TURN_S = 1.0
"""How long a thread waits for those of its process that take a number of the same job; then it tries all the same."""

KNOWN_MAX = 1024


@dataclass(slots=True)
class Known:
    """A job's node as this process wrote it last."""

    epoch: int
    number: int
    version: int
    is_alone: bool
    """Whether nobody else had written it since the time before."""


class Taking:
    """One number of a job that is to be taken."""

    def __init__(self, known: Known, raises: Operation) -> None:
        self.operation = raises
        """What takes it: refused when somebody else has taken one meanwhile."""
        self.number = known.number
        self.known = known
        self.taken: Callable[[], None] = lambda: None
        """To be called when the transaction was committed: it is another thread's turn."""


class Numbers:
    """The numbers of all jobs of one system. Any thread may use it."""

    def __init__(self, tree: Tree, store: Store) -> None:
        self._tree = tree
        self._store = store
        self._turns = [Lock() for _ in range(TURNS)]
        self._known: dict[str, Known] = {}

    def last(self, job: str) -> int:
        """The number of a job's newest build; 0 when it never had one."""
        return self._next(job).number - 1

    @contextmanager
    def taking(self, job: str) -> Iterator[Taking]:
        """The next number of a job, to be taken within the block."""
        with ExitStack() as turn:
            lock = self._turns[hash(job) % TURNS]
            if lock.acquire(timeout=TURN_S):
                turn.callback(lock.release)
            known = self._known.pop(job, None)
            taking = self._after(job, known) if known and self._may_go_by(known) else self._next(job, known)

            def keep() -> None:
                self._keep(job, taking.known)
                turn.close()

            taking.taken = keep
            yield taking

    def _may_go_by(self, known: Known) -> bool:
        return known.is_alone and known.epoch == self._tree.epoch

    def _after(self, job: str, known: Known) -> Taking:
        then = Known(known.epoch, known.number + 1, known.version + 1, True)
        return Taking(then, Write(paths.job(job), _document(then.number), known.version))

    def _next(self, job: str, known: Known | None = None) -> Taking:
        epoch, path = self._tree.epoch, paths.job(job)
        node = self._tree.coordination.read(path)
        if node is None:
            number = self._last_in_store(job) + 1
            return Taking(Known(epoch, number, 0, False), Create(path, _document(number)))
        number = int(from_bytes(node.data, path)["last"]) + 1
        is_alone = known is not None and (known.epoch, known.version) == (epoch, node.version)
        return Taking(Known(epoch, number, node.version + 1, is_alone), Write(path, _document(number), node.version))

    def _keep(self, job: str, known: Known) -> None:
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known[job] = known

    def _last_in_store(self, job: str) -> int:
        """The highest number that left anything in the store."""
        accepted = (keys.accepted_build(info.key).number for info in objects(self._store, keys.accepted_builds(job)))
        return max([self._last_begun(job), *accepted])

    def _last_begun(self, job: str) -> int:
        """The highest number of a build that was planned."""

        def is_beyond(number: int) -> bool:
            after = keys.past_build(BuildId(job, number)) if number else ""
            return bool(self._store.list(keys.builds(job), after, 1))

        return last_number(is_beyond)


def _document(last: int) -> bytes:
    return to_bytes({"f": FORMAT, "last": last})
