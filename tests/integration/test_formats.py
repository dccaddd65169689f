"""A version and the next one, which speaks one more format of the tree, side by side."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from integration.conftest import KINDS, System
from integration.test_rebuild import coordination_url, end, put, shell
from program import Home
from waiting import wait_until

from distci.app import connect, open_coordination
from distci.brokers.direct import Direct
from distci.coordination.port import Delete
from distci.errors import Conflict, WrongFormat
from distci.isolation.host import HostIsolation
from distci.lifecycle import Lifecycle
from distci.model import BuildId
from distci.process import Post, WorkerProcess
from distci.protocol import Tickets, paths
from distci.protocol.members import upgrade, workers
from distci.protocol.records import FORMAT, Formats
from distci.rebuild import new_epoch

__all__ = ["coordination_url"]

NEXT = Formats(FORMAT, FORMAT + 1)
BUILDS = 12


@pytest.fixture
def system(tmp_path: Path, coordination_url: str) -> Iterator[System]:
    """A system of the present version, without workers."""
    with connect(tmp_path / "data", coordination=coordination_url, actor="tester") as ci:
        yield System(ci, tmp_path / "scratch")


@contextmanager
def serving(system: System, name: str, speaks: Formats) -> Iterator[tuple[Tickets, WorkerProcess]]:
    """A worker process of a version that speaks these formats, with a session of its own."""
    ci = system.ci
    coordination = open_coordination(ci.settings)
    tickets = Tickets(coordination, new_epoch=lambda: new_epoch(ci.store), speaks=speaks)
    lifecycle = Lifecycle(tickets, ci.store, ci.jobs, statuses=ci.lifecycle.statuses)
    posts, scratch = [Post(KINDS, slots=4)], system.scratch / name
    process = WorkerProcess(
        Direct(lifecycle, ci.store), HostIsolation(), scratch, posts, search_path=os.defpath, name=name
    )
    with process:
        yield tickets, process
    coordination.close()


def start(system: System) -> list[BuildId]:
    return [system.ci.builds.trigger("team/job") for _ in range(BUILDS)]


def test_c19_a_version_and_the_next_one_share_the_work_and_no_build_fails(system: System) -> None:
    put(system, "team/job", shell("a", "echo a >a"), shell("b", "cat a"))
    with serving(system, "present", Formats()):
        # Given builds under way, and workers of the next version that come in the middle of them
        builds = start(system)
        with serving(system, "next", NEXT) as (tickets, process):
            builds += start(system)

            # Then all pass, and both versions have had a share
            views = [end(system, build) for build in builds]
            assert {view.state for view in views} == {"passed"}
            assert {task.worker for view in views for task in view.tasks} == {"present", "next"}
            assert {view.name: view.formats for view in workers(tickets)} == {"present": Formats(), "next": NEXT}

            # And while one is live that does not speak the next format, it is not put in force
            with pytest.raises(Conflict, match="do not speak format 2; replace them first: present"):
                upgrade(tickets)
            assert tickets.tree.format == FORMAT
            assert process.refused is None


def test_c19_once_all_speak_the_next_format_it_is_put_in_force_under_running_builds(system: System) -> None:
    put(system, "team/job", shell("a", "echo a >a"), shell("b", "cat a"))
    with serving(system, "next", NEXT) as (tickets, process):
        builds = start(system)

        upgrade(tickets)

        assert tickets.tree.format == FORMAT + 1
        assert {end(system, build).state for build in builds} == {"passed"}
        assert process.refused is None


def test_c19_who_does_not_speak_the_format_in_force_ends_and_says_why(system: System, tmp_path: Path) -> None:
    put(system, "team/job", shell("only", "true"))
    with serving(system, "next", NEXT) as (tickets, _):
        # Given a worker of the present version among builds that run, when the next format is put in force
        with serving(system, "present", Formats()) as (_, process):
            builds = start(system)
            tickets.tree.raise_format()
            system.ci.coordination.commit(Delete(paths.worker("present")))

            # Then it ends
            wait_until(lambda: process.refused is not None)
            assert process.wait(timeout_s=60)

        # And no build fails for that
        assert {end(system, build).state for build in builds} == {"passed"}

        # And whoever comes is refused, with a message and an exit code
        with pytest.raises(WrongFormat, match="has format 2, and takes 2 at least; this version of DistCI speaks 1"):
            system.ci.builds.trigger("team/job")
        home = Home(tmp_path)
        data = ("--coordination", system.ci.settings.coordination, "--data", str(tmp_path / "data"))
        refused = home.ask("worker", "run", "shell", *data)
        assert (refused.exit_code, "this version of DistCI speaks 1" in refused.stderr) == (2, True)
