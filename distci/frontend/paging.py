"""Lists in pages: ``{"items": [...], "next": ...}``, and the next page's address in a header besides (RFC 8288)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import TypeVar
from urllib.parse import urlencode

from distci.frontend.endpoint import Answer, Call
from distci.model import Json
from distci.views import to_json

Item = TypeVar("Item")


def page(
    call: Call, items: Iterator[Item], cursor_of: Callable[[Item], str], shown: Callable[[Item], Json] = to_json
) -> Answer:
    """The answer with the next ``limit`` items. ``cursor_of`` gives what the page after that item begins behind."""
    limit = call.query["limit"]
    found = list(islice(items, limit + 1))
    is_more = len(found) > limit
    cursor = cursor_of(found[limit - 1]) if is_more else None
    body = {"items": [shown(item) for item in found[:limit]], "next": cursor}
    return Answer(body, headers={"Link": f'<{_address(call, cursor)}>; rel="next"'} if cursor is not None else {})


def _address(call: Call, cursor: str) -> str:
    """Relative to the page itself: what stands before it (a proxy, a name) is none of our business."""
    given = {name: value for name, value in call.request.query_params.items() if name != "cursor"}
    return f"?{urlencode(given | {'cursor': cursor})}"
