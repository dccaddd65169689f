"""Directory trees for tests: what is in one, random ones, and being somebody who may not do everything."""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hypothesis import strategies as st

NOBODY = 65534
_PR_SET_DUMPABLE = 4

Node = tuple[object, ...]
"""What is at a path: ``("directory", mode)``, ``("file", mode, content)``, ``("symlink", target)``,
and ``("link", path)``
for one more name of the file at that path."""


def look(directory: Path) -> Mapping[bytes, Node]:
    """What is beneath a directory, by path; of files that are one, all but the first in order are links to that."""
    found: dict[bytes, Node] = {}
    firsts: dict[int, bytes] = {}
    root = os.fsencode(directory)
    paths = [os.path.join(top, name) for top, folders, files in os.walk(root) for name in (*folders, *files)]
    for path in sorted(paths):
        status, name = os.lstat(path), os.path.relpath(path, root)
        mode = stat.S_IMODE(status.st_mode)
        if stat.S_ISDIR(status.st_mode):
            found[name] = ("directory", mode)
        elif stat.S_ISLNK(status.st_mode):
            found[name] = ("symlink", os.readlink(path))
        elif firsts.setdefault(status.st_ino, name) != name:
            found[name] = ("link", firsts[status.st_ino])
        else:
            found[name] = ("file", mode, Path(os.fsdecode(path)).read_bytes())
    return found


def make(directory: Path, nodes: Mapping[bytes, Node]) -> None:
    """Build such a tree in a directory."""
    directory.mkdir(exist_ok=True)
    root = os.fsencode(directory)
    for name, node in sorted(nodes.items()):
        path = os.path.join(root, name)
        match node:
            case ("directory", _):
                os.mkdir(path)
            case ("symlink", bytes(target)):
                os.symlink(target, path)
            case ("link", bytes(first)):
                os.link(os.path.join(root, first), path)
            case ("file", int(mode), bytes(content)):
                Path(os.fsdecode(path)).write_bytes(content)
                os.chmod(path, mode)
    for name, node in sorted(nodes.items(), reverse=True):
        if node[0] == "directory":
            os.chmod(os.path.join(root, name), int(str(node[1])))


_SPECIAL_NAMES = [b"\xff", "ä".encode(), b"a\nb", b" ", b"-rf", b"a-b", b".git", b"%2F", b"\\", b"x" * 255]
_NAMES = st.one_of(
    st.sampled_from([b"a", b"b", b"c", *_SPECIAL_NAMES]),
    st.binary(min_size=1, max_size=4).filter(lambda name: not set(name) & {0, 47} and name not in (b".", b"..")),
)
_CONTENTS = st.one_of(st.sampled_from([b"", b"same", b"same " * 1000]), st.binary(max_size=50))


@st.composite
def trees(draw: st.DrawFn) -> Mapping[bytes, Node]:
    """A random tree that its owner can read."""
    nodes: dict[bytes, Node] = {}
    folders = [b""]
    files: list[bytes] = []
    for _ in range(draw(st.integers(0, 12))):
        path = os.path.join(draw(st.sampled_from(folders)), draw(_NAMES))
        if path in nodes:
            continue
        match draw(st.sampled_from(["file", "file", "directory", "symlink", "link"])):
            case "directory":
                nodes[path] = ("directory", draw(st.sampled_from([0o755, 0o700, 0o555, 0o777])))
                folders.append(path)
            case "symlink":
                nodes[path] = ("symlink", draw(st.sampled_from([b"a", b"..", b"/etc/passwd", b"\xff", b"a/b/../c"])))
            case "link" if files:
                nodes[path] = ("link", draw(st.sampled_from(files)))
            case _:
                nodes[path] = ("file", draw(st.sampled_from([0o644, 0o755, 0o400, 0o666])), draw(_CONTENTS))
                files.append(path)
    return _in_order(nodes)


def _in_order(nodes: Mapping[bytes, Node]) -> Mapping[bytes, Node]:
    """The same tree with the first path of each group of links being the file."""
    groups: dict[bytes, list[bytes]] = {}
    for path, node in nodes.items():
        if node[0] in ("file", "link"):
            groups.setdefault(node[1] if isinstance(node[1], bytes) else path, []).append(path)
    ordered = dict(nodes)
    for original, paths in groups.items():
        first, *others = sorted(paths)
        ordered[first] = nodes[original]
        ordered |= dict.fromkeys(others, ("link", first))
    return ordered


@contextmanager
def nobody() -> Iterator[None]:
    """Be a user without any rights; everybody but root is one already."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    # A process that changed its user may not look into /proc/self until it says that it may be looked at.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
    try:
        yield
    finally:
        os.seteuid(0)
