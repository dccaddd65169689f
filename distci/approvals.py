"""Tasks that wait until somebody has decided. They hold no worker meanwhile: their ticket is parked until the time by which they expire.

Whoever decides puts that on record as the outcome of the attempt that the ticket stands for, and then takes the ticket in the transaction
that moves the build on. So of several who decide at once, and of the expiry, the first on record counts, and whoever dies between the two
steps has decided all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from distci import plan
from distci.build_tickets import task_ticket
from distci.coordination.port import Delete
from distci.documents import stored
from distci.errors import Conflict, IllegalTransition, NoSuchBuild, NoSuchTask
from distci.lifecycle import Lifecycle
from distci.live import LiveBuild
from distci.model import APPROVAL, BuildId, Json, Outcome, Plan, Task, TaskState, Verdict
from distci.protocol import outcomes, paths
from distci.protocol.claims import Claim
from distci.protocol.outcomes import Truth
from distci.protocol.tree import Done


def approvers(lifecycle: Lifecycle, build: BuildId, task: str) -> Sequence[str]:
    """Who may decide of a task that waits for it, as its job names them; empty: whoever may start builds of the job.

    NoSuchBuild, NoSuchTask; IllegalTransition when nobody's decision is waited for.
    """
    return tuple(_waiting(lifecycle, build, task)[2].arguments.get("approvers", ()))


def decide(lifecycle: Lifecycle, build: BuildId, task: str, outcome: Outcome) -> None:
    """Let the task end as somebody has decided; raises as :func:`approvers` does, and Conflict when it expires at this moment.

    IllegalTransition, too, when somebody else was first and has decided otherwise.
    """
    while True:
        live, made, found = _waiting(lifecycle, build, task)
        state = live.state
        assert state is not None, "what waits is planned"
        withdrawal = lifecycle.tickets.withdrawal(task_ticket(made, task, state.tasks[task]))
        if withdrawal is None:
            raise Conflict(f"task {task} of {build} expires at this moment, or its ticket is being moved; look again")
        token = _token(withdrawal)
        now_ms = lifecycle.now_ms()
        document = stored.outcome_to_json(outcome) | record(token, now_ms, state.tasks[task].token)
        event = lifecycle.plans.put_on_record(build, task, token, document)
        step = lifecycle.moved(live, made, plan.advance(made, state, event))
        settled = outcomes.settle(
            lifecycle.tickets.tree,
            partial(lifecycle.tickets.commit, withdrawal, *step.operations, post=step.post),
            partial(_is_decided, lifecycle, build, found.name, token),
            lifecycle.patience(),
        )
        if isinstance(settled, Done) and settled.committed:
            counts = lifecycle.stored.outcome_document(build, task, token) or document
            if counts["verdict"] != outcome.verdict:
                raise IllegalTransition(f"task {task} of {build} was {counts['reason']} before")
            return


def expire(lifecycle: Lifecycle, claim: Claim) -> Claim | None:
    """End a task of which nobody has decided in time."""
    task = str(claim.ticket.body["task"])
    outcome = Outcome(Verdict.TIMED_OUT, "nobody has decided in time")
    return lifecycle.settle(
        claim, task, outcome, record(claim.token, lifecycle.now_ms(), claim.ticket.body.get("after", ""))
    )


def record(token: str, now_ms: int, after: str) -> dict[str, Json]:
    """What stands on the record of an attempt besides its outcome, where no worker has made it."""
    return {
        "worker": "",
        "attempt": paths.attempt_of(token),
        "started_ms": now_ms,
        "ended_ms": now_ms,
        "log_bytes": 0,
        "workspace": False,
        "commit": "",
        "artifacts": 0,
        "after": after,
    }


def told(arguments: Mapping[str, Json]) -> str:
    """What a task waits for, as people read it."""
    who = ", ".join(arguments.get("approvers", ())) or "somebody who may start builds of the job"
    message = arguments.get("message", "")
    return f"it waits for an approval by {who}{f': {message}' if message else ''}"


def _waiting(lifecycle: Lifecycle, build: BuildId, task: str) -> tuple[LiveBuild, Plan, Task]:
    live = lifecycle.read(build)
    if live is None:
        raise NoSuchBuild(f"{build} does not run; nothing of it waits for an approval")
    made = lifecycle.stored.plan_of(live) if live.state else None
    progress = live.state.tasks.get(task) if live.state else None
    if made is None or progress is None:
        raise NoSuchTask(f"{build} has no task {task!r}, or is not planned yet")
    found = made.task(task)
    if found.type != APPROVAL:
        raise IllegalTransition(f"task {task} of {build} is of type {found.type}; it waits for nobody's approval")
    if progress.state is not TaskState.READY:
        raise IllegalTransition(f"task {task} of {build} is {progress.state}; it waits for nobody's approval now")
    return live, made, found


def _token(withdrawal: Delete) -> str:
    """That of the attempt for which a ticket stands that is parked, or that has become due."""
    return withdrawal.path.rpartition("-")[2].partition("~")[0]


def _is_decided(lifecycle: Lifecycle, build: BuildId, task: str, token: str) -> Truth:
    return Truth.COMMITTED if lifecycle.counts(build, task, token) else Truth.NOT_COMMITTED
