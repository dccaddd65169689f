"""Bytes from the store as a response, piece by piece: memory stays flat however many there are and however slowly they are taken."""

from __future__ import annotations

import logging
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

log = logging.getLogger(__name__)

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
    stream = await threads.run(content.open, first)
    try:
        # Before the status is sent, so that a store that is away is answered with 503.
        piece = await threads.run(stream.read, min(PIECE_BYTES, end - first), is_left_alone=False)
    except BaseException:
        stream.close()
        raise
    return Pieces(stream, piece, end - first, status, headers, threads)


class Pieces(Response):
    """So many bytes of a stream, of which the first piece has been read. It is closed whatever becomes of the request."""

    def __init__(
        self, stream: BinaryIO, first: bytes, count: int, status: int, headers: Mapping[str, str], threads: Threads
    ) -> None:
        self.status_code = status
        self.background = None
        self.body = b""
        self.init_headers(headers)
        self._stream = stream
        self._piece = first
        self._left = count
        self._threads = threads
        self._cut_short: CutShort | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(until_gone, receive, group.cancel_scope.cancel)
                try:
                    await self._send(send)
                except CutShort as error:
                    # A group would wrap it.
                    self._cut_short = error
                group.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(self._stream.close)
        if self._cut_short is not None:
            raise self._cut_short

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        while True:
            if not self._piece:
                # Too late to say so in a status: the connection is cut, which a client sees as bytes that are missing.
                log.error("a stored object has %d bytes less than it should have", self._left)
                raise CutShort(f"{self._left} bytes are missing in the store")
            self._left -= len(self._piece)
            await send({"type": "http.response.body", "body": self._piece, "more_body": self._left > 0})
            if not self._left:
                return
            self._piece = await self._next()

    async def _next(self) -> bytes:
        wanted = min(PIECE_BYTES, self._left)
        try:
            return await self._threads.run(self._stream.read, wanted, wait_max_s=math.inf, is_left_alone=False)
        except DistCIError as error:
            log.warning("a download was cut short: %s", error)
            raise CutShort(str(error)) from error


class CutShort(DistCIError):
    """What was promised in the headers cannot be sent."""


async def until_gone(receive: Receive, gone: Callable[[], None]) -> None:
    """Call ``gone`` when the client is."""
    while (await receive())["type"] != "http.disconnect":
        pass
    gone()
