"""History, final tree and final store in; broken promises out. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from distci.chaos.build_rules import check_builds, check_records, lives
from distci.chaos.findings import Violation
from distci.chaos.history import History, settled
from distci.chaos.output_rules import (
    BuildOutput,
    Mark,
    check_left,
    check_marks,
    check_outputs,
    check_puts,
)
from distci.chaos.ticket_rules import check_tickets


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of a run when it is over."""

    history: History
    tree: Mapping[str, bytes]
    """The nodes that were left when all workers had ended, by path."""
    triggered: Sequence[str]
    """The builds that were promised to whoever asked for them."""
    limits: Mapping[str, int]
    """How many may hold a permit at once, by its name."""
    calm: Mapping[str, BuildOutput]
    """The builds of the calm run, by what caused them."""
    hit: Mapping[str, BuildOutput]
    """The builds of the run under faults."""
    marks: Sequence[Mark]
    """What scripts wrote about themselves."""
    unfinished: Sequence[str] = ()
    """Builds and tickets that had not come to an end when nothing moved any more."""
    survivors: Sequence[str] = ()
    """Processes of scripts that outlived all workers."""
    crashed: Sequence[str] = ()
    """Workers that ended by themselves, or not when they were told to: what each did."""


def check(evidence: Evidence) -> list[Violation]:
    """All that is wrong, what was so first before what may only follow from it."""
    took_effect = settled(evidence.history.commits, evidence.tree)
    history = replace(evidence.history, commits=took_effect)
    found = [*check_tickets(took_effect, evidence.limits), *check_builds(took_effect, evidence.triggered)]
    found += check_records(took_effect, {output.build: output.record for output in evidence.hit.values()})
    found += check_puts(evidence.history)
    found += check_marks(history, evidence.marks)
    for what in evidence.unfinished:
        life = lives(took_effect).get(what)
        found.append(Violation("I3", f"{what} has not come to an end", life.story[-3:] if life else ()))
    found += [Violation("alive", what) for what in evidence.crashed]
    found += check_outputs(evidence.calm, evidence.hit)
    found += check_left(evidence.tree)
    found += [Violation("left", f"process {what} of a script outlived all workers") for what in evidence.survivors]
    return sorted(found, key=lambda violation: violation.since_s)


def settled_in_doubt(history: History) -> int:
    """How many commits had an unknown outcome that their process had to find out about."""
    return sum(commit.outcome == "unknown" for commit in history.commits)
