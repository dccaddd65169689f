"""Who may decide over HTTP of a task that waits for an approval: whom the job names, if they may start its builds."""

from __future__ import annotations

import pytest
import requests
from frontend.test_http_access import as_person
from frontends import Api, Stage, problem, shell
from waiting import wait_until

from distci.access import Action, Role

ASK = {"name": "ask", "type": "approval", "approvers": ["ada@example.org", "*@release.example.org"]}
DECISION = "/jobs/team/hello/-/builds/1/tasks/ask/decision"


@pytest.fixture
def waiting(local: Stage) -> Api:
    api, _ = local.front_end()
    local.start_workers()
    local.ci.jobs.put({"job": "team/hello", "tasks": [ASK, shell("true", "deploy")]})
    for name in ("ada@example.org", "eve@example.org", "kay@release.example.org"):
        local.ci.access.grant(name, Role.RUNNER, "team")
    local.ci.access.grant("max@release.example.org", Role.VIEWER, "team")
    local.ci.builds.trigger("team/hello")
    wait_until(lambda: [task.state for task in local.ci.builds.get("team/hello#1").tasks] == ["blocked", "waiting"])
    return api


def decide(local: Stage, api: Api, who: str, **body: object) -> requests.Response:
    shown = as_person(local, api, who)
    return requests.post(f"{api.url}/api/v1{DECISION}", json=body, headers=shown, timeout=30)


def test_whom_the_job_names_decides_and_nobody_else(waiting: Api, local: Stage) -> None:
    told = problem(decide(local, waiting, "eve@example.org", approve=True), 403, "Forbidden")
    assert told["detail"].endswith("that is for ada@example.org, *@release.example.org")
    # Named, but no right to start builds of the job.
    problem(decide(local, waiting, "max@release.example.org", approve=True), 403, "Forbidden")
    bare = local.ci.access.create_token("robot", [Action.TRIGGER]).text
    shown = {"Authorization": f"Bearer {bare}"}
    answer = requests.post(f"{waiting.url}/api/v1{DECISION}", json={"approve": True}, headers=shown, timeout=30)
    problem(answer, 403, "Forbidden")
    assert local.ci.builds.get("team/hello#1").task("ask").state == "blocked"

    answer = decide(local, waiting, "kay@release.example.org", approve=True, reason="tried")

    assert (answer.status_code, answer.json()["state"]) == (200, "passed")
    view = local.end("team/hello#1")
    assert (view.result, view.task("ask").reason) == ("passed", "approved by kay@release.example.org: tried")
    # It is put down afterwards.
    wait_until(lambda: "build.approve" in {entry.what for entry in local.ci.audit.list()})
    problem(decide(local, waiting, "ada@example.org", approve=False), 404, "NoSuchBuild")


def test_a_decision_says_which(waiting: Api, local: Stage) -> None:
    problem(decide(local, waiting, "ada@example.org"), 422, "Invalid")
    assert decide(local, waiting, "ada@example.org", approve=False).json()["state"] == "failed"
    assert local.end("team/hello#1").result == "failed"
