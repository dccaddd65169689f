"""Waiting for builds, following and listing them."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import file_digest, sha256
from pathlib import Path
from random import Random
from threading import Event
from typing import Any

import pytest
from integration.builds.playing import UNSERVED, Gate, end, ids, is_task, job_of, shell
from waiting import wait_until

from distci import console
from distci.app import DistCI
from distci.errors import NoSuchBuild, NoSuchTask
from distci.lifecycle import Lifecycle
from distci.model import Result, TaskState
from distci.process import WorkerProcess
from distci.protocol import paths
from distci.protocol.members import workers
from distci.testing import LossyStore

LARGE_BYTES = 100_000_000

CLOCK_STEP_MS = 50
"""By which the tree's clock may differ from ours on one machine."""


class TestLookingOn:
    def test_waiting_for_a_build_leaves_nothing_behind(self, system: Any) -> None:
        view = system.run_tasks(shell("a"))
        system.ci.builds.wait(view.id)
        watches = vars(vars(system.ci.coordination)["_watches"])["_events"]
        # Whoever ran the task watched it, too, and looks away a moment later.
        wait_until(lambda: not [path for path in [*watches] if path.endswith(paths.build(view.id))])

    def test_waiting_ends_with_the_build_or_the_time(self, system: Any, gate: Gate) -> None:
        system.ci.jobs.put(job_of(shell("long", gate.script)))
        build = system.ci.builds.trigger("team/job")
        wait_until(lambda: is_task(system.ci, build, "long", TaskState.RUNNING))

        view = system.ci.builds.wait(build, 0.1)
        assert (view.state, view.result, view.is_archived, view.finished_ms) == ("running", None, False, 0)

        gate.open()
        view = system.ci.builds.wait(str(build), 30)
        assert (view.state, view.result, view.is_archived) == ("passed", Result.PASSED, True)

    def test_a_build_that_there_is_not_is_not_waited_for(self, ci: DistCI) -> None:
        with pytest.raises(NoSuchBuild, match="there is no build team/job#3"):
            ci.builds.wait("team/job#3")

    def test_a_running_task_names_its_worker(self, system: Any, gate: Gate) -> None:
        system.ci.jobs.put(job_of(shell("long", gate.script), shell("next")))
        build = system.ci.builds.trigger("team/job")
        wait_until(lambda: is_task(system.ci, build, "long", TaskState.RUNNING))

        long, following = system.ci.builds.get(build).tasks

        assert [long.worker] == [worker.name for worker in workers(system.ci.tickets)]
        assert (following.state, following.worker, following.token) == (TaskState.WAITING, "", "")

    def test_a_build_and_its_tasks_tell_since_when_they_wait_or_run(self, system: Any, gate: Gate) -> None:
        tasks = [
            shell("first"),
            shell("long", gate.script, needs=["first"]),
            shell("last", needs=["long"]),
            {"name": "robot", "type": UNSERVED, "needs": ["first"]},
        ]
        system.ci.jobs.put(job_of(*tasks))
        build = system.ci.builds.trigger("team/job")
        wait_until(lambda: is_task(system.ci, build, "long", TaskState.RUNNING))

        view = system.ci.builds.get(build)
        reasons = {reason.subject: reason.since_ms for reason in system.ci.why.build(build)}

        first_ended_ms = view.task("first").attempts[-1]["ended_ms"]
        assert (view.task("first").since_ms, view.task("last").since_ms) == (0, view.created_ms)
        assert (view.task("robot").state, view.task("robot").since_ms) == (TaskState.READY, first_ended_ms)
        assert view.task("long").since_ms >= first_ended_ms - CLOCK_STEP_MS
        assert reasons == {str(build): view.created_ms} | {
            f"{build} {task.name}": task.since_ms for task in view.tasks if task.name != "first"
        }
        gate.open()
        system.ci.builds.cancel(build)
        assert {task.since_ms for task in end(system.ci, build).tasks} == {0}

    def test_a_task_that_there_is_not_is_answered_with_those_there_are(self, system: Any) -> None:
        view = system.run_tasks(shell("a"), shell("b"))

        with pytest.raises(NoSuchTask, match="has no task 'c'; its tasks: a, b"):
            view.task("c")

    def test_o2_a_log_is_followed_while_it_is_written(self, system: Any, gate: Gate) -> None:
        system.ci.jobs.put(job_of(shell("first", f"echo one; {gate.script}; echo two"), shell("second", "echo three")))
        pieces = system.ci.builds.follow(system.ci.builds.trigger("team/job"))

        begun, before = next(pieces), next(pieces)
        gate.open()
        rest = list(pieces)

        assert (begun.task, begun.offset, begun.data) == ("first", 0, b"")
        assert (before.task, before.offset, before.data) == ("first", 0, b"one\n")
        assert [(piece.task, piece.offset) for piece in rest] == [("first", 4), ("second", 0), ("second", 0)]
        assert b"".join(piece.data for piece in rest) == b"two\nthree\n"

    def test_d22_100_mb_over_a_bad_line_are_read_and_followed_byte_by_byte(
        self, ci: DistCI, employ: Callable[..., WorkerProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given a line to the store that fails, loses answers and delivers twice, and a script that prints any bytes
        monkeypatch.setattr(console, "RETRY_S", 0.01)
        line, chance = LossyStore(ci.store), Random(22)
        line.fails = lambda: chance.choice(["before", "after", "twice", "", "", ""])
        printed = tmp_path / "printed"
        ci.jobs.put(job_of(shell("print", f"head -c {LARGE_BYTES} /dev/urandom | tee {printed}", secrets=["TOKEN"])))

        # When its log is followed, and read afterwards
        followed, followed_bytes, read = sha256(), 0, sha256()
        with employ(Lifecycle(ci.tickets, line, ci.jobs), secrets={"": {"TOKEN": "robot:t0p-secret"}}):
            build = ci.builds.trigger("team/job")
            for piece in ci.builds.follow(build):
                assert piece.offset == followed_bytes
                followed.update(piece.data)
                followed_bytes += len(piece.data)
            view = end(ci, build)
        for data in ci.builds.log(build, "print"):
            read.update(data)

        # Then both are what was printed
        assert len(line.put_keys) > len(set(line.put_keys)) > LARGE_BYTES / console.CHUNK_BYTES
        assert (view.result, view.task("print").attempts[-1]["log_bytes"]) == (Result.PASSED, LARGE_BYTES)
        with printed.open("rb") as file:
            assert followed.digest() == read.digest() == file_digest(file, "sha256").digest()
        assert printed.stat().st_size == followed_bytes == LARGE_BYTES

    def test_to_follow_a_task_that_there_is_not_is_no_silence(self, system: Any) -> None:
        view = system.run_tasks(shell("a", "echo one"), shell("b"))

        with pytest.raises(NoSuchTask, match="has no task 'c'; its tasks: a, b"):
            list(system.ci.builds.follow(view.id, ["a", "c"]))
        assert {piece.task for piece in system.ci.builds.follow(view.id, "a")} == {"a"}

    def test_only_some_tasks_are_followed_until_one_has_seen_enough(self, system: Any, gate: Gate) -> None:
        system.ci.jobs.put(job_of(shell("first", "echo one"), shell("second", f"echo two; {gate.script}")))
        stop = Event()
        pieces = system.ci.builds.follow(system.ci.builds.trigger("team/job"), ["second"], stop)

        assert [next(pieces).data for _ in range(2)] == [b"", b"two\n"]
        stop.set()

        assert list(pieces) == []

    def test_builds_are_listed_the_newest_first_and_some_at_a_time(self, system: Any, gate: Gate) -> None:
        for _ in range(3):
            system.run_tasks(shell("a"))
        system.ci.jobs.put(job_of(shell("long", gate.script)))
        system.ci.builds.trigger("team/job")
        builds = system.ci.builds

        assert ids(builds.list("team/job")) == ["team/job#4", "team/job#3", "team/job#2", "team/job#1"]
        assert ids(builds.list("team/job", limit=2)) == ["team/job#4", "team/job#3"]
        assert ids(builds.list("team/none")) == []
