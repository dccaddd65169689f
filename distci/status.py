"""The system as a whole, as people and tools look at it: who serves, what waits and why, what is paused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from distci.protocol import depths, members, waits
from distci.protocol.depths import HOURS_KEPT, Sample
from distci.protocol.members import WorkerView
from distci.protocol.tickets import Tickets, TicketView
from distci.protocol.waits import Situation
from distci.rebuild import Rebuild
from distci.why import Reason, of_ticket

WAITING = ("waiting", "parked")


@dataclass(frozen=True, slots=True)
class Serving(WorkerView):
    """A live worker and what it does."""

    holds: Sequence[str] = ()
    """Tokens of the tickets that it has claimed."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """What waits and runs, of which kind, and who is there to do it."""

    worker_formats: Mapping[str, int]
    """How many workers speak which formats of trees."""
    workers: Mapping[str, int]
    """How many workers serve each kind."""
    waiting: Mapping[str, int]
    """How many tickets of each kind wait to be claimed."""
    waiting_for_permits: Mapping[str, int]
    """How many tickets stand in line for each permit."""
    slots: int
    running: int
    without_heartbeat: int
    """Claims whose worker is gone, and that nobody has put back yet."""
    set_aside: int
    to_rebuild: int
    """Builds that the store knows of and the tree has lost."""
    epoch: int
    format: int
    """Of the tree."""
    paused: Sequence[str]
    weights: Mapping[str, float]
    quotas: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A ticket that waits, and what for."""

    ticket: TicketView
    reason: Reason


class Status:
    """Looks at one system. Any thread may use it."""

    def __init__(self, tickets: Tickets, rebuild: Rebuild) -> None:
        self._tickets = tickets
        self._rebuild = rebuild

    def cluster(self) -> Cluster:
        """What waits and runs, and who is there.

        >>> ci.status.cluster().without_heartbeat
        0
        """
        situation = waits.read(self._tickets)
        rebuilding = self._rebuild.look()
        return Cluster(
            worker_formats=Counter(str(worker.formats) for worker in situation.workers),
            workers=Counter(kind for worker in situation.workers for kind in worker.offer.kinds),
            waiting=Counter(queued.kind for queued in situation.queue),
            waiting_for_permits={name: len(line.waiting) for name, line in situation.lines.items() if line.waiting},
            slots=sum(worker.slots for worker in situation.workers),
            running=len(situation.running),
            without_heartbeat=sum(waits.without_heartbeat(token, situation) for token in situation.running),
            set_aside=len(self._tickets.dead_tokens()),
            to_rebuild=len(rebuilding.builds),
            epoch=rebuilding.epoch,
            format=self._tickets.tree.format,
            paused=situation.control.paused,
            weights=situation.control.weights,
            quotas=situation.control.quotas,
        )

    def workers(self) -> Sequence[Serving]:
        """The live workers by name, each with what it holds."""
        holds: dict[str, list[str]] = {}
        for token in self._tickets.running_tokens():
            view = self._tickets.view_running(token)
            if view.ticket is not None:
                holds.setdefault(view.worker, []).append(token)
        return [_serving(view, holds.get(view.name, ())) for view in members.workers(self._tickets)]

    def kinds(self) -> Sequence[str]:
        """The kinds of tickets that a live worker serves or that wait.

        >>> "shell" in ci.status.kinds()
        True
        """
        return sorted(waits.kinds(waits.read(self._tickets)))

    def has_workers(self) -> bool:
        """Whether any worker lives.

        >>> ci.status.has_workers()
        True
        """
        return any(members.workers(self._tickets))

    def queue(self, after: str = "") -> Iterator[tuple[str, Waiting]]:
        """The tickets that wait, each with the reason, and with where it is found; those alone that come after one."""
        situation: Situation | None = None
        for place in WAITING:
            for where, view in self._tickets.walk(after, place):
                situation = situation or waits.read(self._tickets)
                yield where, Waiting(view, of_ticket(view, situation))

    def queue_history(self, hours: int = HOURS_KEPT) -> Sequence[Sample]:
        """How many tickets of each kind waited in the last hours, 12 at most, and for how long: a sample a minute, the oldest first.

        A minute has none in which nothing waited, or no control worker was there to look.

        >>> len(ci.status.queue_history(hours=1)) <= 61
        True
        """
        return depths.read(self._tickets.tree, int(self._tickets.clock() * 1000), hours)


def _serving(view: WorkerView, holds: Sequence[str]) -> Serving:
    return Serving(
        view.name,
        view.offer,
        view.slots,
        view.host,
        view.version,
        view.is_draining,
        view.since_ms,
        view.formats,
        holds,
    )
