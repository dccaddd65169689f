"""The system as a whole: what waits and why, who serves, what is paused."""

from __future__ import annotations

from collections.abc import Sequence

from distci.access import Action
from distci.frontend.endpoint import CURSOR, Answer, Call, Endpoint, Returns, limit
from distci.frontend.paging import page

QUEUE_LISTED, QUEUE_LISTED_MAX = 50, 200


def get_cluster(call: Call) -> Answer:
    return Answer(call.system.status.cluster())


def list_queue(call: Call) -> Answer:
    waiting = call.system.status.queue(call.query["cursor"] or "")
    return page(call, waiting, lambda item: item[0], lambda item: item[1])


ENDPOINTS: Sequence[Endpoint] = (
    Endpoint(
        "GET",
        "/cluster",
        "get_cluster",
        "See what waits and runs, and who is there to do it",
        get_cluster,
        Action.READ,
        {200: Returns("The system as it stands.", "cluster", headers=("ETag",))},
    ),
    Endpoint(
        "GET",
        "/queue",
        "list_queue",
        "List the tickets that wait, and what for",
        list_queue,
        Action.READ,
        {200: Returns("A page of waiting tickets.", "waiting-page", headers=("ETag", "Link"))},
        (limit(QUEUE_LISTED, QUEUE_LISTED_MAX), CURSOR),
    ),
)
