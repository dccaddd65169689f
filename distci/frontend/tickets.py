"""Tickets: the work that waits, runs, is parked or was set aside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distci.access import Action
from distci.frontend.endpoint import CURSOR, Answer, Call, Endpoint, Parameter, Returns, limit
from distci.frontend.hiding import is_shown
from distci.frontend.paging import page
from distci.model import BuildId
from distci.protocol.tickets import TicketView, no_such_ticket

PLACES = ("waiting", "running", "parked", "dead")


def list_tickets(call: Call) -> Answer:
    return page(call, _wanted(call), lambda item: item[0], lambda item: item[1])


def get_ticket(call: Call) -> Answer:
    return Answer(shown_ticket(call))


def requeue_ticket(call: Call) -> Answer:
    return Answer(call.system.tickets.requeue(call.path["ticket"]))


def shown_ticket(call: Call) -> TicketView:
    """The ticket that the path names; NoSuchTicket also where it is of a job that the caller may not read."""
    ticket = call.path["ticket"]
    view = call.system.tickets.show(ticket)
    if not is_shown(view, call.may_read):
        raise no_such_ticket(ticket)
    return view


def _wanted(call: Call) -> Iterator[tuple[str, TicketView]]:
    kind, build = call.query["kind"], call.query["build"]
    of_build = None if build is None else str(BuildId.parse(build))
    may_read = call.may_read
    for where, view in call.system.tickets.walk(call.query["cursor"] or "", call.query["place"] or ""):
        is_of_kind = kind is None or (view.ticket is not None and view.ticket.kind == kind)
        if (
            is_of_kind
            and is_shown(view, may_read)
            and (of_build is None or (view.ticket and view.ticket.body.get("build") == of_build))
        ):
            yield where, view


ENDPOINTS: Sequence[Endpoint] = (
    Endpoint(
        "GET",
        "/tickets",
        "list_tickets",
        "List all live tickets",
        list_tickets,
        Action.READ,
        {200: Returns("A page of tickets.", "ticket-page", headers=("ETag", "Link"))},
        (
            Parameter("place", {"enum": [*PLACES]}, "Only those that are there."),
            Parameter("kind", {"type": "string", "maxLength": 40}, "Only those of this kind."),
            Parameter("build", {"type": "string", "maxLength": 140}, "Only those of this build, `job#number`."),
            limit(100),
            CURSOR,
        ),
    ),
    Endpoint(
        "GET",
        "/tickets/{ticket}",
        "get_ticket",
        "Read a live ticket",
        get_ticket,
        Action.READ,
        {200: Returns("The ticket, and where it stands.", "ticket", headers=("ETag",))},
    ),
    Endpoint(
        "POST",
        "/tickets/{ticket}/requeue",
        "requeue_ticket",
        "Put a ticket that was set aside back into the queue",
        requeue_ticket,
        Action.ADMIN,
        {200: Returns("It waits again, its attempts counted anew.", "ticket-body")},
    ),
)
