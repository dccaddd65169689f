"""Builds of a group take turns."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from integration.builds.playing import Gate, by_hand, end, is_task, job_of, over_a_lossy_line, shell, supersede
from integration.conftest import tree
from waiting import wait_until

from distci.app import DistCI
from distci.errors import ClaimLost
from distci.model import BuildId, Result, TaskState
from distci.protocol import paths


def is_build(ci: DistCI, build: BuildId, state: str) -> bool:
    return ci.builds.get(build).state == state


class TestConcurrency:
    """How many builds of a group run at once, and how many tasks that hold a resource."""

    def test_c15_builds_of_a_group_take_turns_in_order(self, system: Any, gate: Gate, tmp_path: Path) -> None:
        order = tmp_path / "order"
        script = f'echo "$DISTCI_BUILD" >> {order}; {gate.script}'
        system.ci.jobs.put(job_of(shell("a", script), concurrency={}))
        first = system.ci.builds.trigger("team/job")
        wait_until(order.exists)

        rest = [system.ci.builds.trigger("team/job") for _ in range(3)]

        for build in rest:
            wait_until(partial(is_build, system.ci, build, "blocked"))
        assert system.ci.builds.get(first).state == "running"
        gate.open()
        for build in [first, *rest]:
            assert end(system.ci, build).result is Result.PASSED
        assert order.read_text().split() == ["1", "2", "3", "4"]
        assert not any(
            path.startswith((paths.PARKED, f"{paths.PERMITS}/group")) and path.count("/") > 2
            for path in tree(system.ci)
        )

    def test_c15_a_group_over_several_jobs_is_never_larger_than_its_limit(self, system: Any, tmp_path: Path) -> None:
        running = tmp_path / "running"
        running.mkdir()
        most = tmp_path / "most"
        script = f"touch {running}/$DISTCI_FENCE; ls {running} | wc -l >> {most}; rm {running}/$DISTCI_FENCE"
        for job in ("team/one", "team/two"):
            system.ci.jobs.put(job_of(shell("a", script), job=job, concurrency={"group": "boards", "limit": 2}))

        builds = [system.ci.builds.trigger(job) for _ in range(6) for job in ("team/one", "team/two")]

        assert {end(system.ci, build).result for build in builds} == {Result.PASSED}
        assert max(map(int, most.read_text().split())) <= 2

    def test_c15_a_newer_build_cancels_the_older_ones(self, system: Any, gate: Gate) -> None:
        system.ci.jobs.put(job_of(shell("a", gate.script), concurrency={"policy": "cancel-old"}))
        old = system.ci.builds.trigger("team/job")
        wait_until(lambda: is_task(system.ci, old, "a", TaskState.RUNNING))

        new = system.ci.builds.trigger("team/job")

        assert (end(system.ci, old).result, system.ci.builds.get(old).reason) == (
            Result.CANCELLED,
            f"superseded by {new}",
        )
        wait_until(lambda: is_task(system.ci, new, "a", TaskState.RUNNING))
        gate.open()
        assert end(system.ci, new).result is Result.PASSED

    def test_c15_of_those_that_wait_the_latest_is_kept(self, system: Any, gate: Gate) -> None:
        system.ci.jobs.put(job_of(shell("a", gate.script), concurrency={"policy": "keep-latest"}))
        builds = []
        for state in ("running", "blocked", "blocked"):
            builds.append(system.ci.builds.trigger("team/job"))
            wait_until(partial(is_build, system.ci, builds[-1], state))

        assert end(system.ci, builds[1]).reason == f"superseded by {builds[2]}"
        gate.open()

        assert [end(system.ci, build).state for build in builds] == ["passed", "cancelled", "passed"]

    def test_c15_a_build_that_finds_its_group_full_may_end_at_once(self, system: Any, gate: Gate) -> None:
        system.ci.jobs.put(job_of(shell("a", gate.script), concurrency={"policy": "reject"}))
        first = system.ci.builds.trigger("team/job")
        wait_until(lambda: is_task(system.ci, first, "a", TaskState.RUNNING))

        view = end(system.ci, system.ci.builds.trigger("team/job"))

        assert (view.result, view.reason) == (Result.CANCELLED, f"rejected: {first} of its group ran")
        gate.open()
        assert end(system.ci, first).result is Result.PASSED

    def test_c15_a_build_that_waits_for_its_turn_can_be_cancelled(self, system: Any, gate: Gate) -> None:
        system.ci.jobs.put(job_of(shell("a", gate.script), concurrency={}))
        first = system.ci.builds.trigger("team/job")
        wait_until(partial(is_build, system.ci, first, "running"))
        second = system.ci.builds.trigger("team/job")
        wait_until(partial(is_build, system.ci, second, "blocked"))

        system.ci.builds.cancel(second)

        assert end(system.ci, second).result is Result.CANCELLED
        gate.open()
        assert end(system.ci, first).result is Result.PASSED

    @pytest.mark.parametrize("committed", [True, False])
    def test_c15_a_place_is_neither_lost_nor_doubled_when_answers_are_lost(
        self, ci: DistCI, employ: Any, committed: bool
    ) -> None:
        line, lifecycle = over_a_lossy_line(ci)
        ci.jobs.put(job_of(shell("a"), concurrency={}))
        builds = [ci.builds.trigger("team/job") for _ in range(5)]

        line.lose_answer(committed=committed, when=lambda operations: any("group" in step.path for step in operations))
        with employ(lifecycle):
            results = {end(ci, build).result for build in builds}

        assert results == {Result.PASSED}

    def test_c15_a_control_worker_that_comes_back_late_takes_no_second_place(
        self, ci: DistCI, employ: Any, gate: Gate
    ) -> None:
        ci.jobs.put(job_of(shell("a", gate.script), concurrency={"limit": 2}))
        build = ci.builds.trigger("team/job")
        with by_hand(ci.tickets, "control") as claim_next:
            late = claim_next()
            supersede(ci, late)
            with employ(ci.lifecycle):
                wait_until(lambda: is_task(ci, build, "a", TaskState.RUNNING))

                with pytest.raises(ClaimLost):
                    ci.lifecycle.plan(late)

                assert len(ci.coordination.children(paths.permit_folder("group:team/job"))) == 1
                gate.open()
                assert end(ci, build).result is Result.PASSED
        assert ci.coordination.children(paths.permit_folder("group:team/job")) == ()

    def test_c15_tasks_of_all_builds_share_a_resource(self, system: Any, gate: Gate) -> None:
        system.ci.jobs.put(job_of(shell("a", gate.script, resources=["board"])))
        first = system.ci.builds.trigger("team/job")
        wait_until(lambda: is_task(system.ci, first, "a", TaskState.RUNNING))
        second = system.ci.builds.trigger("team/job")
        wait_until(lambda: is_task(system.ci, second, "a", TaskState.BLOCKED))
        third = system.ci.builds.trigger("team/job")
        wait_until(lambda: is_task(system.ci, third, "a", TaskState.BLOCKED))

        system.ci.builds.cancel(third)

        assert end(system.ci, third).result is Result.CANCELLED
        gate.open()
        assert [end(system.ci, build).result for build in (first, second)] == [Result.PASSED] * 2

    def test_c15_a_task_that_needs_two_resources_takes_none_while_one_is_missing(self, system: Any, gate: Gate) -> None:
        system.ci.jobs.put(job_of(shell("a", gate.script, resources=["left"]), job="team/left"))
        system.ci.jobs.put(job_of(shell("a", resources=["right", "left"]), job="team/both"))
        system.ci.jobs.put(job_of(shell("a", resources=["right"]), job="team/right"))
        left = system.ci.builds.trigger("team/left")
        wait_until(lambda: is_task(system.ci, left, "a", TaskState.RUNNING))
        both = system.ci.builds.trigger("team/both")
        wait_until(lambda: is_task(system.ci, both, "a", TaskState.BLOCKED))

        assert end(system.ci, system.ci.builds.trigger("team/right")).result is Result.PASSED

        gate.open()
        assert {end(system.ci, build).result for build in (left, both)} == {Result.PASSED}
