"""Work that hangs, and moves of many bytes that shall end: what becomes of builds."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Event, current_thread
from time import monotonic
from typing import Any, BinaryIO, cast

import pytest
from waiting import wait_until

from distci import build_tickets
from distci.app import connect
from distci.brokers import direct
from distci.brokers.direct import Direct
from distci.builds import Builds
from distci.errors import StoreUnavailable
from distci.isolation.host import HostIsolation
from distci.jobs import Jobs
from distci.lifecycle import Lifecycle
from distci.model import BuildId, Outcome, Result, Task, TaskState
from distci.process import Post, WorkerProcess
from distci.protocol import Member, Offer, Sweeper, Ticket, Tickets, members, paths
from distci.rebuild import Rebuild
from distci.store.directory import DirectoryStore
from distci.work import TaskContext
from distci.workspaces import Workspaces
from distci_workers.shell import ShellWorker


@pytest.fixture(params=["sqlite", "zookeeper"])
def coordination_url(request: pytest.FixtureRequest) -> str | None:
    return str(request.getfixturevalue("zookeeper_url")) if request.param == "zookeeper" else None


def shell(script: str, name: str = "make", **arguments: Any) -> dict[str, Any]:
    return {"name": name, "type": "shell", "script": script, **arguments}


def trigger(system: Any, *tasks: Mapping[str, Any], job: str = "team/job") -> BuildId:
    system.ci.jobs.put({"job": job, "tasks": [*tasks]})
    build: BuildId = system.ci.builds.trigger(job)
    return build


def end(system: Any, build: BuildId) -> Any:
    view = system.ci.builds.wait(build, 60)
    assert view.is_archived, f"{build} is still {view.state}"
    return view


class TestWorkThatHangs:
    def test_c08_it_is_taken_over_from_its_living_worker_and_told_to_end(
        self, system: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given a worker whose thread hangs in the first attempt
        hung: list[TaskContext] = []
        perform = ShellWorker.perform

        def hang_once(worker: ShellWorker, task: Task, context: TaskContext) -> Outcome:
            if not hung:
                hung.append(context)
                context.stop.wait()
            return perform(worker, task, context)

        monkeypatch.setattr(ShellWorker, "perform", hang_once)
        monkeypatch.setattr(build_tickets, "TIMEOUT_GRACE_S", 1.0)
        build = trigger(system, shell("echo attempt $DISTCI_ATTEMPT", timeout="1s"))
        wait_until(lambda: bool(hung))

        # When its time and the grace have passed
        sweeper = Sweeper(system.ci.tickets, "hand", lambda: ["hand"], overdue_grace_s=0)
        wait_until(lambda: sweeper.sweep() > 0 or hung[0].token not in system.ci.tickets.running_tokens())
        view = end(system, build)

        # Then the next attempt counts, and nothing of the first one
        assert view.result is Result.PASSED
        assert paths.attempt_of(view.task("make").token) == 2
        assert system.log(view, "make") == "attempt 2\n"
        wait_until(hung[0].stop.is_set)
        assert list(system.ci.tickets.list()) == []

    def test_a_long_silent_script_without_a_timeout_is_not_disturbed(
        self, system: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(build_tickets, "CLAIM_LIMIT_S", 1.0)
        build = trigger(system, shell(f"until test -e {tmp_path}/open; do sleep 0.05; done"))
        wait_until(lambda: system.ci.builds.get(build).state == "running" and bool(_tokens(system)))
        [token] = _tokens(system)
        coordination = system.ci.coordination
        made_ms = coordination.exists(paths.running(token)).created_ms

        # Its claim is renewed for as long as it takes
        wait_until(lambda: coordination.exists(paths.running(token)).modified_ms > made_ms + 2000)
        (tmp_path / "open").touch()

        assert end(system, build).task("make").token == token


def _tokens(system: Any) -> list[str]:
    views = [system.ci.tickets.view_running(token) for token in system.ci.tickets.running_tokens()]
    return [view.token for view in views if view.ticket and view.ticket.kind == "shell"]


class TestStoreThatIsAway:
    @pytest.fixture
    def is_away(self, monkeypatch: pytest.MonkeyPatch) -> Event:
        """While it is set, the store answers nobody."""
        is_away = Event()
        for verb in ("put", "put_if_absent", "get", "open", "head", "list"):
            monkeypatch.setattr(DirectoryStore, verb, _refusing(is_away, getattr(DirectoryStore, verb)))
        return is_away

    @pytest.mark.timeout(240)
    def test_c11_tasks_go_on_and_print_on_and_end_once_with_whole_logs(
        self, system: Any, tmp_path: Path, is_away: Event
    ) -> None:
        # Given tasks under way
        wait = f"until test -e {tmp_path}/away; do sleep 0.05; done"
        tell = f"head -c 20000000 /dev/zero; echo $DISTCI_ATTEMPT; touch {tmp_path}/printed-$DISTCI_TASK"
        names = ["a", "b", "c"]
        begin = f"echo begun; touch {tmp_path}/begun-$DISTCI_TASK"
        tasks = [shell(f"{begin}; {wait}; {tell}", name, needs=[]) for name in names]
        build = trigger(system, *tasks, {**shell("echo rest", "rest"), "needs": names})
        # One that is only claimed still needs the store, to begin.
        wait_until(lambda: len([*tmp_path.glob("begun-*")]) == 3)

        # When the store goes away, and more is printed than may wait in memory
        is_away.set()
        (tmp_path / "away").touch()

        # Then they go on to their ends
        wait_until(lambda: len([*tmp_path.glob("printed-*")]) == 3)

        # And when it is back, all of that counts, once
        is_away.clear()
        view = end(system, build)
        assert view.result is Result.PASSED
        for name in names:
            assert b"".join(system.ci.builds.log(build, name)) == b"begun\n" + bytes(20_000_000) + b"1\n"
        assert system.leftovers() == []

    def test_claims_of_lost_workers_are_taken_over_meanwhile(
        self, system: Any, tmp_path: Path, coordination_url: str | None, is_away: Event
    ) -> None:
        # Given tasks whose workers are lost, some of them for the last time
        robot = {"type": "acme.robot", "needs": []}
        last, more = [f"{number}-last" for number in range(6)], [f"{number}-more" for number in range(6)]
        tasks = [{"name": name, "attempts": 2 if name in more else 1, **robot} for name in (*last, *more)]
        build = trigger(system, *tasks)
        with (
            connect(tmp_path / "data", coordination=coordination_url) as victim,
            Member(victim.tickets, Offer(["acme.robot"]), "hand", slots=len(tasks)) as member,
        ):
            claims = member.claims()
            tickets = [next(claims).ticket for _ in tasks]
            is_away.set()

        # Then those that others may do are offered to them, whatever has to wait for the store
        offered = {ticket.again().token for ticket in tickets if ticket.attempts > 1}
        wait_until(lambda: {view.token for view in system.ci.tickets.list() if view.place == "waiting"} == offered)
        waiting = {ticket.token for ticket in tickets if ticket.attempts == 1}
        assert {*system.ci.tickets.running_tokens()} == waiting

        # And when it is back, that is settled
        is_away.clear()
        with Member(system.ci.tickets, Offer(["acme.robot"]), "other hand", slots=len(more)) as member:
            for claim in islice(member.claims(), len(more)):
                system.ci.lifecycle.settle(claim, str(claim.ticket.body["task"]), Outcome.passed(), {})
        states = {task.name: task.state for task in end(system, build).tasks}
        assert states == dict.fromkeys(last, TaskState.LOST) | dict.fromkeys(more, TaskState.PASSED)

    def test_a_tree_that_cannot_be_rebuilt_yet_is_swept(
        self, system: Any, tmp_path: Path, coordination_url: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given a store that takes its time to say what the tree may lack, and a worker that is lost
        answers = Event()
        monkeypatch.setattr(Rebuild, "run", lambda rebuild: answers.wait())
        monkeypatch.setattr(Rebuild, "_is_rebuilt", lambda rebuild: False)
        trigger(system, {"name": "only", "type": "acme.robot", "attempts": 2})
        with (
            connect(tmp_path / "data", coordination=coordination_url) as victim,
            Member(victim.tickets, Offer(["acme.robot"]), "hand") as member,
        ):
            ticket = next(member.claims()).ticket

        # Then its claim is taken over
        wait_until(lambda: ticket.again().token in {view.token for view in system.ci.tickets.list()})
        answers.set()

    def test_it_costs_no_attempt_of_a_task_that_is_about_to_begin(
        self, system: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given a store that does not give the plan to those who work, at first
        get, refusals = DirectoryStore.get, iter(range(3))

        def broken(store: DirectoryStore, key: str, *part: Any) -> bytes:
            is_ours = key.endswith("/plan.json") and current_thread().name.startswith("slot of")
            if is_ours and next(refusals, None) is not None:
                raise StoreUnavailable("away on purpose")
            return get(store, key, *part)

        monkeypatch.setattr(DirectoryStore, "get", broken)

        view = end(system, trigger(system, shell("true", attempts=1)))

        assert next(refusals, None) is None
        assert view.result is Result.PASSED


def _refusing(is_away: Event, call: Callable[..., Any]) -> Callable[..., Any]:
    def refusing(*arguments: Any) -> Any:
        if is_away.is_set():
            raise StoreUnavailable("away on purpose")
        return call(*arguments)

    return refusing


class TestDiskThatIsFull:
    @pytest.fixture
    def full(self, monkeypatch: pytest.MonkeyPatch) -> Event:
        """While it is set, no workspace finds room on this machine. Workers do not rest for long."""
        full = Event()
        full.set()
        restore = Workspaces.restore

        def refuse(workspaces: Workspaces, inputs: Sequence[str], directory: Path) -> Any:
            if full.is_set():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory))
            return restore(workspaces, inputs, directory)

        monkeypatch.setattr(Workspaces, "restore", refuse)
        monkeypatch.setattr(members, "REST_MIN_S", 0.1)
        monkeypatch.setattr(members, "REST_MAX_S", 0.1)
        return full

    def test_r20_a_task_that_nobody_has_room_for_waits_until_somebody_has(
        self, system: Any, full: Event, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(direct, "NO_ROOM_PAUSE_S", 0.1)
        build = trigger(system, shell("echo $DISTCI_ATTEMPT", attempts=2))

        # When it has been tried more often than it may be lost
        wait_until(lambda: any(paths.attempt_of(view.token) > 3 for view in system.ci.tickets.list() if view.ticket))
        full.clear()

        # Then it is done all the same
        view = end(system, build)
        assert view.result is Result.PASSED
        assert int(system.log(view, "make")) > 3

    def test_a_build_that_waits_for_room_can_be_cancelled(self, system: Any, full: Event) -> None:
        build = trigger(system, shell("true", attempts=1))
        wait_until(lambda: [view.place for view in system.ci.tickets.list()] == ["parked"])

        system.ci.builds.cancel(build)

        assert end(system, build).result is Result.CANCELLED
        assert list(system.ci.tickets.list()) == []


class TestLongMoves:
    """Of bytes that trickle so slowly that they never come to an end."""

    MAKE = "head -c 6000000 /dev/urandom > file"
    """More than a pack or an artifact may have to go to the store at once."""
    PUBLISH: Mapping[str, Any] = {"name": "publish", "type": "publish-artifacts", "paths": ["file"]}
    TASKS: Mapping[str, Sequence[Mapping[str, Any]]] = {
        "save": [shell(MAKE, "save"), shell("true", "next")],
        "restore": [shell(MAKE), shell("true", "restore")],
        "publish": [shell(MAKE), PUBLISH],
        "copy": [{"name": "copy", "type": "copy-artifacts", "job": "team/lib"}],
    }
    """By what trickles, which is what the task of that name does."""

    @pytest.fixture
    def coordination_url(self) -> str | None:
        return None

    def begin(self, system: Any, monkeypatch: pytest.MonkeyPatch, move: str, **keys: Any) -> tuple[BuildId, Event]:
        """A build, and the event that it has come to where it trickles."""
        if move == "copy":
            end(system, trigger(system, shell(self.MAKE), self.PUBLISH, job="team/lib"))
        verb = "put" if move in ("save", "publish") else "open"
        begun = _trickle(monkeypatch, verb, "packs/" if move in ("save", "restore") else "/artifacts/")
        tasks = [{**task, **(keys if task["name"] == move else {})} for task in self.TASKS[move]]
        return trigger(system, *tasks), begun

    @pytest.mark.parametrize("move", TASKS)
    def test_r04_a_cancel_ends_them(self, system: Any, monkeypatch: pytest.MonkeyPatch, move: str) -> None:
        build, begun = self.begin(system, monkeypatch, move)
        assert begun.wait(60)

        system.ci.builds.cancel(build)

        view = end(system, build)
        assert (view.result, view.task(move).state) == (Result.CANCELLED, TaskState.CANCELLED)
        assert system.leftovers() == []

    @pytest.mark.parametrize("move", ["restore", "publish", "copy"])
    def test_r03_the_tasks_timeout_ends_them(self, system: Any, monkeypatch: pytest.MonkeyPatch, move: str) -> None:
        build, _ = self.begin(system, monkeypatch, move, timeout="3s")

        view = end(system, build)
        assert (view.result, view.task(move).state) == (Result.FAILED, TaskState.TIMED_OUT)
        assert view.task(move).reason == "not done after 3 s"

    def test_the_time_that_the_store_is_away_is_not_the_tasks(
        self, system: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given a store that takes no artifact for longer than the task may take
        put, since, refused = DirectoryStore.put, monotonic(), Event()

        def away(store: DirectoryStore, key: str, data: Any) -> None:
            if "/artifacts/" in key and monotonic() - since < 3:
                refused.set()
                raise StoreUnavailable("away on purpose")
            put(store, key, data)

        monkeypatch.setattr(DirectoryStore, "put", away)

        view = end(system, trigger(system, shell("echo > file"), {**self.PUBLISH, "timeout": "1s"}))

        assert refused.is_set()
        assert view.result is Result.PASSED


def _trickle(monkeypatch: pytest.MonkeyPatch, verb: str, keys: str) -> Event:
    """Let the streams of objects with such keys trickle, to the store or from it; the event says that one does."""
    begun = Event()
    put, open_ = DirectoryStore.put, DirectoryStore.open

    def slow(key: str, stream: BinaryIO) -> BinaryIO:
        if keys not in key:
            return stream
        begun.set()
        return cast(BinaryIO, _Trickle(stream))

    def slow_put(store: DirectoryStore, key: str, data: bytes | BinaryIO) -> None:
        put(store, key, data if isinstance(data, bytes) else slow(key, data))

    if verb == "put":
        monkeypatch.setattr(DirectoryStore, "put", slow_put)
    else:
        monkeypatch.setattr(DirectoryStore, "open", lambda store, key, start=0: slow(key, open_(store, key, start)))
    return begun


class _Trickle:
    """A stream of one byte at a time, now and then."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        Event().wait(0.01)
        return self._stream.read(1)

    def close(self) -> None:
        self._stream.close()


class TestClocks:
    """Of three machines: one is ten minutes slow, one right, one ten minutes fast."""

    SKEWS_S = (-600, 0, 600)

    @pytest.fixture
    def machines(self, tmp_path: Path, coordination_url: str | None) -> Iterator[list[Builds]]:
        """A worker process on each, and what people ask there for builds with."""
        with ExitStack() as stack:
            machines = []
            for skew_s in self.SKEWS_S:
                ci = stack.enter_context(connect(tmp_path / "data", coordination=coordination_url))
                clock = partial(_skewed, skew_s)
                made = Lifecycle(Tickets(ci.coordination, clock=clock), ci.store, ci.jobs, clock)
                process = WorkerProcess(
                    Direct(made, ci.store),
                    HostIsolation(),
                    tmp_path / "scratch",
                    [Post(("control", "shell"), slots=4)],
                    search_path=os.defpath,
                    name=f"skewed-by-{skew_s}",
                )
                stack.enter_context(process)
                machines.append(Builds(made, ci.jobs, clock=clock))
            yield machines

    @pytest.fixture
    def jobs(self, tmp_path: Path) -> Jobs:
        return Jobs(DirectoryStore(tmp_path / "data" / "store", durable=False))

    @pytest.mark.timeout(240)
    def test_builds_end_once_wherever_they_are_asked_for(
        self, machines: list[Builds], jobs: Jobs, tmp_path: Path
    ) -> None:
        once = f"mkdir {tmp_path}/$DISTCI_BUILD-$DISTCI_TASK"
        jobs.put({"job": "team/job", "tasks": [shell(once, "a"), shell(once, "b")]})

        builds = [machines[number % 3].trigger("team/job") for number in range(9)]
        views = [machines[0].wait(build, 120) for build in builds]

        assert [build.number for build in builds] == [*range(1, 10)]
        assert {view.result for view in views} == {Result.PASSED}
        assert {paths.attempt_of(task.token) for view in views for task in view.tasks} == {1}

    def test_one_cause_is_one_build(self, machines: list[Builds], jobs: Jobs) -> None:
        jobs.put({"job": "team/job", "tasks": [shell("true")]})

        assert len({machine.trigger("team/job", cause="push 1") for machine in machines}) == 1

    @pytest.mark.parametrize("first", [0, 2], ids=["the slow one first", "the fast one first"])
    def test_c15_the_newer_build_of_a_group_cancels_the_older_one(
        self, machines: list[Builds], jobs: Jobs, tmp_path: Path, first: int
    ) -> None:
        group = {"group": "one", "limit": 1, "policy": "cancel-old"}
        for name in ("old", "new"):
            jobs.put({"job": name, "tasks": [shell(f"test {name} = new || sleep 60")], "concurrency": group})
        old = machines[first].trigger("old")
        wait_until(lambda: machines[0].get(old).state == "running")

        new = machines[2 - first].trigger("new")

        assert machines[0].wait(new, 60).result is Result.PASSED
        assert machines[0].wait(old, 60).result is Result.CANCELLED


def test_a_parked_ticket_is_due_by_the_trees_clock(system: Any) -> None:
    # Given sweepers whose own clocks are an hour fast and an hour slow
    tickets = [Tickets(system.ci.coordination, clock=partial(_skewed, skew_s)) for skew_s in (3600, -3600)]
    tree = tickets[0].tree
    with Member(tickets[0], Offer(["x"]), "hand", slots=2) as member:
        tickets[0].post(Ticket("later", "x"))
        next(member.claims()).park_until(tree.now_ms() + 1_800_000)
        tickets[0].post(Ticket("now", "x"))
        next(member.claims()).park_until(tree.now_ms())

    # When either sweeps
    for each in tickets:
        Sweeper(each, "hand", lambda: ["hand"]).sweep()

    # Then what is due has come back, and nothing else
    wait_until(
        lambda: (
            {(view.place, view.token) for view in tickets[0].list()} == {("waiting", "now.2"), ("parked", "later.2")}
        )
    )


def _skewed(skew_s: float) -> float:
    return time.time() + skew_s
