"""The coordination tree is lost under running builds, and everything comes back from the store."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from integration.conftest import BUILD_TIME_MAX_S, System
from services.zookeeper import ZooKeeperServers
from waiting import wait_until
from wiping import wipe

from distci.app import open_coordination
from distci.builds import Builds, BuildView
from distci.coordination.port import Coordination
from distci.errors import ClaimLost, CoordinationUnavailable, IllegalTransition
from distci.lifecycle import Lifecycle
from distci.model import BuildId, TaskState
from distci.protocol import Member, Offer, Ticket, Tickets, paths
from distci.protocol.outcomes import Deadline, persist
from distci.rebuild import Rebuild
from distci.store import keys
from distci.testing import LossyCoordination


@pytest.fixture
def coordination_url(tree_url: str) -> str:
    """Each test on each kind of tree."""
    return tree_url


@pytest.fixture
def other(system: System) -> Iterator[Coordination]:
    """A session beside that of the system."""
    coordination = open_coordination(system.ci.settings)
    yield coordination
    coordination.close()


class Marks:
    """What scripts leave outside of their workspaces, to be counted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._gates: set[str] = set()
        folder.mkdir()

    def note(self, name: str) -> str:
        """A script's line that leaves a mark."""
        return f"echo $DISTCI_BUILD >>{shlex.quote(str(self._folder / name))}"

    def gate(self, name: str) -> str:
        """A script's line that waits until it may go on."""
        self._gates.add(name)
        return f"until [ -e {shlex.quote(str(self._folder / name))} ]; do sleep 0.02; done"

    def open(self, name: str) -> None:
        (self._folder / name).touch()

    def open_all(self) -> None:
        for name in self._gates:
            self.open(name)

    def count(self, name: str) -> int:
        path = self._folder / name
        return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture
def marks(tmp_path: Path) -> Iterator[Marks]:
    marks = Marks(tmp_path / "marks")
    yield marks
    # Of a test that came to nothing: nobody ends while a script waits.
    marks.open_all()


def shell(name: str, *lines: str, **extra: Any) -> dict[str, Any]:
    return {"name": name, "type": "shell", "script": "\n".join(lines), **extra}


def put(system: System, job: str, *tasks: dict[str, Any], **extra: Any) -> None:
    system.ci.jobs.put({"job": job, "tasks": [*tasks], **extra})


def in_second_task(system: System, marks: Marks) -> BuildId:
    """A build of ``team/job`` in the middle of its second task, which goes on with the gate ``go`` to read what the first one kept."""
    put(
        system,
        "team/job",
        shell("first", "echo kept >kept", marks.note("first")),
        shell("second", marks.note("second"), marks.gate("go"), "cat kept"),
    )
    build = system.ci.builds.trigger("team/job")
    wait_until(lambda: marks.count("second") == 1)
    return build


def end(system: System, build: BuildId) -> BuildView:
    """The build once it is archived, however often the tree is lost meanwhile."""
    wait_until(lambda: system.ci.store.head(keys.build_record(build)) is not None, BUILD_TIME_MAX_S)
    return system.ci.builds.wait(build, BUILD_TIME_MAX_S)


def approved(system: System, build: BuildId) -> BuildView:
    """The build once somebody has approved what it asks for, and it is archived."""
    wait_until(lambda: TaskState.BLOCKED in [task.state for task in system.ci.builds.get(build).tasks])
    system.ci.builds.decide(build, "ask", True)
    return end(system, build)


def numbers(system: System, job: str) -> Sequence[int]:
    return [view.id.number for view in system.ci.builds.list(job)]


def test_a_build_that_nobody_has_planned_yet_is_not_lost(system: System, marks: Marks, other: Coordination) -> None:
    # Given a build that was accepted and waits to be planned
    put(system, "team/job", shell("only", marks.note("only")))
    system.run_tasks(shell("before", "true"), job="team/job2")
    system.ci.tickets.pause("control")
    build = system.ci.builds.trigger("team/job", cause="push 1")

    # When the tree is lost
    wipe(other)

    # Then the build is run, under its number, and the cause still gives it
    assert end(system, build).state == "passed"
    assert marks.count("only") == 1
    assert system.ci.builds.trigger("team/job", cause="push 1") == build

    # And numbers go on
    assert system.ci.builds.trigger("team/job") == BuildId("team/job", build.number + 1)


def test_the_number_of_a_build_that_was_lost_unplanned_is_not_given_to_another(
    system: System, other: Coordination
) -> None:
    put(system, "team/job", shell("only", "true"))
    system.ci.tickets.pause("control")
    first = system.ci.builds.trigger("team/job")
    wipe(other)

    second = system.ci.builds.trigger("team/job")

    assert [end(system, build).state for build in (first, second)] == ["passed", "passed"]
    assert (first.number, second.number) == (1, 2)


def nobody_can(self: Rebuild) -> bool:
    """Workers look again and again, and find that they cannot bring anything back yet."""
    raise CoordinationUnavailable("nobody brings it back")


def test_a_build_that_is_not_back_yet_is_never_said_not_to_be(
    system: System, marks: Marks, other: Coordination, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a build in a tree that was lost, and nobody who brings it back
    put(system, "team/job", shell("only", marks.gate("go")))
    build = system.ci.builds.trigger("team/job")
    wait_until(lambda: system.ci.builds.get(build).state == "running")
    with monkeypatch.context() as patch:
        patch.setattr(Rebuild, "_is_rebuilt", nobody_can)
        wipe(other)

        # When it is asked for
        view = system.ci.builds.get(build)

        # Then it is there, is not over, and cannot be cancelled yet
        assert (view.id, view.state, view.is_archived) == (build, "planning", False)
        assert numbers(system, "team/job") == [1]
        assert system.ci.builds.wait(build, 0.01).state == "planning"
        with pytest.raises(CoordinationUnavailable):
            system.ci.builds.cancel(build)

    # And whoever waits for it hears of its end
    marks.open("go")
    assert system.ci.builds.wait(build, BUILD_TIME_MAX_S).state == "passed"


def test_a_build_goes_on_from_what_its_tasks_came_to(system: System, marks: Marks, other: Coordination) -> None:
    # Given a build in the middle of its second task
    build = in_second_task(system, marks)
    (before,) = system.ci.tickets.running_tokens()

    # When the tree is lost
    wipe(other)
    wait_until(lambda: marks.count("second") == 2)
    marks.open("go")
    view = end(system, build)

    # Then what had completed is not run again, and what had not is, with a higher token
    assert view.state == "passed"
    assert marks.count("first") == 1
    after = view.task("second").token
    assert paths.ticket_of(after) == paths.ticket_of(before)
    assert paths.attempt_of(after) > paths.attempt_of(before)
    assert system.log(view, "second") == "kept\n"


def test_a_task_that_was_to_be_run_again_after_a_failure_is(system: System, marks: Marks, other: Coordination) -> None:
    put(system, "team/job", shell("flaky", marks.note("runs"), marks.gate("go"), "exit 1", retries=1))
    build = system.ci.builds.trigger("team/job")
    marks.open("go")
    wait_until(lambda: marks.count("runs") == 2)
    wipe(other)

    view = end(system, build)

    assert (view.state, len(view.task("flaky").attempts)) == ("failed", 2)


def test_a_build_whose_last_task_has_just_ended_is_archived(system: System, marks: Marks, other: Coordination) -> None:
    # Given a build that has its result, and nobody to archive it
    put(system, "team/job", shell("only", marks.note("only"), marks.gate("go")))
    build = system.ci.builds.trigger("team/job")
    wait_until(lambda: marks.count("only") == 1)
    system.ci.tickets.pause("control")
    marks.open("go")
    wait_until(lambda: system.ci.builds.get(build).result is not None)

    # When the tree is lost
    wipe(other)

    # Then it is archived, and nothing is run again
    view = end(system, build)
    assert (view.state, view.task("only").state, marks.count("only")) == ("passed", TaskState.PASSED, 1)


def test_builds_of_a_group_take_their_turns_anew(system: System, marks: Marks, other: Coordination) -> None:
    # Given one that runs and two that wait
    tasks = [shell("only", marks.note("begun"), marks.gate("go"), marks.note("ended"))]
    put(system, "team/job", *tasks, concurrency={"group": "g", "limit": 1})
    builds = [system.ci.builds.trigger("team/job")]
    wait_until(lambda: marks.count("begun") == 1)
    builds += [system.ci.builds.trigger("team/job") for _ in range(2)]
    wait_until(lambda: [system.ci.builds.get(build).state for build in builds[1:]] == ["blocked", "blocked"])

    # When the tree is lost
    wipe(other)
    wait_until(lambda: marks.count("begun") == 2)

    # Then one runs at a time, and all end
    wait_until(lambda: sum(view.state == "blocked" for view in map(system.ci.builds.get, builds)) == 2)
    marks.open("go")
    assert [end(system, build).state for build in builds] == ["passed"] * 3
    assert list(system.ci.coordination.children(paths.permit_folder("group:g"))) == []


@pytest.mark.parametrize(
    "at", ["accepted/team:after/", "builds/team:job/000000001/downstream/", "builds/team:job/000000001/record.json"]
)
def test_the_builds_that_follow_on_a_build_are_started_once(
    system: System, marks: Marks, other: Coordination, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    # Given a build that is being archived, and the tree lost at one step of that
    put(system, "team/job", shell("only", marks.note("only")))
    # What runs when a tree is lost may run again: of what follows nothing does before somebody says so
    put(
        system,
        "team/after",
        {"name": "ask", "type": "approval"},
        shell("only", "true"),
        triggers=[{"type": "job", "job": "team/job"}],
    )
    lost: list[str] = []

    def losing(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(key: str, data: Any) -> Any:
            if key.startswith(at) and not lost:
                lost.append(key)
                wipe(other)
            return method(key, data)

        return call

    monkeypatch.setattr(system.ci.store, "put", losing(system.ci.store.put))
    monkeypatch.setattr(system.ci.store, "put_if_absent", losing(system.ci.store.put_if_absent))

    # When it goes on
    build = system.ci.builds.trigger("team/job")
    view = end(system, build)

    # Then what follows is started and run once
    assert lost
    assert (view.state, marks.count("only")) == ("passed", 1)
    after = [approved(system, BuildId.parse(started)) for started in view.downstream]
    assert [(started.state, len(started.task("only").attempts)) for started in after] == [("passed", 1)]
    wait_until(lambda: list(system.ci.store.list(keys.ACCEPTED)) == [])
    assert numbers(system, "team/after") == [1]


def test_a_build_that_is_brought_back_while_it_is_archived_has_no_record_without_a_result(
    system: System, marks: Marks, other: Coordination, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an end that starts what follows, and the tree lost and brought back before it is looked at again
    put(system, "team/job", shell("only", marks.note("only")))
    put(system, "team/after", shell("only", "true"), triggers=[{"type": "job", "job": "team/job"}])
    lifecycle = system.ci.lifecycle
    create, read = lifecycle.create, lifecycle.read
    lost: list[BuildId] = []

    def then_lost(job: Any, trigger: Any, *more: Any, **named: Any) -> BuildId:
        started = create(job, trigger, *more, **named)
        if trigger.upstream is not None and not lost:
            lost.append(started)
            wipe(other)
            Rebuild(lifecycle).run()
            monkeypatch.setattr(lifecycle, "read", lambda build: brought_back(build))
        return started

    def brought_back(build: BuildId) -> Any:
        if build.job != "team/job":
            return read(build)
        # Only what is read next is of that moment.
        monkeypatch.setattr(lifecycle, "read", read)
        found = read(build)
        return None if found is None else replace(found, result=None, state=None)

    monkeypatch.setattr(lifecycle, "create", then_lost)
    build = system.ci.builds.trigger("team/job")

    # Then what it comes to on record is how it has ended
    view = end(system, build)
    assert lost
    assert (view.state, marks.count("only")) == ("passed", 1)


def test_a_build_that_was_cancelled_stays_so(system: System, marks: Marks, other: Coordination) -> None:
    put(system, "team/job", shell("first", marks.note("first"), marks.gate("go")), shell("second", "true"))
    build = system.ci.builds.trigger("team/job")
    wait_until(lambda: marks.count("first") == 1)
    system.ci.tickets.pause("*")
    system.ci.builds.cancel(build, "not wanted")

    wipe(other)

    view = end(system, build)
    assert (view.state, view.reason, marks.count("first")) == ("cancelled", "not wanted", 1)
    with pytest.raises(IllegalTransition):
        system.ci.builds.cancel(build)


def test_rebuilding_a_tree_that_lives_changes_nothing(system: System, marks: Marks) -> None:
    # Given builds that run, wait and are over
    put(system, "team/job", shell("only", marks.note("begun"), marks.gate("go")), concurrency={"group": "g"})
    over = system.run_tasks(shell("only", "true"), job="team/other")
    # One after the other: of two that are planned at once, either may be the first of its group
    first = system.ci.builds.trigger("team/job")
    wait_until(lambda: system.ci.builds.get(first).state == "running")
    second = system.ci.builds.trigger("team/job")
    wait_until(lambda: system.ci.builds.get(second).state == "blocked")
    builds = [first, second]
    before = {view.token for view in system.ci.tickets.list()}

    # When several rebuild it at once
    found: list[Any] = []
    threads = [Thread(target=lambda: found.append(system.ci.rebuild.run())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # Then nothing is put back, and all goes on as it was
    assert [list(result.builds) for result in found] == [[]] * 4
    assert {view.token for view in system.ci.tickets.list()} == before
    marks.open("go")
    assert [end(system, build).state for build in builds] == ["passed", "passed"]
    assert (marks.count("begun"), system.ci.builds.get(over.id)) == (2, over)


def test_a_claim_of_before_the_loss_can_write_nothing(system: System, other: Coordination) -> None:
    # Given a worker with a claim, and a new tree that has the same ticket
    line = LossyCoordination(open_coordination(system.ci.settings))
    tickets = Tickets(line, new_epoch=system.ci.tickets.tree._new_epoch)
    with Member(tickets, Offer(["odd"]), "zombie") as member:
        system.ci.tickets.post(Ticket("odd-1", "odd"))
        claim = next(member.claims())
        wipe(other)
        wait_until(lambda: system.ci.coordination.exists(paths.FORMAT) is not None)
        system.ci.tickets.post(Ticket("odd-1", "odd"))

        # When it finishes late
        with pytest.raises(ClaimLost):
            claim.finish(follow=[Ticket("odd-2", "odd")])

        # Then nothing of that took effect, and the ticket's next claim has a higher token
        assert claim.lost.is_set()
        again = next(member.claims())
        assert again.ticket.id == "odd-1"
        assert again.ticket.attempt > claim.ticket.attempt
        again.finish()
    line.close()


def test_what_is_posted_by_somebody_who_slept_through_the_loss_is_posted_into_the_new_tree(
    system: System, other: Coordination
) -> None:
    sleeper = Tickets(other, new_epoch=system.ci.tickets.tree._new_epoch)
    before = sleeper.tree.epoch
    wipe(other)
    system.ci.tickets.tree.prepare()

    assert sleeper.post(Ticket("odd-1", "odd"))

    (view,) = [view for view in system.ci.tickets.list() if view.ticket and view.ticket.kind == "odd"]
    assert sleeper.tree.epoch > before
    assert view.token == paths.token("odd-1", paths.attempts_before(sleeper.tree.epoch) + 1)


def test_what_is_paused_in_a_new_tree_is_left_by_a_worker_that_knows_the_lost_one(
    system: System, other: Coordination
) -> None:
    # Given a worker that knows what claims go by, which has been changed once
    own = open_coordination(system.ci.settings)
    tickets = Tickets(own, new_epoch=system.ci.tickets.tree._new_epoch)
    system.ci.tickets.weigh("other", 2)
    with Member(tickets, Offer(["odd"]), "late") as member:
        system.ci.tickets.post(Ticket("odd-1", "odd"))
        next(member.claims()).finish()

        # When the tree is lost, and that of the new one is changed once
        wipe(other)
        system.ci.tickets.tree.prepare()
        persist(lambda: system.ci.tickets.pause("odd"), Deadline(BUILD_TIME_MAX_S))
        tickets.tree.prepare()
        system.ci.tickets.post(Ticket("odd-2", "odd"))

        # Then the version that it knows lets it claim nothing
        assert member._claimer._claim_one() is None
    own.close()


def test_a_rebuild_that_died_half_way_is_begun_again_by_anybody(
    system: System, other: Coordination, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was put back before stays as it is."""
    put(system, "team/job", shell("only", "true"))
    system.ci.tickets.pause("*")
    builds = [system.ci.builds.trigger("team/job") for _ in range(3)]

    class DiedError(Exception):
        pass

    # Given a process that dies after it has put back the first of three
    with monkeypatch.context() as patch:
        patch.setattr(Rebuild, "_is_rebuilt", nobody_can)
        lifecycle = Lifecycle(
            Tickets(other, new_epoch=system.ci.tickets.tree._new_epoch), system.ci.store, system.ci.jobs
        )
        wipe(other)
        restored = 0

        def restore(live: Any) -> bool:
            nonlocal restored
            if restored:
                raise DiedError
            restored += 1
            return Lifecycle.restore(lifecycle, live)

        patch.setattr(lifecycle, "restore", restore)
        with pytest.raises(DiedError):
            Rebuild(lifecycle).run()

    # When the workers find the tree so
    # Then all of the builds come to their end
    assert [end(system, build).state for build in builds] == ["passed"] * 3
    assert Builds(system.ci.lifecycle, system.ci.jobs).trigger("team/job").number == 4


@pytest.mark.parametrize("left", [("/format", "/queue", "/builds"), ("/control", "/epoch", "/running")])
def test_what_a_deletion_that_was_broken_off_left_over_is_deleted_before_the_tree_is_made(
    system: System, other: Coordination, left: Sequence[str]
) -> None:
    # Given a tree that somebody has begun to delete
    put(system, "team/job", shell("only", "true"))
    system.ci.tickets.pause("*")
    build = system.ci.builds.trigger("team/job")
    system.ci.tickets.post(Ticket("odd-1", "odd"))

    # When that is broken off
    wipe(other, left)

    # Then a whole tree is made, without the tickets that were left over, and the build is brought back
    assert end(system, build).state == "passed"
    assert [view.token for view in system.ci.tickets.list()] == []


def test_a_tree_that_lacks_a_folder_is_made_anew_by_whoever_needs_it(system: System, other: Coordination) -> None:
    # Given a tree that somebody has deleted the queue of
    put(system, "team/job", shell("only", "true"))
    system.ci.tickets.pause("*")
    build = system.ci.builds.trigger("team/job")
    system.ci.tickets.post(Ticket("odd-1", "odd"))
    wipe(other, [top for top in (*paths.FOLDERS, paths.CONTROL, paths.FORMAT) if top != paths.QUEUE])

    # When somebody posts to it
    after = system.ci.builds.trigger("team/job")

    # Then no build is lost, and nothing else of that tree is left
    assert [end(system, each).state for each in (build, after)] == ["passed", "passed"]
    assert [view.token for view in system.ci.tickets.list()] == []


def test_a_build_on_record_that_cannot_be_read_keeps_no_other_from_coming_back(
    system: System, other: Coordination
) -> None:
    put(system, "team/job", shell("only", "true"))
    system.ci.tickets.pause("*")
    build = system.ci.builds.trigger("team/job")
    system.ci.store.put(keys.accepted(BuildId("team/a", 1)), b"not JSON")

    wipe(other)

    assert end(system, build).state == "passed"


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[ZooKeeperServers]:
    """A ZooKeeper of the test's own."""
    started = ZooKeeperServers(tmp_path / "servers")
    yield started
    started.stop()


def test_c17_zookeeper_servers_that_lost_all_their_data_cost_no_build(
    servers: ZooKeeperServers, start_system: Callable[..., System], marks: Marks
) -> None:
    # Given a build in the middle of its second task
    system = start_system(coordination=f"zookeeper://{servers.hosts}/distci/root")
    build = in_second_task(system, marks)

    # When the servers come back with nothing
    servers.lose(0)
    wait_until(lambda: marks.count("second") == 2)
    marks.open("go")

    # Then it ends passed, and nothing that had completed was run again
    assert (end(system, build).state, marks.count("first")) == ("passed", 1)
    assert system.ci.builds.trigger("team/job").number == build.number + 1
