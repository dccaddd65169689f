"""Bytes from a front end as something to read from: it goes on by range, at whichever front end answers, where a connection broke."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import requests

from distci.client.link import NO_SUCH_BYTES, Link
from distci.client.patience import Patience
from distci.errors import Conflict, InvalidDocument, Unavailable

PIECE_BYTES = 256 * 1024
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/\d+")


class Download(io.RawIOBase):
    """The bytes of one thing from ``start`` to ``end``. Memory is that of a piece, however many there are.

    Of what is fixed, the ETag must stay the same: Conflict when it is another thing in the middle. Unavailable when no front end answers
    for longer than patience lasts, counted from the last byte that came.
    """

    def __init__(
        self, link: Link, path: str, start: int = 0, end: int | None = None, *, is_fixed: bool = True, **query: Any
    ) -> None:
        self._link = link
        self._path = path
        self._query = query
        self._position = start
        self._last = start
        self._end = end
        self._is_fixed = is_fixed
        self._etag = ""
        self._patience: Patience | None = None
        self._held = memoryview(b"")
        self._answer: requests.Response | None = None
        self._pieces: Iterator[bytes] = iter(())
        if end is None or start < end:
            self._open()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._held and self._position < self._last:
            self._held = memoryview(self._next())
            self._position += len(self._held)
        count = min(len(buffer), len(self._held))
        buffer[:count] = self._held[:count]
        self._held = self._held[count:]
        return count

    def close(self) -> None:
        if self._answer is not None:
            self._answer.close()
        super().close()

    def pieces(self) -> Iterator[bytes]:
        """All of them, as they come."""
        with self:
            while piece := self.read(PIECE_BYTES):
                yield piece

    def buffered(self) -> BinaryIO:
        return cast(BinaryIO, io.BufferedReader(self, PIECE_BYTES))

    def _next(self) -> bytes:
        """Some more bytes; none where the connection broke and another was made."""
        try:
            piece = next(self._pieces, b"")
        except requests.RequestException:
            piece = b""
        if piece:
            self._patience = None
            return piece
        self._patience = self._patience or self._link.patience()
        if not self._patience.again():
            raise Unavailable(f"{self._path} broke off after {self._position} bytes, and nobody goes on with it")
        self._open()
        return b""

    def _open(self) -> None:
        """Ask for what is missing."""
        if self._answer is not None:
            self._answer.close()
        last = "" if self._end is None else str(self._end - 1)
        is_part = self._position > 0 or self._end is not None
        headers = {"Range": f"bytes={self._position}-{last}"} if is_part else {}
        if self._etag and is_part:
            headers["If-Range"] = self._etag
        self._answer = self._link.stream(self._path, headers, **self._query)
        if self._answer.status_code == NO_SUCH_BYTES:
            self._answer.content  # noqa: B018  # read to its end, so that the connection serves again
            self._last, self._pieces = self._position, iter(())
            return
        etag = self._answer.headers.get("ETag", "")
        if (self._etag and etag != self._etag) or (is_part and not self._begins_right(self._answer)):
            self._answer.close()
            raise Conflict(f"{self._path} became another one while it was fetched; begin again")
        self._etag = etag if self._is_fixed else ""
        length = self._answer.headers.get("Content-Length", "")
        if not length.isdigit():
            raise InvalidDocument(f"{self._path} came without its length; is something between that changes it?")
        self._last = self._position + int(length)
        self._pieces = self._answer.iter_content(PIECE_BYTES)

    def _begins_right(self, answer: requests.Response) -> bool:
        found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        return answer.status_code == 206 and found is not None and int(found[1]) == self._position
