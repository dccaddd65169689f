"""All cases, one after the other, each with the program started anew."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from distci.conformance.cases import CASES, Case, Unmet
from distci.conformance.relay import Weather
from distci.conformance.stage import Options, Stage
from distci.errors import Conflict, Invalid, Missing


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a case."""

    case: str
    is_met: bool
    expected: str
    seen: str


def run(options: Options, names: Sequence[str], tell: Callable[[str], None]) -> Iterator[Verdict]:
    """Try the worker in these cases (all, where none is named), each verdict as its case ends. Invalid for a case or a program that there is not.

    ``tell`` is told what begins.
    """
    known = {case.name: case for case in CASES}
    if unknown := [name for name in names if name not in known]:
        raise Invalid(f"there is no case {unknown[0]!r}; there are: {', '.join(known)}")
    program = options.command[0]
    if shutil.which(program, path=options.environment.get("PATH")) is None:
        raise Invalid(
            f"{program!r} is no program that can be executed here; look at its path, and at its mode (chmod +x)"
        )
    wanted = [known[name] for name in names] or CASES
    tell("a system is started")
    with Stage(options) as stage:
        for number, case in enumerate(wanted, 1):
            tell(f"{case.name}, {number} of {len(wanted)}")
            yield _tried(stage, case)


def _tried(stage: Stage, case: Case) -> Verdict:
    stage.start_front_ends()
    stage.relay.begin(Weather())
    try:
        with stage.worker() as ended:
            try:
                return Verdict(case.name, True, case.expected, case.play(stage))
            except Unmet as unmet:
                died = f"; the program has ended: {ended.result().describe()}" if ended.done() else ""
                return Verdict(case.name, False, case.expected, f"{unmet}{died}")
    finally:
        # What a broken worker has left must not be the next one's.
        for build in stage.ci.lifecycle.live_builds():
            with suppress(Missing, Invalid, Conflict):
                stage.ci.builds.cancel(build)
                if token := stage.claimed(build):
                    stage.take_away(token)
