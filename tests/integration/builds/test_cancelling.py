"""A build that is to end, at whatever moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from signal import SIGTERM
from threading import Event
from typing import Any

import pytest
from integration.builds.playing import (
    CANCELLED,
    PASSED,
    UNSERVED,
    Gate,
    before,
    by_hand,
    end,
    is_task,
    job_of,
    live_tickets,
    over_a_lossy_line,
    shell,
    states,
    writes,
)
from waiting import wait_until

from distci.app import DistCI
from distci.builds import Builds
from distci.errors import IllegalTransition, NoSuchBuild
from distci.isolation import supervisor
from distci.model import BuildId, Outcome, Result, TaskState
from distci.process import WorkerProcess


class TestCancelling:
    def test_r04_whatever_the_moment_a_build_ends_whole(self, system: Any) -> None:
        ci, chance = system.ci, Random(4)
        usual = system.run_tasks(shell("a", "sleep 0.05"), shell("b"), shell("c", needs=["a"]), shell("d", needs=[]))
        usual_s = (usual.finished_ms - usual.created_ms) / 1000

        def start_and_cancel(moment_s: float) -> tuple[BuildId, bool]:
            build = ci.builds.trigger("team/job")
            Event().wait(moment_s)
            try:
                ci.builds.cancel(build)
            except IllegalTransition:
                return build, False
            return build, True

        moments_s = [0.0, *(chance.uniform(0, 3 * usual_s) for _ in range(15))]
        with ThreadPoolExecutor(4) as people:
            asked = list(people.map(start_and_cancel, moments_s))

        for build, was_cancelled in asked:
            view = end(ci, build)
            assert view.result is (Result.CANCELLED if was_cancelled else Result.PASSED)
            assert all(state.is_final for state in states(view).values())
            if not was_cancelled:
                assert set(states(view).values()) == {PASSED}
        assert live_tickets(ci) == []
        assert system.leftovers() == []

    @pytest.fixture
    def build(self, ci: DistCI, employ: Callable[..., WorkerProcess]) -> Iterator[BuildId]:
        """A build whose only task is done by hand; all else is done by a worker."""
        ci.jobs.put(job_of({"name": "a", "type": UNSERVED}))
        with employ(ci.lifecycle):
            yield ci.builds.trigger("team/job")

    def test_a_cancel_just_before_the_last_task_is_settled_counts(
        self, ci: DistCI, build: BuildId, another: Callable[[], DistCI]
    ) -> None:
        line, lifecycle = over_a_lossy_line(another())
        with by_hand(lifecycle.tickets, UNSERVED) as claim:
            last = claim()
            cancelled = before(line, writes(build), lambda: ci.builds.cancel(build, "too late?"))
            lifecycle.settle(last, "a", Outcome.passed(), {})

        view = end(ci, build)
        assert cancelled.is_set()
        assert (view.result, view.reason, states(view)) == (Result.CANCELLED, "too late?", {"a": PASSED})

    def test_a_cancel_just_after_the_last_task_was_settled_is_told_so(
        self, ci: DistCI, build: BuildId, another: Callable[[], DistCI]
    ) -> None:
        line, lifecycle = over_a_lossy_line(another())
        with by_hand(ci.tickets, UNSERVED) as claim:
            last = claim()
            settled = before(line, writes(build), lambda: ci.lifecycle.settle(last, "a", Outcome.passed(), {}))
            with pytest.raises(IllegalTransition, match=f"{build} has ended as passed"):
                Builds(lifecycle, ci.jobs).cancel(build)

        view = end(ci, build)
        assert settled.is_set()
        assert (view.result, view.reason, states(view)) == (Result.PASSED, "", {"a": PASSED})

    def test_before_anybody_planned_it(self, ci: DistCI, employ: Callable[..., WorkerProcess]) -> None:
        ci.jobs.put(job_of(shell("a", "echo ran"), shell("b", when="always")))
        build = ci.builds.trigger("team/job")

        ci.builds.cancel(build, "a mistake")
        assert ci.builds.get(build).state == "cancelling"
        with employ(ci.lifecycle):
            view = end(ci, build)

        assert (view.result, view.reason) == (Result.CANCELLED, "a mistake")
        assert states(view) == {"a": CANCELLED, "b": CANCELLED}
        assert all(task.attempts == () for task in view.tasks)

    def test_o01_while_its_tickets_wait(self, ci: DistCI, employ: Callable[..., WorkerProcess]) -> None:
        ci.jobs.put(job_of(shell("a"), shell("b", needs=[])))
        build = ci.builds.trigger("team/job")
        with employ(ci.lifecycle, kinds=["control"]):
            wait_until(lambda: ci.builds.get(build).state == "running")

            ci.builds.cancel(build)

            assert states(end(ci, build)) == {"a": CANCELLED, "b": CANCELLED}
        assert live_tickets(ci) == []

    def test_what_runs_is_asked_to_end_before_it_is_made_to(self, system: Any) -> None:
        script = "trap 'echo tidied; exit 3' TERM; echo ready; while :; do sleep 0.02; done"
        system.ci.jobs.put(job_of(shell("a", script), shell("b")))
        build = system.ci.builds.trigger("team/job")
        wait_until(lambda: is_task(system.ci, build, "a", TaskState.RUNNING))
        wait_until(lambda: b"ready" in b"".join(system.ci.builds.log(build, "a")))

        system.ci.builds.cancel(build)
        view = end(system.ci, build)

        assert states(view) == {"a": CANCELLED, "b": CANCELLED}
        assert system.log(view, "a").endswith("tidied\n")
        assert system.leftovers() == []

    def test_a_script_that_has_not_quite_begun_hears_of_it(
        self, system: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # A loaded machine may run the supervisor on while the command is still on its way.
        slow = tmp_path / "distci" / "isolation" / "supervisor.py"
        slow.parent.mkdir(parents=True)
        slow.write_text(Path(supervisor.__file__).read_text().replace("os.setsid()", "time.sleep(0.5), os.setsid()"))
        monkeypatch.setattr(supervisor, "__file__", str(slow))
        system.ci.jobs.put(job_of(shell("a", "sleep 60")))
        build = system.ci.builds.trigger("team/job")
        wait_until(lambda: is_task(system.ci, build, "a", TaskState.RUNNING))

        system.ci.builds.cancel(build)

        (attempt,) = end(system.ci, build).task("a").attempts
        assert (attempt["verdict"], attempt["signal"]) == ("cancelled", SIGTERM)

    def test_b06_a_build_that_is_over_stays_as_it_is(self, system: Any) -> None:
        view = system.run_tasks(shell("a"))

        with pytest.raises(IllegalTransition, match="team/job#1 has ended as passed"):
            system.ci.builds.cancel(view.id)

        assert system.ci.builds.get(view.id) == view

    def test_a_build_that_there_is_not_is_named(self, system: Any) -> None:
        with pytest.raises(NoSuchBuild, match="team/job#9"):
            system.ci.builds.cancel("team/job#9")

    def test_what_is_to_run_on_cancel_runs(self, system: Any, gate: Gate) -> None:
        system.ci.jobs.put(
            job_of(
                shell("long", gate.script),
                shell("tidy", "echo tidied", when="always", on_cancel=True),
                shell("tell", when="always", needs=["long"]),
            )
        )
        build = system.ci.builds.trigger("team/job")
        wait_until(lambda: is_task(system.ci, build, "long", TaskState.RUNNING))

        system.ci.builds.cancel(build)
        view = end(system.ci, build)

        assert view.result is Result.CANCELLED
        assert states(view) == {"long": CANCELLED, "tidy": PASSED, "tell": CANCELLED}
        assert system.log(view, "tidy") == "tidied\n"

    def test_cancelling_twice_is_as_cancelling_once(self, system: Any, gate: Gate) -> None:
        system.ci.jobs.put(job_of(shell("long", f"trap '' TERM; {gate.script}")))
        build = system.ci.builds.trigger("team/job")
        wait_until(lambda: is_task(system.ci, build, "long", TaskState.RUNNING))

        system.ci.builds.cancel(build, "first")
        system.ci.builds.cancel(build, "second")
        gate.open()

        view = end(system.ci, build)
        assert (view.result, view.reason) == (Result.CANCELLED, "first")
