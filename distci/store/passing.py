"""A store that passes every call on: what does something more with some of them begins here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from distci.store.port import ObjectInfo, Store


class PassingStore:
    """A :class:`~distci.store.port.Store` in front of another one."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, key: str, data: bytes | BinaryIO) -> None:
        self._store.put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        return self._store.put_if_absent(key, data)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        return self._store.get(key, start, length)

    def open(self, key: str, start: int = 0) -> BinaryIO:
        return self._store.open(key, start)

    def head(self, key: str) -> ObjectInfo | None:
        return self._store.head(key)

    def list(self, prefix: str, after: str = "", limit: int = 1000) -> Sequence[ObjectInfo]:
        return self._store.list(prefix, after, limit)

    def delete(self, key: str) -> None:
        self._store.delete(key)
