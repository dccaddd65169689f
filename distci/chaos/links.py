"""The links between a worker and its back ends: which of them can be cut, and the relays of one worker that do it.

A relay has an address of its own, so it can stand before a server that answers under any name. ZooKeeper does, and so does S3 over plain HTTP:
boto3 signs a request, its Host header included, for the endpoint that it is told, which is the relay, and the server checks the
signature against the header that arrives. By TLS a server has to prove its own name, which is not the relay's. Clients of RADOS
are told by the monitors where daemons are, and no relay is.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Self
from urllib.parse import urlencode, urlsplit, urlunsplit

from distci.app import open_store
from distci.chaos.relay import Relay
from distci.errors import DistCIError
from distci.settings import Settings

ZOOKEEPER_PORT = 2181
HTTP_PORT = 80

Target = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Lines:
    """Where the links lead that can be cut; nowhere for a back end that has none, or none that a relay can stand in."""

    coordination: Sequence[Target] = ()
    store: Sequence[Target] = ()
    left_out: Sequence[str] = ()
    """Why a link that there is cannot be cut, each in a sentence."""


class Links:
    """The relays of one worker; a context manager."""

    def __init__(self, lines: Lines) -> None:
        self.coordination = Relay(lines.coordination)
        self.store = Relay(lines.store)
        self._lines = lines
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self.coordination)
        self._stack.enter_context(self.store)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def through(self, settings: Settings) -> Settings:
        """The settings of whoever takes these links."""
        if self._lines.coordination:
            address = settings.coordination_address
            settings = replace(settings, coordination=f"{address.scheme}://{self.coordination.hosts}{address.path}")
        if self._lines.store:
            settings = replace(settings, store=_at(settings, self.store.hosts))
        return settings


def lines(settings: Settings) -> Lines:
    """The lines of a system. Of a store it is tried out whether it answers through a relay; Unavailable if it does not without one."""
    coordination, why_no_coordination = _coordination(settings)
    store, why_no_store = _store(settings)
    if store and (refusal := _refusal(settings, store)):
        store, why_no_store = (), f"the store does not answer under the address of a relay ({refusal})"
    reasons = {"ZooKeeper": why_no_coordination, "the store": why_no_store}
    return Lines(
        coordination, store, tuple(f"links to {what} are not cut: {why}" for what, why in reasons.items() if why)
    )


def _coordination(settings: Settings) -> tuple[Sequence[Target], str]:
    """Where the links to the tree lead, or why there is no cutting them; neither where there are none."""
    address = settings.coordination_address
    if address.scheme != "zookeeper":
        return (), ""
    if settings.zookeeper_ca:
        return (), "it is reached by TLS, and its certificate is not good for the address of a relay"
    return tuple(_target(host) for host in address.host.split(",")), ""


def _store(settings: Settings) -> tuple[Sequence[Target], str]:
    """The same for the store."""
    address = settings.store_address
    if address.scheme == "rados":
        return (), "clients of RADOS are told by its monitors where to connect to"
    if address.scheme != "s3":
        return (), ""
    endpoint = urlsplit(address.options.get("endpoint_url", "https:"))
    if endpoint.scheme != "http":
        return (), "it is reached by TLS, and its certificate is not good for the address of a relay"
    return ((endpoint.hostname or "", endpoint.port or HTTP_PORT),), ""


def _refusal(settings: Settings, targets: Sequence[Target]) -> str:
    """What comes of asking the store through a relay when all is well without one: nothing, or what it says."""
    open_store(settings).list("", limit=1)
    with Links(Lines(store=targets)) as links:
        try:
            open_store(links.through(settings)).list("", limit=1)
        except DistCIError as error:
            return str(error)
    return ""


def _at(settings: Settings, host: str) -> str:
    """The URL of the store with its endpoint at another host."""
    options = settings.store_address.options
    endpoint = urlunsplit(urlsplit(options["endpoint_url"])._replace(netloc=host))
    return urlunsplit(urlsplit(settings.store)._replace(query=urlencode({**options, "endpoint_url": endpoint})))


def _target(host: str) -> Target:
    name, _, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
    return (name or host).strip("[]"), int(port) if name and port else ZOOKEEPER_PORT
