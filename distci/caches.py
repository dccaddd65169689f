"""Folders that a machine keeps between tasks: what a tool has downloaded or built, to begin with the next time.

Each is one file, a compressed tar file behind its own checksum, which appears in one step and never changes. A task begins with a copy and what it leaves is
copied back, so two at once have each their own, whoever is killed leaves nothing that anybody would take, and all of it is the same for
whatever isolates the task. What is damaged is dropped.

A file belongs to a project, a name and a key, and is as old as its last use; those that were used longest ago make room.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import stat
import tarfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

from distci.errors import Invalid
from distci.safepath import Found, Tree, decode, open_file, remove

CHUNK_BYTES = 1 << 20
LEVEL = 1
"""Of compression: a disk is not much faster than this."""
MODE_BITS = 0o777
NEW = "new-"
"""How files begin that are being written, or were when somebody died: then nobody has their lock any more."""
DIGEST_BYTES = hashlib.sha256().digest_size

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Cache:
    """Where a machine keeps things between tasks that can be had anew at any time. All its worker processes share it."""

    folder: Path
    bytes_max: int

    def make_room(self, found: Iterable[tuple[float, int, Path]], remove: Callable[[Path], bool]) -> None:
        """Remove what was used longest ago, until all is no larger than it may be.

        ``found`` is all there is: when it was last used, its size in bytes, where it is. ``remove`` says whether it did.
        """
        by_age = sorted(found)
        total = sum(size for _, size, _ in by_age)
        for _, size, path in by_age:
            if total <= self.bytes_max:
                return
            if remove(path):
                total -= size


class Lent(Enum):
    """What a task begins with."""

    NOTHING = auto()
    OTHER = auto()
    """What the name's latest other key has."""
    SAME = auto()


class Caches:
    """All of a machine, whose worker processes share them. Any thread may use it."""

    def __init__(self, folder: Path, bytes_max: int) -> None:
        self._folder = folder
        self._cache = Cache(folder, bytes_max)

    def lend(self, owner: str, name: str, key: str, target: Path, checkpoint: Callable[[], None]) -> Lent:
        """Fill an empty folder with what was kept under a key, or else under the latest other key of that name."""
        same = self._place(owner, name, key)
        for path in (same, *_latest_first(same.parent)):
            try:
                self._unpack(path, target, checkpoint)
            except FileNotFoundError:
                continue
            except (OSError, ValueError, tarfile.TarError, zstandard.ZstdError) as error:
                log.warning("%s is dropped: %s", path, error)
                path.unlink(missing_ok=True)
                _empty(target)
                continue
            return Lent.SAME if path == same else Lent.OTHER
        return Lent.NOTHING

    def keep(self, owner: str, name: str, key: str, tree: Tree, path: str, checkpoint: Callable[[], None]) -> int:
        """Keep a folder of a tree under a key, in place of what it has; its size in bytes.

        Invalid for one that is too large, or of which something cannot be read. Then see to the size of all.
        """
        place = self._place(owner, name, key)
        try:
            place.parent.mkdir(0o700, parents=True, exist_ok=True)
            with _new_file(place.parent) as (file, new):
                size = self._pack(file, tree, path, checkpoint)
                new.replace(place)
            self.trim()
        except OSError as error:
            raise Invalid(f"{error.filename or path}: {error.strerror}") from error
        return size

    def trim(self) -> None:
        """Remove what was used longest ago until all is no larger than it may be, and what those who were killed have left."""
        found: list[tuple[float, int, Path]] = []
        for path in self._folder.glob("*/*/*"):
            with suppress(OSError):
                if path.name.startswith(NEW):
                    _remove_if_left(path)
                else:
                    status = path.stat()
                    found.append((status.st_mtime, status.st_size, path))
        self._cache.make_room(found, _remove)

    def _place(self, owner: str, name: str, key: str) -> Path:
        return self._folder / _digest(owner) / _digest(name) / _digest(key)

    def _pack(self, file: BinaryIO, tree: Tree, path: str, checkpoint: Callable[[], None]) -> int:
        digest = hashlib.sha256()
        file.write(bytes(DIGEST_BYTES))
        writer = _Attended(file, digest, self._cache.bytes_max, checkpoint)
        with (
            zstandard.ZstdCompressor(LEVEL).stream_writer(cast(BinaryIO, writer), closefd=False) as packed,
            tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT, bufsize=CHUNK_BYTES) as archive,
        ):
            for found in sorted(tree.walk(path), key=lambda found: found.path):
                _add(archive, tree, found, found.path.removeprefix(f"{path}/"))
        file.seek(0)
        file.write(digest.digest())
        file.flush()
        os.fsync(file.fileno())
        return writer.size

    def _unpack(self, path: Path, target: Path, checkpoint: Callable[[], None]) -> None:
        """Raises ValueError for what is not as it was written."""
        with path.open("rb") as file:
            wanted, digest = file.read(DIGEST_BYTES), hashlib.sha256()
            while piece := file.read(CHUNK_BYTES):
                checkpoint()
                digest.update(piece)
            if digest.digest() != wanted:
                raise ValueError("it is damaged")
            file.seek(DIGEST_BYTES)
            with (
                zstandard.ZstdDecompressor().stream_reader(file, closefd=False) as unpacked,
                tarfile.open(fileobj=unpacked, mode="r|", bufsize=CHUNK_BYTES) as archive,
            ):
                # Nobody but us has written it, into a folder that nobody else has yet.
                for member in archive:
                    checkpoint()
                    archive.extract(member, target, set_attrs=not member.issym())
        os.utime(path)


class _Attended:
    """A file that is written to, counted and digested."""

    def __init__(self, file: BinaryIO, digest: hashlib._Hash, bytes_max: int, checkpoint: Callable[[], None]) -> None:
        self.size = 0
        self._file = file
        self._digest = digest
        self._bytes_max = bytes_max
        self._checkpoint = checkpoint

    def write(self, data: bytes) -> int:
        self._checkpoint()
        self.size += len(data)
        if self.size > self._bytes_max:
            raise Invalid(f"it is larger than all that may be kept here ({self._bytes_max} bytes)")
        self._digest.update(data)
        return self._file.write(data)


def _add(archive: tarfile.TarFile, tree: Tree, found: Found, name: str) -> None:
    info = tarfile.TarInfo(name)
    info.mode, info.mtime = stat.S_IMODE(found.stat.st_mode) & MODE_BITS, found.stat.st_mtime
    folder, _, _ = found.path.rpartition("/")
    if stat.S_ISDIR(found.stat.st_mode):
        info.type = tarfile.DIRTYPE
        # Whoever begins with it writes to it.
        info.mode |= 0o700
        archive.addfile(info)
    elif stat.S_ISLNK(found.stat.st_mode):
        info.type = tarfile.SYMTYPE
        info.linkname = decode(os.readlink(found.name, dir_fd=tree.folder(folder)))
        archive.addfile(info)
    elif stat.S_ISREG(found.stat.st_mode):
        with open(open_file(tree.folder(folder), found.name), "rb") as file:
            info.size = os.fstat(file.fileno()).st_size
            archive.addfile(info, file)


def _latest_first(folder: Path) -> Sequence[Path]:
    ages: list[tuple[float, Path]] = []
    for path in folder.glob("*"):
        with suppress(FileNotFoundError):
            if not path.name.startswith(NEW):
                ages.append((path.stat().st_mtime, path))
    return [path for _, path in sorted(ages, reverse=True)]


@contextmanager
def _new_file(folder: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A file that is gone afterwards unless it was given another name, and locked as long as somebody lives who writes it."""
    path = folder / f"{NEW}{uuid.uuid4().hex}"
    try:
        with path.open("xb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield cast(BinaryIO, file), path
    finally:
        path.unlink(missing_ok=True)


def _remove_if_left(path: Path) -> None:
    with path.open("rb") as file, suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)


def _remove(path: Path) -> bool:
    path.unlink(missing_ok=True)
    return True


def _empty(folder: Path) -> None:
    remove(folder)
    folder.mkdir()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]


def key_of(named: str, digests: Sequence[str]) -> str:
    """One key of what a task names and of what its files have."""
    return json.dumps([named, *digests])
