"""Bodies of requests: bounded in bytes and in time, JSON, and as their schema has them."""

from __future__ import annotations

import anyio
from starlette.requests import ClientDisconnect, Request

from distci.documents.schema import api_problems
from distci.documents.strict_json import DOCUMENT_BYTES_MAX, read_json
from distci.errors import InvalidDocument
from distci.frontend.endpoint import JSON, Endpoint
from distci.frontend.problems import BadRequest
from distci.model import Json

BODY_BYTES_MAX = DOCUMENT_BYTES_MAX
BODY_TIME_MAX_S = 30.0
"""How long a body may take to arrive: who is slower holds a connection for nothing."""


async def read(request: Request, endpoint: Endpoint) -> Json | bytes:
    """What an endpoint's function gets of a request's body: a JSON value, None where there is none and need be none, or the bytes.

    BadRequest for anything else.
    """
    if endpoint.body_bytes_max:
        return await read_bytes(request, endpoint.body_bytes_max)
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


async def read_bytes(request: Request, most: int) -> bytes:
    """The body as it came, of ``most`` bytes at most."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > most:
        raise _too_large(most)
    data = bytearray()
    try:
        with anyio.fail_after(BODY_TIME_MAX_S):
            async for piece in request.stream():
                data += piece
                if len(data) > most:
                    raise _too_large(most)
    except TimeoutError:
        raise BadRequest(
            f"the body took more than {BODY_TIME_MAX_S:g} s to come", status=408, headers={"Connection": "close"}
        ) from None
    except ClientDisconnect:
        raise BadRequest("the body was cut off") from None
    return bytes(data)


def _too_large(most: int) -> BadRequest:
    if not most:
        return BadRequest("no body is wanted here", status=413, headers={"Connection": "close"})
    return BadRequest(f"the body has more than {most} bytes", status=413, headers={"Connection": "close"})
