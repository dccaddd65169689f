"""How somebody who waits hears of a change: by looking again, when the stream of a build says so, and now and then. Nobody else knows how."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from threading import Event

from distci.builds import BuildView, LogPiece, TaskView, deadline, pieces
from distci.client.address import of_build
from distci.client.link import Link
from distci.client.news import LISTENING_S, News, Pauses
from distci.model import BuildId
from distci.views import from_json

Printed = Callable[[BuildView, TaskView, int], Iterator[bytes]]


class Watching:
    """Looks on at builds of one front end. An unchanged build is answered with 304 and costs nobody much."""

    def __init__(self, link: Link, clock: Callable[[], float] = time.monotonic) -> None:
        self._link = link
        self._clock = clock

    def wait(self, build: BuildId, timeout_s: float | None) -> BuildView:
        """The build once it is archived, or as it stands when the time is up."""
        until = deadline(timeout_s, self._clock())
        with self._news(build, Event()) as news:
            pauses = Pauses(news, LISTENING_S)
            for view, is_news in self._looks(build):
                left_s = None if until is None else until - self._clock()
                if view.is_archived or (left_s is not None and left_s <= 0):
                    return view
                pauses.next(is_news, left_s)
        raise AssertionError("there is always one more look")

    def follow(self, build: BuildId, printed: Printed, tasks: Sequence[str], stop: Event) -> Iterator[LogPiece]:
        """All that a build's tasks print until it has its result, or ``stop`` is set."""
        looks = self._looks(build)
        with self._news(build, stop) as news:
            # What is printed changes nothing of a build, so its stream does not tell of that.
            pauses = Pauses(news)
            yield from pieces(lambda: next(looks)[0], printed, pauses.next, tasks)

    def _news(self, build: BuildId, stop: Event) -> News:
        return News(self._link, of_build(build, "events"), stop)

    def _looks(self, build: BuildId) -> Iterator[tuple[BuildView, bool]]:
        """The build each time somebody looks, and whether it has changed since."""
        found, etag = self._link.get_unless(of_build(build), "")
        while True:
            view = from_json(BuildView, found)
            yield view, True
            while (again := self._link.get_unless(of_build(build), etag))[0] is None:
                yield view, False
            found, etag = again
