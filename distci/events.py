"""What happened to builds in the whole system, in one order: events with numbers, dense from 1 on, each an object of the store.

Whoever appends takes the next number: of any number of processes exactly one gets it, the others take the one after it. So there is no
master, the quorum is not asked, and a number says all that is needed to go on: whatever is told behind it comes behind it.

The oldest are removed, by who appends, as the settings have it. Whoever goes on from a number behind which some are gone, or which is of other
numbers than those there are (a store was wiped, or came back from a backup), is told so by an event of the kind :data:`GAP`, and then
all that there is. So nobody takes for all what is not.

An event is appended *before* the transaction that goes on from there, so that none can be missing. Whoever dies between the two leaves it to
be done again; then it is looked for among the last ones, and found. Only a process that slept there past the end of its claim can append
what somebody else has appended too: who counts events counts what they tell of, not their numbers.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from distci.documents.strict_json import read_json
from distci.errors import InvalidDocument, NoSuchObject, StoreUnavailable
from distci.model import BuildId, Json
from distci.retention import Retention
from distci.store import keys
from distci.store.numbers import last_number
from distci.store.port import Store
from distci.views import to_bytes

BEGUN = "build-begun"
"""A control worker has taken a build up."""

ENDED = "build-ended"
"""A build has its result, and its record is in the store."""

UNREADABLE = "unreadable"

GAP = "gap"
"""Not stored: told to who asks for those behind a number where the next one is not there any more. It has the number before the first that is, and ``after``: the one that was asked for."""

LOOKED_BACK = 1000
"""Among how many events one is looked for that may have been appended before."""

KEPT = 2000
"""How many events are remembered: they never change."""

SWEPT_EVERY, SWEPT_AT_ONCE = 20, 40
"""Each so many events, who appends removes at most so many that are kept no longer."""

READ_AT_ONCE = 100
LOOK_S = 2.0
"""How long a follower who is not woken waits until it looks by itself: whoever appends may die before it wakes anybody."""
SLICE_S = 0.2
"""How often it is looked whether a follower shall stop."""

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

    def __init__(
        self,
        store: Store,
        clock: Callable[[], float] = time.time,
        retention: Retention | None = None,
        watch: Callable[[threading.Event], object] = lambda woken: None,
    ) -> None:
        """``retention`` says what is kept, all where it is None, but the last :data:`LOOKED_BACK` always. ``watch`` has what it is given set once when there may be more."""
        self._store = store
        self._clock = clock
        self._retention = retention
        self._watch = watch
        self._lock = threading.Lock()
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
        if number % SWEPT_EVERY == 0:
            self._sweep(number)
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
        """The next events behind a number, at most so many; the first is of the kind :data:`GAP` where they are not those that came next.

        >>> [(event.kind, event.build) for event in ci.events.after(0, 2)]
        [('build-begun', 'docs/hello#1'), ('build-ended', 'docs/hello#1')]
        """
        if limit <= 0:
            return []
        there = [keys.event_of(info.key) for info in self._store.list(keys.EVENTS, keys.event(number), limit)]
        if there[:1] != [number + 1] and (gap := self._gap(number, there)) is not None:
            return [gap, *self.after(gap.number, limit - 1)]
        found: list[Event] = []
        # A listing is no picture of one moment, and may lack what was appended meanwhile: reading tells.
        while len(found) < min(limit, len(there)) and (event := self.read(number + len(found) + 1)) is not None:
            found.append(event)
        return found

    def follow(self, number: int, stop: threading.Event | None = None) -> Iterator[Event]:
        """The events behind a number and those that come, until ``stop`` is set; gaps as :meth:`after` tells them.

        Raises Unavailable when tree or store do not answer: go on behind the last event then.
        """
        stop, woken = stop or threading.Event(), threading.Event()
        while not stop.is_set():
            # In this order: what is appended between the two is seen, and told once more.
            self._watch(woken)
            for event in behind(self.after, number):
                number = event.number
                yield event
            until = time.monotonic() + LOOK_S
            while not (stop.is_set() or time.monotonic() >= until or woken.wait(SLICE_S)):
                pass
            woken.clear()

    def before(self, number: int | None = None) -> Iterator[Event]:
        """The events before a number, or all there are, the latest first.

        >>> [event.kind for event in ci.events.before()]
        ['build-ended', 'build-begun']
        """
        last = self.last()
        for each in range(last if number is None else min(number - 1, last), 0, -1):
            if (event := self.read(each)) is None:
                return  # it was removed, and so were all before it
            yield event

    def last(self) -> int:
        """The highest number; 0 where nothing has happened yet."""

        def is_beyond(number: int) -> bool:
            return bool(self._store.list(keys.EVENTS, keys.event(number), 1))

        number = last_number(is_beyond, self._last)
        self._saw(number)
        return number

    def _gap(self, number: int, there: Sequence[int]) -> Event | None:
        """What is said to who knows a number, given the first of those behind it; None where none is missing."""
        if self._is_there(number + 1) if there else number == 0 or self._is_there(number):
            return None
        if not there:
            with self._lock:
                # What is remembered is of other numbers, too.
                self._known.clear()
                self._last = 0
        oldest = there or [keys.event_of(info.key) for info in self._store.list(keys.EVENTS, "", 1)]
        first = oldest[0] if oldest else 1
        return Event(first - 1, GAP, "", 0, {"after": number})

    def _is_there(self, number: int) -> bool:
        """Whether it is stored now, whatever is remembered."""
        return self._store.head(keys.event(number)) is not None

    def _sweep(self, last: int) -> None:
        """Remove some of what is kept no longer, the oldest first, so that there is no gap but before all others. What fails is done by who comes next."""
        if self._retention is None:
            return
        try:
            oldest = self._store.list(keys.EVENTS, "", SWEPT_AT_ONCE)
            count = last - keys.event_of(oldest[0].key) + 1
            going = self._retention.beyond([info.modified_s for info in oldest], count, self._clock())
            for info in oldest[: max(0, min(going, count - LOOKED_BACK))]:
                self._store.delete(info.key)
        except StoreUnavailable as error:
            log.warning("old events are not removed now: %s", error)

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


def behind(after: Callable[[int, int], Sequence[Event]], number: int) -> Iterator[Event]:
    """All events behind a number that there are now, by what gives the next few."""
    while found := after(number, READ_AT_ONCE):
        yield from found
        number = found[-1].number
