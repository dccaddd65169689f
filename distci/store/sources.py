"""Where the bytes of an upload come from."""

from __future__ import annotations

from typing import BinaryIO


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
