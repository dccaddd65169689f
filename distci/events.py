"""What happened to builds in the whole system, in one order: events with numbers, dense from 1 on, each an object of the store.

Whoever appends takes the next number: of any number of processes exactly one gets it, the others take the one after it. So there is no
master, the quorum is not asked, and a number says all that is needed to go on: whatever is told behind it comes behind it.

An event is appended *before* the transaction that goes on from there, so that none can be missing. Whoever dies between the two leaves it to
be done again; then it is looked for among the last ones, and found. Only a process that slept there past the end of its claim can append
what somebody else has appended too: who counts events counts what they tell of, not their numbers.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock

from distci.documents.strict_json import read_json
from distci.errors import InvalidDocument, NoSuchObject, StoreUnavailable
from distci.model import BuildId, Json
from distci.store import keys
from distci.store.numbers import last_number
from distci.store.port import Store
from distci.views import to_bytes

BEGUN = "build-begun"
"""A control worker has taken a build up."""

ENDED = "build-ended"
"""A build has its result, and its record is in the store."""

UNREADABLE = "unreadable"

LOOKED_BACK = 1000
"""Among how many events one is looked for that may have been appended before."""

KEPT = 2000
"""How many events are remembered: they never change."""

FORMAT = 1

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, for good."""

    number: int
    kind: str
    build: str
    """As ``job#number``; empty where what is stored cannot be read."""
    at_ms: int
    """When it was appended, by the clock of who did: for people. The order is that of the numbers."""
    more: Mapping[str, Json] = field(default_factory=dict)
    """What else there is to tell, by kind: ``trigger``, ``actor``, ``result`` ..."""

    @property
    def job(self) -> str:
        """The job of the build; empty where that is."""
        return self.build.rpartition("#")[0]

    def to_json(self) -> Mapping[str, Json]:
        """The event as it is told."""
        told = {"number": self.number, "kind": self.kind, "build": self.build, "at_ms": self.at_ms}
        return {**told, **self.more}


class Events:
    """The events of one store. Any thread may use it."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._lock = Lock()
        self._last = 0
        """A number that is known to be there; 0 before one is."""
        self._known: dict[int, Event] = {}

    def append(self, kind: str, build: BuildId, **more: Json) -> int:
        """Put an event behind all others; its number."""
        document = {"f": FORMAT, "kind": kind, "build": str(build), "at_ms": int(self._clock() * 1000), **more}
        data = to_bytes(document | {"nonce": uuid.uuid4().hex})
        # Looked for each time: a number that was known long ago may have been swept since, and must not be given out again.
        while not self._take(number := self.last() + 1, data):
            self._saw(number)
        self._saw(number)
        return number

    def append_again(self, kind: str, build: BuildId, **more: Json) -> int:
        """The same, where it may have been done before: then it is the number of that event, or of a later one of that build."""
        last = self.last()
        for number in range(last, max(0, last - LOOKED_BACK), -1):
            event = self.read(number)
            if event is None or event.build != str(build):
                continue
            if kind == BEGUN or event.kind == ENDED:
                return number
            break
        return self.append(kind, build, **more)

    def read(self, number: int) -> Event | None:
        """An event; None where there is none (yet). One that cannot be read is of the kind :data:`UNREADABLE`."""
        known = self._known.get(number)
        if known is not None:
            return known
        key = keys.event(number)
        try:
            data = self._store.get(key)
        except NoSuchObject:
            return None
        self._saw(number)
        try:
            event = _event(number, read_json(data, key))
        except (InvalidDocument, KeyError, TypeError, ValueError) as error:
            log.error("%s cannot be read, and is passed over: %s", key, error)
            event = Event(number, UNREADABLE, "", 0)
        if len(self._known) >= KEPT:
            self._known.clear()
        return self._known.setdefault(number, event)

    def after(self, number: int, limit: int) -> Sequence[Event]:
        """The next events behind a number, at most so many.

        >>> [(event.kind, event.build) for event in ci.events.after(0, 2)]
        [('build-begun', 'docs/hello#1'), ('build-ended', 'docs/hello#1')]
        """
        found: list[Event] = []
        while len(found) < limit and (event := self.read(number + len(found) + 1)) is not None:
            found.append(event)
        return found

    def before(self, number: int | None = None) -> Iterator[Event]:
        """The events before a number, or all there are, the latest first.

        >>> [event.kind for event in ci.events.before()]
        ['build-ended', 'build-begun']
        """
        first = self.last() + 1 if number is None else number
        for each in range(first - 1, 0, -1):
            if (event := self.read(each)) is not None:
                yield event

    def last(self) -> int:
        """The highest number; 0 where nothing has happened yet."""

        def is_beyond(number: int) -> bool:
            return bool(self._store.list(keys.EVENTS, keys.event(number), 1))

        number = last_number(is_beyond, self._last)
        self._saw(number)
        return number

    def _take(self, number: int, data: bytes) -> bool:
        key = keys.event(number)
        try:
            return self._store.put_if_absent(key, data)
        except StoreUnavailable:
            # It may be there all the same. Where that cannot be found out now, whoever asks again has to look for it.
            with suppress(NoSuchObject):
                return self._store.get(key) == data
            raise

    def _saw(self, number: int) -> None:
        with self._lock:
            self._last = max(self._last, number)


def _event(number: int, document: Mapping[str, Json]) -> Event:
    own = ("f", "nonce", "kind", "build", "at_ms")
    more = {name: value for name, value in document.items() if name not in own}
    return Event(number, str(document["kind"]), str(BuildId.parse(document["build"])), int(document["at_ms"]), more)
