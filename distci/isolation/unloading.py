"""What comes back from a machine that nobody trusts, unpacked: nothing that its stream says can lead out of the folder, or is believed unseen.

All of it is looked at before anything is changed. Then what is there no more is removed, and the rest is made or made anew, one name at a time and never
through a link (:class:`~distci.safepath.Tree`). Of modes no more than the usual nine bits count, and files belong to whoever unpacks them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from distci.errors import Invalid
from distci.isolation.cargo import END, FILE, FOLDER, HEADER, KEPT, LINK, MODE_BITS, NAME, PIECE_BYTES
from distci.safepath import PATH_BYTES_MAX, Tree, check_path, decode, encode

ENTRIES_MAX = 5_000_000
TIME_NS_MAX = 2**63 - 1
ENDS_EARLY = "what the machine gave back ends too early"


@dataclass(frozen=True, slots=True)
class _Entry:
    kind: bytes
    mode: int
    time_ns: int
    offset: int
    """Of what follows the path."""
    size: int


def unload(stream: BinaryIO, folder: Path) -> None:
    """Make a folder what the next part of a stream says. Invalid for what cannot be, and then nothing has changed."""
    entries = dict(_entries(stream))
    after = stream.tell()
    with Tree(folder) as tree:
        _check(entries, tree, stream)
        _remove(entries, tree)
        for path, entry in entries.items():
            if path:
                _make(path, entry, tree, stream)
        for path, entry in reversed(entries.items()):
            if entry.kind == FOLDER:
                os.fchmod(tree.folder(path), entry.mode)
    stream.seek(after)


def _entries(stream: BinaryIO) -> Iterator[tuple[str, _Entry]]:
    seen: set[str] = set()
    end = os.fstat(stream.fileno()).st_size
    while True:
        kind, mode, time_ns, size, length = HEADER.unpack(_read(stream, HEADER.size))
        if kind == END:
            return
        path = decode(_read(stream, length))
        if path:
            check_path(path)
        if kind not in (FOLDER, FILE, LINK, NAME, KEPT) or path in seen or len(seen) >= ENTRIES_MAX:
            raise Invalid(
                f"the machine's {path!r} cannot be: there are two of it, or too many others, or it is of no kind"
            )
        seen.add(path)
        offset = stream.tell()
        if size > end - offset:
            raise Invalid(ENDS_EARLY)
        yield path, _Entry(kind, mode & MODE_BITS, max(-TIME_NS_MAX, time_ns), offset, size)
        stream.seek(offset + size)


def _check(entries: Mapping[str, _Entry], tree: Tree, stream: BinaryIO) -> None:
    """Raise Invalid for what cannot be made of these, or is not there to be kept."""
    if "" not in entries:
        raise Invalid("the machine gave back no folder where it was given one")
    files: set[str] = set()
    for path, entry in entries.items():
        parent = entries.get(path.rpartition("/")[0])
        if parent is None or parent.kind != FOLDER:
            raise Invalid(f"the machine's {path!r} is in no folder")
        if entry.kind == KEPT and not _is_file(path, tree):
            raise Invalid(f"the machine kept {path!r}, which is no file here")
        if entry.kind in (LINK, NAME):
            target = _target(entry, stream)
            if not target or "\0" in target or (entry.kind == NAME and target not in files):
                raise Invalid(f"the machine's {path!r} points to what no link can")
        elif entry.kind == FILE:
            files.add(path)


def _remove(entries: Mapping[str, _Entry], tree: Tree) -> None:
    """Remove all that is not to stay as it is, but folders, and what was not carried, such as pipes."""
    found = []
    for each in tree.walk():
        is_folder = stat.S_ISDIR(each.stat.st_mode)
        if is_folder or stat.S_ISREG(each.stat.st_mode) or stat.S_ISLNK(each.stat.st_mode) or each.path in entries:
            found.append((each.path, is_folder))
        if is_folder:
            # Whatever its mode was, the walk goes on in there.
            os.chmod(each.name, stat.S_IRWXU, dir_fd=each.folder)
    for path, is_folder in reversed(found):
        entry = entries.get(path)
        if entry and entry.kind == (FOLDER if is_folder else KEPT):
            continue
        folder, name = tree.place(path)
        if is_folder:
            os.rmdir(name, dir_fd=folder)
        else:
            os.unlink(name, dir_fd=folder)


def _make(path: str, entry: _Entry, tree: Tree, stream: BinaryIO) -> None:
    stream.seek(entry.offset)
    if entry.kind == FOLDER:
        tree.make_folder(path, 0o755)
        return
    folder, name = tree.place(path)
    if entry.kind == LINK:
        os.symlink(encode(_target(entry, stream)), name, dir_fd=folder)
    elif entry.kind == NAME:
        _name(path, _target(entry, stream), tree)
    elif entry.kind == FILE:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(name, flags, 0o600, dir_fd=folder), "wb") as file:
            for data in _pieces(stream, entry.size):
                file.write(data)
            file.flush()
            os.fchmod(file.fileno(), entry.mode)
            os.utime(file.fileno(), ns=(entry.time_ns, entry.time_ns))
    else:
        # It was looked at, and is a file.
        os.chmod(name, entry.mode, dir_fd=folder)


def _name(path: str, first: str, tree: Tree) -> None:
    """Another name of a file."""
    folder, name = tree.place(first)
    held = os.dup(folder)
    try:
        into, new = tree.place(path)
        os.link(name, new, src_dir_fd=held, dst_dir_fd=into, follow_symlinks=False)
    finally:
        os.close(held)


def _target(entry: _Entry, stream: BinaryIO) -> str:
    """What a link leads to; empty where that is too long."""
    stream.seek(entry.offset)
    return decode(_read(stream, entry.size)) if entry.size <= PATH_BYTES_MAX else ""


def _is_file(path: str, tree: Tree) -> bool:
    with suppress(OSError):
        folder, name = tree.place(path)
        return stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    return False


def _pieces(stream: BinaryIO, size: int) -> Iterator[bytes]:
    while size:
        data = _read(stream, min(size, PIECE_BYTES))
        yield data
        size -= len(data)


def _read(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise Invalid(ENDS_EARLY)
    return data
