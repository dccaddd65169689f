"""Commands in a virtual machine each, of QEMU: a kernel, files and memory of its own, gone with it.

A machine begins from the memory of one that was ready (:mod:`distci.isolation.memories`). Its first process (:mod:`distci.isolation.guest`) is told what to run and is
sent what the command may see; it has the same supervisor as in every other way of isolation, and what that says and what is printed comes back
(:mod:`distci.isolation.link`). At the end the writable mounts come back, and are unpacked by somebody who believes nothing that the machine says
(:mod:`distci.isolation.unloading`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from signal import SIGKILL
from tempfile import TemporaryFile
from threading import Event
from typing import BinaryIO, cast

from distci.errors import Invalid, Unavailable
from distci.isolation.cgroups import ControlGroups, Group
from distci.isolation.link import Link
from distci.isolation.machine_images import MachineImage, find_image
from distci.isolation.memories import BOOT_TIME_MAX_S, Memories, Memory, NotReady, Stopped
from distci.isolation.port import VM, Cause, Command, Confinement, Ended, Limits, Mount
from distci.isolation.qemu import KVM, KVM_DEVICE, SANDBOX, TCG, Machine, Shape, unprivileged, version
from distci.isolation.supervised import FENCE, Started, Supervised, check
from distci.isolation.unloading import unload
from distci.isolation.users import NOBODY, find_user_in

TRIES = 2
KVM_TIME_MAX_S = 30.0
"""How long a machine may take to boot with KVM where that works: ten times what it takes."""
KILLED = int(SIGKILL)

log = logging.getLogger(__name__)


class VmIsolation:
    """Runs commands in a virtual machine each."""

    types: Sequence[str] = (VM,)

    def __init__(
        self,
        images: Mapping[str, MachineImage],
        folder: Path,
        *,
        memory_bytes: int,
        cpus: int,
        accelerator: str = "",
        cgroups: ControlGroups | None = None,
    ) -> None:
        """``folder`` is for what machines begin from; each has ``memory_bytes`` and ``cpus``; ``accelerator``: ``tcg`` or ``kvm``, or empty: KVM where it works."""
        self._images = images
        self._folder = folder
        self._memory_bytes = memory_bytes
        self._cpus = cpus
        self._accelerator = accelerator
        self._cgroups = cgroups or ControlGroups()
        self._memories = Memories(folder)

    def run(self, command: Command, output: Callable[[bytes], None], stop: Event) -> Ended:
        check(command)
        wanted = command.confinement or Confinement()
        self._check(wanted)
        image = find_image(self._images, wanted.image)
        if not any(command.directory.is_relative_to(mount.path) for mount in command.mounts):
            own = Mount(command.directory, is_writable=True, is_own=True)
            command = replace(command, mounts=[*command.mounts, own])
        try:
            for _ in range(TRIES):
                shape, memory = self._ready(image, wanted, stop)
                if ended := self._run(command, shape, memory, output, stop):
                    return ended
                self._memories.forget(memory)
        except Stopped:
            return Ended(Cause.STOPPED, None, KILLED)
        raise Unavailable(f"no virtual machine begins from what was made ready in {self._folder}")

    def settle(self, wanted: Confinement, stop: Event) -> Confinement:
        self._check(wanted)
        return replace(wanted, type=VM, image=find_image(self._images, wanted.image).digest)

    def sweep(self) -> int:
        return self._cgroups.sweep() + self._memories.sweep()

    def problem(self) -> str:
        """Why no virtual machine can be had here, and what to do; empty when one can."""
        if not self._images:
            return "no image is named: make one with deploy/vm-image, and name it in the setting vm_images"
        try:
            version()
        except Unavailable as error:
            return str(error)
        return "; ".join(filter(None, (image.problem() for image in self._images.values())))

    def _check(self, wanted: Confinement) -> None:
        if problems := [*_problems(wanted, self._memory_bytes)]:
            raise Invalid(f"isolation {VM}: {'; '.join(problems)}")

    def _ready(self, image: MachineImage, wanted: Confinement, stop: Event) -> tuple[Shape, Memory]:
        """What a machine begins from."""
        shape = Shape(self._memory_bytes, self._cpus, wanted.network, self._accelerator or KVM)
        if self._accelerator or self._may_have_kvm():
            limit_s = BOOT_TIME_MAX_S if self._accelerator else KVM_TIME_MAX_S
            try:
                return shape, self._memories.find(image, shape, stop, limit_s)
            except NotReady as error:
                if self._accelerator:
                    raise
                log.warning("KVM does not work here, and virtual machines do without: %s", error)
                self._no_kvm().touch()
        shape = replace(shape, accelerator=TCG)
        return shape, self._memories.find(image, shape, stop)

    def _may_have_kvm(self) -> bool:
        return os.access(KVM_DEVICE, os.R_OK | os.W_OK) and not self._no_kvm().exists()

    def _no_kvm(self) -> Path:
        """There once it was tried in vain, until this machine boots again."""
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return self._folder / f"no-kvm-{boot}"

    def _run(
        self, command: Command, shape: Shape, memory: Memory, output: Callable[[bytes], None], stop: Event
    ) -> Ended | None:
        """How a command ended; None when its machine did not begin."""
        with ExitStack() as kept:
            group = kept.enter_context(self._cgroups.group(command.tag, Limits()))
            try:
                users = memory.users()
                file = kept.enter_context(memory.file.open("rb"))
                back = cast(BinaryIO, kept.enter_context(TemporaryFile(dir=self._folder)))
            except FileNotFoundError:
                return None
            except OSError as error:
                raise Unavailable(f"no virtual machine can be started: {error.strerror}") from error
            wanted = command.confinement or Confinement()
            user = find_user_in(users, wanted.user) if wanted.user else NOBODY
            machine = Machine(
                shape,
                ["-incoming", f"fd:{file.fileno()}", "-sandbox", SANDBOX],
                group,
                tag=command.tag,
                fence=command.environment.get(FENCE, ""),
                files=[file.fileno()],
                typed=command.terminal,
                user=unprivileged(shape.accelerator),
            )
            link = Link(kept.enter_context(machine), user, back, shape.memory_bytes)
            kept.callback(link.close)
            ended = _Inside(command, link).run(output, stop)
            if link.problem:
                raise Unavailable(link.problem)
            if not link.has_begun and ended.cause is Cause.ENDED:
                return None
            if link.has_all:
                _bring_back(command, back)
            elif ended.cause is Cause.ENDED:
                output(b"distci: the virtual machine ended before its files could come back\n")
        return ended


class _Inside(Supervised):
    """A supervisor in a machine."""

    def __init__(self, command: Command, link: Link) -> None:
        self._link = link
        super().__init__(command, Group(None, {}))

    def connect(self, ours: ExitStack) -> tuple[int, int, Sequence[int]]:
        self._status_out = self._link.connect()
        try:
            return self._status_out, os.dup(self._link.machine.control.fileno()), ()
        except OSError as error:
            raise Unavailable(f"no virtual machine can be started: {error.strerror}") from error

    def start(self, told: Sequence[int], ours: ExitStack) -> Started:
        self._link.begin(self._command)
        return self._link

    def kill(self) -> None:
        self._link.kill()

    def kill_leftovers(self) -> None:
        self._link.kill()

    def memory(self, told: Sequence[bytes]) -> tuple[bool, int | None]:
        kills, peak_bytes = map(int, told or (b"0", b"0"))
        return kills > 0, peak_bytes

    def disk_taken(self) -> int:
        return self._link.disk_bytes


def _bring_back(command: Command, back: BinaryIO) -> None:
    """Make the writable mounts what they were in the machine."""
    back.seek(0)
    for mount in command.mounts:
        if mount.is_writable:
            try:
                unload(back, mount.path)
            except OSError as error:
                raise Unavailable(f"{mount.path} cannot be what it was in a virtual machine: {error}") from error


def _problems(wanted: Confinement, memory_bytes: int) -> Iterator[str]:
    """What this driver cannot do by its nature."""
    if wanted.type not in ("", VM):
        yield f"it is not {wanted.type}"
    if not wanted.image:
        yield "the task has to say of which image; the setting vm_images names those that there are"
    if wanted.services:
        yield "services are containers, and there are none here"
    if (wanted.limits.memory_bytes or 0) > memory_bytes:
        yield f"a machine has {memory_bytes >> 20} MiB of memory, as the setting vm_memory says, and the task wants more"
