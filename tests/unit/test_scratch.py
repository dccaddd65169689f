"""Where a worker process keeps what its attempts work with, told apart from what dead ones left."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path
from threading import Event, Thread

import pytest

from distci import work
from distci.errors import AlreadyExists
from distci.process import Scratch
from distci.safepath import remove


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "scratch"


def test_what_dead_processes_left_is_removed(root: Path) -> None:
    # Given folders of processes that died before they had locked theirs, at work, and while removing it
    for name in ("unlocked", "killed", "worker"):
        (root / name / "attempt").mkdir(parents=True)
    (root / "killed" / "lock").touch()

    # When a process begins
    scratch = Scratch(root, "worker")

    # Then its own is all there is, and empty
    assert scratch.open() == 3
    assert [path.name for path in root.iterdir() if path.is_dir()] == ["worker"]
    assert os.listdir(scratch.folder) == ["lock"]


def test_a_live_process_keeps_its_folder(root: Path) -> None:
    first = Scratch(root, "worker")
    first.open()

    with pytest.raises(AlreadyExists, match="'worker' runs on this machine already"):
        Scratch(root, "worker").open()

    assert Scratch(root, "other").open() == 0
    assert first.folder.exists()


def test_nothing_is_left_after_the_end(root: Path) -> None:
    scratch = Scratch(root, "worker")
    scratch.open()
    scratch.close()

    assert not scratch.folder.exists()


def test_what_attempts_remove_is_not_in_the_way_of_others_where_the_file_system_can_keep_them_apart(root: Path) -> None:
    scratch = Scratch(root, "worker")
    scratch.open()
    told = root.parent / "told"
    told.mkdir()
    subprocess.run(["chattr", "+T", told], stderr=subprocess.DEVNULL, check=False)

    assert _flags(scratch.folder) == _flags(told)


def test_any_name_that_a_worker_may_have_will_do(root: Path) -> None:
    Scratch(root, "lock").open()
    Scratch(root, "other").open()


def test_a_process_that_ends_does_not_take_the_folder_of_the_next_of_its_name(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a process that is about to remove its folder
    first, second = Scratch(root, "worker"), Scratch(root, "worker")
    first.open()
    is_removing, has_tried = Event(), Event()

    def remove_slowly(directory: Path) -> None:
        if not is_removing.is_set():
            is_removing.set()
            has_tried.wait(1)
        remove(directory)

    monkeypatch.setattr(work, "remove", remove_slowly)
    ending = Thread(target=first.close)
    ending.start()
    is_removing.wait()

    # When another one of its name begins meanwhile
    def begin() -> None:
        second.open()
        has_tried.set()

    beginning = Thread(target=begin)
    beginning.start()
    ending.join()
    beginning.join()

    # Then that has its folder
    assert os.listdir(second.folder) == ["lock"]


def test_what_cannot_be_removed_keeps_no_process_from_beginning_and_ending(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "dead" / "attempt").mkdir(parents=True)

    def refuse(directory: Path) -> None:
        raise PermissionError(errno.EPERM, "refused on purpose", str(directory))

    monkeypatch.setattr(work, "remove", refuse)
    scratch = Scratch(root, "worker")

    assert scratch.open() == 0
    scratch.close()


def _flags(folder: Path) -> str:
    """What lsattr says of a folder; empty where the file system has no such thing."""
    return subprocess.run(["lsattr", "-d", folder], capture_output=True, text=True, check=False).stdout.partition(" ")[
        0
    ]
