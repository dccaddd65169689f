"""Where the bytes of an upload come from, and streams of what comes in pieces."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, BinaryIO, cast


class WholeReads:
    """A source that gives as much as it is asked for, until its end: pipes and sockets give what they have."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            return self._source.read()
        chunks = []
        while size > 0 and (chunk := self._source.read(size)):
            chunks.append(chunk)
            size -= len(chunk)
        return b"".join(chunks)


def stream_of(pieces: Iterator[bytes]) -> BinaryIO:
    """Pieces, none of them empty, as something to read from. To close it ends what gives them."""
    return cast(BinaryIO, io.BufferedReader(_Pieces(pieces), 1))


class _Pieces(io.RawIOBase):
    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        if not self._held:
            self._held = memoryview(next(self._pieces, b""))
        count = min(len(buffer), len(self._held))
        buffer[:count] = self._held[:count]
        self._held = self._held[count:]
        return count

    def close(self) -> None:
        end = getattr(self._pieces, "close", None)
        if end is not None and not self.closed:
            end()
        super().close()
