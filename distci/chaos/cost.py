"""What faults cost: the time that each added to the work it hit, from the history alone."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from distci.chaos.faults import Hit
from distci.chaos.history import Call, Commit, Put
from distci.chaos.schedule import MEMBER_KINDS, Kind
from distci.chaos.ticket_rules import claims, moves
from distci.protocol import paths
from distci.recording import DONE


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds that faults added, over those that hit anything."""

    hits: int
    median_s: float
    worst_s: float


def cost(hits: Sequence[Hit], commits: Sequence[Commit], puts: Sequence[Put] = ()) -> Cost:
    """``commits`` are those that took effect, ``puts`` those of workers."""
    begun = {token: commit for token, (commit, _) in claims(commits).items()}
    ended = {
        move.whence.token: commit
        for commit in commits
        for move in moves(commit)
        if move.whence and move.whence.folder == paths.RUNNING
    }
    stored = [put for put in puts if put.outcome == DONE]
    added = [seconds for hit in hits for seconds in _added(hit, commits, stored, begun, ended)]
    return Cost(len(added), statistics.median(added), max(added)) if added else Cost(0, 0.0, 0.0)


def _added(
    hit: Hit,
    commits: Sequence[Commit],
    stored: Sequence[Put],
    begun: Mapping[str, Commit],
    ended: Mapping[str, Commit],
) -> Iterator[float]:
    if hit.fault.kind in MEMBER_KINDS or hit.fault.kind is Kind.STORE_AWAY:
        # How long nobody could commit, or store.
        calls: Sequence[Call] = stored if hit.fault.kind is Kind.STORE_AWAY else commits
        after = [call.ended_s for call in calls if call.started_s > hit.began_s]
        if after:
            yield min(after) - hit.began_s
        return
    for token, commit in begun.items():
        end = ended.get(token)
        if commit.process != hit.process or commit.started_s > hit.began_s or (end and end.started_s < hit.began_s):
            continue
        again = begun.get(paths.token(paths.ticket_of(token), paths.attempt_of(token) + 1))
        if again is not None:
            # What had been done for it, and the time until somebody began anew.
            yield again.started_s - commit.started_s
        elif hit.fault.kind in (Kind.PAUSE, Kind.LONG_PAUSE):
            yield hit.ended_s - hit.began_s
        else:
            yield 0.0
