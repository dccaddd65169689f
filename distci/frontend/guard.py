"""What keeps web pages of others from using a browser against us.

A listener on loopback is not reached from elsewhere, but by pages from elsewhere that a browser here shows: by a name of theirs that
they let point at loopback, or by requests that they may send without asking, with the browser's cookies. Hence names are checked, and so is
where a change comes from.
"""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from distci.frontend.endpoint import ROOT
from distci.frontend.problems import problem
from distci.frontend.site import Site

SAFE = ("GET", "HEAD", "OPTIONS")

HEADERS = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"same-origin"))
"""What every response has besides its own headers."""


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app = app
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        # As a proxy says it that ends TLS: no page of others can have a browser send that header.
        scheme = headers.get("x-forwarded-proto", scope["scheme"])
        refused = self._refused(scope["method"], headers, scheme) or _unreadable(scope)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(item for item in HEADERS if item[0] not in own)]
            await send(message)

        await (refused or self._app)(scope, receive, with_headers)

    def _refused(self, method: str, headers: Headers, scheme: str) -> Response | None:
        host = headers.get("host", "")
        if not self._site.knows(host):
            return problem(
                421, "Invalid", f"this front end is not {host or 'nobody'}; ask it by the name that it listens on"
            )
        if method in SAFE:
            return None
        origin = headers.get("origin")
        if origin is not None and not self._site.is_own(origin, host, scheme):
            return problem(403, "Forbidden", f"a page of {origin} may change nothing here")
        if origin is None and "cookie" in headers and "authorization" not in headers:
            # A browser sends cookies by itself. It also says which page made it ask: what does not is none, or one that we cannot trust.
            return problem(
                403, "Forbidden", "with a cookie, say which page asks (Origin); programs show a token instead"
            )
        return None


def _unreadable(scope: Scope) -> Response | None:
    """What a path with bytes that are no UTF-8 gets: servers put the same character for each of them, and two names would be one.

    Addresses of pages name nothing but what is asked for then.
    """
    if not scope["path"].startswith(ROOT):
        return None
    try:
        unquote_to_bytes(scope.get("raw_path") or b"").decode()
    except UnicodeDecodeError as error:
        wrong = error.object[error.start]
        return problem(400, "Invalid", f"the path is not UTF-8: it has the byte %{wrong:02X}")
    return None
