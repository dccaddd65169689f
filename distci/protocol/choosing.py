"""Which waiting ticket a worker tries first: pure, from names alone.

The lowest priority number first. A ticket gains one class for every 15 minutes that it waits, up to the most urgent that anything
waiting was posted with, so that nothing starves; not beyond it, else whatever a project has had waiting for an hour would all
go before another project's first ticket. Within the class projects take turns (:class:`Turns`), each with one claim however many
tickets it has waiting. Within the project those go first that have gained most, so nothing that is posted more than 15 minutes
later in the same class ever does; among them what comes back from a worker that was lost, then one of the oldest, at random: were everybody to try the
very oldest, all but one would fail, and a failed claim costs the quorum a write like a good one (100 workers on the oldest ticket:
87 transactions a ticket; at random among the first few: 2.4).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from threading import Lock

from distci.protocol.paths import Name, comes_back, project_tag
from distci.protocol.records import Ticket

AGEING_MS = 15 * 60 * 1000
WINDOW = 32
"""How many of a project's oldest tickets are tried at random."""

Weights = Mapping[str, float]
"""How many claims a project gets for one of a project of weight 1, by project tag; 1 for those not named."""


class Turns:
    """Whose turn it is: the project that this claimer has served least lately, by weight; among equals at random.

    Stride scheduling (Waldspurger and Weihl, 1995): each claim moves its project's next turn on by 1/weight. A project that was not seen
    lately comes in where the others stand, so it goes first and has nothing to catch up with. Any thread may use it.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._now = 0.0
        self._next: dict[str, float] = {}

    def order(self, projects: Iterable[str], random: Random) -> Sequence[str]:
        """The projects in the order of their turns."""
        with self._lock:
            return sorted(sorted(projects), key=lambda project: (self._next.get(project, self._now), random.random()))

    def took(self, project: str, weight: float = 1.0) -> None:
        """One of its tickets was claimed."""
        with self._lock:
            self._now = self._next.get(project, self._now)
            self._next[project] = self._now + 1 / weight
            self._next = {other: turn for other, turn in self._next.items() if turn > self._now}


@dataclass(frozen=True, slots=True)
class Line:
    """Those who stand in line, as far as it matters to one that would pass by them."""

    projects: frozenset[str]
    """Their tags."""
    first: int
    """The most urgent class among them."""

    @classmethod
    def of(cls, names: Sequence[Name], now_ms: int) -> Line | None:
        """None when nobody does."""
        if not names:
            return None
        return cls(frozenset(name.project for name in names), min(urgency(name, now_ms) for name in names))

    def lets_by(self, ticket: Ticket) -> bool:
        """Whether a ticket is of the only project that stands there, and no less urgent than any of it."""
        return self.projects == {project_tag(ticket.project)} and ticket.priority <= self.first


def choose(names: Iterable[Name], now_ms: int, random: Random, most: int, turns: Turns) -> Sequence[Name]:
    """Up to ``most`` names to try, in this order."""
    waiting = list(names)
    if not waiting:
        return ()
    floor = min(name.priority for name in waiting)
    classes = [max(floor, urgency(name, now_ms)) for name in waiting]
    first = min(classes)
    projects: dict[str, list[Name]] = defaultdict(list)
    for name, its_class in zip(waiting, classes, strict=True):
        if its_class == first:
            projects[name.project].append(name)
    chosen: list[Name] = []
    for project in turns.order(projects, random):
        left = most - len(chosen)
        if left:
            oldest = sorted(projects[project], key=lambda name: _age(name, now_ms))
            longest = [name for name in oldest[:WINDOW] if _age(name, now_ms)[:2] == _age(oldest[0], now_ms)[:2]]
            chosen += random.sample(longest, min(left, len(longest)))
    return chosen


def urgency(name: Name, now_ms: int) -> int:
    """Its priority number, one less for every 15 minutes that it has waited."""
    return name.priority - max(0, now_ms - name.time_ms) // AGEING_MS


def place(mine: Name, others: Iterable[Name], now_ms: int, weights: Weights) -> int:
    """About the how-manieth claim from now will be this ticket's, 1 for the next, as others wait now and where no turn is known."""
    rivals = list(others)
    floor = min(name.priority for name in (mine, *rivals))
    its_class = max(floor, urgency(mine, now_ms))
    before, same = 0, 1
    elsewhere: Counter[str] = Counter()
    for other in rivals:
        other_class = max(floor, urgency(other, now_ms))
        if other_class < its_class:
            before += 1
        elif other_class == its_class and other.project != mine.project:
            elsewhere[other.project] += 1
        elif other_class == its_class:
            same += _age(other, now_ms) < _age(mine, now_ms)
    turns = (same - 1) / weights.get(mine.project, 1.0)
    meanwhile = sum(min(count, math.ceil(turns * weights.get(tag, 1.0))) for tag, count in elsewhere.items())
    return before + same + meanwhile


def _age(name: Name, now_ms: int) -> tuple[int, bool, int, str]:
    return urgency(name, now_ms), not comes_back(name.attempt), name.time_ms, name.ticket
