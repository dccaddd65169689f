"""The store port: bytes under keys, whichever adapter holds them.

Promises that hold for every adapter:

* Any thread may call any method at any time.
* An object appears whole or not at all: a reader never sees part of one, and a ``put`` that failed or was
  killed leaves the old object or none. Writes are durable when the call returns.
* Everything but ``put_if_absent`` may be repeated without harm.
* An object that is not there raises :class:`distci.errors.NoSuchObject` (or is None from ``head``); a store that
  cannot be reached raises :class:`distci.errors.StoreUnavailable`, never the former.

There is no append and no rename, since object stores have none. Keys are made by :mod:`distci.store.keys`:
1 to 900 bytes of printable ASCII, ``/`` between segments, no empty, ``.`` or ``..`` segment.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

PAGE_LENGTH = 1000
"""How many objects are asked for at once, where nobody wants fewer."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object as a listing shows it."""

    key: str
    size_bytes: int
    modified_s: float
    """When it was last written, in seconds since 1970 by the store's clock."""


class Store(Protocol):
    """The store. See the module for what holds for all methods."""

    def put(self, key: str, data: bytes | BinaryIO) -> None:
        """Write an object, replacing any. A stream is read to its end in bounded memory."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write an object unless there is one; of any number of callers exactly one gets True.

        After :class:`~distci.errors.StoreUnavailable` it is unknown whether it was written: read and compare.
        """

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """The bytes from ``start`` on, at most ``length`` of them; fewer at the end, none past it."""

    def open(self, key: str, start: int = 0) -> BinaryIO:
        """A readable stream of the bytes from ``start`` on, in bounded memory. The caller closes it."""

    def head(self, key: str) -> ObjectInfo | None:
        """Size and time of an object, or None where there is none."""

    def list(self, prefix: str, after: str = "", limit: int = PAGE_LENGTH) -> Sequence[ObjectInfo]:
        """One page of the objects whose key starts with ``prefix`` and sorts after ``after``, in key order.

        Fewer than ``limit`` only at the end. To go on, pass the last key as ``after``.
        """

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""


def objects(
    store: Store, prefix: str, after: str = "", limit: int | None = None, page_length: int = PAGE_LENGTH
) -> Iterator[ObjectInfo]:
    """The objects of :meth:`Store.list`, a page at a time: all of them, or ``limit`` at most, and no more is asked for than that."""
    left = limit
    while left is None or left > 0:
        length = page_length if left is None else min(left, page_length)
        page = store.list(prefix, after, length)
        yield from page
        if len(page) < length:
            return
        after = page[-1].key
        left = None if left is None else left - length
