"""How often somebody may ask one front end: each who is known by their name, everybody else by the address that they come from."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import HTTPConnection

from distci.access import Nobody, Principal
from distci.access.limits import Limits, Rate
from distci.errors import Invalid
from distci.frontend.problems import TooOften
from distci.settings import Settings

DELIVERIES, REQUESTS, FREE = "delivery_rate", "request_rate", ""
"""The settings that endpoints are held to; those that watch over a front end may ask at any rate."""


class Rates:
    """The rates of the settings, for requests. Invalid when made with what is none."""

    def __init__(self, settings: Settings) -> None:
        self._limits: Mapping[str, Limits | None] = {
            name: _limits(name, getattr(settings, name)) for name in (DELIVERIES, REQUESTS)
        }

    def check(self, rate: str, principal: Principal, request: HTTPConnection) -> None:
        """Count a request; TooOften when there were too many."""
        limits = self._limits.get(rate)
        if limits is None:
            return
        address = request.client.host if request.client else ""
        who = address if isinstance(principal, Nobody) else principal.name
        wait_s = limits.take(who)
        if wait_s:
            raise TooOften(f"{who} asks too often; see the setting {rate}", wait_s)


def _limits(name: str, text: str) -> Limits | None:
    try:
        return Limits(Rate.parse(text)) if text else None
    except Invalid as error:
        raise Invalid(f"the setting {name}: {error}") from error
