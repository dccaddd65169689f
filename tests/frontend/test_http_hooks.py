"""What forges tell over HTTP: taken in from who knows the secret, answered with what became of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import deliveries
import pytest
import requests
from frontends import Api, Stage, job, problem
from unit.test_receivers import BUILT, IGNORED

from distci.receivers.port import BODY_BYTES_MAX

SECRETS = {f"DISTCI_RECEIVERS_{name}_SECRETS": deliveries.SECRET for name in ("GITHUB", "GITLAB", "GITEA")}
REPOSITORIES = {told[1] for told in BUILT.values()}
PUSH = "github/push-new-branch"


def concerned(receiver: str) -> dict[str, Any]:
    """A job that is for whatever a receiver is told of the recorded repositories."""
    events = ["push", "tag", "pull_request"]
    triggers = [{"type": receiver, "repository": name, "events": events} for name in sorted(REPOSITORIES)]
    return job(f"team/{receiver}", triggers=triggers)


def deliver(
    api: Api, name: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> requests.Response:
    """A recorded delivery, or another body under its headers."""
    data = deliveries.recorded(name) if body is None else body
    told = {**deliveries.headers(name, data), **(headers or {})}
    return api.post(f"/hooks/{name.partition('/')[0]}", data=data, headers=told)


@pytest.fixture
def api(local: Stage) -> Api:
    front_end, _ = local.front_end(**SECRETS)
    for receiver in ("github", "gitlab", "gitea"):
        assert front_end.put(f"/jobs/team/{receiver}", json=concerned(receiver)).status_code == 201
    return front_end


@pytest.mark.parametrize("name", BUILT)
def test_a_recorded_change_is_taken_and_names_its_build(api: Api, name: str) -> None:
    receiver = name.partition("/")[0]
    _, repository, ref, commit, *_, is_trusted = BUILT[name]

    answer = deliver(api, name)

    assert answer.status_code == 202
    told = answer.json()
    [started] = told["jobs"]
    if not is_trusted:
        assert (started["build"], bool(told["held"])) == (None, True)
        return
    assert started == {"job": f"team/{receiver}", "build": f"team/{receiver}#1", "reason": ""}
    cause = api.get(f"/jobs/team/{receiver}/-/builds/1").json()["trigger"]
    assert (cause["kind"], cause["commit"], cause["ref"]) == (receiver, commit, ref)
    assert (cause["delivery"]["id"], cause["delivery"]["repository"]) == ("delivery-1", repository)


@pytest.mark.parametrize("name", IGNORED)
def test_what_starts_nothing_is_answered_with_the_reason(api: Api, name: str) -> None:
    answer = deliver(api, name)

    assert answer.status_code == 200
    assert (answer.json()["reason"], answer.json()["jobs"]) == (IGNORED[name], [])


def test_sent_again_to_another_front_end_it_is_the_same_build(api: Api, local: Stage) -> None:
    other, _ = local.front_end()

    answers = [deliver(front_end, PUSH) for front_end in (api, other, api)]

    assert [answer.status_code for answer in answers] == [202] * 3
    assert {answer.json()["jobs"][0]["build"] for answer in answers} == {"team/github#1"}
    assert len(api.all("/jobs/team/github/-/builds")) == 1


def test_a_form_is_read_as_its_payload(api: Api) -> None:
    body = urlencode({"payload": deliveries.recorded(PUSH)}).encode()

    answer = deliver(api, PUSH, body, {"Content-Type": "application/x-www-form-urlencoded"})

    assert answer.json()["jobs"][0]["build"] == "team/github#1"


def test_who_does_not_know_the_secret_starts_nothing_and_learns_nothing(api: Api) -> None:
    wrong = f"sha256={deliveries.sign(deliveries.recorded(PUSH), 'another')}"
    for headers in (
        {"X-Hub-Signature-256": wrong},
        {"X-Hub-Signature-256": ""},
        {"Authorization": "Bearer x", "X-Hub-Signature-256": wrong},
    ):
        answer = deliver(api, PUSH, headers=headers)
        problem(answer, 401, "NotAuthenticated")
        assert "team/github" not in answer.text
    changed = json.dumps({**json.loads(deliveries.recorded(PUSH)), "after": "1" * 40}).encode()
    told = deliveries.headers(PUSH, deliveries.recorded(PUSH))
    problem(api.post("/hooks/github", data=changed, headers=told), 401, "NotAuthenticated")
    assert api.all("/jobs/team/github/-/builds") == []


def test_a_receiver_without_a_secret_takes_nothing(api: Api) -> None:
    problem(api.post("/hooks/directory", data=b"{}"), 401, "NotAuthenticated")


def test_a_receiver_that_is_not_installed_is_not_found(api: Api) -> None:
    problem(api.post("/hooks/gitbucket", data=b"{}"), 404, "NoSuchReceiver")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"ref": 1}', b"\xff"])
def test_what_the_sender_has_signed_but_nobody_can_read_is_refused_with_its_place(api: Api, body: bytes) -> None:
    told = problem(deliver(api, PUSH, body), 422, "Invalid")
    assert told["detail"].startswith("github: ")


def test_a_body_is_bounded(api: Api) -> None:
    problem(deliver(api, PUSH, b" " * (BODY_BYTES_MAX + 1)), 413, "Invalid")
    # More than any document of ours may have, and no more than forges send
    padded = deliveries.recorded(PUSH) + b" " * (5 * 1024 * 1024)
    assert deliver(api, PUSH, padded).json()["jobs"][0]["build"] == "team/github#1"


def test_a_delivery_is_told_in_the_log_with_what_was_answered(local: Stage) -> None:
    front_end, process = local.front_end("-v", **SECRETS)
    deliver(front_end, PUSH, headers={"X-Request-ID": "delivery-17"})
    assert "delivery-17" in process.stderr
