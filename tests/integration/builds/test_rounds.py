"""Tasks that are run again after a failure: when, after which failures, and whoever dies meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from integration.builds.playing import CANCELLED, FAILED, PASSED, end, is_task, job_of, shell, states
from waiting import wait_until

from distci.app import DistCI
from distci.errors import InvalidJob
from distci.model import Result, TaskState
from distci.process import WorkerProcess


def test_a_round_waits_for_its_time_whoever_dies_meanwhile(
    ci: DistCI, employ: Callable[..., WorkerProcess], tmp_path: Path
) -> None:
    # Given a task that fails once, and a worker process that is gone when its second round is due
    script = f"test -e {tmp_path}/tried || {{ touch {tmp_path}/tried; exit 7; }}"
    ci.jobs.put(job_of(shell("flaky", script, retries={"times": 1, "pause": "2s"}), shell("rest")))
    build = ci.builds.trigger("team/job")
    with employ(ci.lifecycle, name="first"):
        wait_until(lambda: is_task(ci, build, "flaky", TaskState.BLOCKED))
        reason = ci.why.task(build, "flaky")
    assert reason.because.startswith("round 2 waits for its time, in ")
    assert reason.because.endswith(" s, after exit status 7")

    # When another one comes
    with employ(ci.lifecycle, name="second"):
        view = end(ci, build)

    # Then the second round ran there, no sooner than it was to
    first, second = view.task("flaky").attempts
    assert (view.result, states(view)) == (Result.PASSED, {"flaky": PASSED, "rest": PASSED})
    assert (first["worker"], second["worker"]) == ("first-1", "second-1") or second["worker"] != first["worker"]
    assert second["started_ms"] - first["ended_ms"] >= 1900


def test_a_build_is_cancelled_while_a_round_waits(ci: DistCI, employ: Callable[..., WorkerProcess]) -> None:
    ci.jobs.put(job_of(shell("flaky", "exit 7", retries={"times": 1, "pause": "1d"})))
    build = ci.builds.trigger("team/job")
    with employ(ci.lifecycle):
        wait_until(lambda: is_task(ci, build, "flaky", TaskState.BLOCKED))

        ci.builds.cancel(build)

        view = end(ci, build)
    assert (view.result, states(view)) == (Result.CANCELLED, {"flaky": CANCELLED})
    assert [*ci.tickets.list()] == []


def test_only_the_exit_statuses_that_are_named_are_worth_another_round(system: Any) -> None:
    view = system.run_tasks(
        shell("other", "exit 3", retries={"times": 2, "exit_statuses": [75]}),
        shell("named", "exit 75", needs=[], retries={"times": 2, "exit_statuses": [75]}),
    )
    assert states(view) == {"other": FAILED, "named": FAILED}
    assert {task.name: len(task.attempts) for task in view.tasks} == {"other": 1, "named": 3}


@pytest.mark.parametrize(
    ("retries", "problem"),
    [
        (11, "tasks[0].retries: 11 is greater than the maximum of 10"),
        ({"pause": "1s"}, "tasks[0].retries.times: is missing"),
        ({"times": 1, "puase": "1s"}, "tasks[0].retries.puase: unknown key; did you mean 'pause'?"),
    ],
)
def test_wrong_retries_are_refused(ci: DistCI, retries: Any, problem: str) -> None:
    with pytest.raises(InvalidJob) as refused:
        ci.jobs.put(job_of(shell("a", retries=retries)))
    assert refused.value.problems[0].startswith(problem)
