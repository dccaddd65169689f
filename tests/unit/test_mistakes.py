"""What is allowed in a job and surely a mistake is warned of; what is fine is not."""

from __future__ import annotations

from typing import Any

import pytest

from distci.documents.jobs import job_from_json
from distci.documents.mistakes import mistakes
from distci.model import Json


def job(*tasks: dict[str, Json], **more: Json) -> dict[str, Json]:
    named = [{"name": f"task{number}", "type": "shell", **task} for number, task in enumerate(tasks)]
    usual = [task if task["type"] != "shell" else {"script": "make", **task} for task in named]
    return {"job": "team/hello", "tasks": usual or [{"name": "a", "type": "shell", "script": "make"}], **more}


def hook(**more: Json) -> dict[str, Json]:
    return {"triggers": [{"type": "github", "repository": "org/hello", **more}]}


@pytest.mark.parametrize(
    ("document", "warning"),
    [
        (job({"if": {"events": ["pull-request"]}}), "tasks[0].if.events[0]: there is no event 'pull-request'; did you mean 'pull_request'?"),
        (job({"if": {"events": ["zzz"]}}), "tasks[0].if.events[0]: there is no event 'zzz'; there are: push, tag,"),
        (job({"if": {"branches": ["refs/heads/main"]}}), "tasks[0].if.branches[0]: 'refs/heads/main' fits nothing, since names have no refs/ in front; did you mean 'main'?"),
        (job({"environment": {"API_TOKEN": "abcd1234"}}), "tasks[0].environment.API_TOKEN: looks like a secret"),
        (job(environment={"PASSWORD": "abcd1234"}), "environment.PASSWORD: looks like a secret"),
        (job({"script": "x ${{ matrix.a }}"}), "tasks[0].script: ${{ matrix.a }} is an expression of another system"),
        (job({"script": "x {pyton}", "matrix": {"python": ["1"]}}), "tasks[0].script: the matrix has no axis 'pyton'; did you mean 'python'?"),
        (job({}, {"needs": ["task0", "task0"]}), "tasks[1].needs: names a task twice"),
        (job({"type": "publish-artifacts", "paths": ["a"]}), "tasks[0]: needs no task, so there are no files to publish"),
        (job({}, {"type": "publish-artifacts", "paths": ["a"], "needs": []}), "tasks[1]: needs no task"),
        (job({}, {"type": "approval"}, {"needs": ["task0"]}), "tasks[1]: no task needs this approval"),
        (job({"script": "#!/bin/bash\nx", "shell": "sh"}), "tasks[0].shell: the script has a #! line of its own"),
        (job({"labels": ["os=linux"]}, {"labels": ["os=linux"]}, {"labels": ["oss=linux"]}), "tasks[2].labels[0]: no other task asks for 'oss'"),
        (job({"labels": ["board"]}, {"labels": ["board"]}, {"labels": ["baord"]}), "tasks[2].labels[0]: no other task asks for 'baord'; did you mean 'board'?"),
        (job({"stage": "a"}, stages=["a", "b"]), "stages[1]: no task is in stage 'b'"),
        (job(**hook(events=["merge"])), "triggers[0].events[0]: there is no event 'merge'"),
        (job(**hook(tags=["v*"])), "triggers[0].tags: says which tags, but its events have no `tag`"),
        (job(**hook(branches=["refs/heads/a"])), "triggers[0].branches[0]: 'refs/heads/a' fits nothing"),
        (job(triggers=[{"type": "job", "job": "team/lib"}] * 2), "triggers[1]: is there twice"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(document: dict[str, Any], warning: str) -> None:
    job_from_json(document)
    [found] = mistakes(document)
    assert found.startswith(warning)


@pytest.mark.parametrize(
    "document",
    [
        job({"if": {"events": ["p*", "manual", "job", "cron"], "branches": ["main", "release/*"]}}),
        job({"environment": {"TOKEN": "$OTHER", "KEY_FILE": "abcd1234", "SECRET": "", "TOKENS_MAX": "1000"}}),
        job({"script": "echo ${name} {a,b} {other} {python}", "matrix": {"python": ["1"]}}),
        job({}, {"type": "approval"}, {}),
        job({"labels": ["os=linux"]}, {"labels": ["gpu"]}, {"labels": ["os=linux"]}),
        job(**hook(events=["push", "tag"], tags=["v*"], branches=["main"])),
        job({}, {"type": "publish-artifacts", "paths": ["a"]}),
    ],
)
def test_what_is_fine_is_not_warned_of(document: dict[str, Any]) -> None:
    job_from_json(document)
    assert mistakes(document) == []
