"""Whole builds whose tasks do nothing: what planning, passing on and archiving them costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

from distci.app import DistCI, open_coordination, open_isolation
from distci.bench.measuring import fresh, percentile, raw_pairs_per_s
from distci.brokers.direct import Direct
from distci.build_tickets import CONTROL_KIND
from distci.errors import CoordinationUnavailable
from distci.model import Outcome, Result, Task
from distci.process import load_kind
from distci.protocol import Claim, Member, Offer
from distci.settings import Settings
from distci.work import Site, TaskContext
from distci.worker_loop import Tasks, serve

BUILD_TIME_MAX_S = 600.0
KIND = "shell"
"""What the tasks say that they are; nobody else serves a root of our own."""


@dataclass(frozen=True, slots=True)
class Builds:
    """Builds that were all triggered at once."""

    builds: int
    tasks: int
    """Of each build, one after the other."""
    workers: int
    seconds: float
    """From the first trigger until all are archived."""
    p50_s: float
    """From the trigger of a build until it is archived, when all are there at once."""
    p99_s: float
    raw_pairs_per_s: float
    """Pairs of raw transactions a second, as large as a claim and a finish, as many at once as there are workers."""

    @property
    def tasks_per_s(self) -> float:
        return self.builds * self.tasks / self.seconds

    @property
    def ratio(self) -> float:
        """Its steps (tasks, planning, archiving) by as many raw pairs."""
        return self.builds * (self.tasks + 2) / self.seconds / self.raw_pairs_per_s


class _Nothing:
    """Does nothing, well."""

    kind = KIND

    def perform(self, task: Task, context: TaskContext) -> Outcome:
        return Outcome.passed()


def builds(settings: Settings, builds: int = 50, tasks: int = 4, workers: int = 4) -> Builds:
    """On settings of its own (:func:`~distci.bench.fenced.fenced`), since it serves and leaves builds of its own."""
    with ExitStack() as stack:
        system = stack.enter_context(DistCI(settings))
        scratch = Path(stack.enter_context(TemporaryDirectory(prefix="distci-bench-")))
        site = Site(open_isolation(), scratch, settings.search_path, {})
        control = load_kind(CONTROL_KIND)()
        kinds: dict[str, Callable[[Claim], Claim | None]] = {
            KIND: Tasks(_Nothing(), site, Direct(system.lifecycle, system.store)).serve,
            CONTROL_KIND: lambda claim: control.serve(claim, system.lifecycle),
        }
        for kind, perform in kinds.items():
            for _ in range(workers):
                member = stack.enter_context(Member(system.tickets, Offer([kind]), fresh("bench")))
                server = Thread(target=serve, args=(member, perform))
                server.start()
                stack.callback(server.join)
                stack.callback(member.drain)
        document = {
            "job": "bench/chain",
            "tasks": [{"name": f"t{number}", "type": KIND, "script": "true"} for number in range(tasks)],
        }
        system.jobs.put(document)
        started = time.perf_counter()
        triggered = [(system.builds.trigger("bench/chain"), time.perf_counter()) for _ in range(builds)]
        taken = []
        for build, at in triggered:
            view = system.builds.wait(build, BUILD_TIME_MAX_S)
            if view.result is not Result.PASSED:
                raise CoordinationUnavailable(f"{build}, which does nothing, came to {view.state}")
            taken.append(time.perf_counter() - at)
        seconds = time.perf_counter() - started
    raw = raw_pairs_per_s(partial(open_coordination, settings), builds * (tasks + 2), workers)
    return Builds(builds, tasks, workers, seconds, statistics.median(taken), percentile(taken, 99), raw)
