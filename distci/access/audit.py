"""Who did what, when, from where and why: objects that are only ever added, named so that they sort by time.

A change that shall not happen without a trace is put down before it begins, durably, and once more with what became of it; whoever dies between leaves
an entry of which nobody knows how it ended. Where something else is the trace already (a build names who started it) or where it must not wait for
the store (pausing, in an outage), one entry is written afterwards, by a thread that tries until it succeeds or the process ends.

Who acts is said once, by whoever lets somebody in (:func:`acting`), not by each of all that can be done. No secret gets here: what is put down
are names, and whatever looks like a token is masked.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from queue import Full, Queue
from threading import Event, Lock, Thread
from time import time as wall_clock

from distci.access.texts import masked
from distci.documents.strict_json import read_json
from distci.errors import DistCIError, InvalidDocument, NoSuchObject, Unavailable
from distci.model import Json
from distci.store import keys
from distci.store.port import Store

log = logging.getLogger(__name__)

FORMAT = 1
CHARS_MAX = 500
"""Of each text in an entry."""
WAITING_MAX = 10_000
PAUSE_S = 1.0
"""Between two tries to reach the store."""
CLOSE_S = 5.0
"""How long the end of a process waits for what is still to be written."""

DONE, UNKNOWN = "done", "unknown"


@dataclass(frozen=True, slots=True)
class Acting:
    """In whose name, and from where, something is done."""

    who: str
    origin: str = ""
    """An address or a host."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that somebody did, or wanted to do."""

    time_ms: int
    """Milliseconds since 1970 by the clock of the machine where it was done."""
    nonce: str
    """Tells entries of one millisecond apart; those of one process sort by it as they were done."""
    who: str
    what: str
    """Such as ``job.put``."""
    target: str = ""
    """What it was done to: a job, a build, a token's id ..."""
    origin: str = ""
    reason: str = ""
    details: Mapping[str, Json] = field(default_factory=dict)
    outcome: str = UNKNOWN
    """``done``; ``refused: ...`` with why; ``unknown`` when nobody lived to tell."""


@dataclass(slots=True)
class Remark:
    """What turned out only while it was done, for the entry."""

    target: str = ""


_ACTING: ContextVar[Acting | None] = ContextVar("acting", default=None)
_IS_INSIDE: ContextVar[bool] = ContextVar("is_inside", default=False)


@contextmanager
def acting(who: str, origin: str = "") -> Iterator[None]:
    """Within the block, and in what it runs in other threads with a copy of its context, everything is done by ``who``."""
    token = _ACTING.set(Acting(who, origin))
    try:
        yield
    finally:
        _ACTING.reset(token)


@contextmanager
def acting_as(who: str) -> Iterator[None]:
    """The same from where things are done already."""
    told = _ACTING.get()
    with acting(who, told.origin if told else ""):
        yield


class Audit:
    """What was done in one system. Any thread may use it."""

    def __init__(self, store: Store, default: Acting, clock: Callable[[], float] = wall_clock) -> None:
        """``default`` is who acts where nobody has said so with :func:`acting`."""
        self._store = store
        self._default = default
        self._clock = clock
        self._count = count()
        self._waiting: Queue[tuple[str, bytes] | None] = Queue(WAITING_MAX)
        self._thread: Thread | None = None
        self._lock = Lock()

    @contextmanager
    def change(
        self, what: str, target: str = "", *, actor: str = "", reason: str = "", **details: Json
    ) -> Iterator[Remark]:
        """Put down what is done in the block: that it begins, before it does, and how it ended.

        StoreUnavailable when that it begins cannot be put down; then nothing was done. A change within a change is part of that.
        """
        if _IS_INSIDE.get():
            yield Remark()
            return
        entry = self._entry(what, target, actor, reason, details)
        self._store.put(keys.audit_begun(entry.time_ms, entry.nonce), _to_bytes(entry))
        with self._told(entry) as remark:
            yield remark

    @contextmanager
    def note(
        self, what: str, target: str = "", *, actor: str = "", reason: str = "", **details: Json
    ) -> Iterator[Remark]:
        """Put down what was done in the block, afterwards and without waiting for the store. For what must not wait, or has a trace of its own."""
        if _IS_INSIDE.get():
            yield Remark()
            return
        with self._told(self._entry(what, target, actor, reason, details)) as remark:
            yield remark

    def list(self, since_ms: int = 0, limit: int | None = None) -> Iterator[Entry]:
        """What was done since then, the oldest first."""
        position = keys.audit_since(since_ms)
        latest: Entry | None = None
        told = 0
        for key in self._keys(position):
            time_ms, nonce, _ = keys.audit_entry_of(key)
            if latest is not None and (latest.time_ms, latest.nonce) != (time_ms, nonce):
                yield latest
                told += 1
                if told == limit:
                    return
            latest = self._read(key) or latest
        if latest is not None:
            yield latest

    def close(self) -> None:
        """Write what still waits, for a few seconds at most."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is None:
            return
        self._waiting.put(None)
        thread.join(CLOSE_S)
        if thread.is_alive():
            log.error("the store did not take %s entries of the audit", self._waiting.qsize())

    @contextmanager
    def _told(self, entry: Entry) -> Iterator[Remark]:
        token = _IS_INSIDE.set(True)
        outcome = UNKNOWN
        remark = Remark()
        try:
            yield remark
            outcome = DONE
        except Unavailable as error:
            # It may have happened all the same.
            outcome = f"{UNKNOWN}: {error}"
            raise
        except DistCIError as error:
            outcome = f"refused: {error}"
            raise
        finally:
            _IS_INSIDE.reset(token)
            self._later(replace(entry, target=_text(remark.target) or entry.target, outcome=_text(outcome)))

    def _entry(self, what: str, target: str, actor: str, reason: str, details: Mapping[str, Json]) -> Entry:
        told = _ACTING.get()
        by = told or self._default
        return Entry(
            int(self._clock() * 1000),
            f"{next(self._count):08x}{secrets.token_hex(4)}",
            _text(by.who if told else actor or by.who),
            what,
            _text(target),
            _text(by.origin),
            _text(reason),
            {name: _text(value) if isinstance(value, str) else value for name, value in details.items() if value},
        )

    def _later(self, entry: Entry) -> None:
        try:
            self._waiting.put_nowait((keys.audit_ended(entry.time_ms, entry.nonce), _to_bytes(entry)))
        except Full:
            log.error("the store takes nothing, and there is no room for more of the audit: %s", entry)
        with self._lock:
            if self._thread is None:
                self._thread = Thread(target=self._write, name="audit", daemon=True)
                self._thread.start()

    def _write(self) -> None:
        while True:
            waiting = self._waiting.get()
            if waiting is None:
                return
            while not self._written(*waiting):
                Event().wait(PAUSE_S)

    def _written(self, key: str, data: bytes) -> bool:
        try:
            self._store.put(key, data)
        except Unavailable as error:
            log.warning("the audit waits for the store: %s", error)
            return False
        except DistCIError as error:
            log.error("an entry of the audit cannot be written: %s: %s", error, data.decode())
        return True

    def _keys(self, position: str) -> Iterator[str]:
        while page := self._store.list(keys.AUDIT, position):
            yield from (info.key for info in page)
            position = page[-1].key

    def _read(self, key: str) -> Entry | None:
        try:
            document = read_json(self._store.get(key), key)
            if document["format"] != FORMAT:
                raise InvalidDocument(f"{key} has format {document['format']!r}; this version reads {FORMAT}")
            return Entry(**document["entry"])
        except NoSuchObject:
            return None
        except (KeyError, TypeError) as error:
            raise InvalidDocument(f"{key} cannot be read: {error!r}") from error


def _to_bytes(entry: Entry) -> bytes:
    return json.dumps({"format": FORMAT, "entry": asdict(entry)}, ensure_ascii=False).encode(errors="backslashreplace")


def _text(text: str) -> str:
    return masked(text)[:CHARS_MAX]
