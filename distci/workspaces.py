"""Workspaces: the directory tree that a task works in, carried to the next task as a snapshot.

A snapshot (:mod:`distci.snapshots`) is one object that names all files, and packs (:mod:`distci.packs`) that hold what
is in them. Saving stores only contents that are new since the workspace was restored; the rest stays in the packs of
earlier snapshots. Whether a file is new is told by what the file system keeps of it (inode, size and times), and by its
SHA-256 wherever that leaves a doubt.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from distci.errors import Damaged, Invalid
from distci.packs import CHUNK_BYTES, Packer, Unpacker
from distci.safepath import Found, Tree, open_file, remove
from distci.safepath import decode as decode_path
from distci.safepath import encode as encode_path
from distci.snapshots import (
    DOCUMENT_BYTES_MAX,
    EMPTY,
    MODE_BITS,
    Content,
    Directory,
    Entry,
    File,
    Pack,
    Snapshot,
    Symlink,
    decode,
    encode,
    is_changed,
    overlay,
)
from distci.store.attended import AttendedStore, Checkpoint
from distci.store.port import Store

__all__ = ["Restored", "Saved", "Workspaces", "remove"]

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_TICK_NS = 20_000_000
"""File systems stamp changes with a clock that stands still for up to 10 ms; a change within that leaves no trace."""

_COARSE_NS = 1_000_000_000
_COARSE_TICK_NS = 2_000_000_000
"""Stamps that are whole seconds come from file systems that count in seconds, or in pairs of them."""

_SMALL_PACKS_MAX = 8
_SMALL_BYTES = 1024 * 1024
_LIVE_SHARE_MIN = 0.25

Identity = tuple[int, int, int, int]
"""Inode, size and both times of a file. Whoever writes to the file changes it, but for a clock that stood still."""


@dataclass(frozen=True, slots=True)
class Restored:
    """A workspace as it was before the task: what saving it compares with."""

    snapshot: Snapshot = field(default_factory=Snapshot)
    identities: Mapping[str, Identity] = field(default_factory=dict)
    """By path, of the files that cannot change unnoticed."""
    moved_bytes: int = 0
    """What came from the store."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What saving a workspace came to."""

    files: int
    changed: int
    """Paths that the task added or changed."""
    deleted: int
    """Paths that the task removed."""
    moved_bytes: int
    """What went to the store."""
    left_out: Sequence[str]
    """Paths of sockets, pipes and devices: they are not carried on."""


class Workspaces:
    """Restores and saves workspaces. Any thread may use it."""

    def __init__(self, store: Store, checkpoint: Checkpoint = lambda: None) -> None:
        """``checkpoint`` is passed often while files are moved; whatever it raises ends the move."""
        self._store = AttendedStore(store, checkpoint)
        self._checkpoint = checkpoint

    def restore(self, inputs: Sequence[str], directory: Path) -> Restored:
        """Fill a directory, empty or not there yet, with the snapshots under these keys, one laid over the other.

        Raises :class:`~distci.errors.Invalid` when two of them changed a path differently or the directory is not
        empty, :class:`~distci.errors.NoSuchObject` where there is no snapshot, :class:`~distci.errors.Damaged` when
        bytes are not what was written, and OSError for what this machine refuses. Nothing is ever written outside the
        directory; unless all went well it is gone again, so that the call may be repeated.
        """
        snapshot, read_bytes = self.overlaid(inputs)
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise Invalid(f"the workspace {directory} is not empty")
        try:
            identities, moved_bytes = _Restoring(self._store, self._checkpoint, directory, snapshot).run()
        except BaseException:
            with suppress(OSError):
                remove(directory)
            raise
        return Restored(snapshot, identities, moved_bytes + read_bytes)

    def overlaid(self, inputs: Sequence[str]) -> tuple[Snapshot, int]:
        """The snapshots under these keys, one laid over the other, and how many bytes were read for it. Raises as :meth:`restore` does."""
        read = [self._load(key) for key in inputs]
        return overlay([one for one, _ in read]), sum(size_bytes for _, size_bytes in read)

    def save(self, directory: Path, restored: Restored, task: str, key: str) -> Saved:
        """Store the workspace that the task of that name left, and name the snapshot ``key``.

        Raises :class:`~distci.errors.Invalid` for what cannot be read or carried, naming its path. May be repeated.
        """
        kept = worth_keeping(restored.snapshot.entries.values())
        with Packer(self._store, directory.parent, kept, self._checkpoint) as packer, Tree(directory) as tree:
            scan = _Scan(restored, packer, kept)
            for found in _walk(tree):
                self._checkpoint()
                scan.see(found)
            entries = scan.entries(packer.finish(), task)
            snapshot = successor(restored.snapshot, entries, task)
            data = encode(snapshot, task)
            self._store.put(key, data)
            return Saved(
                files=sum(isinstance(entry, File) for entry in entries.values()),
                changed=sum(entry.origin == task for entry in entries.values()),
                deleted=sum(origin == task for origin in snapshot.deleted.values()),
                moved_bytes=packer.moved_bytes + len(data),
                left_out=scan.left_out,
            )

    def _load(self, key: str) -> tuple[Snapshot, int]:
        # Compressed, none can be larger than the largest is otherwise.
        data = self._store.get(key, 0, DOCUMENT_BYTES_MAX + 1)
        if len(data) > DOCUMENT_BYTES_MAX:
            raise Damaged(f"workspace {key} is larger than any snapshot")
        return decode(data, f"workspace {key}"), len(data)


class _Restoring:
    """One directory being filled: directories, files, links, and only then the modes that may shut us out."""

    def __init__(self, store: Store, checkpoint: Checkpoint, directory: Path, snapshot: Snapshot) -> None:
        self._store = store
        self._checkpoint = checkpoint
        self._directory = directory
        self._entries = tuple(snapshot.entries.values())
        self._identities: dict[str, Identity] = {}

    def run(self) -> tuple[Mapping[str, Identity], int]:
        """The identities of the files that cannot change unnoticed, and how many bytes were read for it."""
        with Tree(self._directory) as tree:
            for entry in self._entries:
                if isinstance(entry, Directory):
                    tree.make_folder(entry.path, 0o700)
            packs = by_pack(self._entries)
            for pack, contents in packs.items():
                self._unpack(pack, contents, tree)
            # Links come last: nothing is written through one even if all other care were in vain.
            self._make_links(tree)
            for entry in reversed(self._entries):
                if isinstance(entry, Directory):
                    os.fchmod(tree.folder(entry.path), entry.mode)
            return self._settled(tree.folder("")), sum(pack.packed_bytes for pack in packs if pack)

    def _unpack(self, pack: Pack | None, contents: Mapping[Content, Sequence[File]], tree: Tree) -> None:
        if pack is None:
            for file in contents[EMPTY]:
                self._create(file, tree, _nothing)
            return
        with Unpacker(self._store, pack) as unpacker:
            for content in sorted(contents, key=lambda content: content.offset):
                self._create_alike(contents[content], tree, partial(unpacker.copy, content))
            unpacker.finish()

    def _create_alike(self, files: Sequence[File], tree: Tree, copy: Callable[[Callable[[bytes], None]], None]) -> None:
        """Files of one content: the first out of the pack, the others out of the first."""

        def fill_first(descriptor: int) -> None:
            copy(partial(self._write, descriptor))
            for file in files[1:]:
                self._create(file, tree, partial(self._copy, descriptor))

        self._create(files[0], tree, fill_first)

    def _create(self, file: File, tree: Tree, fill: Callable[[int], None]) -> None:
        self._checkpoint()
        folder, name = tree.place(file.path)
        descriptor = os.open(name, _CREATE, 0o600, dir_fd=folder)
        try:
            fill(descriptor)
            os.fchmod(descriptor, file.mode)
            os.utime(descriptor, ns=(file.mtime_ns, file.mtime_ns))
            self._identities[file.path] = _identity(os.fstat(descriptor))
        finally:
            os.close(descriptor)

    def _copy(self, source: int, target: int) -> None:
        offset = 0
        while chunk := os.pread(source, CHUNK_BYTES, offset):
            self._write(target, chunk)
            offset += len(chunk)

    def _write(self, descriptor: int, data: bytes) -> None:
        self._checkpoint()
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]

    def _make_links(self, tree: Tree) -> None:
        # A file gets a new time with each link, so that linked ones will be read again when the workspace is saved.
        with Tree(self._directory) as firsts:
            for entry in self._entries:
                folder, name = tree.place(entry.path)
                if isinstance(entry, Symlink):
                    os.symlink(encode_path(entry.target), name, dir_fd=folder)
                elif isinstance(entry, File) and entry.first:
                    first_folder, first_name = firsts.place(entry.first)
                    os.link(first_name, name, src_dir_fd=first_folder, dst_dir_fd=folder, follow_symlinks=False)

    def _settled(self, root: int) -> Mapping[str, Identity]:
        """The identities that any later write changes: those stamped by an earlier tick of the file system's clock."""
        os.utime(root)
        now_ns = os.fstat(root).st_ctime_ns
        return {path: identity for path, identity in self._identities.items() if _is_settled(identity[3], now_ns)}


class _Scan:
    """What is found in a workspace that is being saved."""

    def __init__(self, restored: Restored, packer: Packer, kept: Collection[Content]) -> None:
        """``kept`` are the contents that stay in the packs where they are."""
        self.left_out: list[str] = []
        self._before = restored.snapshot.entries
        self._identities = restored.identities
        self._packer = packer
        self._kept = kept
        self._found: dict[str, Entry] = {}
        self._numbers: dict[str, int] = {}
        self._inodes: dict[str, tuple[int, int]] = {}
        self._linked: dict[tuple[int, int], str] = {}

    def see(self, found: Found) -> None:
        mode = found.stat.st_mode
        if stat.S_ISREG(mode):
            self._see_file(found)
        elif stat.S_ISDIR(mode):
            self._found[found.path] = Directory(found.path, "", mode & MODE_BITS)
        elif stat.S_ISLNK(mode):
            with suppress(FileNotFoundError):
                target = decode_path(os.readlink(found.name, dir_fd=found.folder))
                self._found[found.path] = Symlink(found.path, "", target)
        else:
            self.left_out.append(found.path)

    def entries(self, contents: Sequence[Content], task: str) -> Mapping[str, Entry]:
        """All that was found, by path, with ``task`` as the origin of what is not as it was before."""
        entries: dict[str, Entry] = {}
        firsts: dict[tuple[int, int], str] = {}
        for path, found in sorted(self._found.items()):
            entry = found
            if isinstance(entry, File):
                number, inode = self._numbers.get(path), self._inodes.get(path)
                content = entry.content if number is None else contents[number]
                first = path if inode is None else firsts.setdefault(inode, path)
                entry = entry._replace(content=content, first="" if first == path else first)
            entries[path] = with_origin(entry, self._before.get(path), task)
        return entries

    def _see_file(self, found: Found) -> None:
        path = found.path
        if found.stat.st_nlink > 1:
            inode = (found.stat.st_dev, found.stat.st_ino)
            other = self._linked.setdefault(inode, path)
            self._inodes[path] = inode
            if other != path:
                self._see_link(path, other)
                return
        before = self._before.get(path)
        is_unchanged = self._identities.get(path) == _identity(found.stat)
        if isinstance(before, File) and is_unchanged and before.content in self._kept:
            self._found[path] = before
        else:
            self._read(found)

    def _see_link(self, path: str, other: str) -> None:
        """One more name of a file that has been seen, unless that disappeared before it could be read."""
        file = self._found.get(other)
        if file is not None:
            self._found[path] = file._replace(path=path)
            if other in self._numbers:
                self._numbers[path] = self._numbers[other]

    def _read(self, found: Found) -> None:
        try:
            descriptor = open_file(found.folder, found.name)
        except FileNotFoundError:
            return
        except PermissionError as error:
            raise _unreadable(found.path, error) from error
        try:
            now = os.fstat(descriptor)
            if not stat.S_ISREG(now.st_mode):
                self.left_out.append(found.path)
                return
            self._numbers[found.path] = self._packer.add(descriptor, now.st_size)
        finally:
            os.close(descriptor)
        self._found[found.path] = File(found.path, "", now.st_mode & MODE_BITS, now.st_mtime_ns, EMPTY)


def _walk(tree: Tree) -> Iterator[Found]:
    try:
        yield from tree.walk()
    except PermissionError as error:
        raise _unreadable(error.filename, error) from error


def _unreadable(path: str, error: OSError) -> Invalid:
    return Invalid(f"{path!r} in the workspace cannot be read: {error.strerror}")


def with_origin(entry: Entry, before: Entry | None, task: str) -> Entry:
    """What a task left at a path, with the task that last changed it as its origin."""
    return entry._replace(origin=task if before is None or is_changed(before, entry) else before.origin)


def successor(before: Snapshot, entries: Mapping[str, Entry], task: str) -> Snapshot:
    """What a task made of a snapshot."""
    deleted = {**before.deleted, **dict.fromkeys(before.entries, task)}
    return Snapshot(
        history=before.history | {task},
        entries=entries,
        deleted={path: deleted[path] for path in sorted(deleted.keys() - entries.keys())},
    )


def worth_keeping(entries: Iterable[Entry]) -> Collection[Content]:
    """The contents that stay where they are. The others are packed anew if they are still there.

    Else a workspace that many tasks worked on would lie in ever more packs, and hold on to ever more that nobody needs:
    what restoring reads is at most four times of what it needs.
    """
    contents = {entry.content for entry in entries if isinstance(entry, File)}
    live_bytes: Counter[Pack] = Counter()
    for content in contents:
        if content.pack:
            live_bytes[content.pack] += content.size_bytes
    small = {pack for pack, size_bytes in live_bytes.items() if size_bytes < _SMALL_BYTES}
    if len(small) <= _SMALL_PACKS_MAX:
        small.clear()

    def is_kept(pack: Pack) -> bool:
        return pack not in small and live_bytes[pack] >= pack.content_bytes * _LIVE_SHARE_MIN

    return frozenset(content for content in contents if content.pack and is_kept(content.pack)) | {EMPTY}


def by_pack(entries: Iterable[Entry]) -> Mapping[Pack | None, Mapping[Content, Sequence[File]]]:
    """The files to be created, by pack and by what is in them."""
    packs: dict[Pack | None, dict[Content, list[File]]] = {}
    for entry in entries:
        if isinstance(entry, File) and not entry.first:
            packs.setdefault(entry.content.pack, {}).setdefault(entry.content, []).append(entry)
    return packs


def _identity(found: os.stat_result) -> Identity:
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _is_settled(changed_ns: int, now_ns: int) -> bool:
    return changed_ns + (_TICK_NS if changed_ns % _COARSE_NS else _COARSE_TICK_NS) < now_ns


def _nothing(_: int) -> None:
    """What an empty file is filled with."""
