"""What happened to builds, through a front end."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import islice

from distci.client.link import Link
from distci.client.news import LISTENING_S, News, Pauses
from distci.events import GAP, Event
from distci.model import Json
from distci.views import from_json

PAGE = 200
PATH = "/events/recent"
OWN = frozenset(item.name for item in fields(Event))


class RemoteEvents:
    """As :class:`distci.events.Events`, to be read: those of builds that may be read, as if there were no others.

    So numbers need not be dense; and one that cannot be read is passed over.
    """

    def __init__(self, link: Link) -> None:
        self._link = link

    def read(self, number: int) -> Event | None:
        found = self.after(max(0, number - 1), 1)
        return next((event for event in found if event.number == number and event.kind != GAP), None)

    def after(self, number: int, limit: int) -> Sequence[Event]:
        return [*islice(map(_event, self._link.items(PATH, after=number, limit=min(limit, PAGE))), limit)]

    def follow(self, number: int, stop: threading.Event | None = None) -> Iterator[Event]:
        stop = stop or threading.Event()
        with News(self._link, "/events", stop) as news:
            pauses = Pauses(news, LISTENING_S)
            while not stop.is_set():
                found = self.after(number, PAGE)
                yield from found
                if found:
                    number = found[-1].number
                else:
                    pauses.next(is_news=False)

    def before(self, number: int | None = None) -> Iterator[Event]:
        return map(_event, self._link.items(PATH, cursor=number, limit=PAGE))

    def last(self) -> int:
        return next((int(item["number"]) for item in self._link.items(PATH, limit=1)), 0)


def _event(item: Json) -> Event:
    more = {name: value for name, value in item.items() if name not in OWN}
    return from_json(Event, {**item, "more": more})
