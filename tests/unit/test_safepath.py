"""Paths stay beneath their directory, and a directory can be removed whatever is in it."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.trees import NOBODY, nobody

from distci.errors import InvalidPath
from distci.safepath import Tree, check_path, directory_beneath, remove

GOOD_PATHS = [
    "a",
    "a/b",
    ".a",
    "...",
    "a..b/..c",
    "a b/\n",
    "ä",
    "\udcff",
    "-rf",
    "~",
    "x" * 255,
    "/".join("a" * 256),
    "C:\\x",
]
BAD_PATHS = [
    "",
    "/",
    "/a",
    "//a",
    "a/",
    "a//b",
    ".",
    "./a",
    "a/.",
    "a/./b",
    "..",
    "../a",
    "a/..",
    "a/../b",
    "a/../../b",
    "a\0b",
    "\0",
    "x" * 256,
    "ä" * 128,
    "a/" + "x" * 256,
    "/".join("a" * 257),
    "/".join(["x" * 200] * 21),
    "\ud800",
    "\udc00",
    "\udcc3\udca4",
]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    return outside


@pytest.fixture
def root(tmp_path: Path, outside: Path) -> Path:
    root = tmp_path / "root"
    (root / "in" / "deep").mkdir(parents=True)
    (root / "in" / "file").write_text("content")
    (root / "out").symlink_to(outside)
    (root / "in" / "up").symlink_to("..")
    return root


@pytest.fixture
def theirs() -> Iterator[Path]:
    """A directory of a user who is not root."""
    with tempfile.TemporaryDirectory() as name:
        if os.geteuid() == 0:
            os.chown(name, NOBODY, NOBODY)
        yield Path(name)


@pytest.mark.parametrize("path", GOOD_PATHS)
def test_a_path_beneath_a_directory_is_taken_as_it_is(path: str) -> None:
    assert check_path(path) == path


@pytest.mark.parametrize("path", BAD_PATHS)
def test_a_path_that_may_lead_anywhere_else_is_refused(path: str) -> None:
    with pytest.raises(InvalidPath):
        check_path(path)


@pytest.mark.parametrize("path", ["out", "out/new", "in/up", "in/up/in", "in/file", "in/file/x"])
def test_no_folder_is_entered_through_a_link_or_a_file(root: Path, outside: Path, path: str) -> None:
    with Tree(root) as tree:
        with pytest.raises(InvalidPath, match="not a directory"):
            tree.make_folder(path)
        with pytest.raises(InvalidPath, match="not a directory"):
            tree.open(f"{path}/secret")
    assert os.listdir(outside) == ["secret"]


def test_a_tree_goes_on_after_a_path_that_it_refused(root: Path) -> None:
    with Tree(root) as tree:
        for path in ("in/up/x", "out/secret"):
            with pytest.raises(InvalidPath):
                tree.open(path)
        descriptor = tree.open("in/file")
        assert os.read(descriptor, 100) == b"content"
        os.close(descriptor)


def test_a_file_that_is_a_link_is_not_opened(root: Path, outside: Path) -> None:
    (root / "link").symlink_to(outside / "secret")
    with Tree(root) as tree, pytest.raises(OSError, match="symbolic links"):
        tree.open("link")


def test_the_root_must_be_a_directory_itself(root: Path) -> None:
    for path in (root / "out", root / "in" / "file", root / "nowhere"):
        with pytest.raises(InvalidPath, match="not a directory"):
            Tree(path)


def test_a_tree_closes_all_that_it_opened(root: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with Tree(root) as tree:
        tree.make_folder("a/b/c")
        tree.make_folder("a/d")
        list(tree.walk())
        with pytest.raises(InvalidPath):
            tree.folder("in/up/in")
    assert os.listdir("/proc/self/fd") == before


def test_a_walk_sees_everything_once_and_enters_no_link(root: Path) -> None:
    with Tree(root) as tree:
        paths = [found.path for found in tree.walk()]
    assert paths == ["in", "out", "in/deep", "in/file", "in/up"]


def test_a_walk_can_begin_below_and_end_early(root: Path) -> None:
    with Tree(root) as tree:
        assert [found.path for found in tree.walk(depth=1)] == ["in", "out"]
        assert [found.path for found in tree.walk("in")] == ["in/deep", "in/file", "in/up"]
        assert [found.path for found in tree.walk("nowhere")] == []


def test_what_disappears_during_a_walk_is_left_out(root: Path) -> None:
    with Tree(root) as tree:
        paths = []
        for found in tree.walk():
            paths.append(found.path)
            remove(root / "in")
    assert paths == ["in", "out"]


def test_a_tree_that_nests_too_deep_is_refused_by_name(tmp_path: Path) -> None:
    _nest(tmp_path, 300, "d")
    with Tree(tmp_path) as tree, pytest.raises(InvalidPath, match="deeper than 256"):
        list(tree.walk())
    remove(tmp_path / "d")


@pytest.mark.parametrize(
    ("target", "resolved"),
    [
        ("file", "in/file"),
        ("./deep/../file", "in/file"),
        ("../in/file", "in/file"),
        ("up/in/up/in/file", "in/file"),
        ("nowhere", None),
        ("nowhere/file", None),
    ],
)
def test_a_link_within_the_tree_comes_to_what_it_points_to(root: Path, target: str, resolved: str | None) -> None:
    (root / "in" / "link").symlink_to(target)
    with Tree(root) as tree:
        found = tree.resolve("in/link")
    assert (found and found.path) == resolved


@pytest.mark.parametrize(
    "target",
    ["../..", "../../outside/secret", "up/../outside", "/", "/etc/passwd", "../out/secret", "link", "x/" * 300],
)
def test_a_link_that_leads_outside_or_nowhere_good_is_refused(root: Path, target: str) -> None:
    (root / "in" / "link").symlink_to(target)
    _nest(root / "in", 300, "x")
    with Tree(root) as tree, pytest.raises(InvalidPath):
        tree.resolve("in/link")
    remove(root)


@pytest.mark.parametrize("path", [".", "", "new/er", "new/", "in"])
def test_a_directory_beneath_is_made(root: Path, path: str) -> None:
    made = directory_beneath(root, path)
    assert made.is_dir()
    assert made == root / path


@pytest.mark.parametrize("path", ["..", "/etc", "out", "out/x", "in/up", "in/file", "a/../..", "a\0"])
def test_a_directory_that_would_lie_outside_is_not_made(root: Path, outside: Path, path: str) -> None:
    with pytest.raises(InvalidPath):
        directory_beneath(root, path)
    assert os.listdir(outside) == ["secret"]


def test_removing_a_directory_leaves_alone_what_links_point_to(root: Path, outside: Path) -> None:
    (root / "secret").symlink_to(outside / "secret")
    remove(root)
    assert not root.exists()
    assert (outside / "secret").read_text() == "secret"


def test_removing_takes_a_link_for_a_link_where_the_directory_should_be(tmp_path: Path, outside: Path) -> None:
    directory = tmp_path / "directory"
    directory.symlink_to(outside)
    remove(directory)
    assert not directory.is_symlink()
    assert (outside / "secret").exists()


def test_removing_what_is_not_there_does_nothing(tmp_path: Path) -> None:
    remove(tmp_path / "nothing")


def test_removing_takes_whatever_can_lie_in_a_directory(tmp_path: Path) -> None:
    directory = tmp_path / "directory"
    directory.mkdir()
    os.mkfifo(directory / "pipe")
    for name in (b"\xff", b"-rf", b"*", b"a\nb", b"0", b"1", b"x" * 255):
        os.makedirs(os.path.join(os.fsencode(directory), name, b"0", b"1", name))
    (directory / "0" / "file").write_text("")
    (directory / "dangling").symlink_to("nowhere")
    os.mknod(directory / "socket", stat.S_IFSOCK)
    remove(directory)
    assert os.listdir(tmp_path) == []


def test_removing_knows_no_depth(tmp_path: Path) -> None:
    _nest(tmp_path, 3000, "a long name for a folder")
    remove(tmp_path)
    assert not tmp_path.exists()


def test_removing_needs_no_right_that_the_owner_cannot_take(theirs: Path) -> None:
    directory = theirs / "directory"
    with nobody():
        for name in ("a/b/c", "d/e"):
            (directory / name).mkdir(parents=True)
            (directory / name / "file").write_text("")
        for name, mode in (
            ("a/b/c", 0o500),
            ("a/b", 0o000),
            ("a", 0o100),
            ("d/e/file", 0o000),
            ("d", 0o400),
            (".", 0o000),
        ):
            (directory / name).chmod(mode)
        remove(directory)
    assert os.listdir(theirs) == []


def _nest(directory: Path, depth: int, name: str) -> None:
    """Folders in folders, deeper than a path can tell."""
    folder = os.open(directory, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=folder)
        inner = os.open(name, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
