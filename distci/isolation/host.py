"""Commands as processes of this machine, told apart from the worker by nothing but a process tree of their own.

This driver keeps scripts together, not apart: they may read and write whatever the worker's user may. It is for machines whose
operator trusts what is built there.
"""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import termios
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from math import ceil
from pathlib import Path
from select import POLLIN, poll
from signal import SIGKILL
from threading import Event, Thread
from time import monotonic, sleep
from typing import Self
from uuid import uuid4

from distci.errors import Invalid, Unavailable
from distci.isolation import supervisor
from distci.isolation.port import Cause, Command, Ended

READ_BYTES = 64 * 1024
STOP_POLL_S = 0.05
"""How soon a command learns, at the latest, that it shall end."""

UNSEEN_LOOKS = 20
"""After so many looks in a row that found nobody, nobody is left: one who forks and ends all the time is missed by most of them."""


SUPERVISOR_GRACE_S = 10.0
"""How long a supervisor may take to end its tree, beyond the command's own grace, before it is killed itself."""

MARK = b"DISTCI_FENCE="
"""A variable that the environment of every task's command has, and so of all that descends from it."""

SPARED = b"DISTCI_GATEWAY="
"""A variable of scripts that have no supervisor, since they are run by workers of another sort, which see to what they start."""

LOCALE = "LC_CTYPE"
"""What Python sets in its own environment when that names no locale (PEP 538), whatever its options say."""

SUPERVISOR = os.fsencode(os.path.join("", *supervisor.__name__.split("."))) + b".py\0"
"""How the path of every installation's supervisor ends, as a command line has it."""

CGROUP_FOLDER = "distci"


class HostIsolation:
    """Runs commands under a supervising process each, and in a control group each where these can be had."""

    def __init__(self, cgroups: Path | None = None) -> None:
        """``cgroups`` is a folder of a cgroup v2 hierarchy that we may make groups in; None: supervisors have to do."""
        self._cgroups = cgroups
        self._process = f"{os.getpid()}-{_started(os.getpid())}"

    def run(self, command: Command, output: Callable[[bytes], None], stop: Event) -> Ended:
        _check(command)
        with self._cgroup(command) as cgroup, _Supervised(command, cgroup) as supervised:
            watcher = Thread(target=supervised.watch, args=(stop,), daemon=True)
            try:
                watcher.start()
                supervised.drain(output)
            finally:
                supervised.finish()
                if watcher.is_alive():
                    watcher.join()
                supervised.close()
        return supervised.ended()

    def sweep(self) -> int:
        return _sweep_cgroups(self._cgroups) + _sweep_orphans()

    @contextmanager
    def _cgroup(self, command: Command) -> Iterator[str]:
        if self._cgroups is None:
            yield ""
            return
        path = self._cgroups / f"{self._process}-{command.tag}-{uuid4().hex[:8]}"
        path.mkdir(parents=True)
        try:
            yield str(path)
        finally:
            _remove_cgroup(path)


def find_cgroups() -> Path | None:
    """The folder for :class:`HostIsolation` where this process may make control groups that can be killed; None where not."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[0] == "cgroup2":
            folder = Path(before.split()[4]) / CGROUP_FOLDER
            try:
                folder.mkdir(exist_ok=True)
                probe = folder / f"probe-{uuid4().hex[:8]}"
                probe.mkdir()
                can_kill = os.access(probe / "cgroup.kill", os.W_OK)
                probe.rmdir()
            except OSError:
                continue
            if can_kill:
                return folder
    return None


class _Supervised:
    """One running supervisor and the pipes to it."""

    def __init__(self, command: Command, cgroup: str) -> None:
        self._command = command
        self._cgroup = cgroup
        self._deadline = monotonic() + command.timeout_s if command.timeout_s is not None else None
        self.cause = Cause.ENDED
        self.status: int | None = None
        (status_out, status_in), (control_out, control_in), (is_over, say_over) = _pipes(3)
        program = [sys.executable, "-I", "-S", "-X", "utf8", supervisor.__file__]
        locale = f"{LOCALE}={command.environment[LOCALE]}" if LOCALE in command.environment else LOCALE
        arguments = [str(status_in), str(control_out), str(command.grace_s), cgroup, locale]
        try:
            self._process = subprocess.Popen(
                [*program, *arguments, *command.argv],
                cwd=command.directory,
                env=dict(command.environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(status_in, control_out),
                start_new_session=True,
            )
        except OSError as error:
            for descriptor in (status_out, control_in, is_over, say_over):
                os.close(descriptor)
            if error.errno == errno.E2BIG:
                raise Invalid("the command and its environment are more than a process can be given") from error
            raise Unavailable(f"no process can be started in {command.directory}: {error.strerror}") from error
        finally:
            os.close(status_in)
            os.close(control_out)
        self._status_out, self._control_in = status_out, control_in
        self._is_over, self._say_over = is_over, say_over
        self._word = b""

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
            ready = _readable(watched)
            if self._status_out in ready and not self._read_word():
                watched.remove(self._status_out)
            elif printed in ready:
                data = os.read(printed, READ_BYTES)
                if data:
                    output(data)
                else:
                    watched.remove(printed)
        if not self._word:
            # The supervisor itself was killed, by the script for one. Whom it held together has to be found.
            self._kill_leftovers()
        # Whoever could print is dead. Should one have escaped nevertheless, what it prints from now on is not awaited.
        left = _readable_bytes(printed)
        while left:
            data = os.read(printed, min(left, READ_BYTES))
            output(data)
            left -= len(data)

    def watch(self, stop: Event) -> None:
        """Ask for the end when the time is up, or when the caller wants it; until :meth:`finish`.

        A supervisor that does not answer, since the command has stopped it for one, is killed, and its tree found without it.
        """
        while not _readable([self._is_over], self._poll_s()):
            if stop.is_set():
                self.cause = Cause.STOPPED
            elif self._deadline is not None and monotonic() >= self._deadline:
                self.cause = Cause.TIMED_OUT
            else:
                continue
            with suppress(BrokenPipeError):
                os.write(self._control_in, b"T")
            if not _readable([self._is_over], self._command.grace_s + SUPERVISOR_GRACE_S):
                self._process.kill()
            return

    def finish(self) -> None:
        """End the tree if it has not ended, and take the supervisor's word."""
        os.write(self._say_over, b".")
        if self._process.stdout:
            self._process.stdout.close()
        if not self._word:
            with suppress(BrokenPipeError):
                os.write(self._control_in, b"K")
        while self._read_word():
            pass
        self.status = int(self._word) if self._word else None

    def close(self) -> None:
        for descriptor in (self._control_in, self._status_out, self._is_over, self._say_over):
            os.close(descriptor)

    def _read_word(self) -> bool:
        data = os.read(self._status_out, 64)
        self._word += data
        return bool(data)

    def _poll_s(self) -> float:
        return STOP_POLL_S if self._deadline is None else max(0.0, min(STOP_POLL_S, self._deadline - monotonic()))

    def _kill_leftovers(self) -> None:
        if self._cgroup:
            (Path(self._cgroup) / "cgroup.kill").write_text("1")
        _kill_marked(self._command.environment)

    def ended(self) -> Ended:
        code = -SIGKILL if self.status is None else os.waitstatus_to_exitcode(self.status)
        return Ended(self.cause, code if code >= 0 else None, -code if code < 0 else None)


def _check(command: Command) -> None:
    """Raise Invalid for what no process can be given."""
    if not command.argv:
        raise Invalid("there is no command")
    for name in command.environment:
        if not name or "=" in name or "\0" in name:
            raise Invalid(f"no variable can be named {name!r}")
    texts = [("the command", word) for word in command.argv]
    texts += [("the name of a variable", name) for name in command.environment]
    texts += command.environment.items()
    for what, text in texts:
        try:
            data = os.fsencode(text)
        except UnicodeEncodeError as error:
            raise Invalid(f"{what} is not valid Unicode") from error
        if b"\0" in data:
            raise Invalid(f"there is a NUL in {what}, which no process can be given")


def _pipes(count: int) -> Sequence[tuple[int, int]]:
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


def _readable(descriptors: Collection[int], timeout_s: float | None = None) -> Collection[int]:
    """Those of the descriptors that can be read or are at their end. They may be above 1023, unlike those of select(2)."""
    waiting = poll()
    for descriptor in descriptors:
        waiting.register(descriptor, POLLIN)
    return [descriptor for descriptor, _ in waiting.poll(None if timeout_s is None else ceil(timeout_s * 1000))]


def _readable_bytes(pipe: int) -> int:
    """How many bytes wait in a pipe."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def _remove_cgroup(path: Path) -> None:
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


def _sweep_cgroups(folder: Path | None) -> int:
    removed = 0
    for group in folder.iterdir() if folder and folder.is_dir() else ():
        pid, _, rest = group.name.partition("-")
        if group.is_dir() and pid.isdigit() and _started(int(pid)) != rest.partition("-")[0]:
            _remove_cgroup(group)
            removed += 1
    return removed


def _sweep_orphans() -> int:
    """Kill what descends from commands whose supervisor is gone."""
    killed = 0
    for pid in _pids():
        environment = _environment(pid)
        if MARK in environment and SPARED not in environment and not _is_supervised(pid):
            with suppress(ProcessLookupError):
                os.kill(pid, SIGKILL)
                killed += 1
    return killed


def _kill_marked(environment: Mapping[str, str]) -> None:
    """Kill what has the very fence of one command in its environment."""
    fence = environment.get(MARK.decode().rstrip("="))
    if not fence:
        return
    wanted = MARK + fence.encode() + b"\0"
    unseen = 0
    while unseen < UNSEEN_LOOKS:
        unseen += 1
        for pid in _pids():
            if wanted in _environment(pid):
                unseen = 0
                # At once: who forks and ends all the time is somebody else in a moment.
                with suppress(ProcessLookupError):
                    os.kill(pid, SIGKILL)
        sleep(0.001)


def _is_supervised(pid: int) -> bool:
    ancestor, gone = pid, {pid}
    while ancestor > 1:
        try:
            if SUPERVISOR in Path(f"/proc/{ancestor}/cmdline").read_bytes():
                return True
            ancestor = int(_stat(ancestor)[1])
        except (OSError, IndexError):
            if ancestor in gone:
                return False
            # It has died since it was named as an ancestor: there is another one now.
            gone.add(ancestor)
            ancestor = pid
    return False


def _pids() -> list[int]:
    own = os.getpid()
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != own]


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes() + b"\0"
    except OSError:
        return b""


def _started(pid: int) -> str:
    """When a process was started, in the kernel's ticks; empty when there is none (any more)."""
    try:
        return _stat(pid)[19].decode()
    except (OSError, IndexError):
        return ""


def _stat(pid: int) -> list[bytes]:
    """The fields of ``/proc/PID/stat`` from the state on."""
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
