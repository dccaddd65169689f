"""What any worker of the kind ``control`` does for the whole now and then: nobody is needed, and everybody may.

Each folder of claims has one sweeper, the first by rendezvous hash over the live candidates, and the next two behind it, who know for
how long a heartbeat has been missing when they become the first, and act a moment later when the first does not. When two believe that it
is their turn, the second one's transactions are refused, and nothing else happens. No two clocks are ever compared: ages are counted by the
sweeper's own monotonic clock from when it first saw something, or by the tree's own times.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Iterable, Sequence

from distci.coordination.port import Delete, Node
from distci.errors import InvalidDocument, StoreUnavailable, Unavailable
from distci.protocol import depths, paths, permits, transactions
from distci.protocol.records import Running, Ticket, from_bytes
from distci.protocol.tickets import DAY_S, Tickets

GRACE_S = 1.0
"""How long a claim may stand without a heartbeat before it is taken over: time for its worker to adopt it again. One that can reach
the tree does so as soon as it has learnt that its session is over, and it tries to connect about once a second."""

SWEEP_S = 1.0
"""How often all is looked over."""

LOOK_S = 0.2
"""How often it is looked whether a worker has gone; if so, claims are looked over at once, and until all that it held is taken over."""

WATCHERS = 3
"""So many sweepers look for missing heartbeats in each folder of claims."""

TURN_S = 0.25
"""So much later than the one before it each of them takes a claim over: longer than a transaction lasts as a rule."""

OVERDUE_GRACE_S = 30.0
"""How long a claim whose limit has passed is left alone: time for its worker to renew it when the tree has been away."""

UNHEARD_MAX = 4
"""Claims of a ticket after which one without a session that was never renewed uses up an attempt all the same: its worker may have died of it at once."""

ONCE_DAYS = 2
"""For how many days causes are remembered at least."""

EMPTY_S = 60.0
"""How often the queue's folders and the workers are looked over; folders that are found empty twice in a row are removed."""

FORGOTTEN_AT_ONCE = 1000
"""Causes of one day that a sweep forgets, in one transaction."""

_ALL_BUCKETS = range(paths.CLAIM_BUCKETS)

log = logging.getLogger(__name__)


class Sweeper:
    """Sweeps when told to; not thread-safe."""

    def __init__(
        self,
        tickets: Tickets,
        name: str,
        candidates: Callable[[], Sequence[str]],
        grace_s: float = GRACE_S,
        overdue_grace_s: float = OVERDUE_GRACE_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``candidates`` names the workers that sweep, ``name`` among them."""
        self._tickets = tickets
        self._coordination = tickets.tree.coordination
        self._name = name
        self._candidates = candidates
        self._grace_s = grace_s
        self._overdue_grace_s = overdue_grace_s
        self._missing = [_Ages(monotonic) for _ in range(paths.CLAIM_BUCKETS)]
        self._overdue = [_Ages(monotonic) for _ in range(paths.CLAIM_BUCKETS)]
        self._ends_ms: list[dict[str, float]] = [{} for _ in range(paths.CLAIM_BUCKETS)]
        self._waited: frozenset[str] = frozenset()
        self._monotonic = monotonic
        self._live: frozenset[str] = frozenset()
        self._swept_at = -SWEEP_S
        self._sweepers: Sequence[str] = ()
        self._buckets_with_missing: set[int] = set()
        self._empty: set[str] = set()
        self._looked_over_at = -EMPTY_S
        self._noted_minute = 0

    def look(self) -> int:
        """Sweep if that was last done a second ago, and look after claims if a worker has gone; how many tickets were moved.

        To be called every :data:`LOOK_S`: then claims of a lost worker are taken over as soon as their time has come.
        """
        live = frozenset(self._coordination.children(paths.WORKERS))
        if self._monotonic() - self._swept_at >= SWEEP_S:
            self._swept_at = self._monotonic()
            moved = self.sweep()
        else:
            # Who looks often must read little.
            buckets = _ALL_BUCKETS if self._live - live else self._buckets_with_missing
            moved = self._look_after_claims(live.intersection(self._sweepers), buckets)
        self._live = live
        return moved

    def sweep(self) -> int:
        """Look over all that falls to this worker; how many tickets were moved."""
        candidates = self._sweepers = self._candidates()
        moved = self._look_after_claims(candidates, _ALL_BUCKETS, is_sweep=True)
        if self._is_mine("parked", candidates):
            moved += self._unpark_due() + self._unpark_for_permits()
        if self._is_mine("once", candidates):
            self._forget_old_causes()
        if self._is_mine("folders", candidates):
            moved += self._look_over_folders()
        if self._is_mine("waiting", candidates):
            self._wake_again()
        if self._is_mine("depths", candidates):
            self._note_depths()
        return moved

    def _is_mine(self, what: str, candidates: Collection[str]) -> bool:
        return self._place(what, candidates) == 0

    def _place(self, what: str, candidates: Collection[str]) -> int:
        """How many others come first."""
        mine = paths.digest(f"{what} {self._name}", 26)
        return sum(paths.digest(f"{what} {name}", 26) > mine for name in candidates)

    def _look_after_claims(self, candidates: Collection[str], buckets: Iterable[int], *, is_sweep: bool = False) -> int:
        moved = 0
        for bucket in sorted(buckets):
            place = self._place(f"claims {bucket}", candidates)
            if place >= WATCHERS:
                self._take_over(bucket, (), place)
                continue
            # Running first, owners second: a claim makes both at once, so one seen running had its owner already.
            running = self._coordination.children(f"{paths.RUNNING}/{bucket}")
            owners = set(self._coordination.children(f"{paths.OWNERS}/{bucket}"))
            moved += self._take_over(bucket, [token for token in running if token not in owners], place)
            if is_sweep and place == 0:
                moved += self._sweep_claims(bucket, running, owners)
        return moved

    def _take_over(self, bucket: int, missing: Sequence[str], place: int) -> int:
        """Reclaim what has missed its heartbeat for so long that it is our turn."""
        due = self._missing[bucket].of(missing, self._grace_s + place * TURN_S)
        if len(due) < len(missing):
            self._buckets_with_missing.add(bucket)
        else:
            self._buckets_with_missing.discard(bucket)
        return self._each(due, self._reclaim)

    def _sweep_claims(self, bucket: int, running: Sequence[str], owners: Collection[str]) -> int:
        """Set aside what stands in the wrong folder, and take over what does not get on."""
        astray = [token for token in running if paths.claim_bucket(token) != bucket]
        moved = self._each((f"{paths.RUNNING}/{bucket}/{token}" for token in astray), self._set_claim_aside)
        overdue = self._overdue[bucket].of(self._late(bucket, set(running).intersection(owners)), self._overdue_grace_s)
        return moved + self._each(overdue, self._take_away)

    def _each(self, items: Iterable[str], move: Callable[[str], bool]) -> int:
        """How many were moved. One that cannot be must not keep the others from it."""
        moved = 0
        for item in items:
            try:
                moved += move(item)
            except StoreUnavailable as error:
                # What becomes of this one is on record there; of others it may be known without.
                log.info("%s cannot be swept yet: %s", item, error)
            except Unavailable:
                raise
            except Exception:
                log.exception("%s cannot be swept", item)
        return moved

    def _late(self, bucket: int, tokens: Collection[str]) -> Sequence[str]:
        """The claims with a heartbeat whose limit has passed. Each record is read once, and again before it is believed."""
        known = self._ends_ms[bucket]
        ends_ms = {token: known[token] if token in known else self._end_ms(self._record(token)) for token in tokens}
        self._ends_ms[bucket] = ends_ms
        if not any(map(math.isfinite, ends_ms.values())):
            return []
        now_ms = self._tickets.tree.now_ms()
        for token in [token for token, end_ms in ends_ms.items() if end_ms <= now_ms]:
            ends_ms[token] = self._end_ms(self._record(token))
        return [token for token, end_ms in ends_ms.items() if end_ms <= now_ms]

    def _record(self, token: str) -> Node | None:
        return self._coordination.read(paths.running(token))

    def _end_ms(self, node: Node | None) -> float:
        """When a claim's limit passes unless it is renewed, by the tree's clock."""
        try:
            limit_s = Running.from_bytes(node.data, "a claim").limit_s if node else 0
        except InvalidDocument:
            limit_s = 0
        return node.stat.modified_ms + limit_s * 1000 if node and limit_s else math.inf

    def _reclaim(self, token: str) -> bool:
        """Take over a claim that nobody holds any more."""
        node = self._record(token)
        return node is not None and self._end(token, node, "its worker {} was lost", has_owner=False)

    def _take_away(self, token: str) -> bool:
        """Take over a claim from a worker that lives and does not get on, unless it does after all."""
        node = self._record(token)
        if node is None or self._end_ms(node) > self._tickets.tree.now_ms():
            return False
        return self._end(token, node, "its worker {} did not get on with it", has_owner=True)

    def _end(self, token: str, node: Node, why: str, *, has_owner: bool) -> bool:
        try:
            running = Running.from_bytes(node.data, paths.running(token))
            if running.ticket.token != token:
                raise InvalidDocument(f"{paths.running(token)}: the claim in it is {running.ticket.token}")
        except InvalidDocument as error:
            self._tickets.set_aside(paths.running(token), token, str(error))
            return True
        reason = why.format(running.worker)
        # Nobody may ever have known of it: the request had come twice, or the answer was lost.
        is_unheard = bool(running.lease_s) and node.version == 0
        ticket = running.ticket.spared(UNHEARD_MAX) if is_unheard else running.ticket
        step = self._tickets.next_attempt(ticket, reason)
        passed_on = permits.pass_on(self._tickets.tree, [name for name, _ in running.slots])
        done = self._tickets.commit(
            *transactions.end(running, has_owner, node.version),
            *step.operations,
            *passed_on.operations,
            post=[*step.post, *passed_on.post],
        )
        if done.committed:
            log.warning("claim %s was taken over: %s", token, reason)
        return done.committed

    def _set_claim_aside(self, path: str) -> bool:
        """Set a record aside that stands where nobody who knows its token looks for it."""
        self._tickets.set_aside(path, path.rpartition("/")[2], "no claim of this token stands in this folder")
        return True

    def _wake_again(self) -> None:
        """The net below a wake-up that died with whoever got it: tickets that waited at the last sweep too, while somebody is idle."""
        offers, control = self._tickets.waking.offers(), self._tickets.control()

        def could_be_done(kind: str, labels: Sequence[str]) -> bool:
            return not control.pauses(kind) and any(offer.accepts(kind, labels) for offer in offers)

        waiting = {queued.path: queued for queued in self._tickets.queue(could_be_done)}
        again = [waiting[path] for path in waiting if path in self._waited]
        self._waited = frozenset(waiting)
        self._tickets.waking.wake([Ticket(queued.name.ticket, queued.kind, labels=queued.labels) for queued in again])

    def _unpark_due(self) -> int:
        folder = paths.parked_folder(paths.DUE)
        parked = sorted(self._coordination.children(folder))
        now_ms = self._tickets.tree.now_ms() if parked else 0
        return self._each((f"{folder}/{name}" for name in parked if paths.due_ms(name) <= now_ms), self._unpark)

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
        """Set a node aside that stands among the workers, and goes with no session or lease; remove one whose lease is over."""
        path = paths.worker(name)
        node = self._coordination.read(path)
        if node is None or node.stat.owner:
            return False
        if lease_s := _lease_s(node):
            if node.stat.modified_ms + lease_s * 1000 < self._tickets.tree.now_ms():
                self._coordination.commit(Delete(path, node.version))
            return False
        self._tickets.set_aside(path, f"unreadable.{paths.digest(path, 16)}", "no session keeps it: it is no worker's")
        return True

    def _look_over_folders(self) -> int:
        """What costs a read for each worker and each folder, and is in no hurry; how many nodes were set aside."""
        now = self._monotonic()
        if now - self._looked_over_at < EMPTY_S:
            return 0
        self._looked_over_at = now
        self._remove_empty_folders()
        return self._each(self._coordination.children(paths.WORKERS), self._set_worker_aside)

    def _remove_empty_folders(self) -> None:
        """Folders of the queue that nothing has waited in for a while: whoever claims would list them for nothing.

        A ticket may enter one meanwhile; then it is not removed. One that is removed is made again by who needs it.
        """
        pools = [f"{paths.QUEUE}/{pool}" for pool in self._coordination.children(paths.QUEUE)]
        folders = [f"{pool}/{bucket}" for pool in pools for bucket in self._coordination.children(pool)]
        stats = {folder: self._coordination.exists(folder) for folder in [*folders, *pools]}
        empty = {folder for folder, stat in stats.items() if stat and not stat.children}
        for folder in sorted(empty & self._empty):
            self._coordination.commit(Delete(folder))
        self._empty = empty

    def _note_depths(self) -> None:
        minute = int(self._tickets.clock() // 60)
        if minute != self._noted_minute:
            depths.note(self._tickets)
            self._noted_minute = minute

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


def _lease_s(node: Node) -> float:
    """For how long a worker without a session is live; 0 for what is none."""
    try:
        return float(from_bytes(node.data, "a worker").get("lease_s", 0))
    except (InvalidDocument, TypeError, ValueError):
        return 0.0


class _Ages:
    """For how long things have been found in some state, look after look."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._since: dict[str, float] = {}

    def of(self, found: Sequence[str], least_s: float) -> Sequence[str]:
        """Of what is found now, all that has been found at every look for so long."""
        now = self._monotonic()
        self._since = {item: self._since.get(item, now) for item in found}
        return [item for item, since in self._since.items() if now - since >= least_s]
