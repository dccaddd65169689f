"""Commands in an LXC container each: the machine's tools, read-only, or the files of an image that the operator has put into a folder.

Where root has a range of users to give (``/etc/subuid``), the container's users are these, nobody of which owns anything on this machine; else they are
the machine's own, and root is none of them. The supervisor is the first process in there, so that the kernel kills all others when it ends. Its Python
comes from a kit (:mod:`distci.isolation.kit`), and an image needs nothing in it. What is mounted is mounted before LXC starts
(:mod:`distci.isolation.rooting`), and nothing that LXC makes outlives the container.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from uuid import uuid4

from distci.errors import Invalid
from distci.isolation import kit, rooting
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
from distci.isolation.port import LXC, Command, Confinement, Ended
from distci.isolation.processes import own_name
from distci.isolation.seen import FOR_ALL, Bind, Link, Memory, Seen, Sight, attempts_own
from distci.isolation.supervised import INTERPRETER_OPTIONS, check, file_of, interpreter
from distci.isolation.users import ROOT_RIGHTS, Subordinates, User, find_user_in, give

PROGRAM, PACKAGE = "lxc-start", "lxc"

KIT = "/.distci/kit"
"""Where that is in a container."""

IMAGE_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]*")
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
TERMINALS_MAX = 1024
PROBE_TIME_MAX_S = 20.0


class LxcIsolation:
    """Runs commands in an LXC container each."""

    types: Sequence[str] = (LXC,)

    def __init__(
        self,
        folder: Path,
        cgroups: ControlGroups | None = None,
        seen: Seen | None = None,
        images: Path | None = None,
        users: Subordinates | None = None,
    ) -> None:
        """``folder`` is for what containers are given of ours; ``images`` has root file systems, a folder each; ``users`` are those of the containers, None:
        the machine's own.
        """
        self._folder = folder
        self._cgroups = cgroups or ControlGroups()
        self._seen = seen or Seen()
        self._images = images
        self._users = users
        self._program = shutil.which(PROGRAM) or PROGRAM

    def run(self, command: Command, output: Callable[[bytes], None], stop: Event) -> Ended:
        check(command)
        wanted = command.confinement or Confinement()
        self._check(wanted)
        user = self._user(wanted)
        give(command.mounts, self._users.outside(user) if self._users else user)
        made_of = self._made_of(wanted, [Bind(str(kit.make_kit(self._folder)), place=KIT), *attempts_own(command)])
        with self._cgroups.group(command.tag, wanted.limits) as group:
            return run_inside("container", lambda: _Contained(command, group, user, made_of), output, stop)

    def settle(self, wanted: Confinement, stop: Event) -> Confinement:
        self._check(wanted)
        return wanted

    def sweep(self) -> int:
        return self._cgroups.sweep() + kit.sweep(self._folder)

    def problem(self) -> str:
        """Why no container can be had here, and what to do; empty when one can."""
        if not shutil.which(self._program):
            return f"there is no program {PROGRAM}: install what Debian calls {PACKAGE}"
        if not is_root():
            return "only root can make containers that take no setting up: run the worker as root, or take the sandbox"
        if self._images is not None and not self._images.is_dir():
            return f"there is no folder {self._images}, which the setting lxc_images names: make it, or name the one that has the images"
        with ExitStack() as ours:
            before, passed = self._made_of(Confinement(network=False), ()).before(ours)
            try:
                tried = subprocess.run(
                    [*before, "/bin/true"],
                    cwd="/",
                    env={},
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    pass_fds=passed,
                    timeout=PROBE_TIME_MAX_S,
                    check=False,
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                return f"{PROGRAM} does not work: {error}"
        if tried.returncode == 0:
            return ""
        said = tried.stderr[:REASON_BYTES_MAX].decode(errors="replace").strip().replace(": ", ", ")
        return f"{said}: it takes Linux 5.12 or newer, and the right to make namespaces and mounts"

    def note(self) -> str:
        """What is to be known of containers here, and what to do."""
        if self._users:
            return ""
        return (
            "containers have the machine's own users: for users of their own, let root have some, "
            "with a line root:100000:65536 in /etc/subuid and in /etc/subgid, and start the worker anew"
        )

    def _check(self, wanted: Confinement) -> None:
        if problems := [*self._problems(wanted), *self._cgroups.problems(wanted.limits)]:
            raise Invalid(f"isolation {LXC}: {'; '.join(problems)}")

    def _problems(self, wanted: Confinement) -> Iterator[str]:
        """What cannot be had here."""
        yield from other_problems(wanted, LXC)
        if wanted.image and self._images is None:
            yield "there is no image here: the setting lxc_images names no folder of any"
        elif wanted.image and not self._image(wanted):
            yield f"there is no image {wanted.image!r} in {self._images}: the worker's operator puts them there, a folder each"
        else:
            user = self._user(wanted)
            yield from self._users.problems(user) if self._users else map(_or_own_users, root_problems(user))

    def _image(self, wanted: Confinement) -> Path | None:
        """The folder of the image that a task names; None where it names none, or there is none."""
        if self._images is None or not IMAGE_NAME.fullmatch(wanted.image):
            return None
        folder = self._images / wanted.image
        return folder if folder.is_dir() else None

    def _user(self, wanted: Confinement) -> User:
        """Whom a command runs as, in there."""
        image = self._image(wanted)
        if image is None or not wanted.user:
            return user_of(wanted)

        def text(path: str) -> str:
            file = image / path.lstrip("/")
            return file.read_text(errors="replace") if file.is_file() else ""

        return find_user_in(text, wanted.user)

    def _made_of(self, wanted: Confinement, own: Sequence[Sight]) -> _Parts:
        return _Parts(self._program, self._seen, self._image(wanted), self._users, wanted, own)


def _or_own_users(problem: str) -> str:
    return f"{problem}; or let root have users of its own for containers: `distci check` tells how"


class _Contained(Inside):
    """A supervisor that is the first process of a container."""

    def __init__(self, command: Command, group: Group, user: User, made_of: _Parts) -> None:
        self._made_of = made_of
        super().__init__(command, group, user)

    def supervisor(self) -> Sequence[str]:
        return kit.argv(KIT)

    def before(self, ours: ExitStack) -> tuple[Sequence[str], Sequence[int]]:
        return self._made_of.before(ours)

    def first(self) -> int | None:
        child = self._child()
        held = hold(child) if child is not None else None
        if held is not None and self._child() != child:
            # It ended meanwhile, and the number may be somebody else's by now.
            os.close(held)
            return None
        return held

    def _child(self) -> int | None:
        """What LXC has one child of is the container."""
        assert isinstance(self._process, subprocess.Popen)
        process = self._process.pid
        try:
            children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        except OSError:
            return None
        return int(children[0]) if children else None


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a container is made of."""

    program: str
    seen: Seen
    image: Path | None
    users: Subordinates | None
    wanted: Confinement
    own: Sequence[Sight]

    def before(self, ours: ExitStack) -> tuple[Sequence[str], Sequence[int]]:
        """What starts a program in there, and the file that it is told what is mounted by."""
        root = self.users.outside(User(0, 0)) if self.users else User(0, 0)
        count = self.users.count if self.users else 0
        lines = "".join(f"lxc.{name} = {value}\n" for name, value in self._settings())
        told = file_of("container", [lines, f"{root.uid}:{root.gid}", str(count), *self._steps(root)])
        ours.callback(os.close, told)
        name = f"{own_name()}-{uuid4().hex[:8]}"
        container = [self.program, "-F", "-n", name, "-P", rooting.OWN, "-f", rooting.CONFIG, "--"]
        return [interpreter(), *INTERPRETER_OPTIONS, rooting.__file__, str(told), *container], [told]

    def _settings(self) -> Iterator[tuple[str, str]]:
        yield "rootfs.path", f"dir:{rooting.ROOT}"
        yield "rootfs.mount", rooting.MOUNTED
        yield "mount.auto", "proc:mixed"
        # What is in /dev but terminals we see to: a file of a secret may be below /dev/shm, and would be hidden.
        yield "autodev", "0"
        yield "pty.max", str(TERMINALS_MAX)
        yield "tty.max", "0"
        # Without one, what is printed goes where LXC prints.
        yield "console.path", "none"
        yield "uts.name", socket.gethostname()
        yield "apparmor.profile", "unconfined"
        yield "no_new_privs", "1"
        yield "cap.keep", " ".join(right.lower() for right in (ROOT_RIGHTS if self.users else SUPERVISOR_RIGHTS))
        yield "net.0.type", "none" if self.wanted.network else "empty"
        new = ["mnt", "pid", "ipc", "uts"]
        if not self.wanted.network:
            new.append("net")
        if self.users:
            new.append("user")
            yield "idmap", f"u 0 {self.users.uid} {self.users.count}"
            yield "idmap", f"g 0 {self.users.gid} {self.users.count}"
        yield "namespace.clone", " ".join(new)

    def _steps(self, root: User) -> Iterator[str]:
        """What is mounted, as :mod:`distci.isolation.rooting` is told of it."""
        disk_bytes = self.wanted.limits.disk_bytes
        if self.image is not None:
            yield from ("root", str(disk_bytes or ""), str(self.image))
            yield from _told(self.seen.in_image(disk_bytes, self.wanted.network), root)
        else:
            yield from _told([*self.seen.tools(), *self.seen.beside(disk_bytes)], root)
        yield from ("folder", "/proc", "")
        yield from _devices(disk_bytes, root)
        yield from _told(self.own, root)
        if self.image is None or self.wanted.read_only:
            yield from ("seal", "", "")


def _devices(disk_bytes: int | None, root: User) -> Iterator[str]:
    """All that is in ``/dev`` but terminals."""
    yield from _told([Memory("/dev"), Memory("/dev/shm", FOR_ALL, disk_bytes)], root)
    for name in DEVICES:
        yield from ("device", f"/dev/{name}", f"/dev/{name}")
    yield from ("folder", "/dev/pts", "")
    links = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
    yield from _told([Link(f"/dev/{name}", target) for name, target in links.items()], root)


def _told(sights: Iterable[Sight], root: User) -> Iterator[str]:
    """What is seen, whose folders in memory belong to this user of the machine."""
    for sight in sights:
        if isinstance(sight, Link):
            yield from ("link", sight.path, sight.target)
        elif isinstance(sight, Bind):
            how = "write" if sight.is_writable else "try" if sight.may_be_missing else "read"
            yield from (how, sight.place or sight.path, sight.path)
        else:
            size = f",size={sight.size_bytes}" if sight.size_bytes else ""
            yield from ("memory", sight.path, f"mode={sight.mode:o},uid={root.uid},gid={root.gid}{size}")
