"""Folders and files as one stream of bytes, for a machine that shares no disk with this one: what is packed on one side is unpacked on the other.

A record for each path: a header, the path below what is carried (empty: that itself), and so many bytes as the header says. A folder comes before what is
in it, and an end is a record, too. No tar file: there every program has extensions of its own, of which some have whoever reads them keep gigabytes in
memory, and times are whole seconds, by which ``make`` would build everything again.

The guest loads this module (:mod:`distci.isolation.guest`), so it needs little of the standard library. :mod:`distci.isolation.unloading` is how
the stream of a guest is unpacked by somebody who does not believe it.
"""

import os
import stat
import struct
from collections.abc import Callable, Iterator, Mapping

HEADER = struct.Struct(">cHqQH")
"""Kind, mode, time of the last change in ns, how many bytes follow the path, and how many the path has."""

FOLDER, FILE, LINK, NAME, KEPT, END = b"D", b"F", b"L", b"N", b"K", b"E"
"""``LINK``: symbolic, followed by what it points to. ``NAME``: another one of a file before, followed by the path of that. ``KEPT``: a file that is as
it was when it was unpacked here; nothing follows."""

MODE_BITS = 0o777
PIECE_BYTES = 64 * 1024

Identity = tuple[int, int, int, int]
"""Of a file. Whoever writes to it changes that."""


def pack(root: bytes, kept: Mapping[bytes, Identity]) -> Iterator[bytes]:
    """The records of a folder, or of a file. What is neither file, folder nor link is left out, and so are contents of ``kept``, by path, where they are as they were."""
    names: dict[tuple[int, int], bytes] = {}
    waiting = [b""]
    while waiting:
        path = waiting.pop()
        full = os.path.join(root, path) if path else root
        found = os.lstat(full)
        if stat.S_ISDIR(found.st_mode):
            yield _record(FOLDER, path, found)
            waiting += (os.path.join(path, name) for name in sorted(os.listdir(full), reverse=True))
        elif stat.S_ISLNK(found.st_mode):
            target = os.readlink(full)
            yield _record(LINK, path, found, len(target)) + target
        elif stat.S_ISREG(found.st_mode):
            first = names.setdefault((found.st_dev, found.st_ino), path)
            if first != path:
                yield _record(NAME, path, found, len(first)) + first
            elif found.st_nlink == 1 and kept.get(path) == identity(found):
                yield _record(KEPT, path, found)
            else:
                yield _record(FILE, path, found, found.st_size)
                yield from _contents(full, found.st_size)
    yield HEADER.pack(END, 0, 0, 0, 0)


def unpack(read: Callable[[int], bytes], root: bytes, owner: tuple[int, int]) -> Mapping[bytes, Identity]:
    """Make what the records say, where nothing is yet, and give it to somebody; who the files are, by path. ``read`` gives just so many bytes."""
    identities: dict[bytes, Identity] = {}
    folders: list[tuple[bytes, int]] = []
    while True:
        kind, mode, time_ns, size, length = HEADER.unpack(read(HEADER.size))
        if kind == END:
            break
        path = read(length)
        full = os.path.join(root, path) if path else root
        if kind == FOLDER:
            os.makedirs(full, 0o755, exist_ok=True)
            # Only in the end: it may be one that nobody can write to.
            folders.append((full, mode))
        elif kind == LINK:
            os.symlink(read(size), full)
        elif kind == NAME:
            os.link(os.path.join(root, read(size)), full)
            continue
        else:
            with open(full, "wb") as file:
                while size:
                    data = read(min(size, PIECE_BYTES))
                    file.write(data)
                    size -= len(data)
                os.fchmod(file.fileno(), mode)
        os.chown(full, *owner, follow_symlinks=False)
        if kind == FILE:
            os.utime(full, ns=(time_ns, time_ns))
            identities[path] = identity(os.lstat(full))
    for full, mode in reversed(folders):
        os.chmod(full, mode)
    return identities


def identity(found: os.stat_result) -> Identity:
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _record(kind: bytes, path: bytes, found: os.stat_result, size: int = 0) -> bytes:
    return HEADER.pack(kind, stat.S_IMODE(found.st_mode) & MODE_BITS, found.st_mtime_ns, size, len(path)) + path


def _contents(path: bytes, size: int) -> Iterator[bytes]:
    """Just so many bytes of a file, whatever becomes of it meanwhile."""
    with open(path, "rb", buffering=0, opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW)) as file:
        while size:
            data = file.read(min(size, PIECE_BYTES)) or bytes(min(size, PIECE_BYTES))
            yield data
            size -= len(data)
