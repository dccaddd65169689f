"""The isolation port: running one command so that all of it can be ended and nothing of it survives.

Promises that hold for every driver:

* The command sees the environment that it is given and nothing of the worker's own.
* Standard output and standard error arrive as one stream, in order, byte for byte; standard input is empty.
* When :meth:`Isolation.run` returns or raises, every process that descends from the command is gone,
  daemons included.
* When the worker itself is killed, they are gone soon after, and :meth:`Isolation.sweep` of the next start
  removes whatever is left.
* What a command shall be confined to (:class:`Confinement`) holds, or the command is not run: Invalid says what a driver cannot do, by
  its nature or for want of rights. None leaves out a limit in silence.
* A path is the same inside and outside. What is mounted besides the machine's tools is what :attr:`Command.mounts` says.
* Memory, processors and processes are limited for the tree as a whole. A command that went beyond its memory is told from one
  that somebody killed (:attr:`Ended.is_out_of_memory`).

What a driver cannot do by its nature: ``host`` has the machine's own root, network and files, so it takes neither ``read_only`` nor
``network`` off nor an image; ``sandbox`` has the machine's tools, so it takes no image; ``lxc`` has them, too, or else an image;
``container`` has nothing but an image, and is the only one with services beside a command. All take limits and a user where the worker has the rights that this needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from threading import Event
from typing import Protocol

from distci.model import Usage

HOST, SANDBOX, CONTAINER, LXC, VM = "host", "sandbox", "container", "lxc", "vm"

HEALTH_TIME_MAX_S = 60.0
"""How long a service may take until it is ready, unless its task says something else."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a command and all that descends from it may use together; None: as much as there is."""

    memory_bytes: int | None = None
    """Swap included. Beyond it, the kernel kills the largest of them."""
    cpus: float | None = None
    """Processors' worth of time."""
    processes: int | None = None
    """Threads count, too. Beyond it, none can be started."""
    disk_bytes: int | None = None
    """Of all that it may write to. It is looked at again and again; a command that is found beyond it ends."""


@dataclass(frozen=True, slots=True)
class Service:
    """What runs beside a command as long as that does: a database to be tested with, say."""

    name: str
    """By which the command reaches it."""
    image: str
    arguments: Sequence[str] = ()
    """In place of the image's own; its entry point stays."""
    environment: Mapping[str, str] = field(default_factory=dict)
    health: Sequence[str] = ()
    """A command in there that succeeds once it is ready; empty: the image's own, if it has one."""
    health_time_max_s: float = HEALTH_TIME_MAX_S
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True)
class Confinement:
    """What a command is confined to, whichever driver does it."""

    type: str = ""
    """The driver; empty: whichever the worker's operator prefers."""
    image: str = ""
    """What its root is made of; empty: the machine's own tools."""
    user: str = ""
    """Whom it runs as: a name, ``UID`` or ``UID:GID``; empty: the driver's choice."""
    network: bool = True
    """False: nothing but a loopback interface of its own."""
    read_only: bool = False
    """Whether it must not be able to write outside its mounts and ``/tmp``."""
    limits: Limits = Limits()
    services: Sequence[Service] = ()
    """They are ready before it begins, and end with it."""
    logins: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What to say to private registries, by host: ``user:password``."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder or file that a command sees, at the very path that it has outside."""

    path: Path
    is_writable: bool = False
    is_own: bool = False
    """It belongs to the attempt: the driver may give it to whoever the command runs as."""


@dataclass(frozen=True, slots=True)
class Command:
    """What to run, where, and within which limits."""

    argv: Sequence[str]
    directory: Path
    """Working directory; it exists."""
    environment: Mapping[str, str]
    tag: str
    """Names the attempt that this command belongs to, so that leftovers can be told apart. ``[A-Za-z0-9._-]+``."""
    timeout_s: float | None = None
    """Seconds after which the whole tree is ended."""
    grace_s: float = 5.0
    """Seconds between asking the tree to end (SIGTERM) and killing it (SIGKILL)."""
    mounts: Sequence[Mount] = ()
    confinement: Confinement | None = field(default_factory=Confinement)
    """None: a program of DistCI's own, which jobs have no say in, and which runs as the worker does."""
    terminal: Path | None = None
    """The pipe of a :class:`~distci.isolation.terminal.Terminal` among the mounts: then ``/dev/tty`` is a terminal on which that is typed. What is
    shown there comes as output. Standard input is empty all the same, and standard output no terminal."""


class Cause(StrEnum):
    """Why a command is over."""

    ENDED = "ended"
    """By itself: its exit status or signal is its own."""
    TIMED_OUT = "timed-out"
    STOPPED = "stopped"
    """Because the caller set its ``stop`` event."""
    OUT_OF_DISK = "out-of-disk"
    """It had written more than it may."""
    SILENT = "silent"
    """Because it had printed nothing for too long; no driver says so, but whoever listened."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended. Exactly one of ``exit_status`` and ``signal`` is set."""

    cause: Cause
    exit_status: int | None
    signal: int | None
    is_out_of_memory: bool = False
    """The kernel killed something of it that went beyond its memory."""
    usage: Usage | None = field(default=None, compare=False)
    """None when whoever counts was killed."""

    @property
    def ok(self) -> bool:
        return self.cause is Cause.ENDED and self.exit_status == 0

    def describe(self) -> str:
        """For people: ``exit status 7``, ``signal 11 (SIGSEGV)``, ``timed out``, ``out of memory: exit status 2``."""
        return f"out of memory: {self._describe()}" if self.is_out_of_memory else self._describe()

    def _describe(self) -> str:
        from signal import Signals

        if self.cause is Cause.OUT_OF_DISK:
            return "more written to disk than its limit allows"
        if self.cause is Cause.TIMED_OUT:
            return "timed out"
        if self.cause is Cause.STOPPED:
            return "stopped"
        if self.cause is Cause.SILENT:
            return "silent for too long"
        if self.signal is None:
            return f"exit status {self.exit_status}"
        try:
            return f"signal {self.signal} ({Signals(self.signal).name})"
        except ValueError:
            return f"signal {self.signal}"


class Isolation(Protocol):
    """One way to run commands, or several of them. See the module for what holds for all drivers."""

    @property
    def types(self) -> Sequence[str]:
        """Which types of confinement it can do here."""

    def run(self, command: Command, output: Callable[[bytes], None], stop: Event) -> Ended:
        """Run a command to its end and hand its output on as it comes.

        ``output`` is called from one thread at a time; if it raises, the tree is killed and the error passes on.
        Setting ``stop`` ends the tree: politely first, after ``grace_s`` by force. A command that cannot be started
        ends with exit status 127 (not found) or 126 (not executable) and a line of output that says why.

        Raises Invalid for what no process can be given (a NUL, or too much) and for a confinement that cannot be had here,
        Unavailable where nothing can be started.
        """

    def settle(self, wanted: Confinement, stop: Event) -> Confinement:
        """The same confinement, wherever and whenever it is asked for: an image by its digest, having been fetched.

        Setting ``stop`` breaks off. Raises as :meth:`run` does.
        """

    def sweep(self) -> int:
        """Remove what earlier workers that were killed have left on this machine; how many things that were."""
