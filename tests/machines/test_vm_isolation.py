"""All that every driver promises, by virtual machines: ``tests/run vm``. What a machine writes is seen when it has ended, so some is looked at in another way."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from time import time

import pytest
from conformance.test_isolation import *  # noqa: F403 - the same tests, with another driver
from conformance.test_isolation import SPIN, python
from isolations import LONG_S, TREES, Runner, runner_of, start_worker
from services import shared
from services.machines import PROGRAM, image_of
from waiting import wait_until

from distci.errors import Invalid, Unavailable
from distci.isolation.machine_images import MachineImage
from distci.isolation.port import Cause, Command, Confinement, Limits, Mount
from distci.isolation.processes import own_name
from distci.isolation.vm import VmIsolation

# Of other machines and files than these promises are about.
del test_an_image_is_refused_where_there_are_none  # noqa: F821
del test_a_killed_worker_does_not_keep_its_control_groups  # noqa: F821
del test_tools_of_the_machine_are_there  # noqa: F821
del test_with_network_it_is_the_machines  # noqa: F821
# Of which there is another below.
del test_output_arrives_while_the_command_runs  # noqa: F821
del test_d01_a_killed_worker_leaves_nobody  # noqa: F821
del test_what_it_used_is_told  # noqa: F821

# An emulated machine on a busy one may need long.
pytestmark = pytest.mark.timeout(100)


@pytest.fixture  # type: ignore[no-redef]
def runner(tmp_path: Path) -> Iterator[Runner]:
    yield from runner_of("vm", tmp_path)


@pytest.fixture  # type: ignore[no-redef]
def plain(runner: Runner) -> Runner:
    """The same: both suites of arguments are one here."""
    return runner


def printed_by_worker(runner: Runner) -> bytes:
    path = runner.directory.with_name(f"{runner.directory.name}-printed")
    return path.read_bytes() if path.exists() else b""


def test_output_arrives_before_the_machine_ends(plain: Runner) -> None:
    stop = Event()
    ended, printed = plain.script(f"echo first; sleep {LONG_S}", output=lambda data: stop.set(), stop=stop)
    assert ended.cause is Cause.STOPPED
    assert printed == b"first\n"


@pytest.mark.parametrize("tree", TREES)
def test_d01_a_killed_worker_leaves_no_machine(runner: Runner, tree: str) -> None:
    # Given a worker process that runs a tree of processes in a machine
    script = f"{TREES[tree]}\necho ready; trap '' TERM; sleep {LONG_S} & wait; sleep {LONG_S}"
    worker = start_worker(runner, script)
    wait_until(lambda: printed_by_worker(runner) == b"ready\n", 80)
    assert runner.left()
    # When it is killed
    worker.kill()
    worker.wait()
    # Then the machine is gone soon after
    wait_until(lambda: not runner.left())


def test_what_it_used_in_a_machine_is_told(plain: Runner) -> None:
    ended, _ = plain.script(f"{python(SPIN)} & wait")
    assert ended.usage
    assert 0.4 <= ended.usage.cpu_s < 60
    assert ended.usage.memory_peak_bytes > 1 << 20


def test_a_machine_that_says_that_it_is_over_is_not_asked_for_more(plain: Runner) -> None:
    """Whoever is root in there ends it as it likes, and gets nothing out."""
    (plain.directory / "before").write_text("as it was")
    ended, _ = plain.script(
        "echo changed > before; kill -9 -1; sleep 600",
        confinement=Confinement(user="0"),
    )
    assert ended.signal == 9
    assert os.listdir(plain.directory) == ["before"]


def small(folder: Path, image: MachineImage, accelerator: str = "tcg") -> VmIsolation:
    return VmIsolation({image.name: image}, folder, memory_bytes=256 << 20, cpus=1, accelerator=accelerator)


def command(folder: Path, image: MachineImage) -> Command:
    folder.mkdir(exist_ok=True)
    confinement = Confinement(image=image.name, network=False)
    mounts = [Mount(folder, is_writable=True, is_own=True)]
    return Command(["/bin/echo", "hello"], folder, {}, "tag", mounts=mounts, confinement=confinement)


@pytest.mark.parametrize("size", [0, 1 << 20], ids=["nothing", "half of it"])
def test_a_memory_from_which_no_machine_begins_is_made_anew(tmp_path: Path, size: int) -> None:
    image = image_of(shared.machine_image(is_small=True))
    machines = small(tmp_path / "vms", image)
    wanted = command(tmp_path / "workspace", image)
    assert machines.run(wanted, print, Event()).ok
    # Given what a power failure may leave
    [memory] = (tmp_path / "vms").glob("memory-*/memory")
    os.truncate(memory, size)
    # When the next command comes
    printed = bytearray()
    ended = machines.run(wanted, printed.extend, Event())
    # Then it runs, and so does the one after it
    assert (ended.ok, bytes(printed)) == (True, b"hello\n")
    assert memory.stat().st_size > size
    assert machines.run(wanted, print, Event()).ok


def test_machines_run_here_whatever_becomes_of_kvm(tmp_path: Path) -> None:
    """KVM may work, or hang, or not be there: that is found out."""
    image = image_of(shared.machine_image(is_small=True))
    machines = small(tmp_path / "vms", image, accelerator="")
    wanted = command(tmp_path / "workspace", image)
    for _ in range(2):
        printed = bytearray()
        assert machines.run(wanted, printed.extend, Event()).ok
        assert bytes(printed) == b"hello\n"
    # Two commands, and what they began from was made once.
    assert len(list((tmp_path / "vms").glob("memory-*/memory"))) == 1


def test_an_image_that_is_not_what_its_checksum_says_is_refused(tmp_path: Path) -> None:
    image = image_of(shared.machine_image(is_small=True))
    copy = replace(image, folder=tmp_path / "image")
    shutil.copytree(image.folder, copy.folder)
    with (copy.folder / "initramfs").open("r+b") as file:
        file.write(b"changed")
    machines = small(tmp_path / "vms", copy)
    with pytest.raises(Unavailable, match="initramfs is not what its checksum says"):
        machines.run(command(tmp_path / "workspace", copy), print, Event())
    (copy.folder / "SHA256SUMS").write_text("")
    assert "is not what the setting vm_images says" in machines.problem()
    assert list((tmp_path / "vms").glob("m*-*/*")) == []


def test_an_image_of_what_is_no_archive_is_not_made(tmp_path: Path) -> None:
    archive = tmp_path / "root.tar"
    for wrong in (None, "no archive"):
        if wrong:
            archive.write_text(wrong)
        made = subprocess.run(
            [PROGRAM, tmp_path / "images" / "b", archive], capture_output=True, text=True, check=False
        )
        assert made.returncode == 1
        assert re.fullmatch(f"vm-image: {archive} cannot be read: .+\n", made.stderr)
        assert not (tmp_path / "images" / "b").exists()


def test_a_build_that_goes_by_another_image_of_that_name_is_given_back(tmp_path: Path) -> None:
    image = image_of(shared.machine_image(is_small=True))
    machines = small(tmp_path / "vms", image)
    settled = machines.settle(Confinement(image=image.name), Event())
    assert settled.image == f"{image.name}@sha256:{image.checksum}"
    assert machines.settle(settled, Event()) == settled
    with pytest.raises(Unavailable, match="is another one"):
        machines.settle(Confinement(image=f"{image.name}@sha256:{'0' * 64}"), Event())
    with pytest.raises(Invalid, match="no image 'other'"):
        machines.settle(Confinement(image="other"), Event())
    with pytest.raises(Invalid, match="has 256 MiB of memory"):
        machines.settle(Confinement(image=image.name, limits=Limits(memory_bytes=1 << 30)), Event())


def test_two_machines_that_begin_alike_do_not_go_on_alike(runner: Runner) -> None:
    script = "head -c 16 /dev/urandom | od -x; cat /proc/sys/kernel/random/uuid"
    assert runner.script(script)[1] != runner.script(script)[1]


def test_a_machine_has_the_time_of_day(runner: Runner) -> None:
    began_s = time()
    _, printed = runner.script("date +%s")
    assert began_s - 2 <= int(printed) <= time() + 2


def test_with_a_network_it_reaches_what_the_worker_reaches(runner: Runner) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        look = f'import socket; socket.create_connection(("10.0.2.2", {port})).sendall(b"hello")'
        ended, printed = runner.script(python(look))
        assert ended.ok, printed
        connection, _ = server.accept()
        with connection:
            assert connection.recv(5) == b"hello"


def test_a_memory_that_nobody_has_used_for_long_is_removed_at_the_next_start(tmp_path: Path) -> None:
    used, unused = tmp_path / "vms" / "memory-a", tmp_path / "vms" / "memory-b"
    for folder in (used, unused):
        folder.mkdir(parents=True)
        (folder / "memory").touch()
    os.utime(unused, (0, 0))
    small(tmp_path / "vms", image_of(shared.machine_image(is_small=True))).sweep()
    assert (used.exists(), unused.exists()) == (True, False)


def test_what_a_killed_worker_left_half_made_is_removed_at_the_next_start(runner: Runner) -> None:
    # Given a folder of a process that is gone, and one of a process that lives
    half, ours = (shared.machine_folder() / f"making-{name}-x" for name in ("1-2", own_name()))
    for folder in (half, ours):
        folder.mkdir(parents=True)
    runner.isolation.sweep()
    assert (half.exists(), ours.exists()) == (False, True)
    ours.rmdir()
