"""Where people find a front end, and the cookies that their browsers keep for it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import Response

from distci.settings import is_loopback

SESSION, LOGIN = "session", "login"
"""What cookies are for."""

PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Site:
    """One front end, as browsers know it."""

    public_url: str = ""
    """Where people find it; empty: where it listens."""
    is_local: bool = True
    """Whether it listens on loopback alone."""
    hosts: Collection[str] = ()
    """Names that it is asked by besides these."""

    @property
    def is_secure(self) -> bool:
        """Whether people reach it by TLS."""
        return self.public_url.startswith("https://")

    def address(self, request: HTTPConnection) -> str:
        """Where it is found, for somebody who has found it."""
        return self.public_url.rstrip("/") or f"{request.url.scheme}://{request.headers.get('host', '')}"

    def knows(self, host: str) -> bool:
        """Whether it is asked by that name. On loopback it has few: pages of others may have theirs point there."""
        if not self.is_local:
            return True
        name = _parts(f"//{host}").hostname or ""
        return is_loopback(name) or name in self.hosts or name == urlsplit(self.public_url).hostname

    def is_own(self, origin: str, host: str, scheme: str = "http") -> bool:
        """Whether a page of that origin is one of its own, for a request by that scheme to that host: scheme, name and port are the same."""
        found = _origin(origin)
        return bool(host) and found is not None and found in (_origin(f"{scheme}://{host}"), _origin(self.public_url))

    def cookie(self, request: HTTPConnection, purpose: str) -> str:
        """The text that a browser has kept for that; empty when there is none."""
        return request.cookies.get(self._name(request, purpose), "")

    def keep(self, response: Response, request: HTTPConnection, purpose: str, text: str, lifetime_s: int) -> None:
        """Have a browser keep a text, for so long. It shows it to nobody else, and to no script."""
        response.set_cookie(
            self._name(request, purpose),
            text,
            max_age=lifetime_s,
            path="/",
            secure=self.is_secure,
            httponly=True,
            samesite="lax",
        )

    def forget(self, response: Response, request: HTTPConnection, purpose: str) -> None:
        """Have a browser forget it."""
        self.keep(response, request, purpose, "", 0)

    def _name(self, request: HTTPConnection, purpose: str) -> str:
        """By TLS no other host can set it (``__Host-``). Else with the port in it: to browsers, all ports of a machine are one host."""
        if self.is_secure:
            return f"__Host-distci-{purpose}"
        place = _parts(self.public_url or f"//{request.headers.get('host', '')}")
        try:
            port = place.port
        except ValueError:
            port = None
        return f"distci-{purpose}-{port or 80}"


def _origin(url: str) -> tuple[str, str, int] | None:
    """Scheme, name and port of a URL, as browsers tell origins apart; None for what has none."""
    parts = _parts(url)
    try:
        port = parts.port or PORTS.get(parts.scheme)
    except ValueError:
        return None
    return (parts.scheme, parts.hostname, port) if parts.hostname and port else None


def _parts(url: str) -> SplitResult:
    """A URL taken apart; of what is none, nothing."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")
