"""Tasks that tasks define: checked, capped, part of the build for good, whoever dies."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from integration.builds.playing import (
    FAILED,
    PASSED,
    REUSED,
    SKIPPED,
    by_hand,
    end,
    job_of,
    shell,
    states,
)
from waiting import wait_until
from wiping import wipe

from distci.app import DistCI
from distci.errors import IllegalTransition
from distci.model import Outcome, Result
from distci.process import WorkerProcess
from distci.store.port import objects

Employ = Callable[..., WorkerProcess]

MORE = [
    {"name": "a", "type": "shell", "script": "cat made; echo a > a"},
    {
        "name": "b",
        "type": "shell",
        "script": "cat made; echo $v > b{v}",
        "needs": ["split"],
        "matrix": {"v": ["1", "2"]},
    },
]


def splits(tasks: object, **keys: Any) -> dict[str, Any]:
    return shell(
        "split", f"echo made > made; cat > more.json <<'END'\n{json.dumps(tasks)}\nEND", emits="more.json", **keys
    )


def test_what_a_task_defines_runs_before_what_needs_that_task(system: Any) -> None:
    view = system.run_tasks(shell("before"), splits(MORE), shell("join", "ls"))

    assert view.result is Result.PASSED
    assert {task.name: (task.emitter, tuple(task.needs)) for task in view.tasks} == {
        "before": ("", ()),
        "split": ("", ("before",)),
        "split:a": ("split", ("split",)),
        "split:b[1]": ("split", ("split",)),
        "split:b[2]": ("split", ("split",)),
        "join": ("", ("split", "split:a", "split:b[1]", "split:b[2]")),
    }
    assert system.log(view, "split:b[2]") == "made\n"
    assert system.log(view, "join") == "a\nb1\nb2\nmade\nmore.json\n"


def test_a_failure_of_what_was_defined_counts_and_all_of_it_runs_again(system: Any) -> None:
    view = system.run_tasks(
        shell("before"), splits([{"name": "a", "type": "shell", "script": "exit 3"}]), shell("join")
    )
    assert states(view) == {"before": PASSED, "split": PASSED, "split:a": FAILED, "join": SKIPPED}

    again = end(system.ci, system.ci.builds.retry(view.id, only_failed=True))

    assert (again.task("before").state, again.task("split").state) == ("reused", PASSED)
    assert again.task("split:a").state is FAILED


def test_who_asks_for_what_failed_runs_what_defines_tasks_again_and_all_of_it_where_nothing_failed(
    system: Any, tmp_path: Path
) -> None:
    # Given a build in which something else failed than what was defined
    part = {"name": "part", "type": "shell", "script": "true"}
    flag = tmp_path / "mended"
    view = system.run_tasks(
        shell("before"),
        splits([part]),
        shell("join"),
        shell("other", f"test -e {flag}", needs=[]),
        shell("tell", needs=["before"], when="failure"),
    )
    assert view.task("other").state is FAILED
    flag.touch()

    # When a service has what failed run again, twice for one cause
    fresh = {system.ci.builds.rerun(view.id, "github:ada", ["github retry 1"]) for _ in range(2)}
    again = end(system.ci, *fresh)

    # Then what was defined is part of that build, too, with what hangs on it
    expected = {"before": REUSED, "split": PASSED, "split:part": PASSED, "join": PASSED, "other": PASSED}
    assert states(again) == expected | {"tell": SKIPPED}
    assert (again.trigger.actor, again.trigger.only) == ("github:ada", ("split", "other", "tell"))

    # And of that one, of which nothing failed though something was skipped, all of it runs
    whole = end(system.ci, system.ci.builds.rerun(again.id, "github:ada", ["github retry 2"]))
    assert states(whole) == expected | {"before": PASSED, "tell": SKIPPED}
    with pytest.raises(IllegalTransition, match=r"no task of .* failed"):
        system.ci.builds.retry(whole.id, only_failed=True)


@pytest.mark.parametrize(
    ("tasks", "problem"),
    [
        (
            [{"name": "a", "type": "shell", "scrpt": "x"}],
            "line 1, column 33: tasks[0].scrpt: unknown key; did you mean",
        ),
        ([{"name": "a", "type": "shell", "script": "x", "needs": ["join"]}], "there is no task 'join'"),
        (
            [{"name": "a", "type": "shell", "script": "x", "secrets": ["TOKEN"]}],
            "a names the secret 'TOKEN', which split",
        ),
        (
            [{"name": "a", "type": "shell", "script": "x", "secret_files": ["TOKEN"]}],
            "a names the secret 'TOKEN', which split",
        ),
        (
            [{"name": "a", "type": "git-checkout", "repository": "/x", "credentials": "DEPLOY"}],
            "a names the secret 'DEPLOY', which split does not name itself",
        ),
        ({"tasks": [], "a]": [], "b[": []}, "a]: cannot be said here"),
        ({"tasks": [], "triggers": []}, "triggers: cannot be said here"),
        ("text", "is neither a list of tasks nor an object with `tasks`"),
        (
            [{"name": "a", "type": "shell", "script": "x", "matrix": {"v": [str(n) for n in range(255)]}}],
            "with these the build has 258 tasks; at most 256",
        ),
    ],
)
def test_what_cannot_be_meant_fails_the_task_and_says_where(system: Any, tasks: object, problem: str) -> None:
    view = system.run_tasks(shell("before"), splits(tasks), shell("join"))

    assert states(view) == {"before": PASSED, "split": FAILED, "join": SKIPPED}
    assert problem in view.task("split").reason


@pytest.mark.parametrize(
    ("key", "script"),
    [("secrets", 'test "${TOKEN#robot:}" = t0p-secret'), ("secret_files", 'grep t0p-secret "$TOKEN"')],
)
def test_what_names_a_secret_may_define_tasks_that_do(system: Any, key: str, script: str) -> None:
    task = {"name": "a", "type": "shell", "script": script, key: ["TOKEN"]}
    view = system.run_tasks(shell("before"), splits([task], secrets=["TOKEN"]), shell("after", 'test -z "$TOKEN"'))
    assert view.result is Result.PASSED


def test_a_secret_cannot_be_written_into_what_all_may_read(system: Any) -> None:
    script = """echo '[{"name": "a", "type": "shell", "script": "echo '"$TOKEN"'"}]' > more.json"""
    view = system.run_tasks(shell("split", script, emits="more.json", secrets=["TOKEN"]))
    assert "more.json has the value of a secret in it" in system.failure(view, "split")
    kept = [system.ci.store.get(info.key) for info in objects(system.ci.store, "builds/")]
    assert kept
    assert not any(b"t0p-secret" in data for data in kept)


@pytest.mark.parametrize(
    "script", ["true", "mkdir more.json", "ln -s /etc/hostname more.json", "head -c 70000 /dev/zero > more.json"]
)
def test_a_file_that_cannot_be_read_fails_the_task(system: Any, script: str) -> None:
    view = system.run_tasks(shell("split", script, emits="more.json"))
    assert view.task("split").state is FAILED
    assert view.task("split").reason.startswith("more.json ")


def test_who_dies_once_the_tasks_are_on_record_leaves_no_trace_of_them(
    ci: DistCI, employ: Employ, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a worker that dies between putting on record what it has defined and moving the build on
    ci.jobs.put(job_of({"name": "split", "type": "acme.splitter", "emits": "more.json"}, shell("join")))
    build = ci.builds.trigger("team/job")
    record = {"after": "", "workspace": False, "started_ms": 1, "ended_ms": 1, "worker": "hand", "attempt": 1}

    def settle(name: str) -> None:
        with by_hand(ci.tickets, "acme.splitter") as claims, claims() as claim:
            task = f'[{{"name": "{name}", "type": "acme.robot"}}]'
            ci.lifecycle.settle(claim, "split", Outcome.passed(tasks=task, tasks_of="more.json"), record)

    with employ(ci.lifecycle, kinds=["control"]):
        wait_until(lambda: [task.state for task in ci.builds.get(build).tasks] == ["ready", "waiting"])
        with monkeypatch.context() as patched:
            patched.setattr(ci.lifecycle, "_finish", lambda *_: exit("it dies"))
            with pytest.raises(SystemExit):
                settle("first")

        # When the next attempt defines another task
        settle("second")

        # Then that one is part of the build, and stays so when the tree is lost
        names = ["split", "split:second", "join"]
        assert [task.name for task in ci.builds.get(build).tasks] == names
        wipe(ci.coordination)
        wait_until(lambda: [task.state for task in ci.builds.get(build).tasks] == ["passed", "ready", "waiting"])
        assert [task.name for task in ci.builds.get(build).tasks] == names


def test_a_worker_defines_no_tasks_that_the_job_does_not_have_it_define(ci: DistCI, employ: Employ) -> None:
    ci.jobs.put(job_of({"name": "count", "type": "acme.counter"}))
    build = ci.builds.trigger("team/job")
    record = {"after": "", "workspace": False, "started_ms": 1, "ended_ms": 1, "worker": "hand", "attempt": 1}
    with employ(ci.lifecycle, kinds=["control"]):
        with by_hand(ci.tickets, "acme.counter") as claims, claims() as claim:
            task = '[{"name": "a", "type": "acme.counter"}]'
            ci.lifecycle.settle(claim, "count", Outcome.passed(tasks=task), record)
        assert states(end(ci, build)) == {"count": PASSED}
