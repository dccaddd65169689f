"""The plan of a build, and what follows for it from what attempts at its tasks came to.

All of it is in the store, and nothing of it in the tree: a build whose tree was lost goes on by it as it would have gone on without that.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from distci import growth, plan
from distci.build_tickets import task_ticket
from distci.documents import emitted, stored
from distci.documents.strict_json import read_json
from distci.errors import Invalid, NoSuchObject
from distci.jobs import Jobs
from distci.live import LiveBuild
from distci.model import Advance, BuildId, BuildState, Json, Outcome, Plan, Progress, Task, TaskState, Verdict
from distci.plan import Event as PlanEvent
from distci.protocol import paths
from distci.protocol.records import FORMAT, to_bytes
from distci.store import keys
from distci.store.port import Store
from distci.stored_builds import StoredBuilds

log = logging.getLogger(__name__)

REASON_CHARS_MAX = 10_000
"""Of why a task has failed whose own tasks are wrong in many places."""


class BuildPlans:
    """Makes plans, and has them go on by what is on record. Any thread may use it."""

    def __init__(self, store: Store, jobs: Jobs, stored_builds: StoredBuilds) -> None:
        self._store = store
        self._jobs = jobs
        self._stored = stored_builds

    def expanded(self, live: LiveBuild) -> tuple[Plan, bytes]:
        """A build's plan and its bytes, which are in the store; a build that had one keeps it."""
        key = keys.build_plan(live.build)
        if live.is_restored:
            with suppress(NoSuchObject):
                data = self._store.get(key)
                return stored.plan_from_bytes(data), data
        definition = self._jobs.get(live.build.job, live.config).definition()
        made = plan.expand(definition, live.build, live.config, live.trigger, self._stored.changed(live.trigger))
        data = stored.plan_to_bytes(made)
        self._store.put(key, data)
        return made, data

    def taken_over(self, made: Plan) -> Mapping[str, Progress]:
        """For a retry of some tasks: how the others ended in the build that is run again."""
        old = made.trigger.retry_of
        if old is None or not made.trigger.only:
            return {}
        key = keys.build_record(old)
        record = read_json(self._store.get(key), key)
        return {
            task["name"]: Progress(TaskState.REUSED, token=task["token"], origin=task.get("origin") or str(old))
            for task in record["tasks"]
            if task["name"] not in made.trigger.only and TaskState(task["state"]).is_good
        }

    def after(
        self, made: Plan, state: BuildState, task: str, token: str, document: Mapping[str, Json]
    ) -> tuple[Plan, Advance]:
        """The plan and what follows from what an attempt left on record: tasks that it has defined are part of both."""
        event = _event(task, token, document)
        if (text := _defined(made.task(task), document)) is not None:
            try:
                made = self._grown(made, task, *text)
            except Invalid as error:
                # It fitted when it was put on record; another task has taken the room since.
                log.warning("%s: task %s has failed: %s", made.build, task, error)
                event = plan.Finished(task, token, Verdict.FAILED)
            state = growth.widened(state, made)
        return made, plan.advance(made, state, event)

    def kept(self, made: Plan) -> str:
        """The digest of a plan that has grown, which is in the store."""
        data = stored.plan_to_bytes(made)
        digest = stored.plan_digest(data)
        self._store.put_if_absent(keys.grown_plan(made.build, digest), data)
        return digest

    def checked(self, made: Plan, task: str, outcome: Outcome) -> Outcome:
        """The outcome, or a failure when the tasks that it defines cannot be meant: to be known before it is on record."""
        text = _defined(made.task(task), stored.outcome_to_json(outcome))
        if text is None:
            return outcome
        try:
            self._grown(made, task, *text)
        except Invalid as error:
            return Outcome.failed(str(error)[:REASON_CHARS_MAX])
        return outcome

    def put_on_record(self, build: BuildId, task: str, token: str, document: Mapping[str, Json]) -> PlanEvent:
        """Put on record what an attempt came to, unless that has been done; what the record says.

        Whoever is first there decides: the bytes of a worker that was given up may come late, or have come just before.
        """
        return _event(task, token, self.recorded(build, task, token, document))

    def recorded(self, build: BuildId, task: str, token: str, document: Mapping[str, Json]) -> Mapping[str, Json]:
        """The same; the record itself."""
        key = keys.attempt_outcome(build, task, token)
        if not self._store.put_if_absent(key, to_bytes({"f": FORMAT, **document})):
            document = read_json(self._store.get(key), key)
        return document

    def replayed(self, made: Plan, advance: Advance) -> tuple[Plan, Advance]:
        """A build that begins again, after all that its tasks came to before the tree was lost."""
        ready, left = list(advance.ready), []
        while ready:
            name = ready.pop(0)
            token, outcome = self._came_to(made, name, advance.state.tasks[name])
            if outcome is None:
                left.append(name)
                continue
            made, advance = self.after(made, advance.state, name, token, outcome)
            ready += advance.ready
        return made, replace(advance, ready=left)

    def _came_to(self, made: Plan, name: str, progress: Progress) -> tuple[str, Mapping[str, Json] | None]:
        """The attempt at a task that counts, as the store tells, and its record; None when the task must run again.

        An attempt begins only after all before it came to nothing, and has its outcome in the store before it can count. So of all
        that have left anything there, the last one alone can count; and if it has an outcome, nothing else can.
        """
        ticket = task_ticket(made, name, progress).id
        tokens = [token for token in self._stored.tokens(made.build, name) if paths.ticket_of(token) == ticket]
        token = max(tokens, key=paths.attempt_of, default="")
        outcome = self._stored.outcome_document(made.build, name, token) if token else None
        # What was stopped, though nobody is known to have cancelled the build, was stopped by the loss of the tree.
        return token, outcome if outcome and outcome["verdict"] != TaskState.CANCELLED else None

    def _grown(self, made: Plan, task: str, text: str, what: str) -> Plan:
        return emitted.grown(made, task, text, what, self._stored.changed(made.trigger))


def _defined(task: Task, document: Mapping[str, Json]) -> tuple[str, str] | None:
    """The text of the tasks that an attempt has defined, and the name of its file; None when it has defined none.

    Of a task whose job does not have it define any, a worker may say what it likes.
    """
    details: Mapping[str, Json] = document.get("details") or {}
    if not task.may_define or document["verdict"] != Verdict.PASSED or not isinstance(details.get("tasks"), str):
        return None
    return details["tasks"], str(details.get("tasks_of", "tasks"))


def _event(task: str, token: str, document: Mapping[str, Json]) -> PlanEvent:
    """What an attempt at a task came to by its record, for the plan."""
    if document["verdict"] == TaskState.LOST:
        return plan.Lost(task, token)
    return plan.Finished(task, token, Verdict(document["verdict"]), document.get("exit_status"))
