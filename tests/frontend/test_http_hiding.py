"""No answer and no stream names a job that who asks may not read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any
from urllib.parse import quote

import pytest
import requests
from frontends import SCOPES, Api, Stage, job, problem, shell
from waiting import wait_until

from distci.access import Action, Visibility
from distci.app import DistCI
from distci.errors import IllegalTransition
from distci.frontend import app
from distci.frontend.app import create
from distci.frontend.endpoint import Answer, Call, Endpoint
from distci.frontend.hiding import HIDDEN, lines
from distci.frontend.serving import FrontEnd
from distci.protocol.records import quota_permit
from distci.store import keys

MARK = "xyzzy"
"""What the names of all hidden jobs hold, and nothing else does."""

SEEN = ("team/hello", "team/after", "team/blocked")
"""Each has something to do with hidden jobs."""

HUSHED = "hush/xyzzy"
STREAM_MAX_S = 60


def after(name: str) -> dict[str, Any]:
    return {"triggers": [{"type": "job", "job": name}]}


def fill(ci: DistCI) -> None:
    """Put builds and tickets there of which each has to do with one of another project."""
    ci.access.set_visibility("", Visibility.PUBLIC)
    for project in ("team", "hush", "rush"):
        ci.access.set_visibility(project, Visibility.PRIVATE)
    grouped = {"concurrency": {"group": "boards"}}
    for document in (
        job("team/hello", shared_with=["hush"]),
        job(HUSHED, shared_with=["team"], **after("team/hello")),
        job("team/after", **after(HUSHED)),
        job("rush/xyzzy", **after("team/hello")),
        job("hush/xyzzy-holds", shell("sleep 600"), **grouped),
        job("hush/xyzzy-waits", shell("true", labels=["nowhere"])),
        job("hush/xyzzy-group", shell("sleep 600"), concurrency={}),
        job("team/blocked", **grouped),
    ):
        ci.jobs.put(document)
    odd = {"format": 1, "document": {}, "actor": "", "reason": "", "changed_s": 0.0, "deleted": False}
    odd["document"] = job("hush/xyzzy-odd", {"name": "a", "type": "unheard-of"}, **after("team/hello"))
    ci.store.put(keys.downstream("team/hello", "hush/xyzzy-odd"), b"")
    ci.store.put(keys.job_version("hush/xyzzy-odd", 1), json.dumps(odd).encode())
    ci.tickets.weigh(HUSHED, 2)
    ci.tickets.limit(HUSHED, 1)


def reach(ci: DistCI, name: str, state: str) -> None:
    """Start a build, and wait until it is there."""
    build = ci.builds.trigger(name)
    wait_until(lambda: ci.builds.get(build).state == state, 60)


def is_begun(ci: DistCI, name: str) -> bool:
    return ci.builds.last_number(name) == 1


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, Api]]:
    with ExitStack() as stack:
        stage = Stage(stack, tmp_path_factory.mktemp("world"), None, None)
        fill(stage.ci)
        api, _ = stage.front_end()
        stage.start_workers()
        for name in ("hush/xyzzy-holds", "hush/xyzzy-waits", "hush/xyzzy-group"):
            reach(stage.ci, name, "running")
        for name in ("team/blocked", "hush/xyzzy-group"):
            reach(stage.ci, name, "blocked")
        stage.ci.builds.trigger("team/hello")
        for name in ("team/hello", HUSHED, "team/after"):
            wait_until(partial(is_begun, stage.ci, name), 60)
            stage.end(f"{name}#1")
        yield stage, api


def headers_of(stage: Stage, project: str) -> dict[str, str]:
    scopes = [Action.READ] if project else SCOPES
    return {"Authorization": f"Bearer {stage.ci.access.create_token('reader', scopes, project=project).text}"}


def asked(api: Api, path: str, headers: dict[str, str]) -> str:
    """The whole answer; of a stream what is told of what there is."""
    with requests.get(f"{api.url}{path}", headers=headers, stream=True, timeout=STREAM_MAX_S) as answer:
        if not answer.headers.get("Content-Type", "").startswith("text/event-stream"):
            return answer.text
        lines: list[str] = []
        for line in answer.iter_lines(chunk_size=1, decode_unicode=True):
            lines.append(line)
            # The last of the system is the end of the last build; others come to their end or say how things stand.
            last = "\n".join(lines[-3:])
            if line.startswith("event: end") or (not line and ("team/after#1" in last and "build-ended" in last)):
                break
            if "team/blocked" in path and line.startswith("data: "):
                break
        return "\n".join(lines)


def addresses(stage: Stage, endpoint: Endpoint) -> Iterator[str]:
    """The endpoint at every job that may be read, and at every ticket and worker that there is."""
    if endpoint.is_public or endpoint.name == "follow_log" or endpoint.name == "follow_build_logs":
        jobs: tuple[str, ...] = ("team/hello",)
    else:
        # A definition may name whom its author has named.
        jobs = ("team/hello",) if endpoint.is_verbatim else SEEN
    tickets = [quote(view.token) for view in stage.ci.tickets.list()]
    values = {
        "job": jobs,
        "ticket": tickets,
        "worker": [worker.name for worker in stage.ci.status.workers()],
        "number": ["1"],
        "task": ["say"],
    }
    paths = [endpoint.address]
    for name in re.findall(r"\{(\w+)\}", endpoint.address):
        paths = [path.replace(f"{{{name}}}", value) for path in paths for value in values.get(name, ["a"])]
    yield from (f"{path}?after=0" if endpoint.name in ("follow_system", "list_events") else path for path in paths)


def endpoints(ci: DistCI) -> list[Endpoint]:
    return [endpoint for endpoint in create(ci).state.endpoints if endpoint.method == "GET"]


@pytest.mark.timeout(180)
def test_no_answer_names_a_job_that_is_hidden_from_who_asks(world: tuple[Stage, Api]) -> None:
    stage, api = world
    headers = headers_of(stage, "team")
    named = []
    for endpoint in endpoints(stage.ci):
        for path in addresses(stage, endpoint):
            text = asked(api, path, headers)
            named += [f"{path}: {text}"] if MARK in text.replace(path, "") else []
    assert not named, "\n\n".join(named)


def test_who_may_read_all_is_told_all(world: tuple[Stage, Api]) -> None:
    stage, api = world
    headers = headers_of(stage, "")
    names = {
        endpoint.name
        for endpoint in endpoints(stage.ci)
        for path in addresses(stage, endpoint)
        if MARK in asked(api, path, headers)
    }
    assert names >= {
        "get_build",
        "list_builds",
        "explain_build",
        "list_tickets",
        "get_ticket",
        "list_queue",
        "get_cluster",
        "list_events",
        "follow_system",
        "follow_build",
        "list_jobs",
        "list_overview",
    }


def test_how_many_they_are_is_told(world: tuple[Stage, Api]) -> None:
    stage, api = world
    headers = headers_of(stage, "team")

    def get(path: str) -> Any:
        return api.get(path, headers=headers).json()

    hello = get("/jobs/team/hello/-/builds/1")
    assert hello["downstream"] == [HIDDEN]
    assert (len(hello["unreadable_downstream"]), len(hello["refused_downstream"])) == (1, 1)
    assert get("/jobs/team/after/-/builds/1")["trigger"] == {
        **get("/jobs/team/after/-/builds/1")["trigger"],
        "kind": "job",
        "actor": HIDDEN,
        "upstream": None,
    }
    [blocked] = get("/jobs/team/blocked/-/builds/1/why")["items"]
    assert blocked["because"] == f"its group boards is full: {HIDDEN}"
    assert [item["subject"] for item in get("/jobs/team/hello/-/builds/1/why")["items"][1:]] == [HIDDEN] * 2
    assert {item["ticket"]["body"]["build"] for item in get("/tickets")["items"]} == {"team/blocked#1"}
    told = get("/cluster")
    assert told["waiting"]["shell"] == 1
    assert told["waiting_for_permits"] == {"group:boards": 1, HIDDEN: 1}
    assert (told["weights"], told["quotas"]) == ({}, {})


def test_a_quota_that_is_full_tells_no_project_that_is_hidden() -> None:
    waiting = {quota_permit("hush"): 2, quota_permit("team"): 1}
    # All else may be read, as where the system as a whole is public.
    assert lines(waiting, lambda name: name != "hush") == {HIDDEN: 2, quota_permit("team"): 1}


def test_who_searches_does_not_find_out(world: tuple[Stage, Api]) -> None:
    stage, api = world
    headers = headers_of(stage, "team")
    for path in (
        f"/jobs/team/after/-/builds?text={MARK}",
        f"/tickets?build={quote('hush/xyzzy-waits#1')}",
        f"/overview?text={MARK}",
        "/jobs?prefix=hush",
    ):
        assert api.get(path, headers=headers).json()["items"] == [], path
        assert api.get(path, headers=headers_of(stage, "")).json()["items"], path


@pytest.mark.parametrize(
    ("name", "upstream", "chain"),
    [
        ("team/hello", "team/after", f"in a circle: team/hello -> {HUSHED} -> team/after -> team/hello"),
        ("team/new", "hush/xyzzy-odd", "in a circle: hush/xyzzy-odd -> team/new"),
    ],
)
def test_a_chain_of_jobs_that_cannot_be_saved_names_those_that_may_be_read(
    world: tuple[Stage, Api], name: str, upstream: str, chain: str
) -> None:
    stage, api = world
    for project, told in (("team", re.sub(rf"hush/{MARK}[^ ]*", HIDDEN, chain)), ("", chain)):
        token = stage.ci.access.create_token("writer", [Action.READ, Action.WRITE], project=project).text
        document = job(name, **after(upstream))

        answer = api.put(f"/jobs/{name}", json=document, headers={"Authorization": f"Bearer {token}"})

        [found] = problem(answer, 422, "InvalidJob")["problems"]
        assert found.endswith(told)


def test_no_error_names_a_job_that_is_hidden_from_who_asks(
    world: tuple[Stage, Api], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, _ = world

    def refuse(call: Call) -> Answer:
        raise IllegalTransition(f"{HUSHED}#1 is in the way of {call.build}")

    endpoint = Endpoint("GET", "/jobs/{job}/-/builds/{number}/refused", "refuse", "", refuse, Action.READ, {})
    monkeypatch.setattr(app, "GROUPS", [[endpoint], *app.GROUPS])
    with FrontEnd(stage.ci, "127.0.0.1:0") as front_end:
        address = f"{front_end.address}/api/v1/jobs/team/hello/-/builds/1/refused"
        for project, named in (("team", HIDDEN), ("", f"{HUSHED}#1")):
            answer = requests.get(address, headers=headers_of(stage, project), timeout=STREAM_MAX_S)

            assert answer.status_code == 422
            assert answer.json()["detail"] == f"{named} is in the way of team/hello#1"
            assert (answer.json()["error"], answer.headers["Content-Type"]) == (
                "IllegalTransition",
                "application/problem+json",
            )


def test_what_who_asks_has_said_themselves_is_said_back(world: tuple[Stage, Api]) -> None:
    stage, api = world
    stage.ci.jobs.put(job("team/choosy", parameters={"LEVEL": {"choices": ["fast"], "default": "fast"}}))
    token = stage.ci.access.create_token("runner", [Action.READ, Action.TRIGGER], project="team").text

    answer = api.post(
        "/jobs/team/choosy/-/builds",
        json={"parameters": {"LEVEL": "rush/hour#1"}},
        headers={"Authorization": f"Bearer {token}"},
    )

    assert "rush/hour#1" in problem(answer, 422, "InvalidJob")["problems"][0]
