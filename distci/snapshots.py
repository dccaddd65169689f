"""What a workspace held after a task: the snapshot, its written form, and several of them put together. No I/O.

A snapshot names every path with its type, mode and content, and the *origin* of each: the task that last changed it.
Contents lie in packs; the snapshot says where. Paths that a task removed stay on record with that task as well, and the
*history* of a snapshot names all tasks whose work has flowed into it. From these three follows, without a common
ancestor at hand, which of two differing states of a path is the newer one: a state is outdated when another snapshot
has its origin in its history and yet shows something else, since that one knew it and went on. States that outdate
nothing of each other are a conflict.

Written snapshots come from machines that run other people's scripts, so :func:`decode` trusts nothing in them.
"""

from __future__ import annotations

import hashlib
import json
import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import zstandard

from distci.errors import Damaged, Invalid, InvalidDocument, InvalidPath, WithProblems
from distci.model import Json
from distci.safepath import PATH_BYTES_MAX, check_path
from distci.safepath import encode as encode_path

FORMAT = 1

DOCUMENT_BYTES_MAX = 256 * 1024 * 1024
"""Of a written snapshot before compression: about a million files."""

MODE_BITS = 0o777
"""Set-user-id, set-group-id and sticky bits are nothing that one machine should bring to another."""

CONFLICTS_SHOWN_MAX = 20

_LEVEL = 1
_INTEGER_MAX = 2**63 - 1
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Pack(NamedTuple):
    """An object of the store that holds contents one after the other, compressed as one."""

    digest: str
    """SHA-256 of the object, which names it too."""
    packed_bytes: int
    """Size of the object."""
    content_bytes: int
    """Size of what is in it."""


class Content(NamedTuple):
    """The bytes of a file, and where they are kept."""

    sha256: str
    size_bytes: int
    pack: Pack | None
    """None for no bytes."""
    offset: int
    """Where they begin in what the pack holds."""


EMPTY = Content(hashlib.sha256().hexdigest(), 0, None, 0)


class Directory(NamedTuple):
    path: str
    origin: str
    mode: int


class File(NamedTuple):
    path: str
    origin: str
    mode: int
    mtime_ns: int
    content: Content
    first: str = ""
    """Of files that are one by hard links: the first one's path, for all but that one."""


class Symlink(NamedTuple):
    path: str
    origin: str
    target: str


Entry = Directory | File | Symlink


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A workspace, or what several of them make when they are put together."""

    history: frozenset[str] = frozenset()
    """The names of all tasks whose snapshots flowed into this one, its own included."""
    entries: Mapping[str, Entry] = field(default_factory=dict)
    """By path, in ascending order."""
    deleted: Mapping[str, str] = field(default_factory=dict)
    """The task that removed it, by path; for paths that are not there any more."""


def is_changed(before: Entry | None, after: Entry) -> bool:
    """Whether a task that made the one of the other has changed it. The time of a file is no part of it."""
    return before is None or _identity(before) != _identity(after)


def overlay(snapshots: Sequence[Snapshot]) -> Snapshot:
    """One snapshot of several, where the newer state of each path wins and of equal ones the last.

    Folders are merged, and one that somebody removed stays while others have something new in it.
    Raises :class:`~distci.errors.WithProblems`, an Invalid, for paths that two tasks changed differently.
    """
    if len(snapshots) == 1:
        return snapshots[0]
    merged = _Merge(snapshots)
    for path in sorted({path for snapshot in snapshots for path in (*snapshot.entries, *snapshot.deleted)}):
        merged.settle(path)
    merged.keep_parents()
    if merged.conflicts:
        shown = merged.conflicts[:CONFLICTS_SHOWN_MAX]
        left = len(merged.conflicts) - len(shown)
        raise WithProblems(
            "the workspaces that this task needs do not fit together:",
            [*shown, *([f"and {left} more"] if left else [])],
        )
    return merged.result()


class _State(NamedTuple):
    """A path as one of the snapshots has it."""

    entry: Entry | None
    """None where it was removed."""
    origin: str
    source: Snapshot


class _Merge:
    """Several snapshots on their way to one."""

    def __init__(self, snapshots: Sequence[Snapshot]) -> None:
        self.conflicts: list[str] = []
        self._snapshots = snapshots
        self._settled: dict[str, _State] = {}

    def settle(self, path: str) -> None:
        states = [state for snapshot in self._snapshots if (state := _state(snapshot, path))]
        standing = [state for state in states if not _is_outdated(state, states)]
        if len({_substance(state.entry) for state in standing}) == 1:
            self._settled[path] = standing[-1]
        else:
            # Two that outdate each other are attempts at one task.
            self._conflict(path, standing or states)

    def keep_parents(self) -> None:
        """Give everything that is there a directory to be in."""
        for path, state in sorted(self._settled.items()):
            if state.entry is not None:
                self._keep_parent(path, state)

    def result(self) -> Snapshot:
        states = sorted(self._settled.items())
        return Snapshot(
            history=frozenset().union(*(snapshot.history for snapshot in self._snapshots)),
            entries=_linked(state for _, state in states),
            deleted={path: state.origin for path, state in states if state.entry is None},
        )

    def _keep_parent(self, path: str, state: _State) -> None:
        parent = path.rpartition("/")[0]
        if not parent:
            return
        found = self._settled.get(parent)
        if found is None or found.entry is None:
            kept = _state(state.source, parent)
            if kept is not None and kept.entry is not None:
                self._settled[parent] = kept
                self._keep_parent(parent, kept)
        elif not isinstance(found.entry, Directory):
            self._conflict(parent, (found, state))

    def _conflict(self, path: str, states: Iterable[_State]) -> None:
        names = " and ".join(sorted({state.origin for state in states}))
        sentence = f"path {path!r} was changed differently by {names}"
        if sentence not in self.conflicts[-1:]:
            self.conflicts.append(sentence)


def _state(snapshot: Snapshot, path: str) -> _State | None:
    """What a snapshot knows of a path, if it has ever heard of it."""
    entry = snapshot.entries.get(path)
    if entry is not None:
        return _State(entry, entry.origin, snapshot)
    origin = snapshot.deleted.get(path)
    return None if origin is None else _State(None, origin, snapshot)


def _is_outdated(state: _State, states: Iterable[_State]) -> bool:
    return any(state.origin in other.source.history and _differ(state.entry, other.entry) for other in states)


def _differ(one: Entry | None, other: Entry | None) -> bool:
    return one is not other if other is None else is_changed(one, other)


def _identity(entry: Entry) -> tuple[object, ...]:
    if isinstance(entry, File):
        return (File, entry.mode, entry.content.sha256, entry.first)
    return (type(entry), entry[2])


def _substance(entry: Entry | None) -> tuple[object, ...]:
    """What must agree at a path that two tasks changed: neither how files are linked, nor the modes of directories."""
    if isinstance(entry, File):
        return (File, entry.mode, entry.content.sha256)
    if isinstance(entry, Symlink):
        return (Symlink, entry.target)
    return (type(entry),)


def _linked(states: Iterable[_State]) -> Mapping[str, Entry]:
    """The entries by path; files stay one when they were one in the snapshot that they come from."""
    entries: dict[str, Entry] = {}
    firsts: dict[tuple[int, str], str] = {}
    for state in states:
        entry = state.entry
        if isinstance(entry, File):
            first = firsts.setdefault((id(state.source), entry.first or entry.path), entry.path)
            entry = entry._replace(first="" if first == entry.path else first)
        if entry is not None:
            entries[entry.path] = entry
    return entries


def encode(snapshot: Snapshot, task: str) -> bytes:
    """The written form of what a task left. Raises :class:`~distci.errors.Invalid` when it becomes too large."""
    packs: dict[Pack, int] = {}
    document = {
        "format": FORMAT,
        "task": task,
        "history": sorted(snapshot.history),
        "entries": [_row(entry, packs) for entry in snapshot.entries.values()],
        "deleted": snapshot.deleted,
        "packs": [pack._asdict() for pack in packs],
    }
    data = json.dumps(document, separators=(",", ":")).encode()
    if len(data) > DOCUMENT_BYTES_MAX:
        raise Invalid(f"the workspace has too many files to be carried on: {len(snapshot.entries)}")
    return zstandard.ZstdCompressor(_LEVEL, write_checksum=True).compress(data)


def _row(entry: Entry, packs: dict[Pack, int]) -> Json:
    common = {"path": entry.path, "origin": entry.origin}
    if isinstance(entry, Directory):
        return common | {"type": "directory", "mode": entry.mode}
    if isinstance(entry, Symlink):
        return common | {"type": "symlink", "target": entry.target}
    if entry.first:
        return common | {"type": "link", "to": entry.first}
    sha256, size_bytes, pack, offset = entry.content
    row = {"type": "file", "mode": entry.mode, "mtime_ns": entry.mtime_ns, "sha256": sha256, "size_bytes": size_bytes}
    if pack is not None:
        row |= {"pack": packs.setdefault(pack, len(packs)), "offset": offset}
    return common | row


def decode(data: bytes, name: str) -> Snapshot:
    """Read what :func:`encode` wrote; ``name`` is what errors call it.

    Raises :class:`~distci.errors.Damaged` for what cannot have been written so, :class:`~distci.errors.InvalidDocument`
    for a format that is not known here.
    """
    try:
        document = json.loads(_decompressed(data))
        found = _checked(document, dict, "the document")["format"]
        if found == FORMAT:
            return _Reader(document).snapshot()
    except KeyError as error:
        raise Damaged(f"{name} is damaged: {error} is missing") from error
    except (zstandard.ZstdError, ValueError, RecursionError, InvalidPath) as error:
        raise Damaged(f"{name} is damaged: {error}") from error
    raise InvalidDocument(f"{name} has the format {reprlib.repr(found)}; known here is {FORMAT}")


def _decompressed(data: bytes) -> bytes:
    size_bytes = zstandard.get_frame_parameters(data).content_size
    if size_bytes > DOCUMENT_BYTES_MAX:
        raise ValueError(f"it claims {size_bytes} bytes, or does not say how many")
    return zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)


class _Reader:
    """Checks a document and takes it apart. Raises ValueError, KeyError or InvalidPath for what is wrong with it."""

    def __init__(self, document: Mapping[str, Json]) -> None:
        self._document = document
        self._history = frozenset(
            _checked(name, str, "a name") for name in _checked(document["history"], list, "history")
        )
        self._packs = [_pack(row) for row in _checked(document["packs"], list, "packs")]
        self._entries: dict[str, Entry] = {}

    def snapshot(self) -> Snapshot:
        self._known(self._document["task"])
        last = ""
        for row in _checked(self._document["entries"], list, "entries"):
            entry = self._entry(_checked(row, dict, "an entry"))
            if entry.path <= last:
                raise ValueError(f"{entry.path!r} follows {last!r}")
            self._entries[entry.path] = entry
            last = entry.path
        return Snapshot(self._history, self._entries, self._deleted())

    def _entry(self, row: Mapping[str, Json]) -> Entry:
        path = check_path(_checked(row["path"], str, "a path"))
        parent = path.rpartition("/")[0]
        if parent and not isinstance(self._entries.get(parent), Directory):
            raise ValueError(f"{path!r} is not in a directory")
        origin = self._known(row["origin"])
        match row["type"]:
            case "directory":
                return Directory(path, origin, _mode(row))
            case "file":
                return File(path, origin, _mode(row), _integer(row, "mtime_ns", -_INTEGER_MAX), self._content(row))
            case "link":
                first = self._entries.get(_checked(row["to"], str, "a link"))
                if not isinstance(first, File) or first.first:
                    raise ValueError(f"{path!r} is linked to what is no file before it")
                return first._replace(path=path, origin=origin, first=first.path)
            case "symlink":
                return Symlink(path, origin, _target(row))
        raise ValueError(f"{path!r} is of unknown type")

    def _content(self, row: Mapping[str, Json]) -> Content:
        sha256, size_bytes = _digest(row["sha256"]), _integer(row, "size_bytes")
        if not size_bytes:
            if sha256 != EMPTY.sha256:
                raise ValueError(f"{row['path']!r} is empty, which its digest denies")
            return EMPTY
        number, offset = _integer(row, "pack"), _integer(row, "offset")
        if number >= len(self._packs) or offset + size_bytes > self._packs[number].content_bytes:
            raise ValueError(f"{row['path']!r} lies in no pack")
        return Content(sha256, size_bytes, self._packs[number], offset)

    def _deleted(self) -> Mapping[str, str]:
        deleted = _checked(self._document["deleted"], dict, "deleted")
        for path, origin in deleted.items():
            self._known(origin)
            if check_path(path) in self._entries:
                raise ValueError(f"{path!r} is deleted and there")
        return dict(deleted)

    def _known(self, task: Json) -> str:
        if _checked(task, str, "a task") not in self._history:
            raise ValueError(f"task {reprlib.repr(task)} is not in the history")
        return str(task)


def _pack(row: Json) -> Pack:
    _checked(row, dict, "a pack")
    return Pack(_digest(row["digest"]), _integer(row, "packed_bytes"), _integer(row, "content_bytes"))


def _mode(row: Mapping[str, Json]) -> int:
    return _integer(row, "mode") & MODE_BITS


def _target(row: Mapping[str, Json]) -> str:
    target: str = _checked(row["target"], str, "a target")
    if not target or "\0" in target or len(encode_path(target)) > PATH_BYTES_MAX:
        raise ValueError(f"{row['path']!r} points to what no link can")
    return target


def _digest(value: Json) -> str:
    if not _SHA256.fullmatch(_checked(value, str, "a digest")):
        raise ValueError(f"{reprlib.repr(value)} is no SHA-256")
    return str(value)


def _integer(row: Mapping[str, Json], name: str, least: int = 0) -> int:
    value = row[name]
    # Not isinstance: true and false are no numbers here.
    if type(value) is not int or not least <= value <= _INTEGER_MAX:
        raise ValueError(f"{name} is {reprlib.repr(value)}")
    return value


def _checked(value: Json, kind: type, name: str) -> Json:
    if not isinstance(value, kind):
        raise ValueError(f"{name} is {reprlib.repr(value)}")
    return value
