"""What an attempt at a task works with, wherever it is made: what the task's needs came to, and the variables that its script sees."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from distci.lifecycle import Lifecycle, LiveBuild
from distci.model import BuildId, Json, Plan, Task
from distci.protocol.records import Ticket
from distci.settings import page
from distci.store import keys


class Input(NamedTuple):
    """The attempt at a need that counts."""

    build: BuildId
    task: str
    token: str
    outcome: Mapping[str, Json]


def inputs(
    lifecycle: Lifecycle,
    live: LiveBuild,
    task: Task,
    patiently: Callable[[Callable[[], Mapping[str, Json] | None]], Mapping[str, Json] | None] = lambda call: call(),
) -> Iterator[Input]:
    """The attempts at a task's needs that count, in the order of the needs. ``patiently`` calls what asks the store."""
    state = live.state
    for need in task.needs:
        progress = state.tasks[need] if state else None
        if progress is None or not progress.token:
            continue
        build = BuildId.parse(progress.origin) if progress.origin else live.build
        token = progress.token
        outcome = patiently(lambda: lifecycle.outcome_document(build, need, token))  # noqa: B023 - called at once
        if outcome:
            yield Input(build, need, token, outcome)


def workspaces(found: Iterable[Input]) -> list[str]:
    """The keys of the workspaces that these left."""
    return [keys.workspace(item.build, item.task, item.token) for item in found if item.outcome.get("workspace")]


def commit(found: Iterable[Input]) -> str:
    """The commit that they worked on: what the first that knows one had checked out; empty when none does."""
    known = (str(_details(item.outcome).get("commit") or item.outcome.get("commit") or "") for item in found)
    return next(filter(None, known), "")


def variables(plan: Plan, task: Task, ticket: Ticket, commit: str, build_url: str) -> dict[str, str]:
    """What DistCI itself tells a script of the attempt that it is run for."""
    trigger = plan.trigger
    return {
        "CI": "true",
        "DISTCI": "true",
        "DISTCI_JOB": plan.build.job,
        "DISTCI_BUILD": str(plan.build.number),
        "DISTCI_TASK": task.name,
        "DISTCI_ATTEMPT": str(ticket.attempt),
        "DISTCI_FENCE": ticket.token,
        "DISTCI_COMMIT": trigger.commit or commit,
        "DISTCI_REF": trigger.ref,
        "DISTCI_EVENT": trigger.delivery.event if trigger.delivery else "",
        "DISTCI_BRANCH": trigger.delivery.branch if trigger.delivery else "",
        "DISTCI_PULL_REQUEST": str(trigger.delivery.pull_request or "") if trigger.delivery else "",
        "DISTCI_URL": page(build_url, plan.build),
    }


def _details(outcome: Mapping[str, Json]) -> Mapping[str, Json]:
    details = outcome.get("details")
    return details if isinstance(details, Mapping) else {}
