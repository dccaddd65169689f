"""Every wait, skip and repetition has a reason, and what the reason says would help does help."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from waiting import wait_until

from distci.builds import BuildView
from distci.model import BuildId, Result, TaskState
from distci.protocol import Claim, Member, Offer, Ticket


def shell(name: str, script: str = "true", **keys: Any) -> dict[str, Any]:
    return {"name": name, "type": "shell", "script": script, **keys}


def start(system: Any, *tasks: dict[str, Any], job: str = "team/job", **keys: Any) -> BuildId:
    system.ci.jobs.put({"job": job, "tasks": [*tasks], **keys})
    build: BuildId = system.ci.builds.trigger(job)
    return build


def reached(system: Any, build: BuildId, task: str, state: TaskState) -> None:
    def is_so() -> bool:
        view: BuildView = system.ci.builds.get(build)
        return any(found.name == task and found.state is state for found in view.tasks)

    wait_until(is_so)


def reasons(system: Any, build: BuildId) -> dict[str, str]:
    """What is said of the build, under its id, and of its tasks, under their names."""
    return {reason.subject.removeprefix(f"{build} "): reason.because for reason in system.ci.why.build(build)}


def test_c16_a_label_that_nobody_offers_is_named_and_the_remedy_starts_the_task(system: Any) -> None:
    build = start(system, shell("a", labels=["gpu=*"]))
    reached(system, build, "a", TaskState.READY)

    reason = system.ci.why.task(build, "a")

    assert reason.because == "no live worker of shell offers gpu=*"
    command, _, arguments = reason.remedy.partition(": ")
    assert (command, arguments) == ("start one", "distci worker run shell --label 'gpu=*'")
    labels = shlex.split(arguments)[5:]
    with Member(system.ci.tickets, Offer(["shell"], labels), name="remedy") as member:
        claim: Claim = next(member.claims())
        assert claim.ticket.body["task"] == "a"
        assert system.ci.why.task(build, "a").because == "remedy works on it"


def test_c16_an_isolation_that_nobody_offers_is_named_with_where_to_look(system: Any) -> None:
    build = start(system, shell("a", labels=["os=linux"], isolation={"type": "vm", "image": "busybox"}))
    reached(system, build, "a", TaskState.READY)

    reason = system.ci.why.task(build, "a")

    assert reason.because == "no live worker of shell offers os=linux or isolation=vm"
    assert reason.remedy == (
        "start one: distci worker run shell --label os=linux, "
        "on a machine where `distci check` finds isolation vm and the setting isolation allows it"
    )


def test_c16_a_task_that_waits_or_was_skipped_names_what_it_needs(system: Any) -> None:
    build = start(system, shell("a", "exit 3"), shell("b"), shell("c", when="failure"), shell("d", "true", needs=["b"]))
    system.ci.builds.wait(build, 60)

    found = reasons(system, build)

    assert found[str(build)] == "a went wrong"
    assert found["a"] == "exit status 3"
    assert found["b"] == "it needs a (failed)"
    assert found["d"] == "it needs b (skipped)"
    assert "c" not in found


def test_c16_a_reaction_that_had_nothing_to_react_to_says_so(system: Any) -> None:
    build = start(system, shell("a"), shell("b", when="failure"))
    system.ci.builds.wait(build, 60)

    assert reasons(system, build)["b"] == "it runs when something fails, and nothing that it needs did: a"


def test_c16_a_task_that_its_filter_leaves_out_says_by_which_part(system: Any) -> None:
    build = start(system, shell("a"), shell("b") | {"if": {"branches": ["main"]}}, shell("c"))
    view = system.ci.builds.wait(build, 60)

    assert (view.result, view.task("b").state) == (Result.PASSED, TaskState.SKIPPED)
    found = reasons(system, build)
    assert found["b"] == "its `if` leaves it out: the trigger names no branch, so it is none of: main"
    assert found["c"] == "it needs b (skipped)"


def test_c16_a_task_that_was_tried_again_counts_its_rounds(system: Any) -> None:
    build = start(system, shell("a", "exit 1", retries=2))
    system.ci.builds.wait(build, 60)

    reason = system.ci.why.task(build, "a")
    assert (reason.because, reason.remedy) == ("exit status 1, after 3 rounds", f"distci build log {build} a")


def test_c16_a_build_whose_group_is_full_names_who_runs(system: Any, tmp_path: Path) -> None:
    gate = tmp_path / "open"
    first = start(system, shell("a", f"until test -e {gate}; do sleep 0.02; done"), concurrency={})
    reached(system, first, "a", TaskState.RUNNING)
    second = system.ci.builds.trigger("team/job")
    wait_until(lambda: system.ci.builds.get(second).state == "blocked")

    [reason] = system.ci.why.build(second)

    assert (reason.state, reason.because, reason.place) == ("blocked", f"its group team/job is full: {first}", 1)
    gate.touch()
    assert system.ci.builds.wait(second, 60).result is Result.PASSED


def test_c16_a_task_that_waits_for_a_busy_worker_is_told_when_it_is_likely_to_start(
    system: Any, tmp_path: Path
) -> None:
    gate = tmp_path / "open"
    tasks = [shell(f"t{number}", f"until test -e {gate}; do sleep 0.02; done", needs=[]) for number in range(5)]
    gate.touch()
    system.ci.builds.wait(start(system, *tasks), 60)
    gate.unlink()
    build = start(system, *tasks)
    # The worker has four slots.
    wait_until(lambda: sum(task.state is TaskState.RUNNING for task in system.ci.builds.get(build).tasks) == 4)
    [waiting] = [task.name for task in system.ci.builds.get(build).tasks if task.state is TaskState.READY]

    reason = system.ci.why.task(build, waiting)

    assert (reason.because, reason.place) == ("worker can take it, but all 4 slots are busy", 1)
    assert reason.starts_in_s
    gate.touch()
    system.ci.builds.wait(build, 60)


def test_c16_a_ticket_that_was_set_aside_says_how_to_put_it_back(system: Any) -> None:
    system.ci.tickets.post(Ticket("poison", "other", attempts=1))
    with Member(system.ci.tickets, Offer(["other"]), name="w") as member:
        next(member.claims()).give_back("it broke")

    reason = system.ci.why.ticket("poison")

    assert (reason.because, reason.remedy) == ("set aside: it broke", "distci ticket requeue poison.1")
