"""Builds as people and programs see them: started, listed, followed, cancelled, run again.

A build is read from the tree while it runs and from the store once it is archived; since the record is stored before the node is deleted,
looking in that order (and once more in the tree) never misses one.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from threading import Event
from typing import NoReturn

from distci import approvals, build_records, console, plan
from distci.build_tickets import task_ticket_id
from distci.coordination.port import Operation
from distci.documents.stored import trigger_from_json
from distci.documents.strict_json import read_json
from distci.errors import (
    CoordinationUnavailable,
    IllegalTransition,
    Invalid,
    Missing,
    NoSuchBuild,
    NoSuchObject,
    NoSuchTask,
    VersionConflict,
)
from distci.jobs import Jobs, JobVersion
from distci.lifecycle import Lifecycle
from distci.live import LiveBuild
from distci.model import BuildId, Hold, Json, Outcome, Result, TaskState, Trigger, check_job_id
from distci.protocol import paths, transactions
from distci.protocol.tickets import DAY_S
from distci.store import keys

POLL_S = 0.2
"""How often a follower looks whether there is more; a line of a log is stored within a quarter of a second."""

RETRY_KIND = "retry"

OF_A_SERVICE = re.compile(r"[a-z][a-z0-9.-]* ")
"""How causes of services begin, those of receivers among them."""

CHOSEN = "Idempotency-Key "
"""Stands before a cause that somebody chose where it would read like another one; no service's begins so."""


@dataclass(frozen=True, slots=True)
class TaskView:
    """A task of a build as it stands."""

    name: str
    type: str
    needs: Sequence[str]
    state: TaskState
    token: str
    """The attempt that counts, or that runs; empty before there is one."""
    origin: str
    """The build whose attempt that is, when this one took it over; usually empty."""
    worker: str
    """Who runs it, while it runs; who ran it, afterwards."""
    allow_failure: bool
    attempts: Sequence[Mapping[str, Json]]
    """The records of attempts that have ended, the oldest first: worker, start and end in milliseconds, exit status or signal ..."""
    since_ms: int
    """Since when it waits or runs, in milliseconds since 1970; 0 once it is over."""
    unfit: str = ""
    """Why its ``if`` leaves it out of the build; empty when it does not."""
    emitter: str = ""
    """The task that has defined it; empty when the job has."""
    progress: int | None = None
    """How far it says that it is while it runs, in percents; None where it does not say."""
    hold: Hold | None = None
    """Until when it is held, and how it has failed, while its worker keeps it for somebody who wants to look; None otherwise."""

    @property
    def reason(self) -> str:
        """Why it ended as it did; empty when there is nothing to add to the state."""
        if self.hold:
            return self.hold.reason
        return str(self.attempts[-1].get("reason", "")) if self.attempts else self.unfit


@dataclass(frozen=True, slots=True)
class BuildView:
    """A build as it stands."""

    id: BuildId
    state: str
    """``planning``, ``blocked`` (its concurrency group is full), ``running``, ``cancelling``, or its result: ``passed``, ``failed``,
    ``cancelled``."""
    result: Result | None
    reason: str
    config: int
    trigger: Trigger
    created_ms: int
    finished_ms: int
    """0 until it has its result."""
    downstream: Sequence[str]
    unreadable_downstream: Mapping[str, str]
    """Jobs that could not be read when the build ended, so that nobody knew whether they follow on it; by id, why."""
    tasks: Sequence[TaskView]
    is_archived: bool
    refused_downstream: Mapping[str, str] = field(default_factory=dict)
    """Jobs that would have followed on it and may not; by id, why."""

    @property
    def to_retry(self) -> Sequence[str]:
        """The tasks that run again when what failed of a build that is over does; none, where nothing failed."""
        if not any(task.state.is_bad or task.state is TaskState.CANCELLED for task in self.tasks):
            # What was only skipped was for another occasion: nothing of it failed.
            return []
        # What tasks have defined is known once these have run again.
        emitters = {task.emitter for task in self.tasks}
        own = [task for task in self.tasks if not task.emitter]
        return [task.name for task in own if task.name in emitters or not task.state.is_good]

    def task(self, name: str) -> TaskView:
        """The task of that name; NoSuchTask when there is none."""
        for task in self.tasks:
            if task.name == name:
                return task
        known = ", ".join(task.name for task in self.tasks) or "none yet"
        raise NoSuchTask(f"{self.id} has no task {name!r}; its tasks: {known}")


@dataclass(frozen=True, slots=True)
class LogPiece:
    """Some bytes of the console log of one task's attempt, as they came. The first piece of an attempt has none: it has begun."""

    task: str
    token: str
    offset: int
    data: bytes


class Builds:
    """The builds of one system. Any thread may use it."""

    def __init__(
        self, lifecycle: Lifecycle, jobs: Jobs, actor: str = "", clock: Callable[[], float] = time.time
    ) -> None:
        """``actor`` goes on record as who asked, unless a call names somebody else."""
        self._actor = actor
        self._lifecycle = lifecycle
        self._jobs = jobs
        self._store = lifecycle.store
        self._tickets = lifecycle.tickets
        self._clock = clock

    def trigger(
        self,
        job: str,
        parameters: Mapping[str, str] | None = None,
        *,
        actor: str = "",
        commit: str = "",
        ref: str = "",
        cause: str = "",
    ) -> BuildId:
        """Start a build of a job as it is in force now; its id.

        ``cause`` names what made you ask (a delivery, a change): asking again for that job with the same cause within a day gives the
        same build. Raises NoSuchJob, InvalidJob (wrong parameters, each named), and Unavailable, after which asking again with a cause is safe.

        >>> build = ci.builds.trigger("docs/hello")
        >>> str(build)
        'docs/hello#1'
        """
        trigger = Trigger("manual", actor or self._actor, parameters or {}, commit=commit, ref=ref)
        return self._created(job, lambda: _fit(self._jobs.get(job), trigger), trigger, _asked_with(cause))

    def start(
        self,
        version: JobVersion,
        trigger: Trigger,
        causes: Sequence[str] = (),
        changed: Sequence[str] | None = None,
    ) -> BuildId:
        """Start a build of a job's version with any trigger; for services that know what has happened, and which files have ``changed``.

        Where one of ``causes`` has been served within a day it is the build that was started then. The first is kept
        even when the tree is lost. Each begins with the name of the service and a space; what people give to :meth:`trigger` never
        means one of these. Raises as :meth:`trigger` does.
        """
        return self._created(version.job, lambda: _fit(version, trigger, changed), trigger, causes)

    def get(self, build: BuildId | str) -> BuildView:
        """A build as it stands; NoSuchBuild when there is none of that number.

        >>> ci.builds.get("docs/hello#1").result.value
        'passed'
        """
        wanted = _id(build)
        return self._find(wanted) or _no_such_build(wanted)

    def last_number(self, job: str) -> int:
        """The number of a job's newest build; 0 when it never had one."""
        return self._lifecycle.last_number(job)

    def list(self, job: str, limit: int | None = None, before: int | None = None) -> Iterator[BuildView]:
        """Builds of a job, the newest first: ``limit`` of them at most, and only those whose number is below ``before``.

        >>> [str(view.id) for view in ci.builds.list("docs/hello")]
        ['docs/hello#1']
        """
        last = self._lifecycle.last_number(job)
        if before is not None:
            last = min(last, before - 1)
        first = 1 if limit is None else max(1, last - limit + 1)
        for number in range(last, first - 1, -1):
            found = self._find(BuildId(job, number))
            if found is not None:
                yield found

    def wait(self, build: BuildId | str, timeout_s: float | None = None) -> BuildView:
        """Wait until a build is archived, and give it; as it stands then when the time runs out first.

        >>> ci.builds.wait(build, timeout_s=60).state
        'passed'
        """
        wanted = _id(build)
        coordination = self._tickets.tree.coordination
        until = deadline(timeout_s, time.monotonic())
        changed = Event()
        path = paths.build(wanted)
        while True:
            # Looked at before it is watched: a watch of a build that has been archived would stay for ever.
            is_live = coordination.exists(path) is not None and coordination.watch(path, changed) is not None
            remaining_s = None if until is None else max(0.0, until - time.monotonic())
            if not is_live or remaining_s == 0:
                view = self.get(wanted)
                if view.is_archived or remaining_s == 0:
                    return view
            # One that is neither live nor archived comes back after the loss of its tree; until then nothing is there to be watched.
            changed.wait(remaining_s if is_live else POLL_S)
            changed.clear()

    def cancel(self, build: BuildId | str, reason: str = "") -> None:
        """Ask a build to end. Waiting tasks end at once, running ones are stopped; IllegalTransition when it is over."""
        wanted = _id(build)
        try:
            self._lifecycle.cancel(wanted, reason or f"cancelled by {self._actor}")
        except NoSuchBuild:
            view = self.get(wanted)
            if not view.is_archived:
                raise CoordinationUnavailable(
                    f"{wanted} is being brought back into a tree that was lost; try again"
                ) from None
            raise IllegalTransition(f"{wanted} has ended as {view.state}; there is nothing to cancel") from None

    def approvers(self, build: BuildId | str, task: str) -> Sequence[str]:
        """Who may decide of a task that waits for an approval, as its job names them; empty: whoever may start builds of the job.

        Raises NoSuchBuild, NoSuchTask, and IllegalTransition when none is waited for.
        """
        return approvals.approvers(self._lifecycle, _id(build), task)

    def decide(
        self, build: BuildId | str, task: str, is_approved: bool, reason: str = "", *, actor: str = ""
    ) -> TaskView:
        """Approve or refuse what a task waits for, which then passes or fails; the task as it then stands. Whether ``actor`` may is not asked here.

        Raises as :meth:`approvers` does, IllegalTransition also when somebody else has decided otherwise before; Conflict when it expires
        at this moment.
        """
        wanted, by = _id(build), actor or self._actor
        said = f"{'approved' if is_approved else 'refused'} by {by or 'somebody'}{f': {reason}' if reason else ''}"
        outcome = Outcome.passed(said, by=by) if is_approved else Outcome.failed(said, by=by)
        approvals.decide(self._lifecycle, wanted, task, outcome)
        return self.get(wanted).task(task)

    def retry(self, build: BuildId | str, *, only_failed: bool = False, actor: str = "", cause: str = "") -> BuildId:
        """Run a build that is over once more, as a new build of the same job version, parameters and commits.

        With ``only_failed``, tasks that passed are taken over, and only the others run. IllegalTransition while it runs, or
        when nothing failed. ``cause`` is as for :meth:`trigger`.
        """
        old = self._over(build)
        if only_failed and not old.to_retry:
            raise IllegalTransition(f"no task of {old.id} failed; run it again as a whole")
        return self._again(old, old.to_retry if only_failed else (), actor, _asked_with(cause))

    def rerun(self, build: BuildId, actor: str, causes: Sequence[str]) -> BuildId:
        """Run what failed of a build that is over once more, or all of it where nothing did; for services, ``causes`` as for :meth:`start`.

        IllegalTransition while it runs.
        """
        old = self._over(build)
        return self._again(old, old.to_retry, actor, causes)

    def noted(self, cause: str, text: str) -> str:
        """What was first noted for a cause within a day: ``text``, where nothing was. Whoever comes again goes by what they first found."""
        days = self._days()
        if self._tickets.tree.commit(*transactions.remember(cause, days[1], text)).committed:
            return text
        # Somebody was first; or the answer was lost, and it is ours.
        self._tickets.tree.coordination.sync()
        noted = self._remembered(days, [cause])
        if noted is None:
            raise CoordinationUnavailable("it is not known whether that was noted; tell it again")
        return noted

    def _over(self, build: BuildId | str) -> BuildView:
        """A build that is over; IllegalTransition for one that runs."""
        view = self.get(build)
        if not view.is_archived:
            if view.result:
                raise IllegalTransition(f"{view.id} is just being put on record as {view.result}; ask again")
            raise IllegalTransition(f"{view.id} is still {view.state}; wait for it or cancel it first")
        return view

    def _again(self, old: BuildView, only: Sequence[str], actor: str, causes: Sequence[str]) -> BuildId:
        trigger = replace(
            old.trigger, kind=RETRY_KIND, actor=actor or self._actor, retry_of=old.id, only=only, caller=""
        )
        job, config = old.id.job, old.config
        return self._created(job, lambda: self._jobs.get(job, config), trigger, causes)

    def log(self, build: BuildId | str, task: str, start: int = 0) -> Iterator[bytes]:
        """The console log of a task's latest attempt from byte ``start`` on, as far as it is stored now.

        >>> b"".join(ci.builds.log("docs/hello#1", "say"))
        b'hello\\n'
        """
        view = self.get(build)
        found = view.task(task)
        if not found.token:
            return iter(())
        origin = BuildId.parse(found.origin) if found.origin else view.id
        return console.read_log(self._store, keys.log(origin, task, found.token), start)

    def follow(self, build: BuildId | str, tasks: Sequence[str] = (), stop: Event | None = None) -> Iterator[LogPiece]:
        """All that a build's tasks print, while they do, until it has ended (or ``stop`` is set). A line comes within a second.

        >>> [piece.data for piece in ci.builds.follow("docs/hello#1")]
        [b'', b'hello\\n']
        """
        stop = stop or Event()

        def printed(view: BuildView, task: TaskView, start: int) -> Iterator[bytes]:
            return console.read_log(self._store, keys.log(view.id, task.name, task.token), start)

        return pieces(lambda: self.get(build), printed, lambda _: stop.wait(POLL_S), tasks)

    def _created(self, job: str, version: Callable[[], JobVersion], trigger: Trigger, causes: Sequence[str]) -> BuildId:
        """What was done for a cause is told, whatever became of the job since: where ``version`` raises, too."""
        if not causes:
            return self._lifecycle.create(version(), trigger)
        served = [f"{job} {cause}" for cause in causes]
        return self._once(served, lambda also: self._lifecycle.create(version(), trigger, also, served[0]))

    def _once(
        self, causes: Sequence[str], create: Callable[[Callable[[BuildId], Sequence[Operation]]], BuildId]
    ) -> BuildId:
        """Create a build for causes, or find the one that was created for any of them."""
        days = self._days()

        def steps(build: BuildId) -> Sequence[Operation]:
            return [step for cause in causes for step in transactions.remember(cause, days[1], str(build))]

        # Nobody looks first: the transaction proves that no cause was served, and seldom one was.
        while True:
            try:
                return create(steps)
            except (VersionConflict, Missing, Invalid) as error:
                self._tickets.tree.coordination.sync()
                if (served := self._served(days, causes)) is not None:
                    return served
                if not isinstance(error, VersionConflict):
                    raise

    def _days(self) -> Sequence[int]:
        """Yesterday, today and tomorrow, by which causes are remembered; each has its folder then."""
        today = int(self._clock() // DAY_S)
        days = (today - 1, today, today + 1)
        for day in days:
            self._tickets.tree.folder(paths.once_day(day))
        return days

    def _served(self, days: Sequence[int], causes: Sequence[str]) -> BuildId | None:
        """The build that was started for any of the causes on these days."""
        served = self._remembered(days, causes)
        return None if served is None else BuildId.parse(served)

    def _remembered(self, days: Sequence[int], causes: Sequence[str]) -> str | None:
        for day, cause in product(days, causes):
            node = self._tickets.tree.coordination.read(paths.once(day, cause))
            if node is not None:
                return node.data.decode()
        return None

    def _find(self, build: BuildId) -> BuildView | None:
        for look in (self._live, self._archived, self._live, self._accepted, self._archived):
            found = look(build)
            if found is not None:
                return found
        return None

    def _live(self, build: BuildId) -> BuildView | None:
        return self._view_live(self._lifecycle.read(build))

    def _accepted(self, build: BuildId) -> BuildView | None:
        """One that a lost tree had, and the present one has not yet."""
        return self._view_live(self._lifecycle.stored.accepted(build))

    def _view_live(self, live: LiveBuild | None) -> BuildView | None:
        if live is None:
            return None
        state = live.result or _unfinished(live)
        record = build_records.record(self._lifecycle.stored, live)
        return _view(live.build, str(state), live.result, record, tuple(self._live_tasks(live, record)), False)

    def _live_tasks(self, live: LiveBuild, record: Mapping[str, Json]) -> Iterator[TaskView]:
        claims = {paths.ticket_of(token): token for token in self._tickets.running_tokens()}
        parked = set(self._tickets.parked())
        began_ms = _began_to_wait(record)
        for entry in record["tasks"]:
            since_ms = 0 if TaskState(entry["state"]).is_final else began_ms[entry["name"]]
            ticket = None
            if live.state and entry["state"] == TaskState.READY:
                ticket = task_ticket_id(live.build, entry["name"], live.state.tasks[entry["name"]])
            token = claims.get(ticket) if ticket else None
            if token is not None:
                claim = self._tickets.view_running(token)
                as_running = entry | {"state": TaskState.RUNNING, "token": token}
                view = _task_view(as_running, claim.worker, claim.since_ms or since_ms)
                yield replace(view, progress=claim.progress, hold=claim.hold)
            elif ticket in parked:
                yield _task_view(entry | {"state": TaskState.BLOCKED}, since_ms=since_ms)
            else:
                yield _task_view(entry, since_ms=since_ms)

    def _archived(self, build: BuildId) -> BuildView | None:
        key = keys.build_record(build)
        try:
            record = read_json(self._store.get(key), key)
        except NoSuchObject:
            return None
        tasks = tuple(map(_task_view, record["tasks"]))
        result = Result(record["result"])
        return _view(build, str(result), result, record, tasks, True)


def pieces(
    look: Callable[[], BuildView],
    printed: Callable[[BuildView, TaskView, int], Iterable[bytes]],
    is_enough: Callable[[bool], bool],
    tasks: Sequence[str] = (),
) -> Iterator[LogPiece]:
    """All that a build's tasks print until it has its result: ``printed`` gives the bytes of an attempt's log from one on.

    ``is_enough`` waits before the next look, and says whether there shall be none; it is told whether this one brought anything.
    """
    wanted = {tasks} if isinstance(tasks, str) else set(tasks)
    read: dict[tuple[str, str], int] = {}
    whole: set[tuple[str, str]] = set()
    while True:
        view = look()
        for name in wanted if view.tasks else ():
            view.task(name)
        is_news = False
        for task in view.tasks:
            attempt = (task.name, task.token)
            if not task.token or task.origin or (wanted and task.name not in wanted) or attempt in whole:
                continue
            if attempt not in read:
                is_news = True
                yield LogPiece(*attempt, 0, b"")
            offset = read.get(attempt, 0)
            for data in printed(view, task, offset):
                is_news = True
                yield LogPiece(*attempt, offset, data)
                offset += len(data)
            read[attempt] = offset
            if task.state.is_final:
                whole.add(attempt)
        if view.result is not None or is_enough(is_news):
            return


def _unfinished(live: LiveBuild) -> str:
    if live.is_cancelled:
        return "cancelling"
    return "running" if live.state else "blocked" if live.waits_for else "planning"


def _view(
    build: BuildId,
    state: str,
    result: Result | None,
    record: Mapping[str, Json],
    tasks: Sequence[TaskView],
    is_archived: bool,
) -> BuildView:
    return BuildView(
        id=build,
        state=state,
        result=result,
        reason=record["reason"],
        config=record["config"],
        trigger=trigger_from_json(record["trigger"]),
        created_ms=record["created_ms"],
        finished_ms=record["finished_ms"],
        downstream=tuple(record["downstream"]),
        unreadable_downstream=record.get("unreadable_downstream", {}),
        refused_downstream=record.get("refused_downstream", {}),
        tasks=tasks,
        is_archived=is_archived,
    )


def _began_to_wait(record: Mapping[str, Json]) -> Mapping[str, int]:
    """Since when each task of a build waits that is neither over nor running: for others, or once these are over for its turn."""
    ended_ms = {
        entry["name"]: max((attempt.get("ended_ms", 0) for attempt in entry["attempts"]), default=0)
        for entry in record["tasks"]
    }

    def began_ms(entry: Mapping[str, Json]) -> int:
        is_posted = entry["state"] == TaskState.READY
        before = (entry["name"], *entry["needs"]) if is_posted else ()
        return max([int(record["created_ms"]), *(ended_ms.get(name, 0) for name in before)])

    return {entry["name"]: began_ms(entry) for entry in record["tasks"]}


def _task_view(entry: Mapping[str, Json], worker: str = "", since_ms: int = 0) -> TaskView:
    attempts = tuple(entry["attempts"])
    return TaskView(
        name=entry["name"],
        type=entry["type"],
        needs=tuple(entry["needs"]),
        state=TaskState(entry["state"]),
        token=entry["token"],
        origin=entry["origin"],
        worker=worker or (attempts[-1].get("worker", "") if attempts else ""),
        allow_failure=entry["allow_failure"],
        attempts=attempts,
        since_ms=since_ms,
        unfit=entry.get("unfit", ""),
        emitter=entry.get("emitter", ""),
    )


def check_request(job: str, parameters: Mapping[str, str] | None, **texts: str) -> None:
    """Return if these are a job's id, parameters and texts as far as their types go; Invalid names what is not, as a front end does."""
    check_job_id(job)
    if not isinstance(parameters, Mapping | None):
        raise Invalid(f"parameters: {parameters!r} is not of type object")
    for name, text in texts.items():
        if not isinstance(text, str):
            raise Invalid(f"{name}: {text!r} is not of type string")


def deadline(timeout_s: float | None, now_s: float) -> float | None:
    """When that time is up, by the clock that ``now_s`` is of; None for never. Invalid for what is no number."""
    if timeout_s is not None and not isinstance(timeout_s, int | float):
        raise Invalid(f"timeout_s: {timeout_s!r} is not of type number; it is in seconds")
    return None if timeout_s is None else now_s + timeout_s


def _asked_with(cause: str) -> Sequence[str]:
    """What is remembered of a cause that somebody chose: it never reads like that of a service (``github 7d3f...``), whose deliveries it would swallow.

    Others, such as a UUID, are remembered as they are, and so as they always were.
    """
    if cause and (OF_A_SERVICE.match(cause) or cause.startswith(CHOSEN)):
        return (f"{CHOSEN}{cause}",)
    return (cause,) if cause else ()


def _fit(version: JobVersion, trigger: Trigger, changed: Sequence[str] | None = None) -> JobVersion:
    """The version, if a build of it can be planned for that trigger; InvalidJob names all that is wrong."""
    plan.expand(version.definition(), BuildId(version.job, 1), version.version, trigger, changed)
    return version


def _id(build: BuildId | str) -> BuildId:
    return build if isinstance(build, BuildId) else BuildId.parse(build)


def _no_such_build(build: BuildId) -> NoReturn:
    raise NoSuchBuild(f"there is no build {build}; `distci build list {build.job}` shows those there are")
