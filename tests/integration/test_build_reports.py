"""What the tests of a task come to, on record of its build; quarantine, flaky tests, and what other systems tell later."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from integration.conftest import System
from waiting import wait_until

from distci.errors import AlreadyExists, IllegalTransition, Invalid, NoSuchTask
from distci.model import TaskState
from distci.quarantine import DAY_MS, Quarantine
from distci.reports.results import CaseOutcome
from distci.store import keys

XML = """<testsuites><testsuite name="pytest"><testcase classname="tests.test_a" name="test_good" time="0.25"/>
<testcase classname="tests.test_a" name="test_bad" time="1.5"><failure message="assert 1 == 2">trace</failure></testcase></testsuite></testsuites>"""
LATE = (
    b'<testsuite name="lab"><testcase name="boots" time="3.5"/><testcase name="halts"><failure/></testcase></testsuite>'
)
BAD = "tests.test_a::test_bad"


def writes(xml: str, status: int = 0, more: str = "", **reports: Any) -> dict[str, Any]:
    script = f"cat > report.xml <<'END'\n{xml}\nEND\n{more}\nexit {status}"
    return {"name": "test", "type": "shell", "script": script, "reports": {"junit": ["report.xml"], **reports}}


def test_o5_a_build_has_on_record_what_its_tests_came_to(system: System) -> None:
    view = system.run_tasks(writes(XML, 1))

    (told,) = system.ci.reports.list(view.id)
    assert view.task("test").state is TaskState.FAILED
    assert view.task("test").reason == "exit status 1"
    assert (told.task, told.source, told.summary.tests, told.summary.failed) == ("test", "", 2, 1)
    assert [(each.name, each.message) for each in told.summary.failing] == [(BAD, "assert 1 == 2")]
    found = [*system.ci.reports.cases(view.id, outcome="failed")]
    assert [(each.position, each.case.name, each.case.text, each.case.duration_ms) for each in found] == [
        (2, BAD, "trace", 1500)
    ]
    with pytest.raises(NoSuchTask):
        system.ci.reports.cases(view.id, task="none")


def test_o5_what_cannot_be_read_is_told_and_leaves_the_verdict_alone(system: System) -> None:
    bomb = '<!DOCTYPE a [<!ENTITY b "b">]><testsuite/>'
    task = writes(
        bomb, more="ln -s /etc/passwd link.xml; mkfifo pipe.xml", junit=["link.xml", "[pr]*.xml", "none/*.xml"]
    )
    view = system.run_tasks(task)

    (told,) = system.ci.reports.list(view.id)
    assert view.task("test").state is TaskState.PASSED
    assert [problem.partition(", which")[0] for problem in told.summary.problems] == [
        "path 'link.xml' leads outside through the symbolic link 'link.xml' to '/etc/passwd'",
        "no file matches 'none/*.xml'",
        "report.xml:1:13: a document type declaration",
    ]
    assert "distci: reports: no file matches 'none/*.xml'" in system.log(view, "test")
    missing = system.run_tasks({**writes(XML, junit=["none.xml"], missing="fail")})
    assert system.failure(missing, "test") == "no file matches 'none.xml'"


def test_a_line_that_comes_in_pieces_is_read_whole_whatever_is_said_between_them(system: System) -> None:
    view = system.run_tasks(
        {
            "name": "test",
            "type": "shell",
            "script": "printf 'slow ... '; sleep 2; echo ok",
            "diagnose_after": "200ms",
            "reports": {"log": {"result": r"^(?P<name>\S+) \.\.\. (?P<result>\w+)$"}},
        }
    )

    assert "slow ... distci: nothing was printed for 0.2 s" in system.log(view, "test")
    assert [each.case.name for each in system.ci.reports.cases(view.id)] == ["slow"]


def test_o5_lines_of_the_log_tell_of_tests_coverage_and_annotations_and_no_secret_is_in_them(system: System) -> None:
    task = {
        "name": "test",
        "type": "shell",
        "script": 'printf "ok a/17/$TOKEN\\nnot ok b\\n"; echo "x.c:3: warning: $TOKEN"; printf "TOTAL 81.5%%"',
        "secrets": ["TOKEN"],
        "reports": {
            "log": {"result": r"^(?P<result>not ok|ok) (?P<name>\S+)", "rename": [{"pattern": r"/\d+/", "by": "/"}]},
            "annotations": r"^(?P<file>\S+):(?P<line>\d+): (?P<level>\w+): (?P<text>.*)",
            "coverage": r"^TOTAL (?P<percent>[\d.]+)%",
        },
    }
    view = system.run_tasks(task)

    (told,) = system.ci.reports.list(view.id)
    assert [(each.case.name, each.case.outcome) for each in system.ci.reports.cases(view.id)] == [
        ("a/***", CaseOutcome.PASSED),
        ("b", CaseOutcome.FAILED),
    ]
    assert [(name, each.file, each.line, each.text) for name, each in system.ci.reports.annotations(view.id)] == [
        ("test", "x.c", 3, "***")
    ]
    assert (told.summary.coverage, view.state) == (81.5, "passed")


def test_an_expression_that_no_line_matches_is_told_in_the_log_and_changes_nothing(system: System) -> None:
    reports = {"coverage": "coverage (?P<percent>[0-9]+)%", "log": {"result": r"^(?P<result>ok) (?P<name>\S+)"}}
    task = {"name": "test", "type": "shell", "script": "echo ok a; echo covered 3%", "reports": reports}
    view = system.run_tasks(task)
    assert view.state == "passed"
    told = [line for line in system.log(view, "test").splitlines() if line.startswith("distci: reports: ")]
    assert told == ["distci: reports: no line matches `coverage`"]


def test_what_a_task_has_told_before_its_time_was_up_is_kept(system: System) -> None:
    task = {**writes(XML, more="sleep 60"), "timeout": "1s"}
    view = system.run_tasks(task)
    (told,) = system.ci.reports.list(view.id)
    assert (view.task("test").state, told.summary.tests) == (TaskState.TIMED_OUT, 2)


def test_a_task_whose_failed_tests_are_all_in_quarantine_passes_until_that_is_over(system: System) -> None:
    ci, task = system.ci, writes(XML, 1, exit_statuses=[1])
    assert system.failure(system.run_tasks(task), "test") == f"1 test failed: {BAD}"

    put = ci.quarantine.put("team/job", "tests.test_a::*", owner="ada@example.org", days=3, reason="slow", actor="bob")
    view = system.run_tasks(task)
    (told,) = ci.reports.list(view.id)
    assert (view.state, view.task("test").reason) == (
        "passed",
        "exit status 1, for 1 test in quarantine and no other",
    )
    assert (told.summary.failed, told.summary.quarantined) == (0, 1)
    assert [each.case.is_quarantined for each in ci.reports.cases(view.id, outcome="failed")] == [True]
    [entry] = [entry for entry in ci.audit.list() if entry.what == "quarantine.put"]
    assert (entry.who, entry.target, entry.reason, entry.details["owner"]) == (
        *("bob", "team/job", "slow"),
        "ada@example.org",
    )

    # As it was put, only long ago.
    long_ago = Quarantine(ci.store, clock=lambda: (put.set_ms - 4 * DAY_MS) / 1000)
    long_ago.put("team/job", "tests.test_a::*", owner="ada@example.org", days=3)
    assert system.failure(system.run_tasks(task), "test") == f"1 test failed: {BAD}"
    assert [each.is_over for each in ci.quarantine.list("team/job")] == [True]
    ci.quarantine.remove("team/job", "tests.test_a::*")
    assert [*ci.quarantine.list("team/job")] == []


def test_a_build_of_many_tasks_with_many_failed_tests_can_be_read(system: System) -> None:
    name = "n" * 300
    script = f'for n in $(seq 100); do echo "FAIL {name}$n"; done'
    log = {"result": r"^(?P<result>FAIL) (?P<name>\S+)"}
    task = {"name": "test", "type": "shell", "script": script, "reports": {"log": log}}
    view = system.run_tasks({**task, "matrix": {"n": [str(n) for n in range(40)]}})

    assert len(system.ci.store.get(keys.build_record(view.id))) < 400_000
    assert [told.summary.failed for told in system.ci.reports.list(view.id)] == [100] * 40
    assert all(told.summary.failing for told in system.ci.reports.list(view.id))


def test_o6_a_test_that_ends_otherwise_with_the_same_inputs_is_flaky(system: System, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    task = writes(
        '<testsuite name="s"><testcase name="wobbles"/><testcase name="stands"/></testsuite>',
        more=f"if test -e {bad}; then sed -i 's|wobbles\"/>|wobbles\"><failure/></testcase>|' report.xml; fi",
    )
    document = {"job": "team/job", "tasks": [task], "parameters": {"A": {"default": "1"}}}
    bad.touch()
    system.run(document, parameters={"A": "2"})
    failed = system.run(document)
    bad.unlink()
    assert system.ci.reports.flaky("team/job") == []
    system.run(document)
    system.run(document)

    [flaky] = system.ci.reports.flaky("team/job")
    assert (flaky.test, flaky.task, flaky.failed, flaky.passed) == ("s::wobbles", "test", 1, 2)
    assert flaky.last_failed == failed.id
    assert system.ci.reports.flaky("team/job", 2) == []


def test_what_another_system_tells_later_is_there_once_and_changes_no_record(system: System) -> None:
    view = system.run_tasks(writes(XML))
    record = system.ci.store.get(keys.build_record(view.id))

    for _ in range(2):
        told = system.ci.reports.put(view.id, "test", "lab", LATE)
    with pytest.raises(AlreadyExists, match="lab has told something else of task test of team/job#1"):
        system.ci.reports.put(view.id, "test", "lab", LATE.replace(b"boots", b"starts"))
    with pytest.raises(Invalid, match=r"^lab:1:1: <html> is no JUnit report"):
        system.ci.reports.put(view.id, "test", "lab", b"<html/>")

    assert (told.summary.passed, told.summary.failed) == (1, 1)
    assert [(each.source, each.summary.tests) for each in system.ci.reports.list(view.id)] == [("", 2), ("lab", 2)]
    assert [(each.source, each.position, each.case.name) for each in system.ci.reports.cases(view.id, after=2)] == [
        ("lab", 3, "lab::boots"),
        ("lab", 4, "lab::halts"),
    ]
    assert system.ci.store.get(keys.build_record(view.id)) == record
    wait_until(lambda: "report.put" in [entry.what for entry in system.ci.audit.list()])
    [entry, *_] = [entry for entry in system.ci.audit.list() if entry.what == "report.put"]
    assert (entry.target, entry.details["task"], entry.details["source"]) == ("team/job#1", "test", "lab")


def test_what_another_system_tells_of_a_task_that_goes_on_is_refused(system: System) -> None:
    system.ci.jobs.put({"job": "team/held", "tasks": [{**writes(XML), "labels": ["gpu=*"]}]})
    build = system.ci.builds.trigger("team/held")
    with pytest.raises((IllegalTransition, NoSuchTask)):
        system.ci.reports.put(build, "test", "lab", LATE)
    system.ci.builds.cancel(build)


@pytest.mark.parametrize("wrong", ["before", "after"])
def test_a_store_that_is_away_is_waited_for_and_never_means_that_there_were_no_tests(
    start_system: Callable[..., System], monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    from distci.stored_reports import StoredReports
    from distci.testing import LossyStore

    system = start_system()
    line, real = LossyStore(system.ci.store), StoredReports.put
    failures = iter([wrong] * 3)
    line.fails = lambda: next(failures, "")

    def put(self: StoredReports, *args: Any) -> None:
        real(StoredReports(line), *args)

    monkeypatch.setattr(StoredReports, "put", put)
    view = system.run_tasks(writes(XML, 1))

    assert len(line.put_keys) == 4
    assert system.failure(view, "test") == "exit status 1"
    assert [each.summary.tests for each in system.ci.reports.list(view.id)] == [2]
    assert len([*system.ci.reports.cases(view.id)]) == 2
