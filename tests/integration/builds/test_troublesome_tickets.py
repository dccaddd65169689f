"""Tickets, plans and jobs that make no sense keep no other build from its end."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from integration.builds.playing import (
    CANCELLED,
    PASSED,
    UNSERVED,
    Gate,
    end,
    is_task,
    job_of,
    live_tickets,
    over_a_lossy_line,
    shell,
    states,
)
from waiting import wait_until

from distci.app import DistCI
from distci.coordination.port import Create, Node
from distci.errors import InvalidDocument, InvalidJob
from distci.jobs import JobVersion
from distci.model import BuildId, Result, TaskState, Trigger
from distci.process import WorkerProcess
from distci.protocol import Ticket, paths
from distci.store import keys


class TestTroublesomeTickets:
    def test_d26_tickets_that_make_no_sense_are_taken_out_of_the_way(self, system: Any, gate: Gate) -> None:
        system.ci.jobs.put(job_of(shell("long", gate.script), job="team/long"))
        long = system.ci.builds.trigger("team/long")
        wait_until(lambda: is_task(system.ci, long, "long", TaskState.RUNNING))

        # More of each than the worker has slots: none may stay taken.
        for number in range(4):
            system.ci.tickets.post(
                Ticket(f"no-body-{number}", "shell"),
                Ticket(f"no-build-{number}", "shell", {"build": "nonsense", "task": "a"}),
                Ticket(f"no-such-build-{number}", "shell", {"build": "team/none#1", "task": "a"}),
                Ticket(f"no-such-task-{number}", "shell", {"build": str(long), "task": "nonesuch"}),
                Ticket(f"no-text-{number}", "shell", {"build": [str(long)], "task": {"a": 1}}),
                Ticket(f"no-action-{number}", "control"),
                Ticket(f"no-such-action-{number}", "control", {"build": str(long), "action": "explode"}),
            )
        wait_until(lambda: all(place == "dead" for place, token in live_tickets(system.ci) if token.startswith("no-")))

        assert system.run_tasks(shell("a"), shell("b")).result is Result.PASSED
        assert system.ci.builds.get(long).state == "running"
        gate.open()
        assert end(system.ci, long).result is Result.PASSED

    def test_d26_tickets_that_cannot_be_read_are_set_aside_with_the_reason(self, system: Any) -> None:
        system.run_tasks(shell("a"))
        folder = f"{Ticket('x', 'shell').pool}/0"
        contents = [b"", b"\xff\x00", b"[]", b'{"f": 1}', b'{"f": 99, "id": "x"}']

        for number, data in enumerate(contents):
            name = Ticket(f"unreadable-{number}", "shell", posted_ms=1).name()
            assert system.ci.tickets.tree.commit(Create(f"{folder}/{name}", data)).committed

        assert system.run_tasks(shell("a"), shell("b")).result is Result.PASSED
        expected = [("dead", f"unreadable-{number}.1") for number in range(len(contents))]
        wait_until(lambda: live_tickets(system.ci) == expected)
        assert all(view.reason for view in system.ci.tickets.list())

    def test_d27_an_unknown_type_of_task_is_refused_when_the_job_is_saved(self, ci: DistCI) -> None:
        with pytest.raises(InvalidJob, match="there is no type of task 'shel'; did you mean 'shell'"):
            ci.jobs.put(job_of({"name": "a", "type": "shel", "script": "true"}))

    def test_d27_a_job_that_cannot_be_planned_fails_its_build_and_no_other(self, system: Any) -> None:
        stored = JobVersion("team/job", 1, job_of({"name": "a", "type": "unheard-of"}), "", "", 0.0)
        key = keys.job_version("team/job", 1)
        document = {"format": 1, "document": stored.document, "actor": "", "reason": "", "changed_s": 0.0}
        system.ci.store.put(key, json.dumps(document | {"deleted": False}).encode())

        view = end(system.ci, system.ci.lifecycle.create(stored, Trigger()))

        assert (view.result, [*view.tasks]) == (Result.FAILED, [])
        assert "there is no type of task 'unheard-of'" in view.reason
        assert system.run_tasks(shell("a"), job="team/other").result is Result.PASSED

    def test_d27_a_task_that_nobody_serves_waits_strands_no_one_and_can_be_cancelled(self, system: Any) -> None:
        system.ci.jobs.put(job_of({"name": "a", "type": UNSERVED}, job="team/robots"))
        build = system.ci.builds.trigger("team/robots")

        assert system.run_tasks(shell("a")).result is Result.PASSED
        assert is_task(system.ci, build, "a", TaskState.READY)
        system.ci.builds.cancel(build)
        assert end(system.ci, build).result is Result.CANCELLED

    def test_a_build_whose_plan_is_damaged_keeps_no_slot(
        self, ci: DistCI, another: Callable[[], DistCI], employ: Callable[..., WorkerProcess]
    ) -> None:
        ci.jobs.put(job_of(*(shell(f"task {number}", needs=[]) for number in range(5))))
        ci.jobs.put(job_of(shell("a"), job="team/other"))
        build = ci.builds.trigger("team/job")
        with employ(ci.lifecycle, kinds=["control"]):
            wait_until(lambda: ci.builds.get(build).state == "running")
        ci.store.put(keys.build_plan(build), b"damaged")

        with employ(another().lifecycle):
            wait_until(lambda: [place for place, _ in live_tickets(ci)] == ["dead"] * 5)
            assert end(ci, ci.builds.trigger("team/other")).result is Result.PASSED

    @pytest.mark.parametrize("how", ["damaged", "gone"])
    def test_a_build_whose_plan_cannot_be_read_can_be_seen_and_cancelled(
        self, ci: DistCI, another: Callable[[], DistCI], employ: Callable[..., WorkerProcess], how: str
    ) -> None:
        unserved = {"name": "b", "type": UNSERVED}
        ci.jobs.put(job_of(shell("a"), unserved, shell("c"), shell("d", when="always", on_cancel=True)))
        build = ci.builds.trigger("team/job")
        with employ(ci.lifecycle):
            wait_until(lambda: is_task(ci, build, "b", TaskState.READY))
        if how == "damaged":
            ci.store.put(keys.build_plan(build), b"damaged")
        else:
            ci.store.delete(keys.build_plan(build))

        later = another()
        assert [view.state for view in later.builds.list("team/job")] == ["running"]
        later.builds.cancel(build, "it hangs")
        with employ(later.lifecycle):
            view = end(later, build)

        assert (view.result, states(view)) == (
            Result.CANCELLED,
            {"a": PASSED, "b": CANCELLED, "c": CANCELLED, "d": CANCELLED},
        )
        assert view.reason.startswith("it hangs; ")
        assert view.task("a").attempts[0]["worker"]
        assert live_tickets(later) == []

    @pytest.mark.parametrize(
        "content", [b"", b'{"f": 1}', b'{"f": 1, "nonce": 1, "config": 1, "created_ms": 1, "trigger": []}']
    )
    def test_a_node_that_is_no_build_is_said_to_be_none(self, ci: DistCI, content: bytes) -> None:
        build = BuildId("team/job", 1)
        ci.tickets.tree.commit(Create(paths.build(build), content))
        with pytest.raises(InvalidDocument, match=paths.build(build)):
            ci.builds.get(build)

    def test_a_task_hears_of_the_cancel_though_the_builds_node_cannot_be_read_for_a_while(
        self, ci: DistCI, employ: Callable[..., WorkerProcess], gate: Gate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        line, lifecycle = over_a_lossy_line(ci)
        ci.jobs.put(job_of(shell("long", gate.script)))
        build = ci.builds.trigger("team/job")
        spoilt = 0

        def read(path: str) -> Node | None:
            nonlocal spoilt
            node = ci.coordination.read(path)
            if node and path == paths.build(build) and spoilt:
                spoilt -= 1
                return replace(node, data=b"spoilt")
            return node

        monkeypatch.setattr(line, "read", read)
        with employ(lifecycle):
            wait_until(lambda: is_task(ci, build, "long", TaskState.RUNNING))
            spoilt = 3
            ci.builds.cancel(build)

            assert end(ci, build).result is Result.CANCELLED
