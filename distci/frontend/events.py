"""What happened of late in the whole system; what happens from now on is told by :mod:`distci.frontend.streams`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distci.events import GAP, UNREADABLE, Event, behind
from distci.frontend.endpoint import CURSOR, Answer, Call, Endpoint, Parameter, Returns, limit
from distci.frontend.paging import number_of, page_through

LISTED, LISTED_MAX = 50, 200
LOOKED_THROUGH_MAX = 2000
"""How many events one request looks through for those that somebody may read."""

AFTER = Parameter(
    "after",
    {"type": "integer", "minimum": 0, "maximum": 10**9 - 1},
    "Those behind the event of that number instead, the oldest first; 0 for all. Where they are not those that came next, a `gap` says so first.",
)


def list_events(call: Call) -> Answer:
    may_read = call.may_read
    return page_through(
        call,
        _wanted(call),
        lambda event: str(event.number),
        lambda event: event.kind == GAP or (event.kind != UNREADABLE and may_read(event.job)),
        LOOKED_THROUGH_MAX,
        lambda event: event.to_json(),
    )


def _wanted(call: Call) -> Iterator[Event]:
    """Those from where the page begins on, to the first or to the last there is."""
    cursor, after = number_of(call.query["cursor"]), call.query["after"]
    if after is None:
        return call.system.events.before(cursor)
    return behind(call.system.events.after, after if cursor is None else cursor)


ENDPOINTS: Sequence[Endpoint] = (
    Endpoint(
        "GET",
        "/events/recent",
        "list_events",
        "List what happened to builds, the latest first, or all behind an event",
        list_events,
        None,
        {
            200: Returns(
                "A page of events; it may be empty and have a next one.", "event-page", headers=("ETag", "Link")
            )
        },
        (AFTER, limit(LISTED, LISTED_MAX), CURSOR),
        is_filtered=True,
    ),
)
