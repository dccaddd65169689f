"""What stays of a build when it is over: one document, made from its node and the attempts' own records."""

from __future__ import annotations

from distci.documents import stored
from distci.live import LiveBuild
from distci.model import BuildId, BuildState, Json, Task
from distci.protocol.records import FORMAT
from distci.reports.results import shortened
from distci.stored_builds import UNREADABLE, StoredBuilds

REPORTS_CHARS_MAX = 256 * 1024
"""Of what all tests of a build came to: the record has to be readable, however many tasks have however many failed ones."""


def record(builds: StoredBuilds, live: LiveBuild) -> dict[str, Json]:
    """The build as it is kept: made from the node and the attempts' own records, the same however often."""
    try:
        made = builds.plan_of(live) if live.plan_digest else None
    except UNREADABLE:
        made = None  # the build can still be looked at and archived: what its tasks came to is in its state
    state = live.state
    known = made.tasks if made else [Task(name, "") for name in (state.tasks if state else ())]
    share = REPORTS_CHARS_MAX // max(1, len(known))
    tasks = [_task(builds, live.build, task, state, share) for task in known] if state else []
    return {
        "f": FORMAT,
        "build": str(live.build),
        "nonce": live.nonce,
        "job": live.build.job,
        "number": live.build.number,
        "config": live.config,
        "plan": live.plan_digest,
        "trigger": stored.trigger_to_json(live.trigger),
        "parameters": dict(made.parameters) if made else {},
        "result": live.result,
        "reason": live.reason,
        "created_ms": live.created_ms,
        "finished_ms": live.finished_ms,
        "downstream": list(live.downstream),
        "cause": live.cause,
        "tasks": tasks,
    }


def _task(
    builds: StoredBuilds, build: BuildId, task: Task, state: BuildState, reports_chars_max: int
) -> dict[str, Json]:
    progress = state.tasks[task.name]
    origin = BuildId.parse(progress.origin) if progress.origin else build
    return {
        "name": task.name,
        "type": task.type,
        "needs": list(task.needs),
        "allow_failure": task.allow_failure,
        "unfit": task.unfit,
        "emitter": task.emitter,
        "state": progress.state,
        "token": progress.token,
        "origin": progress.origin,
        "attempts": [
            _with_short_reports(attempt, reports_chars_max if attempt["token"] == progress.token else 0)
            for attempt in builds.attempts(origin, task.name, progress.token)
        ],
    }


def _with_short_reports(attempt: dict[str, Json], chars_max: int) -> dict[str, Json]:
    """The record of an attempt as that of its build has it: of what its tests came to, the counts, and as many names as fit."""
    details = attempt.get("details")
    told = details.get("reports") if isinstance(details, dict) else None
    if not isinstance(details, dict) or not isinstance(told, dict):
        return attempt
    return {**attempt, "details": {**details, "reports": shortened(told, chars_max)}}
