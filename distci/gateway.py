"""Work for those who reach neither tree nor store: claim, keep, write and complete attempts at tasks, one call at a time.

::

    ask ----> claimed --renew, log, artifacts, workspace--> completed
                 |  \\
                 |   give back: the ticket waits again, for others first
                 +-- not renewed for the lease: taken away, attempt + 1

Nothing is remembered between two calls: the claim, its lease and the key that it was asked for with are in the tree (:mod:`distci.protocol.leases`), all
that was written is in the store. So each call may come to another process. The token of the claim is its fence: a call with
one that does not hold any more raises :class:`~distci.errors.ClaimLost` and changes nothing.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from math import inf
from pathlib import Path
from threading import Event
from typing import BinaryIO

from distci import attempts, tarballs
from distci.artifacts import Artifact, Artifacts
from distci.attempts import Input
from distci.build_tickets import CLAIM_LIMIT_S, CONTROL_KIND, build_of
from distci.builds import Builds
from distci.console import LOG_BYTES_MAX
from distci.documents.jobs import seconds
from distci.errors import ClaimLost, CoordinationUnavailable, Forbidden, IllegalTransition, Invalid, NoSuchTask
from distci.holds import StoreDrawer
from distci.lifecycle import Lifecycle
from distci.live import LiveBuild
from distci.model import BuildId, Hold, Json, Outcome, Plan, Task, TaskState, Verdict
from distci.plan import is_carried_on
from distci.projects import is_within
from distci.protocol import leases
from distci.protocol.choosing import Turns
from distci.protocol.claiming import Claimer
from distci.protocol.leases import Request, Standing
from distci.protocol.outcomes import Deadline
from distci.protocol.records import Offer, Ticket
from distci.published import Published, Source
from distci.quarantine import Quarantine, Quarantined
from distci.reports.results import Summary
from distci.secrets import Secrets
from distci.snapshots import File, Snapshot, encode
from distci.store import keys
from distci.store.port import Store, objects
from distci.stored_reports import StoredReports, check
from distci.workspaces import Workspaces

HEARTBEAT_S = 5.0
"""How often a worker should ask whether to go on: so soon it learns of a cancel, and many calls fit into a lease."""

HANDED_IN_S = CLAIM_LIMIT_S
"""How long heartbeats keep a claim when its task's time is up: a workspace may be large."""

CHUNK_BYTES_MAX = 4 * 1024 * 1024
"""Most bytes of a log in one call."""

INTERPRETER = "/bin/sh -e"


@dataclass(frozen=True, slots=True)
class Caller:
    """A worker, as far as it has shown who it is."""

    id: str
    """Of its token: nobody else may speak of what it has claimed."""
    name: str
    host: str = ""
    """Where it is, as far as that is known."""
    slots: int = 1
    """How many tasks it works on at once, as it says."""
    version: str = ""
    """What it is, as it says."""

    @property
    def worker(self) -> str:
        """What the tree calls it: a name that no worker with a session can have."""
        return f"{self.name}@{self.id}"


class Gateway:
    """Speaks for workers without a session. Any thread may use it."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        store: Store,
        published: Published,
        build_url: str = "",
        secrets: Secrets | None = None,
    ) -> None:
        """``build_url`` is where people find a build, as :func:`~distci.settings.page` fills it in; without ``secrets`` there are none."""
        self.lifecycle = lifecycle
        self.store = store
        self.published = published
        self.build_url = build_url
        self.secrets = secrets
        self.builds = Builds(lifecycle, lifecycle.jobs)
        self.tickets = lifecycle.tickets
        self._turns = Turns()

    def ask(self, caller: Caller, offer: Offer, key: str, project: str, woken: Event) -> Asking:
        """Ask for a task that this offer suits, of a job within a project (all where that is empty). Invalid for ``control``, which is no task."""
        if CONTROL_KIND in offer.kinds:
            raise Invalid(f"{CONTROL_KIND} is for workers that reach the tree")

        def takes(ticket: Ticket) -> bool:
            return "task" in ticket.body and is_of(ticket, project)

        request = Request(
            self.tickets,
            caller.worker,
            offer,
            key,
            host=caller.host,
            slots=caller.slots,
            version=caller.version,
            takes=takes,
            is_choosy=bool(project),
        )
        claimer = Claimer(request, woken, self._turns, Deadline(leases.PATIENCE_S))
        return Asking(self, caller, request, claimer)

    def attempt(self, caller_id: str, build: BuildId, task: str, token: str) -> Attempt:
        """The attempt that a token stands for. ClaimLost when it is over, Forbidden when it is somebody else's."""
        found = leases.standing(self.tickets, token)
        if found is None:
            raise ClaimLost(f"claim {token} is over or has been taken over: stop its work, and claim anew")
        attempt = Attempt(self, found)
        if (attempt.build, attempt.name) != (build, task):
            raise NoSuchTask(f"{token} is no attempt at task {task} of {build}")
        if found.running.worker.rpartition("@")[2] != caller_id:
            raise Forbidden(f"claim {token} is another worker's")
        return attempt

    def complete(
        self, caller_id: str, build: BuildId, task: str, token: str, outcome: Outcome, *, publishes: bool = True
    ) -> Mapping[str, Json]:
        """End an attempt, which ``publishes`` all the files that it has put, or none; what is then on record of it.

        Repeated, that is the same, whatever the outcome now said.

        Raises ClaimLost when the attempt does not count, Invalid while bytes in the middle of the log are missing, and
        IllegalTransition when it is cancelled though nobody has cancelled the build.
        """
        try:
            self.attempt(caller_id, build, task, token).settle(outcome, publishes=publishes)
        except ClaimLost:
            # Perhaps it was this very call, or one before it, whose answer was lost.
            if not self._is_settled(caller_id, build, task, token):
                raise
        return self._recorded(build, task, token)

    def _is_settled(self, caller_id: str, build: BuildId, task: str, token: str) -> bool:
        document = self._recorded(build, task, token)
        is_ours = str(document.get("worker", "")).rpartition("@")[2] == caller_id
        return is_ours and document["verdict"] != TaskState.LOST and self.lifecycle.counts(build, task, token)

    def _recorded(self, build: BuildId, task: str, token: str) -> Mapping[str, Json]:
        return self.lifecycle.stored.outcome_document(build, task, token) or {}


class Asking:
    """A request that is being served. :meth:`look` may be called again and again, by one thread at a time; then :meth:`close`."""

    def __init__(self, gateway: Gateway, caller: Caller, request: Request, claimer: Claimer) -> None:
        self._gateway = gateway
        self._caller = caller
        self._request = request
        self._claimer = claimer

    def begin(self) -> Attempt | None:
        """As :meth:`served`; where that is nothing, let the worker be known as a live one. Forbidden when it was told to take nothing more."""
        found = self.served()
        if found is None:
            self._request.join()
        return found

    def served(self) -> Attempt | None:
        """What this request was given before, whoever served it, if it stands."""
        token = self._request.served()
        return self._attempt(token) if token else None

    def look(self) -> tuple[Attempt | None, float]:
        """What could be claimed; or how many seconds to wait to be woken before the next look."""
        claim, wait_s = self._claimer.look()
        if claim is not None:
            return self._attempt(claim.token), 0.0
        if self._request.is_willing:
            return None, wait_s
        # Another process has served this request meanwhile.
        self._request.is_willing = True
        return self.served(), wait_s

    def close(self) -> None:
        """Let nobody wake this worker any more. If the tree cannot be told, somebody may in vain, until our session ends."""
        if self._claimer.is_idle:
            with suppress(CoordinationUnavailable):
                self._claimer.close()

    def _attempt(self, token: str) -> Attempt | None:
        found = leases.standing(self._gateway.tickets, token)
        return Attempt(self._gateway, found) if found else None


class Attempt:
    """One claim of a task that stands, for one call. What it does not stand long enough for raises ClaimLost."""

    def __init__(self, gateway: Gateway, standing: Standing) -> None:
        self.token = standing.running.ticket.token
        self.build = build_of(standing.running.ticket)
        self.name = str(standing.running.ticket.body["task"])
        self._gateway = gateway
        self._lifecycle = gateway.lifecycle
        self._store = gateway.store
        self._artifacts = Artifacts(gateway.store)
        self._workspaces = Workspaces(gateway.store)
        self._standing = standing

    @property
    def ticket(self) -> Ticket:
        return self._standing.running.ticket

    @cached_property
    def live(self) -> LiveBuild:
        live = self._lifecycle.read(self.build)
        if live is None or live.state is None:
            raise ClaimLost(f"{self.build} is not running any more: stop the work of claim {self.token}")
        return live

    @cached_property
    def plan(self) -> Plan:
        return self._lifecycle.stored.plan_of(self.live)

    @property
    def task(self) -> Task:
        return self.plan.task(self.name)

    @cached_property
    def inputs(self) -> Sequence[Input]:
        """The attempts at the task's needs that count."""
        return [*attempts.inputs(self._lifecycle, self.live, self.task)]

    @property
    def is_workspace_wanted(self) -> bool:
        """Whether some task needs what this one leaves."""
        return is_carried_on(self.plan, self.task)

    def variables(self) -> dict[str, str]:
        """What DistCI itself tells the task's script."""
        commit = attempts.commit(self.inputs)
        return attempts.variables(self.plan, self.task, self.ticket, commit, self._gateway.build_url)

    def secrets(self) -> dict[str, str]:
        """The values of the secrets that the task names, as far as the system has them. Invalid where the build is not to be trusted with them."""
        return attempts.secrets(self._gateway.secrets, self.plan, self.task)

    def environment(self) -> dict[str, str]:
        """The variables that the task's script sees, besides secrets and those of the machine."""
        # Workers on the same machine that have supervisors for their scripts sweep up what has none.
        return dict(self.task.environment) | self.variables() | {"DISTCI_GATEWAY": "true"}

    def prelude(self) -> str:
        """What a shell in the workspace does before the script: its variables, its directory."""
        exports = [f"export {name}={shlex.quote(value)}" for name, value in self.environment().items()]
        directory = shlex.quote(self.task.arguments.get("directory") or ".")
        lines = [*exports, 'export DISTCI_WORKSPACE="$PWD"', f"mkdir -p -- {directory} && cd -- {directory}"]
        return "".join(f"{line}\n" for line in lines)

    def script(self) -> bytes:
        """The task's script as a file that can be executed: it begins with ``#!``. Missing when the task has none."""
        script, shell = self.task.arguments.get("script"), self.task.arguments.get("shell")
        if not isinstance(script, str):
            raise NoSuchTask(f"task {self.name} is of type {self.task.type}, which has no script")
        if shell:
            script = f"#!/usr/bin/env -S {shell}\n{script}"
        elif not script.startswith("#!"):
            script = f"#!{INTERPRETER}\n{script}"
        return script.encode(errors="surrogateescape")

    @property
    def is_called_off(self) -> bool:
        """Whether the build was cancelled, and the task is none of those that see to that."""
        return self.live.is_cancelled and not self.task.on_cancel

    @property
    def drawer(self) -> StoreDrawer:
        """What goes to and from the task while it is held. Invalid for one that may not be."""
        self._check_hold()
        return StoreDrawer(self._store, self.build, self.name, self.token)

    def keep(self, progress: int | None = None, hold: Hold | None = None) -> Verdict | None:
        """Let the lease begin anew, note how far the work is in percents and that it is held, and learn how the work shall end now; None: it shall go on.

        Work that shall end is renewed no more, or only until what it left is handed in: who does not heed it loses the claim when the lease is over.
        Raises Invalid for a hold of a task that may not be held.
        """
        if self.is_called_off:
            return Verdict.CANCELLED
        held_s = self._check_hold() if hold or self._standing.running.hold else 0.0
        over_s = self._standing.age_s(self._gateway.tickets) - (self.task.timeout_s or inf) - held_s
        if over_s < HANDED_IN_S and not self._standing.renew(self._gateway.tickets, progress, hold):
            raise ClaimLost(f"claim {self.token} has just been taken over: stop its work, and claim anew")
        return Verdict.TIMED_OUT if over_s >= 0 else None

    def _check_hold(self) -> float:
        """How long the task may be held, in seconds."""
        asked = self.task.arguments.get("hold")
        if not isinstance(asked, str) or self.plan.trigger.is_untrusted:
            raise Invalid(f"task {self.name} of {self.build} is not to be held")
        return seconds(asked)

    def write_log(self, offset: int, data: bytes) -> int:
        """Put bytes into the log where they belong; where the next ones do. May be repeated, also with more bytes than there were before."""
        if len(data) > CHUNK_BYTES_MAX:
            raise Invalid(f"{len(data)} bytes are too many for one call; at most {CHUNK_BYTES_MAX} fit")
        if offset + len(data) > LOG_BYTES_MAX:
            raise Invalid(f"the log is full: it takes {LOG_BYTES_MAX} bytes")
        key = keys.log_chunk(self.build, self.name, self.token, offset)
        if not data or self._store.put_if_absent(key, data):
            return offset + len(data)
        # Sent before. That may have been less, when it was all that there was; and it may come late, when more is there.
        there = self._store.head(key)
        return offset + (there.size_bytes if there else 0)

    def log_bytes(self) -> int:
        """How long the log is. Invalid, naming them, when bytes before its end are missing or there twice."""
        end = 0
        for info in objects(self._store, keys.log(self.build, self.name, self.token)):
            offset = keys.offset_of_chunk(info.key)
            if offset > end:
                raise Invalid(f"bytes {end} to {offset} of the log are missing; send them, then complete again")
            if offset < end:
                raise Invalid(f"bytes {offset} to {end} of the log were sent twice: send what follows at `next`")
            end = offset + info.size_bytes
        return end

    def put_artifact(self, name: str, stream: BinaryIO) -> Artifact:
        """Take in a file that the attempt publishes when it completes. May be repeated."""
        return self._artifacts.put(self.build, self.name, self.token, name, stream)

    def put_report(self, data: bytes) -> Summary:
        """Take in what the attempt's reports tell, which counts once it has completed; what it comes to. Damaged or Invalid for what is none. May be repeated."""
        summary = check(data)
        StoredReports(self._store).put(self.build, self.name, self.token, data)
        return summary

    def quarantine(self) -> Sequence[Quarantined]:
        """The tests of the job whose failures count for nothing now."""
        return Quarantine(self._store).in_force(self.build.job)

    def pin(self, name: str, value: str | None) -> str | None:
        """What the whole build goes by for ``name``: ``value`` if nobody has found any before. May be repeated."""
        if value is None:
            return self._lifecycle.stored.pinned(self.live, name)
        return self._lifecycle.stored.pin(self.live, name, lambda: value)

    def source(self, project: str) -> BuildId:
        """The build that the task's ``job`` and ``build`` mean. Forbidden when that job is outside of the project (of none where that is empty)."""
        self._check_job(str(self.task.arguments.get("job", "")), project)
        return attempts.source(self._gateway.builds, self._lifecycle, self.plan, self.task)

    def artifacts(self, build: BuildId, project: str) -> Sequence[Artifact]:
        """What this build has published so far, or one of the job that the task names. Forbidden for any other, and for one outside of the project."""
        return self._gateway.published.list(self._checked(build, project))

    def find_artifact(self, name: str, build: BuildId, project: str) -> Source:
        """One such file; NoSuchArtifact when there is none."""
        return self._gateway.published.find(self._checked(build, project), name)

    def _checked(self, build: BuildId, project: str) -> BuildId:
        if build != self.build:
            if build.job != self.task.arguments.get("job"):
                raise Forbidden(f"task {self.name} does not name {build.job} as the job that it has files of")
            self._check_job(build.job, project)
            self._lifecycle.check_use(self.build.job, build.job)
        return build

    def _check_job(self, job: str, project: str) -> None:
        if job and not is_within(job, project):
            raise Forbidden(f"the token of this worker is for {project} alone, not for files of {job}")

    def workspace(self) -> Snapshot:
        """What the tasks that this one needs have left. Invalid when two of them changed a path differently."""
        return self._workspaces.overlaid(attempts.workspaces(self.inputs))[0]

    def put_workspace(self, tar: BinaryIO, folder: Path) -> int:
        """Take in the workspace that the attempt leaves, a tar file; how many files it has. May be repeated.

        ``folder`` takes what has to wait for its turn. Raises Invalid for what no workspace can hold, naming its path.
        """
        snapshot = tarballs.read(self._store, tar, self.workspace(), self.name, folder)
        self._store.put(keys.workspace(self.build, self.name, self.token), encode(snapshot, self.name))
        return sum(isinstance(entry, File) for entry in snapshot.entries.values())

    def settle(self, outcome: Outcome, *, publishes: bool) -> None:
        """Put the outcome on record, publish all files that were put, or none, and move the build on."""
        if outcome.verdict is Verdict.CANCELLED and not self.is_called_off:
            raise IllegalTransition(f"nobody has cancelled {self.build}; a claim is given back by DELETE")
        if (
            self.task.may_define
            and outcome.verdict is Verdict.PASSED
            and not isinstance(outcome.details.get("tasks"), str)
        ):
            # What needs it would run without them.
            outcome = Outcome.failed("its worker has not told, as `tasks` of the details, which tasks it defines")
        record = attempts.record(
            self._standing.running,
            self.inputs,
            started_ms=self._standing.stat.created_ms,
            ended_ms=self._lifecycle.now_ms(),
            log_bytes=self.log_bytes(),
            has_workspace=self._store.head(keys.workspace(self.build, self.name, self.token)) is not None,
            artifacts=len(self._artifacts.gather(self.build, self.name, self.token)) if publishes else 0,
        )
        self._lifecycle.settle(self._standing.claim(self._gateway.tickets), self.name, outcome, record)

    def give_back(self, reason: str, *, uses_attempt: bool) -> None:
        """Let another worker have the ticket. That uses up no attempt where nothing was done to it."""
        self._standing.claim(self._gateway.tickets).give_back(reason, is_declined=not uses_attempt)


def is_of(ticket: Ticket, project: str) -> bool:
    """Whether a ticket is of a job of that project, or of one within it."""
    try:
        return is_within(build_of(ticket).job, project)
    except Invalid:
        return False
