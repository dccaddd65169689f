"""Tickets through a front end."""

from __future__ import annotations

from collections.abc import Iterator

from distci.client.address import segment
from distci.client.link import Link
from distci.protocol import Ticket, TicketView
from distci.views import from_json

PAGE = 200


class RemoteTickets:
    """As :class:`distci.protocol.Tickets`, as far as people use it: posting and claiming are done on the tree."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def list(self) -> Iterator[TicketView]:
        for item in self._link.items("/tickets", limit=PAGE):
            yield from_json(TicketView, item)

    def show(self, ticket: str) -> TicketView:
        return from_json(TicketView, self._link.get(f"/tickets/{segment(ticket)}"))

    def requeue(self, ticket: str) -> Ticket:
        # Once more, it might put back what has been set aside again.
        path = f"/tickets/{segment(ticket)}/requeue"
        return from_json(Ticket, self._link.change("POST", path, is_repeatable=False))

    def pause(self, *kinds: str) -> None:
        self._link.change("PUT", "/cluster/paused", {"kinds": [*kinds]})

    def weigh(self, project: str, weight: float) -> None:
        self._link.change("PUT", "/cluster/weights", {"project": project, "weight": weight})

    def limit(self, project: str, quota: int | None) -> None:
        self._link.change("PUT", "/cluster/quotas", {"project": project, "quota": quota})

    def drain(self, worker: str) -> None:
        self._link.change("POST", f"/workers/{segment(worker)}/drain")
