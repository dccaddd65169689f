"""The store as a directory: for one machine, or several that share a file system which keeps POSIX's word.

Every object is one file and every segment of a key one folder, so that listing a prefix reads only the folders that
can hold it. A key may be an object and the beginning of others at once, and a segment may be longer than a file name
can be; the last character of a name says which of these it is::

    =    an object: the last piece of its key
    +    a folder: the piece is followed by a '/'
    -    a folder: the first 254 characters of a segment whose rest is inside

    jobs/team:hello            jobs+/team:hello=
    jobs/team:hello/extra      jobs+/team:hello+/extra=

Other names are none of ours and never listed. Files are written in the folder ``.incoming`` and moved to their place
when they are whole and durable; what killed writers leave there is removed a day later. The same folder tells a store
from a mount point that nothing is mounted on: without it nothing is missing, everything is
:class:`~distci.errors.StoreUnavailable`.

Files can be read by their owner alone, so processes that share a store run as one user. The file system must have
hard links and tell upper from lower case.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from distci.errors import NoSuchObject, StoreUnavailable
from distci.store.keys import check_key, check_prefix, check_range
from distci.store.port import ObjectInfo

_PIECE_LENGTH = 254
"""File names carry 255 bytes; one of them is the mark at the end."""

_MARKS = {"=": "", "+": "/", "-": ""}
"""What the mark at the end of a file name stands for in the key."""

_NAME = re.compile(rf"[ -~]{{0,{_PIECE_LENGTH - 1}}}[=+]|[ -~]{{{_PIECE_LENGTH}}}-")

_CHUNK_BYTES = 1024 * 1024
_ABANDONED_AFTER_S = 24 * 60 * 60

_MOVES_MAX = 10
"""How often a writer makes its folder again when others delete the last object in it meanwhile."""

_Answer = TypeVar("_Answer")


class DirectoryStore:
    """A :class:`~distci.store.port.Store` in a directory, which is made where there is none.

    Without ``durable``, a crash of the machine (not of the process) may undo or damage what was written last. It saves
    about a millisecond a write in stores that are thrown away. ``clock`` gives seconds since 1970.
    """

    def __init__(self, directory: Path, *, durable: bool = True, clock: Callable[[], float] = time.time) -> None:
        self._root = directory
        self._incoming = directory / ".incoming"
        self._durable = durable
        with mapped_errors(self._incoming):
            self._incoming.mkdir(parents=True, exist_ok=True)
            self._sweep(clock() - _ABANDONED_AFTER_S)

    def bare(self) -> tuple[Callable[[str, bytes], object], Callable[[str], bytes]]:
        """To write a file and sync it, and to read it: what ours is measured against."""

        def write(key: str, data: bytes) -> None:
            file = self._file_of(key)
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as opened:
                opened.write(data)
                opened.flush()
                self._sync(opened.fileno())

        return write, lambda key: self._file_of(key).read_bytes()

    def put(self, key: str, data: bytes | BinaryIO) -> None:
        target = self._file_of(key)
        with self._written(data) as temporary:
            self._place(target, lambda: os.replace(temporary, target))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        target = self._file_of(key)
        with self._written(data) as temporary:
            return self._place(target, lambda: _link(temporary, target))

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        file = self._opened(key, start, length)
        # Closed here, and not when it is no longer needed: what interrupts that (Ctrl-C) goes unheard.
        with io.BufferedReader(file) as reader:
            left = file.size_bytes - file.tell()
            # No more than there is, since a read sets as much memory aside as it is asked for.
            return reader.read(left if length is None else min(left, length))

    def open(self, key: str, start: int = 0) -> BinaryIO:
        return io.BufferedReader(self._opened(key, start, None), _CHUNK_BYTES)

    def head(self, key: str) -> ObjectInfo | None:
        path = self._file_of(key)
        with mapped_errors(path):
            try:
                return _info(key, path.stat())
            except FileNotFoundError:
                self._require_store()
                return None

    def list(self, prefix: str, after: str = "", limit: int = 1000) -> Sequence[ObjectInfo]:
        check_prefix(prefix)
        check_prefix(after)
        begin = prefix[: prefix.rfind("/") + 1]
        folder = self._root.joinpath(*_names(begin)[:-1])
        with mapped_errors(folder):
            page = tuple(islice(_walk(folder, begin, prefix, after), limit))
            if len(page) < limit:
                self._require_store()
            return page

    def delete(self, key: str) -> None:
        path = self._file_of(key)
        with mapped_errors(path):
            try:
                path.unlink()
            except FileNotFoundError:
                self._require_store()
                return
            self._sync_folder(path.parent)
            self._remove_empty_folders(path.parent)

    def _file_of(self, key: str) -> Path:
        return self._root.joinpath(*_names(check_key(key)))

    @contextmanager
    def _written(self, data: bytes | BinaryIO) -> Iterator[Path]:
        """A durable file with that content, removed afterwards unless it was moved away."""
        with mapped_errors(self._incoming):
            descriptor, name = tempfile.mkstemp(dir=self._incoming)
        temporary = Path(name)
        try:
            with _StoreFile(temporary, descriptor, "wb") as file:
                # The errors of the source are its own and pass as they are.
                for chunk in _chunks(data):
                    _write_all(file, chunk)
                with mapped_errors(temporary):
                    self._sync(descriptor)
            yield temporary
        finally:
            # What cannot be removed now is left to the sweep.
            with suppress(OSError):
                temporary.unlink()

    def _place(self, target: Path, move: Callable[[], _Answer]) -> _Answer:
        """Move a file to its place, durably, and give back what the move did."""
        with mapped_errors(target):
            for _ in range(_MOVES_MAX):
                self._make_folder(target.parent)
                try:
                    answer = move()
                except FileNotFoundError:
                    continue
                self._sync_folder(target.parent)
                return answer
        raise StoreUnavailable(f"store: its folder, or the file to be moved there, keeps disappearing: {target}")

    def _make_folder(self, folder: Path) -> None:
        if folder == self._root:
            self._require_store()
        elif not folder.is_dir():
            self._make_folder(folder.parent)
            # Another writer may make it first, and a deleter remove its parent: the move that follows will tell.
            with suppress(FileExistsError, FileNotFoundError):
                folder.mkdir()
                self._sync_folder(folder.parent)

    def _remove_empty_folders(self, folder: Path) -> None:
        """Remove folders from here upwards until one is in use. A writer that wants one makes it again."""
        with suppress(OSError):
            while folder != self._root:
                folder.rmdir()
                folder = folder.parent

    def _opened(self, key: str, start: int, length: int | None) -> _StoreFile:
        """The object's file, at ``start`` or at its end."""
        path = self._file_of(key)
        check_range(start, length)
        with mapped_errors(path):
            try:
                file = _StoreFile(path, path, "rb")
            except FileNotFoundError as error:
                self._require_store()
                raise NoSuchObject(f"the store has no object {key!r}") from error
            file.seek(min(start, file.size_bytes))
            return file

    def _require_store(self) -> None:
        """What is not there is missing only as long as the directory is the store that it was."""
        if not self._incoming.is_dir():
            raise StoreUnavailable(f"store: {self._root} holds none any more: there is no folder {self._incoming}")

    def _sweep(self, before_s: float) -> None:
        with os.scandir(self._incoming) as entries:
            for entry in entries:
                with suppress(OSError):
                    if entry.stat().st_mtime < before_s:
                        os.unlink(entry.path)

    def _sync_folder(self, folder: Path) -> None:
        # A folder that has been removed meanwhile holds nothing that could be lost.
        with suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                self._sync(descriptor)
            finally:
                os.close(descriptor)

    def _sync(self, descriptor: int) -> None:
        if self._durable:
            os.fsync(descriptor)


class _StoreFile(io.FileIO):
    """A file whose errors are those of the store. Opening it raises OSError."""

    def __init__(self, path: Path, file: Path | int, mode: str) -> None:
        self._path = path
        super().__init__(file, mode)
        self.size_bytes = os.fstat(self.fileno()).st_size

    def readinto(self, buffer: Any, /) -> int:
        with mapped_errors(self._path):
            return super().readinto(buffer)

    def readall(self) -> bytes:
        with mapped_errors(self._path):
            return super().readall()

    def write(self, data: Any, /) -> int:
        with mapped_errors(self._path):
            return super().write(data)

    def close(self) -> None:
        with mapped_errors(self._path):
            super().close()


@contextmanager
def mapped_errors(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into :class:`~distci.errors.StoreUnavailable` that names the path."""
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(f"store: {error.strerror or error}: {path}") from error


def _names(key: str) -> Sequence[str]:
    """The file names that lead to a key, from the root on."""
    *folders, last = key.split("/")
    names: list[str] = []
    for segment, mark in (*((folder, "+") for folder in folders), (last, "=")):
        cut = len(segment) - len(segment) % _PIECE_LENGTH
        names += [segment[i : i + _PIECE_LENGTH] + "-" for i in range(0, cut, _PIECE_LENGTH)]
        names.append(segment[cut:] + mark)
    return names


def _walk(folder: Path, begin: str, prefix: str, after: str) -> Iterator[ObjectInfo]:
    """The objects of a page that are below a folder, in key order; their keys all start with ``begin``."""
    for piece, entry in _pieces(folder):
        key = begin + piece
        if not entry.name.endswith("="):
            if _may_hold(key, prefix, after):
                yield from _walk(Path(entry.path), key, prefix, after)
        elif key.startswith(prefix) and key > after:
            with suppress(FileNotFoundError):
                yield _info(key, entry.stat())


def _pieces(folder: Path) -> Sequence[tuple[str, os.DirEntry[str]]]:
    """What a folder holds, by the pieces that it adds to a key.

    A folder's piece ends in '/' (or is a whole 254 characters, as no object's is), hence pieces sort as keys do.
    """
    try:
        with os.scandir(folder) as entries:
            ours = [entry for entry in entries if _NAME.fullmatch(entry.name)]
    except FileNotFoundError:
        return ()
    return sorted(((entry.name[:-1] + _MARKS[entry.name[-1]], entry) for entry in ours), key=itemgetter(0))


def _may_hold(begin: str, prefix: str, after: str) -> bool:
    """Whether keys that start with ``begin`` can be on the page."""
    is_of_prefix = begin.startswith(prefix) or prefix.startswith(begin)
    return is_of_prefix and (begin > after or after.startswith(begin))


def _info(key: str, found: os.stat_result) -> ObjectInfo:
    return ObjectInfo(key, found.st_size, found.st_mtime)


def _chunks(data: bytes | BinaryIO) -> Iterable[bytes]:
    return (data,) if isinstance(data, bytes) else iter(lambda: data.read(_CHUNK_BYTES), b"")


def _write_all(file: io.FileIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _link(temporary: Path, target: Path) -> bool:
    # A link is made or refused at once; a rename would replace what another writer has just put there.
    try:
        os.link(temporary, target)
    except FileExistsError:
        return False
    return True
