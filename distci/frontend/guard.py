"""What keeps web pages of others from using a browser on this machine against us.

A listener on loopback is not reached from elsewhere, but by pages from elsewhere that a browser here shows: by a name of theirs that
they let point at loopback, or by requests that they may send without asking. Hence names are checked, and so is where a change comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from distci.frontend.access import is_loopback
from distci.frontend.problems import problem

SAFE = ("GET", "HEAD", "OPTIONS")

HEADERS = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"same-origin"))
"""What every response has besides its own headers."""


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str], is_open: bool) -> None:
        """``hosts`` are names that it is asked by besides those of loopback; with ``is_open`` it answers to no other."""
        self._app = app
        self._hosts = frozenset(hosts)
        self._is_open = is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refused = self._refused(scope["method"], Headers(scope=scope))

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(item for item in HEADERS if item[0] not in own)]
            await send(message)

        await (refused or self._app)(scope, receive, with_headers)

    def _refused(self, method: str, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        if self._is_open and not self._is_known(host):
            return problem(
                421, "Invalid", f"this front end is not {host or 'nobody'}; ask it by the name that it listens on"
            )
        origin = headers.get("origin")
        if method not in SAFE and origin is not None and urlsplit(origin).netloc != host:
            return problem(403, "Forbidden", f"a page of {origin} may change nothing here")
        return None

    def _is_known(self, host: str) -> bool:
        name = urlsplit(f"//{host}").hostname or ""
        return is_loopback(name) or name in self._hosts
