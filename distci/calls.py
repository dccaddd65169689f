"""Tasks that start a build of another job and wait for its end. They hold no worker meanwhile.

::

    queue --serve--> the build is started --> parked --(the build is archived, or this one is cancelled)--> queue --serve--> settled

Whichever build is first on record as started by the task's ticket is the one, for good; another that a crash may have brought forth ends before
it begins. To lose no wake-up, parking writes the node of the build that is waited for: whoever archives it says which version it read, and
then looks for who waits.
"""

from __future__ import annotations

from distci.approvals import record
from distci.build_tickets import build_of
from distci.builds import Builds
from distci.coordination.port import Check
from distci.errors import ClaimLost, IllegalTransition, Invalid, Missing, NoSuchBuild, VersionConflict
from distci.lifecycle import Lifecycle
from distci.live import LiveBuild
from distci.model import CALL, BuildId, Outcome, Plan, Result, Task, TaskState, Trigger, Verdict, check_job_id
from distci.protocol.claims import Claim

LOOK_AGAIN_S = 600.0
"""How long a ticket waits at most before somebody looks again: the net below the wake-up."""

COMES_BACK_S = 1.0
"""How soon to look again for a build that a lost tree had, and the present one has not yet."""

DEPTH_MAX = 8
"""How many builds may start each other in a row: a job that starts itself would do so for ever."""


def serve(lifecycle: Lifecycle, claim: Claim) -> Claim | None:
    """Start the build, unless that has been done, and end the task if that build is over; else wait for it."""
    build, name = build_of(claim.ticket), str(claim.ticket.body["task"])
    while True:
        live = lifecycle.read(build)
        if live is None or live.state is None or live.state.tasks[name].state is not TaskState.READY:
            raise ClaimLost(f"task {name} of {build} waits for nothing")
        made = lifecycle.stored.plan_of(live)
        task = made.task(name)
        child = lifecycle.stored.called(build, claim.ticket.id)
        if child is None:
            if live.is_cancelled and not task.on_cancel:
                return _settle(lifecycle, claim, task, Outcome(Verdict.CANCELLED, live.reason))
            try:
                child = _start(lifecycle, claim, live, made, task)
            except (Invalid, Missing) as error:
                return _settle(lifecycle, claim, task, Outcome.failed(str(error)))
        outcome = _outcome(lifecycle, live, task, child)
        if outcome is not None:
            return _settle(lifecycle, claim, task, outcome)
        try:
            _wait(lifecycle, claim, live, task, child)
        except VersionConflict:
            continue  # one of the two builds has gone on meanwhile
        return None


def _start(lifecycle: Lifecycle, claim: Claim, live: LiveBuild, made: Plan, task: Task) -> BuildId:
    """The build that the task has started; Invalid or Missing when it may not, or there is no such job, or its parameters are wrong."""
    job = check_job_id(str(task.arguments["job"]))
    lifecycle.check_start(live.build.job, job)
    if _depth(lifecycle, live.trigger) >= DEPTH_MAX:
        raise Invalid(
            f"{live.build} is the last of {DEPTH_MAX} builds that have started each other; no more are started"
        )
    trigger = Trigger(
        CALL,
        f"{live.build} {task.name}",
        task.arguments.get("parameters", {}),
        upstream=live.build,
        caller=claim.ticket.id,
        # It has the parameters that an untrusted build gave.
        is_untrusted=made.trigger.is_untrusted,
    )
    cause = f"build {live.build} {claim.ticket.id}"
    started = Builds(lifecycle, lifecycle.jobs).start(lifecycle.jobs.get(job), trigger, [cause])
    found = lifecycle.read(started)
    counts = lifecycle.note_started(found) if found else ""
    return BuildId.parse(counts) if counts else started


def _depth(lifecycle: Lifecycle, trigger: Trigger | None) -> int:
    """How many builds have started each other by tasks, up to the one with this trigger."""
    depth = 0
    while trigger is not None and depth < DEPTH_MAX:
        depth += 1
        upstream = trigger.upstream if trigger.caller else None
        live = lifecycle.read(upstream) if upstream else None
        trigger = live.trigger if live else lifecycle.stored.trigger(upstream) if upstream else None
    return depth


def _outcome(lifecycle: Lifecycle, live: LiveBuild, task: Task, child: BuildId) -> Outcome | None:
    """How the task ends; None while there is something to wait for."""
    details = {"build": str(child)}
    if not task.arguments.get("wait", True):
        return Outcome.passed(f"{child} has been started", **details)
    found = lifecycle.read(child)
    result = found.result if found else lifecycle.stored.result(child)
    if result is None and found and task.timeout_s and lifecycle.now_ms() >= found.created_ms + task.timeout_s * 1000:
        _cancel(lifecycle, child, f"{live.build} {task.name} waits no longer")
        return Outcome(Verdict.TIMED_OUT, f"{child} was not over in time, and is cancelled", details=details)
    if result is None and found is None and lifecycle.stored.accepted(child) is None:
        # It may have been archived since: its record is there before it is accepted no more.
        result = lifecycle.stored.result(child)
        if result is None:
            return Outcome.failed(f"{child} is gone: neither the tree nor the store knows of it", **details)
    if result is None:
        return None
    if result is Result.PASSED:
        return Outcome.passed(f"{child} has passed", **details)
    verdict = Verdict.CANCELLED if live.is_cancelled and not task.on_cancel else Verdict.FAILED
    said = "has failed" if result is Result.FAILED else "was cancelled"
    return Outcome(verdict, f"{child} {said}", details=details)


def _wait(lifecycle: Lifecycle, claim: Claim, live: LiveBuild, task: Task, child: BuildId) -> None:
    """Park the ticket until somebody has archived the build. VersionConflict when either build is not as it was."""
    now_ms = lifecycle.tickets.tree.now_ms()
    if live.is_cancelled and not task.on_cancel:
        _cancel(lifecycle, child, f"{live.build} was cancelled")
    found = lifecycle.read(child)
    if found is None:
        if lifecycle.stored.result(child) is not None:
            raise VersionConflict(f"{child} is over")
        claim.park_until(now_ms + int(COMES_BACK_S * 1000), uses_attempt=False)
        return
    left_s = LOOK_AGAIN_S
    if task.timeout_s:
        left_s = min(left_s, task.timeout_s - (lifecycle.now_ms() - found.created_ms) / 1000)
    due_ms = now_ms + max(0, int(left_s * 1000))
    claim.park_until(due_ms, Check(live.path, live.version), found.write(), uses_attempt=False)


def _cancel(lifecycle: Lifecycle, child: BuildId, reason: str) -> None:
    try:
        found = lifecycle.read(child)
        if found is not None and not found.is_cancelled:
            lifecycle.cancel(child, reason)
    except (NoSuchBuild, IllegalTransition):
        return  # it is over


def _settle(lifecycle: Lifecycle, claim: Claim, task: Task, outcome: Outcome) -> Claim | None:
    noted = record(claim.token, lifecycle.now_ms(), claim.ticket.body.get("after", ""))
    return lifecycle.settle(claim, task.name, outcome, noted)
