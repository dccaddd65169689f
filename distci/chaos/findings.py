"""What the checker says: a promise that was broken, and the few calls that show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from distci.chaos.history import Call, Commit, Put
from distci.coordination.port import Create, Delete, Write
from distci.protocol import paths

PROMISES = {
    "I1": "a live ticket is in exactly one place, and moves in one transaction",
    "I2": "a claim has a heartbeat as long as it stands",
    "I3": "an unfinished build has a live ticket, and goes on by itself",
    "I4": "a ticket is finished once, by the attempt that holds it",
    "I6": "an accepted trigger is one build; numbers are dense",
    "I7": "permits never exceed their limit and end with their claim",
    "I8": "the record is the build's last state",
    "I9": "what follows on a build's end is started once",
    "output": "logs and artifacts are those of the calm run, and belong to the attempt that counts",
    "rerun": "nothing that was completed runs again",
    "alive": "no worker ends by itself, and each does when it is told to",
    "left": "nothing is left behind",
}
"""What is checked, by the names of the invariants in ``docs/protocol.rst``."""

CALLS_SHOWN_MAX = 8

ASIDE = (f"{paths.IDLE}/", f"{paths.ONCE}/")
"""What transactions do by the way, and no promise speaks of."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken."""

    promise: str
    """A key of :data:`PROMISES`."""
    what: str
    """What is the case, and what should be."""
    calls: Sequence[Call] = ()
    """What shows it."""

    @property
    def since_s(self) -> float:
        """When it was first so; infinite when no call says."""
        return min((call.started_s for call in self.calls), default=inf)


def explain(violation: Violation, began_s: float = 0.0) -> list[str]:
    """The violation for people: what is wrong, then the calls that show it, in order, with seconds since ``began_s``."""
    calls = sorted(set(violation.calls), key=lambda call: call.started_s)
    lines = [f"{violation.promise}: {violation.what}"]
    lines += [
        f"  {call.started_s - began_s:8.3f} s  {call.process:<12} {describe(call)}" for call in calls[:CALLS_SHOWN_MAX]
    ]
    if len(calls) > CALLS_SHOWN_MAX:
        lines.append(f"  ... and {len(calls) - CALLS_SHOWN_MAX} more")
    return [*lines, f"  promised: {PROMISES[violation.promise]}"]


def describe(call: Call) -> str:
    """One call in a line."""
    if isinstance(call, Commit):
        return f"{', '.join(_steps(call))}: {call.outcome}"
    if isinstance(call, Put):
        return f"store {call.key}, {'a stream' if call.size is None else f'{call.size} bytes'}: {call.outcome}"
    return call.outcome


def _steps(commit: Commit) -> list[str]:
    told = []
    for step in commit.operations:
        if step.path.startswith(ASIDE):
            continue
        if isinstance(step, Create):
            told.append(f"{'own' if step.ephemeral else 'make'} {step.path}")
        elif isinstance(step, Write | Delete):
            version = f"@{step.version}" if step.version >= 0 else ""
            told.append(f"{'write' if isinstance(step, Write) else 'remove'} {step.path}{version}")
    return told or ["checks"]
