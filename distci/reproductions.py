"""What it takes to run a task of a build once more, elsewhere and for nobody but who asks: its plan, its variables, what the build went by, its files.

Secrets are no part of it: who runs it has them, or has to ask those who do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO

from distci import attempts, tarballs
from distci.attempts import Input
from distci.builds import Builds, TaskView
from distci.errors import Conflict, IllegalTransition, Missing, NoSuchTask
from distci.lifecycle import Lifecycle
from distci.model import PASSING, BuildId, Plan, Task
from distci.plan import givers
from distci.protocol import paths
from distci.protocol.records import Ticket
from distci.snapshots import Snapshot
from distci.store import keys
from distci.store.port import Store, objects
from distci.store.sources import stream_of
from distci.workspaces import Workspaces


@dataclass(frozen=True, slots=True)
class Reproduction:
    """An attempt at a task, as far as it can be told to somebody who makes one of their own."""

    build: BuildId
    """The one that the attempt was part of: of a task that was taken over, the one that it was taken from."""
    task: str
    token: str
    """Of the attempt that counts, or that runs."""
    plan: Plan
    variables: Mapping[str, str]
    """Those of the environment that DistCI itself sets."""
    pins: Mapping[str, str] = field(default_factory=dict)
    """What the whole build goes by, such as the digest of an image and the commit that a branch stood for, by what was asked for."""
    source: str = ""
    """The build that the task had artifacts of; empty when there was none."""


class Reproductions:
    """Reads what reproducing takes. Any thread may use it."""

    def __init__(self, lifecycle: Lifecycle, builds: Builds, store: Store, build_url: str = "") -> None:
        """``build_url`` is where people find a build, as :func:`~distci.settings.page` fills it in."""
        self._lifecycle = lifecycle
        self._builds = builds
        self._store = store
        self._build_url = build_url

    def get(self, build: BuildId | str, task: str) -> Reproduction:
        """What the latest attempt at a task went by.

        Raises NoSuchBuild, NoSuchTask, and IllegalTransition for a task that nobody has begun, or that no worker performs.

        >>> ci.reproductions.get("docs/hello#1", "say").variables["DISTCI_TASK"]
        'say'
        """
        began, found = self._attempt(build, task)
        plan = self._plan(began)
        wanted = _task(plan, task)
        commit = attempts.commit(self._inputs(began, plan, wanted))
        number = paths.attempt_of(found.token)
        ticket = Ticket(paths.ticket_of(found.token), wanted.type, {}, attempt=number)
        variables = attempts.variables(plan, wanted, ticket, commit, self._build_url)
        source = self._source(began, plan, wanted, found.token)
        return Reproduction(began, task, found.token, plan, variables, self._pins(plan), source)

    def workspace(self, build: BuildId | str, task: str) -> BinaryIO:
        """The workspace that a task began with, as a tar file; read to its end or closed. Raises as :meth:`get` does."""
        return stream_of(tarballs.write(self._store, self.snapshot(build, task)))

    def snapshot(self, build: BuildId | str, task: str) -> Snapshot:
        """The same before it is a tar file. Missing when what the task needs did not leave it any more."""
        began, _ = self._attempt(build, task)
        plan = self._plan(began)
        found = attempts.workspaces(self._inputs(began, plan, _task(plan, task)))
        return Workspaces(self._store).overlaid(found)[0]

    def _attempt(self, build: BuildId | str, task: str) -> tuple[BuildId, TaskView]:
        """The latest attempt at a task, and the build that made it."""
        view = self._builds.get(build)
        found = view.task(task)
        if found.type in PASSING:
            raise IllegalTransition(f"task {task} of {view.id} is of type {found.type}, which runs nothing")
        if not found.token:
            why = f": {found.reason}" if found.reason else ""
            raise IllegalTransition(f"task {task} of {view.id} is {found.state}{why}; it was never begun")
        return (BuildId.parse(found.origin) if found.origin else view.id), found

    def _plan(self, build: BuildId) -> Plan:
        live = self._lifecycle.read(build)
        if live is not None:
            return self._lifecycle.stored.plan_of(live)
        plan = self._lifecycle.stored.archived_plan(build)
        if plan is None:
            raise Conflict(f"{build} has just been put away; ask again")
        return plan

    def _inputs(self, build: BuildId, plan: Plan, task: Task) -> Sequence[Input]:
        return [*self._found(build, givers(plan, task))]

    def _found(self, build: BuildId, needs: Sequence[str]) -> Iterator[Input]:
        view = self._builds.get(build)
        for need in needs:
            of = view.task(need)
            origin = BuildId.parse(of.origin) if of.origin else build
            outcome = self._lifecycle.stored.outcome_document(origin, need, of.token) if of.token else None
            if outcome:
                yield Input(origin, need, of.token, outcome)

    def _pins(self, plan: Plan) -> Mapping[str, str]:
        """A build that runs another one again goes by what that one had found."""
        builds = filter(None, (plan.trigger.retry_of, plan.build))
        found = [info.key for build in builds for info in objects(self._store, keys.pins(build))]
        return {keys.pinned(key): self._store.get(key).decode() for key in found}

    def _source(self, build: BuildId, plan: Plan, task: Task, token: str) -> str:
        if "job" not in task.arguments:
            return ""
        outcome = self._lifecycle.stored.outcome_document(build, task.name, token) or {}
        known = (outcome.get("details") or {}).get("build")
        if known:
            return str(known)
        with suppress(Missing):
            return str(attempts.source(self._builds, self._lifecycle, plan, task))
        return ""


def _task(plan: Plan, name: str) -> Task:
    try:
        return plan.task(name)
    except KeyError:
        raise NoSuchTask(f"{plan.build} has no task {name!r}") from None
