"""Control groups of this machine: what limits a command, counts what it used, and kills it as a whole.

Of version 2 (one tree for everything) or version 1 (a tree for each controller), or both beside each other, whichever the kernel was
started with. Groups are made below the one that this process is in, so that whatever holds the worker holds its commands too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import sleep
from uuid import uuid4

from distci.errors import Invalid, Unavailable
from distci.isolation.port import Limits
from distci.isolation.processes import is_there, own_name

FOLDER = "distci"
INNER = "distci-worker"
"""Where a worker goes that was alone in a group of its own."""
PERIOD_US = 100_000
"""Over which the kernel gives out processor time (its own default)."""

WANTED = {"memory_bytes": "memory", "cpus": "cpu", "processes": "pids"}
"""The controller that enforces a limit, by the limit's name in :class:`~distci.isolation.port.Limits`."""


@dataclass(frozen=True, slots=True)
class ControlGroups:
    """Where this process may make control groups."""

    unified: Path | None = None
    """A folder of the version 2 tree whose groups can be killed."""
    controllers: Mapping[str, Path] = field(default_factory=dict)
    """The folder for groups by controller; on version 2 they are all the same one."""

    def problems(self, limits: Limits) -> list[str]:
        """Which of these limits cannot be enforced here."""
        needed = {WANTED[name] for name in WANTED if getattr(limits, name) is not None}
        return [
            f"no {controller} control group can be made by this worker: run it as root, or give it a tree of its own (Delegate=yes in its systemd unit)"
            for controller in sorted(needed - self.controllers.keys())
        ]

    @contextmanager
    def group(self, tag: str, limits: Limits) -> Iterator[Group]:
        """Groups for one command, gone afterwards with whoever is in them. Invalid for limits that cannot be enforced."""
        if problems := self.problems(limits):
            raise Invalid("; ".join(problems))
        name = f"{own_name()}-{tag}-{uuid4().hex[:8]}"
        group = Group(
            self.unified / name if self.unified else None,
            {
                controller: self.controllers[controller] / name
                for limit, controller in WANTED.items()
                if getattr(limits, limit) is not None
            },
        )
        try:
            group.make(limits)
            yield group
        finally:
            group.remove()

    def sweep(self) -> int:
        """Remove the groups of processes that are gone, and whoever is in them; how many these were."""
        removed = 0
        folders = {*self.controllers.values(), *([self.unified] if self.unified else [])}
        for path in [path for folder in folders if folder.is_dir() for path in folder.iterdir()]:
            if path.is_dir() and path.name[0].isdigit() and not is_there(path.name):
                remove(path)
                removed += 1
        return removed


@dataclass(frozen=True, slots=True)
class Group:
    """The groups of one command."""

    unified: Path | None
    controllers: Mapping[str, Path]

    @property
    def paths(self) -> Sequence[Path]:
        """All of them, the one that can be killed first."""
        return list(dict.fromkeys([*([self.unified] if self.unified else []), *self.controllers.values()]))

    def make(self, limits: Limits) -> None:
        """Make them, with these limits; Unavailable where the kernel refuses."""
        try:
            for path in self.paths:
                path.mkdir(parents=True)
            for name, value in self._settings(limits):
                path = self.controllers[name.partition(".")[0]] / name
                path.write_text(value)
        except OSError as error:
            raise Unavailable(f"no control group can be made: {error}") from error

    def _settings(self, limits: Limits) -> Iterator[tuple[str, str]]:
        if limits.memory_bytes is not None:
            yield from self._memory_settings(str(limits.memory_bytes))
        if limits.processes is not None:
            yield "pids.max", str(limits.processes)
        if limits.cpus is not None:
            quota = max(1000, round(limits.cpus * PERIOD_US))
            if self._is_unified("cpu"):
                yield "cpu.max", f"{quota} {PERIOD_US}"
            else:
                yield "cpu.cfs_period_us", str(PERIOD_US)
                yield "cpu.cfs_quota_us", str(quota)

    def _memory_settings(self, size: str) -> Iterator[tuple[str, str]]:
        """Swap counts as memory: a command that begins to swap would only be slow where it should end."""
        names = (
            ("memory.max", "memory.swap.max")
            if self._is_unified("memory")
            else (
                "memory.limit_in_bytes",
                "memory.memsw.limit_in_bytes",
            )
        )
        yield names[0], size
        if (self.controllers["memory"] / names[1]).exists():
            yield names[1], "0" if self._is_unified("memory") else size

    def _is_unified(self, controller: str) -> bool:
        return self.controllers[controller] == self.unified

    @property
    def is_out_of_memory(self) -> bool:
        """Whether the kernel killed anybody for lack of memory within the limit."""
        if "memory" not in self.controllers:
            return False
        file = "memory.events" if self._is_unified("memory") else "memory.oom_control"
        return any(line.startswith("oom_kill ") and line != "oom_kill 0" for line in self._lines("memory", file))

    @property
    def memory_peak_bytes(self) -> int | None:
        """The most memory that all had together; None where nobody counted."""
        if "memory" not in self.controllers:
            return None
        file = "memory.peak" if self._is_unified("memory") else "memory.max_usage_in_bytes"
        lines = self._lines("memory", file)
        return int(lines[0]) if lines else None

    def _lines(self, controller: str, file: str) -> list[str]:
        try:
            return (self.controllers[controller] / file).read_text().splitlines()
        except OSError:
            return []

    def kill(self) -> None:
        """Kill everybody in it, where it can be killed as a whole."""
        if self.unified:
            with suppress(OSError):
                (self.unified / "cgroup.kill").write_text("1")

    def remove(self) -> None:
        for path in self.paths:
            remove(path)


def remove(path: Path) -> None:
    """Kill whoever is still in a control group, and remove it; it takes a moment until the dead have left."""
    with suppress(OSError):
        (path / "cgroup.kill").write_text("1")
    for _ in range(1000):
        try:
            # The command may have made groups below its own.
            for folder, _, _ in os.walk(path, topdown=False):
                os.rmdir(folder)
        except FileNotFoundError:
            return
        except OSError:
            sleep(0.002)
        else:
            return


def find_cgroups() -> ControlGroups | None:
    """Where this process may make control groups; None where it may not."""
    unified: Path | None = None
    controllers: dict[str, Path] = {}
    own = dict(_own_groups())
    for kind, options, mounted in _mounts():
        if kind == "cgroup2":
            unified = unified or _unified(mounted, own.get("", ""))
            if unified:
                controllers |= dict.fromkeys(_enabled(unified), unified)
        else:
            for controller in {*options.split(",")} & {*WANTED.values()}:
                folder = _usable(mounted / own.get(controller, "")) or _usable(mounted)
                if folder:
                    controllers[controller] = folder
    return ControlGroups(unified, controllers) if unified or controllers else None


def _mounts() -> Iterator[tuple[str, str, Path]]:
    """Type, options of the file system, and place of each tree of control groups."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split()[:3]
        if kind in ("cgroup", "cgroup2"):
            yield kind, options, Path(before.split()[4])


def _own_groups() -> Iterator[tuple[str, str]]:
    """The group that this process is in by controller; by the empty name that of version 2."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            yield controller, path.lstrip("/")


def _unified(mounted: Path, own: str) -> Path | None:
    """The folder for groups on version 2, with whatever controllers can be had for them."""
    group = mounted / own
    above = [group.parent] if group.name == INNER else []
    for parent in dict.fromkeys([mounted, *above, group]):
        folder = _usable(parent, "cgroup.kill")
        if folder:
            _enable(parent, folder)
            return folder
    return None


def _usable(parent: Path, file: str = "cgroup.procs") -> Path | None:
    """Our folder below a group, where we may make groups in it with a file that we may write to; else None."""
    folder = parent / FOLDER
    try:
        folder.mkdir(exist_ok=True)
        probe = folder / f"probe-{uuid4().hex[:8]}"
        probe.mkdir()
        is_usable = os.access(probe / file, os.W_OK)
        probe.rmdir()
    except OSError:
        return None
    return folder if is_usable else None


def _enable(parent: Path, folder: Path) -> None:
    """Have the groups in our folder limited by what their tree offers. Each controller by itself: some may be refused."""
    if parent.joinpath("cgroup.procs").read_text().split() == [str(os.getpid())]:
        # A group with processes of its own gives no controllers to those below; only the root of all may. So the worker goes into one.
        inner = parent / INNER
        with suppress(OSError):
            inner.mkdir(exist_ok=True)
            (inner / "cgroup.procs").write_text(str(os.getpid()))
    for controller in WANTED.values():
        for path in (parent, folder):
            with suppress(OSError):
                (path / "cgroup.subtree_control").write_text(f"+{controller}")


def _enabled(folder: Path) -> set[str]:
    return {*(folder / "cgroup.subtree_control").read_text().split()} & {*WANTED.values()}
