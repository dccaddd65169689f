"""Workspaces go out as tar files and come in as such, as they were; GNU tar is at the other end."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.trees import Node, look, make, trees

from distci import tarballs
from distci.errors import Invalid
from distci.snapshots import Snapshot, decode, encode
from distci.store.directory import DirectoryStore
from distci.workspaces import Restored, Workspaces

SOME = settings(max_examples=30, deadline=None)
KEY = "snapshots/one"


class Lab:
    """A store, and a folder to put trees into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = DirectoryStore(folder / "store", durable=False)
        self.workspaces = Workspaces(self.store)

    def saved(self, nodes: Mapping[bytes, Node]) -> Snapshot:
        directory = self.folder / "saved"
        make(directory, nodes)
        self.workspaces.save(directory, Restored(), "one", KEY)
        return self.workspaces.overlaid([KEY])[0]

    def read(self, tar: bytes, before: Snapshot | None = None, task: str = "one") -> Snapshot:
        """What comes of a tar file, once it was written and read as every snapshot is."""
        found = tarballs.read(self.store, io.BytesIO(tar), before or Snapshot(), task, self.folder)
        return decode(encode(found, task), "it")

    def restored(self, snapshot: Snapshot) -> Mapping[bytes, Node]:
        self.store.put(KEY, encode(snapshot, sorted(snapshot.history)[-1]))
        self.workspaces.restore([KEY], self.folder / "restored")
        return look(self.folder / "restored")


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def fresh(folders: Path) -> Lab:
    return Lab(Path(tempfile.mkdtemp(dir=folders)))


@SOME
@given(nodes=trees())
def test_what_was_saved_goes_out(nodes: Mapping[bytes, Node]) -> None:
    with tempfile.TemporaryDirectory() as folders:
        lab = fresh(Path(folders))
        snapshot = lab.saved(nodes)
        tar = b"".join(tarballs.write(lab.store, snapshot))
        assert len(tar) == tarballs.size_bytes(snapshot)
        out = lab.folder / "out"
        out.mkdir()
        subprocess.run(["tar", "-xpf", "-", "-C", out], input=tar, check=True)
        assert look(out) == nodes


@SOME
@given(nodes=trees(), compress=st.sampled_from(["", "-z"]))
def test_what_a_task_left_comes_in(nodes: Mapping[bytes, Node], compress: str) -> None:
    with tempfile.TemporaryDirectory() as folders:
        lab = fresh(Path(folders))
        make(lab.folder / "left", nodes)
        told = ["tar", "-C", str(lab.folder / "left"), "-cf", "-", *filter(None, [compress]), "."]
        tar = subprocess.run(told, check=True, capture_output=True).stdout
        assert lab.restored(lab.read(tar)) == nodes


def test_what_did_not_change_stays_where_it_is(lab: Lab) -> None:
    before = lab.saved(
        {b"kept": ("file", 0o644, b"k" * 3_000_000), b"gone": ("file", 0o644, b"g"), b"new": ("file", 0o644, b"old")}
    )
    folder = lab.folder / "left"
    make(folder, {b"kept": ("file", 0o644, b"k" * 3_000_000), b"new": ("file", 0o644, b"new")})
    tar = subprocess.run(["tar", "-C", folder, "-cf", "-", "."], check=True, capture_output=True).stdout
    after = lab.read(tar, before, "two")
    assert {path: entry.origin for path, entry in after.entries.items()} == {"kept": "one", "new": "two"}
    assert after.deleted == {"gone": "two"}
    assert after.entries["kept"] == before.entries["kept"]._replace(mtime_ns=after.entries["kept"].mtime_ns)  # type: ignore[union-attr, call-arg]


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", data: bytes = b"") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(data)
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


END = bytes(1024)

HOSTILE = {
    "above": member("../x"),
    "absolute": member("/etc/passwd"),
    "above, in the middle": member("a/../../x"),
    "below a file": member("a") + member("a/b"),
    "below a link": member("a", tarfile.SYMTYPE, "/etc") + member("a/passwd"),
    "linked to what is elsewhere": member("a", tarfile.LNKTYPE, "/etc/passwd"),
    "linked to what comes later": member("a", tarfile.LNKTYPE, "b") + member("b"),
    "a link to nothing": member("a", tarfile.SYMTYPE, ""),
    "a name that is too long": member("x" * 256),
    "too deep": member("/".join(["d"] * 300)),
    "more than is there": member("a", data=b"x" * 2000)[:-1000],
    "something else": b"no tar file at all",
    "broken compression": b"\x1f\x8b\x08broken",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_no_workspace_can_hold_is_refused(lab: Lab, what: str) -> None:
    with pytest.raises(Invalid):
        lab.read(HOSTILE[what] + (b"" if what == "more than is there" else END))


def test_pipes_and_devices_are_left_out_and_of_two_files_the_last_counts(lab: Lab) -> None:
    tar = (
        member("p", tarfile.FIFOTYPE) + member("c", tarfile.CHRTYPE) + member("a", data=b"1") + member("./a", data=b"2")
    )
    found = lab.restored(lab.read(tar + END))
    assert {path: node[-1] for path, node in found.items()} == {b"a": b"2"}


def test_folders_that_are_not_told_of_are_made(lab: Lab) -> None:
    assert list(lab.restored(lab.read(member("a/b/c") + END))) == [b"a", b"a/b", b"a/b/c"]
