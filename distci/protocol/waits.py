"""Why a ticket waits: a pure function over what stands in the tree.

:func:`read` takes a picture of the tree without touching it, :func:`explain` says from it what a ticket waits for and what would
make it start. The picture is not of one instant: what moves meanwhile may be seen twice or not at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from shlex import quote

from distci.model import is_isolation_label
from distci.protocol import choosing, paths, permits
from distci.protocol.members import WorkerView, workers
from distci.protocol.records import QUOTA, Control, Ticket
from distci.protocol.tickets import Queued, Tickets


@dataclass(frozen=True, slots=True)
class Line:
    """Who holds a permit and who waits for it."""

    holders: Sequence[str]
    """As they were named when they took it: the token of a ticket, or what a service calls its own."""
    waiting: Sequence[Ticket]
    """In the order in which they get their turn."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What stands in the tree, as far as it makes tickets wait."""

    now_ms: int
    queue: Sequence[Queued]
    workers: Sequence[WorkerView]
    running: Mapping[str, str]
    """The workers that hold claims, by token."""
    running_kinds: Sequence[str]
    """The kinds of their tickets, one for each."""
    heartbeats: frozenset[str]
    """Tokens of the claims whose worker lives."""
    control: Control
    lines: Mapping[str, Line]
    """By the name of the permit."""
    due: Mapping[str, int] = field(default_factory=dict)
    """When tickets are due that wait for a time, by their ids, in milliseconds since 1970."""
    failed: Mapping[str, Ticket] = field(default_factory=dict)
    """The tickets, by token of the claim, whose work has failed and is held for somebody who wants to look."""


@dataclass(frozen=True, slots=True)
class Wait:
    """What a ticket waits for."""

    because: str
    remedy: str = ""
    """What would make it start; empty where that is only a matter of time."""
    place: int = 0
    """Its place in the line, from 1; 0 when it stands in none."""
    slots: int = 0
    """How many claims of such tickets its workers hold at once, all together, beside those of failed tasks that are held."""
    missing: Sequence[str] = ()
    """The labels that it asks for and no live worker of its kind offers."""


def read(tickets: Tickets) -> Situation:
    """A picture of the tree: a few listings, and a read for each worker, claim and ticket that waits for a permit."""
    tree = tickets.tree
    seen = [tickets.view_running(token) for token in tickets.running_tokens()]
    claims = {view.token: (view.worker, view.ticket.kind) for view in seen if view.ticket}
    return Situation(
        now_ms=int(tickets.clock() * 1000),
        queue=list(tickets.queue()),
        workers=list(workers(tickets)),
        running={token: worker for token, (worker, _) in claims.items()},
        running_kinds=[kind for _, kind in claims.values()],
        heartbeats=frozenset(tickets.heartbeats()),
        control=tickets.control(),
        lines={
            name: Line(list(permits.holders(tree, name)), [ticket for _, ticket in permits.waiting(tree, name)])
            for name in permits.waited_for(tree)
        },
        due=tickets.due(),
        failed={view.token: view.ticket for view in seen if view.ticket and view.hold},
    )


def explain(ticket: Ticket, situation: Situation) -> Wait:
    """Why a posted ticket that nobody holds has not been claimed."""
    if ticket.id in situation.due:
        return Wait(f"it waits for its time, in {max(0, situation.due[ticket.id] - situation.now_ms) / 1000:.0f} s")
    for permit in situation.control.permits(ticket):
        line = situation.lines.get(permit.name)
        ids = [waiting.id for waiting in line.waiting] if line else []
        if line and ticket.id in ids:
            place = ids.index(ticket.id) + 1
            sort, _, project = permit.name.partition(":")
            if sort == QUOTA:
                claimed = f"{len(line.holders)} of at most {permit.limit} tickets"
                raising = f"wait, or raise it: distci cluster limit {quote(project)} N"
                return Wait(f"the quota of project {project} is full: {claimed} are claimed", raising, place)
            holders = ", ".join(line.holders) or "nobody any more"
            return Wait(f"{permit.name} is held by {holders} (at most {permit.limit} at once)", place=place)
    if situation.control.pauses(ticket.kind):
        what = "all" if "*" in situation.control.paused else ticket.kind
        return Wait(f"claims of {what} are paused", "resume them: distci cluster resume")
    suitable = [worker for worker in situation.workers if worker.offer.accepts(ticket.kind, ticket.labels)]
    taking = [worker for worker in suitable if not worker.is_draining]
    if not taking:
        return _nobody(ticket, situation.workers, suitable)
    return _in_line(ticket, situation, taking)


def kinds(situation: Situation) -> set[str]:
    """The kinds that a live worker serves or that have a ticket waiting."""
    served = {kind for worker in situation.workers for kind in worker.offer.kinds}
    in_line = {ticket.kind for line in situation.lines.values() for ticket in line.waiting}
    return served | in_line | {queued.kind for queued in situation.queue}


def without_heartbeat(token: str, situation: Situation) -> bool:
    """Whether a claim stands whose worker is gone: it is taken over as soon as a control worker sees it."""
    return token in situation.running and token not in situation.heartbeats


def _nobody(ticket: Ticket, live: Sequence[WorkerView], suitable: Sequence[WorkerView]) -> Wait:
    asked = [label for label in ticket.labels if not is_isolation_label(label)]
    labels = "".join(f" --label {quote(label)}" for label in asked)
    run = f"start one: distci worker run {ticket.kind}{labels}"
    if len(asked) < len(ticket.labels):
        # Nobody says this one: a worker offers what its machine can do and its operator allows.
        kept = ", ".join(label.partition("=")[2] for label in ticket.labels if label not in asked)
        run += f", on a machine where `distci check` finds isolation {kept} and the setting isolation allows it"
    if suitable:
        names = ", ".join(worker.name for worker in suitable)
        return Wait(f"every worker that could do it is draining: {names}", run)
    of_kind = [worker for worker in live if ticket.kind in worker.offer.kinds]
    if not of_kind:
        return Wait(f"no live worker serves {ticket.kind}", run, missing=ticket.labels)
    missing = {label: [worker for worker in of_kind if not worker.offer.offers(label)] for label in ticket.labels}
    nowhere = [label for label, lacking in missing.items() if len(lacking) == len(of_kind)]
    if nowhere:
        return Wait(f"no live worker of {ticket.kind} offers {' or '.join(nowhere)}", run, missing=nowhere)
    able = [worker for worker in of_kind if not any(worker in lacking for lacking in missing.values())]
    if able:
        kept = ", ".join(f"{worker.name} for {' or '.join(worker.offer.only)}" for worker in able)
        return Wait(f"the workers that could do it are kept for other tickets: {kept}", run)
    return Wait(f"no live worker of {ticket.kind} offers all of {', '.join(ticket.labels)} at once", run)


def _in_line(ticket: Ticket, situation: Situation, taking: Sequence[WorkerView]) -> Wait:
    held = Counter(situation.running.values())
    slots = sum(worker.slots for worker in taking)
    free = sum(max(0, worker.slots - held[worker.name]) for worker in taking)
    mine = paths.Name.parse(ticket.name())
    rivals = (queued.name for queued in _rivals(situation, taking) if queued.name.ticket != ticket.id)
    place = choosing.place(mine, rivals, situation.now_ms, situation.control.weight_by_tag)
    who = taking[0].name if len(taking) == 1 else f"{len(taking)} workers"
    if free >= place:
        return Wait(f"{who} can take it at any moment", place=place, slots=slots)
    busy = "its slot is" if slots == 1 else f"all {slots} slots are"
    because, remedy = f"{who} can take it, but {busy} busy", "add workers or slots, or wait"
    names = {worker.name for worker in taking}
    failed = [ticket for token, ticket in situation.failed.items() if situation.running.get(token) in names]
    if failed:
        builds = ", ".join(sorted({str(ticket.body.get("build")) for ticket in failed}))
        because += f", {len(failed)} with failed tasks that are held, of {builds}"
        remedy = f"release one: distci build shell BUILD TASK --release; {remedy}"
    return Wait(because, remedy, place, slots - len(failed))


def _rivals(situation: Situation, taking: Sequence[WorkerView]) -> Iterator[Queued]:
    """What waits for any of these workers."""
    for queued in situation.queue:
        if any(worker.offer.accepts(queued.kind, queued.labels) for worker in taking):
            yield queued
