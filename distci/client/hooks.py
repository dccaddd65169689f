"""Receivers and the changes that wait for an approval, through a front end."""

from __future__ import annotations

import re
from collections.abc import Iterator

from distci.client.link import Link
from distci.hooks import Answer, Check, Held, ReceiverView, no_such_change
from distci.model import Json
from distci.views import from_json

PAGE = 200
ID = re.compile(r"[0-9a-f]{16}")


class RemoteHooks:
    """As :class:`distci.hooks.Hooks`, as far as people use it: a delivery is proved by its sender's secret, and by no token.

    Of a change it tells those jobs that may be read. On record as who decides is who the token is of; ``actor`` is not sent.
    """

    def __init__(self, link: Link) -> None:
        self._link = link

    def list(self) -> Iterator[ReceiverView]:
        for item in self._link.items("/hooks"):
            yield from_json(ReceiverView, item)

    def held(self, after: str = "") -> Iterator[Held]:
        for item in self._link.items("/held", cursor=after or None, limit=PAGE):
            yield from_json(Held, item)

    def approve(self, change: str, actor: str = "", check: Check | None = None) -> Answer:
        # Once more, it would be a change that waits no longer, and which builds it started would not be told.
        path = self._decided(change, "approve", check)
        return from_json(Answer, self._link.change("POST", path, is_repeatable=False))

    def refuse(self, change: str, check: Check | None = None) -> None:
        def look() -> Json:
            return all(held.id != change for held in self.held()) or None

        self._link.change("POST", self._decided(change, "refuse", check), look=look)

    def _decided(self, change: str, what: str, check: Check | None) -> str:
        """Where that is said of a change, once whoever checks it has let it pass."""
        if not ID.fullmatch(change):
            raise no_such_change(change)
        if check:
            held = next((held for held in self.held() if held.id == change), None)
            if held is None:
                raise no_such_change(change)
            check(held)
        return f"/held/{change}/{what}"
