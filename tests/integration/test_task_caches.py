"""What tasks begin with of what others have left in their caches, in each way of isolation."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
from integration.conftest import System

from distci.isolation.cgroups import find_cgroups
from distci.isolation.host import HostIsolation
from distci.isolation.port import Isolation
from distci.isolation.sandbox import SandboxIsolation
from distci.model import TaskState, Trigger

COUNT = "cat ~/.cache/tool/lines || :; echo line >> ~/.cache/tool/lines; exit ${STATUS:-0}"
"""Tells what it finds, and adds to it."""
CACHE = {"name": "tool", "path": "~/.cache/tool"}


def counting(*caches: dict[str, Any], status: int = 0, **more: Any) -> dict[str, Any]:
    environment = {"STATUS": str(status)}
    return {"type": "shell", "name": "count", "script": COUNT, "caches": [*caches], "environment": environment, **more}


def found(system: System, task: dict[str, Any], job: str = "team/job") -> int:
    """How many lines a task found."""
    return system.log(system.run_tasks(task, job=job), "count").splitlines().count("line")


@pytest.fixture(params=[HostIsolation, lambda: SandboxIsolation(find_cgroups(), [sys.prefix])], ids=["host", "sandbox"])
def isolation(request: pytest.FixtureRequest) -> Isolation:
    made: Isolation = request.param()
    return made


def test_a_task_finds_what_the_last_one_that_passed_has_left(
    start_system: Callable[..., System], isolation: Isolation
) -> None:
    system = start_system(isolation=isolation)
    assert found(system, counting(CACHE)) == 0
    assert found(system, counting(CACHE)) == 1
    # One that fails, or was cancelled, keeps none
    assert found(system, counting(CACHE, status=3)) == 2
    assert found(system, counting(CACHE), job="team/other") == 2
    # And no other project has it
    assert found(system, counting(CACHE), job="strangers/job") == 0


def test_a_key_has_what_its_first_task_left(system: System) -> None:
    first, second = ({**CACHE, "key": key} for key in ("1", "2"))
    assert [found(system, counting(cache)) for cache in (first, first, second, first, second)] == [0, 1, 1, 1, 2]


def test_files_of_the_workspace_may_make_the_key(system: System) -> None:
    keyed = {**CACHE, "files": ["lock"]}
    logs = []
    for content in ("1", "1", "2"):
        made = {"type": "shell", "name": "made", "script": f"echo {content} > lock"}
        view = system.run_tasks(made, counting(keyed))
        logs.append(system.log(view, "count").splitlines()[0])
    assert logs == [
        "distci: cache tool is empty: nothing of it is kept here",
        "distci: cache tool is here",
        "distci: cache tool is here, as another key has it",
    ]
    view = system.run_tasks(counting(keyed))
    assert system.failure(view, "count").startswith("lock, which the key of a cache is made of, cannot be read")


def test_what_strangers_wrote_keeps_nothing(system: System) -> None:
    assert found(system, counting(CACHE)) == 0
    job = system.ci.jobs.put({"job": "team/job", "tasks": [counting(CACHE)]})
    view = system.ci.builds.wait(system.ci.lifecycle.create(job, Trigger("github", is_untrusted=True)), 60)
    assert "distci: cache tool is not kept: somebody without rights" in system.log(view, "count")
    assert found(system, counting(CACHE)) == 1


@pytest.mark.parametrize("path", ["../other", "/etc", "~/../other", "link/inside"])
def test_a_cache_is_in_the_tasks_own_folders(system: System, path: str) -> None:
    linked = {"type": "shell", "name": "linked", "script": "ln -s /tmp link"}
    view = system.run_tasks(linked, counting({"name": "tool", "path": path}))
    assert view.task("count").state is TaskState.FAILED
    assert "path" in view.task("count").reason


def test_where_something_is_already_and_where_nothing_may_be_kept_it_is_left_out(
    start_system: Callable[..., System],
) -> None:
    system = start_system(cache_bytes_max=0)
    assert "cache tool is left out: this machine keeps none" in system.log(
        system.run_tasks(counting(CACHE, script="true")), "count"
    )


def test_a_cache_of_the_workspace_gives_way_to_what_the_needs_left(system: System) -> None:
    made = {"type": "shell", "name": "made", "script": "mkdir -p kept; echo own > kept/file"}
    task = {**counting({"name": "tool", "path": "kept"}), "script": "cat kept/file"}
    log = system.log(system.run_tasks(made, task), "count")
    assert log.splitlines() == ["distci: cache tool is left out: there is something in kept already", "own"]
