"""A workspace as a tar file, for workers that cannot read packs: the same paths, modes, links and bytes.

Memory stays flat in both ways. A tar file goes out as it is made, and its size is known before; one that comes in goes straight into packs, and no
file of it ever stands under its own name here, so nothing in it can lead anywhere.
"""

from __future__ import annotations

import lzma
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import SpooledTemporaryFile, TemporaryFile
from typing import BinaryIO, cast

from distci.errors import Invalid
from distci.packs import CHUNK_BYTES, Packer, Unpacker
from distci.safepath import PATH_BYTES_MAX, check_path, encode
from distci.snapshots import EMPTY, MODE_BITS, Content, Directory, Entry, File, Snapshot, Symlink
from distci.snapshots import encode as encode_snapshot
from distci.store.attended import Checkpoint
from distci.store.port import Store
from distci.workspaces import Restored, Workspaces, by_pack, successor, with_origin, worth_keeping

BLOCK_BYTES = tarfile.BLOCKSIZE
SPOOL_BYTES = 4 * 1024 * 1024
END = bytes(2 * BLOCK_BYTES)
TIME_NS_MAX = 2**63 - 1
FOLDER_MODE = 0o755
"""Of a folder that a tar file says nothing of."""


def size_bytes(snapshot: Snapshot) -> int:
    """How long the tar file of a snapshot is."""
    files = [entry for entry in snapshot.entries.values() if isinstance(entry, File) and not entry.first]
    contents = sum(entry.content.size_bytes + _padding(entry.content.size_bytes) for entry in files)
    return sum(len(_header(entry)) for entry in snapshot.entries.values()) + contents + len(END)


def write(store: Store, snapshot: Snapshot) -> Iterator[bytes]:
    """The tar file of a snapshot, piece by piece. Damaged when a pack is not as it was written."""
    entries = snapshot.entries.values()
    yield from (_header(entry) for entry in entries if isinstance(entry, Directory))
    for pack, contents in by_pack(entries).items():
        with ExitStack() as stack:
            unpacker = stack.enter_context(Unpacker(store, pack)) if pack else None
            for content in sorted(contents, key=lambda content: content.offset):
                with SpooledTemporaryFile(SPOOL_BYTES) as file:
                    if unpacker:
                        unpacker.copy(content, file.write)
                    for entry in contents[content]:
                        yield _header(entry)
                        file.seek(0)
                        yield from iter(partial(file.read, CHUNK_BYTES), b"")
                        yield from filter(None, [bytes(_padding(content.size_bytes))])
            if unpacker:
                unpacker.finish()
    yield from (_header(entry) for entry in entries if isinstance(entry, Symlink))
    yield from (_header(entry) for entry in entries if isinstance(entry, File) and entry.first)
    yield END


def is_larger(tar: BinaryIO, bytes_max: int) -> bool:
    """Whether a tar file has more bytes than that, headers and all, once it is unpacked; it is at its beginning afterwards.

    No more than that is unpacked to find it out. Raises Invalid for what is no tar file.
    """
    size = 0
    with _opened(tar) as members:
        while size <= bytes_max and (member := members.next()):
            size += BLOCK_BYTES + member.size
            # It would remember them all.
            members.members = []  # type: ignore[attr-defined]
    tar.seek(0)
    return size > bytes_max


def read(store: Store, tar: BinaryIO, before: Snapshot, task: str, folder: Path) -> Snapshot:
    """What a task made of a snapshot, from a tar file, compressed or not; its contents are then in the store.

    ``tar`` can be read from any place. ``folder`` takes nameless files while packs are made. Pipes and devices are left out.
    Raises :class:`~distci.errors.Invalid` for what is no tar file, and for what no workspace can hold, naming its path.
    """
    with Packer(store, folder, worth_keeping(before.entries.values())) as packer:
        found = _Found(packer)
        with _opened(tar) as members:
            for member in members:
                found.see(member, members)
        entries = found.entries(packer.finish())
    return successor(
        before, {path: with_origin(entry, before.entries.get(path), task) for path, entry in entries.items()}, task
    )


def restore(
    store: Store, stream: BinaryIO, key: str, task: str, directory: Path, checkpoint: Checkpoint = lambda: None
) -> Restored:
    """Fill a directory that is not there yet with what a tar file holds, by way of a store on this machine, which then has it under ``key``.

    Raises as :func:`read` does, and as :meth:`~distci.workspaces.Workspaces.restore`.
    """
    with TemporaryFile(dir=directory.parent) as tar:
        shutil.copyfileobj(stream, tar)
        tar.seek(0)
        snapshot = read(store, cast(BinaryIO, tar), Snapshot(), task, directory.parent)
    store.put(key, encode_snapshot(snapshot, task))
    return Workspaces(store, checkpoint).restore([key], directory)


@contextmanager
def _opened(tar: BinaryIO) -> Iterator[tarfile.TarFile]:
    """Its members. What shows that it is no tar file while they are read raises Invalid."""
    try:
        with tarfile.open(fileobj=tar, mode="r:*") as members:
            yield members
    except (tarfile.TarError, EOFError, ValueError, OverflowError, zlib.error, lzma.LZMAError) as error:
        raise Invalid(f"the body is no whole tar file: {error}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise Invalid(f"the body is no whole tar file: {error}") from error


class _Found:
    """What a tar file holds, by path; of paths that are there twice the last counts, as it does when they are extracted."""

    def __init__(self, packer: Packer) -> None:
        self._packer = packer
        self._entries: dict[str, Entry] = {}
        self._numbers: dict[str, int] = {}
        self._firsts: dict[str, str] = {}
        """Of files that are one by hard links: what they are told to be linked to."""

    def see(self, member: tarfile.TarInfo, members: tarfile.TarFile) -> None:
        path = _path(member.name)
        if not path:
            return
        mode = member.mode & MODE_BITS
        if member.isreg():
            self._forget(path)
            time_ns = max(-TIME_NS_MAX, min(int(member.mtime * 1_000_000_000), TIME_NS_MAX))
            self._entries[path] = File(path, "", mode, time_ns, EMPTY)
            self._numbers[path] = self._add(member, members)
        elif member.isdir():
            self._forget(path)
            self._entries[path] = Directory(path, "", mode)
        elif member.issym():
            self._forget(path)
            if not member.linkname or len(encode(member.linkname)) > PATH_BYTES_MAX:
                raise Invalid(f"{path!r} in the workspace points to what no link can")
            self._entries[path] = Symlink(path, "", member.linkname)
        elif member.islnk():
            self._link(path, _path(member.linkname))

    def entries(self, contents: Sequence[Content]) -> Mapping[str, Entry]:
        """All of it in ascending order, each in a folder; ``contents`` by their numbers."""
        for path in [*self._entries]:
            self._make_parents(path)
        entries: dict[str, Entry] = {}
        groups: dict[str, str] = {}
        for path, found in sorted(self._entries.items()):
            entry = found
            if isinstance(entry, File):
                first = groups.setdefault(self._firsts.get(path, path), path)
                entry = entry._replace(content=contents[self._numbers[path]], first="" if first == path else first)
            entries[path] = entry
        return entries

    def _add(self, member: tarfile.TarInfo, members: tarfile.TarFile) -> int:
        file = members.extractfile(member)
        assert file is not None, "it is a regular file"
        with file:
            return self._packer.add_from(file.read, partial(file.seek, 0), member.size)

    def _link(self, path: str, first: str) -> None:
        file = self._entries.get(first)
        if not isinstance(file, File):
            raise Invalid(f"{path!r} in the workspace is linked to {first!r}, which is no file before it")
        if path == first:
            return
        self._forget(path)
        self._entries[path] = file._replace(path=path)
        self._numbers[path] = self._numbers[first]
        self._firsts[path] = self._firsts.setdefault(first, first)

    def _forget(self, path: str) -> None:
        self._entries.pop(path, None)
        self._numbers.pop(path, None)
        self._firsts.pop(path, None)

    def _make_parents(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        if not parent:
            return
        found = self._entries.setdefault(parent, Directory(parent, "", FOLDER_MODE))
        if not isinstance(found, Directory):
            raise Invalid(f"{path!r} in the workspace is in {parent!r}, which is no folder")
        self._make_parents(parent)


def _path(name: str) -> str:
    """A member's name as a path of the workspace; empty for its root. InvalidPath for one that would lie outside."""
    path = "/".join(part for part in name.split("/") if part not in ("", ".")) if not name.startswith("/") else name
    return check_path(path) if path else ""


def _header(entry: Entry) -> bytes:
    info = tarfile.TarInfo(entry.path)
    if isinstance(entry, Directory):
        info.type, info.mode = tarfile.DIRTYPE, entry.mode
    elif isinstance(entry, Symlink):
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, entry.target, 0o777
    elif entry.first:
        info.type, info.linkname, info.mode = tarfile.LNKTYPE, entry.first, entry.mode
    else:
        info.size, info.mode, info.mtime = entry.content.size_bytes, entry.mode, entry.mtime_ns // 1_000_000_000
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def _padding(size: int) -> int:
    return -size % BLOCK_BYTES
