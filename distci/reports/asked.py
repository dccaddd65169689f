"""What a task's ``reports`` asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from distci.errors import Invalid
from distci.patterns import Pattern
from distci.reports.results import CaseOutcome

RESULTS: Mapping[str, CaseOutcome] = {
    **dict.fromkeys(("ok", "pass", "passed", "success"), CaseOutcome.PASSED),
    **dict.fromkeys(("not ok", "fail", "failed", "failure", "error"), CaseOutcome.FAILED),
    **dict.fromkeys(("skip", "skipped", "ignored", "disabled"), CaseOutcome.SKIPPED),
}
"""What results of lines mean where the job does not say so, in lower case."""


@dataclass(frozen=True, slots=True)
class LogTests:
    """How tests are told in lines of the log."""

    result: Pattern
    """With the groups ``name`` and ``result``, and perhaps ``seconds`` and ``message``."""
    suite: Pattern | None = None
    """With the group ``suite``: what the tests of the lines that follow belong to."""
    results: Mapping[str, CaseOutcome] = field(default_factory=lambda: RESULTS)
    rename: Sequence[tuple[Pattern, str]] = ()
    """What is replaced in names, one after the other."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The reports that a task wants to be read, and what they may change."""

    junit: Sequence[str] = ()
    """Patterns of paths, as for artifacts."""
    log: LogTests | None = None
    coverage: Pattern | None = None
    """With the group ``percent``, in which the first number is meant; of several lines the last counts."""
    annotations: Pattern | None = None
    """With the groups ``file`` and ``text``, and perhaps ``line`` and ``level``."""
    is_missing_bad: bool = False
    """Whether a task that passed fails where no file is there."""
    exit_statuses: Sequence[int] = ()
    """With these, it is the tests that decide."""

    @property
    def listens(self) -> bool:
        """Whether lines of the log are wanted."""
        return any((self.log, self.coverage, self.annotations))


def asked(reports: Mapping[str, Any]) -> Asked:
    """What a task's ``reports`` asks for, which fits its schema; Invalid names all that is wrong with it otherwise."""
    wrong = [*problems(reports)]
    if wrong:
        raise Invalid("; ".join(f"{place}: {problem}" for place, problem in wrong))
    log = reports.get("log")
    return Asked(
        tuple(reports.get("junit", ())),
        _log_tests(log) if log else None,
        Pattern(reports["coverage"], ["percent"]) if "coverage" in reports else None,
        Pattern(reports["annotations"], ["file", "text"]) if "annotations" in reports else None,
        reports.get("missing") == "fail",
        tuple(reports.get("exit_statuses", ())),
    )


def problems(reports: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with the expressions of a task's ``reports``, each with its place."""
    log = reports.get("log", {})
    wanted: list[tuple[str, str, Sequence[str]]] = [
        ("coverage", reports.get("coverage", ""), ["percent"]),
        ("annotations", reports.get("annotations", ""), ["file", "text"]),
        ("log.result", log.get("result", ""), ["name", "result"]),
        ("log.suite", log.get("suite", ""), ["suite"]),
        *((f"log.rename[{at}].pattern", each.get("pattern", ""), ()) for at, each in enumerate(log.get("rename", ()))),
    ]
    for place, text, groups in wanted:
        try:
            if text:
                Pattern(text, groups)
        except Invalid as error:
            yield place, str(error)


def _log_tests(log: Mapping[str, Any]) -> LogTests:
    own = {word.lower(): CaseOutcome(meant) for word, meant in log.get("results", {}).items()}
    return LogTests(
        Pattern(log["result"], ["name", "result"]),
        Pattern(log["suite"], ["suite"]) if "suite" in log else None,
        {**RESULTS, **own},
        [(Pattern(each["pattern"]), each["by"]) for each in log.get("rename", ())],
    )
