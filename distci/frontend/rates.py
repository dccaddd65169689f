"""How often somebody may ask one front end: each who is known by their name, everybody else by the address that they come from."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address

from starlette.requests import HTTPConnection

from distci.access import Nobody, Principal
from distci.access.limits import Limits, Rate
from distci.errors import Invalid
from distci.frontend.problems import TooOften
from distci.settings import Settings, networks

DELIVERIES, REQUESTS, FREE = "delivery_rate", "request_rate", ""
"""The settings that requests are held to; those that watch over a front end may ask at any rate."""

UNPROVED = "unproved"
"""Deliveries whose sender knows no secret: at the same rate, and apart from those that are proved."""


class Rates:
    """The rates of the settings, for requests. Invalid when made with what is none."""

    def __init__(self, settings: Settings) -> None:
        self._limits: Mapping[str, Limits | None] = {
            DELIVERIES: _limits(DELIVERIES, settings.delivery_rate),
            UNPROVED: _limits(DELIVERIES, settings.delivery_rate),
            REQUESTS: _limits(REQUESTS, settings.request_rate),
        }
        self._proxies = networks(settings.trusted_proxies)

    def check(self, rate: str, principal: Principal, request: HTTPConnection) -> None:
        """Count a request; TooOften when there were too many."""
        limits = self._limits.get(rate)
        if limits is None:
            return
        who = self.address(request) if isinstance(principal, Nobody) else principal.name
        wait_s = limits.take(who)
        if wait_s:
            raise TooOften(f"{who} asks too often; see the setting {DELIVERIES if rate == UNPROVED else rate}", wait_s)

    def address(self, request: HTTPConnection) -> str:
        """Where a request comes from: who has connected; where that is a proxy of ours, whom it names, and so on to the first that is none."""
        address = request.client.host if request.client else ""
        named = ",".join(request.headers.getlist("x-forwarded-for")).split(",")
        while self._is_proxy(address) and named and (before := named.pop().strip()):
            address = before
        return address

    def _is_proxy(self, address: str) -> bool:
        try:
            found = ip_address(address)
        except ValueError:
            return False
        # Who listens on all addresses of both kinds is told those of IPv4 as part of IPv6.
        found = getattr(found, "ipv4_mapped", None) or found
        return any(found in network for network in self._proxies)


def _limits(name: str, text: str) -> Limits | None:
    try:
        return Limits(Rate.parse(text)) if text else None
    except Invalid as error:
        raise Invalid(f"the setting {name}: {error}") from error
