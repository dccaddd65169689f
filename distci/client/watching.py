"""How somebody who waits hears of a change: by asking again, sooner while there is news. Nobody else knows how."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from threading import Event

from distci.builds import BuildView, LogPiece, TaskView, pieces
from distci.client.address import of_build
from distci.client.link import Link
from distci.model import BuildId
from distci.views import from_json

PAUSE_MIN_S, PAUSE_MAX_S, SLOWER = 0.2, 1.0, 1.3
"""Between two looks: the shortest, the longest, and by how much each is longer than the one before while nothing happens."""

Printed = Callable[[BuildView, TaskView, int], Iterator[bytes]]


class Watching:
    """Looks on at builds of one front end. An unchanged build is answered with 304 and costs nobody much."""

    def __init__(self, link: Link, clock: Callable[[], float] = time.monotonic) -> None:
        self._link = link
        self._clock = clock

    def wait(self, build: BuildId, timeout_s: float | None) -> BuildView:
        """The build once it is archived, or as it stands when the time is up."""
        until = None if timeout_s is None else self._clock() + timeout_s
        pauses = _Pauses(Event())
        for view, is_news in self._looks(build):
            left_s = None if until is None else until - self._clock()
            if view.is_archived or (left_s is not None and left_s <= 0):
                return view
            pauses.next(is_news, left_s)
        raise AssertionError("there is always one more look")

    def follow(self, build: BuildId, printed: Printed, tasks: Sequence[str], stop: Event) -> Iterator[LogPiece]:
        """All that a build's tasks print until it has its result, or ``stop`` is set."""
        looks, pauses = self._looks(build), _Pauses(stop)
        return pieces(lambda: next(looks)[0], printed, pauses.next, tasks)

    def _looks(self, build: BuildId) -> Iterator[tuple[BuildView, bool]]:
        """The build each time somebody looks, and whether it has changed since."""
        found, etag = self._link.get_unless(of_build(build), "")
        while True:
            view = from_json(BuildView, found)
            yield view, True
            while (again := self._link.get_unless(of_build(build), etag))[0] is None:
                yield view, False
            found, etag = again


class _Pauses:
    """Waits between looks, until ``stop``."""

    def __init__(self, stop: Event) -> None:
        self._stop = stop
        self._pause_s = PAUSE_MIN_S

    def next(self, is_news: bool, most_s: float | None = None) -> bool:
        """Wait, at most so long; whether it has been stopped."""
        self._pause_s = PAUSE_MIN_S if is_news else min(PAUSE_MAX_S, self._pause_s * SLOWER)
        return self._stop.wait(self._pause_s if most_s is None else min(self._pause_s, most_s))
