"""A whole system in a folder of its own: a tree, a store, and one worker process that serves every kind."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

from distci.app import DistCI, connect
from distci.brokers.direct import Direct
from distci.builds import BuildView
from distci.isolation.host import HostIsolation
from distci.isolation.port import Isolation
from distci.model import TaskState
from distci.process import Post, WorkerProcess
from distci.protocol import paths
from distci.settings import Settings
from distci.work import Cache

KINDS = ("control", "git-checkout", "shell", "publish-artifacts", "copy-artifacts", "status")
BUILD_TIME_MAX_S = 60.0
TIDY_TIME_MAX_S = 30.0

DEPTHS = {paths.JOBS: 2, paths.DEAD: 2, paths.QUEUE: 4}
"""How deep nodes that belong to work are, where it is not 3; above them are folders, which stay."""

SECRETS = {"TOKEN": "robot:t0p-secret", "DEPLOY": "sesame-0pen"}
"""What tasks may name."""


class System:
    """A connected DistCI with a running worker process, and the shortest way to a finished build."""

    def __init__(self, ci: DistCI, scratch: Path) -> None:
        self.ci = ci
        self.scratch = scratch
        """Where the worker process keeps what its attempts work with."""

    def run(self, document: Mapping[str, Any], **trigger: Any) -> BuildView:
        """Save a job, start a build of it, and give the build when it is archived."""
        self.ci.jobs.put(document)
        build = self.ci.builds.trigger(document["job"], **trigger)
        view = self.ci.builds.wait(build, BUILD_TIME_MAX_S)
        assert view.is_archived, f"{build} is still {view.state}"
        return view

    def run_tasks(self, *tasks: Mapping[str, Any], job: str = "team/job", **trigger: Any) -> BuildView:
        """The same for a job of these tasks."""
        return self.run({"job": job, "tasks": [*tasks]}, **trigger)

    def failure(self, view: BuildView, task: str = "source") -> str:
        """Why a task failed."""
        assert view.task(task).state is TaskState.FAILED
        return view.task(task).reason

    def leftovers(self) -> list[str]:
        """What attempts that have ended left on disk for good: their workers remove what they had a moment after a build may be over."""

        def found() -> list[str]:
            return [str(path.relative_to(self.scratch)) for path in self.scratch.glob("*/*") if path.name != "lock"]

        with suppress(TimeoutError):
            wait_until(lambda: not found(), TIDY_TIME_MAX_S)
        return found()

    def log(self, view: BuildView, task: str) -> str:
        """What a task printed."""
        return b"".join(self.ci.builds.log(view.id, task)).decode(errors="replace")


def tree(ci: DistCI) -> list[str]:
    """Every node that belongs to work: jobs, builds, tickets, claims, causes."""
    pending = [folder for folder in paths.FOLDERS if folder not in (paths.IDLE, paths.WORKERS)]
    nodes = []
    while pending:
        path = pending.pop()
        pending += [f"{path}/{name}" for name in ci.coordination.children(path)]
        if path.count("/") == DEPTHS.get(f"/{path.split('/')[1]}", 3):
            nodes.append(path)
    return sorted(nodes)


@pytest.fixture
def start_system(tmp_path: Path) -> Iterator[Callable[..., System]]:
    """Starts a :class:`System`; ``search_path``, ``secrets`` and the back ends' URLs may be other than usual."""
    with ExitStack() as stack:

        def start(
            *,
            search_path: str = os.defpath,
            secrets: Mapping[str, str] = SECRETS,
            cache_bytes_max: int = 2**30,
            coordination: str | None = None,
            store: str | None = None,
            kinds: Sequence[str] = KINDS,
            isolation: Isolation | None = None,
            scratch: Path = tmp_path / "scratch",
            **more: Any,
        ) -> System:
            """``isolation`` is the host if not said; ``more`` are further settings."""
            settings = Settings(
                coordination=coordination or "", store=store or "", data=str(tmp_path / "data"), actor="tester", **more
            )
            ci = stack.enter_context(connect(settings=settings))
            process = WorkerProcess(
                Direct(ci.lifecycle, ci.store, secrets=ci.secrets),
                isolation or HostIsolation(),
                scratch,
                [Post(kinds, slots=4)],
                search_path=search_path,
                name="worker",
                secrets={"": secrets},
                memory=Path(settings.secret_folder),
                cache=Cache(tmp_path / "cache", cache_bytes_max) if cache_bytes_max else None,
            )
            stack.enter_context(process)
            return System(ci, scratch)

        yield start


@pytest.fixture
def system(start_system: Callable[..., System], coordination_url: str | None, store_url: str | None) -> System:
    return start_system(coordination=coordination_url, store=store_url)


@pytest.fixture
def coordination_url() -> str | None:
    """The coordination tree of :func:`system`; None for the embedded one."""
    return None
