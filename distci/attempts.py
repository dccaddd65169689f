"""What an attempt at a task works with, wherever it is made: what the task's needs came to, and the variables that its script sees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from shlex import quote
from typing import TYPE_CHECKING, NamedTuple

from distci.errors import Invalid, NoSuchBuild
from distci.lifecycle import Lifecycle
from distci.live import LiveBuild
from distci.model import BuildId, Json, Plan, Result, Task
from distci.plan import givers
from distci.protocol.records import Running, Ticket
from distci.secrets import Secrets, check_trusted
from distci.settings import page
from distci.store import keys

if TYPE_CHECKING:
    from distci.builds import Builds

LAST_PASSED = "last-passed"
UPSTREAM = "upstream"


class Input(NamedTuple):
    """The attempt at a need that counts."""

    build: BuildId
    task: str
    token: str
    outcome: Mapping[str, Json]


def inputs(lifecycle: Lifecycle, live: LiveBuild, task: Task) -> Iterator[Input]:
    """The attempts at those tasks that count whose files a task begins with, in the order of its needs."""
    state = live.state
    for need in givers(lifecycle.stored.plan_of(live), task):
        progress = state.tasks[need] if state else None
        if progress is None or not progress.token:
            continue
        build = BuildId.parse(progress.origin) if progress.origin else live.build
        token = progress.token
        outcome = lifecycle.stored.outcome_document(build, need, token)
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


def heading(elsewhere: str | None, build: BuildId, task: Task) -> str:
    """The line that a log begins with: how to run the task on a machine of one's own.

    ``elsewhere`` are the options by which the command finds this system, each with a space before it; None: there is no system to be found.
    """
    return (
        "" if elsewhere is None else f"distci: to run this here: distci reproduce {build} {quote(task.name)}{elsewhere}"
    )


def secrets(known: Secrets | None, plan: Plan, task: Task) -> dict[str, str]:
    """The values of the secrets that a task names, as far as the system has them; Invalid for a build that is not to be trusted with them."""
    check_trusted(task, plan.trigger.is_untrusted)
    return known.values(plan.build.job, task.named_secrets) if known else {}


def record(
    running: Running,
    inputs: Iterable[Input],
    *,
    started_ms: int,
    ended_ms: int,
    log_bytes: int,
    has_workspace: bool,
    artifacts: int,
) -> dict[str, Json]:
    """What stands beside the outcome of an attempt on its record; ``artifacts`` is how many it has published."""
    return {
        "worker": running.worker,
        "attempt": running.ticket.attempt,
        "started_ms": started_ms,
        "ended_ms": ended_ms,
        "log_bytes": log_bytes,
        "workspace": has_workspace,
        "commit": commit(inputs),
        "artifacts": artifacts,
        "after": running.ticket.body.get("after", ""),
    }


def source(builds: Builds, lifecycle: Lifecycle, plan: Plan, task: Task) -> BuildId:
    """The build that a task's ``job`` and ``build`` mean, as seen from the build that it is in. NoSuchBuild when there is none.

    ``build`` is a number, ``last-passed`` (of what is trusted, unless this build is not), or ``upstream``: the build of ``job`` that this
    one follows on, however many others lie between them. Invalid for a task that names no ``job``, NoSuchJob for one whose builds this one
    may not use.
    """
    job = task.arguments.get("job")
    if not isinstance(job, str):
        raise Invalid(f"task {task.name} names no job to have files of")
    lifecycle.check_use(plan.build.job, job)
    which: int | str = task.arguments.get("build", LAST_PASSED)
    if which == LAST_PASSED:
        return _last_passed(builds, plan, job)
    if which == UPSTREAM:
        return _upstream(builds, plan, job)
    return BuildId.parse(f"{job}#{which}")


def _last_passed(builds: Builds, plan: Plan, job: str) -> BuildId:
    for view in builds.list(job):
        # What a stranger wrote must not get into builds that have secrets.
        if view.result is Result.PASSED and (plan.trigger.is_untrusted or not view.trigger.is_untrusted):
            return view.id
    raise NoSuchBuild(f"no build of {job} has passed")


def _upstream(builds: Builds, plan: Plan, job: str) -> BuildId:
    build = plan.trigger.upstream
    while build is not None and build.job != job:
        build = builds.get(build).trigger.upstream
    if build is None:
        raise NoSuchBuild(f"{plan.build} does not follow on a build of {job}")
    return build


def _details(outcome: Mapping[str, Json]) -> Mapping[str, Json]:
    details = outcome.get("details")
    return details if isinstance(details, Mapping) else {}
