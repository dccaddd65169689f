"""Virtual machines: what is most telling of them. The whole of what every driver promises is held against them by ``tests/run vm``, which takes long.

All of these begin from one memory, which the first of them has made.
"""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from isolations import Runner, runner_of
from program import Home
from services import shared
from terminals import typing

from distci.isolation.port import Cause, Confinement, Ended, Limits

PAGE = Path(__file__).parents[2] / "docs" / "machines.rst"


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    yield from runner_of("small vm", tmp_path)


def test_a_script_in_a_machine_has_its_workspace_and_nothing_else(runner: Runner) -> None:
    # Given a workspace
    (runner.directory / "same").write_text("same\n")
    (runner.directory / "gone").write_text("gone\n")
    inode = (runner.directory / "same").stat().st_ino
    # When a script changes it in a machine
    script = "cat same; id -u; ls /sys/class/net; echo errors >&2; rm gone; mkdir -p a/b; echo new >a/b/new; ln -s new a/b/link; exit 7"
    wanted = Confinement(network=False, limits=Limits(memory_bytes=64 << 20, processes=20, disk_bytes=1 << 20))
    ended, printed = runner.script(script, confinement=wanted)
    # Then it has seen that, and what it has left is there
    assert ended == Ended(Cause.ENDED, 7, None)
    assert printed == b"same\n65534\nlo\nerrors\n"
    assert sorted(os.listdir(runner.directory)) == ["a", "same"]
    assert (runner.directory / "a/b/link").read_text() == "new\n"
    assert (runner.directory / "same").stat().st_ino == inode, "what it left as it was, was left alone"
    # And nothing of the machine is
    assert runner.left() == []
    assert [path.name for path in shared.machine_folder().glob("making-*")] == []


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """One whose tasks run in small machines."""
    home = Home(tmp_path)
    data = home.folder / "data"
    home.environment |= {
        "DISTCI_ISOLATION": "vm",
        "DISTCI_VM_IMAGES": shared.machine_image(is_small=True),
        "DISTCI_VM_ACCELERATOR": "tcg",
        "DISTCI_DATA": str(data),
    }
    data.mkdir()
    shared.machine_folder().mkdir(exist_ok=True)
    (data / "vms").symlink_to(shared.machine_folder())
    return home


def test_the_job_of_the_documentation_runs_in_machines(home: Home) -> None:
    shown = re.search(r"code-block:: json\n.*\n\n((?:    .*\n|\n)+)", PAGE.read_text())
    assert shown

    ran = home.run("run", home.file(json.loads(textwrap.dedent(shown[1]))), "--data", home.environment["DISTCI_DATA"])

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Linux" in ran.stdout
    assert "made in a machine" in ran.stdout
    assert "busybox is busybox@sha256:" in ran.stdout


def test_a_shell_begins_where_the_script_fails_in_a_machine(home: Home) -> None:
    task = {"name": "fail", "type": "shell", "script": "export INSIDE=yes\nexit 7"}
    job = {"job": "docs/kept", "tasks": [task | {"isolation": {"type": "vm", "image": "busybox"}}]}
    home.run("run", home.file(job), "--data", home.environment["DISTCI_DATA"])

    with typing(home, "reproduce", "docs/kept#1", "fail", "--shell") as typist:
        typist.see("fail> ")
        typist.type("echo in=$INSIDE; tty -s </dev/tty && echo a=terminal\r")
        typist.see("in=yes\r\na=terminal")
        typist.type("exit 0\r")
        code = typist.wait()

    assert code == 7
    assert "]distci;" not in typist.shown


def test_a_silence_in_a_machine_says_that_its_processes_are_not_seen(home: Home) -> None:
    task = {"name": "still", "type": "shell", "script": "echo begun; sleep 3", "diagnose_after": "1s"}
    job = {"job": "docs/still", "tasks": [task | {"isolation": {"image": "busybox"}}]}

    ran = home.run("run", home.file(job), "--data", home.environment["DISTCI_DATA"])

    assert ran.returncode == 0, ran.stdout + ran.stderr
    silence = ran.stdout.partition("begun\n")[2]
    assert "qemu-system" in silence, ran.stdout
    assert "distci: it runs in a virtual machine, whose processes are not seen from here" in silence
