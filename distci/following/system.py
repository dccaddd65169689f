"""The system as a whole, followed for as long as one likes: builds that begin and end, and workers and the queue as they stand."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING

from distci.coordination.port import Stat
from distci.errors import Invalid
from distci.events import GAP, LOOK_S, Event, Events
from distci.following.feeds import Feed
from distci.following.told import Told, ended
from distci.model import Json
from distci.protocol import paths
from distci.protocol.tickets import Tickets
from distci.views import to_bytes

if TYPE_CHECKING:
    from distci.following.sources import Sources

SYSTEM = "system"
"""What its feed is held by."""

STATE_LOOK_S = 0.7
STATE_LOOK_SHARE = 0.1
"""Which part of the time it may be looked at workers and queue: with very long queues, that is more seldom."""

KEPT = 1000
"""How many events the feed keeps for followers that are a little behind."""

FETCHED = 50
"""How many events a follower reads at a time that is further behind."""


class SystemFeed(Feed):
    """The events since somebody follows, and the present state of workers and queue."""

    def __init__(self, tickets: Tickets, events: Events) -> None:
        super().__init__()
        self._tickets = tickets
        self._events = events
        self._lock = Lock()
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._look_at_state_at = 0.0
        self._look_at_events_at = 0.0
        self._news: Stat | None = None
        self.number: int | None = None
        """That of the last event; None before the first look."""
        self.workers: Sequence[str] = ()
        self.queue: Mapping[str, Json] = {}

    def after(self, number: int) -> Sequence[Event] | None:
        """The events behind a number; None when it does not keep as many, or knows of no such number."""
        with self._lock:
            if self.number is None or not self.number - len(self._kept) <= number <= self.number:
                return None
            ahead = self.number - number
            return [*self._kept][len(self._kept) - ahead :] if ahead > 0 else ()

    def look(self) -> float | None:
        # In this order: what is appended meanwhile wakes once more.
        news = self._tickets.tree.coordination.watch(paths.EVENTS, self.woken)
        is_news = self._look_at_state() if monotonic() >= self._look_at_state_at else False
        if news != self._news or monotonic() >= self._look_at_events_at:
            is_news = self._look_at_events() or is_news
            self._news, self._look_at_events_at = news, monotonic() + LOOK_S
        if is_news:
            self.tell()
        return max(0.0, min(self._look_at_state_at, self._look_at_events_at) - monotonic())

    def _look_at_events(self) -> bool:
        """Whether there are any that were not there before."""
        is_news = self.number is None
        if self.number is None:
            self.number = self._events.last()
        while fresh := self._events.after(self.number, FETCHED):
            with self._lock:
                if fresh[0].kind == GAP:
                    # Each follower is told of that who is not behind it, as the store has it.
                    self._kept.clear()
                    fresh = fresh[:1]
                else:
                    self._kept += fresh
                self.number = fresh[-1].number
            is_news = True
        return is_news

    def _look_at_state(self) -> bool:
        """Whether it is another one than before."""
        began = monotonic()
        workers = tuple(sorted(self._tickets.tree.coordination.children(paths.WORKERS)))
        waiting = Counter(queued.kind for queued in self._tickets.queue())
        running = sum(1 for _ in self._tickets.running_tokens())
        queue = {"waiting": dict(sorted(waiting.items())), "running": running}
        is_news = (workers, queue) != (self.workers, self.queue)
        self.workers, self.queue = workers, queue
        took_s = monotonic() - began
        self._look_at_state_at = began + max(STATE_LOOK_S, took_s / STATE_LOOK_SHARE)
        return is_news


class SystemFollower:
    """A :class:`~distci.following.told.Follower` of the system. Its position is a number of an event; empty: from now on."""

    is_over = False

    def __init__(self, sources: Sources, wake: Callable[[], None], position: str = "") -> None:
        if position and not (position.isascii() and position.isdigit() and len(position) < 13):
            raise Invalid(f"{position[:100]!r} is no number of an event")
        self._sources = sources
        self._wake = wake
        self._number = int(position) if position else None
        self._workers: Sequence[str] | None = None
        self._queue: Mapping[str, Json] | None = None
        self._fetched: deque[Event] = deque()
        self._must_fetch = False
        self._is_at_end = False
        """Whether nothing was found behind our number that the feed does not know of yet."""
        self.feed = sources.hold_system()
        self.feed.listen(wake)

    @property
    def is_ready(self) -> bool:
        return self.feed.number is not None or self.feed.is_over

    @property
    def must_fetch(self) -> bool:
        return self._must_fetch

    @property
    def trouble(self) -> str:
        return self.feed.trouble

    @property
    def end(self) -> bytes:
        return ended("")

    def check(self) -> None:
        if self.feed.error is not None:
            raise self.feed.error

    def take(self) -> Iterator[Told]:
        """Workers and queue as they stand come first, and once more whenever they change; they have no numbers, since none is missed."""
        self.check()
        if self.feed.number is None:
            return
        if self._number is None:
            self._number = self.feed.number
        yield from self._take_state()
        while self._fetched:
            yield self._told(self._fetched.popleft())
        fresh = self.feed.after(self._number)
        self._must_fetch = fresh is None and not self._is_at_end
        self._is_at_end = False
        for event in fresh or ():
            yield self._told(event)

    def fetch(self) -> None:
        if self._number is not None:
            self._fetched += self._sources.events.after(self._number, FETCHED)
            self._is_at_end = not self._fetched

    def close(self) -> None:
        self.feed.ignore(self._wake)
        self._sources.release(SYSTEM)

    def _take_state(self) -> Iterator[Told]:
        workers, queue = self.feed.workers, self.feed.queue
        if self._workers is None:
            yield self._state("workers", {"workers": workers})
        elif workers is not self._workers and workers != self._workers:
            came, went = {*workers} - {*self._workers}, {*self._workers} - {*workers}
            yield self._state("workers-changed", {"joined": sorted(came), "left": sorted(went)})
        self._workers = workers
        if queue is not self._queue and queue != self._queue:
            yield self._state("queue", queue)
        self._queue = queue

    def _state(self, name: str, document: Mapping[str, Json]) -> Told:
        return Told(name, str(self._number), to_bytes(document), job="")

    def _told(self, event: Event) -> Told:
        self._number = event.number
        if event.kind == GAP:
            return Told(GAP, str(event.number), to_bytes(event.to_json()))
        # Of one that cannot be read nobody knows whose it is: job is empty, and it is for who may read everything.
        return Told(event.kind, str(event.number), to_bytes(event.to_json()), job=event.job)
