"""Tasks that start a build of another job and wait for it: one build, whoever dies, and no worker that waits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from integration.builds.playing import (
    CANCELLED,
    FAILED,
    PASSED,
    SKIPPED,
    UNSERVED,
    Gate,
    before,
    by_hand,
    cut_at,
    end,
    ids,
    is_task,
    job_of,
    live_tickets,
    makes_build_of,
    over_a_lossy_line,
    shell,
    states,
    writes,
)
from waiting import wait_until
from wiping import wipe

from distci import backup, calls
from distci.app import DistCI
from distci.errors import Unavailable
from distci.lifecycle import Lifecycle
from distci.model import BuildId, Result, TaskState
from distci.process import WorkerProcess
from distci.protocol import Claim, Tickets
from distci.store import keys
from distci.store.directory import DirectoryStore
from distci.store.port import objects
from distci.testing import CutCoordination
from distci_workers.control import ControlWorker

Employ = Callable[..., WorkerProcess]

LIBRARY = BuildId("team/library", 1)


def calling(job: str = "team/library", **keys: Any) -> dict[str, Any]:
    call = {"name": "call", "type": "build", "job": job, **keys}
    return job_of(shell("before", "echo made > file"), call, shell("after", "cat file"))


def put(ci: DistCI, *library: dict[str, Any], **keys: Any) -> BuildId:
    """A build whose second task calls a job of these tasks."""
    ci.jobs.put(job_of(*library, job="team/library"))
    ci.jobs.put(calling(**keys))
    return ci.builds.trigger("team/job")


def test_it_waits_without_a_slot_and_ends_as_the_other_build(ci: DistCI, employ: Employ, gate: Gate) -> None:
    build = put(ci, shell("a", f"{gate.script}; echo $LEVEL"), parameters={"LEVEL": "full"})
    library = ci.jobs.get("team/library").document
    ci.jobs.put({**library, "parameters": {"LEVEL": {"default": "fast"}}})
    with employ(ci.lifecycle):
        wait_until(lambda: is_task(ci, build, "call", TaskState.BLOCKED))
        wait_until(lambda: is_task(ci, LIBRARY, "a", TaskState.RUNNING))
        assert sorted(place for place, _ in live_tickets(ci)) == ["parked", "running"]
        reason = ci.why.task(build, "call")
        assert (reason.because, reason.remedy) == (
            "it waits for team/library#1, which is running",
            "distci why team/library#1",
        )
        gate.open()
        view = end(ci, build)

    assert states(view) == {"before": PASSED, "call": PASSED, "after": PASSED}
    assert view.task("call").reason == "team/library#1 has passed"
    assert view.task("call").attempts[-1]["details"] == {"build": "team/library#1"}
    assert b"".join(ci.builds.log(build, "after")) == b"made\n"
    called = ci.builds.get(LIBRARY)
    assert (called.trigger.kind, called.trigger.actor, called.trigger.upstream) == ("build", f"{build} call", build)
    assert b"".join(ci.builds.log(LIBRARY, "a")) == b"full\n"
    assert live_tickets(ci) == []


def test_a_failure_fails_it_and_each_round_is_a_build(ci: DistCI, employ: Employ) -> None:
    build = put(ci, shell("a", "exit 3"), retries=1)
    with employ(ci.lifecycle):
        view = end(ci, build)
    assert states(view) == {"before": PASSED, "call": FAILED, "after": SKIPPED}
    assert view.task("call").reason == "team/library#2 has failed"
    assert ids(ci.builds.list("team/library")) == ["team/library#2", "team/library#1"]


def test_cancelling_goes_through(ci: DistCI, employ: Employ, gate: Gate) -> None:
    build = put(ci, shell("a", gate.script))
    with employ(ci.lifecycle):
        wait_until(lambda: is_task(ci, build, "call", TaskState.BLOCKED))
        wait_until(lambda: is_task(ci, LIBRARY, "a", TaskState.RUNNING))

        ci.builds.cancel(build)

        assert end(ci, build).task("call").state is CANCELLED
        called = end(ci, LIBRARY)
    assert (called.result, called.reason) == (Result.CANCELLED, f"{build} was cancelled")
    assert live_tickets(ci) == []


def test_a_build_that_somebody_else_cancels_fails_it(ci: DistCI, employ: Employ, gate: Gate) -> None:
    build = put(ci, shell("a", gate.script))
    with employ(ci.lifecycle):
        wait_until(lambda: is_task(ci, build, "call", TaskState.BLOCKED))
        ci.builds.cancel(LIBRARY)
        view = end(ci, build)
    assert (view.task("call").state, view.task("call").reason) == (FAILED, "team/library#1 was cancelled")


def test_what_is_not_over_in_time_is_cancelled(ci: DistCI, employ: Employ, gate: Gate) -> None:
    build = put(ci, shell("a", gate.script), timeout="500ms")
    with employ(ci.lifecycle):
        view = end(ci, build)
        assert view.task("call").state is TaskState.TIMED_OUT
        assert end(ci, LIBRARY).result is Result.CANCELLED


def test_one_that_does_not_wait_passes_at_once(ci: DistCI, employ: Employ, gate: Gate) -> None:
    build = put(ci, shell("a", gate.script), wait=False)
    with employ(ci.lifecycle):
        view = end(ci, build)
        assert (view.result, view.task("call").reason) == (Result.PASSED, "team/library#1 has been started")
        gate.open()
        assert end(ci, LIBRARY).result is Result.PASSED


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"job": "team/none"}, "there is no job 'team/none'"),
        ({"parameters": {"LEVLE": "x"}}, "job team/library has no such parameter"),
        ({"job": "other/library"}, "builds of team/job may not start those of other/library, or there is no such job"),
        ({"job": "../etc"}, "must be a letter or digit"),
    ],
)
def test_what_cannot_be_started_fails_it(ci: DistCI, employ: Employ, keys: dict[str, Any], reason: str) -> None:
    ci.jobs.put(job_of(shell("a"), job="other/library"))
    build = put(ci, shell("a"), **keys)
    with employ(ci.lifecycle):
        view = end(ci, build)
    assert view.task("call").state is FAILED
    assert reason in view.task("call").reason
    assert ids(ci.builds.list("other/library")) == ids(ci.builds.list("team/library")) == []


def test_a_job_of_another_project_says_who_may_start_it(ci: DistCI, employ: Employ) -> None:
    # To be seen, or to have its artifacts copied, is less than to be started.
    for shared, state in (({"shared_with": ["team"]}, FAILED), ({"started_by": ["team"]}, PASSED)):
        ci.jobs.put(job_of(shell("a"), job="other/library", **shared))
        build = put(ci, shell("a"), job="other/library")
        with employ(ci.lifecycle):
            assert end(ci, build).task("call").state is state


def test_a_job_that_starts_itself_comes_to_an_end(ci: DistCI, employ: Employ) -> None:
    ci.jobs.put(job_of({"name": "call", "type": "build", "job": "team/job"}))
    build = ci.builds.trigger("team/job")
    with employ(ci.lifecycle):
        assert end(ci, build).result is Result.FAILED
    assert len(ids(ci.builds.list("team/job"))) == 8


# Whoever dies


def serve(claim: Claim, lifecycle: Lifecycle) -> None:
    """Serve one ticket of control, and leave what follows to others."""
    kept = ControlWorker().serve(claim, lifecycle)
    if kept is not None:
        kept.give_back("left to others")


def serve_call(ci: DistCI) -> None:
    """Serve the ticket of the task; others that control has to see to stay where they are."""
    with by_hand(ci.tickets, "control") as claims:
        held = [claims()]
        while held[-1].ticket.body["action"] != "call":
            held.append(claims())
        serve(held.pop(), ci.lifecycle)
        for claim in held:
            claim.give_back("not this one")


def planned(ci: DistCI) -> BuildId:
    """A build of a call alone, whose ticket is in the queue."""
    ci.jobs.put(job_of({"name": "a", "type": UNSERVED}, job="team/library"))
    ci.jobs.put(job_of({"name": "call", "type": "build", "job": "team/library"}))
    build = ci.builds.trigger("team/job")
    with by_hand(ci.tickets, "control") as claims:
        serve(claims(), ci.lifecycle)
    return build


@pytest.mark.parametrize("committed", [True, False])
def test_who_dies_while_it_is_started_leaves_one_build(ci: DistCI, committed: bool) -> None:
    # Given a control worker that is cut off as it starts the build
    build = planned(ci)
    line = CutCoordination(ci.coordination)
    dying = Lifecycle(Tickets(line), ci.store, ci.jobs, patience_s=0.1)
    cut_at(line, makes_build_of("team/library"), committed=committed)
    with by_hand(ci.tickets, "control") as claims, pytest.raises(Unavailable), claims() as claim:
        serve(claim, dying)

    # When another one has the ticket next
    serve_call(ci)

    # Then there is one build, which is waited for
    assert ids(ci.builds.list("team/library")) == ["team/library#1"]
    assert is_task(ci, build, "call", TaskState.BLOCKED)


def test_who_dies_before_it_waits_leaves_one_build(ci: DistCI, monkeypatch: pytest.MonkeyPatch) -> None:
    build = planned(ci)
    with monkeypatch.context() as patched, by_hand(ci.tickets, "control") as claims:
        patched.setattr(calls, "_wait", lambda *_: exit("it dies"))
        with pytest.raises(SystemExit), claims() as claim:
            serve(claim, ci.lifecycle)

    serve_call(ci)

    assert ids(ci.builds.list("team/library")) == ["team/library#1"]
    assert is_task(ci, build, "call", TaskState.BLOCKED)


def test_the_end_of_the_build_at_the_moment_of_waiting_is_not_missed(ci: DistCI, employ: Employ) -> None:
    # Given a ticket that is about to wait
    build = planned(ci)
    line, lifecycle = over_a_lossy_line(ci)

    def over() -> None:
        ci.builds.cancel(LIBRARY)
        with employ(ci.lifecycle, kinds=["control"], name="other"):
            end(ci, LIBRARY)

    # When the build that it is for ends right before
    is_done = before(line, writes(LIBRARY), over)
    with by_hand(lifecycle.tickets, "control") as claims:
        serve(claims(), lifecycle)

    # Then the task has ended with it
    assert is_done.is_set()
    with employ(ci.lifecycle):
        assert end(ci, build).task("call").state is FAILED


def test_a_cancel_at_the_moment_of_waiting_goes_through(ci: DistCI, employ: Employ) -> None:
    build = planned(ci)
    line, lifecycle = over_a_lossy_line(ci)
    is_done = before(line, writes(LIBRARY), lambda: ci.builds.cancel(build))
    with by_hand(lifecycle.tickets, "control") as claims:
        serve(claims(), lifecycle)
    assert is_done.is_set()
    with employ(ci.lifecycle):
        assert end(ci, build).result is Result.CANCELLED
        assert end(ci, LIBRARY).result is Result.CANCELLED


def test_what_a_copy_of_the_store_has_begun_too_late_for_is_started_again_from_it(
    ci: DistCI, employ: Employ, tmp_path: Path
) -> None:
    # Given a copy that had the builds that are under way already when the task started one more
    build = planned(ci)
    copy = DirectoryStore(tmp_path / "copy")
    is_started = Event()

    def meanwhile(_: backup.Copied) -> None:
        if not is_started.is_set():
            is_started.set()
            serve_call(ci)

    backup.copy(ci.store, copy, meanwhile)
    assert ids(ci.builds.list("team/library")) == ["team/library#1"]

    # When tree and store are lost, and that copy is brought back
    wipe(ci.coordination)
    for info in [*objects(ci.store, "")]:
        ci.store.delete(info.key)
    backup.copy(copy, ci.store)
    ci.rebuild.run()

    # Then there is a build to wait for
    with employ(ci.lifecycle, kinds=["control"]):
        wait_until(lambda: ids(ci.builds.list("team/library")) == ["team/library#1"])
        ci.builds.cancel(LIBRARY)
        assert end(ci, build).task("call").reason == "team/library#1 was cancelled"


def test_a_build_of_which_nothing_is_left_is_waited_for_no_longer(ci: DistCI, employ: Employ) -> None:
    build = planned(ci)
    serve_call(ci)
    wipe(ci.coordination)
    ci.store.delete(keys.accepted(LIBRARY))
    ci.rebuild.run()

    with employ(ci.lifecycle, kinds=["control"]):
        assert end(ci, build).task("call").reason.startswith("team/library#1 is gone")
