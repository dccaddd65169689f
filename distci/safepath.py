"""Paths that stay beneath a directory, whatever others have put there.

Names come from manifests, jobs and scripts, and the trees that they point into are filled by scripts. So a path is
checked before it is used (:func:`check_path`), and what it names is opened one name at a time without ever following a
symbolic link (:class:`Tree`).

Paths are relative, with ``/`` between names. They are text in which bytes that are no UTF-8 stand as lone surrogates,
as Python itself reads file names; they are the same on every machine, whatever its locale.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from operator import itemgetter
from pathlib import Path
from typing import Self

from distci.errors import InvalidPath

PATH_BYTES_MAX = 4095
"""Longer paths cannot be handed to Linux in one piece (PATH_MAX), so that scripts could not use them either."""

NAME_BYTES_MAX = 255

DEPTH_MAX = 256
"""Folders within folders. A :class:`Tree` holds one file descriptor for each."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Opening a pipe or a device for reading must neither wait nor make it our terminal.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_LINKS_MAX = 40
"""As many as Linux itself follows."""

_PASSES_MAX = 10
"""How often a directory is emptied that others still write to."""


def check_path(path: str) -> str:
    """The path itself when it names something beneath a directory; :class:`~distci.errors.InvalidPath` otherwise."""
    names = path.split("/")
    if not {"", ".", ".."}.isdisjoint(names):
        raise InvalidPath(f"path {path!r} is not relative, or has an empty, '.' or '..' name in it")
    if "\0" in path:
        raise InvalidPath(f"path {path!r} has a NUL in it")
    encoded = encode(path)
    if len(encoded) > PATH_BYTES_MAX:
        raise InvalidPath(f"path {path[:100]!r}... is longer than {PATH_BYTES_MAX} bytes")
    if len(encoded) > NAME_BYTES_MAX and any(len(name) > NAME_BYTES_MAX for name in encoded.split(b"/")):
        raise InvalidPath(f"path {path[:100]!r}... has a name longer than {NAME_BYTES_MAX} bytes")
    if len(names) > DEPTH_MAX:
        raise InvalidPath(f"path {path[:100]!r}... nests deeper than {DEPTH_MAX} folders")
    return path


def encode(path: str) -> bytes:
    """The bytes that a path has on disk; :class:`~distci.errors.InvalidPath` when it is no reading of any bytes.

    Of the two ways to write ``ä``, as itself and as two lone surrogates, only the first is one: two paths that differ
    are two files.
    """
    if path.isascii():
        return path.encode()
    try:
        encoded = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise InvalidPath(f"path {path!r} holds what no file name can") from error
    if decode(encoded) != path:
        raise InvalidPath(f"path {path!r} spells UTF-8 as single bytes")
    return encoded


def decode(name: bytes) -> str:
    """The path that has these bytes on disk."""
    return name.decode("utf-8", "surrogateescape")


def directory_beneath(root: Path, path: str) -> Path:
    """A directory beneath ``root``, made where it is not there; ``.`` is the root itself.

    Raises :class:`~distci.errors.InvalidPath` when it would lie outside, leads through a symbolic link or is a file.
    """
    if path not in ("", "."):
        with Tree(root) as tree:
            tree.make_folder(check_path(path.removesuffix("/")))
    return root / os.fsdecode(encode(path))


@dataclass(frozen=True, slots=True)
class Found:
    """Something that lies in a tree."""

    path: str
    name: bytes
    folder: int
    """The open folder that it is in, for as long as the walk stands here."""
    stat: os.stat_result
    """Of itself, not of what a symbolic link points to."""


class Tree:
    """What is beneath a directory, opened one name at a time and never through a symbolic link.

    A path that leads through a link or a file raises :class:`~distci.errors.InvalidPath`, and so does a root that is
    one; all else that fails is an OSError. Folders on the way to the last path stay open, which makes paths cheap in
    sorted order. One thread uses it at a time.
    """

    def __init__(self, root: Path) -> None:
        try:
            self._folders = [os.open(root, _FOLDER)]
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InvalidPath(f"{root} is not a directory") from error
        self._names: list[str] = []
        self._path: str | None = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close_beneath(0)
        os.close(self._folders.pop())

    def folder(self, path: str) -> int:
        """The descriptor of a folder, open until the next call; the empty path is the root."""
        return self._descend(path, None)

    def make_folder(self, path: str, mode: int = 0o777) -> int:
        """The same, with every folder made that is not there yet; what the umask forbids is taken from the mode."""
        return self._descend(path, mode)

    def place(self, path: str) -> tuple[int, bytes]:
        """The open folder that a path is in, and its name there."""
        folder, _, name = path.rpartition("/")
        return self.folder(folder), encode(name)

    def open(self, path: str) -> int:
        """The descriptor of a file opened for reading. What else it may be is for the caller to look at."""
        folder, name = self.place(path)
        return open_file(folder, name)

    def walk(self, start: str = "", depth: int | None = None) -> Iterator[Found]:
        """All there is in a folder, or no more than ``depth`` levels of it, a folder before what is in it.

        The tree must not be used for anything else meanwhile. What is not there, or disappears during the walk, is left
        out. Raises InvalidPath for what nests too deep or has too long a path.
        """
        # Beyond what a path may have, so that what nests too deep is refused and not left out.
        pending = [(start, depth or DEPTH_MAX + 1)]
        while pending:
            path, levels = pending.pop()
            try:
                entries = _entries(self.folder(path))
            except FileNotFoundError:
                continue
            folders = []
            for name, found in entries:
                inner = check_path(f"{path}/{decode(name)}" if path else decode(name))
                if stat.S_ISDIR(found.st_mode) and levels > 1:
                    folders.append((inner, levels - 1))
                yield Found(inner, name, self._folders[-1], found)
            pending += reversed(folders)

    def resolve(self, path: str) -> Found | None:
        """What a path comes to when symbolic links are followed; None when they point to nothing.

        Raises InvalidPath when they lead out of the tree, as all do that are absolute: the tree may lie anywhere.
        """
        done: list[str] = []
        pending = path.split("/")[::-1]
        links_left = _LINKS_MAX
        while pending:
            name = pending.pop()
            if name == ".." and not done:
                raise InvalidPath(f"path {path!r} leads outside through a symbolic link")
            if name == "..":
                done.pop()
            elif name not in ("", "."):
                found = self._found(check_path("/".join([*done, name])))
                if found is None:
                    return None
                if stat.S_ISLNK(found.stat.st_mode):
                    links_left -= 1
                    pending += reversed(_target(found, path, links_left).split("/"))
                else:
                    done.append(name)
        return self._found("/".join(done))

    def _found(self, path: str) -> Found | None:
        try:
            folder, name = self.place(path)
            return Found(path, name, folder, os.stat(name, dir_fd=folder, follow_symlinks=False))
        except FileNotFoundError:
            return None

    def _descend(self, path: str, make_mode: int | None) -> int:
        if path == self._path:
            return self._folders[-1]
        names = path.split("/") if path else []
        self._close_beneath(_shared(names, self._names))
        self._path = None
        for name in names[len(self._names) :]:
            self._folders.append(self._enter(name, path, make_mode))
            self._names.append(name)
        self._path = path
        return self._folders[-1]

    def _enter(self, name: str, path: str, make_mode: int | None) -> int:
        encoded = encode(name)
        if make_mode is not None:
            with suppress(FileExistsError):
                os.mkdir(encoded, make_mode, dir_fd=self._folders[-1])
        try:
            return os.open(encoded, _FOLDER, dir_fd=self._folders[-1])
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise InvalidPath(f"path {path!r} leads through {name!r}, which is not a directory") from error
            error.filename = path
            raise

    def _close_beneath(self, depth: int) -> None:
        self._path = None
        while len(self._names) > depth:
            self._names.pop()
            os.close(self._folders.pop())


def open_file(folder: int, name: bytes) -> int:
    """The descriptor of what a folder holds under that name, opened for reading and without following a link."""
    return os.open(name, _FILE, dir_fd=folder)


def remove(directory: Path) -> None:
    """Remove a directory and all beneath it, whatever a script has made of it; nothing happens where there is none.

    Links are removed, never followed. OSError when something cannot be removed, such as files of another user.
    """
    try:
        is_folder = stat.S_ISDIR(directory.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_folder:
        directory.unlink()
        return
    for _ in range(_PASSES_MAX):
        _empty(directory)
        try:
            directory.rmdir()
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
        else:
            return
    raise OSError(errno.ENOTEMPTY, "others keep writing to the directory that is to be removed", str(directory))


def _target(link: Found, path: str, links_left: int) -> str:
    target = decode(os.readlink(link.name, dir_fd=link.folder))
    if target.startswith("/"):
        raise InvalidPath(f"path {path!r} leads outside through the symbolic link {link.path!r} to {target!r}")
    if not links_left:
        raise InvalidPath(f"path {path!r} leads through more than {_LINKS_MAX} symbolic links")
    return target


def _entries(folder: int) -> Sequence[tuple[bytes, os.stat_result]]:
    """What a folder holds, by name."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                found.append((os.fsencode(entry.name), entry.stat(follow_symlinks=False)))
            except FileNotFoundError:
                continue
    return sorted(found, key=itemgetter(0))


def _shared(names: Sequence[str], others: Sequence[str]) -> int:
    """How many names two paths begin with alike."""
    for depth, (name, other) in enumerate(zip(names, others, strict=False)):
        if name != other:
            return depth
    return min(len(names), len(others))


def _empty(directory: Path) -> None:
    """Remove what is in a directory.

    Folders move to the top before it is their turn: however deep they nest, that takes no recursion, two descriptors
    and no long path.
    """
    top = _open_to_change(directory, None)
    try:
        pending = os.listdir(top)
        taken = frozenset(pending)
        fresh = (name for name in map(str, count()) if name not in taken)
        while pending:
            pending += _remove_one(top, pending.pop(), fresh)
    finally:
        os.close(top)


def _remove_one(top: int, name: str, fresh: Iterator[str]) -> Sequence[str]:
    """Remove what has that name at the top; the folders in it move there under fresh names, which are given back."""
    try:
        os.unlink(name, dir_fd=top)
        return ()
    except FileNotFoundError:
        return ()
    except IsADirectoryError:
        pass
    folder = _open_to_change(name, top)
    moved = []
    try:
        with os.scandir(folder) as entries:
            inner = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for inner_name, is_folder in inner:
            if is_folder:
                moved.append(next(fresh))
                _move_up(folder, inner_name, top, moved[-1])
            else:
                os.unlink(inner_name, dir_fd=folder)
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=top)
    return moved


def _move_up(folder: int, name: str, top: int, new_name: str) -> None:
    try:
        os.rename(name, new_name, src_dir_fd=folder, dst_dir_fd=top)
    except PermissionError:
        # To get another parent, a folder itself must be writable.
        os.close(_open_to_change(name, folder))
        os.rename(name, new_name, src_dir_fd=folder, dst_dir_fd=top)


def _open_to_change(name: str | Path, folder: int | None) -> int:
    """The descriptor of a folder that is ours to read and change, whatever its mode was."""
    try:
        opened = os.open(name, _FOLDER, dir_fd=folder)
    except PermissionError:
        # There is no chmod that leaves links alone, but a handle of the folder itself has a path in /proc.
        handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            os.chmod(f"/proc/self/fd/{handle}", 0o700)
        finally:
            os.close(handle)
        opened = os.open(name, _FOLDER, dir_fd=folder)
    os.fchmod(opened, 0o700)
    return opened
