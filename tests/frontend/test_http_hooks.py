"""What forges tell over HTTP: taken in from who knows the secret, answered with what became of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import deliveries
import pytest
import requests
from frontend.test_http_access import as_person
from frontends import Api, Stage, job, problem
from unit.test_receivers import BUILT, IGNORED
from waiting import wait_until

from distci.access import Action, Role, Visibility
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


def front_end_of(stage: Stage) -> Api:
    """A front end of a system with a job for each forge."""
    front_end, _ = stage.front_end(**SECRETS)
    for receiver in ("github", "gitlab", "gitea"):
        assert front_end.put(f"/jobs/team/{receiver}", json=concerned(receiver)).status_code == 201
    return front_end


@pytest.fixture
def api(local: Stage) -> Api:
    return front_end_of(local)


@pytest.fixture(scope="module")
def idle(common: Stage) -> Api:
    """One for deliveries that start nothing."""
    return front_end_of(common)


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
def test_what_starts_nothing_is_answered_with_the_reason(idle: Api, name: str) -> None:
    answer = deliver(idle, name)

    assert answer.status_code == 200
    assert (answer.json()["reason"], answer.json()["jobs"]) == (IGNORED[name], [])


NO_COMMIT = "0" * 40
MADE = {"ref": "refs/tags/v1.0.0", "before": NO_COMMIT, "commits": []}
DELETED: Mapping[str, Any] = {
    "ref": "refs/tags/v1.0.0",
    "after": NO_COMMIT,
    "commits": [],
    "head_commit": None,
    "checkout_sha": None,
}
BESIDE = {"ref": "v1.0.0", "ref_type": "tag"}

# Of each forge: what tells of a tag that was made, that one was deleted, and what comes beside it.
TAGS = {
    "github": (("github/push-new-branch", MADE), ("github/push", {}), ["github/create", "github/delete"]),
    "gitea": (("gitea/push-event", MADE), ("gitea/push-event", DELETED), ["gitea/create-event", "gitea/delete-event"]),
    "gitlab": (("gitlab/tag-event", {}), ("gitlab/tag-event", DELETED), []),
}
DIALECTS = {
    "github": ("github", "X-GitHub-"),
    "gitlab": ("gitlab", "X-Gitlab-"),
    "gitea": ("gitea", "X-Gitea-"),
    "forgejo": ("gitea", "X-Forgejo-"),
}


@pytest.mark.parametrize("forge", DIALECTS)
def test_a_tag_that_is_made_starts_what_its_filter_lets_through_and_one_that_is_deleted_nothing(
    local: Stage, forge: str
) -> None:
    receiver, prefix = DIALECTS[forge]
    made, deleted, beside = TAGS[receiver]
    api, _ = local.front_end(**SECRETS)

    def say(name: str, fields: Mapping[str, Any], delivery: str) -> tuple[int, Any]:
        body = deliveries.recorded(name, (lambda document: document.update(fields)) if fields else None)
        told = deliveries.headers(name, body, delivery)
        renamed = {key.replace("X-Gitea-", prefix): value for key, value in told.items()}
        answer = api.post(f"/hooks/{receiver}", data=body, headers=renamed)
        return answer.status_code, answer.json()

    # Given jobs for tags of either sort, and one for pushes alone
    local.ci.access.set_visibility("open", Visibility.PUBLIC)
    for name, filters in (
        ("open/first", {"events": ["tag"], "tags": ["v1.*"]}),
        ("open/second", {"events": ["tag"], "tags": ["v2.*"]}),
        ("open/third", {}),
    ):
        triggers = [{"type": receiver, "repository": repository, **filters} for repository in sorted(REPOSITORIES)]
        local.ci.jobs.put(job(name, triggers=triggers))

    # When a tag is made
    status, told = say(*made, "made")

    # Then that is built which it is for
    assert status == 202
    assert {item["job"]: item["build"] or item["reason"] for item in told["jobs"]} == {
        "open/first": "open/first#1",
        "open/second": "tag v1.0.0 is none of: v2.*",
        "open/third": "it is for push, not for tag",
    }
    trigger = local.ci.builds.get("open/first#1").trigger
    assert (trigger.ref, len(trigger.commit)) == ("refs/tags/v1.0.0", 40)
    assert trigger.commit != NO_COMMIT

    # And what comes beside it, or when it is deleted, says why nothing is
    for number, name in enumerate(beside):
        status, told = say(name, BESIDE, f"beside-{number}")
        assert (status, told["jobs"], told["reason"]) == (
            200,
            [],
            "tag v1.0.0: the push that comes beside it says more",
        )
    status, told = say(*deleted, "deleted")
    assert (status, told["jobs"]) == (200, [])
    assert told["reason"] in ("refs/tags/v1.0.0 was deleted", "refs/tags/simple-tag was deleted")


def test_a_forge_is_told_the_same_whether_a_hidden_job_names_its_repository_or_none_does(
    api: Api, local: Stage
) -> None:
    body = deliveries.recorded(PUSH, lambda document: document["repository"].update(full_name="org/quiet"))
    before = deliver(api, PUSH, body)
    local.ci.access.set_visibility("hidden", Visibility.PRIVATE)
    triggers = [{"type": "github", "repository": "org/quiet", "branches": ["none"]}]
    local.ci.jobs.put(job("hidden/hello", triggers=triggers))

    assert (before.status_code, before.json()["jobs"]) == (200, [])
    assert deliver(api, PUSH, body).json() == before.json()


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
def test_what_the_sender_has_signed_but_nobody_can_read_is_refused_with_its_place(idle: Api, body: bytes) -> None:
    told = problem(deliver(idle, PUSH, body), 422, "Invalid")
    assert told["detail"].startswith("github: ")


def test_a_body_is_bounded(api: Api) -> None:
    problem(deliver(api, PUSH, b" " * (BODY_BYTES_MAX + 1)), 413, "Invalid")
    # More than any document of ours may have, and no more than forges send
    padded = deliveries.recorded(PUSH) + b" " * (5 * 1024 * 1024)
    assert deliver(api, PUSH, padded).json()["jobs"][0]["build"] == "team/github#1"


def test_a_delivery_is_told_in_the_log_with_what_was_answered(local: Stage) -> None:
    front_end, process = local.front_end("-v", **SECRETS)
    deliver(front_end, PUSH, headers={"X-Request-ID": "delivery-17"})
    # It is put down once the answer is out.
    wait_until(lambda: "delivery-17" in process.stderr)


FORK = "gitea/pull-request-event"


class TestHeld:
    """A change by a stranger concerns a job that everybody may see, and one that not everybody may."""

    JOBS = ("open/hello", "secret/hello")

    @pytest.fixture
    def held(self, local: Stage) -> tuple[Api, str]:
        local.ci.access.set_visibility("open", Visibility.PUBLIC)
        local.ci.access.set_visibility("secret", Visibility.PRIVATE)
        for name in self.JOBS:
            local.ci.jobs.put({**concerned("gitea"), "job": name})
        for who, project in (("half", "open"), ("whole", "open"), ("whole", "secret")):
            local.ci.access.grant(f"{who}@example.org", Role.RUNNER, project)
        front_end, _ = local.front_end(**SECRETS)
        return front_end, deliver(front_end, FORK).json()["held"]

    @pytest.mark.parametrize(
        ("who", "jobs"),
        [("stranger", JOBS[:1]), ("half", JOBS[:1]), ("whole", JOBS), ("nobody", JOBS[:1])],
    )
    def test_somebody_sees_what_they_may_read(
        self, held: tuple[Api, str], local: Stage, who: str, jobs: tuple[str, ...]
    ) -> None:
        api, change = held
        shown = {} if who == "nobody" else as_person(local, api, f"{who}@example.org")
        [item] = requests.get(f"{api.url}/api/v1/held", headers=shown, timeout=30).json()["items"]
        assert (item["id"], item["jobs"]) == (change, [*jobs])
        assert (item["receiver"], item["change"]["commit"]) == ("gitea", BUILT[FORK][3])

    @pytest.mark.parametrize("what", ["approve", "refuse"])
    def test_who_may_not_start_a_build_of_each_job_decides_of_nothing(
        self, held: tuple[Api, str], local: Stage, what: str
    ) -> None:
        api, change = held
        address = f"{api.url}/api/v1/held/{change}/{what}"
        for who in ("stranger", "half"):
            answer = requests.post(address, headers=as_person(local, api, f"{who}@example.org"), timeout=30)
            told = problem(answer, 403, "Forbidden")
            assert "secret" not in told["detail"]
        problem(requests.post(address, timeout=30), 401, "NotAuthenticated")
        read_only = local.ci.access.create_token("read", [Action.READ]).text
        problem(requests.post(address, headers={"Authorization": f"Bearer {read_only}"}, timeout=30), 403, "Forbidden")
        assert [item.id for item in local.ci.hooks.held()] == [change]
        assert all(not [*local.ci.builds.list(name)] for name in self.JOBS)

    def test_who_may_read_none_of_its_jobs_is_told_that_there_is_no_such_change(
        self, held: tuple[Api, str], local: Stage
    ) -> None:
        api, change = held
        local.ci.access.set_visibility("open", Visibility.PRIVATE)
        stranger = as_person(local, api, "stranger@example.org")
        listed = f"{api.url}/api/v1/held"
        wait_until(lambda: requests.get(listed, headers=stranger, timeout=30).json()["items"] == [])
        hidden, none = (
            requests.post(f"{listed}/{name}/approve", headers=stranger, timeout=30) for name in (change, "0" * 16)
        )
        problem(hidden, 404, "NoSuchChange")
        assert hidden.text.replace(change, "0" * 16) == none.text

    def test_who_may_start_a_build_of_each_has_them_built_once(self, held: tuple[Api, str], local: Stage) -> None:
        api, change = held
        whole = as_person(local, api, "whole@example.org")

        answer = requests.post(f"{api.url}/api/v1/held/{change}/approve", headers=whole, timeout=30)

        assert answer.status_code == 202
        assert [started["build"] for started in answer.json()["jobs"]] == ["open/hello#1", "secret/hello#1"]
        trigger = local.ci.builds.get("open/hello#1").trigger
        assert trigger.is_untrusted
        assert trigger.actor.endswith("approved by whole@example.org")
        again = requests.post(f"{api.url}/api/v1/held/{change}/approve", headers=whole, timeout=30)
        problem(again, 404, "NoSuchChange")

    def test_who_approves_is_told_of_no_job_that_they_may_not_read(self, held: tuple[Api, str], local: Stage) -> None:
        api, change = held
        triggers = [{"type": "gitea", "repository": name, "branches": ["none"]} for name in sorted(REPOSITORIES)]
        local.ci.jobs.put(job("hidden/hello", triggers=triggers))
        whole = as_person(local, api, "whole@example.org")

        answer = requests.post(f"{api.url}/api/v1/held/{change}/approve", headers=whole, timeout=30)

        assert [told["job"] for told in answer.json()["jobs"]] == [*self.JOBS]

    def test_a_forge_is_told_of_what_it_starts_and_else_of_what_everybody_may_read(
        self, held: tuple[Api, str], local: Stage
    ) -> None:
        api, _ = held
        triggers = [{"type": "gitea", "repository": name, "branches": ["none"]} for name in sorted(REPOSITORIES)]
        for name in ("hidden/hello", "open/other"):
            local.ci.jobs.put(job(name, triggers=triggers))

        told = deliver(api, FORK).json()

        assert [item["job"] for item in told["jobs"]] == ["open/hello", "open/other", "secret/hello"]

    def test_what_is_refused_waits_no_longer(self, held: tuple[Api, str], local: Stage) -> None:
        api, change = held
        whole = as_person(local, api, "whole@example.org")
        answer = requests.post(f"{api.url}/api/v1/held/{change}/refuse", headers=whole, timeout=30)
        assert answer.json() == {"id": change, "is_refused": True}
        assert api.all("/held") == []

    def test_what_no_job_is_for_any_more_is_up_to_who_may_start_everything(
        self, held: tuple[Api, str], local: Stage
    ) -> None:
        api, change = held
        for name in self.JOBS:
            local.ci.jobs.delete(name)
        address = f"{api.url}/api/v1/held/{change}/refuse"
        whole = requests.post(address, headers=as_person(local, api, "whole@example.org"), timeout=30)
        problem(whole, 404, "NoSuchChange")
        assert api.post(f"/held/{change}/refuse").status_code == 200


def test_receivers_are_listed_without_what_is_secret(api: Api) -> None:
    listed = api.get("/hooks")
    assert [(item["name"], item["secrets"]) for item in listed.json()["items"]] == [
        ("directory", 0),
        ("gitea", 1),
        ("github", 1),
        ("gitlab", 1),
    ]
    assert deliveries.SECRET not in listed.text
