"""Tests of builds over HTTP: of workers that reach nothing but front ends, and of other systems with a token for just that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from frontend.test_remote_workers import token_for, workers
from frontends import Api, Stage, problem, shell
from gateways import Lab
from waiting import wait_until

from distci import stored_reports
from distci.access import Action
from distci.model import TaskState
from distci.reports.results import Case, CaseOutcome, Report
from distci.views import to_json

XML = '<testsuite name="s">{}<testcase name="bad"><failure>no</failure></testcase></testsuite>'
REPORTS = {"junit": ["r.xml"], "exit_statuses": [1]}
BUILD = "/jobs/team/hello/-/builds/1"


def suite(count: int = 1, status: int = 1) -> dict[str, Any]:
    cases = "".join(f'<testcase name="t{number}"/>' for number in range(count))
    return shell(f"cat > r.xml <<'END'\n{XML.format(cases)}\nEND\nexit {status}", reports=REPORTS)


@pytest.fixture
def lab(local: Stage) -> Lab:
    return Lab(local)


def test_a_worker_behind_a_front_end_reads_reports_and_heeds_the_quarantine(local: Stage, tmp_path: Path) -> None:
    lab = Lab(local)
    api = lab.apis[0]
    with workers(tmp_path, token_for(local.ci), api.url, kinds=("shell",)):
        failed = local.end(lab.start(suite(150)))
        local.ci.quarantine.put("team/hello", "s::bad", owner="ada@example.org")
        passed = local.end(local.ci.builds.trigger("team/hello"))

    assert (failed.task("say").state, failed.task("say").reason) == (TaskState.FAILED, "1 test failed: s::bad")
    assert passed.task("say").state is TaskState.PASSED
    reader = Api(api.url, local.token)
    [report] = reader.all(f"{BUILD}/reports")
    assert (report["summary"]["tests"], report["summary"]["failed"]) == (151, 1)
    assert [item["position"] for item in reader.all(f"{BUILD}/tests", limit=40)] == [*range(1, 152)]
    assert [item["case"]["name"] for item in reader.all(f"{BUILD}/tests", outcome="failed")] == ["s::bad"]


def test_a_report_that_is_none_is_refused_and_one_that_is_handed_in_counts_with_the_attempt(lab: Lab) -> None:
    build = lab.start(shell("true"))
    hand = lab.claimed()
    data = stored_reports.write(Report([Case("a", CaseOutcome.PASSED)]))
    for broken in (b"", b"nonsense", data[:-5]):
        assert hand.call("PUT", "/report", data=broken).status_code in (400, 422)
    for _ in range(2):
        answer = hand.call("PUT", "/report", data=data)
        assert (answer.status_code, answer.json()["passed"]) == (200, 1)
    assert lab.stage.ci.reports.list(build) == []
    hand.complete(details={"reports": answer.json()})
    lab.stage.end(build)
    assert [told.case.name for told in lab.stage.ci.reports.cases(build)] == ["a"]
    assert hand.call("PUT", "/report", data=data).status_code == 409


def test_a_summary_that_is_none_spoils_no_build(lab: Lab) -> None:
    build = lab.start(shell("true"))
    lab.claimed().complete(details={"reports": {"tests": "many"}})
    lab.stage.end(build)
    [told] = lab.stage.ci.reports.list(build)
    assert told.summary.problems[0].startswith("what the worker has put on record is no summary")
    assert [*lab.stage.ci.reports.cases(build)] == []


def test_another_system_needs_no_more_than_the_right_to_report(local: Stage) -> None:
    api, _ = local.front_end()
    local.start_workers()
    local.ci.jobs.put({"job": "team/hello", "tasks": [suite(status=0)]})
    local.end(local.ci.builds.trigger("team/hello"))
    robot = Api(api.url, local.ci.access.create_token("lab", [Action.REPORT], project="team").text)
    late, told = f"{BUILD}/tasks/say/reports/lab", '<testsuite name="lab"><testcase name="boots"/></testsuite>'

    for _ in range(2):
        answer = robot.put(late, data=told)
        assert (answer.status_code, answer.json()["summary"]["passed"]) == (200, 1)
    problem(robot.put(late, data=told.replace("boots", "halts")), 409, "AlreadyExists")
    assert (
        "lab:1:1: a document type declaration" not in problem(robot.put(late, data="<html/>"), 422, "Invalid")["detail"]
    )
    problem(robot.put(f"{BUILD}/tasks/none/reports/lab", data=told), 404, "NoSuchTask")
    problem(robot.put(late, data=b"x" * (16 * 1024 * 1024 + 1)), 413, "Invalid")
    problem(robot.put("/jobs/team/hello/-/quarantine", json={"test": "a", "owner": "b"}), 403, "Forbidden")
    wait_until(lambda: "report.put" in [entry.what for entry in local.ci.audit.list()])
    entry = next(entry for entry in local.ci.audit.list() if entry.what == "report.put")
    assert (entry.target, entry.details["source"]) == ("team/hello#1", "lab")
    assert [item["source"] for item in api.all(f"{BUILD}/reports")] == ["", "lab"]


def test_what_is_put_in_quarantine_is_on_record_as_by_whose_token_it_is(local: Stage) -> None:
    api, _ = local.front_end()
    local.ci.jobs.put({"job": "team/hello", "tasks": [suite()]})
    made = local.ci.access.create_token("keeper", [Action.QUARANTINE], project="team")
    keeper, path = Api(api.url, made.text), "/jobs/team/hello/-/quarantine"

    put = keeper.put(path, json={"test": "s::bad", "owner": "ada@example.org", "reason": "slow"}).json()
    assert (put["test"], put["is_over"], made.record.id in put["set_by"]) == ("s::bad", False, True)
    problem(keeper.put(path, json={"test": "*", "owner": "ada"}), 422, "Invalid")
    problem(keeper.put(f"{BUILD}/tasks/say/reports/lab", data="<testsuite/>"), 403, "Forbidden")
    assert [to_json(each) for each in local.ci.quarantine.list("team/hello")] == api.all(path) == [put]
    assert keeper.delete(f"{path}?test=s::bad").json() == {"job": "team/hello", "test": "s::bad", "is_released": True}
    problem(keeper.delete(f"{path}?test=s::bad"), 404, "NoSuchTest")
