"""What goes wrong when: the whole list of faults from a seed, before anything runs. No clock, and no chance but the seed's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random


class Kind(StrEnum):
    """What can be done to a process or to its link."""

    KILL = "kill"
    """kill -9 of a worker; another one is started after a while."""
    KILL_IN_COMMIT = "kill in commit"
    """The same at the moment when the worker commits."""
    KILL_IN_WRITE = "kill in write"
    """The same at the moment when the worker writes to the store."""
    PAUSE = "pause"
    """SIGSTOP of a worker for less than its session lives, then SIGCONT."""
    LONG_PAUSE = "long pause"
    """The same for longer than its session lives, at the moment when it writes to the store: others take over, then it comes back."""
    RESTART = "restart"
    """SIGTERM of a worker, and another one at once."""
    CUT = "cut"
    """The worker's connections to ZooKeeper are closed, and new ones refused."""
    SILENCE = "silence"
    """The worker's connections to ZooKeeper stay, and carry nothing."""
    STORE_CUT = "store cut"
    """The worker's connections to the store are closed, and new ones refused."""
    STORE_SILENCE = "store silence"
    """The worker's connections to the store stay, and carry nothing."""
    STORE_AWAY = "store away"
    """The connections of all workers to the store are closed, and new ones refused."""
    MEMBER_KILL = "member kill"
    """kill -9 of a ZooKeeper server; it is started again after a while, on its data."""
    MEMBER_PAUSE = "member pause"
    """SIGSTOP of a ZooKeeper server for a while."""
    LEADER_KILL = "leader kill"
    """kill -9 of whichever ZooKeeper server leads just then."""
    QUORUM_PAUSE = "quorum pause"
    """SIGSTOP of two ZooKeeper servers of three: nobody can commit."""


WORKER_KINDS = {
    Kind.KILL: 2,
    Kind.KILL_IN_COMMIT: 2,
    Kind.KILL_IN_WRITE: 1,
    Kind.PAUSE: 2,
    Kind.LONG_PAUSE: 2,
    Kind.RESTART: 1,
}
LINK_KINDS = {Kind.CUT: 2, Kind.SILENCE: 2}
STORE_KINDS = {Kind.STORE_CUT: 2, Kind.STORE_SILENCE: 2, Kind.STORE_AWAY: 1}
MEMBER_KINDS = {Kind.MEMBER_KILL: 1, Kind.MEMBER_PAUSE: 1, Kind.LEADER_KILL: 2, Kind.QUORUM_PAUSE: 1}
"""The kinds of a system with such parts, and how often each comes, by weight."""

WIDE = (Kind.LEADER_KILL, Kind.QUORUM_PAUSE)
"""Whoever leads may be any of them, and a quorum is most of them."""

AIMS = {Kind.KILL_IN_COMMIT: "commit", Kind.KILL_IN_WRITE: "put", Kind.LONG_PAUSE: "put"}
"""The call in which a worker is hit, for the kinds that wait for one."""

LENGTHS = {
    Kind.KILL: (0.0, 0.5),
    Kind.KILL_IN_COMMIT: (0.0, 0.5),
    Kind.KILL_IN_WRITE: (0.0, 0.5),
    Kind.PAUSE: (0.1, 0.7),
    Kind.LONG_PAUSE: (1.5, 3.0),
    Kind.RESTART: (0.0, 0.0),
    Kind.CUT: (0.1, 3.0),
    Kind.SILENCE: (0.1, 3.0),
    Kind.STORE_CUT: (0.1, 3.0),
    Kind.STORE_SILENCE: (0.1, 3.0),
    Kind.STORE_AWAY: (0.5, 4.0),
    Kind.MEMBER_KILL: (0.2, 2.0),
    Kind.MEMBER_PAUSE: (0.2, 2.0),
    Kind.LEADER_KILL: (0.2, 2.0),
    Kind.QUORUM_PAUSE: (0.2, 2.0),
}
"""Shortest and longest, in lengths of a session."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong for a while."""

    at_s: float
    """Seconds after the builds were begun."""
    kind: Kind
    victim: int
    """Index of the worker or of the ZooKeeper server, for a quorum of the first of two; of a leader it is found out then. 0 for a store."""
    length_s: float

    @property
    def end_s(self) -> float:
        return self.at_s + self.length_s

    def meets(self, other: Fault) -> bool:
        """Whether both are about the same process, or may be. A store that is away hits links alone: workers are killed meanwhile."""
        if Kind.STORE_AWAY in (self.kind, other.kind):
            return self.kind in STORE_KINDS and other.kind in STORE_KINDS
        if (self.kind in MEMBER_KINDS) is not (other.kind in MEMBER_KINDS):
            return False
        return self.victim == other.victim or self.kind in WIDE or other.kind in WIDE


@dataclass(frozen=True, slots=True)
class Theatre:
    """What there is to break."""

    workers: int
    session_s: float
    has_links: bool = False
    """Between workers and ZooKeeper."""
    has_store_links: bool = False
    members: int = 0
    """ZooKeeper servers of our own."""


def schedule(seed: int, faults: int, duration_s: float, theatre: Theatre) -> Sequence[Fault]:
    """The faults of a seed, in order; equal for equal arguments. Nobody suffers two at once."""
    random = Random(f"faults {seed}")
    weights = (
        WORKER_KINDS
        | (LINK_KINDS if theatre.has_links else {})
        | (STORE_KINDS if theatre.has_store_links else {})
        | (MEMBER_KINDS if theatre.members else {})
    )
    planned: list[Fault] = []
    for number in range(faults):
        (kind,) = random.choices([*weights], [*weights.values()])
        length_s = theatre.session_s * random.uniform(*LENGTHS[kind])
        wanted_s = duration_s * (number + random.random()) / faults
        victims = range(_victims(kind, theatre))
        free_s = {victim: _free_s(Fault(wanted_s, kind, victim, length_s), planned) for victim in victims}
        free = [victim for victim in victims if free_s[victim] <= wanted_s]
        victim = random.choice(free) if free else min(victims, key=lambda each: free_s[each])
        planned.append(Fault(max(wanted_s, free_s[victim]), kind, victim, length_s))
    return sorted(planned, key=lambda fault: fault.at_s)


def _victims(kind: Kind, theatre: Theatre) -> int:
    """How many there are that a fault may hit."""
    if kind is Kind.STORE_AWAY:
        return 1
    return theatre.members if kind in MEMBER_KINDS else theatre.workers


def _free_s(fault: Fault, planned: Sequence[Fault]) -> float:
    """When whoever a fault is about has recovered from all others."""
    return max((other.end_s for other in planned if other.meets(fault)), default=0.0)
