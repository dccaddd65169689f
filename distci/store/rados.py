"""The store in RADOS, the object store beneath Ceph's gateway: in one namespace of one pool.

What lies there, what happens in which order, and what a crash leaves is told by :mod:`distci.store.index`. The pool must
be replicated, since erasure-coded ones hold no rows. The module ``rados`` comes with Ceph: no index of Python packages
has it.
"""

from __future__ import annotations

import base64
import errno
import io
import json
import os
import random
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any, BinaryIO
from weakref import finalize

from distci.errors import Damaged, DistCIError, Forbidden, Invalid, NoSuchObject, StoreUnavailable
from distci.store.index import LOOSE, ROWS_MAX, Index, Vanished, document_of, loose_text
from distci.store.keys import check_key, check_prefix, check_range
from distci.store.port import ObjectInfo
from distci.store.probe import probe
from distci.store.sources import WholeReads

try:
    import rados
except ImportError as error:
    raise Invalid(
        "store: rados:// takes the Python module rados, which comes with Ceph. On Debian: apt-get install python3-rados; "
        "an environment made with /usr/bin/python3 -m venv --system-site-packages finds it"
    ) from error

PART_BYTES = 8 * 1024 * 1024
"""What is written, and kept in memory, at a time. Ceph takes no more than 90 MiB in one operation."""

INLINE_BYTES_MAX = 1024
"""So few bytes are kept in the index: one operation instead of three."""

ABANDONED_AFTER_S = 24 * 60 * 60.0

TENDED_SHARE = 1 / 256
"""How many of all puts look after the index: the leaf that they wrote to, and one more."""

_CHUNK_BYTES = 1024 * 1024
_TURNS_MAX = 100
"""How often others may be faster. Each time one of them has got on."""

_RADOS_OPTIONS = {"log_to_stderr": "false", "err_to_stderr": "false", "log_file": "", "admin_socket": ""}
"""What goes wrong is told by the errors; programs that use us have other ideas of what belongs on standard error."""


class RadosStore:
    """A :class:`~distci.store.port.Store` on RADOS objects.

    Times of objects are those of the ``clock`` of who wrote them, in seconds since 1970.
    """

    def __init__(
        self,
        objects: RadosObjects,
        *,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
        rows_max: int = ROWS_MAX,
    ) -> None:
        self._objects = objects
        self._index = Index(objects, rows_max=rows_max)
        self._has_begun = False
        self._clock = clock
        self._chance = chance
        self._swept_next = " "

    def put(self, key: str, data: bytes | BinaryIO) -> None:
        self._put(key, data, replaces=True)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        return self._put(key, data, replaces=False)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        for _ in range(_TURNS_MAX):
            stream = self._stream(key, start, length)
            with suppress(_Replaced):
                return stream.readall()
        raise StoreUnavailable(f"store: object {key!r} was replaced {_TURNS_MAX} times while it was read")

    def open(self, key: str, start: int = 0) -> BinaryIO:
        return io.BufferedReader(self._stream(key, start, None), _CHUNK_BYTES)

    def head(self, key: str) -> ObjectInfo | None:
        text = self._row(check_key(key))
        return _Entry.parsed(text).info(key) if text else None

    def list(self, prefix: str, after: str = "", limit: int = 1000) -> Sequence[ObjectInfo]:
        check_prefix(prefix)
        check_prefix(after)
        return [_Entry.parsed(text).info(key) for key, text in self._begun().page(prefix, after, limit)]

    def delete(self, key: str) -> None:
        check_key(key)
        for _ in range(_TURNS_MAX):
            text = self._row(key)
            if not text:
                return
            old = _Entry.parsed(text)
            if self._index.change(key, {key: text}, self._void(key, old), [key]):
                self._remove_data(key, old.data)
                return
        raise _others_came_in_the_way(key)

    def probe(self) -> Sequence[str]:
        """What is wrong with the store or its settings, in sentences; empty when it can be relied on.

        Writes a small object under a name of its own, and removes it.
        """
        return probe(self, str(self._objects))

    def sweep(self, key: str = " ") -> str | None:
        """Remove what crashes left in the leaf of a key; gives the first key of the next leaf, None after the last.

        Puts do it now and then, where they wrote and in one leaf after the other. Raises what puts raise.
        """
        loose, end = self._begun().loose(key)
        for row, text in loose.items():
            said = document_of(text)
            if self._clock() - said["since_s"] < ABANDONED_AFTER_S:
                continue
            if said["is"] == "void":
                self._remove_parts(row.removeprefix(LOOSE))
                self._index.change(said["key"], {row: text}, {}, [row])
            else:
                self._index.change(said["key"], {row: text}, {row: loose_text(said["key"], "void", self._clock())})
        return end

    def _put(self, key: str, data: bytes | BinaryIO, *, replaces: bool) -> bool:
        check_key(key)
        source = WholeReads(io.BytesIO(data) if isinstance(data, bytes) else data)
        part = source.read(PART_BYTES)
        if len(part) <= INLINE_BYTES_MAX:
            is_put = self._link(key, _Entry(len(part), self._clock(), inline=part), replaces=replaces)
        elif not replaces and self._row(key):
            return False
        else:
            is_put = self._upload(key, part, source, replaces=replaces)
        if self._chance() < TENDED_SHARE:
            # The object is put, whatever becomes of this.
            with suppress(DistCIError):
                self._index.split_if_large(key)
                self.sweep(key)
                self._swept_next = self.sweep(self._swept_next) or " "
        return is_put

    def _upload(self, key: str, part: bytes, source: WholeReads, *, replaces: bool) -> bool:
        data = uuid.uuid4().hex
        text = loose_text(key, "writing", self._clock())
        self._insist(key, {LOOSE + data: text})
        is_put = False
        try:
            size_bytes = count = 0
            while part:
                self._objects.write(_part(data, count), part)
                size_bytes, count = size_bytes + len(part), count + 1
                part = source.read(PART_BYTES) if len(part) == PART_BYTES else b""
            entry = _Entry(size_bytes, self._clock(), data=data)
            is_put = self._link(key, entry, replaces=replaces, writing=text)
        finally:
            if not is_put:
                with suppress(DistCIError):
                    self._discard(key, data, text)
        return is_put

    def _link(self, key: str, entry: _Entry, *, replaces: bool, writing: str = "") -> bool:
        """Make a key stand for other bytes. False when there are some and they are not to be replaced."""
        loose = {LOOSE + entry.data: writing} if entry.data else {}
        # Most keys are written once.
        seen = ""
        for _ in range(_TURNS_MAX):
            if seen and not replaces:
                return False
            old = _Entry.parsed(seen) if seen else _Entry(0, 0)
            rows = {key: entry.text, **self._void(key, old)}
            if self._begun().change(key, {key: seen, **loose}, rows, loose):
                self._remove_data(key, old.data)
                return True
            found = self._index.rows(key, [key, *loose])
            seen = found.get(key, "")
            if any(found.get(row) != text for row, text in loose.items()):
                raise StoreUnavailable(f"store: writing {key!r} took so long that others took its writer for dead")
        raise _others_came_in_the_way(key)

    def _discard(self, key: str, data: str, writing: str) -> None:
        """Remove data that was written for an object; nothing happens if it became one after all."""
        row = LOOSE + data
        void = loose_text(key, "void", self._clock())
        while not self._index.change(key, {row: writing}, {row: void}):
            if self._index.rows(key, [row]).get(row) != writing:
                return
        self._remove_data(key, data)

    def _remove_data(self, key: str, data: str) -> None:
        """Remove data whose row is void. Whatever comes in the way is left to the sweep."""
        if data:
            with suppress(DistCIError):
                self._remove_parts(data)
                self._insist(key, {}, [LOOSE + data])

    def _remove_parts(self, data: str) -> None:
        count = 0
        while self._objects.exists(_part(data, count)):
            count += 1
        # From the end, so that those that are left are found again.
        for number in reversed(range(count)):
            self._objects.remove(_part(data, number))

    def _insist(self, key: str, put: Mapping[str, str], remove: Collection[str] = ()) -> None:
        """Change rows near a key, however often the leaf is split meanwhile."""
        for _ in range(_TURNS_MAX):
            if self._begun().change(key, {}, put, remove):
                return
        raise _others_came_in_the_way(key)

    def _void(self, key: str, old: _Entry) -> dict[str, str]:
        return {LOOSE + old.data: loose_text(key, "void", self._clock())} if old.data else {}

    def _stream(self, key: str, start: int, length: int | None) -> _Stream:
        check_key(key)
        check_range(start, length)
        text = self._row(key)
        if not text:
            raise NoSuchObject(f"the store has no object {key!r}")
        return _Stream(self._objects, key, text, start, length, lambda: self._row(key))

    def _row(self, key: str) -> str:
        return self._begun().rows(key, [key]).get(key, "")

    def _begun(self) -> Index:
        if not self._has_begun:
            # Who may only read finds an index, or finds the store missing.
            with suppress(Forbidden):
                self._index.begin()
            self._has_begun = True
        return self._index


@dataclass(frozen=True, slots=True)
class _Entry:
    """What a key's row says."""

    size_bytes: int
    modified_s: float
    inline: bytes = b""
    data: str = ""
    """Id of the data, for objects that are not inline."""

    @property
    def text(self) -> str:
        where = {"data": self.data} if self.data else {"inline": base64.b64encode(self.inline).decode()}
        return json.dumps({"size_bytes": self.size_bytes, "modified_s": self.modified_s, **where})

    @classmethod
    def parsed(cls, text: str) -> _Entry:
        said = document_of(text)
        inline = base64.b64decode(said.get("inline", ""))
        return cls(said["size_bytes"], said["modified_s"], inline, said.get("data", ""))

    def info(self, key: str) -> ObjectInfo:
        return ObjectInfo(key, self.size_bytes, self.modified_s)


class _Replaced(StoreUnavailable):
    """The bytes that were being read are no longer the object's."""


class _Stream(io.RawIOBase):
    """The bytes of one version of an object from ``start`` on."""

    def __init__(
        self, objects: RadosObjects, key: str, text: str, start: int, length: int | None, look: Callable[[], str]
    ) -> None:
        self._objects = objects
        self._key = key
        self._text = text
        self._entry = _Entry.parsed(text)
        size_bytes = self._entry.size_bytes
        self._position = min(start, size_bytes)
        self._end = size_bytes if length is None else min(start + length, size_bytes)
        self._look = look

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer)
        data = self._next(len(view))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self._next(PART_BYTES), b""))

    def _next(self, wanted: int) -> bytes:
        """The next bytes, as many as are wanted and one part holds."""
        number, offset = divmod(self._position, PART_BYTES)
        length = max(0, min(wanted, PART_BYTES - offset, self._end - self._position))
        if self._entry.data and length:
            data = self._objects.read(_part(self._entry.data, number), length, offset)
        else:
            data = self._entry.inline[self._position : self._position + length]
        if len(data) < length:
            if self._look() == self._text:
                raise Damaged(f"store: the bytes of {self._key!r} are not in {self._objects} any more")
            raise _Replaced(f"store: object {self._key!r} was replaced while it was read")
        self._position += len(data)
        return data


class RadosObjects:
    """The RADOS objects of one namespace of a pool, by one operation a call. The pool must exist.

    ``conf`` is Ceph's configuration file, which tells where the monitors are; ``name`` is the user. Nothing is asked of
    Ceph until the first call. No operation takes longer than ``call_timeout_s``. Any thread may use them.
    """

    def __init__(self, pool: str, namespace: str, *, conf: str, name: str, call_timeout_s: int = 30) -> None:
        self._pool = pool
        self._namespace = namespace
        self.conf = conf
        self._name = name
        limits = ("rados_osd_op_timeout", "rados_mon_op_timeout", "client_mount_timeout")
        self._options = _RADOS_OPTIONS | {limit: str(call_timeout_s) for limit in limits}
        self._lock = Lock()
        self._ioctx: Any = None
        self._attempts = 0
        self._failure: DistCIError = StoreUnavailable()

    def __str__(self) -> str:
        return f"pool {self._pool!r}, namespace {self._namespace!r}, for {self._name} by {self.conf}"

    def create(self, name: str) -> None:
        with self.operation(name) as context, rados.WriteOpCtx() as operation:
            operation.new(rados.LIBRADOS_CREATE_IDEMPOTENT)
            context.operate_write_op(operation, name)

    def change(
        self, name: str, where: Mapping[str, str], put: Mapping[str, str], remove: Collection[str] = (), *, clear: bool
    ) -> bool:
        try:
            with self.operation(name) as context, rados.WriteOpCtx() as operation:
                for row, text in where.items():
                    operation.omap_cmp(row, text)
                if clear:
                    context.clear_omap(operation)
                if remove:
                    context.remove_omap_keys(operation, tuple(remove))
                if put:
                    context.set_omap(operation, tuple(put), tuple(text.encode() for text in put.values()))
                context.operate_write_op(operation, name)
        except _Refused:
            return False
        return True

    def rows(self, name: str, wanted: Sequence[str]) -> dict[str, str]:
        with self.operation(name) as context, rados.ReadOpCtx() as operation:
            found, _ = context.get_omap_vals_by_keys(operation, tuple(wanted))
            context.operate_read_op(operation, name)
            return _texts(found)

    def page(self, name: str, after: str, prefix: str, limit: int, wanted: Sequence[str]) -> dict[str, str]:
        with self.operation(name) as context, rados.ReadOpCtx() as operation:
            found, _ = context.get_omap_vals_by_keys(operation, tuple(wanted))
            page, _ = context.get_omap_vals(operation, after, prefix, limit)
            context.operate_read_op(operation, name)
            return _texts(found) | _texts(page)

    def write(self, name: str, data: bytes) -> None:
        with self.operation(name) as context:
            context.write_full(name, data)

    def read(self, name: str, length: int, offset: int) -> bytes:
        """So many bytes of a RADOS object; fewer at its end, none where there is no such object."""
        try:
            with self.operation(name) as context:
                return bytes(context.read(name, length, offset))
        except Vanished:
            return b""

    def exists(self, name: str) -> bool:
        try:
            with self.operation(name) as context:
                context.stat(name)
        except Vanished:
            return False
        return True

    def remove(self, name: str) -> None:
        with suppress(Vanished), self.operation(name) as context:
            context.remove_object(name)

    @contextmanager
    def operation(self, name: str) -> Iterator[Any]:
        """What to do one operation on a RADOS object with; its errors are those of the store port."""
        with mapped_errors(f"{self}: {name}"):
            yield self._connected()

    def _connected(self) -> Any:
        attempts = self._attempts
        with self._lock:
            if self._ioctx is None and self._attempts > attempts:
                # Who has waited for somebody else's attempt need not wait for one of its own.
                raise type(self._failure)(str(self._failure)) from self._failure
            if self._ioctx is None:
                try:
                    with mapped_errors(str(self)):
                        self._ioctx = self._connect()
                except DistCIError as error:
                    self._attempts, self._failure = attempts + 1, error
                    raise
            return self._ioctx

    def _connect(self) -> Any:
        cluster = self.cluster()
        try:
            context = cluster.open_ioctx(self._pool)
        except rados.ObjectNotFound as error:
            raise StoreUnavailable(
                f"store: there is no pool {self._pool!r}: create it, or correct the store's address"
            ) from error
        context.set_namespace(self._namespace)
        # In a full pool writes fail at once, and deletes succeed, instead of both waiting for room.
        context.set_osdmap_full_try()
        return context

    def cluster(self) -> Any:
        """A new connection to the cluster, which ends with these objects. It has a dozen threads of its own."""
        try:
            cluster = rados.Rados(name=self._name, conffile=self.conf, conf=self._options)
        except rados.Error as error:
            reason = os.strerror(getattr(error, "errno", errno.EINVAL))
            raise Invalid(f"store: Ceph's configuration {self.conf} cannot be read: {reason}") from error
        end = finalize(self, cluster.shutdown)
        # Not when the process ends: that would wait for an OSD that stands still.
        end.atexit = False
        try:
            cluster.connect()
        except rados.Error as error:
            end()
            if isinstance(error, rados.ObjectNotFound):
                raise Forbidden(f"store: no key of {self._name} is where {self.conf} looks for it: {error}") from error
            raise
        return cluster


class _Refused(Exception):
    """A row was not as it should have been."""


@contextmanager
def mapped_errors(place: str) -> Iterator[None]:
    """Turn what librados raises into the errors of the store port, the cause chained."""
    try:
        yield
    except rados.Error as error:
        number = getattr(error, "errno", 0)
        if number == errno.ECANCELED:
            raise _Refused from error
        # Of an error that nobody thought of, nothing is known either; librados does not even say what its number means.
        home = home_of(type(error))
        reason = error if home else f"{os.strerror(number)}: {error}"
        raise (home or StoreUnavailable)(f"store: {place}: {reason}") from error


_HOMES: Mapping[type[DistCIError], Sequence[type[Exception]]] = {
    Vanished: (rados.ObjectNotFound,),
    Forbidden: (rados.PermissionError, rados.PermissionDeniedError),
    StoreUnavailable: (
        rados.TimedOut,
        rados.InterruptedOrTimeoutError,
        rados.InProgress,
        rados.IOError,
        rados.NoSpace,
        rados.NoData,
        rados.ObjectBusy,
        rados.ObjectExists,
        rados.RadosStateError,
        rados.IoctxStateError,
        rados.ObjectStateError,
        rados.NotConnected,
        rados.ConnectionShutdown,
        rados.IsConnected,
    ),
    Invalid: (rados.InvalidArgumentError,),
}


def home_of(library_error: type[Exception]) -> type[DistCIError] | None:
    """Where an error of librados belongs in the tree of :mod:`distci.errors`; None when nobody has said."""
    homes = (home for home, classes in _HOMES.items() if issubclass(library_error, tuple(classes)))
    return next(homes, None)


def _part(data: str, number: int) -> str:
    return f"data/{data}/{number}"


def _texts(rows: Any) -> dict[str, str]:
    return {name: (value or b"").decode() for name, value in rows}


def _others_came_in_the_way(key: str) -> StoreUnavailable:
    return StoreUnavailable(f"store: other writes of {key!r}, or near it, came in the way {_TURNS_MAX} times")
