"""Reasons through a front end."""

from __future__ import annotations

from distci.client.address import build_of, of_build, of_task, segment
from distci.client.link import Link
from distci.model import BuildId
from distci.views import from_json
from distci.why import Reason


class RemoteWhy:
    """As :class:`distci.why.Why`."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def build(self, build: BuildId | str) -> list[Reason]:
        return [from_json(Reason, item) for item in self._link.items(of_build(build_of(build), "why"))]

    def task(self, build: BuildId | str, task: str) -> Reason:
        return from_json(Reason, self._link.get(of_task(build_of(build), task, "why")))

    def ticket(self, ticket: str) -> Reason:
        return from_json(Reason, self._link.get(f"/tickets/{segment(ticket)}/why"))
