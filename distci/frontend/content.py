"""Bytes from the store as a response, piece by piece: memory stays flat however many there are and however slowly they are taken."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import BinaryIO

import anyio
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from distci.errors import DistCIError
from distci.frontend import etags, problems, ranges
from distci.frontend.endpoint import Content
from distci.frontend.threads import Threads

PIECE_BYTES = 256 * 1024


async def respond(content: Content, request: Request, threads: Threads) -> Response:
    """The response with what the request wants of the bytes: all, a range, or the word that nothing has changed."""
    etag = etags.quoted(content.etag)
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Cache-Control": "private, no-cache", **content.headers}
    if etags.is_unchanged(request.headers.get("if-none-match"), content.etag):
        return Response(None, 304, headers)
    header = request.headers.get("range")
    if request.headers.get("if-range", etag) != etag:
        header = None
    try:
        wanted = ranges.parse(header, content.size_bytes)
    except ranges.Unsatisfiable:
        says = {"Content-Range": f"bytes */{content.size_bytes}"}
        return problems.problem(416, "Invalid", f"there are {content.size_bytes} bytes", headers=says)
    first, end = wanted or (0, content.size_bytes)
    headers["Content-Length"] = str(end - first)
    headers["Content-Type"] = content.media_type
    status = 200
    if wanted is not None:
        status = 206
        headers["Content-Range"] = f"bytes {first}-{end - 1}/{content.size_bytes}"
    if request.method == "HEAD" or first == end:
        return Response(None, status, headers)
    # Opened before the status is sent, so that a store that is away is answered with 503.
    stream = await threads.run(content.open, first)
    return Pieces(stream, end - first, status, headers, threads)


class Pieces(Response):
    """So many bytes of a stream, which is closed whatever becomes of the request."""

    def __init__(self, stream: BinaryIO, count: int, status: int, headers: Mapping[str, str], threads: Threads) -> None:
        self.status_code = status
        self.background = None
        self.body = b""
        self.init_headers(headers)
        self._stream = stream
        self._left = count
        self._threads = threads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(_until_gone, receive, group.cancel_scope.cancel)
                await self._send(send)
                group.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(self._stream.close)

    async def _send(self, send: Send) -> None:
        piece = await self._read()
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        while True:
            await send({"type": "http.response.body", "body": piece, "more_body": self._left > 0})
            if not self._left:
                return
            piece = await self._read()

    async def _read(self) -> bytes:
        wanted = min(PIECE_BYTES, self._left)
        piece = await self._threads.run(self._stream.read, wanted, wait_max_s=math.inf, is_left_alone=False)
        if not piece:
            # Too late to say so in a status: the connection is cut, which a client sees as bytes that are missing.
            raise CutShort(f"{self._left} bytes are missing in the store")
        self._left -= len(piece)
        return piece


class CutShort(DistCIError):
    """What was promised in the headers cannot be sent."""


async def _until_gone(receive: Receive, gone: Callable[[], None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    gone()
