"""Commands in a sandbox of bubblewrap: the machine's tools, read-only; the attempt's own folders; no other process, file or user.

Run by root, bubblewrap needs no user namespace: it makes the others, and the command becomes an ordinary user in them. (A user
namespace of root's maps to root: whoever came out of it would be root.) Run by anybody else, it makes a user namespace, too. In
both, the supervisor runs inside, as the parent of the command, and when the first process in there dies the kernel kills all others.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from distci.errors import Invalid, Unavailable
from distci.isolation import supervisor
from distci.isolation.cgroups import ControlGroups, Group
from distci.isolation.port import SANDBOX, Cause, Command, Confinement, Ended
from distci.isolation.supervised import Supervised, check, interpreter, pipes, readable
from distci.isolation.users import NOBODY, User, find_user, give

PROGRAM, PACKAGE = "bwrap", "bubblewrap"

TOOLS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/sys")
"""What of the machine can be seen, where it is there."""

HIDDEN = ("/etc/distci",)
"""Folders in there that look empty: they have the worker's own secrets."""

EMPTY = ("/tmp", "/var/tmp", "/run")
"""Folders of the sandbox's own, in memory, gone with it; all but the last are for everybody to write to."""

SUPERVISOR_RIGHTS = ("CAP_KILL", "CAP_SETGID", "CAP_SETUID")
"""What the supervisor needs of root's capabilities; the command has none."""

REASON_BYTES_MAX = 500
PROBE_TIME_MAX_S = 20.0


class SandboxIsolation:
    """Runs commands in a sandbox each. ``paths`` are seen besides the usual ones, read-only; folders of ``hidden`` look empty."""

    types: Sequence[str] = (SANDBOX,)

    def __init__(
        self, cgroups: ControlGroups | None = None, paths: Sequence[str] = (), hidden: Sequence[str] = ()
    ) -> None:
        self._cgroups = cgroups or ControlGroups()
        self._seen = _Seen(paths, (*HIDDEN, *hidden))
        self._program = shutil.which(PROGRAM) or PROGRAM

    def run(self, command: Command, output: Callable[[bytes], None], stop: Event) -> Ended:
        check(command)
        wanted = command.confinement or Confinement()
        if problems := [*_problems(wanted), *self._cgroups.problems(wanted.limits)]:
            raise Invalid(f"isolation {SANDBOX}: {'; '.join(problems)}")
        user = _user(wanted)
        if _is_root():
            give(command.mounts, user)
        # What is printed before anything runs is bubblewrap's own: why it could not.
        printed = bytearray()

        def take(data: bytes) -> None:
            if not supervised.has_begun:
                printed.extend(data[:REASON_BYTES_MAX])
            else:
                output(data)

        with self._cgroups.group(command.tag, wanted.limits) as group:
            options = _Options(self._program, self._seen, wanted, user)
            supervised = _Sandboxed(command, group, options)
            ended = supervised.run(take, stop)
        if not supervised.has_begun and ended.cause is Cause.ENDED:
            raise Unavailable(f"no sandbox can be made: {printed.decode(errors='replace').strip()}")
        return ended

    def settle(self, wanted: Confinement, stop: Event) -> Confinement:
        return wanted

    def sweep(self) -> int:
        return self._cgroups.sweep()

    def problem(self) -> str:
        """Why no sandbox can be had here, and what to do; empty when one can."""
        if not shutil.which(self._program):
            return f"there is no program {PROGRAM}: install what Debian calls {PACKAGE}"
        options = _Options(self._program, self._seen, Confinement(), _user(Confinement()))
        try:
            tried = subprocess.run(
                [*options.argv(()), "true"], capture_output=True, timeout=PROBE_TIME_MAX_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{PROGRAM} does not work: {error}"
        if tried.returncode == 0:
            return ""
        said = tried.stderr[:REASON_BYTES_MAX].decode(errors="replace").strip()
        return f"{said}: let this user make namespaces (sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces), or run the worker as root"


class _Sandboxed(Supervised):
    """A supervisor inside a sandbox."""

    def __init__(self, command: Command, group: Group, options: _Options) -> None:
        self._options = options
        self._first: int | None = None
        self._told: int | None = None
        super().__init__(command, group, options.user if _is_root() else None)

    def interpreter(self) -> Sequence[str]:
        return [interpreter()]

    def before(self, ours: ExitStack) -> tuple[Sequence[str], Sequence[int]]:
        mounts = [(str(mount.path), mount.is_writable) for mount in self._command.mounts]
        if not any(self._command.directory.is_relative_to(path) for path, _ in mounts):
            mounts.append((str(self._command.directory), True))
        [(self._told, telling)] = pipes(1)
        ours.callback(os.close, telling)
        return self._options.argv(mounts, telling), [telling]

    def joined(self) -> Sequence[Path]:
        # Whoever is to be born into a group has to see it.
        return [*dict.fromkeys(self._group.controllers.values())]

    def born_into(self) -> str:
        return ""

    def begun(self) -> None:
        """Take hold of the first process in there, as long as it surely is the one that was told."""
        assert self._told is not None
        first = json.loads(os.read(self._told, 4096))["child-pid"]
        try:
            self._first = os.pidfd_open(first)
        except OSError as error:
            raise Unavailable(f"no hold can be taken of a sandbox: {error.strerror}") from error

    def kill(self) -> None:
        if self._first is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._first, signal.SIGKILL)
        super().kill()

    def kill_leftovers(self) -> None:
        self.kill()

    def close(self) -> None:
        if self._first is not None:
            # It is gone only when everybody else in there is.
            self.kill()
            readable([self._first])
            os.close(self._first)
        if self._told is not None:
            os.close(self._told)
        super().close()


@dataclass(frozen=True, slots=True)
class _Seen:
    """What of the machine is seen besides its tools, and what of that is not."""

    paths: Sequence[str]
    hidden: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Options:
    """What bubblewrap is told."""

    program: str
    seen: _Seen
    wanted: Confinement
    user: User

    def argv(self, mounts: Sequence[tuple[str, bool]], telling: int | None = None) -> Sequence[str]:
        """Up to the command. Who looks at processes sees it, so there is no variable in it."""
        return [
            self.program,
            *self._namespaces(telling),
            *self._files(),
            *_mounts(mounts),
            "--chdir",
            "/",
            "--",
        ]

    def _namespaces(self, telling: int | None) -> Iterator[str]:
        yield from ("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent", "--new-session")
        if not self.wanted.network:
            yield "--unshare-net"
        if _is_root():
            yield from ("--cap-drop", "ALL")
            for right in SUPERVISOR_RIGHTS:
                yield from ("--cap-add", right)
        else:
            yield from ("--unshare-user", "--uid", str(self.user.uid), "--gid", str(self.user.gid))
        if telling is not None:
            yield from ("--info-fd", str(telling))

    def _files(self) -> Iterator[str]:
        yield from ("--tmpfs", "/")
        for path in TOOLS:
            if os.path.islink(path):
                yield from ("--symlink", os.readlink(path), path)
            else:
                yield from ("--ro-bind-try", path, path)
        yield from ("--proc", "/proc", "--dev", "/dev")
        disk_bytes = self.wanted.limits.disk_bytes
        for path in EMPTY:
            yield from ("--perms", "0755" if path == EMPTY[-1] else "1777")
            yield from ("--size", str(disk_bytes)) if disk_bytes else ()
            yield from ("--tmpfs", path)
        # Where names are looked up may be told by a file elsewhere.
        for path in ("/etc/resolv.conf", "/etc/hosts"):
            real = os.path.realpath(path)
            if real != path and os.path.exists(real):
                yield from ("--ro-bind", real, real)
        for path in self.seen.paths:
            yield from (*_folders(path), "--ro-bind-try", path, path)
        for path in self.seen.hidden:
            if os.path.isdir(path) and any(Path(path).is_relative_to(seen) for seen in (*TOOLS, *self.seen.paths)):
                yield from ("--tmpfs", path)
        for path in _python():
            yield from (*_folders(path), "--ro-bind-try", path, path)


def _folders(path: str) -> Iterator[str]:
    """The folders above a path, for everybody to pass through: bubblewrap by itself would make them for root alone."""
    for parent in reversed(Path(path).parents[:-1]):
        yield from ("--perms", "0755", "--dir", str(parent))


def _mounts(mounts: Sequence[tuple[str, bool]]) -> Iterator[str]:
    for path, is_writable in mounts:
        yield from (*_folders(path), "--bind" if is_writable else "--ro-bind", path, path)
    # Only now: whatever is mounted may have needed a folder.
    yield from ("--remount-ro", "/")


def _python() -> Iterator[str]:
    """What the supervisor needs to run, where it is not among the tools."""
    seen = [*TOOLS]
    for path in (sys.base_prefix, interpreter(), supervisor.__file__):
        if not any(Path(path).is_relative_to(folder) for folder in seen):
            seen.append(path)
            yield path


def _problems(wanted: Confinement) -> Iterator[str]:
    """What this driver cannot do by its nature."""
    if wanted.type not in ("", SANDBOX):
        yield f"it is not {wanted.type}"
    if wanted.services:
        yield "services are containers, and there are none here"
    if wanted.image:
        yield "commands have the machine's own tools, and no image"
    if wanted.user and _is_root() and find_user(wanted.user).uid == 0:
        yield "root of this machine must not run commands; name another user, or none"


def _user(wanted: Confinement) -> User:
    """Whom commands run as: told, or nobody where root runs the worker, or whoever else runs it."""
    if wanted.user:
        return find_user(wanted.user)
    return NOBODY if _is_root() else User(os.getuid(), os.getgid())


def _is_root() -> bool:
    return os.geteuid() == 0
