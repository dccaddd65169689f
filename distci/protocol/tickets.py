"""Posting tickets and looking at them, from anywhere. Claiming them is for :mod:`distci.protocol.members`."""

from __future__ import annotations

import logging
import random as random_module
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from random import Random
from threading import Event, Lock

from distci import tracing
from distci.coordination.port import Coordination, Delete, Operation, Write
from distci.errors import Conflict, CoordinationUnavailable, Invalid, InvalidDocument, NoSuchTicket, Unavailable
from distci.model import Hold, Json, check_project
from distci.protocol import outcomes, paths, transactions
from distci.protocol.outcomes import Truth
from distci.protocol.records import (
    FORMAT,
    PERMIT_LIMIT_MAX,
    Control,
    Formats,
    Running,
    Ticket,
    check_quota,
    check_weight,
    from_bytes,
    quota_permit,
    quota_permits,
    to_bytes,
)
from distci.protocol.tree import Done, Tree
from distci.protocol.waking import Waking

FRONT_PLACES = 64
"""Tickets of one class (priority and project) in a pool's front row; of several, each has an equal share of the places, and one at least."""

BUCKET_LONG = 64
"""Above this many tickets in its folder one that waits behind the front row goes into one of many, so that listing stays cheap."""

ROW_AGE_S, LENGTH_AGE_S = 0.1, 10.0
"""How long a poster trusts what it last read of the front row, and of the other folders' lengths, beside what it put there itself."""

DAY_S = 86_400

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TicketView:
    """A ticket and where it stands, as people and tools look at it."""

    place: str
    """``waiting``, ``running``, ``parked`` or ``dead``."""
    token: str
    ticket: Ticket | None
    """None when what is stored cannot be read; then ``reason`` says why."""
    worker: str = ""
    """Who holds it, while it is running."""
    reason: str = ""
    """What it waits for when parked, why it was set aside when dead."""
    since_ms: int = 0
    """When it came there, in milliseconds since 1970; 0 where that is not known."""
    progress: int | None = None
    """How far its work says that it is, in percents; None where it does not say."""
    hold: Hold | None = None
    """Until when it is held, and why, where its work is over and held; None otherwise."""


@dataclass(frozen=True, slots=True)
class Queued:
    """A ticket in the queue, as far as names tell: nothing was read for it."""

    kind: str
    labels: Sequence[str]
    name: paths.Name
    path: str


@dataclass(frozen=True, slots=True)
class Step:
    """Part of a transaction: operations, and tickets to post with them."""

    operations: Sequence[Operation] = ()
    post: Sequence[Ticket] = ()


class Tickets:
    """The tickets of one tree. Any thread may use it."""

    abandoned: Callable[[Ticket, str], Step | None] | None = None
    """Asked first for what follows when an attempt came to nothing, by those who know what the ticket is for; None from it: the
    ticket is offered again, or kept under ``/dead`` once its attempts are used up. Its step is committed together with
    the end of the attempt; if it is refused, it is asked again."""

    def __init__(
        self,
        coordination: Coordination,
        clock: Callable[[], float] = time.time,
        random: Random | None = None,
        new_nonce: Callable[[], str] = lambda: uuid.uuid4().hex,
        new_epoch: Callable[[], int] = lambda: 1,
        speaks: Formats | None = None,
    ) -> None:
        """``clock`` gives seconds since 1970; it orders the queue and decides nothing else. The last two are as for Tree."""
        self.tree = Tree(coordination, new_epoch, speaks)
        self.clock = clock
        self.random = random or random_module.Random()
        self.new_nonce = new_nonce
        self.waking = Waking(self.tree, self.random)
        self._rows: dict[str, _Row] = {}
        self._lengths: dict[str, tuple[float, int]] = {}

    def next_attempt(self, ticket: Ticket, reason: str) -> Step:
        """What becomes of a ticket whose present attempt came to nothing: it is offered again, or set aside."""
        if (step := self._asked(ticket, reason)) is not None:
            return step
        if not ticket.is_exhausted:
            return Step(post=[ticket.again()])
        content = from_bytes(ticket.to_bytes(), "ticket")
        return Step(self._set_aside(ticket.token, reason, content))

    def post(self, *tickets: Ticket) -> bool:
        """Offer tickets, all or none, and wake a worker for each; False when they have been posted before.

        Tickets are told apart by their ids, and remembered for a day at least. Raises CoordinationUnavailable when
        the tree cannot be reached; posting the same tickets again is then the right thing to do.
        """
        if not tickets:
            return False
        nonce = self.new_nonce()
        day = int(self.clock() // DAY_S)
        remember = [step for ticket in tickets for step in transactions.remember(ticket.id, day, nonce)]
        for around in (day - 1, day, day + 1):
            self.tree.folder(paths.once_day(around))

        def look() -> Truth:
            node = self.tree.coordination.read(paths.once(day, tickets[0].id))
            return Truth.COMMITTED if node and node.data == nonce.encode() else Truth.NOT_COMMITTED

        settled = outcomes.settle(self.tree, lambda: self.commit(*remember, post=tickets), look, _AT_ONCE)
        return isinstance(settled, Done) and settled.committed

    def commit(
        self,
        *operations: Operation,
        post: Sequence[Ticket] = (),
        hints: Sequence[Operation] = (),
        committed: Callable[[], None] = lambda: None,
    ) -> Done:
        """Commit operations together with new tickets, and wake workers for these. For services built on tickets.

        The given operations come first, so a refusal's index refers to them. ``committed`` is called as soon as it is known that all
        took effect, before the look for who went idle meanwhile.
        """
        epoch = self.tree.epoch
        try:
            return self._commit(epoch, operations, [self._stamped(ticket, epoch) for ticket in post], hints, committed)
        except CoordinationUnavailable:
            if self.tree.epoch == epoch:
                raise
            return self.commit(*operations, post=post, hints=hints, committed=committed)

    def _commit(
        self,
        epoch: int,
        operations: Sequence[Operation],
        stamped: Sequence[Ticket],
        hints: Sequence[Operation],
        committed: Callable[[], None],
    ) -> Done:
        for is_first, is_last in ((True, False), (False, False), (False, True)):
            wakes = {} if is_last else self.waking.choose(stamped, afresh=not is_first)
            back = [ticket for ticket in stamped if ticket.id in wakes and paths.comes_back(ticket.attempt)]
            besides = self.waking.choose(back, besides=wakes.values())
            creates = [self._create(ticket, wakes) for ticket in stamped]
            deletes = [Delete(path) for path in (*wakes.values(), *besides.values())]
            done = self.tree.commit(*operations, *creates, *deletes, hints=hints, epoch=epoch)
            first = len(operations) + len(creates)
            if not any(done.refused_at(first + index) for index in range(len(deletes))):
                break
            # Somebody else woke that worker first: look again for one that is idle.
        if done.committed:
            committed()
        self.waking.afterwards([ticket for ticket in stamped if ticket.id not in wakes], done)
        return done

    def stamped(self, ticket: Ticket) -> Ticket:
        """The ticket as it is posted first: with the time, and an attempt above all that lost trees can have given out."""
        return self._stamped(ticket, self.tree.epoch)

    def _stamped(self, ticket: Ticket, epoch: int) -> Ticket:
        if ticket.posted_ms:
            return ticket
        before = paths.attempts_before(epoch)
        posted_ms = int(self.clock() * 1000)
        return replace(
            ticket,
            posted_ms=posted_ms,
            attempt=before + ticket.attempt,
            attempts=before + ticket.attempts,
            traceparent=ticket.traceparent or tracing.traceparent(),
        )

    def list(self) -> Iterator[TicketView]:
        """Every live ticket: waiting, running, parked, dead; what cannot be read is shown as such.

        One that moves meanwhile may be seen in both places or in none.
        """
        for _, view in self.walk():
            yield view

    def walk(self, after: str = "", place: str = "") -> Iterator[tuple[str, TicketView]]:
        """The same with where each is found, in the order of that, and those alone that come after one; or those of one place."""
        behind = tuple(after.split("/")) if after else ()
        for where, look in self._live(place):
            if where > behind:
                yield "/".join(where), look()

    def _live(self, only: str) -> Iterator[tuple[tuple[str, ...], Callable[[], TicketView]]]:
        """Where each live ticket is found, and how to look at it: names alone are read, and no more than one folder ahead."""
        coordination = self.tree.coordination
        if only in ("", "waiting"):
            for pool in sorted(coordination.children(paths.QUEUE)):
                for path in self._queued_in(pool):
                    yield ("1", *path.split("/")[2:]), partial(self._view, "waiting", path)
        if only in ("", "running"):
            for token in sorted(self.running_tokens()):
                yield ("2", token), partial(self.view_running, token)
        if only in ("", "parked"):
            for why in sorted(coordination.children(paths.PARKED)):
                for name in sorted(coordination.children(f"{paths.PARKED}/{why}")):
                    yield ("3", why, name), partial(self._view, "parked", f"{paths.PARKED}/{why}/{name}", why)
        if only in ("", "dead"):
            for token in sorted(self.dead_tokens()):
                yield ("4", token), partial(self._view_dead, token)

    def show(self, ticket: str) -> TicketView:
        """One ticket by id or token; NoSuchTicket when it is nowhere (any more)."""
        for view in self.list():
            if ticket in (view.token, paths.ticket_of(view.token)):
                return view
        raise no_such_ticket(ticket)

    def requeue(self, ticket: str) -> Ticket:
        """Put a ticket that was set aside back into the queue, its attempts counted anew.

        Raises NoSuchTicket when none of that id or token is set aside, Invalid when it cannot be read.
        """
        for token in self.dead_tokens():
            if ticket not in (token, paths.ticket_of(token)):
                continue
            view = self._view_dead(token)
            if view.ticket is None:
                raise Invalid(f"ticket {token} cannot be put back: {view.reason}")
            fresh = replace(
                view.ticket, attempt=view.ticket.attempt + 1, attempts=view.ticket.attempt + view.ticket.attempts
            )
            done = self.commit(Delete(paths.dead(token)), post=[fresh])
            if done.committed:
                return fresh
            raise Conflict(f"ticket {token} has been moved by somebody else, or the answer was lost; look again")
        raise NoSuchTicket(f"no ticket {ticket!r} is set aside; `distci ticket list` shows all there are")

    def withdrawal(self, ticket: Ticket) -> Delete | None:
        """The operation that takes a waiting ticket out of its queue, or None when it is not (or no longer) waiting."""
        due = paths.parked_folder(paths.DUE)
        return self._withdrawal(ticket.id, [*paths.queue_places(ticket.pool, ticket.id), *_lines(ticket), due])

    def withdrawal_by_id(self, ticket: str) -> Delete | None:
        """The same for a ticket of which only the id is known: all queues are looked through."""
        pools = self.tree.coordination.children(paths.QUEUE)
        queued = chain.from_iterable(paths.queue_places(f"{paths.QUEUE}/{pool}", ticket) for pool in pools)
        parked = (paths.parked_folder(why) for why in self.tree.coordination.children(paths.PARKED))
        return self._withdrawal(ticket, chain(queued, parked))

    def parked(self) -> Iterator[str]:
        """Ids of all tickets that wait outside the queue: for a permit, or for a time."""
        for why in self.tree.coordination.children(paths.PARKED):
            if paths.waited_for(why):
                for name in self.tree.coordination.children(paths.parked_folder(why)):
                    with suppress(Invalid):
                        yield paths.Name.parse(name).ticket
        yield from self.due()

    def due(self) -> Mapping[str, int]:
        """When the tickets are due that wait for a time, by their ids, in milliseconds since 1970."""
        found: dict[str, int] = {}
        for name in self.tree.coordination.children(paths.parked_folder(paths.DUE)):
            with suppress(Invalid):
                found[paths.Name.parse(name.partition("-")[2]).ticket] = paths.due_ms(name)
        return found

    def unparking(self, ticket: str, permit: str = "") -> Step:
        """What puts a ticket that waits for a permit, or without one for a time, back into the queue; nothing when it does not (any more)."""
        delete = self._withdrawal(ticket, [paths.parked_for(permit) if permit else paths.parked_folder(paths.DUE)])
        node = self.tree.coordination.read(delete.path) if delete else None
        if delete is None or node is None:
            return Step()
        return Step([delete], [Ticket.waiting(node.data, delete.path)])

    def _withdrawal(self, ticket: str, folders: Iterable[str]) -> Delete | None:
        for folder in folders:
            is_due = folder == paths.parked_folder(paths.DUE)
            for name in self.tree.coordination.children(folder):
                with suppress(Invalid):  # what is no name of a ticket is set aside by who lists the folder
                    if paths.Name.parse(name.partition("-")[2] if is_due else name).ticket == ticket:
                        return Delete(f"{folder}/{name}")
        return None

    def set_aside(self, path: str, token: str, reason: str) -> None:
        """Take a node that cannot be read out of everyone's way, and keep it with the reason under ``/dead``."""
        node = self.tree.coordination.read(path)
        if node is None:
            return
        content = node.data.decode(errors="replace")
        self.tree.commit(Delete(path, node.version), *self._set_aside(token, reason, content))

    def pause(self, *kinds: str) -> None:
        """Let nobody claim tickets of these kinds (``*`` for all) from now on; none given: resume all.

        Raises Conflict when somebody else changes the same at the same time.
        """
        self._change_control(lambda document: document | {"paused": sorted(kinds)})

    def weigh(self, project: str, weight: float) -> None:
        """Let a project have ``weight`` claims (0.01 to 100) for each one of a project of weight 1, while both have tickets waiting.

        Raises Invalid for another weight and what can be no project, Conflict when somebody else changes the same at the same time.
        """
        self._change_control(_of_project("weights", project, check_weight(project, weight) if weight != 1 else None))

    def limit(self, project: str, quota: int | None) -> None:
        """Let at most ``quota`` tickets (1 to 1,000) of a project and of all within it be claimed at once; None lifts that.

        What is claimed goes on, and the tickets beyond wait for their turn. Those that plan, archive and tell forges do not count.
        Raises Invalid for another quota and what can be no project, Conflict when somebody else changes the same at the same time.
        """
        if not project:
            raise Invalid("a quota is that of a project; workers and their slots bound the whole system")
        change = _of_project("quotas", project, None if quota is None else check_quota(project, quota))
        # Who waits for the old number is let in by what the sweeper reads here.
        folder = paths.permit_folder(quota_permit(project))
        known_as = self.tree.coordination.exists(folder)
        new = str(PERMIT_LIMIT_MAX if quota is None else quota).encode()
        self._change_control(change, *([Write(folder, new, known_as.version)] if known_as else []))

    def control(self) -> Control:
        """What every claim goes by at present; InvalidDocument when it cannot be read, CoordinationUnavailable when it is gone."""
        node = self.tree.coordination.read(paths.CONTROL)
        if node is None:
            raise CoordinationUnavailable(f"{paths.CONTROL} is gone; the tree is being rebuilt or is not DistCI's")
        return Control.from_node(node, paths.CONTROL)

    def _change_control(self, change: Callable[[dict[str, Json]], dict[str, Json]], *besides: Operation) -> None:
        node = self.tree.coordination.read(paths.CONTROL)
        document = change(from_bytes(node.data, paths.CONTROL) if node else {})
        data = to_bytes(document | {"f": FORMAT})
        if not self.tree.commit(Write(paths.CONTROL, data, node.version if node else -1), *besides).committed:
            raise Conflict(f"{paths.CONTROL} was changed by somebody else, or the answer was lost; look again")

    def queue(self, is_wanted: Callable[[str, Sequence[str]], bool] = lambda kind, labels: True) -> Iterator[Queued]:
        """The tickets that wait to be claimed, of the kinds and labels that are wanted; names that are none are left out."""
        for pool in self.tree.coordination.children(paths.QUEUE):
            kind, labels = paths.pool_of(pool)
            for path in self._queued_in(pool) if is_wanted(kind, labels) else ():
                with suppress(Invalid):  # whoever claims of that pool sets it aside
                    yield Queued(kind, labels, paths.Name.parse(path.rpartition("/")[2]), path)

    def heartbeats(self) -> Iterator[str]:
        """Tokens of all claims whose worker lives, as far as the tree knows."""
        for bucket in range(paths.CLAIM_BUCKETS):
            yield from self.tree.coordination.children(f"{paths.OWNERS}/{bucket}")

    def running_tokens(self) -> Iterator[str]:
        """Tokens of all claims on record."""
        for bucket in range(paths.CLAIM_BUCKETS):
            yield from self.tree.coordination.children(f"{paths.RUNNING}/{bucket}")

    def dead_tokens(self) -> Sequence[str]:
        """Tokens of all tickets that were set aside."""
        return self.tree.coordination.children(paths.DEAD)

    def _set_aside(self, token: str, reason: str, content: Json) -> Sequence[Operation]:
        """Set something aside in place of what lies there by that token: a ticket posted again after days, say."""
        return transactions.set_aside(
            token, reason, content, self.tree.coordination.exists(paths.dead(token)) is not None
        )

    def _asked(self, ticket: Ticket, reason: str) -> Step | None:
        """What those say who know what the ticket is for; None when they leave it to us, or cannot say."""
        if self.abandoned is None:
            return None
        try:
            return self.abandoned(ticket, reason)
        except Unavailable:
            raise
        except Exception:
            # A damaged plan, say. The ticket must neither keep its slot nor keep the sweeper from all others.
            log.exception("nobody can say what follows on ticket %s", ticket.token)
            return None

    def _create(self, ticket: Ticket, wakes: Mapping[str, str]) -> Operation:
        worker = wakes.get(ticket.id, "").rpartition("/")[2]
        left_by = paths.decliner_tag(ticket.declined_by) if ticket.declined_by else ""
        if worker:  # who shall find it where it looks first
            tag = left_by or ("" if paths.comes_back(ticket.attempt) else paths.worker_tag(worker))
            return transactions.post(ticket, paths.front_row(ticket.pool), tag)
        return transactions.post(ticket, self._folder_for(ticket), left_by)

    def _folder_for(self, ticket: Ticket) -> str:
        """The front row while the ticket's class has not got its share of it, one of the folders behind it after that.

        So the first tickets of every priority and project are seen by all who claim, however many of others wait.
        """
        row = self._row(ticket.pool)
        if row.takes((ticket.priority, paths.project_tag(ticket.project))):
            return paths.front_row(ticket.pool)
        few, many = (paths.queue_bucket(ticket.pool, ticket.id, width) for width in paths.QUEUE_WIDTHS)
        return few if self._length(few) <= BUCKET_LONG else many

    def _row(self, pool: str) -> _Row:
        row = self._rows.get(pool)
        if row is None or time.monotonic() - row.read_at >= ROW_AGE_S:
            row = self._rows[pool] = _Row(self.tree.coordination.children(paths.front_row(pool)))
        return row

    def _length(self, folder: str) -> int:
        read_at, length = self._lengths.get(folder, (-LENGTH_AGE_S, 0))
        if time.monotonic() - read_at >= LENGTH_AGE_S:
            stat = self.tree.coordination.exists(folder)
            read_at, length = time.monotonic(), stat.children if stat else 0
        self._lengths[folder] = (read_at, length + 1)
        return length

    def _queued_in(self, pool: str) -> Iterator[str]:
        coordination = self.tree.coordination
        for bucket in sorted(coordination.children(f"{paths.QUEUE}/{pool}")):
            for name in sorted(coordination.children(f"{paths.QUEUE}/{pool}/{bucket}")):
                yield f"{paths.QUEUE}/{pool}/{bucket}/{name}"

    def _view(self, place: str, path: str, why: str = "") -> TicketView:
        node = self.tree.coordination.read(path)
        token = path.rpartition("/")[2]
        if node is None:
            return TicketView(place, token, None, reason="moved meanwhile")
        try:
            ticket = Ticket.waiting(node.data, path)
        except InvalidDocument as error:
            return TicketView(place, token, None, reason=str(error))
        # A ticket in the queue may be moved to another row of it.
        since_ms = ticket.posted_ms if place == "waiting" else node.stat.created_ms
        return TicketView(place, ticket.token, ticket, reason=why, since_ms=since_ms)

    def view_running(self, token: str) -> TicketView:
        """A claimed ticket by its token, whether or not it still is one."""
        node = self.tree.coordination.read(paths.running(token))
        if node is None:
            return TicketView("running", token, None, reason="ended meanwhile")
        try:
            running = Running.from_bytes(node.data, paths.running(token))
        except InvalidDocument as error:
            return TicketView("running", token, None, reason=str(error))
        return TicketView(
            "running",
            token,
            running.ticket,
            running.worker,
            since_ms=node.stat.created_ms,
            progress=running.progress,
            hold=running.hold,
        )

    def _view_dead(self, token: str) -> TicketView:
        node = self.tree.coordination.read(paths.dead(token))
        if node is None:
            return TicketView("dead", token, None, reason="moved meanwhile")
        try:
            document = from_bytes(node.data, paths.dead(token))
        except InvalidDocument as error:
            return TicketView("dead", token, None, reason=str(error))
        ticket, reason = _ticket_in(document.get("ticket")), str(document.get("reason"))
        return TicketView("dead", token, ticket, reason=reason, since_ms=node.stat.created_ms)


class _Row:
    """The front row of a pool as a poster last saw it, with what it has put there since. Any thread may use it."""

    def __init__(self, names: Iterable[str]) -> None:
        self.read_at = time.monotonic()
        self._lock = Lock()
        self._classes: Counter[tuple[int, str]] = Counter()
        for text in names:
            with suppress(Invalid):  # who lists the row to claim from it sets it aside
                name = paths.Name.parse(text)
                self._classes[name.priority, name.project] += 1

    def takes(self, its_class: tuple[int, str]) -> bool:
        """Whether there is a place for one more of a class; it counts as taken from now on."""
        with self._lock:
            classes = len(self._classes.keys() | {its_class})
            is_free = self._classes[its_class] < max(1, FRONT_PLACES // classes)
            if is_free:
                self._classes[its_class] += 1
            return is_free


def _lines(ticket: Ticket) -> list[str]:
    """Where a ticket waits when a permit that it needs is held by others."""
    own = [permit.name for permit in ticket.permits]
    return [paths.parked_for(name) for name in (*own, *quota_permits(ticket).values())]


def _of_project(what: str, project: str, value: Json) -> Callable[[dict[str, Json]], dict[str, Json]]:
    """The change that gives one project such a value, or none."""

    def change(document: dict[str, Json]) -> dict[str, Json]:
        known: dict[str, Json] = document.get(what) or {}
        if project not in known:
            # What an earlier version has let in can still be taken back.
            check_project(project)
        given = {**known, project: value}
        return document | {what: {name: its for name, its in given.items() if its is not None}}

    return change


_AT_ONCE = Event()
_AT_ONCE.set()


def _ticket_in(content: Json) -> Ticket | None:
    try:
        return Ticket.from_bytes(to_bytes(content), "ticket") if isinstance(content, dict) else None
    except InvalidDocument:
        return None


def no_such_ticket(ticket: str) -> NoSuchTicket:
    """What somebody is told of a ticket that is nowhere."""
    return NoSuchTicket(f"no live ticket {ticket!r}; `distci ticket list` shows all there are")
