"""Copies of a whole store in another one: all that must last, since a coordination tree comes back from the store.

A copy is a store of the same keys and bytes, and can be used as one. It may be taken while builds run:

* A build is in it if it was accepted when the copy began, or is over when the copy comes to it. One of the former that is not over when the
  copy is made begins again from as far as it had come.
* Whatever an object of the copy refers to is in the copy: what is referred to is written first, and copied last.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from distci.errors import AlreadyExists, Damaged, Missing, NoSuchObject
from distci.model import BuildId
from distci.store import keys
from distci.store.port import ObjectInfo, Store, objects

REFERRED_TO = (
    *(keys.JOB_VERSIONS, keys.JOBS, keys.DOWNSTREAM, keys.HOOKS, keys.TAGS),
    *(keys.HELD, keys.CHANGES, keys.STATUSES, keys.PACKS, keys.EPOCHS),
    *(keys.SECRET_KEYS, keys.SECRETS, keys.QUARANTINE),
)
"""What builds refer to; and of a job its versions before the marks that are written before these."""

BESIDES = (keys.ACCESS_CHANGES, keys.ACCESS_USED, keys.AUDIT)
"""Who may do what, in the order of the changes, so that any beginning of it is whole; and who did what."""

CHUNK_BYTES = 1024 * 1024


@dataclass(slots=True)
class Copied:
    """How far a copy is."""

    objects: int = 0
    """Objects that were copied now."""
    size_bytes: int = 0
    kept: int = 0
    """Objects that were there already, with the same bytes."""
    in_flight: Sequence[BuildId] = field(default_factory=list)
    """Builds that are not over in the copy; they begin again from what it has of them."""


def copy(source: Store, target: Store, tell: Callable[[Copied], None] = lambda copied: None) -> Copied:
    """Copy all of one store into another, every object compared by its SHA-256; how much that was.

    Begin again where it was broken off, or later: what is there already with the same bytes stays. ``tell`` hears of every object.
    Raises Damaged when bytes come back other than they were written.
    """
    copied = Copied()
    # Events last: those of a build that is over in the copy are there. Of one that begins again there, those there are are found again.
    for prefix in (keys.ACCEPTED, keys.BUILDS, *REFERRED_TO, *BESIDES, keys.EVENTS):
        for info in _builds(source, target) if prefix == keys.BUILDS else objects(source, prefix):
            _copy(source, target, info, copied)
            tell(copied)
    accepted = [keys.accepted_build(info.key) for info in objects(target, keys.ACCEPTED)]
    copied.in_flight = [build for build in accepted if target.head(keys.build_record(build)) is None]
    return copied


def check_empty(store: Store) -> None:
    """AlreadyExists when a store holds anything that a copy could replace."""
    for prefix in (keys.ACCEPTED, keys.BUILDS, keys.JOB_VERSIONS, keys.PACKS, keys.ACCESS_CHANGES):
        for info in store.list(prefix, limit=1):
            raise AlreadyExists(
                f"the store is not empty: it holds {info.key}, for one; name an empty one, or say --force to go on with what was broken off"
            )


def check_copy(store: Store) -> None:
    """Missing when a store holds nothing, and so no copy: as one does whose URL was mistyped."""
    if not store.list("", limit=1):
        raise Missing("there is no backup at that URL: the store there is empty; look for a slip in it")


def _builds(source: Store, target: Store) -> Iterator[ObjectInfo]:
    """The objects of all builds that belong in the copy."""

    def is_known(build: BuildId) -> bool:
        # In this order: what is said to be over goes from the accepted ones after its record is there.
        return target.head(keys.accepted(build)) is not None or source.head(keys.build_record(build)) is not None

    position = ""
    while page := source.list(keys.BUILDS, position, 1):
        build = keys.build_of(page[0].key)
        # Listed anew: of a build that is over by now, all is there by now.
        for info in objects(source, keys.build(build)) if is_known(build) else ():
            if info.key.startswith((keys.started(build), keys.called(build))) and not is_known(
                BuildId.parse(source.get(info.key).decode())
            ):
                continue  # it will be started again, from the copy
            yield info
        position = keys.past_build(build)


def _copy(source: Store, target: Store, info: ObjectInfo, copied: Copied) -> None:
    there = target.head(info.key)
    try:
        if there and there.size_bytes == info.size_bytes and _digest(target, info.key) == _digest(source, info.key):
            copied.kept += 1
            return
        with source.open(info.key) as stream:
            digesting = _Digesting(stream)
            reader = io.BufferedReader(digesting, CHUNK_BYTES)
            target.put(info.key, reader if info.size_bytes > CHUNK_BYTES else reader.read())
    except NoSuchObject:
        return  # deleted since it was listed
    if _digest(target, info.key) != digesting.digest:
        raise Damaged(f"{info.key} came back other than it was written")
    copied.objects += 1
    copied.size_bytes += info.size_bytes


def _digest(store: Store, key: str) -> str:
    digest = hashlib.sha256()
    with store.open(key) as stream:
        while data := stream.read(CHUNK_BYTES):
            digest.update(data)
    return digest.hexdigest()


class _Digesting(io.RawIOBase):
    """A stream that knows the digest of what was read from it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self._hash.update(data)
        return len(data)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()
