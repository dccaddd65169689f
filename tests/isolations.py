"""Ways to isolate commands, for tests: each driver as it is used, and what finds out whom it left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any
from uuid import uuid4

from services import shared
from services.engines import IMAGE
from services.machines import image_of

from distci.isolation.cgroups import ControlGroups, find_cgroups
from distci.isolation.host import HostIsolation
from distci.isolation.lxc import LxcIsolation
from distci.isolation.port import Command, Confinement, Ended, Isolation, Mount
from distci.isolation.sandbox import SandboxIsolation
from distci.isolation.seen import Seen
from distci.isolation.supervised import FENCE
from distci.isolation.users import Subordinates

SUBORDINATES = Subordinates(100_000, 100_000)
"""Their numbers. Whoever else has them here has nothing to do with a test."""


def lxc(users: Subordinates | None = None, images: Path | None = None) -> LxcIsolation:
    """With users of the containers' own, or with the machine's."""
    return LxcIsolation(shared.kit_folder(), find_cgroups(), Seen([sys.prefix]), images, users)


OWN_USERS, MACHINES_USERS = "lxc", "lxc with the machine's users"

LXC = (OWN_USERS,) if os.geteuid() == 0 else ()
"""``lxc`` where it can be had: its containers are made by root alone."""

DRIVERS: Mapping[str, Callable[[], Isolation]] = {
    "supervised": HostIsolation,
    "grouped": lambda: HostIsolation(find_cgroups()),
    "sandboxed": lambda: SandboxIsolation(find_cgroups(), [sys.prefix]),
    **({OWN_USERS: lambda: lxc(SUBORDINATES), MACHINES_USERS: lxc} if LXC else {}),
}
"""``host`` with nothing but its supervisors, ``host`` with control groups, ``sandbox``, and ``lxc`` in both ways; these see the tests' Python, too."""

ENGINES = ("podman", "docker")
"""``container`` with each."""

MACHINES = ("vm", "small vm")
"""``vm`` with an image that has what scripts of tests need, and with the one that has a shell and little else."""
MACHINE_MEMORY_BYTES = 1 << 30
MACHINE_PYTHON = "/usr/bin/python3"
"""The tests' own is on no disk of theirs."""

PLAIN = Confinement()
LONG_S = 600
"""Longer than any test may take: whoever sleeps so long ends because it is ended."""

TIMEOUTS_S = (0.5, 2.0, 8.0, 32.0)
"""Deadlines to try: a machine that is busy may need more to start what shall be ended."""

RUNAWAY = """
import os, time
until_s = time.monotonic() + 60
[os.fork() for _ in range(3)]
while time.monotonic() < until_s:
    if os.fork():
        os._exit(0)
"""
"""Eight processes that are always somebody else a moment later; of themselves for a minute at most."""

TREES = {
    "a child": f"sleep {LONG_S} &",
    "a child that forked twice": f"( ( sleep {LONG_S} & ) & )",
    "a child in a session of its own": f"setsid sleep {LONG_S} &",
    "a child that ignores SIGTERM": f"(trap '' TERM; exec sleep {LONG_S}) &",
    "a daemon that closed its pipes": f"( setsid sh -c 'exec <&- >&- 2>&-; cd /; trap \"\" TERM HUP; sleep {LONG_S}' & )",
    "a stopped child": f"(kill -STOP $(exec sh -c 'echo $PPID'); sleep {LONG_S}) &",
    "a child with an empty environment": f"( setsid env -i TEST_MARK=$TEST_MARK sleep {LONG_S} & )",
    "a few dozen children": f"for i in 1 2 3 4 5 6; do (for j in 1 2 3 4 5 6; do sleep {LONG_S} & done; wait) & done",
    "children that fork all the time": (
        "for i in 1 2 3 4 5 6 7 8; do (trap '' TERM; while :; do (sleep 0.01; :) & wait; done) & done"
    ),
    "children that run away": f"{sys.executable} -S -c '{RUNAWAY}' &",
}
"""What a script may leave behind, by name."""


class Runner:
    """Runs commands by one driver, and finds what is left of them."""

    def __init__(self, driver: str, directory: Path) -> None:
        self.driver = driver
        self.directory = directory
        self.mark = uuid4().hex
        self.is_container = driver in ENGINES
        self.is_machine = driver in MACHINES
        self.isolation: Isolation
        if self.is_container:
            # Imported by those alone who have engines: it takes a fifth of a second.
            from distci.isolation.container import ContainerIsolation

            folder = shared.engine_folder(driver)
            self.isolation = ContainerIsolation(shared.engine(driver), folder, network="host")
        elif self.is_machine:
            from distci.isolation.vm import VmIsolation

            image = image_of(shared.machine_image(is_small=driver != "vm"))
            self.image = image.name
            self.isolation = VmIsolation(
                {image.name: image},
                shared.machine_folder(),
                memory_bytes=MACHINE_MEMORY_BYTES,
                cpus=1,
                accelerator="tcg",
                cgroups=find_cgroups(),
            )
        else:
            self.isolation = DRIVERS[driver]()

    @property
    def environment(self) -> Mapping[str, str]:
        """What a script needs, and by what it and its children are found."""
        return {"PATH": os.defpath, "TEST_MARK": self.mark, FENCE: self.mark}

    def run(
        self,
        *argv: str,
        environment: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        grace_s: float = 0.2,
        output: Callable[[bytes], object] = lambda data: None,
        stop: Event | None = None,
        confinement: Confinement = PLAIN,
    ) -> tuple[Ended, bytes]:
        """How a command ended and what it printed."""
        printed = bytearray()

        def take(data: bytes) -> None:
            printed.extend(data)
            output(data)

        variables = self.environment if environment is None else environment
        command = self.command(argv, variables, timeout_s, grace_s, confinement)
        return self.isolation.run(command, take, stop or Event()), bytes(printed)

    def script(self, text: str, **options: Any) -> tuple[Ended, bytes]:
        """The same for a script of the shell."""
        return self.run("/bin/sh", "-c", text, **options)

    def command(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        timeout_s: float | None = None,
        grace_s: float = 0.2,
        confinement: Confinement = PLAIN,
    ) -> Command:
        """A command that has the runner's directory, and nothing else."""
        mounts = [Mount(self.directory, is_writable=True, is_own=True)]
        if self.is_container:
            mounts += [Mount(Path(prefix)) for prefix in {sys.prefix, sys.base_prefix}]
            confinement = replace(confinement, image=confinement.image or IMAGE)
        if self.is_machine:
            argv = [word.replace(sys.executable, MACHINE_PYTHON) for word in argv]
            confinement = replace(confinement, image=confinement.image or self.image)
        return Command(argv, self.directory, environment, self.mark, timeout_s, grace_s, mounts, confinement)

    def left(self) -> Sequence[int]:
        """Who lives of all that was run here, supervisors and machines included."""
        mark = self.mark.encode()
        return [int(name) for name in os.listdir("/proc") if name.isdigit() and mark in environment_of(int(name))]


def environment_of(pid: int) -> bytes:
    """What a process was given; nothing for one that is dead."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def runner_of(driver: str, directory: Path) -> Iterator[Runner]:
    """For a fixture: what a failed test left behind shall not disturb the next one."""
    runner = Runner(driver, directory)
    yield runner
    for pid in runner.left():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


WORKER = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from threading import Event
from isolations import Runner
from distci.isolation.supervised import FENCE
from distci.isolation.port import Confinement, Service
driver, directory, mark, script, *services = sys.argv[1:]
runner = Runner(driver, Path(directory))
runner.mark = mark
environment = {{"PATH": "/bin:/usr/bin", "TEST_MARK": mark, FENCE: mark}}
variables = {{"TEST_MARK": mark}}
beside = [Service(name, "{image}", ["sleep", "600"], variables) for name in services]
confinement = Confinement(network=not beside, services=beside)
command = runner.command(["/bin/sh", "-c", script], environment, grace_s=600.0, confinement=confinement)
with open(runner.directory.with_name(f"{{runner.directory.name}}-printed"), "wb", 0) as printed:
    print(runner.isolation.run(command, printed.write, Event()))
"""


def start_worker(runner: Runner, script: str, services: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """A process that runs a script in the runner's way, with services of these names. It is not marked as the script is."""
    arguments = [runner.driver, str(runner.directory), runner.mark, script, *services]
    program = WORKER.format(path=[str(Path(__file__).parent)], image=IMAGE)
    return subprocess.Popen([sys.executable, "-c", program, *arguments])


def groups_of(pid: int) -> Sequence[str]:
    """The control groups that a process has made for commands, in whatever tree."""
    cgroups = find_cgroups() or ControlGroups()
    folders = {*cgroups.controllers.values(), *([cgroups.unified] if cgroups.unified else [])}
    return [str(group) for folder in folders for group in folder.glob(f"{pid}-*")]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def children() -> list[str]:
    """All of this process, zombies included."""
    return Path("/proc/thread-self/children").read_text().split()
