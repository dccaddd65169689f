"""What any worker of the kind ``control`` does for the whole now and then: nobody is needed, and everybody may.

Each folder of claims has one sweeper, the first by rendezvous hash over the live candidates; when two believe that it is theirs,
the second one's transactions are refused, and nothing else happens. Ages are counted by the sweeper's own
monotonic clock from when it first saw something, so no two clocks are ever compared.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence

from distci.coordination.port import Delete
from distci.errors import InvalidDocument, Unavailable
from distci.protocol import paths, permits, transactions
from distci.protocol.records import Running, Ticket
from distci.protocol.tickets import DAY_S, Tickets

GRACE_S = 2.0
"""How long a claim may stand without a heartbeat before it is taken over: time for its worker to adopt it again."""

ONCE_DAYS = 2
"""For how many days causes are remembered at least."""

FORGOTTEN_AT_ONCE = 1000
"""Causes of one day that a sweep forgets, in one transaction."""

log = logging.getLogger(__name__)


class Sweeper:
    """Sweeps when told to; not thread-safe."""

    def __init__(
        self,
        tickets: Tickets,
        name: str,
        candidates: Callable[[], Sequence[str]],
        grace_s: float = GRACE_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``candidates`` names the workers that sweep, ``name`` among them."""
        self._tickets = tickets
        self._coordination = tickets.tree.coordination
        self._name = name
        self._candidates = candidates
        self._grace_s = grace_s
        self._monotonic = monotonic
        self._missing_since: dict[str, float] = {}
        self._waited: frozenset[str] = frozenset()

    def sweep(self) -> int:
        """Look over all that falls to this worker; how many tickets were moved."""
        candidates = self._candidates()
        mine = [item for item in range(paths.CLAIM_BUCKETS) if self._is_mine(f"claims {item}", candidates)]
        moved = sum(self._sweep_claims(bucket) for bucket in mine)
        if self._is_mine("parked", candidates):
            moved += self._unpark_due() + self._unpark_for_permits()
        if self._is_mine("waiting", candidates):
            self._wake_again()
        if self._is_mine("once", candidates):
            self._forget_old_causes()
            moved += self._each(self._coordination.children(paths.WORKERS), self._set_worker_aside)
        return moved

    def _is_mine(self, what: str, candidates: Sequence[str]) -> bool:
        best = max(candidates, key=lambda name: paths.digest(f"{what} {name}", 26), default=self._name)
        return best == self._name

    def _sweep_claims(self, bucket: int) -> int:
        # Running first, owners second: a claim makes both at once, so one seen running had its owner already.
        running = self._coordination.children(f"{paths.RUNNING}/{bucket}")
        owners = set(self._coordination.children(f"{paths.OWNERS}/{bucket}"))
        now = self._monotonic()
        missing = [token for token in running if token not in owners]
        known = {token: since for token, since in self._missing_since.items() if token in missing}
        others = {token: since for token, since in self._missing_since.items() if paths.claim_bucket(token) != bucket}
        self._missing_since = others | {token: known.get(token, now) for token in missing}
        due = [token for token in missing if now - self._missing_since[token] >= self._grace_s]
        return self._each((f"{paths.RUNNING}/{bucket}/{token}" for token in due), self._reclaim)

    def _each(self, items: Iterable[str], move: Callable[[str], bool]) -> int:
        """How many were moved. One that cannot be must not keep the others from it."""
        moved = 0
        for item in items:
            try:
                moved += move(item)
            except Unavailable:
                raise
            except Exception:
                log.exception("%s cannot be swept", item)
        return moved

    def _reclaim(self, path: str) -> bool:
        """Take over a claim that nobody holds any more."""
        token = path.rpartition("/")[2]
        node = self._coordination.read(path)
        if node is None:
            return False
        try:
            running = Running.from_bytes(node.data, path)
            if paths.running(running.ticket.token) != path:
                raise InvalidDocument(f"{path}: a claim of {running.ticket.token} does not stand here")
        except InvalidDocument as error:
            self._tickets.set_aside(path, token, str(error))
            return True
        step = self._tickets.next_attempt(running.ticket, f"its worker {running.worker} was lost")
        passed_on = permits.pass_on(self._tickets.tree, [name for name, _ in running.slots])
        done = self._tickets.commit(
            *transactions.end(running, has_owner=False),
            *step.operations,
            *passed_on.operations,
            post=[*step.post, *passed_on.post],
        )
        if done.committed:
            self._missing_since.pop(token, None)
            log.warning("claim %s was taken over: its worker %s was lost", token, running.worker)
        return done.committed

    def _wake_again(self) -> None:
        """The net below a wake-up that died with whoever got it: tickets that waited at the last sweep too, while somebody is idle."""
        offers, paused = self._tickets.waking.offers(), self._tickets.paused()

        def could_be_done(kind: str, labels: Sequence[str]) -> bool:
            return not {kind, "*"} & {*paused} and any(offer.accepts(kind, labels) for offer in offers)

        waiting = {queued.path: queued for queued in self._tickets.queue(could_be_done)}
        again = [waiting[path] for path in waiting if path in self._waited]
        self._waited = frozenset(waiting)
        self._tickets.waking.wake([Ticket(queued.name.ticket, queued.kind, labels=queued.labels) for queued in again])

    def _unpark_due(self) -> int:
        now_ms = int(self._tickets.clock() * 1000)
        folder = paths.parked_folder(paths.DUE)
        names = [name for name in self._coordination.children(folder) if paths.due_ms(name) <= now_ms]
        return self._each((f"{folder}/{name}" for name in sorted(names)), self._unpark)

    def _unpark_for_permits(self) -> int:
        """The net below the hand-over of permits: tickets parked for one that has slots free."""
        tree = self._tickets.tree
        turns = (
            path for name in permits.waited_for(tree) for path in permits.line(tree, name)[: permits.free(tree, name)]
        )
        return self._each(turns, self._unpark)

    def _unpark(self, path: str) -> bool:
        node = self._coordination.read(path)
        if node is None:
            return False
        try:
            ticket = Ticket.waiting(node.data, path)
        except InvalidDocument as error:
            self._tickets.set_aside(path, f"unreadable.{paths.digest(path, 16)}", str(error))
            return False
        return self._tickets.commit(Delete(path, node.version), post=[ticket]).committed

    def _set_worker_aside(self, name: str) -> bool:
        """Set a node aside that stands among the workers, goes with no session and says nothing that can be read."""
        path = paths.worker(name)
        node = self._coordination.read(path)
        if node is None or node.stat.owner:
            return False
        self._tickets.set_aside(path, f"unreadable.{paths.digest(path, 16)}", "no session keeps it: it is no worker's")
        return True

    def _forget_old_causes(self) -> None:
        today = int(self._tickets.clock() // DAY_S)
        for day in self._coordination.children(paths.ONCE):
            if not day.isdigit() or int(day) >= today - ONCE_DAYS:
                continue
            folder = f"{paths.ONCE}/{day}"
            causes = self._coordination.children(folder)
            deletes = [Delete(f"{folder}/{cause}") for cause in causes[:FORGOTTEN_AT_ONCE]]
            # Those that are left, next time: claims are waiting to be swept.
            self._coordination.commit(*deletes, *([Delete(folder)] if len(deletes) == len(causes) else []))
