"""Who did what."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from distci.access import Action, Entry
from distci.frontend.endpoint import CURSOR, Answer, Call, Endpoint, Parameter, Returns, limit
from distci.frontend.paging import no_cursor, page

_CURSOR = re.compile(r"([0-9]{1,15})-([0-9A-Za-z]{1,64})")

SINCE = Parameter(
    "since_ms",
    {"type": "integer", "minimum": 0, "maximum": 10**14, "default": 0},
    "Only what was done since then, in milliseconds since 1970.",
)


def list_entries(call: Call) -> Answer:
    return page(call, _wanted(call), lambda entry: f"{entry.time_ms}-{entry.nonce}")


def _wanted(call: Call) -> Iterator[Entry]:
    """The oldest first, behind the one that the cursor names."""
    if call.query["cursor"] is None:
        return call.system.audit.list(call.query["since_ms"])
    found = _CURSOR.fullmatch(call.query["cursor"])
    if not found:
        raise no_cursor()
    last = (int(found[1]), found[2])
    return (entry for entry in call.system.audit.list(last[0]) if (entry.time_ms, entry.nonce) > last)


ENDPOINTS: Sequence[Endpoint] = (
    Endpoint(
        "GET",
        "/audit",
        "list_audit",
        "See who changed what, the oldest first",
        list_entries,
        Action.ADMIN,
        {200: Returns("A page of entries.", "audit-page", headers=("ETag", "Link"))},
        (SINCE, limit(200), CURSOR),
        needs_tree=False,
        tag="access",
    ),
)
