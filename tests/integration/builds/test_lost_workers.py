"""Workers that die, hang or are drained amid a build."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from integration.builds.playing import (
    PASSED,
    SKIPPED,
    UNSERVED,
    Gate,
    by_hand,
    end,
    is_task,
    job_of,
    live_tickets,
    reclaim,
    running,
    shell,
    states,
    supersede,
)
from waiting import wait_until

from distci.app import DistCI
from distci.brokers.direct import Direct
from distci.errors import ClaimLost, NoSuchBuild, StoreUnavailable
from distci.isolation.host import HostIsolation
from distci.model import Outcome, Result, TaskState
from distci.process import WorkerProcess
from distci.protocol import Member, Offer, Sweeper, members, paths, sweeps
from distci.protocol.members import drain, workers
from distci.store import keys
from distci.store.directory import DirectoryStore
from distci.work import Site
from distci.worker_loop import Tasks, serve
from distci_workers.shell import ShellWorker


class TestLostWorkers:
    def lose_a_worker(self, another: Callable[[], DistCI], kind: str, told: list[str]) -> None:
        """A worker claims a ticket and is gone, as when the task has killed it."""
        with another() as victim, by_hand(victim.tickets, kind) as claim:
            told.append(claim().token)

    def test_an_outcome_that_was_stored_counts_though_its_worker_died_before_it_said_so(
        self, system: Any, another: Callable[[], DistCI]
    ) -> None:
        # Given the last attempt allowed, and what it came to on record
        system.ci.jobs.put(job_of({"name": "last", "type": UNSERVED, "attempts": 1}))
        build = system.ci.builds.trigger("team/job")
        with another() as victim, by_hand(victim.tickets, UNSERVED) as claim:
            token = claim().token
            document = {"f": 1, "verdict": "passed", "reason": "", "attempt": 1}
            system.ci.store.put(keys.attempt_outcome(build, "last", token), json.dumps(document).encode())

        # When its worker is lost before it committed that
        wait_until(lambda: reclaim(system.ci) > 0 or not running(system.ci, token))

        # Then that is what counts
        assert states(end(system.ci, build)) == {"last": PASSED}

    def test_an_outcome_that_comes_late_changes_no_record(self, system: Any, another: Callable[[], DistCI]) -> None:
        # Given a task that was lost for good
        system.ci.jobs.put(job_of({"name": "last", "type": UNSERVED, "attempts": 1}))
        build = system.ci.builds.trigger("team/job")
        with another() as victim, by_hand(victim.tickets, UNSERVED) as claim:
            late = claim()
        wait_until(lambda: reclaim(system.ci) > 0 or not running(system.ci, late.token))
        before = end(system.ci, build)

        # When its worker puts what the attempt came to on record after all
        with pytest.raises((ClaimLost, NoSuchBuild)):
            system.ci.lifecycle.settle(late, "last", Outcome.passed(), {})

        # Then the record stays, as does what it was made of
        stored = json.loads(system.ci.store.get(keys.attempt_outcome(build, "last", late.token)))
        assert (states(before), stored["verdict"]) == ({"last": TaskState.LOST}, "lost")

    def test_c07_o02_a_task_that_kills_its_workers_is_lost_after_its_attempts(
        self, system: Any, another: Callable[[], DistCI]
    ) -> None:
        poison = {"name": "poison", "type": UNSERVED, "attempts": 2}
        system.ci.jobs.put(job_of(poison, shell("rest"), shell("tell", when="failure")))
        build = system.ci.builds.trigger("team/job")
        claimed: list[str] = []

        for _ in range(2):
            self.lose_a_worker(another, UNSERVED, claimed)
            wait_until(lambda: reclaim(system.ci) > 0 or not running(system.ci, claimed[-1]))
        view = end(system.ci, build)

        assert view.result is Result.FAILED
        assert states(view) == {"poison": TaskState.LOST, "rest": SKIPPED, "tell": PASSED}
        assert view.task("poison").token == claimed[-1]
        assert view.task("poison").reason == f"its worker hand of {UNSERVED} was lost"
        assert [paths.attempt_of(token) for token in claimed] == [1, 2]
        assert live_tickets(system.ci) == []

    def test_other_builds_are_none_the_worse_for_it(self, system: Any, another: Callable[[], DistCI]) -> None:
        system.ci.jobs.put(job_of({"name": "poison", "type": UNSERVED}, job="team/poison"))
        system.ci.builds.trigger("team/poison")
        self.lose_a_worker(another, UNSERVED, [])

        assert system.run_tasks(shell("a"), shell("b")).result is Result.PASSED

    def test_c04_a_task_whose_worker_died_is_done_by_the_next_one(
        self, ci: DistCI, another: Callable[[], DistCI], employ: Callable[..., WorkerProcess]
    ) -> None:
        ci.jobs.put(job_of(shell("say", "echo attempt $DISTCI_ATTEMPT $DISTCI_FENCE")))
        build = ci.builds.trigger("team/job")
        claimed: list[str] = []
        with employ(ci.lifecycle, kinds=["control"]):
            self.lose_a_worker(another, "shell", claimed)
        wait_until(lambda: reclaim(ci) > 0 or not running(ci, claimed[0]))

        with employ(ci.lifecycle):
            view = end(ci, build)

        token = view.task("say").token
        assert view.result is Result.PASSED
        assert paths.ticket_of(token) == paths.ticket_of(claimed[0])
        assert b"".join(ci.builds.log(build, "say")) == f"attempt 2 {token}\n".encode()

    def test_that_a_worker_has_gone_is_seen_between_two_sweeps(
        self,
        ci: DistCI,
        another: Callable[[], DistCI],
        employ: Callable[..., WorkerProcess],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        # Given a process that sweeps once an hour, and has seen the worker that holds a claim
        monkeypatch.setattr(sweeps, "SWEEP_S", 3600.0)
        looks = 0
        look = Sweeper.look

        def counted(sweeper: Sweeper) -> int:
            nonlocal looks
            looks += 1
            return look(sweeper)

        monkeypatch.setattr(Sweeper, "look", counted)
        ci.jobs.put(job_of(shell("say", "echo hello")))
        ci.builds.trigger("team/job")
        with employ(ci.lifecycle, kinds=["control"]):
            with another() as victim, by_hand(victim.tickets, "shell") as claim:
                token = claim().token
                seen = looks
                wait_until(lambda: looks >= seen + 2)

            # When that worker goes, its claim is taken over
            wait_until(lambda: not running(ci, token))

        assert [view.token for view in ci.tickets.list()] == [paths.token(paths.ticket_of(token), 2)]

    def test_d13_a_worker_that_comes_back_late_changes_nothing(
        self, ci: DistCI, another: Callable[[], DistCI], employ: Callable[..., WorkerProcess]
    ) -> None:
        ci.jobs.put(job_of(shell("say", "echo the right one")))
        build = ci.builds.trigger("team/job")
        late = another()
        with employ(ci.lifecycle, kinds=["control"]), by_hand(late.tickets, "shell") as claim:
            zombie = claim()
            supersede(ci, zombie)
        with employ(ci.lifecycle):
            view = end(ci, build)
        record = ci.store.get(keys.build_record(build))

        with pytest.raises((ClaimLost, NoSuchBuild)):
            late.lifecycle.settle(zombie, "say", Outcome.failed("the wrong one"), {})

        assert view.result is Result.PASSED
        assert ci.store.get(keys.build_record(build)) == record
        assert ci.builds.get(build) == view

    @pytest.mark.parametrize("script", ["echo the end", "exec head -c 40000000 /dev/zero"])
    def test_d13_a_lost_claim_is_left_at_once_though_its_log_cannot_be_stored(
        self,
        ci: DistCI,
        employ: Callable[..., WorkerProcess],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        script: str,
    ) -> None:
        # Given a task whose log waits for a store that is away
        is_away = Event()
        put: Callable[..., None] = DirectoryStore.put

        def refuse(store: DirectoryStore, key: str, data: Any) -> None:
            if "/say/" in key:
                is_away.set()
                raise StoreUnavailable("away on purpose")
            put(store, key, data)

        monkeypatch.setattr(DirectoryStore, "put", refuse)
        ci.jobs.put(job_of(shell("say", script)))
        ci.builds.trigger("team/job")
        site = Site(HostIsolation(), tmp_path / "attempts", os.defpath, {})
        with (
            employ(ci.lifecycle, kinds=["control"]),
            by_hand(ci.tickets, "shell") as claim,
            ThreadPoolExecutor() as pool,
        ):
            lost = claim()
            serving = pool.submit(Tasks(ShellWorker(), site, Direct(ci.lifecycle, ci.store)).serve, lost)
            is_away.wait()

            # When the claim is lost
            lost.lost.set()

            # Then nobody waits for the store, and nothing is left
            try:
                error = serving.exception(20)
            finally:
                monkeypatch.undo()
            assert isinstance(error, ClaimLost | StoreUnavailable)
            assert list(site.scratch.iterdir()) == []

    def test_what_one_machine_cannot_do_is_left_to_others(
        self, ci: DistCI, employ: Callable[..., WorkerProcess], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        # Given a worker whose disk takes nothing, and that begins first
        monkeypatch.setattr(members, "REST_MIN_S", 600.0)
        (tmp_path / "disk").touch()
        broken = Site(HostIsolation(), tmp_path / "disk", os.defpath, {})
        ci.jobs.put(job_of(shell("say", attempts=2)))
        build = ci.builds.trigger("team/job")
        with (
            employ(ci.lifecycle, kinds=["control"]),
            Member(ci.tickets, Offer(["shell"]), "broken", slots=2) as member,
            ThreadPoolExecutor() as pool,
        ):
            serving = pool.submit(serve, member, Tasks(ShellWorker(), broken, Direct(ci.lifecycle, ci.store)).serve)
            try:
                wait_until(lambda: any(token.endswith(".2") for _, token in live_tickets(ci)))

                # When there is another one
                with employ(ci.lifecycle, kinds=["shell"], name="sound"):
                    view = end(ci, build)
            finally:
                member.drain()
            serving.result()

        # Then that does it
        assert states(view) == {"say": PASSED}
        assert view.task("say").attempts[-1]["worker"] == "sound-shell"


class TestDraining:
    def test_c14_a_drained_worker_ends_what_it_holds_and_takes_nothing_more(
        self, ci: DistCI, employ: Callable[..., WorkerProcess], gate: Gate
    ) -> None:
        ci.jobs.put(job_of(shell("first", gate.script), shell("second")))
        ci.jobs.put(job_of(shell("a"), job="team/other"))
        build = ci.builds.trigger("team/job")
        with employ(ci.lifecycle, name="old") as old:
            wait_until(lambda: is_task(ci, build, "first", TaskState.RUNNING))
            (worker,) = workers(ci.tickets)

            drain(ci.tickets, worker.name)
            wait_until(lambda: old.is_draining)
            other = ci.builds.trigger("team/other")
            assert not old.wait(0.3)
            gate.open()
            assert old.wait(20)

        assert states(ci.builds.get(build)) == {"first": PASSED, "second": TaskState.READY}
        assert ci.builds.get(other).state == "planning"
        with employ(ci.lifecycle, name="new"):
            assert (end(ci, build).result, end(ci, other).result) == (Result.PASSED, Result.PASSED)
