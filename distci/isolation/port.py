"""The isolation port: running one command so that all of it can be ended and nothing of it survives.

Promises that hold for every driver:

* The command sees the environment that it is given and nothing of the worker's own.
* Standard output and standard error arrive as one stream, in order, byte for byte; standard input is empty.
* When :meth:`Isolation.run` returns or raises, every process that descends from the command is gone,
  daemons included.
* When the worker itself is killed, they are gone soon after, and :meth:`Isolation.sweep` of the next start
  removes whatever is left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from threading import Event
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Command:
    """What to run, and within which limits."""

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


class Cause(StrEnum):
    """Why a command is over."""

    ENDED = "ended"
    """By itself: its exit status or signal is its own."""
    TIMED_OUT = "timed-out"
    STOPPED = "stopped"
    """Because the caller set its ``stop`` event."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended. Exactly one of ``exit_status`` and ``signal`` is set."""

    cause: Cause
    exit_status: int | None
    signal: int | None

    @property
    def ok(self) -> bool:
        return self.cause is Cause.ENDED and self.exit_status == 0

    def describe(self) -> str:
        """For people: ``exit status 7``, ``signal 11 (SIGSEGV)``, ``timed out``."""
        from signal import Signals

        if self.cause is Cause.TIMED_OUT:
            return "timed out"
        if self.cause is Cause.STOPPED:
            return "stopped"
        if self.signal is None:
            return f"exit status {self.exit_status}"
        try:
            return f"signal {self.signal} ({Signals(self.signal).name})"
        except ValueError:
            return f"signal {self.signal}"


class Isolation(Protocol):
    """One way to run commands. See the module for what holds for all drivers."""

    def run(self, command: Command, output: Callable[[bytes], None], stop: Event) -> Ended:
        """Run a command to its end and hand its output on as it comes.

        ``output`` is called from one thread at a time; if it raises, the tree is killed and the error passes on.
        Setting ``stop`` ends the tree: politely first, after ``grace_s`` by force. A command that cannot be started
        ends with exit status 127 (not found) or 126 (not executable) and a line of output that says why.

        Raises Invalid for what no process can be given (a NUL, or too much), Unavailable where none can be started.
        """

    def sweep(self) -> int:
        """Remove what earlier workers that were killed have left on this machine; how many things that were."""
