"""Tests and annotations of builds, what other systems tell of them, and the tests that are in quarantine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

from distci.access import Action
from distci.app import DistCI
from distci.build_reports import BUILDS_LOOKED_AT, BUILDS_LOOKED_AT_MAX, LATE_BYTES_MAX, Told
from distci.frontend import bodies
from distci.frontend.builds import BUILD
from distci.frontend.endpoint import CURSOR, REASON, Answer, Call, Endpoint, Parameter, Returns, limit
from distci.frontend.paging import number_of, page
from distci.frontend.threads import Threads
from distci.model import Json
from distci.reports.results import CaseOutcome
from distci.views import to_json

JOB = "/jobs/{job}/-"
XML = "application/xml"

OUTCOME = Parameter("outcome", {"enum": ["", *CaseOutcome], "default": ""}, "Only those that ended so; all by default.")
TASK = Parameter("task", {"type": "string", "default": "", "maxLength": 300}, "Only those of this task.")
BUILDS = Parameter(
    "builds",
    {"type": "integer", "minimum": 1, "maximum": BUILDS_LOOKED_AT_MAX, "default": BUILDS_LOOKED_AT},
    "How many of the latest builds are looked at.",
)
TEST = Parameter("test", {"type": "string", "minLength": 1, "maxLength": 400}, "Its name.", is_required=True)


def list_reports(call: Call) -> Answer:
    return _numbered(call, call.system.reports.list(call.build))


def list_tests(call: Call) -> Answer:
    query = call.query
    after = number_of(query["cursor"]) or 0
    found = call.system.reports.cases(call.build, outcome=query["outcome"], task=query["task"], after=after)
    return page(call, found, lambda told: str(told.position))


def list_annotations(call: Call) -> Answer:
    found = call.system.reports.annotations(call.build)
    return _numbered(call, [{"task": task, "annotation": to_json(annotation)} for task, annotation in found])


def list_flaky_tests(call: Call) -> Answer:
    return _numbered(call, call.system.reports.flaky(call.job, call.query["builds"]))


def list_quarantined(call: Call) -> Answer:
    return _numbered(call, call.system.quarantine.list(call.job))


def put_in_quarantine(call: Call) -> Answer:
    return Answer(call.system.quarantine.put(call.job, **call.body, actor=call.actor))


def release(call: Call) -> Answer:
    test = call.query["test"]
    call.system.quarantine.remove(call.job, test, reason=call.query["reason"], actor=call.actor)
    return Answer({"job": call.job, "test": test, "is_released": True})


class Intake:
    """Takes in what other systems tell of tasks."""

    def __init__(self, system: DistCI, threads: Threads) -> None:
        self._reports = system.reports
        self._threads = threads

    async def put_report(self, call: Call) -> Answer:
        build, task, source = call.build, call.path["task"], call.path["source"]

        def put(file: BinaryIO) -> Told:
            return self._reports.put(build, task, source, file.read())

        return Answer(await bodies.take_in(call.request, self._threads, LATE_BYTES_MAX, put))


def _numbered(call: Call, items: Sequence[object]) -> Answer:
    """A page of what is all at hand."""
    after = number_of(call.query["cursor"]) or 0
    numbered: Iterator[tuple[int, object]] = iter([*enumerate(items, 1)][after:])

    def shown(each: tuple[int, object]) -> Json:
        return to_json(each[1])

    return page(call, numbered, lambda each: str(each[0]), shown)


_PAGED = (limit(100), CURSOR)

ENDPOINTS: Sequence[Endpoint] = (
    Endpoint(
        "GET",
        f"{BUILD}/reports",
        "list_reports",
        "List what the reports of a build's tasks come to",
        list_reports,
        Action.READ,
        {200: Returns("A page of them, in the order of the tasks.", "report-page", headers=("ETag", "Link"))},
        _PAGED,
        is_verbatim=True,
        tag="reports",
    ),
    Endpoint(
        "GET",
        f"{BUILD}/tests",
        "list_tests",
        "List the tests of a build",
        list_tests,
        Action.READ,
        {200: Returns("A page of them, in the order of the reports.", "test-page", headers=("ETag", "Link"))},
        (OUTCOME, TASK, *_PAGED),
        is_verbatim=True,
        tag="reports",
    ),
    Endpoint(
        "GET",
        f"{BUILD}/annotations",
        "list_annotations",
        "List what tools have said of lines of files",
        list_annotations,
        Action.READ,
        {200: Returns("A page of them.", "annotation-page", headers=("ETag", "Link"))},
        _PAGED,
        is_verbatim=True,
        tag="reports",
    ),
    Endpoint(
        "GET",
        f"{JOB}/flaky-tests",
        "list_flaky_tests",
        "List the tests that have both passed and failed with the same inputs",
        list_flaky_tests,
        Action.READ,
        {200: Returns("A page of them; those that failed most come first.", "flaky-page", headers=("ETag", "Link"))},
        (BUILDS, *_PAGED),
        is_verbatim=True,
        tag="reports",
    ),
    Endpoint(
        "GET",
        f"{JOB}/quarantine",
        "list_quarantined_tests",
        "List the tests of a job that are in quarantine, or were",
        list_quarantined,
        Action.READ,
        {200: Returns("A page of them, by name.", "quarantine-page", headers=("ETag", "Link"))},
        _PAGED,
        is_verbatim=True,
        tag="reports",
        needs_tree=False,
    ),
    Endpoint(
        "PUT",
        f"{JOB}/quarantine",
        "put_test_in_quarantine",
        "Let the failures of a test count for nothing for a while",
        put_in_quarantine,
        Action.QUARANTINE,
        {200: Returns("It is in quarantine.", "quarantined")},
        body="quarantine-wanted",
        is_verbatim=True,
        tag="reports",
        description="In place of what was said of it before. Asking again does no harm.",
        needs_tree=False,
    ),
    Endpoint(
        "DELETE",
        f"{JOB}/quarantine",
        "release_test",
        "Let a test count again",
        release,
        Action.QUARANTINE,
        {200: Returns("It counts again.", "test-released")},
        (TEST, REASON),
        is_verbatim=True,
        tag="reports",
        needs_tree=False,
    ),
)


def endpoints(intake: Intake) -> Sequence[Endpoint]:
    return (
        Endpoint(
            "PUT",
            f"{BUILD}/tasks/{{task}}/reports/{{source}}",
            "put_report",
            "Add what another system tells of a task that is over",
            intake.put_report,
            Action.REPORT,
            {200: Returns("What it comes to.", "report")},
            takes=XML,
            is_verbatim=True,
            tag="reports",
            description="JUnit XML. How the task and its build ended stays as it is. Reports never change: another one of the same source gets 409. May be repeated.",
        ),
    )
