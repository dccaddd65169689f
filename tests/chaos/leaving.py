"""What a worker leaves of very many tasks, and of builds that are cancelled at random moments: the program of ``tests/chaos/leftovers``."""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from isolations import ENGINES, groups_of
from services import engines
from waiting import wait_until

from distci.app import DistCI, connect, open_isolation
from distci.brokers.direct import Direct
from distci.isolation.processes import own_name, stat
from distci.model import Result
from distci.process import Post, WorkerProcess
from distci.protocol.members import workers
from distci.settings import Settings

SLOTS = 4
TASKS_OF_A_BUILD = 50
CANCELLED_AT_ONCE = 8
CANCEL_AFTER_MAX_S = 1.5
FINAL_WITHIN_S = 10.0
BUILD_TIME_MAX_S = 600.0
SETTLED_WITHIN_S = 30.0

TREE = "setsid sleep 600 & sleep 600 & wait"
"""What a cancelled task leaves if nobody ends all of it."""


class Standing:
    """A system with one worker process, and what there is of it."""

    def __init__(self, ci: DistCI, folder: Path, engine: str) -> None:
        self.ci = ci
        self._folder = folder
        self._engine = engine

    def counts(self) -> dict[str, int]:
        """All that must not grow with the number of tasks."""
        # Podman mounts its own storage when it is asked, and some time later no more.
        containers = self._containers()
        mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        mine = [path for place in ("scratch", "containers") for path in (self._folder / place).rglob("*")]
        return {
            "files on disk": len(mine),
            "open files": len(os.listdir("/proc/self/fd")),
            "threads": threading.active_count(),
            "processes": len(descendants()),
            "mounts": sum(place.startswith(f"{self._folder.parent}/") for place in mounted),
            "control groups": len(groups_of(os.getpid())),
            "containers": containers,
            "sessions": sum(1 for _ in workers(self.ci.tickets)),
        }

    def _containers(self) -> int:
        if not self._engine:
            return 0
        import docker

        client = docker.APIClient(self._engine)
        found = client.containers(all=True, filters={"label": [f"distci.worker={own_name()}"]})
        client.close()
        return len(found)


def descendants() -> list[int]:
    """All processes below this one, zombies included."""
    below: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                below.setdefault(int(stat(int(name))[1]), []).append(int(name))
            except (OSError, IndexError):
                continue
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        children = below.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


@contextmanager
def system(folder: Path, isolation: str, engine: str) -> Iterator[Standing]:
    """One that has done a task already."""
    settings = Settings(data=str(folder), actor="leftovers", container_engine=engine, container_network="host")
    with connect(settings=settings) as ci:
        process = WorkerProcess(
            Direct(ci.lifecycle, ci.store),
            open_isolation((isolation,), settings),
            folder / "scratch",
            [Post(("control", "shell"), SLOTS)],
            search_path=os.defpath,
        )
        with process:
            standing = Standing(ci, folder, engine)
            many(standing, engine, 2 * SLOTS)
            yield standing


def many(standing: Standing, engine: str, tasks: int) -> None:
    """So many tasks, one after the other for each slot."""
    ci = standing.ci
    while tasks > 0:
        count = min(tasks, TASKS_OF_A_BUILD)
        ci.jobs.put({"job": "team/many", "tasks": [task(f"t{number}", "echo $$", engine) for number in range(count)]})
        view = ci.builds.wait(ci.builds.trigger("team/many"), BUILD_TIME_MAX_S)
        assert view.result is Result.PASSED, view
        tasks -= count


def task(name: str, script: str, engine: str) -> dict[str, Any]:
    isolation = {"isolation": {"type": "container", "image": engines.IMAGE}} if engine else {}
    return {"name": name, "type": "shell", "needs": [], "script": script, **isolation}


def cancels(standing: Standing, engine: str, count: int, seed: int) -> list[float]:
    """Seconds until builds were final that were cancelled at random moments."""
    ci, chance = standing.ci, random.Random(seed)
    ci.jobs.put({"job": "team/cancelled", "tasks": [task("stay", TREE, engine)]})

    def once(after_s: float) -> float:
        build = ci.builds.trigger("team/cancelled")
        time.sleep(after_s)
        began_s = time.monotonic()
        ci.builds.cancel(build, "no longer wanted")
        view = ci.builds.wait(build, BUILD_TIME_MAX_S)
        assert view.result is Result.CANCELLED, view
        return time.monotonic() - began_s

    with ThreadPoolExecutor(CANCELLED_AT_ONCE) as pool:
        return list(pool.map(once, [chance.uniform(0, CANCEL_AFTER_MAX_S) for _ in range(count)]))


def told(what: str, before: Mapping[str, int], standing: Standing) -> bool:
    """Whether all is back where it was before, within a while; it is printed."""
    try:
        wait_until(lambda: all(now <= before[name] for name, now in standing.counts().items()), SETTLED_WITHIN_S)
        is_back = True
    except TimeoutError:
        is_back = False
    after = standing.counts()
    click.echo(f"{what}: {'all is back where it was' if is_back else 'SOMETHING IS LEFT'}")
    for name, now in after.items():
        click.echo(f"  {name:16} {before[name]:6} before, {now:6} after")
    return is_back


def main() -> int:
    parser = ArgumentParser(prog="tests/chaos/leftovers")
    parser.add_argument("isolation", nargs="?", default="sandbox", choices=("sandbox", "lxc", "podman", "docker"))
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--cancels", type=int, default=500)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    asked = parser.parse_args()
    with ExitStack() as stack:
        # Podman takes no long paths.
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="l-", ignore_cleanup_errors=True)))
        folder.chmod(0o755)
        is_container = asked.isolation in ENGINES
        engine = stack.enter_context(engines.running(folder))[asked.isolation] if is_container else ""
        kind = "container" if engine else asked.isolation
        standing = stack.enter_context(system(folder / "data", kind, engine))
        before = standing.counts()
        began_s = time.monotonic()
        many(standing, engine, asked.tasks)
        taken_s = time.monotonic() - began_s
        is_fine = told(f"{asked.isolation}: {asked.tasks} tasks in {taken_s:.0f} s", before, standing)
        ends = sorted(cancels(standing, engine, asked.cancels, asked.seed)) or [0.0]
        what = f"{len(ends)} cancelled (seed {asked.seed}), final after {ends[len(ends) // 2]:.2f} s (median), {ends[-1]:.2f} s (most)"
        is_fine &= told(f"{asked.isolation}: {what}", before, standing)
    return 0 if is_fine and ends[-1] <= FINAL_WITHIN_S else 1


if __name__ == "__main__":
    sys.exit(main())
