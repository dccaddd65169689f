"""Watching a build to its end: its logs as they come, its summary, the exit code that its result means."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from shlex import quote
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Protocol, Self

import click

from distci.cli.command import pasteable, pasting
from distci.cli.output import age, duration, moment, print_bytes, print_json, print_line, print_table, printable, size
from distci.errors import DistCIError
from distci.model import BuildId, Result

if TYPE_CHECKING:
    from rich.status import Status

    from distci.builds import BuildView, TaskView
    from distci.cli.command import System
    from distci.why import Reason

EXIT_CODES = {Result.PASSED: 0, Result.FAILED: 1, Result.CANCELLED: 3}
NOT_IN_TIME = 124
"""As ``timeout`` of the coreutils ends."""

LINE_BYTES_MAX = 64 * 1024
"""A longer line is printed in parts."""

QUIET_S = 2.0
"""After so long without output, a terminal is told what runs or waits, and from then on as often."""
NOTICE_S = 5.0
"""After so long without output, it is said once where there is no terminal: a build that nothing holds up has begun by then."""
HELD_UP = ("planning", "blocked", "ready")


def wait(
    system: System, build: BuildId, *, follow: bool = False, timeout_s: float | None = None, is_json: bool = False
) -> int:
    """Wait for a build, with its logs if wanted, and print how it ended; the exit code."""
    try:
        if follow:
            print_logs(system, build, is_json=is_json)
        with Quiet(system, build, is_told=not is_json):
            view = system.builds.wait(build, timeout_s)
    except KeyboardInterrupt:
        click.echo(pasteable(f"\ndistci: {build} goes on; `distci build cancel {build}` ends it"), err=True)
        raise
    if view.result is None:
        click.echo(f"distci: {build} is still {view.state}", err=True)
        return NOT_IN_TIME
    if not is_json:
        print_failures(view)
    print_end(view, is_json)
    return EXIT_CODES[view.result]


def print_failures(view: BuildView) -> None:
    """A line for each task that was no success, with where to read on."""
    for task in view.tasks:
        if task.attempts and not task.state.is_good:
            reason = f": {task.reason}" if task.reason else ""
            allowed = ", as it is allowed to" if task.allow_failure else ""
            read_on = pasteable(f"distci build log {view.id} {quote(task.name)}")
            print_line(f"{task.name} {task.state}{reason}{allowed}; {read_on}")


def print_end(view: BuildView, is_json: bool) -> None:
    """The whole view as JSON, or a line for people."""
    if is_json:
        print_json(view)
        return
    reason = f": {view.reason}" if view.reason else ""
    print_line(f"{view.id} {view.state} after {duration(view.finished_ms - view.created_ms)}{reason}")


def print_tasks(view: BuildView) -> None:
    """A table of a build's tasks."""
    print_table(
        ("TASK", "STATE", "TIME", "WORKER", "REASON"),
        [(task.name, state_of(task), time_of(task), task.worker or task.origin, task.reason) for task in view.tasks],
    )


def print_held(view: BuildView) -> None:
    """How to get into tasks that are held, on stderr."""
    for task in view.tasks:
        if task.hold:
            line = f"distci build shell {quote(str(view.id))} {quote(task.name)}"
            click.echo(pasteable(f"distci: {task.name} has failed and is held; to go in: {line}"), err=True)


def state_of(task: TaskView) -> str:
    """How it stands, and how far it says that it is; or until when it is held."""
    if task.hold:
        return f"held until {moment(task.hold.until_ms)}"
    return str(task.state) if task.progress is None else f"{task.state} {task.progress} %"


def print_usage(view: BuildView) -> None:
    """A table of what the attempts at a build's tasks used, as far as that was counted."""
    rows = []
    for task in view.tasks:
        for number, attempt in enumerate(task.attempts, 1):
            used = attempt.get("usage")
            sizes = [size(used[name]) for name in ("memory_peak_bytes", "read_bytes", "written_bytes")] if used else []
            rows.append((task.name, number, *([f"{used['cpu_s']:.1f} s", *sizes] if used else [""] * 4)))
    print_table(("TASK", "ATTEMPT", "CPU", "MEMORY", "READ", "WRITTEN"), rows)


def time_of(task: TaskView) -> str:
    """How long the task's last attempt took, or for how long it waits or runs; empty where that is not known."""
    if task.since_ms:
        return age(task.since_ms)
    last = task.attempts[-1] if task.attempts else {}
    if "started_ms" not in last or "ended_ms" not in last:
        return ""
    return duration(last["ended_ms"] - last["started_ms"])


def print_logs(system: System, build: BuildId, tasks: Sequence[str] = (), *, is_json: bool = False) -> None:
    """All that the build's tasks print, until it has its result."""
    printer: LogPrinter | None = None
    with Quiet(system, build, is_told=not is_json) as quiet:
        for piece in system.builds.follow(build, tasks):
            printer = printer or log_printer(system.builds.get(build), tasks, is_json)
            with quiet.broken():
                printer.write(piece.task, piece.token, piece.data)
                quiet.is_line_open = printer.is_line_open
    if printer is not None:
        printer.end()


class Quiet:
    """Says on stderr why a build is quiet: on a terminal in a line that goes when there is something to print, elsewhere once.

    A thread of its own looks, since whoever waits for the build stands still meanwhile.
    """

    is_line_open = False
    """Whether what was printed last goes on in its line, which the one on the terminal would take away."""

    def __init__(self, system: System, build: BuildId, *, is_told: bool) -> None:
        self._system = system
        self._build = build
        self._is_told = is_told
        self._lock = Lock()
        self._over = Event()
        self._heard_s = time.monotonic()
        self._status: Status | None = None
        self._pasteable = pasting()

    def __enter__(self) -> Self:
        if self._is_told:
            tell = self._show if sys.stderr.isatty() else self._notice
            Thread(target=tell, name="quiet", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # Not waited for: with the tree away, its look at it takes as long as a call may.
        self._over.set()
        with self.broken():
            pass

    @contextmanager
    def broken(self) -> Iterator[None]:
        """While something is printed."""
        with self._lock:
            if self._status is not None:
                self._status.stop()
                self._status = None
            yield
            self._heard_s = time.monotonic()

    def _show(self) -> None:
        from rich.console import Console
        from rich.text import Text

        console = Console(stderr=True)
        while not self._over.wait(QUIET_S):
            reasons = [reason for reason in self._reasons() if reason.state in ("running", *HELD_UP)]
            with self._lock:
                is_quiet = time.monotonic() - self._heard_s >= QUIET_S and not self.is_line_open
                if self._over.is_set() or not is_quiet or not reasons:
                    continue
                text = Text("; ".join(map(told, reasons[-3:])), no_wrap=True, overflow="ellipsis")
                if self._status is None:
                    self._status = console.status(text)
                    self._status.start()
                self._status.update(text)

    def _notice(self) -> None:
        while not self._over.wait(NOTICE_S):
            reasons = self._reasons()
            held_up = [reason for reason in reasons if reason.state in HELD_UP]
            is_running = any(reason.state == "running" for reason in reasons if reason.subject != str(self._build))
            with self._lock:
                if self._over.is_set() or is_running or time.monotonic() - self._heard_s < NOTICE_S or not held_up:
                    continue
                for reason in held_up:
                    remedy = f"; {reason.remedy}" if reason.remedy else ""
                    click.echo(printable(f"distci: {told(reason)}{self._pasteable(remedy)}"), err=True)
                return

    def _reasons(self) -> Sequence[Reason]:
        try:
            return self._system.why.build(self._build)
        except DistCIError:
            return ()  # whoever waits for the build hears of it


def told(reason: Reason) -> str:
    """A reason in a line: what is as it is, for how long, and why."""
    since = f" for {age(reason.since_ms)}" if reason.since_ms else ""
    return printable(f"{reason.subject} {reason.state}{since}: {reason.because}")


class LogPrinter(Protocol):
    """Prints the logs of tasks such that one can tell whose they are."""

    @property
    def is_line_open(self) -> bool:
        """Whether what was printed last goes on in its line."""

    def write(self, task: str, token: str, data: bytes) -> None:
        """Some more of the log of an attempt at a task."""

    def end(self) -> None:
        """Print what was kept back."""


def log_printer(view: BuildView, tasks: Sequence[str] = (), is_json: bool = False) -> LogPrinter:
    """One task: its bytes as they are. Tasks one after the other: each below a heading. Tasks side by side: each line by itself."""
    if is_json or (len(tasks) != 1 and may_overlap(view.tasks)):
        return Lines(is_json)
    return Sections(has_headings=len(tasks) != 1 and len(view.tasks) > 1)


class Sections:
    """Logs below headings, or one log byte for byte."""

    def __init__(self, has_headings: bool) -> None:
        self._has_headings = has_headings
        self._token = ""
        self.is_line_open = False

    def write(self, task: str, token: str, data: bytes) -> None:
        if self._has_headings and token != self._token:
            self.end()
            print_line(f"== {task}{_again(token)} ==")
        self._token = token
        if data:
            print_bytes(data)
            self.is_line_open = not data.endswith(b"\n")

    def end(self) -> None:
        if self._has_headings and self.is_line_open:
            click.echo()
        self.is_line_open = False


class Lines:
    """Logs line by line, each with the name of its task."""

    is_line_open = False

    def __init__(self, is_json: bool) -> None:
        self._is_json = is_json
        self._open: dict[tuple[str, str], bytes] = {}

    def write(self, task: str, token: str, data: bytes) -> None:
        *lines, rest = (self._open.pop((task, token), b"") + data).split(b"\n")
        for line in lines:
            self._print(task, token, line)
        if len(rest) > LINE_BYTES_MAX:
            self._print(task, token, rest)
        elif rest:
            self._open[task, token] = rest

    def end(self) -> None:
        for (task, token), rest in self._open.items():
            self._print(task, token, rest)
        self._open.clear()

    def _print(self, task: str, token: str, line: bytes) -> None:
        if self._is_json:
            print_json({"task": task, "token": token, "line": line.decode(errors="replace")})
        else:
            print_bytes(f"[{task}{_again(token)}] ".encode() + line + b"\n")


def may_overlap(tasks: Sequence[TaskView]) -> bool:
    """Whether some two of the tasks may run at once: neither needs the other, by however many steps."""
    before: dict[str, set[str]] = {}
    for position, task in enumerate(tasks):
        before[task.name] = {*task.needs, *(name for need in task.needs for name in before.get(need, ()))}
        if len(before[task.name]) < position:
            return True
    return False


def _again(token: str) -> str:
    """Which attempt that is; nothing of the first one of an epoch, which most builds have and nobody wonders about."""
    from distci.protocol.paths import EPOCH_ATTEMPTS

    attempt = token.rpartition(".")[2]
    return "" if not attempt or int(attempt) % EPOCH_ATTEMPTS == 1 else f", attempt {attempt}"
