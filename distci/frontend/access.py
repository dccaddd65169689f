"""Who asks, and what they may do: the one seam between the front end and its access control.

An :class:`Access` names the principal of each request and says what a principal may do in a project. Everything else in the front end
goes by its answers alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from typing import Protocol

from starlette.requests import HTTPConnection

LOOPBACK_NAME = "localhost"


class Action(StrEnum):
    """What somebody wants to do; each is a right of its own."""

    READ = "read"
    TRIGGER = "trigger"
    """Start, cancel and repeat builds."""
    WRITE = "write"
    """Change jobs."""
    ADMIN = "admin"
    """Change the system: requeue tickets, drain workers."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who is known to have asked."""

    name: str
    """For the record: who did it."""


class Access(Protocol):
    """Both may ask the tree or the store: they are called in a thread that may wait, from many at once."""

    def principal(self, request: HTTPConnection) -> Principal:
        """Who asks; NotAuthenticated when nobody is known to."""

    def may(self, principal: Principal, action: Action, job: str) -> bool:
        """Whether they may do that to a job or to what belongs to it; to the system as a whole where ``job`` is empty."""


class FullRights:
    """Everybody may do everything, in one name. For listeners that nobody but this machine's own users can reach."""

    def __init__(self, actor: str = "") -> None:
        self._principal = Principal(actor)

    def principal(self, request: HTTPConnection) -> Principal:
        return self._principal

    def may(self, principal: Principal, action: Action, job: str) -> bool:
        return True


def is_loopback(host: str) -> bool:
    """Whether nobody from elsewhere can reach a listener on that host."""
    if host == LOOPBACK_NAME:
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
