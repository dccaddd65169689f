"""Console logs: bytes as they were printed, in chunks that are named by where they begin.

A chunk is written once more under the same name and with the same bytes when its upload failed, so that a repeated upload doubles
nothing, and a log is read by putting chunks in order. Nobody needs to know how many there will be.
"""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from threading import Condition, Thread
from typing import BinaryIO, cast

from distci.errors import Damaged, StoreUnavailable, Unavailable
from distci.store import keys
from distci.store.port import ObjectInfo, Store, objects

CHUNK_BYTES = 1024 * 1024
BUFFER_BYTES = 16 * 1024 * 1024
"""What may wait in memory for its upload; what comes then waits in a file."""

SPOOL_FREE_BYTES_MIN = 1024 * 1024 * 1024
"""What such files leave free of their file system; when there is less, whoever prints has to wait."""

FLUSH_AFTER_S = 0.25
"""How long the first byte of a chunk waits for more: well within the second in which a follower shall see a line."""

LOG_BYTES_MAX = 1024 * 1024 * 1024
RETRY_S = 0.5
"""Pause between uploads while the store does not answer."""

LAST_LINE_BYTES_MAX = 100
"""Of what a log that is full says besides."""

NEAR = 64
"""How many chunks are listed at a time to go on with a log from some place in it."""

BACK = (0, 4 * 1024, 64 * 1024, CHUNK_BYTES)
"""How far before a byte the chunk that holds it may begin, the likeliest first."""

GROWTH = 64
"""How many chunks are taken at a time of what has come to a log."""


class LogWriter:
    """The console log of one attempt, uploaded by a thread of its own. Any thread may write."""

    def __init__(
        self,
        put: Callable[[int, bytes], None],
        *,
        flush_after_s: float = FLUSH_AFTER_S,
        bytes_max: int = LOG_BYTES_MAX,
        spool: Path | None = None,
    ) -> None:
        """``put`` stores the chunk that begins at an offset; where it raises Unavailable, it is called again with the same. Beyond ``bytes_max`` output is dropped, and the log says so.

        ``spool`` is a folder for what waits longer than there is memory for; None: then whoever prints has to wait.
        """
        self._put = put
        self._flush_after_s = flush_after_s
        self._left = bytes_max
        self._dropped = 0
        self._change = Condition()
        self._waiting: deque[memoryview] = deque()
        self._waiting_bytes = 0
        self._spool = _Spool(spool) if spool else None
        self._offset = 0
        self._is_closing = False
        self._is_abandoned = False
        self._error: Exception | None = None
        self._uploader = Thread(target=self._upload_all, name="log upload", daemon=True)
        self._uploader.start()

    def write(self, data: bytes) -> None:
        """Append to the log; waits while too much is waiting for the store. Nothing happens when the log was abandoned."""
        with self._change:
            kept = data[: self._left]
            self._left -= len(kept)
            self._dropped += len(data) - len(kept)
            if kept:
                self._change.wait_for(lambda: self._takes(kept))
                self._raise_error()

    def close(self, timeout_s: float | None = None) -> int:
        """Upload what is left; the size of the log in bytes. StoreUnavailable when that takes longer than ``timeout_s``."""
        with self._change:
            if self._dropped:
                last = b"\ndistci: the log is full; %d more bytes were dropped\n" % self._dropped
                if not self._change.wait_for(lambda: self._takes(last), timeout_s):
                    raise StoreUnavailable("the end of the log could not be stored in time")
                self._dropped = 0
            self._is_closing = True
            self._change.notify_all()
        self._uploader.join(timeout_s)
        if self._uploader.is_alive():
            raise StoreUnavailable("the end of the log could not be stored in time")
        self._raise_error()
        return self._offset

    def abandon(self) -> None:
        """Stop uploading: nobody will read on. What waits is dropped."""
        with self._change:
            self._is_closing = self._is_abandoned = True
            self._waiting.clear()
            if self._spool:
                self._spool.close()
            self._change.notify_all()
        self._uploader.join()

    def _append(self, data: bytes) -> None:
        # A view, since cutting a chunk off the bytes would copy all that is behind it.
        self._waiting.append(memoryview(data))
        self._waiting_bytes += len(data)
        self._change.notify_all()

    def _takes(self, data: bytes) -> bool:
        """Whether these bytes have been taken, or need not be. Once some wait in the file, all that come do until it is empty."""
        if self._is_abandoned or self._error is not None:
            return True
        if not (self._spool and self._spool.left_bytes) and self._waiting_bytes < BUFFER_BYTES:
            self._append(data)
            return True
        return bool(self._spool and self._spool.add(data))

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _upload_all(self) -> None:
        try:
            while (chunk := self._next_chunk()) is not None:
                self._upload(chunk)
        except Exception as error:
            with self._change:
                self._error = error
                self._change.notify_all()

    def _next_chunk(self) -> bytes | None:
        """The next bytes to store, at most a chunk; None when all is stored or nobody wants it any more."""
        with self._change:
            self._change.wait_for(lambda: self._waiting or self._is_closing)
            self._change.wait_for(
                lambda: self._waiting_bytes >= CHUNK_BYTES or self._is_closing, timeout=self._flush_after_s
            )
            if not self._waiting:
                return None
            return self._cut_chunk()

    def _cut_chunk(self) -> bytes:
        parts: list[memoryview] = []
        room = CHUNK_BYTES
        while self._waiting and room:
            data = self._waiting.popleft()
            if len(data) > room:
                self._waiting.appendleft(data[room:])
            parts.append(data[:room])
            room -= len(parts[-1])
        return b"".join(parts)

    def _upload(self, chunk: bytes) -> None:
        while not self._is_abandoned:
            try:
                self._put(self._offset, chunk)
                break
            except Unavailable:
                with self._change:
                    self._change.wait_for(lambda: self._is_abandoned, timeout=RETRY_S)
        with self._change:
            self._offset += len(chunk)
            self._waiting_bytes -= len(chunk)
            if self._spool and self._spool.left_bytes and not self._is_abandoned:
                self._append(self._spool.take(CHUNK_BYTES))
            self._change.notify_all()


class _Spool:
    """Bytes in a file, first in first out. It has no name, so that it dies with its process: then its attempt counts for nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: BinaryIO | None = None
        self._taken = 0
        self.left_bytes = 0

    def add(self, data: bytes) -> bool:
        """Whether they found room. Less than all of them is none."""
        try:
            if shutil.disk_usage(self._folder).free - len(data) < SPOOL_FREE_BYTES_MIN:
                return False
            if self._file is None:
                self._file = cast(BinaryIO, TemporaryFile(dir=self._folder))  # noqa: SIM115 - closed with the log
            if os.pwrite(self._file.fileno(), data, self._taken + self.left_bytes) < len(data):
                return False
        except OSError:
            return False
        self.left_bytes += len(data)
        return True

    def take(self, most_bytes: int) -> bytes:
        assert self._file is not None, "only what was added can be taken"
        data = os.pread(self._file.fileno(), min(most_bytes, self.left_bytes), self._taken)
        self._taken += len(data)
        self.left_bytes -= len(data)
        if not self.left_bytes:
            os.ftruncate(self._file.fileno(), 0)
            self._taken = 0
        return data

    def close(self) -> None:
        self.left_bytes = 0
        if self._file is not None:
            self._file.close()


def read_log(store: Store, prefix: str, start: int = 0, is_complete: bool = False) -> Iterator[bytes]:
    """The bytes of a log from ``start`` on, as far as they are stored. ``prefix`` is what the keys of its chunks begin with.

    Raises Damaged when a log that ``is_complete`` lacks bytes in its middle; of one that still grows the rest is left for later.
    """
    position = start
    for info in _chunks_from(store, prefix, start):
        offset = keys.offset_of_chunk(info.key)
        if offset + info.size_bytes <= position:
            continue
        if offset > position:
            if is_complete:
                raise Damaged(f"{prefix}: bytes {position} to {offset} of the log are missing")
            return
        data = store.get(info.key, position - offset)
        yield data
        position += len(data)


def read_piece(store: Store, prefix: str, start: int, bytes_max: int) -> bytes:
    """The next bytes of a log from ``start`` on, at most so many; none when nothing more is stored yet.

    It asks for the chunks near ``start`` alone, however long the log is.
    """
    parts: list[bytes] = []
    position, end = start, start + bytes_max
    for info in _chunks_from(store, prefix, start):
        offset = keys.offset_of_chunk(info.key)
        if offset + info.size_bytes <= position:
            continue
        if offset > position or position == end:
            break
        parts.append(store.get(info.key, position - offset, end - position))
        position += len(parts[-1])
    return b"".join(parts)


def read_growth(store: Store, prefix: str, end: int) -> bytes:
    """What has come to a log that has been read to its ``end``: a few whole chunks at most, so that it is at the end of one once more.

    While nothing has come that is one short list, and no more.
    """
    parts: list[bytes] = []
    position = end
    for info in objects(store, prefix, _before(prefix, end), GROWTH):
        if keys.offset_of_chunk(info.key) != position or position - end >= CHUNK_BYTES:
            break
        parts.append(store.get(info.key))
        position += len(parts[-1])
    return b"".join(parts)


def is_more_after(store: Store, prefix: str, position: int) -> bool:
    """Whether a chunk begins behind ``position``."""
    return bool(store.list(prefix, keys.at_offset(prefix, position), 1))


def _chunks_from(store: Store, prefix: str, start: int) -> Iterator[ObjectInfo]:
    """The chunks of a log from the one on that holds byte ``start``, perhaps with some before it.

    Where that one begins is not known, only that it has a chunk's length at most: it is looked for further and further back.
    """
    for back in BACK:
        chunks = objects(store, prefix, _before(prefix, start - back), page_length=NEAR)
        first = next(chunks, None)
        if back >= start or back == BACK[-1] or (first and keys.offset_of_chunk(first.key) <= start):
            if first:
                yield first
            yield from chunks
            return


def _before(prefix: str, offset: int) -> str:
    """What a list goes on after, to have the chunk first that begins at that offset."""
    return keys.at_offset(prefix, offset - 1) if offset > 0 else ""
