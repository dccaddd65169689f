"""The tickets that move builds on: of a task, and of planning and archiving. The same id for the same work, whoever posts it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from distci.model import APPROVAL, CALL, DEFINITION, PASSING, BuildId, Plan, Progress, Task, isolation_label
from distci.projects import project_of
from distci.protocol import paths
from distci.protocol.records import Ticket

CONTROL_KIND = "control"
CONTROL_PRIORITY = 2
"""Planning and archiving are short, and let others begin or rest."""

CONTROL_ATTEMPTS = 20
"""Control work is cheap and idempotent; it is given up only when it kills every worker that touches it."""

CLAIM_LIMIT_S = 20 * 60.0
"""How long a claim may stand without a sign that its work gets on, though its worker lives."""

TIMEOUT_GRACE_S = 2 * 60.0
"""How long it may stand beyond its task's timeout, where that is less."""


ACTIONS = {APPROVAL: "expire", CALL: "call"}
"""What control workers do with the tickets of tasks that only wait, once these get into the queue."""


SERVED_BY = {DEFINITION: "git-checkout"}
"""The kinds of workers that do tasks of types which have no workers of their own."""


def kind_of(type_: str) -> str:
    """The kind of the workers that do tasks of a type."""
    return SERVED_BY.get(type_, type_)


def task_ticket_id(build: BuildId, name: str, progress: Progress) -> str:
    """The id of the ticket of a task that is posted."""
    return paths.digest(f"{build}\n{name}\n{progress.round}", 20)


def task_ticket(made: Plan, name: str, progress: Progress) -> Ticket:
    """The ticket of a task: the same id for the same build, task and round, whoever posts it."""
    task = made.task(name)
    body = {"build": str(made.build), "task": name}
    if progress.token:
        body["after"] = progress.token
    if task.type in PASSING:
        return replace(
            control_ticket(made.build, ACTIONS[task.type]),
            id=task_ticket_id(made.build, name, progress),
            body={**body, "action": ACTIONS[task.type]},
            priority=task.priority,
        )
    return Ticket(
        id=task_ticket_id(made.build, name, progress),
        kind=kind_of(task.type),
        body=body,
        labels=tuple(dict.fromkeys([*task.labels, *map(isolation_label, _isolation_types(task))])),
        priority=task.priority,
        project=project_of(made.build.job),
        guard=paths.build(made.build),
        attempts=task.attempts,
        limit_s=min(CLAIM_LIMIT_S, task.timeout_s + TIMEOUT_GRACE_S) if task.timeout_s else CLAIM_LIMIT_S,
        permits=tuple(replace(resource, name=f"resource:{resource.name}") for resource in task.resources),
    )


def _isolation_types(task: Task) -> Sequence[str]:
    """The way of isolation that a task names; none where it leaves that to its worker's operator."""
    return [task.isolation["type"]] if "type" in task.isolation else []


def control_ticket(build: BuildId, action: str) -> Ticket:
    """The ticket that has a control worker do something for a build, such as to plan or to archive it."""
    return Ticket(
        id=paths.digest(f"{build}\n{action}", 20),
        kind=CONTROL_KIND,
        body={"build": str(build), "action": action},
        priority=CONTROL_PRIORITY,
        project=project_of(build.job),
        guard=paths.build(build),
        attempts=CONTROL_ATTEMPTS,
        uses_quota=False,
        limit_s=CLAIM_LIMIT_S,
    )


def build_of(ticket: Ticket) -> BuildId:
    """The build that a ticket belongs to; :class:`~distci.errors.Invalid` when it names none."""
    return BuildId.parse(str(ticket.body.get("build", "")))
