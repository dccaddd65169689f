"""That there may be news, from a stream of server-sent events. Nothing depends on it but how soon somebody looks."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event, Thread
from types import TracebackType
from typing import Self

from distci.client.link import Link
from distci.errors import DistCIError

AGAIN_S = 1.0
"""How long after a stream has ended another one is asked for."""

SLICE_S = 0.2
"""How often it is looked whether whoever waits shall stop."""

COMMENT = b":"

PAUSE_MIN_S, PAUSE_MAX_S, SLOWER = 0.2, 1.0, 1.3
"""Between two looks: the shortest, the longest, and by how much each is longer than the one before while nothing happens."""

LISTENING_S = 30.0
"""Between two looks of somebody whom the stream tells of all that they wait for."""


class News:
    """Listens to one stream in a thread of its own, from the first time that somebody waits; a context manager.

    What it says is not read: whoever is told looks for themselves. So nothing is lost with a stream that breaks, that something in between holds
    back, or that is not to be had.
    """

    def __init__(self, link: Link, path: str, stop: Event, clock: Callable[[], float] = time.monotonic) -> None:
        self.is_live = False
        """Whether the stream is there: then it tells of what happens."""
        self._link = link
        self._path = path
        self._stop = stop
        self._clock = clock
        self._bell = Event()
        self._over = Event()
        self._thread: Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The thread is not waited for: it hears that when the stream says something, if only that it is there.
        self._over.set()

    def wait(self, time_max_s: float) -> bool:
        """Wait until there may be news, at most so long; whether it has been stopped."""
        if self._thread is None:
            self._thread = Thread(target=self._listen, name="news", daemon=True)
            self._thread.start()
        until = self._clock() + time_max_s
        while not self._stop.is_set() and (left_s := until - self._clock()) > 0:
            if self._bell.wait(min(left_s, SLICE_S)):
                break
        self._bell.clear()
        return self._stop.is_set()

    def _listen(self) -> None:
        """Ring for whatever the stream says but that it is there, and when it breaks off."""
        while not self._over.is_set():
            try:
                for piece in self._link.pieces(self._path):
                    self.is_live = True
                    if self._over.is_set():
                        return
                    if not piece.startswith(COMMENT):
                        self._bell.set()
            except DistCIError:
                return  # there is none to be had; why is told to those who look
            finally:
                self.is_live = False
                self._bell.set()
            self._over.wait(AGAIN_S)


class Pauses:
    """Waits between looks until there is news; where these are all that is waited for, for ``listening_s`` while they are heard."""

    def __init__(self, news: News, listening_s: float = 0.0) -> None:
        self._news = news
        self._listening_s = listening_s
        self._pause_s = PAUSE_MIN_S

    def next(self, is_news: bool, most_s: float | None = None) -> bool:
        """Wait, at most so long; whether it has been stopped."""
        self._pause_s = PAUSE_MIN_S if is_news else min(PAUSE_MAX_S, self._pause_s * SLOWER)
        pause_s = max(self._pause_s, self._listening_s) if self._news.is_live else self._pause_s
        return self._news.wait(pause_s if most_s is None else min(pause_s, most_s))
