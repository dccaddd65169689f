"""The services through which people and programs change something, each call put down in the audit.

Here, and not in each command and endpoint, so that none of them can forget it. Values of parameters are not put down: some are secrets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO

from distci.access.audit import Audit, acting_as
from distci.access.decisions import Allowed
from distci.access.principals import Commenter
from distci.access.rights import Action
from distci.access.service import Access
from distci.artifacts import Artifact
from distci.build_reports import Reports, Told
from distci.builds import Builds, TaskView, check_request
from distci.comments import Comments, author_of
from distci.errors import Invalid
from distci.holds import COLUMNS, DUMB, LINES, Holds, Visit
from distci.hooks import Answer, Check, Hooks
from distci.jobs import Jobs, JobVersion
from distci.lifecycle import Lifecycle
from distci.model import BuildId, Json
from distci.projects import SYSTEM
from distci.protocol import Ticket, Tickets, members
from distci.providers.port import Provider
from distci.published import Published
from distci.quarantine import DAYS, Quarantine, Quarantined
from distci.receivers.port import Command, Receiver
from distci.retention import Retention
from distci.sealing import MasterKeys
from distci.secrets import NAME, Rotated, Secret, Secrets
from distci.settings import ReceiverSettings
from distci.store.port import Store


class AuditedJobs(Jobs):
    """:class:`~distci.jobs.Jobs` whose changes are put down."""

    def __init__(self, store: Store, audit: Audit) -> None:
        super().__init__(store)
        self._audit = audit

    def put(
        self, document: Mapping[str, Json], *, expected: int | None = None, actor: str = "", reason: str = ""
    ) -> JobVersion:
        # What is no document is told by who reads it.
        job = str(document.get("job", "")) if isinstance(document, Mapping) else ""
        with self._audit.change("job.put", job, actor=actor, reason=reason):
            return super().put(document, expected=expected, actor=actor, reason=reason)

    def rollback(self, job: str, version: int, *, actor: str = "", reason: str = "") -> JobVersion:
        with self._audit.change("job.rollback", job, actor=actor, reason=reason, version=version):
            return super().rollback(job, version, actor=actor, reason=reason)

    def delete(self, job: str, *, expected: int | None = None, actor: str = "", reason: str = "") -> None:
        with self._audit.change("job.delete", job, actor=actor, reason=reason):
            super().delete(job, expected=expected, actor=actor, reason=reason)


class AuditedBuilds(Builds):
    """:class:`~distci.builds.Builds` whose changes are noted; each build has on record who started it."""

    def __init__(self, lifecycle: Lifecycle, jobs: Jobs, actor: str, audit: Audit) -> None:
        super().__init__(lifecycle, jobs, actor)
        self._audit = audit

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
        # Before anything is noted of it.
        check_request(job, parameters, commit=commit, ref=ref, cause=cause)
        names = sorted(parameters or {})
        with self._audit.note(
            "build.trigger", job, actor=actor, reason=cause, parameters=names, commit=commit, ref=ref
        ) as remark:
            build = super().trigger(job, parameters, actor=actor, commit=commit, ref=ref, cause=cause)
            remark.target = str(build)
            return build

    def cancel(self, build: BuildId | str, reason: str = "") -> None:
        with self._audit.note("build.cancel", str(build), reason=reason):
            super().cancel(build, reason)

    def decide(
        self, build: BuildId | str, task: str, is_approved: bool, reason: str = "", *, actor: str = ""
    ) -> TaskView:
        what = "build.approve" if is_approved else "build.refuse"
        with self._audit.note(what, str(build), actor=actor, reason=reason, task=task):
            return super().decide(build, task, is_approved, reason, actor=actor)

    def retry(self, build: BuildId | str, *, only_failed: bool = False, actor: str = "", cause: str = "") -> BuildId:
        with self._audit.note("build.retry", str(build), actor=actor, reason=cause, only_failed=only_failed) as remark:
            fresh = super().retry(build, only_failed=only_failed, actor=actor, cause=cause)
            remark.target = f"{build} as {fresh}"
            return fresh

    def rerun(self, build: BuildId, actor: str, causes: Sequence[str]) -> BuildId:
        with self._audit.note("build.retry", str(build), actor=actor, reason=" ".join(causes)) as remark:
            fresh = super().rerun(build, actor, causes)
            remark.target = f"{build} as {fresh}"
            return fresh


class AuditedPublished(Published):
    """:class:`~distci.published.Published` of which it is noted who put which file to which build; what tasks publish is on record in their builds."""

    def __init__(self, builds: Builds, store: Store, audit: Audit) -> None:
        super().__init__(builds, store)
        self._audit = audit

    def put(self, build: BuildId | str, name: str, stream: BinaryIO, *, sha256: str = "") -> Artifact:
        with self._audit.note("artifact.put", str(build), name=name):
            return super().put(build, name, stream, sha256=sha256)


class AuditedHolds(Holds):
    """:class:`~distci.holds.Holds` of which it is put down who goes into which task, before they do: it knows secrets. What they type is nobody's business."""

    def __init__(self, lifecycle: Lifecycle, builds: Builds, store: Store, actor: str, audit: Audit) -> None:
        super().__init__(lifecycle, builds, store)
        self._actor = actor
        self._audit = audit

    def open(
        self,
        build: BuildId | str,
        task: str,
        *,
        lines: int = LINES,
        columns: int = COLUMNS,
        kind: str = DUMB,
        terminal: str = "",
        actor: str = "",
    ) -> Visit:
        with self._audit.change("build.shell", str(build), actor=actor, task=str(task)):
            told = actor or self._actor
            size = {"lines": lines, "columns": columns}
            return super().open(build, task, **size, kind=kind, terminal=terminal, actor=told)

    def release(self, build: BuildId | str, task: str, reason: str = "", *, actor: str = "") -> TaskView:
        with self._audit.note("build.release", str(build), actor=actor, reason=reason, task=str(task)):
            return super().release(build, task, reason, actor=actor or self._actor)


class AuditedReports(Reports):
    """:class:`~distci.build_reports.Reports` of which it is noted who sent which report of which task; what tasks report is on record in their builds."""

    def __init__(self, builds: Builds, jobs: Jobs, store: Store, audit: Audit) -> None:
        super().__init__(builds, jobs, store)
        self._audit = audit

    def put(self, build: BuildId | str, task: str, source: str, data: bytes) -> Told:
        with self._audit.note("report.put", str(build), task=str(task), source=str(source)):
            return super().put(build, task, source, data)


class AuditedQuarantine(Quarantine):
    """:class:`~distci.quarantine.Quarantine` whose changes are put down."""

    def __init__(self, store: Store, jobs: Jobs, audit: Audit) -> None:
        super().__init__(store, jobs.get)
        self._audit = audit

    def put(
        self, job: str, test: str, *, owner: str, days: int = DAYS, reason: str = "", actor: str = ""
    ) -> Quarantined:
        with self._audit.change("quarantine.put", job, actor=actor, reason=reason, test=test, owner=owner, days=days):
            return super().put(job, test, owner=owner, days=days, reason=reason, actor=actor)

    def remove(self, job: str, test: str, *, reason: str = "", actor: str = "") -> None:
        with self._audit.change("quarantine.remove", job, actor=actor, reason=reason, test=test):
            super().remove(job, test, reason=reason, actor=actor)


class AuditedHooks(Hooks):
    """:class:`~distci.hooks.Hooks` of which what people decide is noted; what senders tell is on record in the builds that it starts."""

    def __init__(
        self,
        builds: Builds,
        jobs: Jobs,
        store: Store,
        settings: Mapping[str, ReceiverSettings],
        audit: Audit,
        access: Access,
        *,
        holds_untrusted: bool = True,
        retention: Retention | None = None,
    ) -> None:
        super().__init__(builds, jobs, store, settings, holds_untrusted=holds_untrusted, retention=retention)
        self._audit = audit
        self._access = access
        self._comments = Comments(self, builds, jobs, self._may_start)

    def approve(self, change: str, actor: str = "", check: Check | None = None) -> Answer:
        with self._audit.note("hook.approve", change, actor=actor):
            return super().approve(change, actor, check)

    def refuse(self, change: str, check: Check | None = None) -> None:
        with self._audit.note("hook.refuse", change):
            super().refuse(change, check)

    def carry_out(self, receiver: Receiver, command: Command, seal: str, is_told: Callable[[str], bool]) -> Answer:
        with acting_as(author_of(receiver, command)):
            return self._comments.carry_out(receiver, command, seal, is_told)

    def _may_start(self, author: str, job: str) -> bool:
        """Whether a role that was granted to that very name lets them start builds of the job."""
        try:
            return isinstance(self._access.decide(Commenter(author), Action.TRIGGER, job), Allowed)
        except Invalid:
            return False  # Such as a bot's, which nobody can give a role.


class AuditedSecrets(Secrets):
    """:class:`~distci.secrets.Secrets` whose changes are put down, without a value; who has read one is on record in the builds whose tasks did."""

    def __init__(
        self, store: Store, master_keys: Callable[[], MasterKeys], providers: Sequence[Provider], audit: Audit
    ) -> None:
        super().__init__(store, master_keys, providers)
        self._audit = audit

    def set(self, name: str, value: str, project: str = SYSTEM, *, actor: str = "", reason: str = "") -> Secret:
        # What is no name may be a value in the wrong place.
        shown = name if NAME.fullmatch(name) else ""
        with self._audit.change("secret.set", project, actor=actor, reason=reason, name=shown):
            return super().set(name, value, project, actor=actor, reason=reason)

    def delete(self, name: str, project: str = SYSTEM, *, actor: str = "", reason: str = "") -> None:
        shown = name if NAME.fullmatch(name) else ""
        with self._audit.change("secret.delete", project, actor=actor, reason=reason, name=shown):
            super().delete(name, project, actor=actor, reason=reason)

    def rotate(self, project: str = SYSTEM, *, actor: str = "", reason: str = "") -> Rotated:
        with self._audit.change("secret.rotate", project, actor=actor, reason=reason):
            return super().rotate(project, actor=actor, reason=reason)


class AuditedTickets(Tickets):
    """:class:`~distci.protocol.Tickets` whose controls are noted when people use them; what workers do is not of this sort."""

    audit: Audit

    def pause(self, *kinds: str) -> None:
        with self.audit.note("cluster.pause" if kinds else "cluster.resume", " ".join(kinds)):
            super().pause(*kinds)

    def weigh(self, project: str, weight: float) -> None:
        with self.audit.note("cluster.weigh", project, weight=weight):
            super().weigh(project, weight)

    def limit(self, project: str, quota: int | None) -> None:
        with self.audit.note("cluster.limit", project, quota=quota):
            super().limit(project, quota)

    def requeue(self, ticket: str) -> Ticket:
        with self.audit.note("ticket.requeue", ticket):
            return super().requeue(ticket)

    def drain(self, worker: str) -> None:
        """Let a worker finish what it holds and take nothing more; NoSuchWorker when none of that name lives."""
        with self.audit.note("worker.drain", worker):
            members.drain(self, worker)
