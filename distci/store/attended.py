"""A store whose user is asked, on every way to it, whether to go on."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, cast

from distci.store.port import ObjectInfo, Store

Checkpoint = Callable[[], None]
"""Called now and then by what takes long; it raises when that shall end."""


class AttendedStore:
    """A :class:`~distci.store.port.Store` that passes a checkpoint before each request and before each piece of a stream.

    So whatever moves bytes through it, however many, ends soon after it shall. Errors of the checkpoint pass as they are.
    """

    def __init__(self, store: Store, checkpoint: Checkpoint) -> None:
        self._store = store
        self._checkpoint = checkpoint

    def put(self, key: str, data: bytes | BinaryIO) -> None:
        self._checkpoint()
        self._store.put(key, data if isinstance(data, bytes) else self._attended(data))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self._checkpoint()
        return self._store.put_if_absent(key, data)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self._checkpoint()
        return self._store.get(key, start, length)

    def open(self, key: str, start: int = 0) -> BinaryIO:
        self._checkpoint()
        return self._attended(self._store.open(key, start))

    def head(self, key: str) -> ObjectInfo | None:
        self._checkpoint()
        return self._store.head(key)

    def list(self, prefix: str, after: str = "", limit: int = 1000) -> Sequence[ObjectInfo]:
        self._checkpoint()
        return self._store.list(prefix, after, limit)

    def delete(self, key: str) -> None:
        self._checkpoint()
        self._store.delete(key)

    def _attended(self, stream: BinaryIO) -> BinaryIO:
        return cast(BinaryIO, _AttendedStream(stream, self._checkpoint))


class _AttendedStream(io.RawIOBase):
    """A stream to read from, with a checkpoint before each read."""

    def __init__(self, stream: BinaryIO, checkpoint: Checkpoint) -> None:
        self._stream = stream
        self._checkpoint = checkpoint

    def read(self, size: int = -1) -> bytes:
        self._checkpoint()
        return self._stream.read(size)

    def readinto(self, buffer: Any, /) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed and hasattr(self._stream, "close"):
            self._stream.close()
        super().close()
