"""Commands in comments of pull requests: done for whom may do that, once, and on record as theirs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import deliveries
import pytest
import requests
from frontend.test_http_hooks import SECRETS, concerned
from frontends import Api, Stage
from waiting import wait_until

from distci.access import Role
from distci.comments import Comments
from distci.hooks import Hooks
from distci.model import Delivery, Trigger

PULL = {"url": "https://api.github.com/repos/Codertocat/Hello-World/pulls/1", "merged_at": None}

# Of each forge: the body of a comment, its repository, the number of its pull request, who wrote it.
COMMENTS = {
    "github": ("github/issue_comment-created", "Codertocat/Hello-World", 1, "Codertocat"),
    "gitea": ("gitea/issue-comment-event", "example/example", 2, "ada"),
    "gitlab": ("gitlab/note-event", "awesome_space/awesome_project", 1, "ada"),
}
FORGES = [*COMMENTS]
NOT_CREATED = {"github": "edited", "gitea": "deleted", "gitlab": "update"}


def comment(receiver: str, text: str, change: Callable[[dict[str, Any]], None] = lambda body: None) -> bytes:
    def say(body: dict[str, Any]) -> None:
        if receiver == "gitlab":
            body["object_attributes"]["note"] = text
        else:
            body["comment"]["body"] = text
        if receiver == "github":
            body["issue"]["pull_request"] = PULL
        change(body)

    return deliveries.recorded(COMMENTS[receiver][0], say)


def tell(api: Api, receiver: str, body: bytes, delivery: str = "comment-1") -> requests.Response:
    told = deliveries.headers(COMMENTS[receiver][0], body, delivery)
    return api.post(f"/hooks/{receiver}", data=body, headers=told)


def said(api: Api, receiver: str, text: str, delivery: str = "comment-1") -> Any:
    """What a comment is answered with, which may start nothing."""
    answer = tell(api, receiver, comment(receiver, text), delivery)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture
def api(local: Stage) -> Api:
    """A front end of a system where the authors of all comments may start builds in ``team``."""
    front_end, _ = local.front_end(**SECRETS)
    for receiver, (*_, author) in COMMENTS.items():
        local.ci.jobs.put(concerned(receiver))
        local.ci.access.grant(f"{receiver}:{author}", Role.RUNNER, "team")
    return front_end


def start(stage: Stage, receiver: str, delivery: str = "push-1", number: int = 0) -> str:
    """A build of the pull request, as its delivery starts it."""
    _, repository, own, _ = COMMENTS[receiver]
    told = Delivery(delivery, receiver, "pull_request", repository, pull_request=number or own)
    trigger = Trigger(receiver, "grace", commit="a" * 40, delivery=told)
    return str(stage.ci.builds.start(stage.ci.jobs.get(f"team/{receiver}"), trigger))


def entries(stage: Stage, what: str) -> list[tuple[str, str, str]]:
    """What is on record of that sort: who, to what, with what outcome."""
    return [(entry.who, entry.target, entry.outcome) for entry in stage.ci.audit.list() if entry.what == what]


@pytest.mark.parametrize("receiver", FORGES)
def test_what_runs_is_cancelled_for_who_may_and_on_record_as_theirs(api: Api, local: Stage, receiver: str) -> None:
    author = f"{receiver}:{COMMENTS[receiver][3]}"
    build, other = start(local, receiver), start(local, receiver, number=77)

    told = said(api, receiver, "Wrong branch.\n\n/distci cancel\r\n")

    assert (told["event"], told["jobs"][0]["reason"]) == ("comment", f"{build} is cancelled")
    local.start_workers()
    view = local.end(build)
    assert view.state == "cancelled"
    assert author in view.reason
    assert local.end(other).state == "passed"
    wait_until(lambda: entries(local, "build.cancel") == [(author, build, "done")])


@pytest.mark.parametrize("receiver", FORGES)
def test_the_last_build_is_run_again_once_however_often_that_is_told(api: Api, local: Stage, receiver: str) -> None:
    author = f"{receiver}:{COMMENTS[receiver][3]}"
    local.start_workers()
    start(local, receiver)
    last = start(local, receiver)
    local.end(last)

    answers = [tell(api, receiver, comment(receiver, "/distci retry")) for _ in range(2)]
    fresh = answers[0].json()["jobs"][0]["build"]
    local.end(fresh)
    answers.append(tell(api, receiver, comment(receiver, "/distci retry")))

    assert [answer.status_code for answer in answers] == [202] * 3
    assert {answer.json()["jobs"][0]["build"] for answer in answers} == {fresh} == {f"team/{receiver}#3"}
    trigger = local.ci.builds.get(fresh).trigger
    assert (trigger.kind, trigger.actor, str(trigger.retry_of)) == ("retry", author, last)
    assert tell(api, receiver, comment(receiver, "/distci retry "), "comment-2").json()["jobs"][0]["build"] != fresh
    wait_until(lambda: (author, f"{last} as {fresh}", "done") in entries(local, "build.retry"))


def test_a_retry_runs_only_what_failed(api: Api, local: Stage) -> None:
    document = concerned("gitea")
    tasks = [{"name": name, "type": "shell", "script": script} for name, script in (("good", "true"), ("bad", "false"))]
    local.ci.jobs.put({**document, "tasks": tasks})
    local.start_workers()
    local.end(start(local, "gitea"))

    fresh = tell(api, "gitea", comment("gitea", "/distci retry")).json()["jobs"][0]["build"]

    view = local.end(fresh)
    assert {task.name: task.state.value for task in view.tasks} == {"good": "reused", "bad": "failed"}


def test_what_still_runs_is_not_run_again(api: Api, local: Stage) -> None:
    build = start(local, "github")
    assert f"{build} is still" in said(api, "github", "/distci retry")["jobs"][0]["reason"]


FORK = "gitea/pull-request-event"


def hold(api: Api, delivery: str, commit: str) -> str:
    """A change of pull request 2 by a stranger; its id."""
    body = deliveries.recorded(FORK, lambda document: document["pull_request"]["head"].update(sha=commit))
    answer = api.post("/hooks/gitea", data=body, headers=deliveries.headers(FORK, body, delivery))
    return str(answer.json()["held"])


def test_a_change_that_is_held_is_approved(api: Api, local: Stage) -> None:
    change = hold(api, "pull-1", "a" * 40)

    first, again = (tell(api, "gitea", comment("gitea", "/distci approve")) for _ in range(2))

    assert (first.status_code, first.json()["jobs"][0]["build"]) == (202, "team/gitea#1")
    assert "was decided before" in again.json()["reason"]
    trigger = local.ci.builds.get("team/gitea#1").trigger
    assert (trigger.commit, trigger.is_untrusted) == ("a" * 40, True)
    assert trigger.actor.endswith("approved by gitea:ada")
    wait_until(lambda: entries(local, "hook.approve")[:1] == [("gitea:ada", change, "done")])


def test_an_old_word_told_again_approves_nothing_that_came_later(api: Api, local: Stage) -> None:
    hold(api, "pull-1", "a" * 40)
    tell(api, "gitea", comment("gitea", "/distci approve"))
    later = hold(api, "pull-2", "b" * 40)

    told = said(api, "gitea", "/distci approve")

    assert "was decided before" in told["reason"]
    assert [held.id for held in local.ci.hooks.held()] == [later]


def test_of_several_changes_the_commit_that_was_looked_at_is_to_be_said(api: Api, local: Stage) -> None:
    hold(api, "pull-1", "a" * 40)
    hold(api, "pull-2", "b" * 40)

    assert "say which commit you have looked at" in said(api, "gitea", "/distci approve")["reason"]
    assert local.ci.builds.last_number("team/gitea") == 0
    told = tell(api, "gitea", comment("gitea", f"/distci approve {'a' * 12}"), "comment-2")

    assert told.status_code == 202
    assert local.ci.builds.get("team/gitea#1").trigger.commit == "a" * 40


def test_all_that_waits_of_a_pull_request_is_refused(api: Api, local: Stage) -> None:
    hold(api, "pull-1", "a" * 40)
    hold(api, "pull-2", "b" * 40)

    assert said(api, "gitea", "/distci refuse")["reason"] == "what waited of pull request 2 is refused"
    assert [*local.ci.hooks.held()] == []


@pytest.mark.parametrize("word", ["approve", "refuse"])
def test_what_a_task_of_a_build_waits_for_is_not_decided_in_a_comment(api: Api, local: Stage, word: str) -> None:
    # Given a build of the pull request that waits for the approval of a task, as its job has it
    local.ci.jobs.put({**concerned("gitea"), "tasks": [{"name": "ask", "type": "approval"}]})
    local.start_workers()
    build = start(local, "gitea")
    wait_until(lambda: [task.state for task in local.ci.builds.get(build).tasks] == ["blocked"])

    # When somebody writes the word that is for changes that are held
    told = said(api, "gitea", f"/distci {word}")

    # Then the task waits still, and they are told what to do instead
    assert told["reason"].endswith(
        f"waits for an approval; of a task that does: distci build {word} JOB#NUMBER TASK, or the page"
    )
    assert local.ci.builds.get(build).task("ask").state == "blocked"


@pytest.mark.parametrize("receiver", FORGES)
@pytest.mark.parametrize("role", [None, Role.VIEWER])
def test_who_has_no_role_gets_nothing_done_and_is_told_so(
    api: Api, local: Stage, receiver: str, role: Role | None
) -> None:
    author = f"{receiver}:{COMMENTS[receiver][3]}"
    build = start(local, receiver)
    local.ci.access.revoke_role(author, "team")
    # Who comments has not logged in: what all may who have is not theirs, nor is a role of a like name on another forge.
    local.ci.access.grant("everybody", Role.OWNER, "team")
    local.ci.access.grant(f"other:{author.partition(':')[2]}", Role.OWNER, "team")
    if role:
        local.ci.access.grant(author, role, "team")

    def refused() -> bool:
        told = said(api, receiver, "/distci cancel")
        return told["jobs"] == [] and f"{author} may start no builds" in told["reason"]

    # A front end knows of a role that was taken away a second later at most.
    wait_until(refused)
    fresh = start(local, receiver, number=78)
    assert fresh != build
    assert "team/" not in said(api, receiver, "/distci retry", "comment-2")["reason"]


def test_a_job_in_which_they_have_no_role_is_left_alone_and_not_named(api: Api, local: Stage) -> None:
    local.ci.jobs.put({**concerned("gitea"), "job": "secret/hello"})
    told = Delivery("push-1", "gitea", "pull_request", "example/example", pull_request=2)
    hidden = local.ci.builds.start(local.ci.jobs.get("secret/hello"), Trigger("gitea", delivery=told))
    start(local, "gitea")

    answer = said(api, "gitea", "/distci cancel")

    assert [job["job"] for job in answer["jobs"]] == ["team/gitea"]
    assert local.ci.builds.get(hidden).state != "cancelling"
    hold(api, "pull-1", "a" * 40)
    assert "may not start a build of every job" in said(api, "gitea", "/distci approve", "comment-2")["reason"]
    assert len([*local.ci.hooks.held()]) == 1


@pytest.mark.parametrize("receiver", FORGES)
def test_other_comments_do_nothing(api: Api, local: Stage, receiver: str) -> None:
    start(local, receiver)

    def is_edited(body: dict[str, Any]) -> None:
        (body["object_attributes"] if receiver == "gitlab" else body)["action"] = NOT_CREATED[receiver]

    def is_on_an_issue(body: Mapping[str, Any]) -> None:
        if receiver == "gitlab":
            body["object_attributes"]["noteable_type"] = "Issue"
        else:
            body["issue"].pop("pull_request")
            body.update(is_pull=False)  # type: ignore[attr-defined]

    for text, change in (
        ("Well done!", lambda body: None),
        ("See /distci cancel", lambda body: None),
        ("> /distci cancel", lambda body: None),
        ("/distci-not cancel", lambda body: None),
        ("/distci cancel", is_edited),
        ("/distci cancel", is_on_an_issue),
    ):
        answer = tell(api, receiver, comment(receiver, text, change))
        assert (answer.status_code, answer.json()["reason"]) == (200, "nothing to do")
    assert local.ci.builds.get(f"team/{receiver}#1").state == "planning"


@pytest.mark.parametrize(
    "text", ["/distci", "/distci rerun", "/distci retry now", "/distci approve please", "/distci CANCEL"]
)
def test_a_word_that_is_not_known_names_those_that_are(api: Api, text: str) -> None:
    reason = said(api, "github", text)["reason"]
    assert f"{text!r} is none of /distci retry, /distci cancel, /distci approve, /distci refuse" in reason


def test_a_comment_without_a_proof_does_nothing(api: Api, local: Stage) -> None:
    build = start(local, "github")
    body = comment("github", "/distci cancel")
    told = deliveries.headers(COMMENTS["github"][0], body, secret="another")
    assert api.post("/hooks/github", data=body, headers=told).status_code == 401
    assert local.ci.builds.get(build).state == "planning"


def test_without_a_role_nothing_is_noted_and_a_role_that_comes_later_counts(api: Api, local: Stage) -> None:
    build = start(local, "gitea")
    body = json.loads(comment("gitea", "/distci cancel"))
    body["comment"]["user"]["login"] = "new"
    data = json.dumps(body).encode()
    assert "gitea:new may start no builds" in tell(api, "gitea", data).json()["reason"]
    local.ci.access.grant("gitea:new", Role.RUNNER, "team")
    wait_until(lambda: f"{build} is cancelled" in tell(api, "gitea", data).text)


def test_who_dies_between_two_refusals_is_followed_by_the_same_delivery(
    api: Api, local: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(api, "pull-1", "a" * 40)
    hold(api, "pull-2", "b" * 40)
    body = comment("gitea", "/distci refuse")
    refuse = Hooks.refuse

    def die(hooks: Hooks, *which: Any) -> None:
        refuse(hooks, *which)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Hooks, "refuse", die)
        with pytest.raises(KeyboardInterrupt):
            local.ci.hooks.play("gitea", deliveries.headers(COMMENTS["gitea"][0], body, "comment-1"), body)
    assert len([*local.ci.hooks.held()]) == 1

    assert tell(api, "gitea", body).json()["reason"] == "what waited of pull request 2 is refused"
    assert [*local.ci.hooks.held()] == []


@pytest.mark.parametrize("word", ["cancel", "retry"])
def test_who_dies_after_it_was_noted_is_followed_by_the_same_delivery(
    api: Api, local: Stage, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.start_workers()
    if word == "retry":
        local.end(start(local, "gitea"))
    else:
        local.ci.tickets.pause("control")
        start(local, "gitea")
    body = comment("gitea", f"/distci {word}")
    headers = deliveries.headers(COMMENTS["gitea"][0], body, "comment-1")

    # Given a process that dies once it has noted what the command is about
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Comments, "_do", die)
        with pytest.raises(KeyboardInterrupt):
            local.ci.hooks.play("gitea", headers, body)
    # And a build that comes later
    later = start(local, "gitea", "push-2")

    # When the forge sends it again, to another process
    told = tell(api, "gitea", body).json()["jobs"][0]

    # Then it is done, and to what was there at first
    if word == "retry":
        assert str(local.ci.builds.get(told["build"]).trigger.retry_of) == "team/gitea#1"
    else:
        assert told["reason"] == "team/gitea#1 is cancelled"
        assert local.ci.builds.get(later).state == "planning"
        local.ci.tickets.pause()
