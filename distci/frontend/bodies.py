"""Bodies of requests: bounded in bytes and in time, JSON, and as their schema has them."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import BinaryIO, TypeVar, cast

import anyio
from starlette.requests import ClientDisconnect, Request

from distci.documents.schema import api_problems
from distci.documents.strict_json import DOCUMENT_BYTES_MAX, read_json
from distci.errors import InvalidDocument, Unavailable
from distci.frontend.endpoint import JSON, Endpoint
from distci.frontend.problems import BadRequest
from distci.frontend.threads import Threads
from distci.model import Json

Value = TypeVar("Value")

BODY_BYTES_MAX = DOCUMENT_BYTES_MAX
BODY_TIME_MAX_S = 30.0
"""How long a body may take to arrive, and the next piece of a long one: who is slower holds a connection for nothing."""

INTAKE_MAX, INTAKE_BYTES_MAX = 64, 128 * 1024 * 1024
"""Bodies of senders who have proved nothing that one front end reads at once, and bytes of them."""

SENDER_SHARE = 4
"""Which part of these bodies one sender may have."""

INTAKE_TIME_MAX_S = 10.0
"""How long such a body may take to arrive: no forge waits longer for its answer."""

SPOOL_BYTES = 1024 * 1024
"""Of a long body stays in memory; the rest waits in a file."""


async def read(request: Request, endpoint: Endpoint) -> Json:
    """What an endpoint's function gets of a request's body: a JSON value, or None where there is none and need be none.

    BadRequest for anything else.
    """
    data = await read_bytes(request, BODY_BYTES_MAX if endpoint.body else 0)
    if not data:
        if endpoint.body and not endpoint.is_body_optional:
            raise BadRequest("a body is missing; send JSON")
        return None
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != JSON:
        raise BadRequest(f"the body must be {JSON}, not {kind or 'of no type'}", status=415, headers={"Accept": JSON})
    try:
        document = read_json(data, "the body")
    except InvalidDocument as error:
        raise BadRequest(str(error)) from error
    found = api_problems(document, endpoint.body)
    if found:
        raise BadRequest("the body is not as it should be:", found, status=422)
    return document


class Intake:
    """Bounds what is in flight of bodies by senders who have proved nothing yet, in number and in bytes. Belongs to an event loop."""

    def __init__(self, bodies_max: int = INTAKE_MAX, bytes_max: int = INTAKE_BYTES_MAX) -> None:
        self._bodies_max = bodies_max
        self._bytes_max = bytes_max
        self._bodies: Counter[str] = Counter()
        self._bytes = 0

    @asynccontextmanager
    async def read(self, request: Request, sender: str, most: int) -> AsyncIterator[bytes]:
        """The body, which counts as in flight until the block ends. Unavailable where there is no room, for this sender or at all."""
        share = max(1, self._bodies_max // SENDER_SHARE)
        if self._bodies.total() >= self._bodies_max or self._bodies[sender] >= share:
            raise Unavailable(f"{self._bodies.total()} deliveries are being read; send it again")
        taken = 0

        def take(count: int) -> None:
            nonlocal taken
            if self._bytes + count > self._bytes_max:
                raise Unavailable(f"{self._bytes} bytes of deliveries are being read; send it again")
            self._bytes += count
            taken += count

        self._bodies[sender] += 1
        try:
            yield await read_bytes(request, most, take, INTAKE_TIME_MAX_S)
        finally:
            self._bytes -= taken
            self._bodies[sender] -= 1
            self._bodies += Counter()  # who has none left is forgotten


async def read_bytes(
    request: Request, most: int, take: Callable[[int], None] = lambda count: None, time_max_s: float = BODY_TIME_MAX_S
) -> bytes:
    """The body as it came, of ``most`` bytes at most. ``take`` is told of each piece, and raises to refuse it."""
    _check_declared(request, most)
    data = bytearray()
    try:
        with anyio.fail_after(time_max_s):
            async for piece in request.stream():
                take(len(piece))
                data += piece
                if len(data) > most:
                    raise _too_large(most)
    except TimeoutError:
        raise BadRequest(
            f"the body took more than {time_max_s:g} s to come", status=408, headers={"Connection": "close"}
        ) from None
    except ClientDisconnect:
        raise BadRequest("the body was cut off") from None
    return bytes(data)


async def take_in(request: Request, threads: Threads, most: int, keep: Callable[[BinaryIO], Value]) -> Value:
    """What ``keep`` gives for the body in a file, whole: however long it is, memory stays flat, and who is slow holds no thread.

    Raises BadRequest for one that was cut off or has more than ``most`` bytes, and Unavailable where this machine has no room for it.
    """
    async with _spooled(request, threads, most) as file:
        # The file must stay until the store has it, and what was sent in full waits for a thread.
        return await threads.run(keep, file, wait_max_s=math.inf, is_left_alone=False)


@asynccontextmanager
async def _spooled(request: Request, threads: Threads, most: int) -> AsyncIterator[BinaryIO]:
    """A body in a file without a name."""
    _check_declared(request, most)
    with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as file:
        pieces = request.stream()
        held = bytearray()
        left = most
        try:
            while True:
                with anyio.fail_after(BODY_TIME_MAX_S):
                    piece = await anext(pieces, b"")
                held += piece
                left -= len(piece)
                if left < 0:
                    raise _too_large(most)
                if len(held) >= SPOOL_BYTES or not piece:
                    await threads.run(file.write, bytes(held), wait_max_s=math.inf, is_left_alone=False)
                    held.clear()
                if not piece:
                    break
            file.seek(0)
        except TimeoutError:
            raise BadRequest(
                f"nothing of the body came for {BODY_TIME_MAX_S:g} s", status=408, headers={"Connection": "close"}
            ) from None
        except ClientDisconnect:
            raise BadRequest("the body was cut off") from None
        except OSError as error:
            raise Unavailable(f"this front end cannot take the body in: {error.strerror}; ask another") from error
        yield cast(BinaryIO, file)


def _check_declared(request: Request, most: int) -> None:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > most:
        raise _too_large(most)


def _too_large(most: int) -> BadRequest:
    """The connection stays, and the rest of the body is dropped as it comes: closed in the midst of it, it would be reset, and the answer lost on its way."""
    return BadRequest(f"the body has more than {most} bytes" if most else "no body is wanted here", status=413)
