"""What comes back from a virtual machine: all that was there, and nothing that a machine makes up."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, cast

import pytest

from distci.errors import Invalid
from distci.isolation.cargo import END, FILE, FOLDER, HEADER, KEPT, LINK, NAME, Identity, pack, unpack
from distci.isolation.unloading import unload

ROOT = (FOLDER, b"", b"")
US = (os.getuid(), os.getgid())

Said = tuple[bytes, bytes, bytes]
"""Kind, path, and what follows."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a workspace, beside something that is none of a machine's business."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    folder = tmp_path / "workspace"
    folder.mkdir()
    (folder / "before").write_text("before")
    return folder


def packed(root: Path, kept: Mapping[bytes, Identity] | None = None) -> bytes:
    return b"".join(pack(os.fsencode(root), kept or {}))


def carry(root: Path, into: Path) -> Mapping[bytes, Identity]:
    """What is in one folder, in a machine's."""
    return unpack(BytesIO(packed(root)).read, os.fsencode(into), US)


def bring_back(data: bytes, folder: Path) -> None:
    with TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        unload(cast(BinaryIO, file), folder)


def said(entries: Iterable[Said], *, is_whole: bool = True) -> bytes:
    """What a machine says that makes it up."""
    records = [HEADER.pack(kind, 0o6755, 0, len(data), len(path)) + path + data for kind, path, data in entries]
    return b"".join(records) + (HEADER.pack(END, 0, 0, 0, 0) if is_whole else b"")


def look(folder: Path) -> Mapping[str, tuple[int, object]]:
    """Modes and contents of all there is."""
    found: dict[str, tuple[int, object]] = {}
    for path in sorted(folder.rglob("*")):
        is_link, mode = path.is_symlink(), path.lstat().st_mode
        content = os.readlink(path) if is_link else path.read_bytes() if stat.S_ISREG(mode) else None
        found[str(path.relative_to(folder))] = mode, content
    return found


def test_what_was_made_in_a_machine_is_what_there_is(tmp_path: Path, folder: Path) -> None:
    # Given a machine that was given a workspace
    (folder / "changed").write_text("old")
    (folder / "empty" / "inner").mkdir(parents=True)
    (folder / "becomes a file").mkdir()
    (folder / "becomes a file" / "x").touch()
    (folder / "becomes a folder").touch()
    (folder / os.fsdecode(b"\xff\xfe")).write_bytes(b"\xff")
    inside = tmp_path / "machine" / "workspace"
    kept = carry(folder, inside)
    assert look(inside) == look(folder)
    # When much of it has changed there
    (inside / "changed").write_text("new")
    (inside / "empty" / "inner").rmdir()
    (inside / "becomes a file" / "x").unlink()
    (inside / "becomes a file").rmdir()
    (inside / "becomes a file").write_text("now")
    (inside / "becomes a folder").unlink()
    (inside / "becomes a folder").mkdir(0o500)
    (inside / "program").write_text("#!/bin/sh\n")
    (inside / "program").chmod(0o755)
    (inside / "another name").hardlink_to(inside / "program")
    (inside / "link").symlink_to("/nowhere/else")
    os.mkfifo(inside / "pipe")
    expected = {name: found for name, found in look(inside).items() if name != "pipe"}
    inode = (folder / "before").stat().st_ino
    bring_back(packed(inside, kept), folder)
    # Then it is so here
    assert look(folder) == expected
    assert (folder / "another name").stat().st_ino == (folder / "program").stat().st_ino
    assert (folder / "program").stat().st_mtime_ns == (inside / "program").stat().st_mtime_ns
    assert (folder / "before").stat().st_ino == inode, "what did not change did not move"


def test_what_did_not_change_is_not_sent_again(tmp_path: Path, folder: Path) -> None:
    (folder / "large").write_bytes(os.urandom(1 << 20))
    inside = tmp_path / "machine"
    kept = carry(folder, inside)
    assert len(packed(inside, kept)) < 1000
    (inside / "large").write_bytes(os.urandom(1 << 20))
    assert len(packed(inside, kept)) > 1 << 20


def test_folders_that_nobody_may_write_to_can_be_changed(tmp_path: Path, folder: Path) -> None:
    (folder / "shut").mkdir()
    (folder / "shut" / "file").touch()
    (folder / "shut").chmod(0o500)
    inside = tmp_path / "machine"
    inside.mkdir()
    (inside / "shut").mkdir(0o500)
    bring_back(packed(inside), folder)
    assert [path.name for path in folder.rglob("*")] == ["shut"]
    assert stat.S_IMODE((folder / "shut").stat().st_mode) == 0o500


def test_a_pipe_that_was_not_carried_stays(tmp_path: Path, folder: Path) -> None:
    os.mkfifo(folder / "typed")
    inside = tmp_path / "machine"
    kept = carry(folder, inside)
    bring_back(packed(inside, kept), folder)
    assert sorted(os.listdir(folder)) == ["before", "typed"]


@pytest.mark.parametrize(
    "entries",
    [
        [(FILE, b"../outside/new", b"x")],
        [(FILE, b"/etc/new", b"x")],
        [(FILE, b"a/../../outside/new", b"x")],
        [(LINK, b"way", b"../outside"), (FILE, b"way/new", b"x")],
        [(LINK, b"way", b"../outside"), (FOLDER, b"way/new", b"")],
        [(FILE, b"file", b"x"), (FILE, b"file/new", b"x")],
        [(FILE, b"twice", b"x"), (LINK, b"twice", b"../outside/secret")],
        [(NAME, b"mine", b"../outside/secret")],
        [(LINK, b"way", b"../outside/secret"), (NAME, b"mine", b"way")],
        [(NAME, b"mine", b"later"), (FILE, b"later", b"")],
        [(KEPT, b"nowhere", b"")],
        [(KEPT, b"link", b"")],
        [(LINK, b"nothing", b"")],
        [(LINK, b"nul", b"a\0b")],
        [(LINK, b"long", b"x" * 5000)],
        [(FILE, b"nul\0", b"")],
        [(FILE, b"n" * 256, b"")],
        [(FOLDER, b"/".join([b"d"] * 300), b"")],
        [(FILE, b"in/no/folder", b"")],
        [(b"B", b"device", b"")],
        [(b"\0", b"nothing", b"")],
    ],
    ids=lambda entries: " ".join(f"{kind.decode()}-{path[:12].decode()}" for kind, path, _ in entries),
)
def test_what_cannot_be_is_refused_and_changes_nothing(folder: Path, entries: list[Said]) -> None:
    (folder / "link").symlink_to("before")
    before = look(folder.parent)
    with pytest.raises(Invalid):
        bring_back(said([ROOT, (FILE, b"before", b"after"), *entries]), folder)
    assert look(folder.parent) == before


@pytest.mark.parametrize(
    "data",
    [
        b"",
        said([]),
        said([ROOT], is_whole=False),
        said([(FILE, b"", b"the folder itself")]),
        said([ROOT, (FILE, b"file", b"12345")], is_whole=False)[:-1],
        HEADER.pack(FOLDER, 0, 0, 0, 0) + HEADER.pack(FILE, 0, 0, 2**64 - 1, 1) + b"x",
        bytes(range(256)) * 4,
    ],
    ids=["nothing", "no folder", "no end", "a file", "half a file", "an endless file", "noise"],
)
def test_what_has_no_end_or_no_beginning_is_refused(folder: Path, data: bytes) -> None:
    before = look(folder.parent)
    with pytest.raises(Invalid):
        bring_back(data, folder)
    assert look(folder.parent) == before


def test_modes_give_nobody_more_rights_than_files_may(folder: Path) -> None:
    bring_back(said([ROOT, (FILE, b"program", b"x"), (FOLDER, b"d", b"")]), folder)
    assert {oct(mode) for mode in (stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir())} == {"0o755"}
