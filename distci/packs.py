"""Packs: many contents in one object of the store, so that a thousand small files cost one request and not a thousand.

A pack is contents one after the other, compressed as one stream and named by the SHA-256 of its bytes. Each content is
named by its own SHA-256, and both are checked by whoever reads. Nothing here takes more memory for a larger content.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, NamedTuple, Self, cast

import zstandard

from distci.errors import Damaged, NoSuchObject
from distci.snapshots import EMPTY, Content, Pack
from distci.store import keys
from distci.store.attended import Checkpoint
from distci.store.port import Store

PACK_BYTES_MAX = 32 * 1024 * 1024
"""Of contents in one pack, unless it is a single larger one."""

CHUNK_BYTES = 1024 * 1024

Read = Callable[[int], bytes]
"""Gives as many bytes at most; none at the end."""

_LEVEL = 1
"""Of compression: the network is seldom so slow that more of it pays."""

_SPOOL_BYTES = 4 * 1024 * 1024
"""Packs up to here are put together in memory, larger ones in a file."""

_WINDOW_BYTES_MAX = 8 * 1024 * 1024
"""Memory that a pack may ask for to be read; ours need 512 KiB."""


class Packer:
    """Puts contents into new packs, each content once. One thread uses it, as a context manager."""

    def __init__(
        self, store: Store, folder: Path, known: Iterable[Content], checkpoint: Checkpoint = lambda: None
    ) -> None:
        """``folder`` takes nameless files while packs are made; ``known`` are contents that need no new place."""
        self._store = store
        self._checkpoint = checkpoint
        self._folder = folder
        self._contents: list[Content | _Draft] = list(known)
        self._numbers = {content.sha256: number for number, content in enumerate(self._contents)}
        self._sizes = {content.size_bytes for content in self._contents}
        self._pack: _OpenPack | None = None
        self.moved_bytes = 0
        """What went to the store so far."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pack is not None:
            self._pack.file.close()

    def add(self, descriptor: int, size_bytes: int) -> int:
        """Read a file, at most so many bytes of it; the number of its content in what :meth:`finish` gives back.

        Others may write to the file meanwhile: what was read is what is kept, size and digest included.
        """
        return self.add_from(partial(os.read, descriptor), partial(os.lseek, descriptor, 0, os.SEEK_SET), size_bytes)

    def add_from(self, read: Read, rewind: Callable[[], object], size_bytes: int) -> int:
        """The same of anything that can be read from its beginning twice."""
        if size_bytes <= CHUNK_BYTES:
            data = b"".join(self._chunks(read, size_bytes))
            number = self._numbers.get(hashlib.sha256(data).hexdigest())
            return self._append((data,), len(data)) if number is None else number
        if size_bytes in self._sizes:
            # Perhaps it was only touched, or copied: reading twice costs less than keeping twice.
            number = self._numbers.get(_digest(self._chunks(read, size_bytes)))
            if number is not None:
                return number
            rewind()
        return self._append(self._chunks(read, size_bytes), size_bytes)

    def finish(self) -> Sequence[Content]:
        """Store what is not stored yet; all contents by their numbers."""
        self._close_pack()
        return [content.settled() if isinstance(content, _Draft) else content for content in self._contents]

    def _chunks(self, read: Read, size_bytes: int) -> Iterator[bytes]:
        """What is read from where it stands on, at most so many bytes of it."""
        while size_bytes > 0:
            self._checkpoint()
            chunk = read(min(size_bytes, CHUNK_BYTES))
            if not chunk:
                return
            size_bytes -= len(chunk)
            yield chunk

    def _append(self, chunks: Iterable[bytes], size_bytes: int) -> int:
        pack = self._pack_for(size_bytes)
        offset, digest = pack.content_bytes, hashlib.sha256()
        for chunk in chunks:
            digest.update(chunk)
            pack.append(chunk)
        draft = _Draft(digest.hexdigest(), pack.content_bytes - offset, pack, offset)
        self._contents.append(draft)
        self._sizes.add(draft.size_bytes)
        return self._numbers.setdefault(draft.sha256, len(self._contents) - 1)

    def _pack_for(self, size_bytes: int) -> _OpenPack:
        if self._pack is not None and self._pack.content_bytes + size_bytes > PACK_BYTES_MAX:
            self._close_pack()
        if self._pack is None:
            self._pack = _OpenPack(self._folder)
        return self._pack

    def _close_pack(self) -> None:
        if self._pack is not None:
            self.moved_bytes += self._pack.store(self._store).packed_bytes
            self._pack = None


class _OpenPack:
    """A pack that takes contents until it is stored."""

    def __init__(self, folder: Path) -> None:
        self.file = SpooledTemporaryFile(_SPOOL_BYTES, dir=str(folder))  # noqa: SIM115 - closed when stored, or by the packer
        self.content_bytes = 0
        self.pack: Pack | None = None
        self._compressor = zstandard.ZstdCompressor(_LEVEL).compressobj()
        self._digest = hashlib.sha256()

    def append(self, chunk: bytes) -> None:
        self.content_bytes += len(chunk)
        self._write(self._compressor.compress(chunk))

    def store(self, store: Store) -> Pack:
        self._write(self._compressor.flush())
        self.pack = Pack(self._digest.hexdigest(), self.file.tell(), self.content_bytes)
        self.file.seek(0)
        is_small = self.pack.packed_bytes <= _SPOOL_BYTES
        store.put(keys.pack(self.pack.digest), self.file.read() if is_small else cast(BinaryIO, self.file))
        self.file.close()
        return self.pack

    def _write(self, packed: bytes) -> None:
        if packed:
            self._digest.update(packed)
            self.file.write(packed)


class _Draft(NamedTuple):
    """A content in a pack whose name is not known yet."""

    sha256: str
    size_bytes: int
    into: _OpenPack
    offset: int

    def settled(self) -> Content:
        return Content(self.sha256, self.size_bytes, self.into.pack, self.offset) if self.size_bytes else EMPTY


class Unpacker:
    """Reads contents out of one pack, in the order in which they lie there. A context manager.

    What is not as it was written raises :class:`~distci.errors.Damaged`, and so does a pack that is gone; a store that
    is away raises :class:`~distci.errors.StoreUnavailable`.
    """

    def __init__(self, store: Store, pack: Pack) -> None:
        self._pack = pack
        self._key = keys.pack(pack.digest)
        try:
            self._packed = _Measured(store.open(self._key))
        except NoSuchObject as error:
            raise Damaged(f"pack {self._key} is gone") from error
        decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES_MAX)
        self._contents = decompressor.stream_reader(cast(BinaryIO, self._packed), read_size=CHUNK_BYTES)
        self._position = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._packed.close()

    def copy(self, content: Content, write: Callable[[bytes], object]) -> None:
        """Hand a content on, chunk by chunk. Not before this returns is it known to be what was written."""
        if content.offset < self._position:
            raise Damaged(f"pack {self._key} is said to hold two contents in one place, at {content.offset}")
        for _ in self._read(content.offset - self._position):
            pass
        digest = hashlib.sha256()
        for chunk in self._read(content.size_bytes):
            digest.update(chunk)
            write(chunk)
        if digest.hexdigest() != content.sha256:
            raise Damaged(f"pack {self._key} holds something else than {content.sha256} at {content.offset}")

    def finish(self) -> None:
        """Check the pack itself. What lies behind the last content is not unpacked for that."""
        while self._packed.size_bytes <= self._pack.packed_bytes and self._packed.read(CHUNK_BYTES):
            pass
        if (self._packed.size_bytes, self._packed.digest) != (self._pack.packed_bytes, self._pack.digest):
            raise Damaged(f"pack {self._key} is not as it was written")

    def _read(self, size_bytes: int) -> Iterator[bytes]:
        end = self._position + size_bytes
        while self._position < end:
            with self._mapped_errors():
                chunk = self._contents.read(min(CHUNK_BYTES, end - self._position))
            if not chunk:
                raise Damaged(f"pack {self._key} ends after {self._position} of {self._pack.content_bytes} bytes")
            self._position += len(chunk)
            yield chunk

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except zstandard.ZstdError as error:
            raise Damaged(f"pack {self._key} is damaged: {error}") from error


class _Measured:
    """A stream that keeps size and digest of what was read from it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    def read(self, size_bytes: int) -> bytes:
        data = self._stream.read(size_bytes)
        self._digest.update(data)
        self.size_bytes += len(data)
        return data

    def close(self) -> None:
        self._stream.close()


def _digest(chunks: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()
