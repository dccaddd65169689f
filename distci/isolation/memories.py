"""The memory of virtual machines that are ready for a command, kept on disk: to begin there takes a fraction of a second, to boot takes several.

One is made when it is first needed: for an image by its checksum, what the machine has, this QEMU and this program. The image needs nothing of ours: a kit
(:mod:`distci.isolation.kit`) with :mod:`distci.isolation.guest` goes with it, as one more archive behind its own. Whoever makes one holds a lock, for which others
wait. One from which no machine begins is made anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shlex
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from threading import Event
from time import monotonic, time
from typing import Any

from distci.errors import Unavailable
from distci.isolation import cargo, guest, supervisor
from distci.isolation.cgroups import Group
from distci.isolation.kit import argv as kit_argv
from distci.isolation.kit import make_kit, source
from distci.isolation.machine_images import INITRAMFS, KERNEL, MachineImage
from distci.isolation.processes import is_there, own_name
from distci.isolation.qemu import Machine, Shape, version

KIT = "/.distci/kit"
"""Where it is in a machine."""
MODULES = (guest, cargo, supervisor)
MEMORY, USERS = "memory", "users.json"
MAKING = "making-"
TAG = "memory"
READY_BYTES_MAX = 1 << 20
BOOT_TIME_MAX_S = 300.0
SAVE_TIME_MAX_S = 120.0
UNUSED_MAX_S = 30 * 86400.0
LOOK_S = 0.05
ALIGNED = 4

log = logging.getLogger(__name__)


class NotReady(Unavailable):
    """A machine was not ready in time, or not at all."""


class Stopped(Exception):
    """Nobody wants it any more."""


@dataclass(frozen=True, slots=True)
class Memory:
    """One that is kept."""

    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / MEMORY

    def users(self) -> Callable[[str], str]:
        """Gives the text of the image's ``/etc/passwd`` and ``/etc/group``."""
        texts: Mapping[str, str] = json.loads((self.folder / USERS).read_text())
        return lambda path: texts[path.removeprefix("/etc/")]


class Memories:
    """What is kept in a folder. Any thread and process may use it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made_of = ""

    def find(self, image: MachineImage, shape: Shape, stop: Event, boot_time_max_s: float = BOOT_TIME_MAX_S) -> Memory:
        """The memory of a machine like that, made if there is none. Unavailable when none can be made; Stopped when ``stop`` is set meanwhile."""
        memory = self._memory(image, shape)
        if not memory.file.exists():
            with self._lock(memory, stop):
                if not memory.file.exists():
                    self._make(memory, image, shape, stop, boot_time_max_s)
        # Whoever clears up sees that it is in use.
        with suppress(FileNotFoundError):
            os.utime(memory.folder)
        return memory

    def forget(self, memory: Memory) -> None:
        """Of this one, no machine begins."""
        log.warning("no virtual machine begins from %s: it is made anew", memory.folder)
        gone = self._new_folder()
        # Somebody else may have found it out, too.
        with suppress(FileNotFoundError):
            memory.folder.rename(gone / "gone")
        shutil.rmtree(gone, ignore_errors=True)

    def sweep(self) -> int:
        """Remove what was left half made by those who are gone, and what nobody has used for long; how much that was."""
        half = [path for path in self._folder.glob(f"{MAKING}*") if not is_there(path.name.removeprefix(MAKING))]
        old = [path.parent for path in self._folder.glob(f"*/{MEMORY}") if _is_unused(path.parent)]
        for path in (*half, *old):
            shutil.rmtree(path, ignore_errors=True)
        return len(half) + len(old)

    def _memory(self, image: MachineImage, shape: Shape) -> Memory:
        if not self._made_of:
            try:
                ours = "".join(source(module).read_text() for module in MODULES)
            except OSError as error:
                raise Unavailable(f"no virtual machine can be started: {error.strerror}") from error
            self._made_of = f"{version()} {os.uname().release} {ours}"
        made_of = f"{image.checksum} {shape} {self._made_of}"
        return Memory(self._folder / f"memory-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}")

    def _new_folder(self) -> Path:
        try:
            self._folder.mkdir(0o700, parents=True, exist_ok=True)
            return Path(mkdtemp(prefix=f"{MAKING}{own_name()}-", dir=self._folder))
        except OSError as error:
            raise Unavailable(f"no folder can be made in {self._folder}: {error.strerror}") from error

    @contextmanager
    def _lock(self, memory: Memory, stop: Event) -> Iterator[None]:
        try:
            self._folder.mkdir(0o700, parents=True, exist_ok=True)
            lock = (self._folder / f"{memory.folder.name}.lock").open("w")
        except OSError as error:
            raise Unavailable(f"nothing can be made in {self._folder}: {error.strerror}") from error
        with lock:
            while not _is_locked(lock.fileno()):
                if stop.wait(LOOK_S):
                    raise Stopped
            yield

    def _make(self, memory: Memory, image: MachineImage, shape: Shape, stop: Event, time_max_s: float) -> None:
        half = self._new_folder()
        try:
            image.copy(half)
            initramfs = half / INITRAMFS
            with initramfs.open("ab") as file:
                file.write(bytes(-file.tell() % ALIGNED))
                file.writelines(_archive(make_kit(self._folder, MODULES)))
            users = _boot(half, shape, stop, time_max_s)
            (half / USERS).write_text(json.dumps(users))
            for name in (KERNEL, INITRAMFS):
                (half / name).unlink()
            _to_disk(half / MEMORY)
            half.rename(memory.folder)
        except OSError as error:
            raise Unavailable(f"no virtual machine can be made ready in {self._folder}: {error}") from error
        finally:
            shutil.rmtree(half, ignore_errors=True)


def _boot(folder: Path, shape: Shape, stop: Event, time_max_s: float) -> Mapping[str, str]:
    """Boot a machine, and keep its memory once it is ready; its users."""
    first, *arguments = kit_argv(KIT, guest)
    # What stands behind -- are arguments of the first process.
    line = f"console=ttyS0 quiet panic=-1 random.trust_cpu=on rdinit={first} -- {' '.join(arguments)}"
    begin = ["-kernel", str(folder / KERNEL), "-initrd", str(folder / INITRAMFS), "-append", line]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        begin += ["-chardev", f"socket,id=monitor,fd={theirs.fileno()}", "-mon", "chardev=monitor,mode=control"]
        with Machine(shape, begin, Group(None, {}), tag=TAG, files=[theirs.fileno()]) as machine:
            theirs.close()
            users = _ready(machine, stop, time_max_s)
            _keep(ours, folder / MEMORY, machine, stop)
    return users


def _ready(machine: Machine, stop: Event, time_max_s: float) -> Mapping[str, str]:
    """What a machine says once it is ready."""
    deadline = monotonic() + time_max_s
    machine.port.settimeout(LOOK_S)
    said = b""
    while len(said) < guest.FRAME.size or len(said) < guest.FRAME.size + guest.FRAME.unpack_from(said)[1]:
        if stop.is_set():
            raise Stopped
        if monotonic() > deadline or len(said) > READY_BYTES_MAX:
            raise NotReady(f"a virtual machine was not ready within {time_max_s:g} s: {machine.why()}")
        try:
            data = machine.port.recv(1 << 16)
        except TimeoutError:
            continue
        if not data:
            machine.wait()
            raise NotReady(f"a virtual machine ended before it was ready: {machine.why()}")
        said += data
    users: Mapping[str, str] = json.loads(said[guest.FRAME.size :])
    return users


def _keep(monitor: socket.socket, memory: Path, machine: Machine, stop: Event) -> None:
    """Have QEMU write a machine's memory to a file."""
    deadline = monotonic() + SAVE_TIME_MAX_S
    monitor.settimeout(SAVE_TIME_MAX_S)
    with monitor.makefile("rwb") as lines:
        lines.readline()
        _ask(lines, "qmp_capabilities")
        # It is written as fast as it goes, and nobody waits for the machine meanwhile.
        _ask(lines, "migrate-set-parameters", {"max-bandwidth": 1 << 40})
        _ask(lines, "migrate", {"uri": f"exec:cat >{shlex.quote(str(memory))}"})
        while (state := _ask(lines, "query-migrate").get("status")) != "completed":
            if stop.wait(LOOK_S):
                raise Stopped
            if state in ("failed", "cancelled") or monotonic() > deadline:
                raise Unavailable(f"the memory of a virtual machine cannot be kept in {memory}: {machine.why()}")


def _ask(lines: Any, command: str, arguments: Mapping[str, object] | None = None) -> Mapping[str, Any]:
    """What QEMU's monitor answers. Unavailable where it does not, or refuses."""
    lines.write(json.dumps({"execute": command, "arguments": arguments or {}}).encode() + b"\n")
    lines.flush()
    while line := lines.readline():
        answer = json.loads(line)
        if "error" in answer:
            raise Unavailable(f"QEMU refuses {command}: {answer['error'].get('desc')}")
        if "return" in answer:
            found: Mapping[str, Any] = answer["return"]
            return found
    raise Unavailable(f"QEMU ended when it was asked to {command}")


def _archive(kit: Path) -> Iterator[bytes]:
    """A kit as the kernel unpacks it: a cpio archive of the format newc."""
    paths = [*reversed(Path(KIT.lstrip("/")).parents)][1:]
    entries = [(str(path), b"", True) for path in [*paths, Path(KIT.lstrip("/"))]]
    for path in sorted(kit.rglob("*")):
        name = f"{KIT}/{path.relative_to(kit)}".lstrip("/")
        entries.append((name, b"" if path.is_dir() else path.read_bytes(), path.is_dir()))
    entries.append(("TRAILER!!!", b"", False))
    for number, (name, data, is_folder) in enumerate(entries, 1):
        mode = 0o40755 if is_folder else 0o100755
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        yield from (head, bytes(-len(head) % ALIGNED), data, bytes(-len(data) % ALIGNED))


def _is_unused(folder: Path) -> bool:
    try:
        return time() - folder.stat().st_mtime > UNUSED_MAX_S
    except FileNotFoundError:
        return False


def _is_locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _to_disk(path: Path) -> None:
    """A file that was written half only, after the machine lost its power, would be no worse than none."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
