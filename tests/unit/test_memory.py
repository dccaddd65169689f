"""The folder in memory: nobody else's, and on no disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from distci import memory
from distci.errors import Invalid
from distci.process import Memory


@pytest.fixture
def place(memory: Path) -> Path:
    """A folder in memory."""
    return memory


def test_nobody_else_lists_it_and_it_is_made_when_it_is_wanted(place: Path) -> None:
    root = memory.folder_in(place)
    kept = Memory(root, "worker")
    assert (kept.sweep(), root.exists()) == (0, False)

    folder = kept.folder()
    assert (root.stat().st_mode & 0o777, folder.parent, kept.folder()) == (0o711, root, folder)

    kept.close()
    assert not folder.exists()


@pytest.mark.parametrize(
    "squat",
    [
        lambda root: root.mkdir(mode=0o755),
        lambda root: root.write_text(""),
        lambda root: root.symlink_to("/tmp"),
    ],
    ids=["open to others", "a file", "a link elsewhere"],
)
def test_one_that_somebody_else_may_have_put_there_is_not_used(place: Path, squat: Callable[[Path], object]) -> None:
    root = memory.folder_in(place)
    squat(root)
    try:
        with pytest.raises(Invalid, match="somebody else's, or open to them"):
            Memory(root, "worker").folder()
    finally:
        root.rmdir() if root.is_dir() and not root.is_symlink() else root.unlink()


def test_a_folder_of_another_user_is_not_used(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    root = memory.folder_in(place)
    root.mkdir(mode=0o700)

    with pytest.raises(Invalid, match="somebody else's"):
        memory.make(root)


def test_after_its_user_was_logged_out_there_is_another(place: Path) -> None:
    kept = Memory(memory.folder_in(place), "worker")
    (kept.folder() / "lock").unlink()
    kept.folder().rmdir()

    assert kept.folder().is_dir()
    kept.close()


def test_what_processes_that_died_have_left_is_removed_whatever_they_worked_for(place: Path) -> None:
    root = memory.folder_in(place)
    live = Memory(root, memory.name_for("worker", Path("/one")))
    (live.folder() / "secret").write_text("of a live one")
    dead = root / memory.name_for("worker", Path("/other"))
    dead.mkdir()
    (dead / "secret").write_text("of a dead one")

    assert Memory(root, memory.name_for("worker", Path("/third"))).sweep() == 1
    assert [path.read_text() for path in root.rglob("secret")] == ["of a live one"]
    live.close()


@pytest.mark.parametrize(
    ("place", "says"), [("/proc", "on proc"), ("/none", "there is no folder /none"), ("/etc/passwd", "no folder")]
)
def test_a_place_that_is_not_in_memory_is_told(place: str, says: str) -> None:
    assert says in memory.problem(Path(place))
    with pytest.raises(Invalid, match="secret_folder"):
        memory.make(memory.folder_in(Path(place)))
