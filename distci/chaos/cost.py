"""What faults cost: how long what they hit had to wait, and what was thrown away, from the history alone."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from math import isfinite

from distci.chaos.faults import Hit
from distci.chaos.history import Call, Commit, Put
from distci.chaos.schedule import LINK_KINDS, MEMBER_KINDS, Kind
from distci.chaos.ticket_rules import claims, moves
from distci.protocol import paths
from distci.recording import DONE

TAKEN_OVER_S = 2.0
"""So long after its session has ended a lost worker's work should be in other hands."""

OUTAGE_MIN_S = 0.5
"""Shorter times without any commit are not told from times in which nobody tried."""

Beats = Sequence[tuple[float, float]]
"""From when to when commits took that were made for no other purpose than to see whether anybody can."""


class Sort(StrEnum):
    """What a fault hits."""

    KILL = "kills"
    PAUSE = "pauses"
    RESTART = "restarts"
    LINK = "links"
    SERVER = "servers"
    STORE = "store"


SORTS = {
    Kind.KILL: Sort.KILL,
    Kind.KILL_IN_COMMIT: Sort.KILL,
    Kind.KILL_IN_WRITE: Sort.KILL,
    Kind.PAUSE: Sort.PAUSE,
    Kind.LONG_PAUSE: Sort.PAUSE,
    Kind.RESTART: Sort.RESTART,
    Kind.STORE_AWAY: Sort.STORE,
    **dict.fromkeys((*LINK_KINDS, Kind.STORE_CUT, Kind.STORE_SILENCE), Sort.LINK),
    **dict.fromkeys(MEMBER_KINDS, Sort.SERVER),
}

LIMITED = (Sort.KILL, Sort.PAUSE, Sort.LINK)
"""After these others take over within a session and :data:`TAKEN_OVER_S`, or the worker comes back."""


@dataclass(frozen=True, slots=True)
class Wait:
    """What one fault did to one claim; of a server or the store, to all. Seconds."""

    fault: Kind
    process: str
    token: str
    """Empty where it is about all."""
    wait_s: float
    """From the fault until somebody began anew, or went on; without ``outage_s``."""
    outage_s: float = 0.0
    """How much longer it was because nobody could commit, which other faults had brought about."""
    thrown_away_s: float = 0.0
    """For how long there had been work on what others began anew."""
    taken_over_s: float | None = None
    """From the fault until the ticket was in the queue again, without outages; None when its claim stood."""
    meanwhile: Sequence[str] = ()
    """What else went wrong between the fault and its end."""
    found_permit_taken: bool = False
    """Whether the ticket had to wait for a permit besides."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Seconds."""

    median_s: float
    worst_s: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        return cls(round(statistics.median(seconds), 3), round(max(seconds), 3))


@dataclass(frozen=True, slots=True)
class Cost:
    """What the faults of one sort cost all that they hit."""

    hits: int
    """Claims; of servers and the store: faults."""
    wait: Spread
    limit_s: float | None
    """What a wait should not exceed; None where there is no such promise."""
    over_limit: int
    taken_over: Spread | None
    """The part of a wait until the ticket was in the queue again; None where no claim was lost."""
    outage: Spread
    thrown_away: Spread


@dataclass(frozen=True, slots=True)
class Costs:
    """What faults cost, of one performance or of several."""

    waits: Sequence[Wait] = ()
    """One for each claim that a fault hit, and for each fault of a server or the store."""
    limit_s: float = 0.0
    """What a wait after a fault of the ``LIMITED`` sorts should not exceed."""

    @property
    def by_sort(self) -> Mapping[Sort, Cost]:
        """Of the sorts that hit anything."""
        return {sort: self._cost(sort, waits) for sort in Sort if (waits := self._of(sort))}

    @property
    def over_limit(self) -> Sequence[Wait]:
        """The waits that exceed their limit."""
        return [wait for sort in LIMITED for wait in self._over(self._of(sort))]

    def _of(self, sort: Sort) -> Sequence[Wait]:
        return [wait for wait in self.waits if SORTS[wait.fault] is sort]

    def _over(self, waits: Sequence[Wait]) -> Sequence[Wait]:
        return [wait for wait in waits if wait.wait_s > self.limit_s]

    def _cost(self, sort: Sort, waits: Sequence[Wait]) -> Cost:
        return Cost(
            hits=len(waits),
            wait=Spread.of([wait.wait_s for wait in waits]),
            limit_s=self.limit_s if sort in LIMITED else None,
            over_limit=len(self._over(waits)) if sort in LIMITED else 0,
            taken_over=_spread([wait.taken_over_s for wait in waits if wait.taken_over_s is not None]),
            outage=Spread.of([wait.outage_s for wait in waits]),
            thrown_away=Spread.of([wait.thrown_away_s for wait in waits]),
        )


def costs(
    hits: Sequence[Hit],
    took_effect: Sequence[Commit],
    session_s: float,
    tried: Sequence[Commit] = (),
    puts: Sequence[Put] = (),
    beats: Beats = (),
) -> Costs:
    """``tried`` are all commits, whatever came of them; ``puts`` the writes of workers to the store."""
    story = _Story(hits, took_effect, session_s, tried, puts, beats)
    return Costs(list(story.waits()), session_s + TAKEN_OVER_S)


def together(several: Sequence[Costs]) -> Costs:
    """What all of the performances cost, which had the same limit."""
    return Costs([wait for one in several for wait in one.waits], several[0].limit_s)


class _Story:
    """All that is known of a performance, to find out what each fault did."""

    def __init__(
        self,
        hits: Sequence[Hit],
        took_effect: Sequence[Commit],
        session_s: float,
        tried: Sequence[Commit],
        puts: Sequence[Put],
        beats: Beats,
    ) -> None:
        self._hits = sorted(hits, key=lambda hit: hit.began_s)
        self._took_effect = took_effect
        self._session_s = session_s
        self._tried = tried
        self._puts = puts
        self._stored = [put for put in puts if put.outcome == DONE]
        self._commits = [*_times(took_effect), *beats]
        self._begun = {token: commit for token, (commit, _) in claims(took_effect).items()}
        self._ended = {
            move.whence.token: commit
            for commit in took_effect
            for move in moves(commit)
            if move.whence and move.whence.folder == paths.RUNNING
        }
        self._parked = {
            move.whither.token
            for commit in took_effect
            for move in moves(commit)
            if move.whither and move.whither.folder == paths.PARKED
        }
        self._outages = list(self._find_outages())

    def waits(self) -> Iterator[Wait]:
        for hit in self._hits:
            if hit.fault.kind in MEMBER_KINDS:
                yield from self._of_all(hit, self._commits)
            elif hit.fault.kind is Kind.STORE_AWAY:
                yield from self._of_all(hit, _times(self._stored))
            else:
                yield from (wait for token in self._held(hit) if (wait := self._of_claim(hit, token)))

    def _of_all(self, hit: Hit, calls: Sequence[tuple[float, float]]) -> Iterator[Wait]:
        """How long nobody could make such calls."""
        after = _first_end(calls, hit.began_s)
        if after is not None:
            yield Wait(hit.fault.kind, hit.process, "", after - hit.began_s)

    def _find_outages(self) -> Iterator[tuple[float, float]]:
        """The times in which nobody could commit, in order, none meeting the next."""
        until_s = 0.0
        for hit in self._hits:
            end_s = _first_end(self._commits, hit.began_s) if hit.fault.kind in MEMBER_KINDS else None
            if end_s is not None and end_s - hit.began_s >= OUTAGE_MIN_S:
                yield max(until_s, hit.began_s), max(until_s, end_s)
                until_s = max(until_s, end_s)

    def _held(self, hit: Hit) -> Sequence[str]:
        """The claims that its victim held."""
        return [
            token
            for token, begin in self._begun.items()
            if begin.process == hit.process
            and begin.started_s <= hit.began_s
            and (token not in self._ended or self._ended[token].started_s >= hit.began_s)
        ]

    def _of_claim(self, hit: Hit, token: str) -> Wait | None:
        next_token = paths.token(paths.ticket_of(token), paths.attempt_of(token) + 1)
        again = self._begun.get(next_token)
        if again is None or not self._was_taken_over(token) or self._cause(token) is not hit:
            span = self._held_up(hit, token)
            return self._wait(hit, token, span) if span else None
        return replace(
            self._wait(hit, token, (hit.began_s, again.started_s)),
            thrown_away_s=hit.began_s - self._begun[token].started_s,
            taken_over_s=self._net_s(hit.began_s, self._ended[token].started_s),
            found_permit_taken=next_token in self._parked,
        )

    def _wait(self, hit: Hit, token: str, span: tuple[float, float]) -> Wait:
        meanwhile = list(self._meanwhile(hit, span[1]))
        return Wait(hit.fault.kind, hit.process, token, self._net_s(*span), self._outage_s(*span), meanwhile=meanwhile)

    def _net_s(self, since_s: float, until_s: float) -> float:
        return until_s - since_s - self._outage_s(since_s, until_s)

    def _outage_s(self, since_s: float, until_s: float) -> float:
        return sum(max(0.0, min(end_s, until_s) - max(start_s, since_s)) for start_s, end_s in self._outages)

    def _was_taken_over(self, token: str) -> bool:
        """Whether a claim was ended for its worker, and not by it, as when it parks its ticket."""
        end = self._ended.get(token)
        is_own = end is not None and end.process == self._begun[token].process
        return end is not None and not (is_own and end.creates(paths.owner(token)) is None)

    def _cause(self, token: str) -> Hit:
        """The fault that a claim was lost by: the first one that its worker was not seen to have survived."""
        about = [hit for hit in self._hits if token in self._held(hit)]
        for hit, following in pairwise(about):
            if not self._did_something(hit.process, hit.ended_s, following.began_s):
                return hit
        return about[-1]

    def _did_something(self, process: str, since_s: float, until_s: float) -> bool:
        return any(
            call.process == process and since_s < call.started_s and call.ended_s < until_s
            for call in (*self._took_effect, *self._stored)
        )

    def _held_up(self, hit: Hit, token: str) -> tuple[float, float] | None:
        """From when to when a fault held a claim up that stood; None for one that cannot have stood."""
        nothing = (hit.began_s, hit.began_s)
        match SORTS[hit.fault.kind]:
            case Sort.KILL:
                return None
            case Sort.PAUSE:
                return hit.began_s, hit.ended_s
            case Sort.LINK if hit.fault.kind in LINK_KINDS:
                end = self._ended.get(token)
                asked = [
                    commit.started_s
                    for commit in self._tried
                    if commit.process == hit.process
                    and hit.began_s <= commit.started_s <= hit.ended_s
                    and commit.deletes(paths.running(token))
                ]
                return (min(asked), _known_end_s(end)) if end and asked else nothing
            case Sort.LINK:
                own = [put for put in self._puts if put.process == hit.process and put.started_s > hit.began_s]
                stored = [put.ended_s for put in own if put.outcome == DONE]
                return (min(put.started_s for put in own), min(stored)) if stored else nothing
            case _:
                return nothing

    def _meanwhile(self, hit: Hit, until_s: float) -> Iterator[str]:
        """Other faults; of those that were over, the ones whose victim's session may have outlived them."""
        for other in self._hits:
            if other is not hit and other.began_s < until_s and other.ended_s + self._session_s > hit.began_s:
                yield f"{other.fault.kind} of {other.process} at {other.began_s - hit.began_s:+.1f} s"


def _spread(seconds: Sequence[float]) -> Spread | None:
    return Spread.of(seconds) if seconds else None


def _times(calls: Sequence[Call]) -> Sequence[tuple[float, float]]:
    return [(call.started_s, _known_end_s(call)) for call in calls]


def _known_end_s(call: Call) -> float:
    """When a call that took effect had ended; when it was begun, if its process was killed before it knew."""
    return call.ended_s if isfinite(call.ended_s) else call.started_s


def _first_end(calls: Sequence[tuple[float, float]], since_s: float) -> float | None:
    """When the first of the calls that began later had succeeded."""
    return min((end_s for start_s, end_s in calls if start_s > since_s), default=None)
