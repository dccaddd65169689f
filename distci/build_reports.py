"""What the reports of builds tell: those of their tasks, and those that other systems send of tasks that are over."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import count
from typing import BinaryIO

from distci import stored_reports
from distci.builds import Builds, BuildView, TaskView
from distci.errors import AlreadyExists, IllegalTransition, Invalid, InvalidDocument, NoSuchObject
from distci.jobs import Jobs
from distci.model import BuildId, Json
from distci.reports import junit
from distci.reports.results import Annotation, Case, CaseOutcome, Report, Summary
from distci.store.port import Store
from distci.stored_reports import StoredReports
from distci.views import from_json

LATE_BYTES_MAX = 16 * 1024 * 1024
LATE_MAX = 50
"""How many reports other systems may send of one build."""

BUILDS_LOOKED_AT = 50
BUILDS_LOOKED_AT_MAX = 200

_SOURCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Told:
    """What one report comes to."""

    task: str
    source: str
    """The system that has sent it once the task was over; empty for the task's own."""
    summary: Summary


@dataclass(frozen=True, slots=True)
class ToldCase:
    """A test of a build, and where it is told of."""

    task: str
    source: str
    position: int
    """Among all tests of the build, from 1."""
    case: Case


@dataclass(frozen=True, slots=True)
class Flaky:
    """A test that has both passed and failed with the same inputs: commit, version of the job, parameters."""

    task: str
    test: str
    passed: int
    """How often, in runs whose inputs had it do both."""
    failed: int
    last_failed: BuildId
    commit: str = ""
    """Of the latest such runs; empty where none was checked out."""


@dataclass(slots=True)
class _Seen:
    """What became of one test in runs with the same inputs."""

    counts: Counter[CaseOutcome] = field(default_factory=Counter)
    last_failed: BuildId | None = None
    is_flaky: bool = False


class Reports:
    """The reports of the builds of one system. Any thread may use it."""

    def __init__(self, builds: Builds, jobs: Jobs, store: Store) -> None:
        self._builds = builds
        self._jobs = jobs
        self._stored = StoredReports(store)

    def list(self, build: BuildId | str) -> Sequence[Told]:
        """What each report of a build comes to, in the order of its tasks; NoSuchBuild when there is none of that number.

        >>> ci.reports.list("docs/hello#1")
        []
        """
        return self._all(self._builds.get(build))

    def cases(self, build: BuildId | str, *, outcome: str = "", task: str = "", after: int = 0) -> Iterator[ToldCase]:
        """The tests of a build, perhaps only those with that outcome or of that task, and those behind position ``after``.

        NoSuchBuild, NoSuchTask, and Invalid for an outcome that no test has.

        >>> [*ci.reports.cases("docs/hello#1", outcome="failed")]
        []
        """
        check_outcome(outcome)
        view = self._builds.get(build)
        if task:
            view.task(task)
        return self._cases(view, outcome, task, after)

    def annotations(self, build: BuildId | str) -> Iterator[tuple[str, Annotation]]:
        """What tools have said of lines of files, each with its task; NoSuchBuild.

        >>> [*ci.reports.annotations("docs/hello#1")]
        []
        """
        view = self._builds.get(build)
        for told in self._all(view):
            if told.summary.annotations:
                with self._opened(view, told) as stream:
                    for each in stored_reports.read(stream):
                        if not isinstance(each, Annotation):
                            break
                        yield told.task, each

    def put(self, build: BuildId | str, task: str, source: str, data: bytes) -> Told:
        """Add what another system, ``source``, tells of a task that is over: JUnit XML. How the task and its build ended stays. May be repeated.

        Raises NoSuchBuild, NoSuchTask, IllegalTransition while the task goes on, AlreadyExists where that source has told something
        else of it, and Invalid for what cannot be read, naming line and column, and when a build has taken as many as it may.

        >>> xml = b'<testsuite name="lab"><testcase name="boots" time="3.5"/></testsuite>'
        >>> ci.reports.put("docs/hello#1", "say", "lab", xml).summary.passed
        1
        """
        if not isinstance(source, str) or not _SOURCE.fullmatch(source):
            raise Invalid(f"source: {source!r} must be a letter or digit, then up to 63 letters, digits, '.', '_', '-'")
        if len(data) > LATE_BYTES_MAX:
            raise Invalid(f"the report has {len(data)} bytes; at most {LATE_BYTES_MAX} are taken")
        view = self._builds.get(build)
        found = view.task(task)
        if not found.state.is_final:
            raise IllegalTransition(
                f"task {task} of {view.id} is {found.state}; what others tell of it is taken once it is over"
            )
        late = self._stored.late(view.id)
        if (task, source) not in late and len(late) >= LATE_MAX:
            raise Invalid(f"{view.id} has {LATE_MAX} reports of other systems, and takes no more")
        # Of quarantine it knows nothing: it decides nothing, and sent again it has to be the same.
        cases = junit.read(data, source, junit.Mask(), lambda: None)
        written = stored_reports.write(Report(cases).counted(lambda name: False))
        if self._stored.put_late(view.id, task, source, written) != written:
            raise AlreadyExists(
                f"{source} has told something else of task {task} of {view.id}, and reports never change"
            )
        return self._late(view.id, task, source)

    def flaky(self, job: str, builds: int = BUILDS_LOOKED_AT) -> Sequence[Flaky]:
        """The tests that have both passed and failed with the same inputs in so many latest builds of a job; those that failed most come first.

        Raises NoSuchJob, and Invalid for a number of builds that is not from 1 to 200.

        >>> ci.reports.flaky("docs/hello")
        []
        """
        if not isinstance(builds, int) or not 1 <= builds <= BUILDS_LOOKED_AT_MAX:
            raise Invalid(f"builds: {builds!r} is not from 1 to {BUILDS_LOOKED_AT_MAX}")
        self._jobs.get(job)
        runs: dict[tuple[Json, ...], list[tuple[BuildView, Told, str]]] = {}
        for view in self._builds.list(job, limit=builds):
            for task in view.tasks:
                for attempt in () if task.origin else task.attempts[::-1]:
                    summary = summary_of(attempt)
                    if summary and summary.tests:
                        told = Told(task.name, "", summary)
                        runs.setdefault(_inputs(view, task, attempt), []).append((view, told, str(attempt["token"])))
        found: dict[tuple[str, str], Flaky] = {}
        for (task_name, commit, *_), same in runs.items():
            for name, seen in self._seen(same).items():
                if seen.is_flaky and seen.last_failed:
                    known = found.get((str(task_name), name))
                    found[str(task_name), name] = Flaky(
                        str(task_name),
                        name,
                        seen.counts[CaseOutcome.PASSED] + (known.passed if known else 0),
                        seen.counts[CaseOutcome.FAILED] + (known.failed if known else 0),
                        known.last_failed if known else seen.last_failed,
                        known.commit if known else str(commit),
                    )
        return sorted(found.values(), key=lambda each: (-each.failed, each.task, each.test))

    def _seen(self, runs: Sequence[tuple[BuildView, Told, str]]) -> Mapping[str, _Seen]:
        """What became of tests in runs with the same inputs, the latest first; of those alone that some run has failed or calls flaky."""
        if not any(told.summary.flaky or told.summary.failed or told.summary.quarantined for _, told, _ in runs):
            return {}
        wanted: dict[str, _Seen] = {}
        # Whoever failed anywhere, then what became of them everywhere.
        for is_first_look in (True, False):
            for view, told, token in runs:
                for case in self._cases_of(view.id, told.task, token):
                    if is_first_look and (case.is_flaky or case.outcome is CaseOutcome.FAILED):
                        wanted.setdefault(case.name, _Seen())
                    elif not is_first_look and (seen := wanted.get(case.name)):
                        seen.counts[case.outcome] += 1
                        seen.is_flaky |= case.is_flaky
                        if case.is_flaky or case.outcome is CaseOutcome.FAILED:
                            seen.last_failed = seen.last_failed or view.id
        for seen in wanted.values():
            seen.is_flaky |= bool(seen.counts[CaseOutcome.PASSED] and seen.counts[CaseOutcome.FAILED])
        return wanted

    def _all(self, view: BuildView) -> Sequence[Told]:
        late = self._stored.late(view.id)
        found = []
        for task in view.tasks:
            summary = summary_of(task.attempts[-1]) if task.state.is_final and task.attempts else None
            if summary:
                found.append(Told(task.name, "", summary))
            found += [self._late(view.id, name, source) for name, source in late if name == task.name]
        return found

    def _late(self, build: BuildId, task: str, source: str) -> Told:
        with self._stored.open_late(build, task, source) as stream:
            return Told(task, source, stored_reports.summary(stream))

    def _cases(self, view: BuildView, outcome: str, task: str, after: int) -> Iterator[ToldCase]:
        numbers = count(1)
        for told in self._all(view):
            if not told.summary.tests:
                continue
            with self._opened(view, told) as stream:
                for case, number in zip(stored_reports.cases(stream), numbers, strict=False):
                    if number > after and outcome in ("", case.outcome) and task in ("", told.task):
                        yield ToldCase(told.task, told.source, number, case)

    def _opened(self, view: BuildView, told: Told) -> AbstractContextManager[BinaryIO]:
        if told.source:
            return self._stored.open_late(view.id, told.task, told.source)
        task = view.task(told.task)
        return self._stored.open(BuildId.parse(task.origin) if task.origin else view.id, task.name, task.token)

    def _cases_of(self, build: BuildId, task: str, token: str) -> Iterator[Case]:
        try:
            with self._stored.open(build, task, token) as stream:
                yield from stored_reports.cases(stream)
        except NoSuchObject:
            return  # of a worker that counts and does not keep


def check_outcome(outcome: str) -> None:
    """Return if it is empty, or one that tests have; Invalid otherwise."""
    if outcome and outcome not in [*CaseOutcome]:
        raise Invalid(f"{outcome!r} is no outcome of a test; there are {', '.join(CaseOutcome)}")


def summary_of(attempt: Mapping[str, Json]) -> Summary | None:
    """What the reports of an attempt come to, by its record; None where it has none."""
    details = attempt.get("details")
    told = details.get("reports") if isinstance(details, Mapping) else None
    if told is None:
        return None
    try:
        return from_json(Summary, told)
    except InvalidDocument as error:
        return Summary(problems=[f"what the worker has put on record is no summary of reports: {error}"])


def _inputs(view: BuildView, task: TaskView, attempt: Mapping[str, Json]) -> tuple[Json, ...]:
    """What tells runs of a task apart whose tests may well end otherwise: its name and commit come first."""
    commit = attempt.get("commit") or view.trigger.commit
    given = {**view.trigger.presets, **view.trigger.parameters}
    return (task.name, str(commit), view.config, tuple(sorted(given.items())))
