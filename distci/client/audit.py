"""Who did what, through a front end."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from distci.access import Entry
from distci.client.link import Link
from distci.views import from_json

PAGE = 200


class RemoteAudit:
    """As :class:`distci.access.Audit`, to be read: what is done through a front end, that puts down."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def list(self, since_ms: int = 0, limit: int | None = None) -> Iterator[Entry]:
        page = min(limit or PAGE, PAGE)
        for item in islice(self._link.items("/audit", since_ms=since_ms, limit=page), limit):
            yield from_json(Entry, item)
