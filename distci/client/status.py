"""The system as a whole through a front end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distci.client.link import Link
from distci.protocol.depths import HOURS_KEPT, Sample
from distci.status import Cluster, Serving, Waiting
from distci.views import from_json

PAGE = 200


class RemoteStatus:
    """As :class:`distci.status.Status`."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def cluster(self) -> Cluster:
        return from_json(Cluster, self._link.get("/cluster"))

    def workers(self) -> Sequence[Serving]:
        return [from_json(Serving, item) for item in self._link.items("/workers", limit=PAGE)]

    def kinds(self) -> Sequence[str]:
        return tuple(self._link.get("/kinds")["kinds"])

    def has_workers(self) -> bool:
        return bool(self._link.get("/workers", limit=1)["items"])

    def queue(self, after: str = "") -> Iterator[tuple[str, Waiting]]:
        for item in self._link.items("/queue", cursor=after or None, limit=PAGE):
            yield item["where"], from_json(Waiting, item)

    def queue_history(self, hours: int = HOURS_KEPT) -> Sequence[Sample]:
        return [from_json(Sample, item) for item in self._link.get("/queue/history", hours=hours)["items"]]
