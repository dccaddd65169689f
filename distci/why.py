"""Why a build, a task or a ticket is as it is: what it waits for, why it was skipped or ran again, and what would change that.

:func:`of_build` and :func:`of_task` are pure functions of the build as it is seen, its plan and a picture of the tree
(:mod:`distci.protocol.waits`); :class:`Why` gets these together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from shlex import quote
from statistics import median

from distci import approvals, statuses
from distci.build_tickets import control_ticket, task_ticket
from distci.builds import Builds, BuildView, TaskView
from distci.lifecycle import Lifecycle
from distci.live import LiveBuild
from distci.model import APPROVAL, CALL, BuildId, Plan, TaskState
from distci.protocol import waits
from distci.protocol.tickets import Tickets, TicketView
from distci.protocol.waits import Situation, Wait

NOT_STARTED = "not started"
"""The state of a job of which no build was started where one might have been."""

BUILDS_LOOKED_AT = 10
"""How many of a job's last builds tell how long its tasks usually take."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something is as it is."""

    subject: str
    """A build (``team/hello#3``), a task of it (``team/hello#3 test``), a ticket's token, or a job of which no build was started."""
    state: str
    because: str
    remedy: str = ""
    """What would change it; empty where nothing needs to be done, or can be."""
    place: int = 0
    """Its place in the line that it stands in, from 1; 0 for none."""
    starts_in_s: float | None = None
    """When it is likely to start, from how long such tasks took lately; None where that cannot be told."""
    since_ms: int = 0
    """Since when it waits or runs, in milliseconds since 1970; 0 where it does neither, or that is not known."""


@dataclass(frozen=True, slots=True)
class Known:
    """All that the reasons of one build are told from."""

    view: BuildView
    situation: Situation
    live: LiveBuild | None = None
    plan: Plan | None = None
    usual_s: Mapping[str, float] = field(default_factory=dict)
    """How long each task usually takes, where it is known."""
    called: Mapping[str, BuildView] = field(default_factory=dict)
    """The builds that tasks of it have started and wait for, by task."""


def of_build(known: Known) -> Iterator[Reason]:
    """Why a build is as it is: itself first, what should have followed on it, then each of its tasks that did not simply pass."""
    view = known.view
    if view.result is None:
        yield replace(_unfinished_build(known), since_ms=view.created_ms)
    else:
        bad = [task.name for task in view.tasks if task.state.is_bad and not task.allow_failure]
        because = view.reason or (f"{', '.join(bad)} went wrong" if bad else "all that had to passed")
        yield Reason(str(view.id), view.state, because)
        yield from _unreadable_downstream(view)
        yield from (Reason(job, NOT_STARTED, why) for job, why in view.refused_downstream.items())
    for task in view.tasks:
        if task.state is not TaskState.PASSED or len(task.attempts) > 1:
            yield of_task(known, task)


def of_task(known: Known, task: TaskView) -> Reason:
    """Why a task is as it is."""
    return replace(_of_task(known, task), since_ms=task.since_ms)


def _of_task(known: Known, task: TaskView) -> Reason:
    subject = f"{known.view.id} {task.name}"
    match task.state:
        case TaskState.WAITING:
            return Reason(subject, task.state, f"it needs {_unfinished(known.view, task)}")
        case TaskState.READY | TaskState.BLOCKED:
            return _posted(known, task, subject)
        case TaskState.RUNNING:
            return _running(known, task, subject)
        case TaskState.SKIPPED:
            return Reason(subject, task.state, _skipped(known.view, task))
        case TaskState.CANCELLED:
            return Reason(subject, task.state, task.reason or known.view.reason or "its build was cancelled")
        case TaskState.REUSED:
            return Reason(subject, task.state, f"taken over from {task.origin}, where it passed")
        case TaskState.LOST:
            times = len(task.attempts)
            remedy = "see what it does to its workers, then distci build retry"
            return Reason(subject, task.state, f"{task.reason}; no attempt is left after {times}", remedy)
        case TaskState.PASSED:
            return Reason(subject, task.state, f"after {_rounds(task)}")
    allowed = "; it is allowed to" if task.allow_failure else ""
    again = f", after {_rounds(task)}" if len(task.attempts) > 1 else ""
    return Reason(
        subject,
        task.state,
        f"{task.reason or task.state}{again}{allowed}",
        f"distci build log {known.view.id} {quote(task.name)}",
    )


def of_ticket(view: TicketView, situation: Situation) -> Reason:
    """Why a ticket is where it is."""
    return replace(_of_ticket(view, situation), since_ms=view.since_ms)


def _of_ticket(view: TicketView, situation: Situation) -> Reason:
    ticket = view.ticket
    if view.place == "dead":
        return Reason(view.token, view.place, f"set aside: {view.reason}", f"distci ticket requeue {view.token}")
    if ticket is None:
        return Reason(view.token, view.place, view.reason)
    if view.place == "running":
        return Reason(view.token, view.place, _held(view.token, view.worker, situation))
    if view.place == "parked" and not ticket.permits and view.reason == "due":
        return Reason(view.token, view.place, "it waits for its time")
    wait = waits.explain(ticket, situation)
    if ticket.kind == statuses.KIND and wait.missing:
        wait = statuses.without_token(ticket)
    return Reason(view.token, view.place, wait.because, wait.remedy, wait.place)


# Builds that have ended


def _unreadable_downstream(view: BuildView) -> Iterator[Reason]:
    for job, error in view.unreadable_downstream.items():
        yield Reason(
            job,
            NOT_STARTED,
            f"it may have had to follow on {view.id}, and could not be read then: {error}",
            f"save a version that can be read where control workers run, then distci build trigger {quote(job)}",
        )


# Builds that go on


def _unfinished_build(known: Known) -> Reason:
    view, live = known.view, known.live
    if live is not None and live.state is None:
        return _unplanned(known, live)
    left = [task.name for task in view.tasks if not task.state.is_final]
    tasks = "1 task is" if len(view.tasks) == 1 else f"{len(view.tasks)} tasks {'is' if len(left) == 1 else 'are'}"
    return Reason(str(view.id), view.state, f"{len(left)} of {tasks} not over: {', '.join(left)}")


def _unplanned(known: Known, live: LiveBuild) -> Reason:
    subject, state = str(known.view.id), known.view.state
    if live.waits_for:
        line = known.situation.lines.get(live.waits_for)
        ids = [ticket.id for ticket in line.waiting] if line else []
        mine = control_ticket(live.build, "plan").id
        holders = ", ".join(line.holders) if line and line.holders else "nobody any more"
        group = live.waits_for.partition(":")[2]
        place = ids.index(mine) + 1 if mine in ids else 0
        return Reason(subject, state, f"its group {group} is full: {holders}", "wait, or cancel one of them", place)
    wait = waits.explain(control_ticket(live.build, "plan"), known.situation)
    return Reason(subject, state, f"it is not planned yet: {wait.because}", wait.remedy, wait.place)


# Tasks


def _unfinished(view: BuildView, task: TaskView) -> str:
    needs = [view.task(need) for need in task.needs]
    return ", ".join(f"{need.name} ({need.state})" for need in needs if not need.state.is_final)


def _posted(known: Known, task: TaskView, subject: str) -> Reason:
    """A task whose ticket has been posted and is not held."""
    if known.plan is None or known.live is None or known.live.state is None:
        return Reason(subject, task.state, "it has just been posted")
    ticket = task_ticket(known.plan, task.name, known.live.state.tasks[task.name])
    left_s = (known.situation.due.get(ticket.id, 0) - known.situation.now_ms) / 1000
    if task.type == APPROVAL and left_s > 0:
        because = f"{approvals.told(known.plan.task(task.name).arguments)}; it expires in {left_s:.0f} s"
        return Reason(subject, task.state, because, f"distci build approve {known.view.id} {quote(task.name)}")
    if task.name in known.called:
        called = known.called[task.name]
        return Reason(
            subject, task.state, f"it waits for {called.id}, which is {called.state}", f"distci why {called.id}"
        )
    wait = waits.explain(ticket, known.situation)
    lost = f"; attempt {task.attempts[-1].get('attempt', 1)} came to nothing" if task.attempts else ""
    if ticket.id in known.situation.due and task.attempts and task.attempts[-1].get("verdict") != TaskState.LOST:
        waits_for = wait.because.removeprefix("it ")
        round_ = known.live.state.tasks[task.name].round
        return Reason(subject, task.state, f"round {round_} {waits_for}, after {task.reason or 'a failure'}")
    return Reason(
        subject,
        task.state,
        f"{wait.because}{lost}",
        wait.remedy,
        wait.place,
        _starts_in_s(wait, known.usual_s.get(task.name)),
    )


def _starts_in_s(wait: Wait, usual_s: float | None) -> float | None:
    """As if all that is before it took as long as it does itself, over all slots of its workers."""
    if usual_s is None or not wait.slots or not wait.place:
        return None
    if not wait.remedy:
        return 0.0
    return usual_s * wait.place / wait.slots


def _running(known: Known, task: TaskView, subject: str) -> Reason:
    if task.hold:
        helps = f"distci build shell {known.view.id} {quote(task.name)}"
        because = f"it has failed, {task.hold.reason}, and is held on {task.worker} for somebody who wants to look"
        return Reason(subject, task.state, because, f"{helps}, with --release to end that")
    attempt = task.token.rpartition(".")[2]
    again = f", in attempt {attempt} since the one before was lost" if attempt not in ("", "1") else ""
    usual_s = known.usual_s.get(task.name)
    usual = f"; it usually takes {usual_s:.0f} s" if usual_s is not None else ""
    held = _held(task.token, task.worker, known.situation)
    return Reason(subject, task.state, f"{held}{again}{usual}")


def _held(token: str, worker: str, situation: Situation) -> str:
    if waits.without_heartbeat(token, situation):
        return f"its worker {worker} is gone; a control worker puts it back in a moment"
    return f"{worker} works on it"


def _skipped(view: BuildView, task: TaskView) -> str:
    if task.unfit:
        return f"its `if` leaves it out: {task.unfit}"
    needs = [view.task(need) for need in task.needs]
    bad = [need for need in needs if need.state.is_bad and not need.allow_failure]
    cause = bad or [need for need in needs if need.state in (TaskState.SKIPPED, TaskState.CANCELLED)]
    if not cause:
        return f"it runs when something fails, and nothing that it needs did: {', '.join(task.needs)}"
    return f"it needs {', '.join(f'{need.name} ({need.state})' for need in cause)}"


def _rounds(task: TaskView) -> str:
    """How often it was tried, the lost attempts apart from the failed ones."""
    lost = sum(attempt.get("verdict") == "lost" for attempt in task.attempts)
    failed = len(task.attempts) - lost
    return _counted(failed, "round") + (f" and {_counted(lost, 'lost attempt')}" if lost else "")


def _counted(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {what}s"


class Why:
    """Explains builds, tasks and tickets of one system. Any thread may use it."""

    def __init__(self, builds: Builds, lifecycle: Lifecycle) -> None:
        self._builds = builds
        self._lifecycle = lifecycle
        self._tickets: Tickets = lifecycle.tickets

    def build(self, build: BuildId | str) -> list[Reason]:
        """Why a build is as it is, itself first, then its tasks; NoSuchBuild when there is none.

        >>> [(reason.state, reason.because) for reason in ci.why.build("docs/hello#1")]
        [('passed', 'all that had to passed')]
        """
        return list(of_build(self._known(build)))

    def task(self, build: BuildId | str, task: str) -> Reason:
        """Why a task is as it is; NoSuchBuild, NoSuchTask."""
        known = self._known(build)
        return of_task(known, known.view.task(task))

    def ticket(self, ticket: str) -> Reason:
        """Why a ticket, by id or token, is where it is; NoSuchTicket when it is nowhere (any more)."""
        view = self._tickets.show(ticket)
        return of_ticket(view, waits.read(self._tickets))

    def _known(self, build: BuildId | str) -> Known:
        view = self._builds.get(build)
        live = self._lifecycle.read(view.id) if view.result is None else None
        plan = self._lifecycle.stored.plan_of(live) if live and live.plan_digest else None
        usual_s = dict(self._usual(view.id)) if live else {}
        called = dict(self._called(live, plan)) if live and plan else {}
        return Known(view, waits.read(self._tickets), live, plan, usual_s, called)

    def _called(self, live: LiveBuild, plan: Plan) -> Iterator[tuple[str, BuildView]]:
        """What is waited for that tasks have started."""
        for task in plan.tasks:
            progress = live.state.tasks[task.name] if live.state else None
            if task.type == CALL and progress and progress.state is TaskState.READY:
                child = self._lifecycle.stored.called(live.build, task_ticket(plan, task.name, progress).id)
                if child is not None:
                    yield task.name, self._builds.get(child)

    def _usual(self, build: BuildId) -> Iterator[tuple[str, float]]:
        """How long each task of the job took in its last builds where it passed: the median, in seconds."""
        took: dict[str, list[float]] = {}
        for view in self._builds.list(build.job, BUILDS_LOOKED_AT):
            for task in view.tasks:
                if task.state is TaskState.PASSED and task.attempts:
                    last = task.attempts[-1]
                    took.setdefault(task.name, []).append((last["ended_ms"] - last["started_ms"]) / 1000)
        return ((name, median(times)) for name, times in took.items())
