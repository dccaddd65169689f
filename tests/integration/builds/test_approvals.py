"""Tasks that wait until somebody has decided: they hold nobody up, and one decision counts, whoever dies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from integration.builds.playing import (
    CANCELLED,
    FAILED,
    PASSED,
    SKIPPED,
    cut_at,
    end,
    is_task,
    job_of,
    live_tickets,
    shell,
    states,
    writes,
)
from waiting import wait_until

from distci.app import DistCI
from distci.builds import Builds
from distci.errors import IllegalTransition, NoSuchBuild, NoSuchTask, Unavailable
from distci.lifecycle import Lifecycle
from distci.model import BuildId, Result, TaskState
from distci.process import WorkerProcess
from distci.protocol import Tickets
from distci.testing import CutCoordination

ASK = {"name": "ask", "type": "approval", "message": "ship it?", "approvers": ["ada@example.org", "group:release"]}
JOB = job_of(
    shell("build", "echo built > program"),
    ASK,
    shell("deploy", "cat program"),
    shell("tell", when="failure"),
)

Employ = Callable[..., WorkerProcess]


@contextmanager
def asked(ci: DistCI, employ: Employ, job: dict[str, Any] = JOB) -> Iterator[BuildId]:
    """A build that waits for somebody, while a worker process lives."""
    ci.jobs.put(job)
    build = ci.builds.trigger("team/job")
    with employ(ci.lifecycle):
        wait_until(lambda: is_task(ci, build, "ask", TaskState.BLOCKED))
        yield build


def test_it_holds_no_slot_and_what_comes_after_begins_with_the_files_of_what_came_before(
    ci: DistCI, employ: Employ
) -> None:
    with asked(ci, employ) as build:
        assert [place for place, _ in live_tickets(ci)] == ["parked"]
        reason = ci.why.task(build, "ask")
        asks = "it waits for an approval by ada@example.org, group:release: ship it?; it expires in "
        assert reason.because.startswith(asks)
        assert reason.remedy == f"distci build approve {build} ask"
        assert ci.builds.approvers(build, "ask") == ("ada@example.org", "group:release")

        decided = ci.builds.decide(build, "ask", True, "tried on staging", actor="ada@example.org")

        assert (decided.state, decided.reason) == (PASSED, "approved by ada@example.org: tried on staging")
        view = end(ci, build)
    assert states(view) == {"build": PASSED, "ask": PASSED, "deploy": PASSED, "tell": SKIPPED}
    assert b"".join(ci.builds.log(build, "deploy")) == b"built\n"
    assert ci.why.task(build, "ask").because == "after 1 round"


def test_a_refusal_is_a_failure(ci: DistCI, employ: Employ) -> None:
    with asked(ci, employ) as build:
        ci.builds.decide(build, "ask", False, "not on a Friday", actor="bob")
        view = end(ci, build)
    assert states(view) == {"build": PASSED, "ask": FAILED, "deploy": SKIPPED, "tell": PASSED}
    assert (view.result, view.task("ask").reason) == (Result.FAILED, "refused by bob: not on a Friday")


def test_one_that_nobody_decides_in_time_has_timed_out(ci: DistCI, employ: Employ) -> None:
    ci.jobs.put(job_of({**ASK, "timeout": "300ms"}, shell("deploy")))
    build = ci.builds.trigger("team/job")
    with employ(ci.lifecycle):
        view = end(ci, build)
    assert states(view) == {"ask": TaskState.TIMED_OUT, "deploy": SKIPPED}
    assert view.task("ask").reason == "nobody has decided in time"


def test_a_build_is_cancelled_while_it_waits(ci: DistCI, employ: Employ) -> None:
    with asked(ci, employ) as build:
        ci.builds.cancel(build)
        view = end(ci, build)
    assert (view.result, view.task("ask").state) == (Result.CANCELLED, CANCELLED)
    assert live_tickets(ci) == []


def test_who_dies_once_the_decision_is_on_record_has_decided(ci: DistCI, employ: Employ) -> None:
    with asked(ci, employ) as build:
        # Given somebody who approves, and whose process loses the tree before the build has moved on
        line = CutCoordination(ci.coordination)
        dying = Builds(Lifecycle(Tickets(line), ci.store, ci.jobs, patience_s=0.1), ci.jobs, "ada")
        cut_at(line, writes(build), committed=False)
        with pytest.raises(Unavailable):
            dying.decide(build, "ask", True)
        assert is_task(ci, build, "ask", TaskState.BLOCKED)

        # When another one refuses
        with pytest.raises(IllegalTransition, match="was approved by ada before"):
            ci.builds.decide(build, "ask", False, actor="bob")

        # Then the build goes on as was decided first
        assert end(ci, build).result is Result.PASSED


def test_a_decision_whose_answer_is_lost_is_made_once(ci: DistCI, employ: Employ) -> None:
    with asked(ci, employ) as build:
        line = CutCoordination(ci.coordination)
        lossy = Builds(Lifecycle(Tickets(line), ci.store, ci.jobs), ci.jobs, "ada")
        line.lose_answer(committed=True, when=writes(build))

        assert lossy.decide(build, "ask", True).state is PASSED

        view = end(ci, build)
    assert (view.result, len(view.task("ask").attempts)) == (Result.PASSED, 1)


def test_only_what_waits_for_somebody_can_be_decided(ci: DistCI, employ: Employ) -> None:
    with asked(ci, employ) as build:
        with pytest.raises(NoSuchTask):
            ci.builds.decide(build, "aks", True)
        with pytest.raises(IllegalTransition, match="is of type shell; it waits for nobody's approval"):
            ci.builds.decide(build, "deploy", True)
        ci.builds.decide(build, "ask", True)
        end(ci, build)
        with pytest.raises(NoSuchBuild):
            ci.builds.decide(build, "ask", True)
