"""Test cases, annotations, coverage: gathered, counted, summed up."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from distci.model import Json

CASES_MAX = 200_000
ANNOTATIONS_MAX = 1000
PROBLEMS_MAX = 20

NAME_CHARS_MAX = 400
MESSAGE_CHARS_MAX = 300
TEXT_CHARS_MAX = 8 * 1024
"""Of what a failed test has said; its log has the rest."""
TEXTS_CHARS_MAX = 16 * 1024 * 1024
"""Of what all failed tests of a report have said: those that come later have no more than a message."""

FAILING_SHOWN_MAX = 50
ANNOTATIONS_SHOWN_MAX = 20
"""How many a summary has; the report has all of them."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What may do something to whoever shows a text: terminals, and the order that letters are shown in."""


class CaseOutcome(StrEnum):
    """How a test ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


class Level(StrEnum):
    """How much an annotation matters."""

    ERROR = "error"
    WARNING = "warning"
    NOTICE = "notice"


@dataclass(frozen=True, slots=True)
class Case:
    """One test that ran, or was left out."""

    name: str
    """Which test it is, the same from build to build: ``tests.test_hello::test_greeting``."""
    outcome: CaseOutcome
    duration_ms: int = 0
    message: str = ""
    """Why it failed or was skipped, in a line."""
    text: str = ""
    """What it said when it failed."""
    origin: str = ""
    """The file of the workspace that tells of it, or ``log``."""
    is_flaky: bool = False
    """Whether the same run has it both passed and failed."""
    is_quarantined: bool = False
    """Whether somebody has said that its failure counts for nothing for now."""

    @property
    def counts_as_failed(self) -> bool:
        return self.outcome is CaseOutcome.FAILED and not self.is_quarantined


@dataclass(frozen=True, slots=True)
class Annotation:
    """Something that a tool says of a line of a file."""

    file: str
    line: int
    """From 1; 0 for the whole file."""
    level: Level
    text: str


@dataclass(frozen=True, slots=True)
class Failing:
    """A failed test as a summary has it."""

    name: str
    message: str = ""
    is_quarantined: bool = False


@dataclass(frozen=True, slots=True)
class Summary:
    """What a build's record has of a report: a few kilobytes, however much there was."""

    tests: int = 0
    passed: int = 0
    failed: int = 0
    """Those that count; what is in quarantine is not among them."""
    skipped: int = 0
    quarantined: int = 0
    """Failed ones that are in quarantine."""
    flaky: int = 0
    duration_ms: int = 0
    coverage: float | None = None
    """In percent; None where nothing told."""
    failing: Sequence[Failing] = ()
    """The first of them, those that count before those in quarantine."""
    annotations: int = 0
    first_annotations: Sequence[Annotation] = ()
    problems: Sequence[str] = ()
    """What could not be read, and why."""


@dataclass(slots=True)
class Report:
    """What is gathered of a task's reports. One thread uses it."""

    cases: list[Case] = field(default_factory=list)
    annotations: list[Annotation] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    coverage: float | None = None

    def problem(self, text: str) -> None:
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(line_of(text, MESSAGE_CHARS_MAX))

    def counted(self, quarantined: Callable[[str], bool]) -> Report:
        """The same with what is flaky and what is in quarantine marked as such."""
        outcomes: dict[CaseOutcome, set[str]] = {outcome: set() for outcome in CaseOutcome}
        for case in self.cases:
            outcomes[case.outcome].add(case.name)
        both = outcomes[CaseOutcome.PASSED] & outcomes[CaseOutcome.FAILED]
        marked = [
            replace(
                case,
                is_flaky=case.is_flaky or case.name in both,
                is_quarantined=case.outcome is CaseOutcome.FAILED and quarantined(case.name),
            )
            if case.outcome is CaseOutcome.FAILED or case.name in both
            else case
            for case in self.cases
        ]
        return Report(marked, self.annotations, self.problems, self.coverage)

    def summary(self) -> Summary:
        failed = [case for case in self.cases if case.outcome is CaseOutcome.FAILED]
        shown = sorted(failed, key=lambda case: case.is_quarantined)[:FAILING_SHOWN_MAX]
        quarantined = sum(case.is_quarantined for case in failed)
        return Summary(
            tests=len(self.cases),
            passed=sum(case.outcome is CaseOutcome.PASSED for case in self.cases),
            failed=len(failed) - quarantined,
            skipped=sum(case.outcome is CaseOutcome.SKIPPED for case in self.cases),
            quarantined=quarantined,
            flaky=len({case.name for case in self.cases if case.is_flaky}),
            duration_ms=sum(case.duration_ms for case in self.cases),
            coverage=self.coverage,
            failing=[Failing(case.name, case.message, case.is_quarantined) for case in shown],
            annotations=len(self.annotations),
            first_annotations=self.annotations[:ANNOTATIONS_SHOWN_MAX],
            problems=self.problems,
        )


def shortened(told: Mapping[str, Json], chars_max: int) -> dict[str, Json]:
    """A summary in its JSON form with as much of its lists as fits into so many characters; its counts stay."""
    kept = {name: value for name, value in told.items() if not isinstance(value, list)}
    left = chars_max
    for name in ("problems", "failing", "first_annotations"):
        shown: list[Json] = []
        items = told.get(name)
        for item in items if isinstance(items, list) else ():
            left -= len(json.dumps(item))
            if left < 0:
                break
            shown.append(item)
        kept |= {name: shown} if shown else {}
    return kept


def text_of(text: str, most: int) -> str:
    """A text as it is kept: without what does something to terminals, and cut."""
    cut = text if len(text) <= most else text[: most - 1] + "…"
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", cut)


def line_of(text: str, most: int) -> str:
    """The first line of a text that says something, as it is kept."""
    if len(text) <= most and text.isprintable():
        return text.strip()  # as nearly all are, and there are many
    return text_of(next(filter(None, map(str.strip, text.splitlines())), ""), most)


def milliseconds(seconds: str) -> int:
    """A duration as reports tell it; 0 for what is none."""
    try:
        # Surefire groups thousands.
        value = float(seconds.replace(",", ""))
    except ValueError:
        return 0
    return int(value * 1000) if math.isfinite(value) and 0 <= value < 10**9 else 0


def added(summaries: Iterable[Summary]) -> Summary:
    """Several as one: of a build's tasks, say. Coverage is told of each alone."""
    total = Summary()
    for each in summaries:
        failing = sorted((*total.failing, *each.failing), key=lambda one: one.is_quarantined)
        total = Summary(
            tests=total.tests + each.tests,
            passed=total.passed + each.passed,
            failed=total.failed + each.failed,
            skipped=total.skipped + each.skipped,
            quarantined=total.quarantined + each.quarantined,
            flaky=total.flaky + each.flaky,
            duration_ms=total.duration_ms + each.duration_ms,
            failing=failing[:FAILING_SHOWN_MAX],
            annotations=total.annotations + each.annotations,
            first_annotations=(*total.first_annotations, *each.first_annotations)[:ANNOTATIONS_SHOWN_MAX],
            problems=(*total.problems, *each.problems)[:PROBLEMS_MAX],
        )
    return total


def in_words(summary: Summary) -> str:
    """``120 tests, 3 failed, 1 skipped, coverage 81.5 %``; empty where there is nothing to tell."""
    return ", ".join(_words(summary))


def _words(summary: Summary) -> Iterator[str]:
    if summary.tests:
        yield "1 test" if summary.tests == 1 else f"{summary.tests} tests"
    counts: Mapping[str, int] = {
        "failed": summary.failed,
        "quarantined": summary.quarantined,
        "skipped": summary.skipped,
        "flaky": summary.flaky,
    }
    yield from (f"{count} {what}" for what, count in counts.items() if count)
    if summary.coverage is not None:
        yield f"coverage {summary.coverage:g} %"
    if summary.annotations:
        yield f"{summary.annotations} annotations" if summary.annotations > 1 else "1 annotation"
    if summary.problems:
        yield f"{len(summary.problems)} not read"
