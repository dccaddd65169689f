"""The web page: files that a browser runs as they are. They hold nothing of the system; all that they show comes from the API.

Every address of the page is answered with the same document, whose script shows what belongs there. An address is that of the thing in
the API without what all of the API's begin with: ``/jobs/team/hello/-/builds/12``. Who opens a login link has a document of its own, which is
there before anybody is known.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from distci.frontend import etags, problems
from distci.settings import LOGIN_PAGE

FOLDER = Path(__file__).with_name("static")
DOCUMENT = "index.html"
ADDRESSES = (
    "/",
    "/jobs/{rest:path}",
    "/queue",
    "/held",
    "/workers",
    "/events",
    "/tickets",
    "/tickets/{rest:path}",
    "/tokens",
    "/secrets",
)
LOGIN_DOCUMENT = "login-link.html"
SUFFIXES = (".css", ".js", ".svg")

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""What the document may do (CSP): run our own files and ask us; nothing that somebody else wrote into it ever runs."""

Handler = Callable[[Request], Awaitable[Response]]


def routes() -> list[Route]:
    """What the page is made of, behind its paths. The files are read once, here."""
    document, login = (
        _serves(FOLDER / name, {"Content-Security-Policy": POLICY}) for name in (DOCUMENT, LOGIN_DOCUMENT)
    )
    pages = [*((path, document) for path in ADDRESSES), (LOGIN_PAGE, login)]
    files = {
        f"/static/{path.relative_to(FOLDER)}": _serves(path)
        for path in sorted(FOLDER.rglob("*"))
        if path.suffix in SUFFIXES
    }
    return [Route(path, handler) for path, handler in [*pages, *files.items()]]


def is_read_by_people(request: Request) -> bool:
    """Whether a browser wants to show the answer as a page."""
    return request.method in ("GET", "HEAD") and "text/html" in request.headers.get("accept", "")


async def nothing_here(request: Request, error: Exception) -> Response:
    """For what no route took: the page says so to people, a problem to programs and to all who ask the API."""
    is_missing = isinstance(error, HTTPException) and error.status_code == 404
    if is_missing and is_read_by_people(request) and not request.url.path.startswith("/api/"):
        headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-store"}
        return Response((FOLDER / DOCUMENT).read_bytes(), 404, headers, "text/html")
    return await problems.not_routed(request, error)


def _serves(path: Path, headers: Mapping[str, str] | None = None) -> Handler:
    data = path.read_bytes()
    etag = etags.digest(data)
    media_type = mimetypes.types_map[path.suffix]
    # A newer front end may answer the next request: what is kept is asked about each time.
    own = {"ETag": etags.quoted(etag), "Cache-Control": "no-cache", **(headers or {})}

    async def serve(request: Request) -> Response:
        if etags.is_unchanged(request.headers.get("if-none-match"), etag):
            return Response(None, 304, own)
        return Response(data, 200, own, media_type)

    return serve
