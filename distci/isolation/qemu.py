"""Virtual machines of QEMU: one that runs, and the memory of one that is ready, from which others begin.

A machine runs under a supervisor, as commands of this machine do, so that it ends with its worker. Nothing of it is found by a name: it is given its files
open, and a port is one end of a pair of sockets. It has no disk, no monitor and no display.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Self

from distci.errors import Unavailable
from distci.isolation.cgroups import Group
from distci.isolation.port import Command
from distci.isolation.supervised import FENCE, Supervised
from distci.isolation.users import NOBODY, User

PROGRAM, PACKAGE = "qemu-system-x86_64", "qemu-system-x86"
KVM, TCG = "kvm", "tcg"
KVM_DEVICE = "/dev/kvm"
SAID_BYTES_MAX = 2000
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
"""What QEMU forbids itself once it runs."""
VERSION_TIME_MAX_S = 20.0


@dataclass(frozen=True, slots=True)
class Shape:
    """What a machine has. One begins from the memory of another only if both have the same."""

    memory_bytes: int
    cpus: int
    has_network: bool
    accelerator: str

    def argv(self) -> Sequence[str]:
        network = ["-netdev", "user,id=network", "-device", "virtio-net-pci,netdev=network,romfile="]
        return [
            *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"),
            *("-machine", f"pc,accel={self.accelerator}", "-cpu", "host" if self.accelerator == KVM else "max"),
            *("-smp", str(self.cpus), "-m", f"{self.memory_bytes >> 20}M"),
            # First: its ports are named by how manieth it is.
            *("-device", "virtio-serial-pci"),
            *(network if self.has_network else ()),
        ]


class Machine:
    """A machine that runs. A context manager: left, it is gone."""

    def __init__(
        self,
        shape: Shape,
        begin: Sequence[str],
        group: Group,
        *,
        tag: str,
        fence: str = "",
        files: Sequence[int] = (),
        typed: Path | None = None,
        user: User | None = None,
    ) -> None:
        """``begin`` says how it begins, by ``files`` that it is given; ``typed`` is the pipe of a terminal. Unavailable where it cannot be started."""
        self.said = bytearray()
        """The last that it and its kernel have said."""
        self._stop = Event()
        self._ours = ExitStack()
        with ExitStack() as theirs:
            try:
                self.port, port = self._pair(theirs)
                self.control, control = self._pair(theirs)
                given = [port, control, *files]
                chardevs = [f"socket,id=port1,fd={port}", f"socket,id=port2,fd={control}", "null,id=port3"]
                options: list[str] = []
                if typed:
                    pipe = os.open(typed, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
                    theirs.callback(os.close, pipe)
                    given.append(pipe)
                    options = ["-add-fd", f"fd={pipe},set=1"]
                    chardevs[2] = "pipe,id=port3,path=/dev/fdset/1"
            except OSError as error:
                self._ours.close()
                raise Unavailable(f"no virtual machine can be started: {error.strerror}") from error
            for number, chardev in enumerate(chardevs, 1):
                options += ["-chardev", chardev, "-device", f"virtserialport,chardev=port{number},nr={number}"]
            argv = [shutil.which(PROGRAM) or PROGRAM, *shape.argv(), *options, *begin]
            environment = {FENCE: fence} if fence else {}
            command = Command(argv, Path("/"), environment, tag, grace_s=0.0, confinement=None)
            try:
                self._qemu = _Qemu(command, group, given, user)
                self._thread = self._started()
            except BaseException:
                self._ours.close()
                raise

    def kill(self) -> None:
        """Let it end, soon."""
        self._stop.set()

    def wait(self) -> None:
        """Wait until it has ended."""
        self._thread.join()

    def why(self) -> str:
        """The last that it has said, in one line."""
        return " ".join(self.said.decode(errors="replace").split()) or "it says nothing"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.wait()
        self._ours.close()

    def _pair(self, theirs: ExitStack) -> tuple[socket.socket, int]:
        ours, their = socket.socketpair()
        self._ours.enter_context(ours)
        theirs.enter_context(their)
        return ours, their.fileno()

    def _started(self) -> Thread:
        thread = Thread(target=self._run, daemon=True)
        try:
            thread.start()
        except BaseException:
            with self._qemu:
                self._qemu.finish()
                self._qemu.close()
            raise
        return thread

    def _run(self) -> None:
        try:
            self._qemu.run(self._hear, self._stop)
        except RuntimeError as error:
            # No thread could be started to attend to it; it was ended.
            self._hear(str(error).encode())

    def _hear(self, data: bytes) -> None:
        self.said += data
        del self.said[:-SAID_BYTES_MAX]


class _Qemu(Supervised):
    """QEMU under its supervisor."""

    def __init__(self, command: Command, group: Group, given: Sequence[int], user: User | None) -> None:
        self._given = given
        super().__init__(command, group, user)

    def before(self, ours: ExitStack) -> tuple[Sequence[str], Sequence[int]]:
        return (), self._given


def unprivileged(accelerator: str) -> User | None:
    """Whom a machine with somebody's command runs as; None where that is nobody else than we."""
    if os.geteuid() != 0:
        return None
    return User(NOBODY.uid, os.stat(KVM_DEVICE).st_gid) if accelerator == KVM else NOBODY


def version() -> str:
    """Of QEMU. Unavailable where there is none."""
    try:
        # One pipe: where no second one can be made, older Pythons leave the first one open.
        asked = subprocess.run(
            [PROGRAM, "--version"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=VERSION_TIME_MAX_S,
            check=True,
        )
    except FileNotFoundError as error:
        raise Unavailable(f"there is no program {PROGRAM}: install what Debian calls {PACKAGE}") from error
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"{PROGRAM} does not work: {error}") from error
    return asked.stdout.decode(errors="replace").partition("\n")[0]
