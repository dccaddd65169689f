"""Folders that a machine keeps between tasks: whole, of whom they are, and no larger than they may be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from threading import Barrier, Thread

import pytest

from distci.caches import NEW, Caches, Lent
from distci.errors import Invalid, InvalidPath
from distci.safepath import Tree

BYTES_MAX = 1 << 20


def nothing() -> None:
    """A checkpoint that lets all pass."""


class Machine:
    """A machine's caches, and folders of tasks."""

    def __init__(self, folder: Path, bytes_max: int = BYTES_MAX) -> None:
        self.folder = folder / "caches"
        self.caches = Caches(self.folder, bytes_max)
        self._work = folder / "work"
        self._work.mkdir(exist_ok=True)

    def files(self) -> list[Path]:
        return [path for path in self.folder.glob("*/*/*") if path.is_file()]

    def keep(self, key: str, content: str, owner: str = "project team", name: str = "pip") -> None:
        """Keep a folder with one file."""
        root = self._work / f"of-{owner}-{name}-{key}-{len(os.listdir(self._work))}"
        (root / "kept").mkdir(parents=True)
        (root / "kept" / "file").write_text(content)
        with Tree(root) as tree:
            self.caches.keep(owner, name, key, tree, "kept", nothing)

    def lend(self, key: str, owner: str = "project team", name: str = "pip") -> tuple[Lent, str]:
        """What a task begins with."""
        target = self._work / f"for-{len(os.listdir(self._work))}"
        target.mkdir()
        lent = self.caches.lend(owner, name, key, target, nothing)
        file = target / "file"
        return lent, file.read_text() if file.exists() else ""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_files_modes_links_and_empty_folders_come_back(machine: Machine, tmp_path: Path) -> None:
    source, target = tmp_path / "home" / "cache", tmp_path / "target"
    (source / "bin" / "empty").mkdir(parents=True)
    target.mkdir()
    (source / "bin" / "tool").write_bytes(os.urandom(100_000))
    (source / "bin" / "tool").chmod(0o4755)
    (source / "outside").symlink_to("/etc/passwd")
    os.mkfifo(source / "pipe")

    with Tree(tmp_path / "home") as tree:
        machine.caches.keep("project team", "tools", "1", tree, "cache", nothing)
    lent = machine.caches.lend("project team", "tools", "1", target, nothing)

    assert lent is Lent.SAME
    assert (target / "bin" / "tool").read_bytes() == (source / "bin" / "tool").read_bytes()
    assert (target / "bin" / "tool").stat().st_mode & 0o7777 == 0o755
    assert (target / "bin" / "empty").is_dir()
    assert (target / "outside").readlink() == Path("/etc/passwd")
    assert not (target / "pipe").exists()


def test_each_key_has_its_own_and_a_new_one_begins_with_the_latest(machine: Machine) -> None:
    machine.keep("1", "one")
    machine.keep("2", "two")
    os.utime(max(machine.files(), key=lambda path: path.stat().st_mtime_ns), (1, 1))
    assert machine.lend("1") == (Lent.SAME, "one")
    assert machine.lend("2") == (Lent.SAME, "two")
    assert machine.lend("3") == (Lent.OTHER, "two")
    assert machine.lend("1", name="npm") == (Lent.NOTHING, "")


def test_no_project_has_what_another_keeps(machine: Machine) -> None:
    machine.keep("1", "one")
    assert machine.lend("1", owner="project other") == (Lent.NOTHING, "")


@pytest.mark.parametrize("damage", ["flipped", "cut off", "empty"])
def test_o04_what_is_damaged_is_nothing_and_dropped(machine: Machine, damage: str) -> None:
    machine.keep("1", "one" * 1000)
    [file] = machine.files()
    data = bytearray(file.read_bytes())
    data[-9] ^= 1
    file.write_bytes(bytes({"flipped": data, "cut off": data[:-9], "empty": b""}[damage]))
    assert machine.lend("1") == (Lent.NOTHING, "")
    assert machine.files() == []


def test_those_that_were_used_longest_ago_make_room(tmp_path: Path) -> None:
    # Given room for two, of which the older one was used just now
    machine = Machine(tmp_path, bytes_max=3000)
    for age, key in enumerate(("1", "2")):
        machine.keep(key, os.urandom(1000).hex())
        os.utime(max(machine.files(), key=lambda path: path.stat().st_ctime_ns), (age + 1, age + 1))
    machine.lend("1")
    # When a third one comes
    machine.keep("3", os.urandom(1000).hex())
    # Then the other one is gone
    assert [machine.lend(key)[0] for key in ("1", "3", "2")] == [Lent.SAME, Lent.SAME, Lent.OTHER]


def test_one_that_is_too_large_is_not_kept_and_leaves_nothing(tmp_path: Path) -> None:
    machine = Machine(tmp_path, bytes_max=2000)
    machine.keep("1", "one")
    with pytest.raises(Invalid, match="larger than all that may be kept here"):
        machine.keep("1", os.urandom(5000).hex())
    assert machine.lend("1") == (Lent.SAME, "one")
    assert len(machine.files()) == 1


def test_a_folder_that_a_task_has_replaced_by_a_link_is_not_followed(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "cache").symlink_to("/etc")
    with Tree(tmp_path / "home") as tree, pytest.raises(InvalidPath):
        machine.caches.keep("project team", "pip", "1", tree, "cache", nothing)
    assert machine.files() == []


KILLED = """
import os, sys
from pathlib import Path
from distci.caches import Caches
from distci.safepath import Tree
folder, root = map(Path, sys.argv[1:])
calls = 0
def die():
    global calls
    calls += 1
    if calls > 3:
        os.kill(os.getpid(), 9)
with Tree(root) as tree:
    Caches(folder, 1 << 30).keep("project team", "pip", "1", tree, "kept", die)
"""


def test_what_a_killed_process_has_half_written_is_never_served_and_goes_away(machine: Machine, tmp_path: Path) -> None:
    # Given one who was killed while it kept something
    machine.keep("1", "whole")
    (tmp_path / "big" / "kept").mkdir(parents=True)
    (tmp_path / "big" / "kept" / "file").write_bytes(os.urandom(5 << 20))
    killed = subprocess.run([sys.executable, "-c", KILLED, machine.folder, tmp_path / "big"], check=False)
    assert killed.returncode == -9
    assert [path for path in machine.files() if path.name.startswith(NEW)]
    # Then others have what was there before, and what it left goes when the next one is kept
    assert machine.lend("1") == (Lent.SAME, "whole")
    machine.keep("2", "two")
    assert not [path for path in machine.files() if path.name.startswith(NEW)]


def test_two_that_keep_at_once_are_each_whole(machine: Machine, tmp_path: Path) -> None:
    # Given two tasks that leave different things under one key
    both = Barrier(2, timeout=60)

    def keep(letter: str) -> None:
        root = tmp_path / letter
        (root / "kept").mkdir(parents=True)
        for number in range(3):
            (root / "kept" / f"file{number or ''}").write_text(letter * 200_000)
        waited = False

        def meet() -> None:
            nonlocal waited
            if not waited:
                waited = True
                both.wait()

        with Tree(root) as tree:
            machine.caches.keep("project team", "pip", "1", tree, "kept", meet)

    # When both are in the middle of it at the same time
    threads = [Thread(target=keep, args=(letter,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Then there is the one or the other
    target = tmp_path / "target"
    target.mkdir()
    assert machine.caches.lend("project team", "pip", "1", target, nothing) is Lent.SAME
    assert len({path.read_text() for path in target.iterdir()}) == 1
    assert len(machine.files()) == 1
