"""A live worker in the tree: what it offers, what it holds, and how it comes by its next ticket.

A member keeps a few things true by itself, in a thread of its own: it stands under ``/workers`` while its session
lives; after a lost session it adopts again every claim that still stands, and marks the others lost; and once a minute it
compares what it believes to hold with the tree, since a process must know all that it owns.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Condition, Event, Thread
from time import monotonic
from types import TracebackType
from typing import Self

from distci.coordination.port import Create, Delete, Node, Operation, Reason, SessionState, Write
from distci.errors import ClaimLost, Conflict, CoordinationUnavailable, InvalidDocument, NoSuchWorker, WrongFormat
from distci.model import Json
from distci.protocol import outcomes, paths, transactions
from distci.protocol.claiming import Claimer
from distci.protocol.claims import Claim
from distci.protocol.outcomes import Truth
from distci.protocol.records import FORMAT, Formats, Offer, Running, Ticket, from_bytes, to_bytes
from distci.protocol.tickets import Tickets

COMPARE_S = 60.0
"""How often a worker compares its claims with the tree."""

REST_MIN_S, REST_MAX_S = 1.0, 60.0
"""How long a worker takes nothing new after a claim came to nothing; twice as long with each further one in a row."""

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
    formats: Formats = field(default_factory=Formats)
    """The formats of trees that it speaks."""


class Rests:
    """How long a worker takes nothing new: each time in a row twice as long."""

    def __init__(self) -> None:
        self._length_s = 0.0
        self._until = 0.0

    @property
    def left_s(self) -> float:
        return max(0.0, self._until - monotonic())

    def begin(self) -> None:
        self._length_s = min(2 * self._length_s, REST_MAX_S) or REST_MIN_S
        self._until = monotonic() + self._length_s

    def recover(self) -> None:
        """The next one is a short one again."""
        self._length_s = 0.0


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
        self.refused: WrongFormat | None = None
        """Why it drained itself: it does not speak the format of the tree (any more)."""
        self._version = version
        self._tree = tickets.tree
        self._change = Condition()
        self._held: dict[str, Claim] = {}
        self._pending: set[str] = set()
        self._strays: list[Running] = []
        self._session_id = 0
        self._look = Event()
        self._is_closed = Event()
        self._is_draining = False
        self._rests = Rests()
        self._claimer = Claimer(self)
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
        try:
            self._claimer.close()
            self._tree.coordination.commit(Delete(paths.worker(self.name)))
        except CoordinationUnavailable:
            log.info("%s leaves without a good-bye; the end of its session will do", self.name)

    def drain(self) -> None:
        """Take no more tickets: :meth:`claims` ends, and what is held goes on to its end. For any thread."""
        self._is_draining = True
        self._claimer.wake()
        with self._change:
            self._change.notify_all()

    @property
    def is_draining(self) -> bool:
        return self._is_draining

    def rest(self) -> None:
        """Take nothing new for a while: what went wrong with a claim may be wrong with this machine. For any thread.

        Called before the claim is given back, it leaves the ticket to others. Else one machine whose disk is full would take
        every ticket there is, and soon for the last time.
        """
        with self._change:
            self._rests.begin()
        self._claimer.be_idle_no_more()

    def recover(self) -> None:
        """A claim was served to its end: the next rest is a short one again. For any thread."""
        self._rests.recover()

    @property
    def held(self) -> Sequence[Claim]:
        """The claims in hand, as far as this process knows."""
        with self._change:
            return list(self._held.values())

    def claims(self) -> Iterator[Claim]:
        """Claims, one after the other as tickets come and slots are free, until drained.

        While the tree cannot be reached it waits, and goes on by itself. Once it is drained, nobody wakes it for a ticket any more.
        """
        while self._wait_for_slot():
            try:
                claim = self._claimer.next()
            except WrongFormat as error:
                self._refuse(error)
                return
            except CoordinationUnavailable as error:
                log.warning("no answer from the coordination tree: %s", error)
                self._claimer.pause(outcomes.PAUSE_S)
                continue
            if claim is not None:
                yield claim
        with suppress(CoordinationUnavailable):
            self._claimer.be_idle_no_more()

    # What claims and the claimer ask of their member

    @property
    def worker(self) -> str:
        return self.name

    wakes = True
    """Whether it can be woken, and so waits for that."""

    def takes(self, ticket: Ticket) -> bool:
        """Whether it may have a ticket that its offer suits: any."""
        return True

    @property
    def is_willing(self) -> bool:
        """Whether it takes tickets: it is neither drained nor resting."""
        return not self._is_draining and not self._rests.left_s

    @property
    def is_full(self) -> bool:
        """Whether all slots are taken."""
        with self._change:
            return len(self._held) >= self.slots

    @property
    def control_version(self) -> int:
        """Version of ``/control`` that this worker goes by."""
        return self._claimer.control_version

    def hold(self, ticket: Ticket, slots: Sequence[tuple[str, int]]) -> Claim:
        """Know of a claim before it can exist: nothing that may fail stands between the tree and our memory."""
        claim = Claim(self, Running(ticket, self.name, self.tickets.new_nonce(), slots))
        with self._change:
            self._held[claim.token] = claim
            self._pending.add(claim.token)
        return claim

    def keep(self, follow: Sequence[Ticket]) -> Claim | None:
        """A claim, so far in memory only, of the first of these tickets that this worker may do without standing in line."""
        if self._is_draining:
            return None
        for ticket in follow:
            if self.offer.accepts(ticket.kind, ticket.labels) and self._claimer.may_keep(ticket):
                return self.hold(self.tickets.stamped(ticket), ())
        return None

    def settled(self, claim: Claim) -> None:
        """The transaction that begins the claim is known to have been committed."""
        with self._change:
            self._pending.discard(claim.token)
        if self._tree.coordination.session.id != self._session_id:
            self._look.set()

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
        """Going idle with the end of a claim."""
        return self._claimer.idle_hint() if self.is_willing else []

    def went_idle(self) -> None:
        """That took effect."""
        self._claimer.went_idle()

    def __enter__(self) -> Self:
        self.join()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def _wait_for_slot(self) -> bool:
        with self._change:
            while not self._is_draining:
                rest_s = self._rests.left_s
                if not rest_s and len(self._held) < self.slots:
                    return True
                self._change.wait(rest_s or None)
            return False

    # Keeping true what the tree says of this worker

    def _keep_true(self) -> None:
        while not self._is_closed.is_set():
            self._look.wait(COMPARE_S)
            self._look.clear()
            if self._is_closed.is_set():
                return
            try:
                self._compare()
            except WrongFormat as error:
                self._refuse(error)
            except CoordinationUnavailable as error:
                log.info("cannot compare with the tree yet: %s", error)
                self._is_closed.wait(outcomes.PAUSE_S)
                self._look.set()
            except Exception:
                # A node of ours that somebody has spoilt, say. The other claims need their heartbeats all the same.
                log.exception("comparing with the tree came to nothing")

    def _refuse(self, error: WrongFormat) -> None:
        """End: the tree has gone on to a format that is not spoken here."""
        self.refused = error
        self.drain()

    def _compare(self) -> None:
        if self._tree.coordination.session.state is not SessionState.CONNECTED:
            return
        self._register()
        with self._change:
            settled = [claim for claim in self._held.values() if claim.token not in self._pending]
            strays = list(self._strays)
        for claim in settled:
            self._adopt(claim)
        for running in strays:
            # Forgotten only when it has been seen to: any call on the way may fail.
            self._end_stray(running)
            self._strays.remove(running)

    def _register(self) -> None:
        """Stand under ``/workers`` in the present session, and see whether somebody wants this worker drained."""
        coordination = self._tree.coordination
        path = paths.worker(self.name)
        session = coordination.session.id
        stat = coordination.watch(path, self._look)
        if stat is None or stat.owner != session:
            forget = [Delete(path, stat.version)] if stat else []
            if self._tree.commit(*forget, Create(path, self._describe(), ephemeral=True)).unknown:
                self._look.set()
            coordination.watch(path, self._look)
        elif (node := coordination.read(path)) and from_bytes(node.data, path).get("drain"):
            self.drain()
        if session != self._session_id:
            self._session_id = session
            self._claimer.new_session()

    def _describe(self) -> bytes:
        document = describe(self.offer, self.slots, platform.node(), self._version, self._tree.speaks)
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
            # Whoever is just ending it sees for itself, and has perhaps just done so.
            if not claim.is_ending:
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


def describe(offer: Offer, slots: int, host: str, version: str, speaks: Formats) -> dict[str, Json]:
    """What the node of a live worker says of it."""
    return {
        "f": FORMAT,
        "kinds": list(offer.kinds),
        "labels": list(offer.labels),
        "only": list(offer.only),
        "slots": slots,
        "host": host,
        "version": version,
        "formats": [speaks.oldest, speaks.newest],
    }


def workers(tickets: Tickets) -> Iterator[WorkerView]:
    """All live workers, by name, but for those whose node says nothing that this version can read."""
    coordination = tickets.tree.coordination
    for name in sorted(coordination.children(paths.WORKERS)):
        node = coordination.read(paths.worker(name))
        if node is None:
            continue
        try:
            view = _view(name, node)
        except (InvalidDocument, KeyError, TypeError, ValueError) as error:
            log.debug("worker %s cannot be read: %r", name, error)
            continue
        yield view


def _view(name: str, node: Node) -> WorkerView:
    document = from_bytes(node.data, paths.worker(name))
    return WorkerView(
        name,
        Offer(tuple(document["kinds"]), tuple(document["labels"]), tuple(document["only"])),
        int(document["slots"]),
        str(document["host"]),
        str(document["version"]),
        bool(document.get("drain")),
        node.stat.created_ms,
        Formats(*map(int, document["formats"])),
    )


def upgrade(tickets: Tickets) -> None:
    """Put the newest format that this version speaks in force; Conflict names the live workers that do not speak it."""
    newest = tickets.tree.speaks.newest
    behind = [view.name for view in workers(tickets) if view.formats.newest < newest]
    if behind:
        raise Conflict(f"these workers do not speak format {newest}; replace them first: {' '.join(behind)}")
    if tickets.tree.format < newest:
        tickets.tree.raise_format()


def drain(tickets: Tickets, name: str) -> None:
    """Ask a worker to finish what it holds and to take nothing more; NoSuchWorker when it is not live."""
    path = paths.worker(name)
    node = tickets.tree.coordination.read(path)
    if node is None:
        # A process's workers have its name and more: that of their kind, that of their token.
        of_it = [view.name for view in workers(tickets) if view.name.startswith((f"{name}-", f"{name}@"))]
        meant = f"; did you mean {' or '.join(of_it)}?" if of_it else ""
        raise NoSuchWorker(f"no live worker {name!r}{meant}; `distci worker list` shows all there are")
    document = from_bytes(node.data, path)
    if not tickets.tree.commit(Write(path, to_bytes(document | {"drain": True}))).committed:
        raise NoSuchWorker(f"worker {name!r} has just left")
