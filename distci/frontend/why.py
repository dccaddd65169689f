"""Why a build, a task or a ticket is as it is, and what would change that."""

from __future__ import annotations

from collections.abc import Sequence

from distci.access import Action
from distci.frontend.builds import BUILD
from distci.frontend.endpoint import Answer, Call, Endpoint, Returns
from distci.frontend.tickets import shown_ticket


def explain_build(call: Call) -> Answer:
    return Answer({"items": call.system.why.build(call.build), "next": None})


def explain_task(call: Call) -> Answer:
    return Answer(call.system.why.task(call.build, call.path["task"]))


def explain_ticket(call: Call) -> Answer:
    return Answer(call.system.why.ticket(shown_ticket(call).token))


ENDPOINTS: Sequence[Endpoint] = (
    Endpoint(
        "GET",
        f"{BUILD}/why",
        "explain_build",
        "Say why a build is as it is",
        explain_build,
        Action.READ,
        {200: Returns("The build itself, then each task that did not simply pass.", "reason-page", headers=("ETag",))},
    ),
    Endpoint(
        "GET",
        f"{BUILD}/tasks/{{task}}/why",
        "explain_task",
        "Say why a task is as it is",
        explain_task,
        Action.READ,
        {200: Returns("The reason.", "reason", headers=("ETag",))},
    ),
    Endpoint(
        "GET",
        "/tickets/{ticket}/why",
        "explain_ticket",
        "Say why a ticket is where it is",
        explain_ticket,
        Action.READ,
        {200: Returns("The reason.", "reason", headers=("ETag",))},
    ),
)
