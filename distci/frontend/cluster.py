"""The system as a whole: what waits and why, who serves, what is paused."""

from __future__ import annotations

from collections.abc import Sequence

from distci.access import Action
from distci.frontend.endpoint import CURSOR, Answer, Call, Endpoint, Parameter, Returns, limit
from distci.frontend.hiding import is_shown
from distci.frontend.paging import page
from distci.protocol.depths import HOURS_KEPT
from distci.views import to_json

QUEUE_LISTED, QUEUE_LISTED_MAX = 50, 200


def get_cluster(call: Call) -> Answer:
    return Answer(call.system.status.cluster())


def list_queue(call: Call) -> Answer:
    may_read = call.may_read
    waiting = call.system.status.queue(call.query["cursor"] or "")
    shown = (item for item in waiting if is_shown(item[1].ticket, may_read))
    return page(call, shown, lambda item: item[0], lambda item: {"where": item[0], **to_json(item[1])})


def list_queue_history(call: Call) -> Answer:
    return Answer({"items": call.system.status.queue_history(call.query["hours"])})


def list_kinds(call: Call) -> Answer:
    return Answer({"kinds": call.system.status.kinds()})


def pause(call: Call) -> Answer:
    call.system.tickets.pause(*call.body["kinds"])
    return Answer({"paused": sorted({*call.body["kinds"]})})


def weigh(call: Call) -> Answer:
    call.system.tickets.weigh(call.body["project"], call.body["weight"])
    return Answer(call.body)


def limit_project(call: Call) -> Answer:
    call.system.tickets.limit(call.body["project"], call.body["quota"])
    return Answer(call.body)


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
    Endpoint(
        "GET",
        "/queue/history",
        "list_queue_history",
        "See how many tickets of each kind waited in the last hours, and for how long",
        list_queue_history,
        Action.READ,
        {200: Returns("A sample for each minute in which something waited.", "queue-history", headers=("ETag",))},
        (
            Parameter(
                "hours",
                {"type": "integer", "minimum": 1, "maximum": HOURS_KEPT, "default": HOURS_KEPT},
                "How far back.",
            ),
        ),
    ),
    Endpoint(
        "GET",
        "/kinds",
        "list_kinds",
        "List the kinds of tickets that somebody serves or that wait",
        list_kinds,
        Action.READ,
        {200: Returns("The kinds.", "kinds", headers=("ETag",))},
        tag="workers",
    ),
    Endpoint(
        "PUT",
        "/cluster/paused",
        "pause_kinds",
        "Let nobody claim tickets of these kinds, `*` for all; of no others",
        pause,
        Action.ADMIN,
        {200: Returns("What is paused from now on; with no kinds, nothing.", "paused")},
        body="pause",
    ),
    Endpoint(
        "PUT",
        "/cluster/weights",
        "weigh_project",
        "Give a project so many claims for each one of another",
        weigh,
        Action.ADMIN,
        {200: Returns("Its weight from now on.", "weight")},
        body="weight",
    ),
    Endpoint(
        "PUT",
        "/cluster/quotas",
        "limit_project",
        "Let so many tickets of a project, and of all within it, be claimed at once",
        limit_project,
        Action.ADMIN,
        {200: Returns("Its quota from now on.", "quota")},
        body="quota",
    ),
)
