"""What happened of late in the whole system; what happens from now on is told by :mod:`distci.frontend.streams`."""

from __future__ import annotations

from collections.abc import Sequence

from distci.access import Action
from distci.events import UNREADABLE
from distci.frontend.endpoint import CURSOR, Answer, Call, Endpoint, Returns, limit
from distci.frontend.paging import number_of, page_of
from distci.model import Json

LISTED, LISTED_MAX = 50, 200
LOOKED_THROUGH_MAX = 2000
"""How many events one request looks through for those that somebody may read."""


def list_events(call: Call) -> Answer:
    found: list[Json] = []
    last = 0
    for looked, event in enumerate(call.system.events.before(number_of(call.query["cursor"]))):
        if looked == LOOKED_THROUGH_MAX or len(found) == call.query["limit"]:
            return page_of(call, found, str(last))
        last = event.number
        if event.kind != UNREADABLE and call.may(Action.READ, event.job):
            found.append(event.to_json())
    return page_of(call, found, None)


ENDPOINTS: Sequence[Endpoint] = (
    Endpoint(
        "GET",
        "/events/recent",
        "list_events",
        "List what happened to builds, the latest first",
        list_events,
        None,
        {
            200: Returns(
                "A page of events; it may be empty and have a next one.", "event-page", headers=("ETag", "Link")
            )
        },
        (limit(LISTED, LISTED_MAX), CURSOR),
        is_filtered=True,
    ),
)
