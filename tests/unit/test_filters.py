"""For which occasions a task runs."""

from __future__ import annotations

from typing import Any

import pytest

from distci import plan
from distci.documents.jobs import job_from_json
from distci.errors import InvalidJob
from distci.model import BuildId, Delivery, Trigger

PUSHED = Trigger("github", delivery=Delivery("1", "github", "push", "org/hello", branch="main"))
ASKED = Trigger("github", delivery=Delivery("1", "github", "pull_request", "org/hello", branch="main", pull_request=4))
TAGGED = Trigger("github", ref="refs/tags/v1", delivery=Delivery("1", "github", "tag", "org/hello"))
BY_HAND = Trigger("manual")
AT_MAIN = Trigger("manual", ref="refs/heads/main")
FOLLOWING = Trigger("job", upstream=BuildId("team/lib", 3))
CHANGED = ("src/app.py", "docs/index.rst")


def unfit(wanted: dict[str, Any], trigger: Trigger, changed: tuple[str, ...] | None = CHANGED) -> str:
    """Why a task with that ``if`` is left out of a build of a job with one parameter."""
    tasks: list[dict[str, Any]] = [
        {"name": "t", "type": "shell", "script": "true", "if": wanted},
        {"name": "other", "type": "shell", "script": "true", "needs": []},
    ]
    document = {"job": "team/hello", "parameters": {"LEVEL": {"choices": ["fast", "full"]}}, "tasks": tasks}
    return plan.expand(job_from_json(document), BuildId("team/hello", 1), 1, trigger, changed).task("t").unfit


@pytest.mark.parametrize(
    ("wanted", "trigger", "reason"),
    [
        ({}, BY_HAND, ""),
        ({"branches": ["main"]}, PUSHED, ""),
        ({"branches": ["release/*", "m*"]}, PUSHED, ""),
        ({"branches": ["release/*"]}, PUSHED, "branch main is none of: release/*"),
        ({"branches": ["main"]}, ASKED, ""),
        ({"branches": ["main"]}, AT_MAIN, ""),
        ({"branches": ["*"]}, TAGGED, ""),
        ({"branches": ["main"]}, TAGGED, "the trigger names no branch, so it is none of: main"),
        ({"branches": ["main"]}, BY_HAND, "the trigger names no branch, so it is none of: main"),
        ({"events": ["push", "tag"]}, TAGGED, ""),
        ({"events": ["push"]}, ASKED, "event pull_request is none of: push"),
        ({"events": ["manual"]}, BY_HAND, ""),
        ({"events": ["manual"]}, FOLLOWING, "event job is none of: manual"),
        ({"paths": ["src/*"]}, PUSHED, ""),
        ({"paths": ["*.rst", "*.md"]}, PUSHED, ""),
        ({"paths": ["web/*"]}, PUSHED, "nothing has changed in: web/*"),
        ({"parameters": {"LEVEL": "fast"}}, BY_HAND, ""),
        ({"parameters": {"LEVEL": ["full", "fast"]}}, BY_HAND, ""),
        ({"parameters": {"LEVEL": "full"}}, BY_HAND, "parameter LEVEL is 'fast', none of: 'full'"),
        ({"events": ["push"], "branches": ["main"], "paths": ["src/*"]}, PUSHED, ""),
        ({"events": ["push"], "branches": ["x"], "paths": ["src/*"]}, PUSHED, "branch main is none of: x"),
    ],
)
def test_j10_a_task_runs_for_what_all_parts_of_its_filter_fit(
    wanted: dict[str, Any], trigger: Trigger, reason: str
) -> None:
    assert unfit(wanted, trigger) == reason


def test_where_nobody_knows_what_has_changed_anything_may_have() -> None:
    assert unfit({"paths": ["web/*"]}, BY_HAND, None) == ""


def test_a_build_that_is_run_again_is_for_what_the_first_was_for() -> None:
    again = Trigger("retry", retry_of=BuildId("team/hello", 1), delivery=PUSHED.delivery)
    assert unfit({"events": ["push"], "branches": ["main"]}, again) == ""


def test_a_build_that_all_filters_leave_nothing_of_is_refused() -> None:
    tasks = [
        {"name": "a", "type": "shell", "script": "true", "if": {"branches": ["main"]}},
        {"name": "b", "type": "shell", "script": "true"},
    ]
    with pytest.raises(InvalidJob) as refused:
        plan.expand(job_from_json({"job": "a", "tasks": tasks}), BuildId("a", 1), 1, BY_HAND)
    assert refused.value.problems == (
        "tasks: there is nothing to run: a: the trigger names no branch, so it is none of: main",
    )


def test_a_filter_names_parameters_and_values_that_there_are() -> None:
    with pytest.raises(InvalidJob) as refused:
        unfit({"parameters": {"LEVELS": "fast"}}, BY_HAND)
    assert refused.value.problems == (
        "tasks[0].if.parameters.LEVELS: job team/hello has no such parameter; did you mean 'LEVEL'?",
    )
    with pytest.raises(InvalidJob) as refused:
        unfit({"parameters": {"LEVEL": ["fats"]}}, BY_HAND)
    assert refused.value.problems == ("tasks[0].if.parameters.LEVEL: 'fats' is not one of: fast, full",)
