"""Lists in pages: ``{"items": [...], "next": ...}``, and the next page's address in a header besides (RFC 8288)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar
from urllib.parse import urlencode

from distci.frontend.endpoint import Answer, Call
from distci.frontend.problems import BadRequest
from distci.model import Json
from distci.views import to_json

Item = TypeVar("Item")


def page(
    call: Call, items: Iterator[Item], cursor_of: Callable[[Item], str], shown: Callable[[Item], Json] = to_json
) -> Answer:
    """The answer with the next ``limit`` items. ``cursor_of`` gives what the page after that item begins behind."""
    limit = call.query["limit"]
    found = list(islice(items, limit + 1))
    cursor = cursor_of(found[limit - 1]) if len(found) > limit else None
    return page_of(call, [shown(item) for item in found[:limit]], cursor)


def page_through(
    call: Call,
    items: Iterable[Item],
    cursor_of: Callable[[Item], str],
    is_wanted: Callable[[Item], bool],
    looked_through_max: int,
    shown: Callable[[Item], Json] = to_json,
) -> Answer:
    """The same with those items alone that are wanted, of so many that are looked through: it may have few or none and a next page."""
    found: list[Json] = []
    last = ""
    for looked, item in enumerate(items):
        if looked == looked_through_max or len(found) == call.query["limit"]:
            return page_of(call, found, last)
        last = cursor_of(item)
        if is_wanted(item):
            found.append(shown(item))
    return page_of(call, found, None)


def page_of(call: Call, items: Sequence[object], cursor: str | None) -> Answer:
    """The answer with these items, and with the next page's address where there is one."""
    headers = {"Link": f'<{_address(call, cursor)}>; rel="next"'} if cursor is not None else {}
    return Answer({"items": items, "next": cursor}, headers=headers)


def _address(call: Call, cursor: str) -> str:
    """Relative to the page itself: what stands before it (a proxy, a name) is none of our business."""
    given = {name: value for name, value in call.request.query_params.items() if name != "cursor"}
    return f"?{urlencode(given | {'cursor': cursor})}"


def number_of(cursor: str | None) -> int | None:
    """The number that a cursor is; BadRequest when it is none."""
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 10):
        raise no_cursor()
    return int(cursor)


def no_cursor() -> BadRequest:
    return BadRequest("the query is not as it should be:", ["cursor: is none that a page gave"])
