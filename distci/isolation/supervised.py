"""One command under a supervisor (:mod:`distci.isolation.supervisor`): its output, its end, and that nobody of it is left.

Shared by the drivers whose commands are processes of this machine.
"""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import termios
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from itertools import chain
from math import ceil
from pathlib import Path
from select import POLLIN, poll
from signal import SIGKILL
from threading import Event, Thread
from time import monotonic, sleep
from typing import IO, Protocol, Self

from distci.errors import Invalid, Unavailable
from distci.isolation import supervisor
from distci.isolation.cgroups import Group
from distci.isolation.disk import BLOCK_BYTES, taken_bytes
from distci.isolation.port import Cause, Command, Ended, Limits
from distci.isolation.processes import environment as environment_of
from distci.isolation.processes import others
from distci.isolation.users import User
from distci.model import Usage

READ_BYTES = 64 * 1024
STOP_POLL_S = 0.05
"""How soon a command learns, at the latest, that it shall end."""

UNSEEN_LOOKS = 20
"""After so many looks in a row that found nobody, nobody is left: one who forks and ends all the time is missed by most of them."""


SUPERVISOR_GRACE_S = 10.0
"""How long a supervisor may take to end its tree, beyond the command's own grace, before it is killed itself."""

DISK_LOOK_S = 1.0
"""How often the disk that a command takes is looked at, at most."""

NONE = -1
"""Stands for a file that is not open."""

FENCE = "DISTCI_FENCE"
MARK = f"{FENCE}=".encode()
"""A variable that the environment of every task's command has, and so of all that descends from it."""

INTERPRETER_OPTIONS = ("-I", "-S", "-X", "utf8")

TOO_MUCH = "the command and its environment are more than a process can be given"
TEXT_BYTES_MAX = 32 * os.sysconf("SC_PAGE_SIZE")
"""Of one argument or variable, with its NUL (MAX_ARG_STRLEN of the kernel)."""
TEXT_COST_BYTES = 1 + 8 + 8
"""What each takes besides: NUL, pointer, and the = of a variable."""


class Started(Protocol):
    """A supervisor that has been started, such as a process."""

    @property
    def stdout(self) -> IO[bytes] | None: ...

    def wait(self) -> int: ...

    def kill(self) -> None: ...


class Supervised:
    """One running supervisor and the pipes to it. Drivers say what stands before it, and how all below it is ended without its help."""

    def __init__(self, command: Command, group: Group, user: User | None = None) -> None:
        """``user`` is whom the command runs as; None: whoever the supervisor runs as."""
        self._command = command = _with_terminal(command)
        self._group = group
        self._user = user
        self._limits = command.confinement.limits if command.confinement else Limits()
        self._deadline = monotonic() + command.timeout_s if command.timeout_s is not None else None
        self._disk_due = monotonic() + DISK_LOOK_S
        self._word = b""
        self.cause = Cause.ENDED
        self._status_out = self._control_in = NONE
        [(self._is_over, self._say_over)] = pipes(1)
        try:
            with ExitStack() as ours:
                self._status_out, self._control_in, told = self.connect(ours)
                self._process = self.start(told, ours)
        except BaseException:
            self.close()
            raise

    def connect(self, ours: ExitStack) -> tuple[int, int, Sequence[int]]:
        """Pipes: where the supervisor's status is read, where it is told to end, and its own ends of both. Files in ``ours`` are not needed once it runs."""
        (status_out, status_in), (control_out, control_in) = pipes(2)
        for descriptor in (status_in, control_out):
            ours.callback(os.close, descriptor)
        return status_out, control_in, [status_in, control_out]

    def start(self, told: Sequence[int], ours: ExitStack) -> Started:
        """The supervisor, having been given its ends of the pipes."""
        command = self._command
        try:
            environment = file_of("environment", (f"{name}={value}" for name, value in command.environment.items()))
            ours.callback(os.close, environment)
            joined = [os.open(path / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC) for path in self.joined()]
            for descriptor in joined:
                ours.callback(os.close, descriptor)
            # subprocess would open one of its own, and in older Pythons leave it open where it can open nothing more.
            nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            ours.callback(os.close, nothing)
            before, passed = self.before(ours)
            told = [*told, environment]
            user = f"{self._user.uid}:{self._user.gid}" if self._user else ""
            arguments = [
                *map(str, told),
                ",".join(map(str, joined)),
                user,
                os.fspath(command.directory),
                str(command.grace_s),
                self.born_into(),
            ]
            return subprocess.Popen(
                [*before, *self.supervisor(), *arguments, *command.argv],
                cwd="/",
                # Of the command's own environment nothing may be seen by what has more rights than the command. This tells whose it is.
                env={name: value for name, value in command.environment.items() if name == FENCE},
                stdin=nothing,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(*told, *joined, *passed),
                start_new_session=True,
            )
        except OSError as error:
            if error.errno == errno.E2BIG:
                raise Invalid(TOO_MUCH) from error
            raise Unavailable(f"no process can be started: {error.strerror}") from error

    # What drivers may do otherwise

    def supervisor(self) -> Sequence[str]:
        """What runs the supervisor, where that is."""
        return [sys.executable, *INTERPRETER_OPTIONS, supervisor.__file__]

    def before(self, ours: ExitStack) -> tuple[Sequence[str], Sequence[int]]:
        """The program that starts the supervisor, with its arguments, and files that it is given; ``ours`` closes what only it needs."""
        return (), ()

    def joined(self) -> Sequence[Path]:
        """The control groups that the command writes itself into."""
        return [path for path in self._group.paths if path != self._group.unified]

    def born_into(self) -> str:
        """The control group that the command is born into, where that can be had."""
        return str(self._group.unified or "")

    def memory(self, told: Sequence[bytes]) -> tuple[bool, int | None]:
        """Whether anybody was killed for lack of memory, and the most that all had together where somebody counts; ``told`` is what the supervisor says of it."""
        return self._group.is_out_of_memory, self._group.memory_peak_bytes

    def begun(self) -> None:
        """The supervisor runs."""

    def kill(self) -> None:
        """End the supervisor, which does not answer."""
        self._process.kill()

    def kill_leftovers(self) -> None:
        """End whomever a supervisor that was killed has left."""
        self._group.kill()
        _kill_marked(self._command.environment)

    # Its life

    def run(self, output: Callable[[bytes], None], stop: Event) -> Ended:
        """See the port."""
        with self:
            watcher = Thread(target=self.watch, args=(stop,), daemon=True)
            try:
                watcher.start()
                self.drain(output)
            finally:
                self.finish()
                if watcher.is_alive():
                    watcher.join()
                self.close()
        return self.ended()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.wait()

    def drain(self, output: Callable[[bytes], None]) -> None:
        """Hand the output on until the supervisor has said that nobody is left, or cannot say anything any more.

        The end of the output is no sign of that: a command may close it long before it ends.
        """
        assert self._process.stdout is not None
        printed = self._process.stdout.fileno()
        watched = {printed, self._status_out}
        while self._status_out in watched:
            ready = readable(watched)
            if self._status_out in ready:
                if not self._read_word() or self._has_said_all:
                    watched.remove(self._status_out)
            elif printed in ready:
                data = os.read(printed, READ_BYTES)
                if data:
                    output(data)
                else:
                    watched.remove(printed)
        if not self._has_said_all:
            # The supervisor itself was killed, by the script for one. Whom it held together has to be found.
            self.kill_leftovers()
        # Whoever could print is dead. Should one have escaped nevertheless, what it prints from now on is not awaited.
        left = _waiting_bytes(printed)
        while left:
            data = os.read(printed, min(left, READ_BYTES))
            output(data)
            left -= len(data)

    def watch(self, stop: Event) -> None:
        """Ask for the end when the time is up, or when the caller wants it; until :meth:`finish`.

        A supervisor that does not answer, since the command has stopped it for one, is killed, and its tree found without it.
        """
        while not readable([self._is_over], self._poll_s()):
            is_polite = True
            if stop.is_set():
                self.cause = Cause.STOPPED
            elif self._deadline is not None and monotonic() >= self._deadline:
                self.cause = Cause.TIMED_OUT
            elif self._is_over_disk():
                self.cause, is_polite = Cause.OUT_OF_DISK, False
            else:
                continue
            with suppress(BrokenPipeError):
                os.write(self._control_in, b"T" if is_polite else b"K")
            if not readable([self._is_over], self._command.grace_s + SUPERVISOR_GRACE_S):
                self.kill()
            return

    def finish(self) -> None:
        """End the tree if it has not ended, and take the supervisor's word."""
        os.write(self._say_over, b".")
        if self._process.stdout:
            self._process.stdout.close()
        if not self._has_said_all:
            with suppress(BrokenPipeError):
                os.write(self._control_in, b"K")
        while not self._has_said_all and self._read_word():
            pass

    def close(self) -> None:
        for descriptor in (self._control_in, self._status_out, self._is_over, self._say_over):
            if descriptor != NONE:
                os.close(descriptor)

    @property
    def has_begun(self) -> bool:
        """Whether the supervisor ran, and the command may have."""
        return bool(self._word)

    @property
    def _has_said_all(self) -> bool:
        return self._word.endswith(b"\n")

    def _read_word(self) -> bool:
        data = os.read(self._status_out, 256)
        is_first = not self._word
        self._word += data
        if data and is_first:
            self.begun()
        return bool(data)

    def _poll_s(self) -> float:
        return STOP_POLL_S if self._deadline is None else max(0.0, min(STOP_POLL_S, self._deadline - monotonic()))

    def _is_over_disk(self) -> bool:
        """Looked at once a second, and less often where looking takes long."""
        if self._limits.disk_bytes is None or monotonic() < self._disk_due:
            return False
        began_s = monotonic()
        taken = self.disk_taken()
        self._disk_due = monotonic() + max(DISK_LOOK_S, 20 * (monotonic() - began_s))
        return taken > self._limits.disk_bytes

    def disk_taken(self) -> int:
        """Bytes that the command has written wherever it may."""
        folders = [mount.path for mount in self._command.mounts if mount.is_writable] or [self._command.directory]
        return taken_bytes(folders)

    def ended(self) -> Ended:
        """How it ended, once it has."""
        usage, code = None, -int(SIGKILL)
        if self._has_said_all:
            status, cpu_s, peak_kib, read, written, *memory = self._word[1:].split()
            code = os.waitstatus_to_exitcode(int(status))
            is_out_of_memory, peak_bytes = self.memory(memory)
            peak_bytes = peak_bytes or int(peak_kib) * 1024
            usage = Usage(float(cpu_s), peak_bytes, int(read) * BLOCK_BYTES, int(written) * BLOCK_BYTES)
        else:
            is_out_of_memory, _ = self.memory([])
        if (
            self.cause is Cause.ENDED
            and self._limits.disk_bytes is not None
            and self.disk_taken() > self._limits.disk_bytes
        ):
            self.cause = Cause.OUT_OF_DISK
        exit_status, signal = (code, None) if code >= 0 else (None, -code)
        return Ended(self.cause, exit_status, signal, is_out_of_memory, usage)


def check(command: Command) -> None:
    """Raise Invalid for what no process can be given, Unavailable where its directory is gone."""
    if not command.argv:
        raise Invalid("there is no command")
    for name in command.environment:
        if not name or "=" in name or "\0" in name:
            raise Invalid(f"no variable can be named {name!r}")
    texts = [("the command", word) for word in command.argv]
    texts += [("the name of a variable", name) for name in command.environment]
    texts += command.environment.items()
    size = 0
    for what, text in texts:
        try:
            data = os.fsencode(text)
        except UnicodeEncodeError as error:
            raise Invalid(f"{what} is not valid Unicode") from error
        if b"\0" in data:
            raise Invalid(f"there is a NUL in {what}, which no process can be given")
        if len(data) >= TEXT_BYTES_MAX:
            raise Invalid(TOO_MUCH)
        size += len(data) + TEXT_COST_BYTES
    if size > os.sysconf("SC_ARG_MAX"):
        raise Invalid(TOO_MUCH)
    if not command.directory.is_dir():
        raise Unavailable(f"no process can be started in {command.directory}: there is no such folder")


def interpreter() -> str:
    """The interpreter itself, whatever environment this program was installed into."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def _with_terminal(command: Command) -> Command:
    """The supervisor is told of a terminal by a variable that the command does not get, and that nobody else may set."""
    told = {name: value for name, value in command.environment.items() if name != supervisor.TERMINAL}
    if command.terminal is not None:
        told[supervisor.TERMINAL] = os.fspath(command.terminal)
    return replace(command, environment=told)


def file_of(name: str, texts: Iterable[str]) -> int:
    """A file in memory that has these texts, each with a NUL."""
    file = os.memfd_create(name)
    with open(file, "wb", closefd=False) as data:
        data.writelines(os.fsencode(text) + b"\0" for text in texts)
    return file


def pipes(count: int) -> Sequence[tuple[int, int]]:
    """So many pipes, or none and Unavailable where the process has too many files open."""
    pipes: list[tuple[int, int]] = []
    try:
        while len(pipes) < count:
            pipes.append(os.pipe())
    except OSError as error:
        for descriptor in chain(*pipes):
            os.close(descriptor)
        raise Unavailable(f"no pipe can be made to a command: {error.strerror}") from error
    return pipes


def readable(descriptors: Collection[int], timeout_s: float | None = None) -> Collection[int]:
    """Those of the descriptors that can be read or are at their end. They may be above 1023, unlike those of select(2)."""
    waiting = poll()
    for descriptor in descriptors:
        waiting.register(descriptor, POLLIN)
    return [descriptor for descriptor, _ in waiting.poll(None if timeout_s is None else ceil(timeout_s * 1000))]


def _waiting_bytes(pipe: int) -> int:
    """How many bytes wait in a pipe."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def _kill_marked(environment: Mapping[str, str]) -> None:
    """Kill what has the very fence of one command in its environment."""
    fence = environment.get(FENCE)
    if not fence:
        return
    wanted = MARK + fence.encode() + b"\0"
    unseen = 0
    while unseen < UNSEEN_LOOKS:
        unseen += 1
        for pid in others():
            if wanted in environment_of(pid):
                unseen = 0
                # At once: who forks and ends all the time is somebody else in a moment.
                with suppress(ProcessLookupError):
                    os.kill(pid, SIGKILL)
        sleep(0.001)
