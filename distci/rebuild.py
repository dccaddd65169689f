"""The coordination tree is disposable: all that it holds of builds is brought back from the store.

Job numbers come back by themselves, since a job that the tree does not know goes on above the highest number in the store. What has to be
put back are the builds that were accepted and are not archived, and the causes that have been served. Each is put back in a
transaction of its own that does nothing where it is there already; so any number of processes may do this at once, die at any point, and do
it again, also on a tree that is not empty.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from distci import statuses
from distci.coordination.port import Write
from distci.documents.stored import trigger_from_json
from distci.documents.strict_json import read_json
from distci.errors import NoSuchObject
from distci.lifecycle import Lifecycle
from distci.live import LiveBuild
from distci.model import BuildId, Json, Result
from distci.projects import project_of
from distci.protocol import paths, transactions
from distci.protocol.records import FORMAT, Ticket, from_bytes, to_bytes
from distci.protocol.sweeps import ONCE_DAYS
from distci.protocol.tickets import DAY_S
from distci.store import keys
from distci.store.port import Store, objects

DAY_MS = DAY_S * 1000

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rebuilding:
    """What the tree lacks, or what has been put back into it."""

    epoch: int
    """The number of the tree."""
    is_rebuilt: bool
    """Whether somebody has brought back all that the store knew when this tree was made."""
    builds: Sequence[BuildId]


class Rebuild:
    """Brings back what a lost tree had. Any thread may use it."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self._tickets = lifecycle.tickets
        self._store = lifecycle.store
        self._rebuilt_epoch = 0

    def look(self) -> Rebuilding:
        """What :meth:`run` would put back."""
        missing = [live.build for live in self._lifecycle.unfinished() if self._is_missing(live)]
        return Rebuilding(self._tickets.tree.epoch, self._is_rebuilt(), missing)

    def run(self) -> Rebuilding:
        """Put everything back that is missing; which builds began again."""
        tree = self._tickets.tree
        tree.prepare()
        if tree.epoch < last_epoch(self._store):
            # The store is not the one that this tree was made on: it has attempts that this tree would give out again.
            tree.renew()
        epoch = tree.epoch
        # What began whose end, first: once a build is back, it may end, and start what follows on it, at any moment.
        for live in self._lifecycle.unfinished():
            self._lifecycle.note_started(live)
        restored = []
        for live in self._lifecycle.unfinished():
            if self._lifecycle.restore(live):
                restored.append(live.build)
                log.warning("%s began again: the tree that knew of it was lost", live.build)
            self._remember(live.build, live.cause, live.created_ms)
        told: list[Ticket] = []
        for build, record in self._recent():
            self._remember(build, str(record.get("cause", "")), record["created_ms"])
            trigger, result = trigger_from_json(record["trigger"]), Result(record["result"])
            told += statuses.tickets(build, project_of(build.job), trigger, result, str(record["reason"]))
        self._tell(told)
        tree.commit(Write(paths.epoch(epoch), to_bytes({"f": FORMAT, "rebuilt": True})), epoch=epoch)
        return Rebuilding(epoch, True, restored)

    def _tell(self, told: Sequence[Ticket]) -> None:
        """Post statuses, but those that still stand. Whether a forge has heard the others nobody knows; it is asked first."""
        # Looked at after the records were: a build that has one has posted its status before. One that moves meanwhile may be overlooked.
        standing = {paths.ticket_of(view.token) for view in self._tickets.list()} if told else ()
        for ticket in told:
            if ticket.id not in standing:
                self._tickets.post(ticket)

    def once(self) -> None:
        """Run if nobody has since the tree was made; cheap when somebody has."""
        if self._rebuilt_epoch == self._tickets.tree.epoch:
            return
        if not self._is_rebuilt():
            self.run()
        self._rebuilt_epoch = self._tickets.tree.epoch

    def _is_rebuilt(self) -> bool:
        path = paths.epoch(self._tickets.tree.epoch)
        node = self._tickets.tree.coordination.read(path)
        return node is not None and bool(node.data) and bool(from_bytes(node.data, path).get("rebuilt"))

    def _is_missing(self, live: LiveBuild) -> bool:
        if self._lifecycle.read(live.build) is not None:
            return False
        return self._store.head(keys.build_record(live.build)) is None

    def _remember(self, build: BuildId, cause: str, created_ms: int) -> None:
        """Refuse a cause that was served; nothing happens where that is known."""
        if cause and self._is_recent(created_ms):
            self._tickets.tree.commit(*transactions.remember(cause, created_ms // DAY_MS, str(build)))

    def _recent(self) -> Iterator[tuple[BuildId, dict[str, Json]]]:
        """The records of archived builds whose causes would still be remembered."""
        for job in self._lifecycle.jobs.list():
            for number in range(self._lifecycle.last_number(job), 0, -1):
                build = BuildId(job, number)
                key = keys.build_record(build)
                try:
                    record = read_json(self._store.get(key), key)
                except NoSuchObject:
                    continue
                if not self._is_recent(record["created_ms"]):
                    break
                yield build, record

    def _is_recent(self, created_ms: int) -> bool:
        return self._lifecycle.now_ms() - created_ms < ONCE_DAYS * DAY_MS


def new_epoch(store: Store) -> int:
    """A number for a tree that is to be made: higher than that of any before on this store."""
    last = last_epoch(store)
    while not store.put_if_absent(keys.epoch(last + 1), b""):
        last += 1
    return last + 1


def last_epoch(store: Store) -> int:
    """The number of the last tree that was made on a store; 0 when there has been none."""
    return max((keys.epoch_of(info.key) for info in objects(store, keys.EPOCHS)), default=0)
