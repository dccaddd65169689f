"""A trace goes from a request to all that is logged for it, by whatever process; and every line says what it is about."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from frontends import BUILD, Stage, job, shell
from program import Process
from waiting import wait_until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def logged(process: Process) -> list[Mapping[str, Any]]:
    return [json.loads(line) for line in process.stderr.splitlines() if line.startswith("{")]


def told_of(worker: Process, event: str) -> Sequence[Mapping[str, Any]]:
    return [line for line in logged(worker) if line["event"] == event]


@pytest.mark.timeout(180)
def test_a_trace_goes_from_a_request_through_every_ticket_to_the_logs_of_all_workers(
    start_stage: Callable[..., Stage],
) -> None:
    stage = start_stage()
    api, front_end = stage.front_end()
    api.put("/jobs/team/hello", json=job("team/hello", shell("true", "one"), shell("true", "two")))
    api.put("/jobs/team/after", json=job("team/after", triggers=[{"type": "job", "job": "team/hello"}]))
    told = {"traceparent": TRACEPARENT, "X-Request-ID": "r-1"}
    with stage.home.running("worker", "run", "control", "shell", *stage.flags, until="Serving") as worker:
        assert api.post("/jobs/team/hello/-/builds", headers=told).status_code == 201
        stage.end("team/hello#1")
        stage.end("team/after#1")
        # It is archived a moment before its worker says so.
        wait_until(lambda: len(told_of(worker, "done")) == len(told_of(worker, "claimed")), 30)

    of_front_end = [line for line in logged(front_end) if line.get("trace_id") == TRACE]
    accepted, served = of_front_end
    assert (accepted["event"], accepted["build"], accepted["request"]) == ("accepted", "team/hello#1", "r-1")
    assert (served["event"], served["job"], served["request"], served["status"]) == ("served", "team/hello", "r-1", 201)
    of_worker = [line for line in logged(worker) if line.get("trace_id") == TRACE]
    claimed = [line for line in of_worker if line["event"] == "claimed"]
    assert [(line["build"], line.get("task", "")) for line in claimed if line["build"] == "team/hello#1"] == [
        ("team/hello#1", ""),
        ("team/hello#1", "one"),
        ("team/hello#1", "two"),
        ("team/hello#1", ""),
    ]
    assert claimed[0]["ticket"].startswith(accepted["ticket"])
    # What follows from it is part of it, too.
    assert ("team/after#1", "say") in {(line["build"], line.get("task", "")) for line in claimed}
    assert sorted(line["ticket"] for line in of_worker if line["event"] == "done") == sorted(
        line["ticket"] for line in claimed
    )


def test_a_line_says_which_build_task_and_ticket_a_request_was_about(local: Stage) -> None:
    api, front_end = local.front_end()
    api.put("/jobs/team/hello", json=job())
    api.post("/jobs/team/hello/-/builds")
    [ticket] = api.all("/tickets")
    for path in (f"{BUILD}/tasks/say", f"/tickets/{ticket['token']}"):
        api.get(path, headers={"traceparent": "nonsense"})

    build, of_ticket = logged(front_end)[-2:]
    assert (build["build"], build["task"], build["status"]) == ("team/hello#1", "say", 404)
    assert of_ticket["ticket"] == ticket["token"]
    assert "trace_id" not in build
    assert ticket["ticket"]["traceparent"] == ""
