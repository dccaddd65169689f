"""The life of builds, from the wish for one to its record, the same on the embedded tree and on ZooKeeper."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from fnmatch import fnmatch
from functools import partial
from hashlib import file_digest, sha256
from pathlib import Path
from random import Random
from signal import SIGTERM
from threading import Event
from typing import Any

import pytest
from integration.conftest import tree
from waiting import wait_until

from distci import console
from distci.app import DistCI, connect
from distci.builds import Builds, BuildView
from distci.coordination.port import Create, Delete, Node, Operation, Write
from distci.errors import (
    ClaimLost,
    Damaged,
    IllegalTransition,
    InvalidDocument,
    InvalidJob,
    NoSuchBuild,
    NoSuchJob,
    NoSuchTask,
    StoreUnavailable,
    Unavailable,
    VersionConflict,
)
from distci.isolation import supervisor
from distci.isolation.host import HostIsolation
from distci.jobs import JobVersion
from distci.lifecycle import Lifecycle
from distci.model import BuildId, Outcome, Result, TaskState, Trigger
from distci.process import Post, WorkerProcess
from distci.protocol import Claim, Member, Offer, Sweeper, Ticket, Tickets, members, paths
from distci.protocol.members import drain, workers
from distci.store import keys
from distci.store.directory import DirectoryStore
from distci.testing import CutCoordination, LossyCoordination, LossyStore
from distci.work import Site, Tasks, serve
from distci_workers.shell import ShellWorker

KINDS = ("control", "shell", "publish-artifacts", "copy-artifacts")
UNSERVED = "acme.robot"
"""A type of task that no worker of these tests is there for, unless a test makes one by hand."""

LARGE_BYTES = 100_000_000

PASSED, FAILED, SKIPPED = TaskState.PASSED, TaskState.FAILED, TaskState.SKIPPED
CANCELLED, REUSED = TaskState.CANCELLED, TaskState.REUSED


@pytest.fixture(params=["sqlite", "zookeeper"])
def coordination_url(request: pytest.FixtureRequest) -> str | None:
    return str(request.getfixturevalue("zookeeper_url")) if request.param == "zookeeper" else None


@pytest.fixture
def ci(tmp_path: Path, coordination_url: str | None) -> Iterator[DistCI]:
    """A system that nobody works for until a test says so."""
    with connect(tmp_path / "data", coordination=coordination_url, actor="tester") as connected:
        yield connected


@pytest.fixture
def another(tmp_path: Path, coordination_url: str | None) -> Iterator[Callable[[], DistCI]]:
    """Connects to the same system once more, in a session of its own."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(connect(tmp_path / "data", coordination=coordination_url))


@pytest.fixture
def employ(tmp_path: Path) -> Callable[..., WorkerProcess]:
    """Makes a worker process; it works while its context is entered."""

    def make(
        lifecycle: Lifecycle, *, kinds: Sequence[str] = KINDS, name: str = "worker", **options: Any
    ) -> WorkerProcess:
        posts = [Post(kinds, slots=4)]
        scratch = tmp_path / "scratch"
        return WorkerProcess(
            lifecycle, lifecycle.store, HostIsolation(), scratch, posts, search_path=os.defpath, name=name, **options
        )

    return make


class Gate:
    """Holds scripts up until it is opened."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "open"
        self.script = f"until test -e {self._file}; do sleep 0.02; done"

    def open(self) -> None:
        self._file.touch()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path)
    yield gate
    gate.open()


def shell(name: str, script: str = "true", **keys: Any) -> dict[str, Any]:
    return {"name": name, "type": "shell", "script": script, **keys}


def job_of(*tasks: Mapping[str, Any], job: str = "team/job", **keys: Any) -> dict[str, Any]:
    return {"job": job, "tasks": [*tasks], **keys}


def after(job: str, **keys: Any) -> list[dict[str, Any]]:
    return [{"type": "job", "job": job, **keys}]


def states(view: BuildView) -> dict[str, TaskState]:
    return {task.name: task.state for task in view.tasks}


def is_task(ci: DistCI, build: BuildId, name: str, state: TaskState) -> bool:
    return states(ci.builds.get(build)).get(name) is state


def is_build(ci: DistCI, build: BuildId, state: str) -> bool:
    return ci.builds.get(build).state == state


def ids(views: Iterator[BuildView]) -> list[str]:
    return [str(view.id) for view in views]


def live_tickets(ci: DistCI) -> list[tuple[str, str]]:
    return [(view.place, view.token) for view in ci.tickets.list()]


def running(ci: DistCI, token: str) -> bool:
    return token in ci.tickets.running_tokens()


def end(ci: DistCI, build: BuildId | str) -> BuildView:
    """The build once it is archived."""
    view = ci.builds.wait(build, 30)
    assert view.is_archived, f"{build} is still {view.state}: {states(view)}"
    return view


def reclaim(ci: DistCI) -> int:
    """Take over what has no heartbeat any more, without the grace that a real sweeper gives."""
    return Sweeper(ci.tickets, "hand", lambda: ["hand"], grace_s=0).sweep()


@contextmanager
def by_hand(tickets: Tickets, *kinds: str) -> Iterator[Callable[[], Claim]]:
    """A worker whose claims a test serves itself."""
    with Member(tickets, Offer(kinds), f"hand of {'+'.join(kinds)}", slots=8) as member:
        claims = member.claims()
        yield lambda: next(claims)


def over_a_lossy_line(ci: DistCI) -> tuple[LossyCoordination, Lifecycle]:
    line = LossyCoordination(ci.coordination)
    return line, Lifecycle(Tickets(line), ci.store, ci.jobs)


def makes_build_of(job: str) -> Callable[[Sequence[Operation]], bool]:
    """Picks the transactions that would make a build of the job."""
    folded = job.replace("/", ":")

    def makes(operations: Sequence[Operation]) -> bool:
        return any(
            isinstance(step, Create) and step.path.startswith(f"{paths.BUILDS}/") and f"/{folded}:" in step.path
            for step in operations
        )

    return makes


def writes(build: BuildId) -> Callable[[Sequence[Operation]], bool]:
    """Picks the transactions that would change the build's node."""
    return lambda operations: any(isinstance(step, Write) and step.path == paths.build(build) for step in operations)


def before(line: LossyCoordination, picks: Callable[[Sequence[Operation]], bool], act: Callable[[], object]) -> Event:
    """Act right before the first transaction over the line that ``picks`` picks; set when that has been done."""
    is_done = Event()

    def look(operations: Sequence[Operation]) -> bool:
        if not is_done.is_set() and picks(operations):
            is_done.set()
            act()
        return False

    line.lose_answer(committed=True, when=look)
    return is_done


class TestTriggering:
    def test_a_job_of_four_tasks_goes_from_the_trigger_to_the_archived_record(self, system: Any) -> None:
        view = system.run_tasks(
            shell("source", "echo one > file"),
            shell("test", "test -s file", needs=["source"]),
            shell("package", "tar cf file.tar file", needs=["source"]),
            {"name": "publish", "type": "publish-artifacts", "paths": ["*.tar"], "needs": ["test", "package"]},
        )

        assert (str(view.id), view.state, view.result, view.config) == ("team/job#1", "passed", Result.PASSED, 1)
        assert set(states(view).values()) == {PASSED}
        assert (view.trigger.kind, view.trigger.actor) == ("manual", "tester")
        assert 0 < view.created_ms <= view.task("source").attempts[-1]["started_ms"] <= view.finished_ms
        assert [artifact.name for artifact in system.ci.artifacts.list(view.id)] == ["file.tar"]

    def test_an_ended_build_leaves_only_its_number_in_the_tree(self, system: Any) -> None:
        system.run_tasks(shell("a"), shell("b"))

        wait_until(lambda: not live_tickets(system.ci))
        assert system.ci.coordination.children(paths.build_shard(BuildId("team/job", 1))) == ()
        assert [path for path in tree(system.ci) if path.startswith(paths.JOBS)] == ["/jobs/team:job"]

    def test_d06_j10_numbers_are_dense_though_many_trigger_at_once(
        self, ci: DistCI, another: Callable[[], DistCI]
    ) -> None:
        ci.jobs.put(job_of(shell("a")))
        sessions = [ci, another()]

        with ThreadPoolExecutor(16) as people:
            asked = [people.submit(sessions[person % 2].builds.trigger, "team/job") for person in range(16)]

        assert sorted(build.result().number for build in asked) == [*range(1, 17)]

    def test_d16_deleting_a_job_does_not_give_its_numbers_away_again(self, system: Any) -> None:
        for _ in range(2):
            system.run_tasks(shell("a"))

        system.ci.jobs.delete("team/job")
        view = system.run_tasks(shell("a"))

        assert str(view.id) == "team/job#3"
        assert ids(system.ci.builds.list("team/job")) == ["team/job#3", "team/job#2", "team/job#1"]

    def test_d16_a_tree_that_forgot_the_last_number_finds_it_in_the_store(self, system: Any) -> None:
        for _ in range(3):
            system.run_tasks(shell("a"))

        system.ci.coordination.commit(Delete(paths.job("team/job")))

        assert str(system.ci.builds.trigger("team/job")) == "team/job#4"

    def test_d19_a_build_runs_the_version_that_was_in_force_when_it_was_triggered(
        self, ci: DistCI, employ: Callable[..., WorkerProcess]
    ) -> None:
        ci.jobs.put(job_of(shell("say", "echo old")))
        build = ci.builds.trigger("team/job")
        ci.jobs.put(job_of(shell("say", "echo new")))

        with employ(ci.lifecycle):
            view = end(ci, build)

        assert view.config == 1
        assert b"".join(ci.builds.log(build, "say")) == b"old\n"

    def test_d07_a_job_that_there_is_not_leaves_nothing_behind(self, ci: DistCI) -> None:
        before, stored = tree(ci), ci.store.list("")

        with pytest.raises(NoSuchJob, match="there is no job 'team/none'"):
            ci.builds.trigger("team/none")

        assert tree(ci) == before
        assert ci.store.list("") == stored

    def test_wrong_parameters_are_all_named_and_leave_nothing_behind(self, ci: DistCI) -> None:
        ci.jobs.put(job_of(shell("a"), parameters={"LEVEL": {"choices": ["fast", "full"]}, "NAME": {"required": True}}))
        before = tree(ci)

        with pytest.raises(InvalidJob) as refused:
            ci.builds.trigger("team/job", {"LEVEL": "ful", "OTHER": "x"})

        assert [problem.partition(":")[0] for problem in refused.value.problems] == [
            "parameters.LEVEL",
            "parameters.OTHER",
            "parameters.NAME",
        ]
        assert tree(ci) == before

    def test_asking_with_the_same_cause_gives_the_same_build(self, ci: DistCI, another: Callable[[], DistCI]) -> None:
        ci.jobs.put(job_of(shell("a")))
        sessions = [ci, another()]

        with ThreadPoolExecutor(8) as hooks:
            asked = [
                hooks.submit(sessions[hook % 2].builds.trigger, "team/job", cause="delivery 7") for hook in range(8)
            ]

        assert {str(build.result()) for build in asked} == {"team/job#1"}
        assert ids(ci.builds.list("team/job")) == ["team/job#1"]

    def test_what_made_somebody_ask_is_on_record(self, system: Any) -> None:
        system.ci.jobs.put(job_of(shell("a", 'echo "$DISTCI_COMMIT $DISTCI_REF"')))
        build = system.ci.builds.trigger("team/job", actor="ann", commit="c0ffee", ref="refs/heads/x")

        trigger = end(system.ci, build).trigger

        assert (trigger.actor, trigger.commit, trigger.ref) == ("ann", "c0ffee", "refs/heads/x")
        assert system.log(system.ci.builds.get(build), "a") == "c0ffee refs/heads/x\n"

    def test_a_cause_starts_a_build_of_each_job_that_it_is_given_for(self, ci: DistCI) -> None:
        for job in ("team/a", "team/b"):
            ci.jobs.put(job_of(shell("a"), job=job))
        started = [str(ci.builds.trigger(job, cause="delivery 7")) for job in ("team/a", "team/b", "team/a")]
        assert started == ["team/a#1", "team/b#1", "team/a#1"]


class TestOutages:
    def test_a_tree_that_is_away_is_said_to_be_and_nothing_is_begun(self, ci: DistCI) -> None:
        line = CutCoordination(ci.coordination)
        builds = Builds(Lifecycle(Tickets(line), ci.store, ci.jobs), ci.jobs)
        ci.jobs.put(job_of(shell("a")))
        before = tree(ci)

        line.is_cut = True
        with pytest.raises(Unavailable):
            builds.trigger("team/job")
        line.is_cut = False

        assert tree(ci) == before
        assert str(builds.trigger("team/job")) == "team/job#1"

    @pytest.mark.parametrize("committed", [True, False])
    @pytest.mark.parametrize("cause", ["", "delivery 7"])
    def test_a_lost_answer_doubles_no_build(self, ci: DistCI, committed: bool, cause: str) -> None:
        line, lifecycle = over_a_lossy_line(ci)
        ci.jobs.put(job_of(shell("a")))
        line.lose_answer(committed=committed, when=makes_build_of("team/job"))

        build = Builds(lifecycle, ci.jobs).trigger("team/job", cause=cause)

        assert (line.lost, str(build)) == (1, "team/job#1")
        assert ids(ci.builds.list("team/job")) == ["team/job#1"]
        assert [place for place, _ in live_tickets(ci)] == ["waiting"]

    @pytest.mark.parametrize("committed", [True, False])
    def test_a_tree_that_goes_away_with_the_answer_is_waited_for(self, ci: DistCI, committed: bool) -> None:
        line = CutCoordination(ci.coordination)
        builds = Builds(Lifecycle(Tickets(line), ci.store, ci.jobs), ci.jobs)
        ci.jobs.put(job_of(shell("a")))

        def cut_there(operations: Sequence[Operation]) -> bool:
            line.is_cut = makes_build_of("team/job")(operations)
            return line.is_cut

        line.lose_answer(committed=committed, when=cut_there)
        with ThreadPoolExecutor(1) as person:
            asked = person.submit(builds.trigger, "team/job")
            wait_until(lambda: line.is_cut)
            line.is_cut = False
            build = asked.result(30)

        assert str(build) == "team/job#1"
        assert ids(ci.builds.list("team/job")) == ["team/job#1"]

    @pytest.mark.parametrize("committed", [True, False])
    @pytest.mark.parametrize("cause", ["", "delivery 7"])
    def test_a_person_is_told_that_the_tree_stays_away_and_may_ask_again(
        self, ci: DistCI, committed: bool, cause: str
    ) -> None:
        line = CutCoordination(ci.coordination)
        builds = Builds(Lifecycle(Tickets(line), ci.store, ci.jobs, patience_s=0.3), ci.jobs)
        ci.jobs.put(job_of(shell("a")))

        def cut_there(operations: Sequence[Operation]) -> bool:
            line.is_cut = makes_build_of("team/job")(operations)
            return line.is_cut

        line.lose_answer(committed=committed, when=cut_there)
        with ThreadPoolExecutor(1) as person:
            asked = person.submit(builds.trigger, "team/job", cause=cause)
            try:
                with pytest.raises(Unavailable):
                    asked.result(10)
            finally:
                line.is_cut = False

        again = builds.trigger("team/job", cause=cause)
        assert str(again) == ("team/job#2" if committed and not cause else "team/job#1")
        assert ids(ci.builds.list("team/job"))[0] == str(again)

    def test_a_cancel_whose_answer_is_lost_with_the_tree_may_be_asked_for_again(self, ci: DistCI) -> None:
        line = CutCoordination(ci.coordination)
        builds = Builds(Lifecycle(Tickets(line), ci.store, ci.jobs, patience_s=0.3), ci.jobs)
        ci.jobs.put(job_of(shell("a")))
        build = ci.builds.trigger("team/job")

        def cut_there(operations: Sequence[Operation]) -> bool:
            line.is_cut = writes(build)(operations)
            return line.is_cut

        line.lose_answer(committed=True, when=cut_there)
        with ThreadPoolExecutor(1) as person:
            asked = person.submit(builds.cancel, build)
            try:
                with pytest.raises(Unavailable):
                    asked.result(10)
            finally:
                line.is_cut = False

        builds.cancel(build)
        assert ci.builds.get(build).state == "cancelling"

    @pytest.mark.parametrize("seed", [1, 2])
    def test_builds_over_a_line_that_loses_many_answers_end_as_over_any_other(
        self, ci: DistCI, employ: Callable[..., WorkerProcess], seed: int
    ) -> None:
        line, lifecycle = over_a_lossy_line(ci)
        ci.jobs.put(job_of(shell("a"), shell("b", needs=[]), shell("c", needs=["a", "b"])))
        ci.jobs.put(job_of(shell("d"), job="team/next", triggers=after("team/job")))
        chance = Random(seed)
        for _ in range(20):
            line.lose_answer(committed=chance.random() < 0.5, when=lambda operations: chance.random() < 0.3)

        with employ(lifecycle):
            view = end(ci, Builds(lifecycle, ci.jobs).trigger("team/job"))
            following = end(ci, view.downstream[0])

        assert line.lost > 5
        assert set((states(view) | states(following)).values()) == {PASSED}
        assert ids(ci.builds.list("team/job")) == ["team/job#1"]
        assert ids(ci.builds.list("team/next")) == ["team/next#1"]

    def test_c11_an_attempt_that_came_to_nothing_while_the_store_was_away_is_settled_when_it_is_back(
        self, system: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        outages = break_writes(monkeypatch, "/publish/*/outcome.json", 3, StoreUnavailable("away on purpose"))
        break_writes(monkeypatch, "/publish/*/artifacts/", 1, Damaged("broken on purpose"))

        view = system.run_tasks(
            shell("make", "echo > file"),
            {"name": "publish", "type": "publish-artifacts", "paths": ["file"], "attempts": 1},
        )

        assert states(view) == {"make": PASSED, "publish": TaskState.LOST}
        assert next(outages, None) is None


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
        wait_until(lambda: system.leftovers() == [])

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


class TestRunningAgain:
    @pytest.fixture
    def old(self, system: Any, tmp_path: Path) -> BuildView:
        """A build that failed, and would fail once more before it is well again."""
        view: BuildView = system.run_tasks(
            shell("make", "echo made > file; echo making"),
            {"name": "publish", "type": "publish-artifacts", "paths": ["file"]},
            shell("flaky", f"echo >> {tmp_path}/tries; test $(wc -l < {tmp_path}/tries) = 3; cat file"),
            shell("last"),
            shell("tell", when="failure"),
        )
        assert states(view) == {"make": PASSED, "publish": PASSED, "flaky": FAILED, "last": SKIPPED, "tell": PASSED}
        return view

    def test_only_what_failed_runs_and_what_hangs_on_it(self, system: Any, old: BuildView) -> None:
        second = end(system.ci, system.ci.builds.retry(old.id, only_failed=True))
        third = end(system.ci, system.ci.builds.retry(second.id, only_failed=True))

        assert states(second) == {"make": REUSED, "publish": REUSED, "flaky": FAILED, "last": SKIPPED, "tell": PASSED}
        assert states(third) == {"make": REUSED, "publish": REUSED, "flaky": PASSED, "last": PASSED, "tell": SKIPPED}
        assert (third.result, third.trigger.retry_of) == (Result.PASSED, second.id)
        assert system.log(third, "flaky") == "made\n"

    def test_what_is_taken_over_keeps_its_outcome_its_log_and_its_artifacts(self, system: Any, old: BuildView) -> None:
        view = old
        for _ in range(2):
            view = end(system.ci, system.ci.builds.retry(view.id, only_failed=True))

        made, before = view.task("make"), old.task("make")
        assert (made.token, made.attempts, made.origin) == (before.token, before.attempts, str(old.id))
        assert system.log(view, "make") == "making\n"
        assert len(system.ci.artifacts.list(view.id)) == 1
        assert system.ci.artifacts.list(view.id) == system.ci.artifacts.list(old.id)

    def test_all_of_it_runs_as_it_did_whatever_has_become_of_the_job(self, system: Any) -> None:
        job = job_of(shell("say", 'echo "$LEVEL"'), parameters={"LEVEL": {"default": "fast"}})
        old = system.run(job, parameters={"LEVEL": "full"}, commit="c0ffee")
        system.ci.jobs.put(job_of(shell("say", "echo new")))
        system.ci.jobs.delete("team/job")

        view = end(system.ci, system.ci.builds.retry(old.id, actor="ann"))

        assert (str(view.id), view.config, view.trigger.commit) == ("team/job#2", old.config, "c0ffee")
        assert (view.trigger.kind, view.trigger.actor, view.trigger.retry_of) == ("retry", "ann", old.id)
        assert system.log(view, "say") == "full\n"

    def test_the_old_record_stays_as_it_is(self, system: Any, old: BuildView) -> None:
        record = system.ci.store.get(keys.build_record(old.id))

        end(system.ci, system.ci.builds.retry(old.id, only_failed=True))

        assert system.ci.store.get(keys.build_record(old.id)) == record

    def test_b07_not_while_it_runs(self, system: Any, gate: Gate) -> None:
        system.ci.jobs.put(job_of(shell("long", gate.script)))
        build = system.ci.builds.trigger("team/job")

        with pytest.raises(IllegalTransition, match=f"{build} is still"):
            system.ci.builds.retry(build)

        assert ids(system.ci.builds.list("team/job")) == [str(build)]

    def test_not_only_what_failed_where_nothing_did(self, system: Any) -> None:
        view = system.run_tasks(shell("a"))

        with pytest.raises(IllegalTransition, match="no task of team/job#1 failed"):
            system.ci.builds.retry(view.id, only_failed=True)

    def test_a_cancelled_build_goes_on_where_it_was(self, system: Any, gate: Gate) -> None:
        system.ci.jobs.put(job_of(shell("a", "echo > file"), shell("long", f"{gate.script}; ls"), shell("b")))
        build = system.ci.builds.trigger("team/job")
        wait_until(lambda: is_task(system.ci, build, "long", TaskState.RUNNING))
        system.ci.builds.cancel(build)
        end(system.ci, build)
        gate.open()

        view = end(system.ci, system.ci.builds.retry(build, only_failed=True))

        assert states(view) == {"a": REUSED, "long": PASSED, "b": PASSED}
        assert system.log(view, "long") == "file\n"


class TestPlanning:
    def test_a_matrix_runs_each_combination_with_its_values(self, system: Any) -> None:
        matrix = {
            "python": ["3.11", "3.12"],
            "libc": ["gnu", "musl"],
            "exclude": [{"python": "3.11", "libc": "musl"}],
            "include": [{"python": "3.14", "libc": "uclibc"}],
        }

        view = system.run_tasks(shell("test", "echo $python {libc}", matrix=matrix), shell("after"))

        logs = {task.name: system.log(view, task.name) for task in view.tasks}
        assert view.result is Result.PASSED
        assert logs == {
            "test[3.11,gnu]": "3.11 gnu\n",
            "test[3.12,gnu]": "3.12 gnu\n",
            "test[3.12,musl]": "3.12 musl\n",
            "test[3.14,uclibc]": "3.14 uclibc\n",
            "after": "",
        }

    def test_a_person_wins_over_a_matrix_and_that_over_the_job(self, system: Any) -> None:
        job = job_of(
            shell("say", "echo $JOB $MATRIX $PERSON", matrix={"MATRIX": ["matrix"], "PERSON": ["matrix"]}),
            parameters={name: {"default": "job"} for name in ("JOB", "MATRIX", "PERSON")},
        )

        view = system.run(job, parameters={"PERSON": "person"})

        assert system.log(view, "say[matrix,matrix]") == "job matrix person\n"

    def test_a_matrix_wins_over_the_jobs_own_trigger_and_that_over_the_job(self, system: Any) -> None:
        system.ci.jobs.put(
            job_of(
                shell("say", "echo $JOB $TRIGGER $MATRIX", matrix={"MATRIX": ["matrix"]}),
                job="team/next",
                parameters={name: {"default": "job"} for name in ("JOB", "TRIGGER", "MATRIX")},
                triggers=after("team/job", parameters={"TRIGGER": "trigger", "MATRIX": "trigger"}),
            )
        )

        view = end(system.ci, system.run_tasks(shell("a")).downstream[0])

        assert system.log(view, "say[matrix]") == "job trigger matrix\n"

    def test_r15_a_plan_is_the_same_bytes_on_every_tree(
        self, tmp_path: Path, zookeeper_url: str, employ: Callable[..., WorkerProcess]
    ) -> None:
        job = job_of(
            shell("test", "run $LEVEL {v}", matrix={"v": ["1", "2"], "label": ["os=linux"]}, timeout="90s", retries=1),
            shell("tell", when="failure", environment={"A": "größer"}),
            parameters={"LEVEL": {"default": "fast"}},
        )

        def plan(url: str | None, name: str) -> bytes:
            with connect(tmp_path / name, coordination=url) as ci:
                ci.jobs.put(job)
                build = ci.builds.trigger("team/job", {"LEVEL": "full"}, actor="ann", ref="refs/heads/main")
                with employ(ci.lifecycle, kinds=["control"], name=name):
                    wait_until(lambda: ci.builds.get(build).state == "running")
                return ci.store.get(keys.build_plan(build))

        assert plan(None, "embedded") == plan(zookeeper_url, "served")


class TestReactions:
    def test_a_failure_is_told_of_and_skips_the_rest(self, system: Any) -> None:
        view = system.run_tasks(
            shell("fails", "exit 7"),
            shell("rest"),
            shell("tell", "echo it broke", when="failure"),
            shell("tidy", "echo tidied", when="always"),
            shell("tell of the tidying", when="failure", needs=["tidy"]),
        )

        assert (view.result, view.task("fails").reason) == (Result.FAILED, "exit status 7")
        assert states(view) == {
            "fails": FAILED,
            "rest": SKIPPED,
            "tell": PASSED,
            "tidy": PASSED,
            "tell of the tidying": SKIPPED,
        }

    def test_where_nothing_failed_only_what_always_runs_reacts(self, system: Any) -> None:
        view = system.run_tasks(shell("works"), shell("tell", when="failure"), shell("tidy", when="always"))

        assert view.result is Result.PASSED
        assert states(view) == {"works": PASSED, "tell": SKIPPED, "tidy": PASSED}

    def test_a_reaction_that_fails_fails_the_build(self, system: Any) -> None:
        assert system.run_tasks(shell("works"), shell("tidy", "exit 1", when="always")).result is Result.FAILED

    def test_what_may_fail_stops_nothing(self, system: Any) -> None:
        view = system.run_tasks(
            shell("lint", "exit 1", allow_failure=True), shell("rest"), shell("tell", when="failure")
        )

        assert view.result is Result.PASSED
        assert states(view) == {"lint": FAILED, "rest": PASSED, "tell": SKIPPED}

    def test_a_task_is_tried_again_as_often_as_it_says(self, system: Any, tmp_path: Path) -> None:
        script = f"echo >> {tmp_path}/tries; test $(wc -l < {tmp_path}/tries) = 3"

        view = system.run_tasks(shell("flaky", script, retries=2), shell("rest"))

        assert states(view) == {"flaky": PASSED, "rest": PASSED}
        assert [attempt["verdict"] for attempt in view.task("flaky").attempts] == ["failed", "failed", "passed"]

    def test_and_no_more_often(self, system: Any) -> None:
        view = system.run_tasks(shell("fails", "exit 1", retries=1), shell("rest"))

        assert states(view) == {"fails": FAILED, "rest": SKIPPED}
        assert len({attempt["token"] for attempt in view.task("fails").attempts}) == 2


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

    def test_d13_a_worker_that_comes_back_late_changes_nothing(
        self, ci: DistCI, another: Callable[[], DistCI], employ: Callable[..., WorkerProcess]
    ) -> None:
        ci.jobs.put(job_of(shell("say", "echo the right one")))
        build = ci.builds.trigger("team/job")
        late = another()
        with employ(ci.lifecycle, kinds=["control"]), by_hand(late.tickets, "shell") as claim:
            zombie = claim()
            late.coordination.commit(Delete(paths.owner(zombie.token)))
            wait_until(lambda: reclaim(ci) > 0 or not running(ci, zombie.token))
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
        site = Site(ci.lifecycle, ci.store, HostIsolation(), tmp_path / "attempts", os.defpath, {})
        with (
            employ(ci.lifecycle, kinds=["control"]),
            by_hand(ci.tickets, "shell") as claim,
            ThreadPoolExecutor() as pool,
        ):
            lost = claim()
            serving = pool.submit(Tasks(ShellWorker(), site).serve, lost)
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
        broken = Site(ci.lifecycle, ci.store, HostIsolation(), tmp_path / "disk", os.defpath, {})
        ci.jobs.put(job_of(shell("say", attempts=2)))
        build = ci.builds.trigger("team/job")
        with (
            employ(ci.lifecycle, kinds=["control"]),
            Member(ci.tickets, Offer(["shell"]), "broken", slots=2) as member,
            ThreadPoolExecutor() as pool,
        ):
            serving = pool.submit(serve, member, Tasks(ShellWorker(), broken).serve)
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

        assert (view.result, view.tasks) == (Result.FAILED, [])
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


class TestDownstream:
    def test_a_downstream_job_that_cannot_be_read_keeps_no_build_from_its_end(self, system: Any) -> None:
        document = job_of({"name": "a", "type": "unheard-of"}, job="team/next", triggers=after("team/job"))
        stored = {"format": 1, "document": document, "actor": "", "reason": "", "changed_s": 0.0, "deleted": False}
        system.ci.store.put(keys.downstream("team/job", "team/next"), b"")
        system.ci.store.put(keys.job_version("team/next", 1), json.dumps(stored).encode())
        system.ci.jobs.put(job_of(shell("b"), job="team/other", triggers=after("team/job")))

        view = system.run_tasks(shell("a"))

        assert (view.result, view.downstream) == (Result.PASSED, ("team/other#1",))

    def test_what_follows_on_a_build_is_started_once_and_knows_it(self, system: Any) -> None:
        for job in ("team/x", "team/y"):
            system.ci.jobs.put(job_of(shell("a"), job=job, triggers=after("team/job")))

        view = system.run_tasks(shell("a"))

        assert view.downstream == ("team/x#1", "team/y#1")
        for started in view.downstream:
            trigger = end(system.ci, started).trigger
            assert (trigger.kind, trigger.actor, trigger.upstream) == ("job", "team/job#1", view.id)

    @pytest.mark.parametrize(
        ("script", "started"),
        [("true", ["team/always#1", "team/passed#1"]), ("false", ["team/always#1", "team/failed#1"])],
    )
    def test_how_it_ended_decides_what_follows(self, system: Any, script: str, started: Sequence[str]) -> None:
        for on in ("passed", "failed", "always"):
            system.ci.jobs.put(job_of(shell("a"), job=f"team/{on}", triggers=after("team/job", on=on)))

        assert list(system.run_tasks(shell("a", script)).downstream) == started

    def test_after_a_cancelled_build_only_what_always_follows(self, ci: DistCI, employ: Any) -> None:
        for on in ("passed", "failed", "always"):
            ci.jobs.put(job_of(shell("a"), job=f"team/{on}", triggers=after("team/job", on=on)))
        ci.jobs.put(job_of(shell("a")))
        build = ci.builds.trigger("team/job")
        ci.builds.cancel(build)

        with employ(ci.lifecycle):
            assert end(ci, build).downstream == ("team/always#1",)

    def test_d08_once_though_archiving_is_broken_off_and_begun_again(
        self, system: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        system.ci.jobs.put(job_of(shell("a"), job="team/next", triggers=after("team/job")))
        record = keys.build_record(BuildId("team/job", 1))
        broken = break_writes(monkeypatch, record, 3, Damaged("broken on purpose"))

        view = system.run_tasks(shell("a"))
        end(system.ci, "team/next#1")

        assert next(broken, None) is None
        assert view.downstream == ("team/next#1",)
        assert ids(system.ci.builds.list("team/next")) == ["team/next#1"]

    @pytest.mark.parametrize("committed", [True, False])
    def test_d08_once_though_the_answer_is_lost(
        self, ci: DistCI, employ: Callable[..., WorkerProcess], committed: bool
    ) -> None:
        line, lifecycle = over_a_lossy_line(ci)
        ci.jobs.put(job_of(shell("a")))
        ci.jobs.put(job_of(shell("a"), job="team/next", triggers=after("team/job")))
        line.lose_answer(committed=committed, when=makes_build_of("team/next"))

        with employ(lifecycle):
            view = end(ci, ci.builds.trigger("team/job"))
            end(ci, "team/next#1")

        assert (line.lost, view.downstream) == (1, ("team/next#1",))
        assert ids(ci.builds.list("team/next")) == ["team/next#1"]

    @pytest.mark.parametrize("successor_is", ["later", "in between"])
    def test_d08_once_though_a_worker_goes_on_archiving_that_was_given_up(
        self, ci: DistCI, another: Callable[[], DistCI], successor_is: str
    ) -> None:
        ci.jobs.put(job_of(shell("a")))
        ci.jobs.put(job_of(shell("a"), job="team/next", triggers=after("team/job", on="always")))
        late = another()
        line, lifecycle = over_a_lossy_line(late)
        build = ci.builds.trigger("team/job")
        ci.builds.cancel(build)
        with by_hand(late.tickets, "control") as claim:
            zombie = late.lifecycle.plan(claim())
            assert zombie is not None
            late.coordination.commit(Delete(paths.owner(zombie.token)))
            assert reclaim(ci) == 1

        with by_hand(ci.tickets, "control") as claim:
            successor = claim()
            archive = partial(ci.lifecycle.archive, successor)
            if successor_is == "in between":
                before(line, makes_build_of("team/next"), archive)
            with pytest.raises((ClaimLost, NoSuchBuild)):
                lifecycle.archive(zombie)
            if successor_is == "later":
                archive()

        assert ci.builds.get(build).downstream == ("team/next#1",)
        assert ids(ci.builds.list("team/next")) == ["team/next#1"]

    def test_o04_each_takes_the_artifacts_of_the_build_that_it_follows_on(self, system: Any) -> None:
        library = job_of(
            shell("make", 'echo "$DISTCI_BUILD" > number'),
            {"name": "publish", "type": "publish-artifacts", "paths": ["number"]},
            job="team/library",
        )
        copy = {"name": "copy", "type": "copy-artifacts", "job": "team/library", "build": "upstream"}
        system.ci.jobs.put(job_of(copy, shell("say", "cat number"), triggers=after("team/library")))
        system.ci.jobs.put(library)

        libraries = [system.ci.builds.trigger("team/library") for _ in range(3)]
        followers = [end(system.ci, end(system.ci, build).downstream[0]) for build in libraries]

        assert [follower.trigger.upstream for follower in followers] == libraries
        assert [system.log(follower, "say") for follower in followers] == ["1\n", "2\n", "3\n"]

    def test_parameters_that_do_not_fit_fail_what_follows_and_say_so(self, system: Any) -> None:
        system.ci.jobs.put(job_of(shell("a"), job="team/next", triggers=after("team/job")))
        system.ci.jobs.put(
            job_of(
                shell("a"),
                job="team/next",
                parameters={"MUST": {"required": True}},
                triggers=after("team/job"),
            )
        )

        view = end(system.ci, system.run_tasks(shell("a")).downstream[0])

        assert view.result is Result.FAILED
        assert "parameters.MUST: a value is required" in view.reason

    @pytest.mark.parametrize(
        ("job", "upstream", "reason"),
        [
            ("team/a", "team/c", "in a circle: team/a -> team/b -> team/c -> team/a"),
            ("team/d", "team/d", "the job would start itself for ever"),
        ],
    )
    def test_d08_jobs_that_would_start_each_other_for_ever_are_refused(
        self, ci: DistCI, job: str, upstream: str, reason: str
    ) -> None:
        for name, before in (("team/a", None), ("team/b", "team/a"), ("team/c", "team/b")):
            ci.jobs.put(job_of(shell("x"), job=name, triggers=after(before) if before else []))

        with pytest.raises(InvalidJob, match=reason):
            ci.jobs.put(job_of(shell("x"), job=job, triggers=after(upstream)))


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


class TestLookingOn:
    def test_waiting_for_a_build_leaves_nothing_behind(self, system: Any) -> None:
        view = system.run_tasks(shell("a"))
        system.ci.builds.wait(view.id)
        watches = vars(vars(system.ci.coordination)["_watches"])["_events"]
        assert not [path for path in watches if path.endswith(paths.build(view.id))]

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
        with employ(Lifecycle(ci.tickets, line, ci.jobs), secrets={"TOKEN": "robot:t0p-secret"}):
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


class TestJobVersions:
    @pytest.fixture
    def coordination_url(self) -> str | None:
        """Jobs are in the store; the tree has no part in them."""
        return None

    def say(self, text: str) -> dict[str, Any]:
        return job_of(shell("say", f"echo {text}"))

    def test_each_change_is_kept_with_who_made_it_and_why(self, ci: DistCI) -> None:
        ci.jobs.put(self.say("one"), actor="ann", reason="a start")
        ci.jobs.put(self.say("two"), actor="bob", reason="better")

        changes = list(ci.jobs.history("team/job"))

        assert [(change.version, change.actor, change.reason) for change in changes] == [
            (2, "bob", "better"),
            (1, "ann", "a start"),
        ]
        assert changes[1].document == self.say("one")

    def test_saving_what_is_in_force_changes_nothing(self, ci: DistCI) -> None:
        assert [ci.jobs.put(self.say("one")).version for _ in range(2)] == [1, 1]

    def test_a_change_made_on_an_old_version_is_refused(self, ci: DistCI) -> None:
        for text in ("one", "two"):
            ci.jobs.put(self.say(text))

        for expected in (0, 1, 3):
            with pytest.raises(VersionConflict, match=f"at version 2 now, not {expected}"):
                ci.jobs.put(self.say("three"), expected=expected)
        with pytest.raises(VersionConflict):
            ci.jobs.delete("team/job", expected=1)

        assert ci.jobs.get("team/job").document == self.say("two")
        assert ci.jobs.put(self.say("three"), expected=2).version == 3

    def test_of_many_changes_made_on_one_version_one_wins(self, ci: DistCI) -> None:
        ci.jobs.put(self.say("zero"))

        def change(text: str) -> str:
            try:
                ci.jobs.put(self.say(text), expected=1, actor=text)
            except VersionConflict:
                return ""
            return text

        with ThreadPoolExecutor(8) as people:
            winners = [text for text in people.map(change, "abcdefgh") if text]

        assert [change.actor for change in ci.jobs.history("team/job")] == [*winners, ""]
        assert len(winners) == 1

    def test_the_difference_of_two_versions_shows_what_was_changed(self, ci: DistCI) -> None:
        for text in ("one", "two"):
            ci.jobs.put(self.say(text))

        lines = ci.jobs.diff("team/job", 1, 2).splitlines()

        assert lines[:2] == ["--- team/job version 1", "+++ team/job version 2"]
        assert [line.split() for line in lines[2:] if line[0] in "+-"] == [
            ["-", '"script":', '"echo', 'one"'],
            ["+", '"script":', '"echo', 'two"'],
        ]

    def test_going_back_makes_a_new_version_of_an_old_document(self, ci: DistCI) -> None:
        for text in ("one", "two"):
            ci.jobs.put(self.say(text))

        back = ci.jobs.rollback("team/job", 1, actor="ann")

        assert (back.version, back.document, back.reason) == (3, self.say("one"), "back to version 1")
        with pytest.raises(NoSuchJob, match="version 9"):
            ci.jobs.rollback("team/job", 9)

    def test_a_deleted_job_keeps_its_history_and_can_come_back(self, ci: DistCI) -> None:
        ci.jobs.put(self.say("one"))
        ci.jobs.delete("team/job", actor="ann", reason="old")

        with pytest.raises(NoSuchJob):
            ci.jobs.get("team/job")
        assert list(ci.jobs.list()) == []
        assert [change.is_deleted for change in ci.jobs.history("team/job")] == [True, False]
        with pytest.raises(NoSuchJob, match="is its deletion"):
            ci.jobs.rollback("team/job", 2)
        assert ci.jobs.rollback("team/job", 1).version == 3
        assert list(ci.jobs.list()) == ["team/job"]

    def test_jobs_are_listed_by_prefix_and_from_where_one_left_off(self, ci: DistCI) -> None:
        for name in ("a/x", "team/b", "team/a", "teams/c"):
            ci.jobs.put(job_of(shell("x"), job=name))

        assert list(ci.jobs.list()) == ["a/x", "team/a", "team/b", "teams/c"]
        assert list(ci.jobs.list("team/")) == ["team/a", "team/b"]
        assert list(ci.jobs.list("team/", after="team/a")) == ["team/b"]
        assert list(ci.jobs.list("team", after="a/x", limit=2)) == ["team/a", "team/b"]
        assert list(ci.jobs.list(limit=0)) == []


def break_writes(monkeypatch: pytest.MonkeyPatch, pattern: str, times: int, error: Exception) -> Iterator[int]:
    """Let the store fail at the first few writes of keys that have the pattern in them; what is left of these failures."""
    left = iter(range(times))

    def breaking(write: Callable[..., Any]) -> Callable[..., Any]:
        def broken(store: DirectoryStore, key: str, data: Any) -> Any:
            if fnmatch(key, f"*{pattern}*") and next(left, None) is not None:
                raise error
            return write(store, key, data)

        return broken

    for name in ("put", "put_if_absent"):
        monkeypatch.setattr(DirectoryStore, name, breaking(getattr(DirectoryStore, name)))
    return left


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
            ci.coordination.commit(Delete(paths.owner(late.token)))
            reclaim(ci)
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
