"""What many follow is looked at once: feeds, which a few threads of the process look after, and those who listen to them.

A feed is there while somebody holds it. Whoever listens is only told that there may be more, and takes it at their own pace from what the
feed keeps: nobody is waited for, and for nobody anything is kept.
"""

from __future__ import annotations

import heapq
import itertools
import logging
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from threading import Condition, Event, Thread
from time import monotonic
from typing import TypeVar, cast

from distci.errors import DistCIError, Unavailable

THREADS = 4
TROUBLE_S_MIN, TROUBLE_S_MAX = 0.5, 2.0
"""Pause between looks while the tree or the store does not answer; twice as long with each in a row."""

log = logging.getLogger(__name__)


class Feed:
    """Something that grows or changes, and those who want to be told."""

    def __init__(self) -> None:
        self.is_over = False
        """Whether nothing will change any more."""
        self.trouble = ""
        """What it waits for at present, such as a store that does not answer; usually empty."""
        self.error: DistCIError | None = None
        """Why it is over, when that is no good reason."""
        self.woken: Event = Event()
        """For watches: setting it has the feed looked at soon."""
        self._listeners: dict[Callable[[], None], None] = {}

    def look(self) -> float | None:
        """Look what there is now; in how many seconds to look again at the latest, None when it is over. May wait; one call at a time."""
        raise NotImplementedError

    def listen(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called, from whatever thread, when there may be more. It must not wait."""
        self._listeners[wake] = None

    def ignore(self, wake: Callable[[], None]) -> None:
        """Call it no more."""
        self._listeners.pop(wake, None)

    def tell(self) -> None:
        """Wake all that listen."""
        for wake in [*self._listeners]:
            wake()


Some = TypeVar("Some", bound=Feed)


class Feeds:
    """The feeds of one process. Any thread may use it."""

    def __init__(self, threads: int = THREADS) -> None:
        self._count = threads
        self._change = Condition()
        self._feeds: dict[Hashable, _Held] = {}
        self._due: list[tuple[float, int, _Held]] = []
        self._order = itertools.count()
        self._threads: list[Thread] = []
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._feeds)

    @contextmanager
    def held(self, key: Hashable, make: Callable[[], Some]) -> Iterator[Some]:
        """The feed of that key, made if nobody holds it yet, for as long as the block lasts."""
        feed = self.hold(key, make)
        try:
            yield feed
        finally:
            self.release(key)

    def hold(self, key: Hashable, make: Callable[[], Some]) -> Some:
        """The feed of that key, until :meth:`release` is called for it as often."""
        with self._change:
            held = self._feeds.get(key)
            if held is None:
                held = self._feeds[key] = _Held(make())
                held.feed.woken = _Wake(lambda held=held: self._wake(held))  # type: ignore[misc]
                self._put(held, 0)
                self._start()
            held.holders += 1
            return cast(Some, held.feed)

    def release(self, key: Hashable) -> None:
        with self._change:
            held = self._feeds[key]
            held.holders -= 1
            if not held.holders:
                del self._feeds[key]
                held.turn = -1

    def close(self) -> None:
        """Look at nothing any more."""
        with self._change:
            self._is_closed = True
            self._change.notify_all()

    def _start(self) -> None:
        if len(self._threads) < self._count:
            thread = Thread(target=self._serve, name="feeds", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _put(self, held: _Held, delay_s: float) -> None:
        """Have it looked at then, and at no other time."""
        held.turn = next(self._order)
        heapq.heappush(self._due, (monotonic() + delay_s, held.turn, held))
        self._change.notify()

    def _wake(self, held: _Held) -> None:
        with self._change:
            if held.is_looked_at:
                held.is_woken = True
            elif held.holders and not held.feed.is_over:
                self._put(held, 0)

    def _serve(self) -> None:
        while (held := self._next()) is not None:
            delay_s = held.look()
            with self._change:
                held.is_looked_at = False
                if held.holders and delay_s is not None:
                    self._put(held, 0 if held.is_woken else delay_s)

    def _next(self) -> _Held | None:
        """The next feed whose time has come; None when there will be none."""
        with self._change:
            while not self._is_closed:
                while self._due and self._due[0][1] != self._due[0][2].turn:
                    heapq.heappop(self._due)
                wait_s = self._due[0][0] - monotonic() if self._due else None
                if wait_s is None or wait_s > 0:
                    self._change.wait(wait_s)
                    continue
                held = heapq.heappop(self._due)[2]
                held.is_looked_at, held.is_woken = True, False
                return held
            return None


class _Held:
    """A feed, who holds it, and when it is its turn."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.holders = 0
        self.turn = -1
        """The number of the one entry among those due that counts."""
        self.is_looked_at = False
        self.is_woken = False
        """Whether it was woken while it was looked at, so that it has to be once more."""
        self._trouble_s = TROUBLE_S_MIN

    def look(self) -> float | None:
        feed = self.feed
        try:
            delay_s = feed.look()
            self._trouble_s = TROUBLE_S_MIN
            was_in_trouble, feed.trouble = bool(feed.trouble), ""
        except Unavailable as error:
            was_in_trouble, feed.trouble = bool(feed.trouble), str(error)
            delay_s, self._trouble_s = self._trouble_s, min(2 * self._trouble_s, TROUBLE_S_MAX)
        except Exception as error:
            if not isinstance(error, DistCIError):
                log.error("what is followed came to an unexpected error", exc_info=error)
                error = DistCIError(f"unexpected {type(error).__name__}; the log has more")
            feed.error = error
            delay_s, was_in_trouble = None, bool(feed.trouble)
        feed.is_over = delay_s is None
        if feed.is_over or was_in_trouble != bool(feed.trouble):
            feed.tell()
        return delay_s


class _Wake(Event):
    """An event that calls something whenever it is set: a hint to look, which neither waits nor fails."""

    def __init__(self, wake: Callable[[], None]) -> None:
        super().__init__()
        self._wake = wake

    def set(self) -> None:
        self._wake()
