"""What goes between a command in a virtual machine and the pipes by which it looks like one of this machine's.

A thread tells the machine what to run and sends what it may see, then hands on what comes, in order: output is in its pipe before the last word is in its own.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from threading import Thread
from typing import IO, BinaryIO

from distci.isolation import cargo, guest, supervisor
from distci.isolation.port import Command, Confinement, Limits
from distci.isolation.qemu import Machine
from distci.isolation.supervised import NONE, pipes
from distci.isolation.users import User

FRAME_BYTES_MAX = 1 << 20
BEGIN_TIME_MAX_S = 60.0
"""How long a machine may take until it takes an order; it takes less than a second."""
SEED_BYTES = 64
DIGITS_MAX = 18
BEGUN = b"."
LAST_WORD = re.compile(rb" ([0-9]{1,5}) [0-9]{1,9}\.[0-9]{1,9}( [0-9]{1,18}){5}\n")
"""What supervisors say in the end: see :mod:`distci.isolation.supervisor`."""


class Link:
    """One machine's. To be begun once, and closed."""

    def __init__(self, machine: Machine, user: User, back: BinaryIO, back_bytes_max: int) -> None:
        """``user`` is whom the command runs as; ``back`` gets what comes back of its writable mounts, no more than so many bytes."""
        self.machine = machine
        self.has_begun = False
        """Whether the machine has taken its order."""
        self.has_all = False
        """Whether all has come that there was to come."""
        self.problem = ""
        """Why the command could not be given what it needs."""
        self.disk_bytes = 0
        self.stdout: IO[bytes] | None = None
        self._user = user
        self._back = back
        self._back_bytes_max = back_bytes_max
        self._output = self._status = NONE
        self._thread: Thread | None = None

    def connect(self) -> int:
        """Make the pipes; where the status is read."""
        (printed, self._output), (status, self._status) = pipes(2)
        self.stdout = os.fdopen(printed, "rb", buffering=0)
        return status

    def begin(self, command: Command) -> None:
        thread = Thread(target=self._run, args=(command,), daemon=True)
        thread.start()
        self._thread = thread

    def kill(self) -> None:
        self.machine.kill()

    def wait(self) -> int:
        """Wait for the end of the machine, which nobody needs any more."""
        self.kill()
        if self._thread:
            self._thread.join()
        return 0

    def close(self) -> None:
        """To be called when it was waited for, or has not begun."""
        self._hang_up()
        if self.stdout:
            self.stdout.close()

    def _run(self, command: Command) -> None:
        try:
            if self._tell(command):
                self._listen()
        except OSError:
            """The machine has ended."""
        finally:
            self.kill()
            self._hang_up()

    def _tell(self, command: Command) -> bool:
        """Send the order and the mounts; False where that cannot be."""
        port = self.machine.port
        order = json.dumps(self._order(command)).encode()
        port.settimeout(BEGIN_TIME_MAX_S)
        port.sendall(guest.LENGTH.pack(len(order)) + order)
        if self._frame() != (b"b", b""):
            return False
        port.settimeout(None)
        self.has_begun = True
        for mount in command.mounts:
            packed = cargo.pack(os.fsencode(mount.path), {})
            while True:
                try:
                    data = next(packed, b"")
                except OSError as error:
                    self.problem = f"{mount.path} cannot be carried into a virtual machine: {error.strerror}"
                    return False
                if not data:
                    break
                port.sendall(data)
        return True

    def _listen(self) -> None:
        """Hand on what comes, until the last word."""
        came_bytes = 0
        while True:
            kind, data = self._frame()
            if kind == b"o":
                # Where nobody reads it any more, it is not needed.
                with suppress(BrokenPipeError):
                    _write_all(self._output, data)
            elif kind == b"d" and data.isdigit():
                self.disk_bytes = int(data[:DIGITS_MAX])
            elif kind == b"f":
                came_bytes += len(data)
                if came_bytes > self._back_bytes_max:
                    return
                self._back.write(data)
            elif kind == b"s" and _is_word(data):
                self.has_all = data != BEGUN
                _write_all(self._status, data)
                if self.has_all:
                    return
            else:
                return

    def _frame(self) -> tuple[bytes, bytes]:
        """The next one; an OSError where the machine has ended, or speaks another language."""
        kind, size = guest.FRAME.unpack(self._read(guest.FRAME.size))
        if size > FRAME_BYTES_MAX:
            raise OSError("too long")
        return kind, self._read(size)

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            received = self.machine.port.recv(size - len(data))
            if not received:
                raise OSError("ended")
            data += received
        return bytes(data)

    def _order(self, command: Command) -> Mapping[str, object]:
        """What the machine is told; see :mod:`distci.isolation.guest`."""
        wanted = command.confinement or Confinement()
        environment = dict(command.environment)
        if command.terminal:
            environment[supervisor.TERMINAL] = guest.TYPED_PORT
        return {
            "time_s": time.time(),
            "seed": secrets.token_hex(SEED_BYTES),
            "mounts": [
                {"path": str(mount.path), "is_writable": mount.is_writable, "is_own": mount.is_own}
                for mount in command.mounts
            ],
            "uid": self._user.uid,
            "gid": self._user.gid,
            "read_only": wanted.read_only,
            "limits": dict(_limits(wanted.limits)),
            "has_terminal": command.terminal is not None,
            "environment": environment,
            "directory": str(command.directory),
            "grace_s": command.grace_s,
            "argv": [*command.argv],
        }

    def _hang_up(self) -> None:
        for descriptor in (self._output, self._status):
            if descriptor != NONE:
                os.close(descriptor)
        self._output = self._status = NONE


def _limits(limits: Limits) -> Iterator[tuple[str, str]]:
    """The files of a control group of version 2, and what they are to hold."""
    if limits.memory_bytes is not None:
        yield "memory.max", str(limits.memory_bytes)
    if limits.processes is not None:
        yield "pids.max", str(limits.processes)
    if limits.cpus is not None:
        yield "cpu.max", f"{max(1000, round(limits.cpus * guest.PERIOD_US))} {guest.PERIOD_US}"


def _is_word(data: bytes) -> bool:
    """Whether it is what a supervisor may say, whoever says it."""
    last = LAST_WORD.fullmatch(data)
    return data == BEGUN or (last is not None and (os.WIFEXITED(int(last[1])) or os.WIFSIGNALED(int(last[1]))))


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
