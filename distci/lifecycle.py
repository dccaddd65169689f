"""A build's way through the tree: each step is one transaction, made by whichever worker gets there.

::

    planning --plan--> running --settle (last task)--> ending --archive--> only the record in the store
        |                 ^ |
        |                 | cancel, settle, lose
        +-- (nothing to plan) --> ending

The build's node holds all that is needed to go on: which tasks are where, which attempt counted, the wish to cancel. Whoever
changes it says which version it read, so that two tasks that end at once cannot both believe to be the last. Bytes that
may be large (plan, outcomes, record) are in the store *before* the transaction that makes them count.

The node is :mod:`distci.live`, the tickets are those of :mod:`distci.build_tickets`, and what the store has is read by
:mod:`distci.stored_builds`. What follows for a plan from what attempts came to is :mod:`distci.build_plans`, and what stays of a
build :mod:`distci.build_records`.

The tree may be lost. What brings a build back is in the store before anybody is told that it is accepted (:meth:`Lifecycle.accept`), and
everything else about it follows from that, its plan and the outcomes on record (:meth:`Lifecycle.restore`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from threading import Event

from distci import build_records, events, plan, statuses
from distci.build_plans import BuildPlans
from distci.build_tickets import build_of, control_ticket, task_ticket, task_ticket_id
from distci.coordination.port import Create, Delete, Operation, Refused, Write
from distci.documents import stored
from distci.documents.strict_json import read_json
from distci.errors import (
    ClaimLost,
    CoordinationUnavailable,
    IllegalTransition,
    Invalid,
    InvalidJob,
    NoSuchBuild,
    NoSuchJob,
    NoSuchObject,
    VersionConflict,
)
from distci.events import Events
from distci.jobs import Jobs, JobVersion
from distci.live import LiveBuild
from distci.model import (
    CALL,
    Advance,
    BuildId,
    BuildState,
    Json,
    Outcome,
    Permit,
    Plan,
    Policy,
    Result,
    Task,
    TaskState,
    Trigger,
)
from distci.numbering import Numbers
from distci.plan import Event as PlanEvent
from distci.projects import project_of
from distci.protocol import outcomes, paths, permits, transactions
from distci.protocol.claims import Claim
from distci.protocol.outcomes import Truth
from distci.protocol.permits import Full
from distci.protocol.records import Ticket, to_bytes
from distci.protocol.tickets import Step, Tickets
from distci.protocol.tree import Done
from distci.statuses import Statuses
from distci.store import keys
from distci.store.port import Store, objects
from distci.stored_builds import UNREADABLE, StoredBuilds

log = logging.getLogger(__name__)

DOWNSTREAM_KIND = "job"
"""Kind of the trigger of a build that the end of another one started."""

COLLISION_PAUSE_S = 0.05
TOLD_KEPT = 1024

PATIENCE_S = 30.0
"""How long what a person or a service asked for is settled while the tree is away, before they are told."""


class Lifecycle:
    """The steps of builds on one tree and one store. Any thread may use it."""

    def __init__(
        self,
        tickets: Tickets,
        store: Store,
        jobs: Jobs,
        clock: Callable[[], float] = time.time,
        patience_s: float = PATIENCE_S,
        statuses: Statuses | None = None,
        may_use: Callable[[str, str], bool] | None = None,
        may_start: Callable[[str, str], bool] | None = None,
        events: Events | None = None,
    ) -> None:
        """``may_use`` says whether builds of one job may use those of another, ``may_start`` whether they may start them; by default those of their own project alone. ``statuses`` are what those who serve tickets of that kind go by; without any, nobody can. ``patience_s`` is for how long :meth:`create` and :meth:`cancel` find out what became of a request whose answer was lost."""
        self.tickets = tickets
        self.store = store
        self.jobs = jobs
        self.events = events or Events(store, clock)
        self._clock = clock
        self._patience_s = patience_s
        self._statuses = statuses
        self._may_use = may_use or (lambda user, used: project_of(user) == project_of(used))
        self._may_start = may_start or (lambda user, used: project_of(user) == project_of(used))
        self.stored = StoredBuilds(store)
        self.plans = BuildPlans(store, jobs, self.stored)
        self._numbers = Numbers(tickets.tree, store)
        self._told: set[str] = set()
        """Control tokens that an event was appended under, or may have been."""
        tickets.abandoned = self._abandoned

    @property
    def statuses(self) -> Statuses:
        """What is to be told to forges; Invalid where there is no telling."""
        if self._statuses is None:
            raise Invalid("this process has no settings by which statuses could be told")
        return self._statuses

    def check_use(self, user: str, used: str) -> None:
        """Return if builds of the job ``user`` may use those of the job ``used`` now.

        NoSuchJob otherwise, in the same words whether there is such a job or not; StoreUnavailable when it cannot be found out.
        """
        if not self._may_use(user, used):
            raise NoSuchJob(
                f"builds of {user} may not use those of {used}, or there is no such job: save {used} with"
                f' "shared_with": ["{project_of(user) or user}"], or show its project to all who log in (`distci access show`)'
            )

    def check_start(self, user: str, used: str) -> None:
        """Return if builds of the job ``user`` may start those of the job ``used`` now; raises as :meth:`check_use` does."""
        if not self._may_start(user, used):
            raise NoSuchJob(
                f"builds of {user} may not start those of {used}, or there is no such job: save {used} with"
                f' "started_by": ["{project_of(user) or user}"]'
            )

    # Reading

    def read(self, build: BuildId) -> LiveBuild | None:
        """The build's node, or None when it is not (or no longer) live."""
        node = self.tickets.tree.coordination.read(paths.build(build))
        return LiveBuild.from_bytes(build, node.data, node.version) if node else None

    def live_builds(self) -> Iterator[BuildId]:
        """The builds that are in the tree, in no order."""
        coordination = self.tickets.tree.coordination
        for shard in coordination.children(paths.BUILDS):
            for name in coordination.children(f"{paths.BUILDS}/{shard}"):
                yield paths.build_of(name)

    # Steps

    def create(
        self,
        job: JobVersion,
        trigger: Trigger,
        also: Callable[[BuildId], Sequence[Operation]] = lambda build: (),
        cause: str = "",
    ) -> BuildId:
        """A new build, with the next number of its job, and the ticket to plan it; and what must be true ``also``.

        Raises VersionConflict when one of the operations that ``also`` gives was refused: then there is no new build.
        Raises Unavailable when the tree is away, or the store, which must know of it; then there may be one.
        """
        nonce = self.tickets.new_nonce()
        while True:
            with self._numbers.taking(job.job) as taking:
                live = LiveBuild(
                    BuildId(job.job, taking.number), nonce, job.version, trigger, self.now_ms(), cause=cause
                )
                operations = [taking.operation, Create(live.path, live.to_bytes())]

                def commit(
                    live: LiveBuild = live,
                    operations: Sequence[Operation] = operations,
                    taken: Callable[[], None] = taking.taken,
                ) -> Done:
                    post = [control_ticket(live.build, "plan"), *_status(live)]
                    return self.tickets.commit(*operations, *also(live.build), post=post, committed=taken)

                settled = outcomes.settle(self.tickets.tree, commit, partial(self._is_created, live), self.patience())
            if isinstance(settled, Done) and settled.committed:
                if self.accept(live).nonce != nonce:
                    continue  # the number belongs to a build of before the tree was lost
                if self.read(live.build) is None:
                    self.restore(live)  # over already; or lost with the tree, and overlooked by those who rebuild it
                log.info("accepted", extra={"build": str(live.build), "ticket": control_ticket(live.build, "plan").id})
                return live.build
            if isinstance(settled, Done) and isinstance(settled.result, Refused) and settled.result.index > 1:
                raise VersionConflict(f"a build of {job.job} was refused: what it builds on has changed")
            # Somebody else took the number: the next one, after a pause that keeps many from meeting again and again.
            Event().wait(self.tickets.random.uniform(0, COLLISION_PAUSE_S))

    def accept(self, live: LiveBuild) -> LiveBuild:
        """Have the store know of a build that the tree has, before it is promised to anybody; who has its number, as the store knows it.

        Whoever is first in the store has the number. That is another build only when the tree was lost between a build's
        transaction and this: then the tree gave out its number once more. The node becomes that of the build which was first.
        """
        build = live.build
        if not self.store.put_if_absent(keys.accepted(build), live.to_bytes()):
            live = self.stored.accepted(build) or live
        self.note_started(live)
        return live

    def note_started(self, live: LiveBuild) -> str:
        """Have the store know that the end of a build, or a task of it, has started this one; which one it is that it has started, for good.

        Empty when no other build is the cause.
        """
        upstream = live.trigger.upstream
        started = str(live.build)
        if upstream is not None and live.trigger.caller:
            key = keys.called_build(upstream, live.trigger.caller)
        elif upstream is not None and live.trigger.kind == DOWNSTREAM_KIND:
            key = keys.started_build(upstream, live.build.job)
        else:
            return ""
        return started if self.store.put_if_absent(key, started.encode()) else self.store.get(key).decode()

    def restore(self, accepted: LiveBuild) -> bool:
        """Have a build of a lost tree begin again, from what the store has of it; False when it lives or is over.

        Anybody may do so at any time, any number of times.
        """
        build = accepted.build
        if self.read(build) is not None:
            return False
        if self.stored.archived_nonce(build) is not None:
            self.store.delete(keys.accepted(build))
            return False
        restored = replace(accepted, is_restored=True, downstream=tuple(self.stored.started_by(build)))
        create = Create(restored.path, restored.to_bytes())
        return self.tickets.commit(create, post=[control_ticket(build, "plan")]).committed

    def unfinished(self) -> Iterator[LiveBuild]:
        """All builds that were accepted and have not been archived, as far as the store knows."""
        for info in objects(self.store, keys.ACCEPTED):
            try:
                live = self.stored.accepted(keys.accepted_build(info.key))
            except Invalid as error:
                log.error("%s cannot be brought back: %s", info.key, error)
                continue
            if live is not None:
                yield live

    def plan(self, claim: Claim) -> Claim | None:
        """Expand the job and post the first tasks; a job that cannot be expanded ends its build as failed.

        A build whose concurrency group is full does not begin: its ticket waits until it is its turn.
        """
        build = build_of(claim.ticket)
        live = self._live(build)
        if live.state is None and live.result is None and not live.waits_for:
            self._tell(claim, live, events.BEGUN, ref=live.trigger.ref, commit=live.trigger.commit)
        while True:
            live = self._live(build)
            if live.state is not None or live.result is not None:
                raise ClaimLost(f"{build} has been planned already")
            try:
                return self._plan_accepted(claim, live)
            except VersionConflict:
                continue  # it was cancelled meanwhile, or its group is not as it was

    def settle(self, claim: Claim, task: str, outcome: Outcome, record: Mapping[str, Json]) -> Claim | None:
        """Put an attempt's outcome on record and move its build on; the follow-on claim, if this worker keeps one.

        Raises ClaimLost when the attempt has been superseded: then nothing of it counts.
        """
        build = build_of(claim.ticket)
        if "tasks" in outcome.details:
            outcome = self.plans.checked(self.stored.plan_of(self._live(build)), task, outcome)
        told = stored.outcome_to_json(outcome) | dict(record)
        document = self.plans.recorded(build, task, claim.token, told)
        while True:
            live = self._live(build)
            made = self.stored.plan_of(live)
            if _state(live).tasks[task].state is not TaskState.READY:
                raise ClaimLost(f"task {task} of {build} has been settled by another attempt")
            grown, advance = self.plans.after(made, _state(live), task, claim.token, document)
            if grown is not made:
                made, live = grown, replace(live, plan_digest=self.plans.kept(grown))
            try:
                return self._finish(claim, live, made, advance, lambda: self.counts(build, task, claim.token))
            except VersionConflict:
                continue  # another task of the build ended at the same moment

    def archive(self, claim: Claim) -> Claim | None:
        """Start what follows on the build's end, put its record into the store, and take it off the tree.

        In the same transaction, the ticket of the task that waits for its end goes on.
        """
        while True:
            try:
                return self._archive(claim)
            except VersionConflict:
                continue  # somebody has begun to wait for its end, or does so no more

    def _archive(self, claim: Claim) -> Claim | None:
        build = build_of(claim.ticket)
        live = self._live(build)
        if live.result is None:
            raise ClaimLost(f"{build} has not ended")
        unreadable: dict[str, Json] = {}

        def note(job: str, error: Invalid) -> None:
            # The end of this build is not up to that job. It goes on record, since whoever waits for what follows would never know.
            log.error("whether %s follows on %s is not known, since it cannot be read: %s", job, build, error)
            unreadable[job] = str(error)

        refused: dict[str, Json] = {}
        for job in self.jobs.downstream(build.job, note):
            try:
                live = self._start_downstream(live, job)
            except NoSuchJob as error:
                log.warning("%s does not follow on %s: %s", job.job, build, error)
                refused[job.job] = str(error)
        noted: dict[str, Json] = {"unreadable_downstream": unreadable} if unreadable else {}
        noted |= {"refused_downstream": refused} if refused else {}
        self._empty_drawers(live)
        self.store.put(keys.build_record(build), to_bytes(build_records.record(self.stored, live) | noted))
        self._tell(claim, live, events.ENDED, result=live.result, finished_ms=live.finished_ms)
        self.store.delete(keys.accepted(build))
        waiting = self.tickets.unparking(live.trigger.caller) if live.trigger.caller else Step()
        return claim.finish(
            Delete(live.path, live.version),
            *waiting.operations,
            follow=waiting.post,
            proof=lambda: self.read(build) is None,
            hints=self._news(),
        )

    def _empty_drawers(self, live: LiveBuild) -> None:
        """Remove what workers that were killed, or people who came too late, have left of tasks that were held."""
        made = None
        with suppress(*UNREADABLE):
            made = self.stored.plan_of(live) if live.plan_digest else None
        for task in made.tasks if made else ():
            for token in [*self.stored.tokens(live.build, task.name)] if "hold" in task.arguments else ():
                for info in objects(self.store, keys.hold(live.build, task.name, token)):
                    self.store.delete(info.key)

    def cancel(self, build: BuildId, reason: str) -> None:
        """Ask a build to end. Tickets that still wait are taken back at once; what runs is stopped by its workers.

        A build whose plan cannot be read any more ends on the spot, since nobody can do its tasks.

        Raises NoSuchBuild when it is not live, IllegalTransition when it has its result already, and Unavailable when the
        tree is away; asking again is safe.
        """
        while True:
            live = self._live(build)
            if live.result is not None:
                raise IllegalTransition(f"{build} has ended as {live.result}; there is nothing to cancel")
            cancelled = replace(live, is_cancelled=True, reason=live.reason or reason)
            step = self._withdraw(cancelled) if live.state else self._call_off(cancelled)
            settled = outcomes.settle(
                self.tickets.tree,
                partial(self.tickets.commit, *step.operations, post=step.post),
                partial(self._is_cancelled, build),
                self.patience(),
            )
            if isinstance(settled, Done) and settled.committed:
                self._note_cancel(cancelled)
                return

    # Parts of steps

    def _tell(self, claim: Claim, live: LiveBuild, kind: str, **more: Json) -> None:
        """Append an event of a build, before the transaction after which nobody would."""
        is_first = claim.ticket.attempt == paths.attempts_before(self.tickets.tree.epoch) + 1 and not live.is_restored
        append = self.events.append if is_first and claim.token not in self._told else self.events.append_again
        if len(self._told) >= TOLD_KEPT:
            self._told.clear()
        self._told.add(claim.token)
        append(
            kind, live.build, trigger=live.trigger.kind, actor=live.trigger.actor, created_ms=live.created_ms, **more
        )

    def _news(self) -> Sequence[Operation]:
        """Wakes those who wait for events, with the transaction that follows on one."""
        try:
            self.tickets.tree.folder(paths.EVENTS)
        except CoordinationUnavailable:
            return ()  # the transaction waits for the tree, and those who wait look by themselves
        return (Write(paths.EVENTS, b""),)

    def _plan_accepted(self, claim: Claim, live: LiveBuild) -> Claim | None:
        """Plan a build that the store knows of: the plan is the first trace of it that others could find."""
        build = live.build
        if live.is_restored and self.stored.archived_nonce(build) is not None:
            # Restored by somebody who had looked long before, when it was not over yet.
            return claim.finish(Delete(live.path, live.version), proof=lambda: self.read(build) is None)
        accepted = self.stored.accepted(build) or self.accept(live)
        if accepted.nonce != live.nonce:
            live = replace(accepted, is_restored=True, version=live.version)
        started = self.note_started(live)
        if started and started != str(build):
            reason = f"{live.trigger.upstream} had started {started} before"
            return self._end_unbegun(claim, live, Result.CANCELLED, reason)
        return self._plan_and_begin(claim, live)

    def _plan_and_begin(self, claim: Claim, live: LiveBuild) -> Claim | None:
        build = live.build
        try:
            made, data = self.plans.expanded(live)
        except InvalidJob as error:
            return self._end_unbegun(claim, live, Result.FAILED, str(error))
        planned = replace(live, plan_digest=stored.plan_digest(data), waits_for="")
        advance = plan.begin(made, self.plans.taken_over(made))
        if live.is_restored:
            grown, advance = self.plans.replayed(made, advance)
            if grown is not made:
                made, planned = grown, replace(planned, plan_digest=self.plans.kept(grown))
        if live.is_cancelled and advance.result is not None:
            advance = replace(advance, result=Result.CANCELLED)
        elif live.is_cancelled:
            advance = _cancel(made, advance.state, lambda task: True)
            return self._finish(claim, planned, made, advance, lambda: self._is_planned(build))
        group = made.concurrency if advance.result is None else None
        wanted = [Permit(f"group:{group.group}", group.limit)] if group else []
        slots = permits.acquire(self.tickets.tree, wanted)
        if isinstance(slots, Full):
            # One that ran before the tree was lost was let in then.
            policy = (
                group.policy if group and not (live.is_restored and group.policy is Policy.REJECT) else Policy.QUEUE
            )
            return self._wait_in_group(claim, planned, policy, slots)
        begun = replace(planned, slots=slots)
        take = transactions.take(slots, str(build))
        return self._finish(claim, begun, made, advance, lambda: self._is_planned(build), take, self._news())

    def _note_cancel(self, live: LiveBuild) -> None:
        """Have the wish to cancel outlast the tree. A build that has been archived meanwhile needs none."""
        accepted = self.stored.accepted(live.build)
        if accepted is not None and accepted.nonce == live.nonce:
            noted = replace(accepted, is_cancelled=True, reason=live.reason)
            self.store.put(keys.accepted(live.build), noted.to_bytes())

    def _wait_in_group(self, claim: Claim, live: LiveBuild, policy: Policy, full: Full) -> Claim | None:
        """What the group's policy says for a build that finds it full. Nobody leaves or joins the group unseen meanwhile."""
        tree = self.tickets.tree
        running = [BuildId.parse(holder) for holder in permits.holders(tree, full.permit.name)]
        waiting = [build_of(ticket) for _, ticket in permits.waiting(tree, full.permit.name)]
        if policy is Policy.REJECT:
            reason = f"rejected: {', '.join(map(str, running))} of its group ran"
            return self._end_unbegun(claim, live, Result.CANCELLED, reason)
        rivals = {Policy.CANCEL_OLD: [*running, *waiting], Policy.KEEP_LATEST: waiting}.get(policy, [])
        for rival in rivals:
            if self._is_newer(rival, live):
                return self._end_unbegun(claim, live, Result.CANCELLED, f"superseded by {rival}")
        for rival in rivals:
            with suppress(NoSuchBuild, IllegalTransition):
                self.cancel(rival, f"superseded by {live.build}")
        claim.park_for(full, replace(live, waits_for=full.permit.name).write(), hints=self._news())
        return None

    def _is_newer(self, rival: BuildId, live: LiveBuild) -> bool:
        """Whether a build came after another: of one job by number, else by the tree's clock."""
        if rival.job == live.build.job:
            return rival.number > live.build.number
        exists = self.tickets.tree.coordination.exists
        other, one = exists(paths.build(rival)), exists(live.path)
        return other is not None and one is not None and other.created_ms > one.created_ms

    def _end_unbegun(self, claim: Claim, live: LiveBuild, result: Result, reason: str) -> Claim | None:
        step = self._ended(replace(live, reason=reason), result)
        return claim.finish(
            *step.operations,
            follow=step.post,
            keep=True,
            proof=lambda: self._is_planned(live.build),
            hints=self._news(),
        )

    def _finish(
        self,
        claim: Claim,
        live: LiveBuild,
        made: Plan,
        advance: Advance,
        proof: Callable[[], bool],
        also: Sequence[Operation] = (),
        hints: Sequence[Operation] = (),
    ) -> Claim | None:
        step = self.moved(live, made, advance)
        return claim.finish(*step.operations, *also, follow=step.post, keep=True, proof=proof, hints=hints)

    def moved(self, live: LiveBuild, made: Plan, advance: Advance) -> Step:
        """The build after an advance, and the tickets that follow from it."""
        moved = replace(live, state=advance.state)
        if advance.result is not None:
            return self._ended(moved, advance.result)
        parked: list[Operation] = []
        posted: list[Ticket] = []
        for name in advance.ready:
            progress = advance.state.tasks[name]
            ticket = task_ticket(made, name, progress)
            if wait_s := plan.wait_s(made.task(name), progress):
                due_ms = self.tickets.tree.now_ms() + int(wait_s * 1000)
                parked += transactions.park_until(self.tickets.stamped(ticket), due_ms)
            else:
                posted.append(ticket)
        return Step([moved.write(), *parked], posted)

    def _ended(self, live: LiveBuild, result: Result) -> Step:
        """A build with its result: its permits go on to others, and it is to be archived."""
        given = permits.give_back(self.tickets.tree, live.slots)
        ended = replace(live, result=result, finished_ms=self.now_ms(), slots=())
        post = [control_ticket(live.build, "archive"), *given.post, *_status(ended)]
        return Step([ended.write(), *given.operations], post)

    def _withdraw(self, live: LiveBuild) -> Step:
        """Cancel a planned build: every ticket of it that waits is taken back in the same transaction."""
        try:
            made = self.stored.plan_of(live)
        except UNREADABLE as error:
            # A ticket that is held is void as soon as the node is gone.
            reason = f"{live.reason}; {error}"
            ended = self._ended(replace(live, state=_all_over(_state(live)), reason=reason), Result.CANCELLED)
            posted = [name for name, progress in _state(live).tasks.items() if progress.state is TaskState.READY]
            ids = [task_ticket_id(live.build, name, _state(live).tasks[name]) for name in posted]
            found = [delete for ticket in ids if (delete := self.tickets.withdrawal_by_id(ticket)) is not None]
            return Step([*ended.operations, *found], ended.post)
        withdrawals: list[Operation] = []
        posted_again: list[Ticket] = []

        def take_back(task: Task) -> bool:
            ticket = task_ticket(made, task.name, _state(live).tasks[task.name])
            if task.type == CALL:
                # It may have started a build, which a control worker cancels, too, and waits for.
                go_on = self.tickets.unparking(ticket.id)
                withdrawals.extend(go_on.operations)
                posted_again.extend(go_on.post)
                return False
            withdrawal = self.tickets.withdrawal(ticket)
            if withdrawal is not None:
                withdrawals.append(withdrawal)
            return withdrawal is not None

        step = self.moved(live, made, _cancel(made, _state(live), take_back))
        return Step([*step.operations, *withdrawals], [*step.post, *posted_again])

    def _call_off(self, live: LiveBuild) -> Step:
        """Cancel a build that has not begun: whoever plans it sees to it, and does so now if it waits for its turn."""
        if not live.waits_for:
            return Step([live.write()])
        step = self.tickets.unparking(control_ticket(live.build, "plan").id, live.waits_for)
        return Step([live.write(), *step.operations], step.post)

    def _abandoned(self, ticket: Ticket, reason: str) -> Step | None:
        """What follows when an attempt at a task came to nothing: of a cancelled build it is over; after the last one allowed it is lost."""
        if "task" not in ticket.body:
            return None
        try:
            build, task = build_of(ticket), str(ticket.body["task"])
        except Invalid:
            return None
        live = self.read(build)
        if live is not None and (live.state is None or task not in live.state.tasks):
            return None  # it names no task that anybody posted; it is set aside like any other ticket that comes to nothing
        if live is None or _state(live).tasks[task].state is not TaskState.READY:
            return Step()
        if not live.is_cancelled and not ticket.is_exhausted:
            return None  # which takes no plan to know: the store may be away
        made = self.stored.plan_of(live)
        event: PlanEvent
        # What a task has started is cancelled by whoever has its ticket next.
        if live.is_cancelled and not made.task(task).on_cancel and made.task(task).type != CALL:
            event = plan.Withdrawn(task)
        elif ticket.is_exhausted:
            document = {"verdict": TaskState.LOST, "reason": reason, "attempt": ticket.attempt}
            event = self.plans.put_on_record(build, task, ticket.token, document)
        else:
            return None
        return self.moved(live, made, plan.advance(made, _state(live), event))

    def _start_downstream(self, live: LiveBuild, job: JobVersion) -> LiveBuild:
        """Start a build of a job that waits for this end, unless that has been done; the node as it then is.

        The new build and the note of it here are one transaction: however often this is tried, it happens once.
        NoSuchJob when it may not follow on this build.
        """
        trigger = _trigger_between(live, job)
        if trigger is None or any(BuildId.parse(started).job == job.job for started in live.downstream):
            return live
        self.check_use(job.job, live.build.job)

        def note(started: BuildId) -> Sequence[Operation]:
            return [replace(live, downstream=(*live.downstream, str(started))).write()]

        try:
            self.create(job, trigger, note)
        except VersionConflict as error:
            raise ClaimLost(f"{live.build} is being archived by another attempt") from error
        now = self._live(live.build)
        if now.result is None:
            # Brought back meanwhile: what it has now is no end to put on record.
            raise ClaimLost(f"{live.build} began again: the tree that knew of its end was lost")
        return now

    def patience(self) -> outcomes.Deadline:
        return outcomes.Deadline(self._patience_s)

    def now_ms(self) -> int:
        """Milliseconds since 1970 by this process's clock, for the record."""
        return int(self._clock() * 1000)

    def last_number(self, job: str) -> int:
        """The number of a job's newest build; 0 when it never had one."""
        return self._numbers.last(job)

    def _live(self, build: BuildId) -> LiveBuild:
        live = self.read(build)
        if live is None:
            raise NoSuchBuild(f"{build} is not live")
        return live

    # Finding out after a lost answer

    def _is_created(self, live: LiveBuild) -> Truth:
        now = self.read(live.build)
        if now is not None:
            return Truth.COMMITTED if now.nonce == live.nonce else Truth.NOT_COMMITTED
        return Truth.COMMITTED if self.stored.archived_nonce(live.build) == live.nonce else Truth.NOT_COMMITTED

    def _is_planned(self, build: BuildId) -> bool:
        live = self.read(build)
        return live is None or live.state is not None or live.result is not None

    def _is_cancelled(self, build: BuildId) -> Truth:
        live = self.read(build)
        return Truth.COMMITTED if live is None or live.is_cancelled else Truth.NOT_COMMITTED

    def counts(self, build: BuildId, task: str, token: str) -> bool:
        """Whether it was this attempt that settled the task, be it that the task was tried again since."""
        live = self.read(build)
        if live is not None:
            last = _state(live).tasks[task].token
            return last == token or any(
                attempt["token"] == token for attempt in self.stored.attempts(build, task, last)
            )
        key = keys.build_record(build)
        try:
            record = read_json(self.store.get(key), key)
        except NoSuchObject:
            return False  # the tree was lost
        found = [attempt for entry in record["tasks"] if entry["name"] == task for attempt in entry["attempts"]]
        return any(attempt["token"] == token for attempt in found)


def _status(live: LiveBuild) -> Sequence[Ticket]:
    """What tells how a build stands now, to whoever wants to know."""
    return statuses.tickets(live.build, project_of(live.build.job), live.trigger, live.result, live.reason)


def _cancel(made: Plan, state: BuildState, take_back: Callable[[Task], bool]) -> Advance:
    """The build after a cancel; READY tasks whose ticket could be taken back are over at once."""
    posted = [task for task in made.tasks if state.tasks[task.name].state is TaskState.READY]
    advance = plan.advance(made, state, plan.Cancelled())
    ready = list(advance.ready)
    for task in posted:
        if take_back(task):
            advance = plan.advance(made, advance.state, plan.Withdrawn(task.name))
            ready += advance.ready
    return replace(advance, ready=ready)


def _all_over(state: BuildState) -> BuildState:
    """The state of a cancelled build that cannot go on: whatever had not ended is cancelled."""
    tasks = {
        name: progress if progress.state.is_final else replace(progress, state=TaskState.CANCELLED)
        for name, progress in state.tasks.items()
    }
    return BuildState(tasks, is_cancelled=True)


def _trigger_between(live: LiveBuild, job: JobVersion) -> Trigger | None:
    """The trigger with which a build of ``job`` follows on the end of ``live``, if it does."""
    for trigger in job.definition().triggers:
        if trigger.job == live.build.job and trigger.on in ("always", live.result):
            # What follows on an untrusted build takes what that one made.
            return Trigger(
                DOWNSTREAM_KIND,
                str(live.build),
                presets=trigger.parameters,
                upstream=live.build,
                is_untrusted=live.trigger.is_untrusted,
            )
    return None


def _state(live: LiveBuild) -> BuildState:
    if live.state is None:
        raise ClaimLost(f"{live.build} has not been planned")
    return live.state
