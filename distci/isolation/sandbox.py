"""Commands in a sandbox of bubblewrap: the machine's tools, read-only; the attempt's own folders; no other process, file or user.

Run by root, bubblewrap needs no user namespace: it makes the others, and the command becomes an ordinary user in them. (A user
namespace of root's maps to root: whoever came out of it would be root.) Run by anybody else, it makes a user namespace, too. In
both, the supervisor runs inside, as the parent of the command, and when the first process in there dies the kernel kills all others.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from distci.errors import Invalid
from distci.isolation import supervisor
from distci.isolation.cgroups import ControlGroups, Group
from distci.isolation.inside import (
    REASON_BYTES_MAX,
    SUPERVISOR_RIGHTS,
    Inside,
    hold,
    is_root,
    other_problems,
    root_problems,
    run_inside,
    user_of,
)
from distci.isolation.port import SANDBOX, Command, Confinement, Ended
from distci.isolation.seen import TOOLS, Bind, Link, Seen, Sight, attempts_own
from distci.isolation.supervised import INTERPRETER_OPTIONS, check, interpreter, pipes
from distci.isolation.users import User, give

PROGRAM, PACKAGE = "bwrap", "bubblewrap"

PROBE_TIME_MAX_S = 20.0


class SandboxIsolation:
    """Runs commands in a sandbox each. ``paths`` are seen besides the usual ones, read-only; folders of ``hidden`` look empty."""

    types: Sequence[str] = (SANDBOX,)

    def __init__(
        self, cgroups: ControlGroups | None = None, paths: Sequence[str] = (), hidden: Sequence[str] = ()
    ) -> None:
        self._cgroups = cgroups or ControlGroups()
        self._seen = Seen(paths, hidden)
        self._program = shutil.which(PROGRAM) or PROGRAM

    def run(self, command: Command, output: Callable[[bytes], None], stop: Event) -> Ended:
        check(command)
        wanted = command.confinement or Confinement()
        if problems := [*_problems(wanted), *self._cgroups.problems(wanted.limits)]:
            raise Invalid(f"isolation {SANDBOX}: {'; '.join(problems)}")
        user = user_of(wanted)
        if is_root():
            give(command.mounts, user)
        with self._cgroups.group(command.tag, wanted.limits) as group:
            options = _Options(self._program, self._seen, wanted, user)
            return run_inside(SANDBOX, lambda: _Sandboxed(command, group, options), output, stop)

    def settle(self, wanted: Confinement, stop: Event) -> Confinement:
        return wanted

    def sweep(self) -> int:
        return self._cgroups.sweep()

    def problem(self) -> str:
        """Why no sandbox can be had here, and what to do; empty when one can."""
        if not shutil.which(self._program):
            return f"there is no program {PROGRAM}: install what Debian calls {PACKAGE}"
        options = _Options(self._program, self._seen, Confinement(), user_of(Confinement()))
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


class _Sandboxed(Inside):
    """A supervisor inside a sandbox."""

    def __init__(self, command: Command, group: Group, options: _Options) -> None:
        self._options = options
        self._told: int | None = None
        super().__init__(command, group, options.user if is_root() else None)

    def supervisor(self) -> Sequence[str]:
        return [interpreter(), *INTERPRETER_OPTIONS, supervisor.__file__]

    def before(self, ours: ExitStack) -> tuple[Sequence[str], Sequence[int]]:
        [(self._told, telling)] = pipes(1)
        ours.callback(os.close, telling)
        return self._options.argv([*attempts_own(self._command)], telling), [telling]

    def first(self) -> int | None:
        assert self._told is not None
        return hold(json.loads(os.read(self._told, 4096))["child-pid"])

    def close(self) -> None:
        if self._told is not None:
            os.close(self._told)
        super().close()


@dataclass(frozen=True, slots=True)
class _Options:
    """What bubblewrap is told."""

    program: str
    seen: Seen
    wanted: Confinement
    user: User

    def argv(self, own: Sequence[Sight], telling: int | None = None) -> Sequence[str]:
        """Up to the command. Who looks at processes sees it, so there is no variable in it."""
        return [
            self.program,
            *self._namespaces(telling),
            *("--tmpfs", "/"),
            *_options(self.seen.tools()),
            *("--proc", "/proc", "--dev", "/dev"),
            *_options(self.seen.beside(self.wanted.limits.disk_bytes)),
            *_options(map(Bind, _python())),
            *_options(own),
            # Only now: whatever is mounted may have needed a folder.
            *("--remount-ro", "/"),
            "--chdir",
            "/",
            "--",
        ]

    def _namespaces(self, telling: int | None) -> Iterator[str]:
        yield from ("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent", "--new-session")
        if not self.wanted.network:
            yield "--unshare-net"
        if is_root():
            yield from ("--cap-drop", "ALL")
            for right in SUPERVISOR_RIGHTS:
                yield from ("--cap-add", f"CAP_{right}")
        else:
            yield from ("--unshare-user", "--uid", str(self.user.uid), "--gid", str(self.user.gid))
        if telling is not None:
            yield from ("--info-fd", str(telling))


def _options(sights: Iterable[Sight]) -> Iterator[str]:
    """What is seen, as bubblewrap is told of it."""
    for sight in sights:
        if isinstance(sight, Link):
            yield from ("--symlink", sight.target, sight.path)
        elif isinstance(sight, Bind):
            how = "--bind" if sight.is_writable else "--ro-bind"
            yield from (*_folders(sight.path), f"{how}-try" if sight.may_be_missing else how, sight.path, sight.path)
        else:
            yield from ("--perms", f"{sight.mode:04o}")
            yield from ("--size", str(sight.size_bytes)) if sight.size_bytes else ()
            yield from ("--tmpfs", sight.path)


def _folders(path: str) -> Iterator[str]:
    """The folders above a path, for everybody to pass through: bubblewrap by itself would make them for root alone."""
    for parent in reversed(Path(path).parents[:-1]):
        yield from ("--perms", "0755", "--dir", str(parent))


def _python() -> Iterator[str]:
    """What the supervisor needs to run, where it is not among the tools."""
    seen = [*TOOLS]
    for path in (sys.base_prefix, interpreter(), supervisor.__file__):
        if not any(Path(path).is_relative_to(folder) for folder in seen):
            seen.append(path)
            yield path


def _problems(wanted: Confinement) -> Iterator[str]:
    """What this driver cannot do by its nature."""
    yield from other_problems(wanted, SANDBOX)
    if wanted.image:
        yield "commands have the machine's own tools, and no image"
    yield from root_problems(user_of(wanted))
