"""A live worker in the tree: what it offers, what it holds, and how it comes by its next ticket.

A member keeps a few things true by itself, in a thread of its own: it stands under ``/workers`` while its session
lives; after a lost session it adopts again every claim that still stands, and marks the others lost; and once a minute it
compares what it believes to hold with the tree, since a process must know all that it owns.
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Condition, Event, Thread
from types import TracebackType
from typing import Self

from distci.coordination.port import Create, Delete, Operation, Reason, SessionState, Write
from distci.errors import ClaimLost, CoordinationUnavailable, Invalid, InvalidDocument, NoSuchWorker
from distci.model import Json
from distci.protocol import choosing, outcomes, paths, permits, transactions
from distci.protocol.claims import Claim
from distci.protocol.outcomes import Truth
from distci.protocol.records import FORMAT, Offer, Running, Ticket, from_bytes, to_bytes
from distci.protocol.tickets import Tickets
from distci.protocol.tree import Done

IDLE_POLL_S = 45.0
"""How long an idle worker trusts to be woken, give or take half: the net below a wake-up that died with whoever got it."""

COMPARE_S = 60.0
"""How often a worker compares its claims with the tree."""

TRIES = 3
"""Candidates that are tried before the queue is listed again."""

JITTER_S = 0.01
"""Up to this long a worker waits before it lists again, after others were first with every candidate."""

SAMPLE = 2
"""How many of the queue's folders are listed for one choice."""

BATON_S = 0.1
"""Least time between two looks for somebody idle to pass the rest of a queue on to."""

POOLS_AGE_S = 1.0
"""How long a listing of the pools is trusted while they still hold work."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A live worker, as people and tools look at it."""

    name: str
    offer: Offer
    slots: int
    host: str
    version: str
    is_draining: bool
    since_ms: int


class Member:
    """One worker, live from :meth:`join` to :meth:`leave`; a context manager.

    :meth:`claims` is for one thread; the claims that it yields may be worked on in others.
    """

    def __init__(self, tickets: Tickets, offer: Offer, name: str, slots: int = 1, version: str = "") -> None:
        """``name`` is unique among live workers; ``slots`` is how many claims it holds at once."""
        self.tickets = tickets
        self.offer = offer
        self.name = name
        self.slots = slots
        self._version = version
        self._tree = tickets.tree
        self._nonce = tickets.new_nonce()
        self._idle_path = paths.idle(offer.name, name)
        self._change = Condition()
        self._held: dict[str, Claim] = {}
        self._pending: set[str] = set()
        self._strays: list[Running] = []
        self._session_id = 0
        self._woken = Event()
        self._look = Event()
        self._is_closed = Event()
        self._is_idle = False
        self._has_backlog = False
        self._is_draining = False
        self._control: tuple[int, Sequence[str]] | None = None
        self._buckets: tuple[float, Sequence[str]] = (-POOLS_AGE_S, ())
        self._passed_on_at = -BATON_S
        self._keeper = Thread(target=self._keep_true, name=f"keeper of {name}", daemon=True)

    def join(self) -> Member:
        """Stand under ``/workers``, visible to all."""
        self._tree.coordination.session.notify(self._look)
        self._register()
        self._keeper.start()
        return self

    def leave(self) -> None:
        """Vanish from the tree. Claims that are still held are left to the end of the session."""
        self.drain()
        self._is_closed.set()
        self._look.set()
        if self._keeper.is_alive():
            self._keeper.join()
        for path in (self._idle_path, paths.worker(self.name)):
            try:
                self._tree.coordination.commit(Delete(path))
            except CoordinationUnavailable:
                log.info("no good-bye at %s; the end of the session will do", path)

    def drain(self) -> None:
        """Take no more tickets: :meth:`claims` ends, and what is held goes on to its end. For any thread."""
        self._is_draining = True
        self._woken.set()
        with self._change:
            self._change.notify_all()

    @property
    def is_draining(self) -> bool:
        return self._is_draining

    @property
    def held(self) -> Sequence[Claim]:
        """The claims in hand, as far as this process knows."""
        with self._change:
            return list(self._held.values())

    def wait_until_empty(self, timeout_s: float | None = None) -> bool:
        """Wait until no claim is held any more; False when the time ran out first."""
        with self._change:
            return self._change.wait_for(lambda: not self._held, timeout_s)

    def claims(self) -> Iterator[Claim]:
        """Claims, one after the other as tickets come and slots are free, until drained.

        While the tree cannot be reached it waits, and goes on by itself.
        """
        while self._wait_for_slot():
            try:
                claim = self._claim_one() or self._claim_or_idle()
            except CoordinationUnavailable as error:
                log.warning("no answer from the coordination tree: %s", error)
                self._is_closed.wait(outcomes.PAUSE_S)
                continue
            if claim is not None:
                yield claim

    # What a claim asks of its member

    def keep(self, follow: Sequence[Ticket]) -> Claim | None:
        """A claim, so far in memory only, of the first of these tickets that this worker may do without standing in line."""
        if self._is_draining or self._has_backlog or self._control is None or self._control[1]:
            return None
        for ticket in follow:
            if self.offer.accepts(ticket.kind, ticket.labels) and not ticket.permits:
                return self._hold(self.tickets.stamped(ticket), ())
        return None

    @property
    def control_version(self) -> int:
        """Version of ``/control`` that this worker last read."""
        return self._control[0] if self._control else -1

    def kept(self, claim: Claim) -> None:
        """The transaction that starts a kept claim is known to have been committed."""
        self._settled(claim)

    def forget(self, claim: Claim, is_stray: bool = False) -> None:
        """The claim is over and its slot free; ``is_stray``: it is not known whether it ever began."""
        with self._change:
            self._pending.discard(claim.token)
            if self._held.get(claim.token) is claim:
                del self._held[claim.token]
            if is_stray:
                self._strays.append(claim.running)
            self._change.notify_all()
        if is_stray:
            self._look.set()

    def idle_hint(self) -> list[Operation]:
        """Going idle in the very transaction that ends a claim, when there seems to be nothing left to do."""
        if self._is_idle or self._is_draining or self._has_backlog:
            return []
        return [Create(self._idle_path, ephemeral=True)]

    def __enter__(self) -> Self:
        self.join()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    # Coming by a ticket

    def _wait_for_slot(self) -> bool:
        with self._change:
            self._change.wait_for(lambda: self._is_draining or len(self._held) < self.slots)
            return not self._is_draining

    def _claim_or_idle(self) -> Claim | None:
        """Go idle, look once more, and wait to be woken if there is nothing."""
        self._woken.clear()
        if self._is_draining or not self._go_idle():
            return None
        claim = self._claim_one()
        if claim is None:
            wait_s = IDLE_POLL_S * self.tickets.random.uniform(0.5, 1.5)
            if self._woken.wait(wait_s):
                self._is_idle = self._tree.coordination.exists(self._idle_path) is not None
        return claim

    def _go_idle(self) -> bool:
        """Make sure that the idle node is there and watched. The pools are listed after this, never before it."""
        coordination = self._tree.coordination
        stat = coordination.watch(self._idle_path, self._woken)
        if stat is None or stat.owner != coordination.session.id:
            forget = [Delete(self._idle_path)] if stat else []
            created = self._tree.commit(*forget, Create(self._idle_path, ephemeral=True)).committed
            self._woken.clear()
            if not created or coordination.watch(self._idle_path, self._woken) is None:
                return False
        self._is_idle = True
        return True

    def _claim_one(self) -> Claim | None:
        """Claim some suitable ticket; None when none is waiting."""
        if self._tree.coordination.session.state is not SessionState.CONNECTED:
            raise CoordinationUnavailable("the session is in doubt; claiming nothing new")
        while not self._is_draining:
            waiting = self._waiting()
            self._has_backlog = len(waiting) > 1
            if not waiting:
                return None
            now_ms = int(self.tickets.clock() * 1000)
            for name in choosing.choose(waiting, now_ms, self.tickets.random, TRIES):
                claim = self._try(waiting[name])
                if claim is not None:
                    return claim
            self._is_closed.wait(self.tickets.random.uniform(0, JITTER_S))
        return None

    def _waiting(self) -> Mapping[paths.Name, str]:
        """Waiting tickets of the pools that suit, and where they are: a sample where there are many."""
        listed_at, buckets = self._buckets
        if time.monotonic() - listed_at < POOLS_AGE_S:
            waiting = self._list(self.tickets.random.sample(buckets, min(len(buckets), SAMPLE)))
            if waiting:
                return waiting
        buckets = self._suitable_buckets()
        self._buckets = (time.monotonic(), buckets)
        sample = self.tickets.random.sample(buckets, min(len(buckets), SAMPLE))
        return self._list(sample) or self._list([bucket for bucket in buckets if bucket not in sample])

    def _suitable_buckets(self) -> Sequence[str]:
        coordination = self._tree.coordination
        paused = self._control_now()[1]
        found = []
        for pool in coordination.children(paths.QUEUE):
            kind, labels = paths.pool_of(pool)
            if self.offer.accepts(kind, labels) and kind not in paused and "*" not in paused:
                path = f"{paths.QUEUE}/{pool}"
                found += [f"{path}/{bucket}" for bucket in coordination.children(path)]
        return found

    def _list(self, buckets: Sequence[str]) -> Mapping[paths.Name, str]:
        found: dict[paths.Name, str] = {}
        for bucket in buckets:
            for text in self._tree.coordination.children(bucket):
                try:
                    found[paths.Name.parse(text)] = f"{bucket}/{text}"
                except Invalid as error:
                    self.tickets.set_aside(f"{bucket}/{text}", f"unreadable.{paths.digest(text, 16)}", str(error))
        return found

    def _control_now(self) -> tuple[int, Sequence[str]]:
        """Version of ``/control`` and the kinds that are paused. A resume wakes those who wait."""
        if self._control is None or self._control[1]:
            self._tree.coordination.watch(paths.CONTROL, self._woken)
            node = self._tree.coordination.read(paths.CONTROL)
            if node is None:
                raise CoordinationUnavailable(f"{paths.CONTROL} is gone; the tree is being rebuilt or is not DistCI's")
            self._control = (node.version, tuple(from_bytes(node.data, paths.CONTROL).get("paused", ())))
        return self._control

    def _try(self, queued_at: str) -> Claim | None:
        """Claim one ticket; None when somebody was first, or when it cannot be claimed now."""
        node = self._tree.coordination.read(queued_at)
        if node is None:
            return None
        try:
            ticket = Ticket.from_bytes(node.data, queued_at)
        except InvalidDocument as error:
            name = paths.Name.parse(queued_at.rpartition("/")[2])
            self.tickets.set_aside(queued_at, paths.token(name.ticket, name.attempt), str(error))
            return None
        slots = permits.acquire(self._tree, ticket)
        if isinstance(slots, permits.Full):
            self._tree.commit(*permits.park(ticket, queued_at, slots))
            return None
        return self._commit_claim(ticket, slots, queued_at)

    def _commit_claim(self, ticket: Ticket, slots: Sequence[tuple[str, int]], queued_at: str) -> Claim | None:
        control, _ = self._control_now()
        claim = self._hold(ticket, slots)
        operations = transactions.claim(claim.running, queued_at, control)
        hints = [*self._own_idle_hint(), *self._baton(ticket)]
        settled: Done | Truth | None = None
        try:
            settled = outcomes.settle(
                self._tree,
                lambda: self._tree.commit(*operations, hints=hints),
                lambda: outcomes.of_claim(self._tree, claim.running),
                self._is_closed,
            )
        finally:
            if settled is None:
                self.forget(claim, is_stray=True)
        if isinstance(settled, Done) and settled.committed:
            if settled.hinted:
                self._is_idle = False
            self._settled(claim)
            return claim
        self.forget(claim)
        if isinstance(settled, Done):
            if settled.refused_at(transactions.CLAIM_CONTROL):
                self._control = None
            elif ticket.guard and settled.refused_at(transactions.CLAIM_GUARD):
                # What the ticket belonged to is gone, and the ticket with it.
                self._tree.commit(Delete(queued_at))
        return None

    def _own_idle_hint(self) -> list[Operation]:
        """Stop being idle with the claim that fills the last slot."""
        with self._change:
            is_full = len(self._held) >= self.slots
        return [Delete(self._idle_path)] if self._is_idle and is_full else []

    def _baton(self, ticket: Ticket) -> list[Operation]:
        """Wake one more worker when more is waiting than this one takes."""
        now = time.monotonic()
        if not self._has_backlog or now - self._passed_on_at < BATON_S:
            return []
        self._passed_on_at = now
        return [hint for hint in self.tickets.waking.hints([ticket]) if hint != Delete(self._idle_path)]

    def _hold(self, ticket: Ticket, slots: Sequence[tuple[str, int]]) -> Claim:
        """Know of a claim before it can exist: nothing that may fail stands between the tree and our memory."""
        claim = Claim(self, Running(ticket, self.name, self.tickets.new_nonce(), slots))
        with self._change:
            self._held[claim.token] = claim
            self._pending.add(claim.token)
        return claim

    def _settled(self, claim: Claim) -> None:
        with self._change:
            self._pending.discard(claim.token)
        if self._tree.coordination.session.id != self._session_id:
            self._look.set()

    # Keeping true what the tree says of this worker

    def _keep_true(self) -> None:
        while not self._is_closed.is_set():
            self._look.wait(COMPARE_S)
            self._look.clear()
            if self._is_closed.is_set():
                return
            try:
                self._compare()
            except CoordinationUnavailable as error:
                log.info("cannot compare with the tree yet: %s", error)
                self._is_closed.wait(outcomes.PAUSE_S)
                self._look.set()

    def _compare(self) -> None:
        if self._tree.coordination.session.state is not SessionState.CONNECTED:
            return
        self._register()
        with self._change:
            settled = [claim for claim in self._held.values() if claim.token not in self._pending]
            strays, self._strays = self._strays, []
        for claim in settled:
            self._adopt(claim)
        for running in strays:
            self._end_stray(running)

    def _register(self) -> None:
        """Stand under ``/workers`` in the present session, and see whether somebody wants this worker drained."""
        coordination = self._tree.coordination
        path = paths.worker(self.name)
        session = coordination.session.id
        stat = coordination.watch(path, self._look)
        if stat is None or stat.owner != session:
            forget = [Delete(path, stat.version)] if stat else []
            self._tree.commit(*forget, Create(path, self._describe(), ephemeral=True))
            coordination.watch(path, self._look)
        elif (node := coordination.read(path)) and from_bytes(node.data, path).get("drain"):
            self.drain()
        if session != self._session_id:
            self._session_id = session
            self._is_idle = False
            self._woken.set()

    def _describe(self) -> bytes:
        document: dict[str, Json] = {
            "f": FORMAT,
            "kinds": list(self.offer.kinds),
            "labels": list(self.offer.labels),
            "only": list(self.offer.only),
            "slots": self.slots,
            "host": platform.node(),
            "version": self._version,
            "formats": [FORMAT, FORMAT],
        }
        if self._is_draining:
            document["drain"] = True
        return to_bytes(document)

    def _adopt(self, claim: Claim) -> None:
        """Give a claim the heartbeat of the present session, or mark it lost when it has been superseded."""
        coordination = self._tree.coordination
        stat = coordination.exists(paths.owner(claim.token))
        if stat and stat.owner == coordination.session.id:
            return
        done = self._tree.commit(*transactions.adopt(claim.token, replaces_owner=stat is not None))
        if done.refused_at(0, Reason.MISSING):
            log.warning("claim %s has been superseded", claim.token)
            claim.lost.set()
        elif done.committed:
            log.info("claim %s is ours again under a new session", claim.token)
        else:
            self._look.set()

    def _end_stray(self, running: Running) -> None:
        """Give back a claim that was forgotten before its fate was known, if it turns out to be ours."""
        if outcomes.of_claim(self._tree, running) is not Truth.COMMITTED:
            return
        stray = Claim(self, running)
        try:
            stray.give_back("its claim was interrupted")
        except ClaimLost:
            log.info("stray claim %s was taken over meanwhile", running.ticket.token)


def workers(tickets: Tickets) -> Iterator[WorkerView]:
    """All live workers, by name."""
    coordination = tickets.tree.coordination
    for name in sorted(coordination.children(paths.WORKERS)):
        node = coordination.read(paths.worker(name))
        if node is None:
            continue
        document = from_bytes(node.data, paths.worker(name))
        offer = Offer(tuple(document["kinds"]), tuple(document["labels"]), tuple(document["only"]))
        yield WorkerView(
            name,
            offer,
            int(document["slots"]),
            str(document["host"]),
            str(document["version"]),
            bool(document.get("drain")),
            node.stat.created_ms,
        )


def drain(tickets: Tickets, name: str) -> None:
    """Ask a worker to finish what it holds and to take nothing more; NoSuchWorker when it is not live."""
    path = paths.worker(name)
    node = tickets.tree.coordination.read(path)
    if node is None:
        raise NoSuchWorker(f"no live worker {name!r}; `distci worker list` shows all there are")
    document = from_bytes(node.data, path)
    if not tickets.tree.commit(Write(path, to_bytes(document | {"drain": True}))).committed:
        raise NoSuchWorker(f"worker {name!r} has just left")
