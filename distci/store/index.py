"""The index of a store on RADOS: one row a key, in key order, in as many RADOS objects as it takes.

RADOS changes one of its objects at a time: any number of rows of one object (its *omap*) in one operation, which also may
ask for rows to be as they were. Objects list in no order. Hence the index is the truth: **an object of the store is there
when its row is**, and every put and delete takes effect with one operation on one RADOS object::

    index               the root of the index; a leaf at first
    index/<id>          its other nodes
    data/<id>/<n>       the n-th part of the bytes of an object, 8 MiB each but the last

    rows of a leaf      \\x01         what the node is
                        \\x02<id>     data/<id>, which belongs to no object: "writing", or "void" and to be removed
                        <key>        an object: size, time, and its bytes when they are few, else the id of its data

A node is one of these, and only ever goes on to the next::

    leaf  ->  splitting (at a key, into two ids)  ->  branch (the same)

Leaves take changes, each on condition that the node is a leaf still. Branches never change, so that everybody may remember
them. A leaf that has grown too large is split by whoever notices, and the split is finished by whoever meets it:

1. leaf becomes *splitting*: from here on it takes no changes; readers read on
2. its rows are copied to two new nodes, which are open to nobody until they say that they are leaves
3. the new nodes become leaves
4. splitting becomes *branch*, and loses its rows in the same operation

Copying and opening are done on condition that the node is not open yet, hence late copies by a helper that slept change
nothing. Leaves that become empty stay.

Putting an object, deleting one, and what a crash after each step leaves:

====================================================  ============================================================================
put of few bytes                                      a crash after it leaves
====================================================  ============================================================================
1. key's row, on condition that it is as it was read  the new object
====================================================  ============================================================================

====================================================  ============================================================================
put of more                                           a crash after it leaves
====================================================  ============================================================================
1. row *writing* of new data                          the old object; the row is swept
2. the data, part by part                             the old object; row and data are swept
3. key's row, on condition that it is as it was read  the new object; the old one's data is swept
   and *writing* is there; *writing* goes; the old
   one's data gets a row *void*
4. the old one's data is removed, last part first     the new object; the row is swept
5. its row *void* goes                                the new object
====================================================  ============================================================================

====================================================  ============================================================================
delete                                                a crash after it leaves
====================================================  ============================================================================
1. key's row goes, on condition that it is as it was  no object; the data is swept
   read; its data gets a row *void*
2. the data is removed, last part first               no object; the row is swept
3. its row *void* goes                                no object
====================================================  ============================================================================

*Sweeping*: a row *writing* that is a day old becomes *void*, and its writer, should it live, is refused at step 3. Data of a
row *void* that is a day old is removed, then the row. An upload that is given up sweeps its own row and data at once.

A change whose answer is lost may take effect later, or not; only once, and only if its conditions hold then. Nothing is
undone on a guess: data is removed after its row became *void*, which no late step 3 survives.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from distci.errors import Damaged, InvalidDocument, StoreUnavailable

FORMAT = 1
ROOT = "index"
ROWS_MAX = 8192
"""A leaf of more is split. Ceph warns of RADOS objects with more than 200,000 rows."""

LOOSE = "\x02"
"""What the rows of data without an object start with."""

_STATE = "\x01"
_BEFORE_KEYS = "\x1f"
"""Sorts after all other rows and before all keys."""

_PAGE_LENGTH_MAX = 1000
"""Ceph gives 1,024 rows at a time unless it is told otherwise."""


class Vanished(StoreUnavailable):
    """A RADOS object that must be there is not: the store is not what it was."""


class Objects(Protocol):
    """RADOS objects of one namespace. Each call is one operation: all of it happens, or nothing."""

    def create(self, name: str) -> None:
        """Make an object unless there is one."""

    def change(
        self, name: str, where: Mapping[str, str], put: Mapping[str, str], remove: Collection[str] = (), *, clear: bool
    ) -> bool:
        """Change rows, all of them gone first with ``clear``, unless a row is not as ``where`` has it ("" for none)."""

    def rows(self, name: str, wanted: Sequence[str]) -> dict[str, str]:
        """Those of the rows that there are. Raises Vanished."""

    def page(self, name: str, after: str, prefix: str, limit: int, wanted: Sequence[str]) -> dict[str, str]:
        """The wanted rows, and the first few of those that start with ``prefix`` and sort after ``after``."""


@dataclass(frozen=True, slots=True)
class _Node:
    state: str
    at: str = ""
    into: tuple[str, str] = ("", "")

    @property
    def text(self) -> str:
        document = {"format": FORMAT, "is": self.state} | ({"at": self.at, "into": self.into} if self.at else {})
        return json.dumps(document)


@dataclass(frozen=True, slots=True)
class _Place:
    """The node that is responsible for a key, and where its keys end."""

    name: str
    end: str | None


_LEAF = _Node("leaf").text


class Index:
    """The index on these objects. Any thread may use it."""

    def __init__(self, objects: Objects, *, rows_max: int = ROWS_MAX) -> None:
        self._objects = objects
        self._rows_max = rows_max
        self._branches: dict[str, _Node] = {}

    def begin(self) -> None:
        """Make an empty index where there is none. Raises what the objects raise."""
        try:
            if self._objects.rows(ROOT, [_STATE]):
                return
        except Vanished:
            self._objects.create(ROOT)
        self._open_leaf(ROOT)

    def rows(self, key: str, wanted: Sequence[str]) -> Mapping[str, str]:
        """Those of the rows, of all in the leaf of ``key``, that there are."""
        return self._look(key, lambda name: self._objects.rows(name, [_STATE, *wanted]))[1]

    def change(self, key: str, where: Mapping[str, str], put: Mapping[str, str], remove: Collection[str] = ()) -> bool:
        """Change rows in the leaf of ``key`` in one operation, unless one is not as ``where`` has it ("" for none).

        False may also mean that the leaf was split: then it is not any more. Read, and decide again.
        """
        name = self._place_of(key).name
        if self._objects.change(name, {_STATE: _LEAF, **where}, put, remove, clear=False):
            return True
        self._finish_splits(key)
        return False

    def page(self, prefix: str, after: str, limit: int) -> Sequence[tuple[str, str]]:
        """The first rows of keys that start with ``prefix`` and sort after ``after``; fewer than ``limit`` only at the end."""
        found: dict[str, str] = {}
        after = max(after, _BEFORE_KEYS)
        position: str | None = max(prefix, after)
        while position is not None and len(found) < limit:
            place, rows = self._page(position, after, prefix, limit - len(found))
            found |= rows
            if rows:
                position = after = max(rows)
            else:
                position = place.end if place.end is not None and place.end.startswith(prefix) else None
        return [*found.items()]

    def loose(self, key: str) -> tuple[Mapping[str, str], str | None]:
        """Some of the rows of data without an object in the leaf of ``key``, and where the keys of that leaf end."""
        place, rows = self._page(key, "", LOOSE, _PAGE_LENGTH_MAX)
        return rows, place.end

    def split_if_large(self, key: str) -> None:
        """Split the leaf of ``key`` if it has grown too large."""
        keys: list[str] = []
        place, rows = self._page(key, _BEFORE_KEYS, "", _PAGE_LENGTH_MAX)
        while rows:
            keys += rows
            rows = self._page(key, max(rows), "", _PAGE_LENGTH_MAX)[1]
        if len(keys) > self._rows_max:
            middle = sorted(keys)[len(keys) // 2]
            node = _Node("splitting", middle, (f"{ROOT}/{uuid.uuid4().hex}", f"{ROOT}/{uuid.uuid4().hex}"))
            self._objects.change(place.name, {_STATE: _LEAF}, {_STATE: node.text}, clear=False)
            self._finish_splits(key)

    def _page(self, position: str, after: str, prefix: str, limit: int) -> tuple[_Place, dict[str, str]]:
        length = min(limit, _PAGE_LENGTH_MAX)
        return self._look(position, lambda name: self._objects.page(name, after, prefix, length, [_STATE]))

    def _place_of(self, key: str) -> _Place:
        """As far down as we remember."""
        name, end = ROOT, None
        while node := self._branches.get(name):
            if key < node.at:
                name, end = node.into[0], node.at
            else:
                name = node.into[1]
        return _Place(name, end)

    def _look(self, key: str, read: Callable[[str], dict[str, str]]) -> tuple[_Place, dict[str, str]]:
        """Read from the node where the key is, and where that is."""
        while True:
            place = self._place_of(key)
            rows = read(place.name)
            node = _parsed(place.name, rows.pop(_STATE, ""))
            if node.state != "branch":
                return place, rows
            self._branches[place.name] = node

    def _finish_splits(self, key: str) -> None:
        """Finish what stands in the way of changes near a key."""
        while True:
            place = self._place_of(key)
            node = _parsed(place.name, self._objects.rows(place.name, [_STATE]).get(_STATE, ""))
            if node.state == "leaf":
                return
            if node.state == "splitting":
                node = self._split(place.name, node)
            self._branches[place.name] = node

    def _split(self, name: str, splitting: _Node) -> _Node:
        """Do all steps but the first, however many of them others have done or are doing."""
        for half in splitting.into:
            self._objects.create(half)
        after = _STATE
        while rows := self._objects.page(name, after, "", _PAGE_LENGTH_MAX, []):
            after = max(rows)
            halves: tuple[dict[str, str], dict[str, str]] = ({}, {})
            for row, text in rows.items():
                halves[key_of(row, text) >= splitting.at][row] = text
            for half, part in zip(splitting.into, halves, strict=True):
                if part:
                    self._objects.change(half, {_STATE: ""}, part, clear=False)
        for half in splitting.into:
            self._open_leaf(half)
        branch = _Node("branch", splitting.at, splitting.into)
        self._objects.change(name, {_STATE: splitting.text}, {_STATE: branch.text}, clear=True)
        return branch

    def _open_leaf(self, name: str) -> None:
        self._objects.change(name, {_STATE: ""}, {_STATE: _LEAF}, clear=False)


def loose_text(key: str, state: str, since_s: float) -> str:
    """A row of data that was meant for, or belonged to, the object under ``key``."""
    return json.dumps({"key": key, "is": state, "since_s": since_s})


def key_of(row: str, text: str) -> str:
    """The key that a row is near."""
    return str(document_of(text)["key"]) if row.startswith(LOOSE) else row


def document_of(text: str) -> Any:
    """What a row says; Damaged when it cannot be read."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise Damaged(f"store: a row of the index in RADOS cannot be read: {text[:100]!r}") from error


def _parsed(name: str, text: str) -> _Node:
    if not text:
        raise Vanished(f"store: the index in RADOS is not whole: {name!r} says nothing of itself")
    document = document_of(text)
    if document["format"] != FORMAT:
        raise InvalidDocument(f"store: the index in RADOS has format {document['format']}, and we read {FORMAT}")
    left, right = document.get("into", ("", ""))
    return _Node(document["is"], document.get("at", ""), (left, right))
