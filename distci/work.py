"""What a worker is, and the loop that every worker shares.

A kind of worker is a class with a ``kind`` and one method, found by the entry-point group ``distci.workers``. Most
kinds perform tasks of builds (:class:`Worker`): they see the task and a :class:`TaskContext`, and know nothing of
tickets, tree or store. A kind whose tickets are no tasks (``control``) serves the claim itself (:class:`TicketWorker`).
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Protocol, TypeVar

from distci import attempts, tracing
from distci.artifacts import Artifacts, Publication
from distci.attempts import Input
from distci.builds import Builds
from distci.console import LogWriter
from distci.errors import ClaimLost, Damaged, Invalid, InvalidDocument, Missing, NoSuchObject, Unavailable
from distci.isolation.port import Cause, Command, Ended, Isolation
from distci.lifecycle import Lifecycle, LiveBuild, build_of
from distci.model import BuildId, Outcome, Plan, Task, Verdict
from distci.protocol import outcomes
from distci.protocol.claims import Claim
from distci.protocol.members import Member
from distci.protocol.paths import build as build_path
from distci.published import Published
from distci.receivers.port import Call
from distci.repositories import address as repository_address
from distci.safepath import directory_beneath, remove
from distci.secrets import Masker
from distci.store import keys
from distci.store.attended import AttendedStore
from distci.store.port import Store
from distci.workspaces import Restored, Workspaces

__all__ = [
    "Call",
    "Claim",
    "Halted",
    "Lifecycle",
    "Site",
    "TaskContext",
    "Tasks",
    "TicketWorker",
    "Worker",
    "repository_address",
    "serve",
    "tidy_up",
]

T = TypeVar("T")

LOST_POLL_S = 0.5
"""How soon running work learns, at the latest, that its claim is lost."""

LOG_END_S = 10.0
"""How long the end of a log is waited for between two signs that the work gets on."""

MACHINE_FAULTS = (OSError, MemoryError, RuntimeError, Unavailable)
"""What is raised where a machine lacks something: room on its disk, memory, threads, files, processes."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""What the machine says whose disk is full, or whose user may have no more of it."""

NO_ROOM_PAUSE_S = 60.0
"""How long a task waits that no worker has had room for."""

log = logging.getLogger(__name__)


class Worker(Protocol):
    """One kind of task: a page of code that turns a task into an outcome."""

    kind: str

    def perform(self, task: Task, context: TaskContext) -> Outcome:
        """Do the task. What the task did wrong is an Outcome; an exception means that nobody knows how it ended.

        ``Invalid`` and ``Missing`` errors of DistCI count as a failed task with that reason; ``Unavailable`` and
        whatever else is raised put the ticket back for its next attempt. :class:`Halted` passes through.
        """


class TicketWorker(Protocol):
    """A kind whose tickets are no tasks."""

    kind: str

    def serve(self, claim: Claim, lifecycle: Lifecycle) -> None:
        """Do what the ticket says and finish the claim."""


@dataclass(frozen=True, slots=True)
class Site:
    """What a worker process works with: the same for all its kinds and tasks."""

    lifecycle: Lifecycle
    store: Store
    isolation: Isolation
    scratch: Path
    """A directory of this process alone; each attempt gets one below it, gone afterwards."""
    search_path: str
    """``PATH`` of scripts."""
    secrets: Mapping[str, str]
    """Values of the secrets that tasks may name."""
    url: str = ""
    """Where people find a build, for :func:`distci.settings.page`; empty when there is no such place."""


class Halted(Exception):
    """The work of an attempt shall end now, with this outcome. Raised by :meth:`TaskContext.checkpoint`; not to be caught."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


class TaskContext:
    """What a worker may do for one attempt at one task. One thread uses it at a time."""

    def __init__(self, site: Site, claim: Claim, live: LiveBuild, plan: Plan, task: Task, directory: Path) -> None:
        self.build: BuildId = live.build
        self.plan = plan
        self.task = task
        self.token = claim.token
        self.stop = Event()
        """Set when the work shall end now; :attr:`stopped_by` says why."""
        self.stopped_by: Verdict | None = None
        self._site = site
        self._claim = claim
        self._live = live
        self._directory = directory
        self._deadline = monotonic() + task.timeout_s if task.timeout_s else None
        self._hidden = [site.secrets[name] for name in _named_secrets(task) if name in site.secrets]
        self._masker = Masker(self._hidden)
        self._step_s = claim.ticket.limit_s / 2
        self._silent_until = monotonic() + self._step_s
        self._store = AttendedStore(site.store, self.checkpoint)
        self._log = LogWriter(
            site.store, lambda offset: keys.log_chunk(live.build, task.name, claim.token, offset), spool=directory
        )
        self._workspaces = Workspaces(site.store, self.checkpoint)
        self._restored: Restored | None = None
        self._published: Publication | None = None

    # For workers

    def say(self, line: str) -> None:
        """A line of our own in the task's log."""
        self.write(f"{line}\n".encode(errors="surrogateescape"))

    def write(self, data: bytes) -> None:
        """Bytes for the task's log, secrets masked."""
        self._log.write(self._masker.feed(data))

    @property
    def root(self) -> Path:
        """The workspace, as the task's needs left it."""
        path = self._directory / "workspace"
        if self._restored is None:
            saved = attempts.workspaces(self._inputs())
            try:
                self._restored = self.patiently(lambda: self._workspaces.restore(saved, path))
            except NoSuchObject as error:
                # Whoever saved it said so after it was there: this is no fault of the task.
                raise Damaged(f"a workspace that {self.task.name} needs is gone: {error}") from error
        return path

    def inside(self, relative: str) -> Path:
        """A directory of the workspace, made if it is not there.

        Raises :class:`~distci.errors.InvalidPath` when it would lie outside, be it through a symbolic link.
        """
        return directory_beneath(self.root, relative)

    def script(self, text: str) -> Path:
        """An executable file with that text, for :meth:`run`; gone when the attempt ends."""
        return self.private_file("script", text, 0o700)

    def private_file(self, name: str, text: str, mode: int = 0o600) -> Path:
        """A file outside the workspace that other users cannot read and that is gone when the attempt ends."""
        data = _bytes(f"the {name}", text)
        path = self._directory / name
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
            file.write(data)
        return path

    def secret(self, name: str) -> str:
        """The value of a secret; Invalid when none of that name is set."""
        if self.plan.trigger.is_untrusted:
            raise Invalid(
                f"task {self.task.name}: secret {name!r} is not given to a build of what somebody without rights to the repository wrote"
            )
        if name not in self._site.secrets:
            raise Invalid(
                f"task {self.task.name}: no secret {name!r} is set; workers get theirs by --secret-file, distci run by --secret"
            )
        return self._site.secrets[name]

    def hide(self, secret: str) -> None:
        """Mask one more text from now on, such as a part of a secret; Invalid when it has fewer than 4 characters."""
        masker = Masker([*self._hidden, secret])
        self._log.write(self._masker.flush())
        self._hidden.append(secret)
        self._masker = masker

    def run(
        self,
        argv: Sequence[str],
        directory: Path,
        environment: Mapping[str, str] | None = None,
        output: Callable[[bytes], None] | None = None,
    ) -> Ended:
        """Run a command in the task's isolation; its output goes to the log, or to ``output``.

        The environment is that of the task's script; or, for programs that the job has no say in, ``environment`` and
        what DistCI itself sets. Invalid where no process can be given such a text.
        """
        remaining_s = None if self._deadline is None else max(0.1, self._deadline - monotonic())
        variables = (
            self.environment() if environment is None else self._minimum() | dict(environment) | self._own_variables()
        )
        command = Command(argv, directory, variables, self.token, remaining_s)
        # How long a command may be silent is for its task to say, with a timeout.
        self._get_on(inf if remaining_s is None else remaining_s + command.grace_s)
        try:
            return self._site.isolation.run(command, output or self.write, self.stop)
        finally:
            self._get_on()

    def outcome_of(self, ended: Ended) -> Outcome:
        """What the end of the task's one command means for the task."""
        if ended.cause is Cause.TIMED_OUT:
            return replace(self._timed_out(), signal=ended.signal)
        if ended.cause is Cause.STOPPED:
            return replace(self._stopped(), signal=ended.signal)
        if ended.ok:
            return Outcome(Verdict.PASSED, exit_status=0)
        return Outcome(Verdict.FAILED, ended.describe(), ended.exit_status, ended.signal)

    def environment(self) -> dict[str, str]:
        """The variables that the task's script sees, and no others."""
        return self._minimum() | dict(self.task.environment) | self._secrets() | self._own_variables()

    def _minimum(self) -> dict[str, str]:
        home = self._directory / "home"
        home.mkdir(exist_ok=True)
        return {"PATH": self._site.search_path, "HOME": str(home), "LANG": "C.UTF-8", "TERM": "dumb"}

    def _own_variables(self) -> dict[str, str]:
        own = attempts.variables(self.plan, self.task, self._claim.ticket, self.commit, self._site.url)
        return own | {"DISTCI_WORKSPACE": str(self._directory / "workspace")}

    @property
    def commit(self) -> str:
        """The commit that this task works on: what the first of its needs that knows one had checked out; empty when none does."""
        return attempts.commit(self._inputs())

    def pin(self, name: str, find: Callable[[], str]) -> str:
        """What the first task of this build that asked found under ``name``; found now if none has yet.

        A build that runs another one again takes what that one had found.
        """
        return self.patiently(lambda: self._site.lifecycle.pin(self._live, name, find))

    def publish(self, patterns: Sequence[str]) -> Publication:
        """Keep the files of the workspace that match any of the patterns, as artifacts of this build.

        Only once in an attempt. Raises Invalid as :meth:`~distci.artifacts.Artifacts.publish` does.
        """
        artifacts, root = Artifacts(self._store), self.root
        self._published = self.patiently(
            lambda: artifacts.publish(self.build, self.task.name, self.token, root, patterns)
        )
        return self._published

    @property
    def builds(self) -> Builds:
        """This and all other builds."""
        return Builds(self._site.lifecycle, self._site.lifecycle.jobs)

    def check_use(self, job: str) -> None:
        """To be called before anything is read of builds of a job that the task names. NoSuchJob when this build may not use those."""
        self.patiently(lambda: self._site.lifecycle.check_use(self.build.job, job))

    @property
    def artifacts(self) -> Published:
        """The files that builds have published."""
        return Published(self.builds, self._store)

    def patiently(self, call: Callable[[], T]) -> T:
        """What a call that may be repeated returns. While store or tree are away it waits, until the work shall end.

        Waiting for them takes nothing from the task's time.
        """
        return self._persist(call, self.stop)

    def checkpoint(self) -> None:
        """To be passed now and then by whatever takes long and is no command. It tells that the work gets on.

        Raises :class:`Halted` when the work shall end: the build was cancelled, the claim lost, or the task's time is up.
        """
        self._get_on()
        if self.stop.is_set():
            raise Halted(self._stopped())
        if self._deadline is not None and monotonic() >= self._deadline:
            raise Halted(self._timed_out())

    # For the loop

    def save(self) -> bool:
        """Keep the workspace for the tasks that need this one; False when none does, or there was none to keep."""
        is_needed = any(self.task.name in other.needs for other in self.plan.tasks)
        if not is_needed:
            return False
        # What a task left is kept also when its time is up.
        self._deadline = None
        root, restored = self.root, self._restored
        if restored is None:
            return False
        key = keys.workspace(self.build, self.task.name, self.token)
        saved = self.patiently(lambda: self._workspaces.save(root, restored, self.task.name, key))
        for path in saved.left_out:
            self.say(f"distci: {path} is neither file, directory nor link, and is not carried on")
        return True

    def masked(self, outcome: Outcome) -> Outcome:
        """The outcome, without the secrets that its reason may repeat."""
        masker = Masker(self._hidden)
        reason = masker.feed(outcome.reason.encode(errors="surrogateescape")) + masker.flush()
        return replace(outcome, reason=reason.decode(errors="surrogateescape"))

    @property
    def artifact_count(self) -> int:
        """How many files this attempt has published."""
        return len(self._published.artifacts) if self._published else 0

    def close_log(self) -> int:
        """Flush the log; its size in bytes."""
        self._log.write(self._masker.flush())
        return self.insistently(lambda: self._log.close(LOG_END_S))

    def insistently(self, call: Callable[[], T]) -> T:
        """Like :meth:`patiently`, but until the claim is lost: for what ends an attempt, be it a stopped one."""
        return self._persist(call, self._claim.lost)

    def abandon(self) -> None:
        """Stop what still works for this attempt: it has ended, one way or another."""
        self._log.abandon()

    def watch(self, done: Event) -> None:
        """Set :attr:`stop` when the build is cancelled or the claim lost; returns when ``done`` is set.

        With the claim, the log is given up too: else whoever writes to it would wait for a store that is away.
        """
        changed = Event()
        changed.set()
        while not done.is_set():
            if self._claim.lost.is_set():
                self._end_by(Verdict.CANCELLED)
                self._log.abandon()
                return
            try:
                if changed.is_set():
                    changed.clear()
                    self._look(changed)
                if monotonic() < self._silent_until:
                    self._claim.renew()
            except (Unavailable, InvalidDocument):
                changed.set()
                done.wait(LOST_POLL_S)
            else:
                changed.wait(LOST_POLL_S)

    def _look(self, changed: Event) -> None:
        self._claim.watch(changed)
        self._site.lifecycle.tickets.tree.coordination.watch(build_path(self.build), changed)
        live = self._site.lifecycle.read(self.build)
        if live is None or (live.is_restored and not self._claim.is_ours()):
            self._claim.lost.set()  # with the tree that knew of it
        elif live.is_cancelled and not self.task.on_cancel:
            self._end_by(Verdict.CANCELLED)

    def _end_by(self, verdict: Verdict) -> None:
        self.stopped_by = verdict
        self.stop.set()

    def _get_on(self, silence_s: float = 0.0) -> None:
        """The work gets on. After so many seconds, and then some, without another word it no longer does."""
        self._silent_until = monotonic() + silence_s + self._step_s

    def _persist(self, call: Callable[[], T], give_up: Event) -> T:
        began = monotonic()

        def attempt() -> T:
            nonlocal began
            self._get_on()
            try:
                return call()
            except Unavailable:
                ended = monotonic()
                if self._deadline is not None:
                    self._deadline += ended - began
                began = ended
                raise

        return outcomes.persist(attempt, give_up)

    def _stopped(self) -> Outcome:
        return Outcome(self.stopped_by or Verdict.CANCELLED, "stopped")

    def _timed_out(self) -> Outcome:
        return Outcome(Verdict.TIMED_OUT, f"not done after {self.task.timeout_s:g} s")

    def _secrets(self) -> dict[str, str]:
        return {name: self.secret(name) for name in self.task.secrets}

    def _inputs(self) -> Iterator[Input]:
        return attempts.inputs(self._site.lifecycle, self._live, self.task, self.patiently)


def _bytes(what: str, text: str) -> bytes:
    """What a text is to files and processes; Invalid naming ``what`` it is when that is not Unicode."""
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError as error:
        raise Invalid(f"{what} is not valid Unicode") from error


def _named_secrets(task: Task) -> Sequence[str]:
    """The secrets that a task has to do with: its own, and the one that it identifies itself with elsewhere."""
    credentials = task.arguments.get("credentials")
    return [*task.secrets, credentials] if credentials else task.secrets


class Tasks:
    """Serves the tickets of one kind of task: everything around :meth:`Worker.perform`."""

    def __init__(self, worker: Worker, site: Site) -> None:
        self._worker = worker
        self._site = site
        self._lifecycle = site.lifecycle

    def serve(self, claim: Claim) -> Claim | None:
        """Perform a task and settle it; a claim of the next task when this worker goes on with that one."""
        build, name = build_of(claim.ticket), str(claim.ticket.body["task"])
        live, plan = outcomes.persist(lambda: self._read(claim, build), claim.lost)
        task = plan.task(name)
        directory = self._site.scratch / claim.token
        try:
            directory.mkdir(parents=True)
            return self._attempt(claim, live, task, TaskContext(self._site, claim, live, plan, task, directory))
        except OSError as error:
            if error.errno in NO_ROOM and claim.ticket.is_exhausted:
                # Nobody who tried has had room, which is no fault of the task: it waits until somebody has.
                log.warning("there is no room for %s, task %s: %s", build, name, error)
                now_ms = outcomes.persist(self._lifecycle.tickets.tree.now_ms, claim.lost)
                claim.park_until(now_ms + int(NO_ROOM_PAUSE_S * 1000), uses_attempt=False)
            raise
        finally:
            tidy_up(directory)

    def _read(self, claim: Claim, build: BuildId) -> tuple[LiveBuild, Plan]:
        """A build that runs, and its plan. To be repeated while store or tree are away: that costs no attempt."""
        claim.renew()
        live = self._lifecycle.read(build)
        if live is None or live.state is None:
            raise ClaimLost(f"{build} is not running")
        return live, self._lifecycle.plan_of(live)

    def _attempt(self, claim: Claim, live: LiveBuild, task: Task, context: TaskContext) -> Claim | None:
        started_ms = self._lifecycle.now_ms()
        done = Event()
        watcher = Thread(target=context.watch, args=(done,), name=f"watch {claim.token}", daemon=True)
        try:
            watcher.start()
            outcome = self._perform(task, context, live)
            if context.stopped_by is not None and claim.lost.is_set():
                raise ClaimLost(f"claim {claim.token} was lost while its task ran")
            outcome, has_workspace = self._save(outcome, context)
            outcome = context.masked(outcome)
            record = {
                "worker": claim.running.worker,
                "attempt": claim.ticket.attempt,
                "started_ms": started_ms,
                "ended_ms": self._lifecycle.now_ms(),
                "log_bytes": context.close_log(),
                "workspace": has_workspace,
                "commit": context.commit,
                "artifacts": context.artifact_count,
                "after": claim.ticket.body.get("after", ""),
            }
            return context.insistently(lambda: self._lifecycle.settle(claim, task.name, outcome, record))
        finally:
            done.set()
            context.abandon()
            if watcher.is_alive():
                watcher.join()

    def _save(self, outcome: Outcome, context: TaskContext) -> tuple[Outcome, bool]:
        """Keep the workspace, unless nobody can want it; one that cannot be kept is the task's failure."""
        if outcome.verdict is Verdict.CANCELLED:
            return outcome, False
        try:
            return outcome, context.save()
        except Halted as halted:
            return halted.outcome, False
        except Invalid as error:
            context.say(f"distci: the workspace cannot be kept: {error}")
            return Outcome.failed(f"the workspace cannot be kept: {error}"), False

    def _perform(self, task: Task, context: TaskContext, live: LiveBuild) -> Outcome:
        if live.is_cancelled and not task.on_cancel:
            return Outcome(Verdict.CANCELLED, "cancelled before it began")
        try:
            return self._worker.perform(task, context)
        except Halted as halted:
            return halted.outcome
        except (Invalid, Missing) as error:
            context.say(f"distci: {error}")
            return Outcome.failed(str(error))


def tidy_up(directory: Path) -> bool:
    """Remove what attempts leave; False where something resists, such as files of another user.

    That is left to the next start: neither an outcome nor a process that begins or ends shall come to nothing for it.
    """
    try:
        remove(directory)
    except OSError as error:
        log.warning("%s cannot be removed: %s", directory, error)
        return False
    return True


def serve(member: Member, serve_claim: Callable[[Claim], Claim | None]) -> None:
    """Serve a member's claims, each in a thread of its own, until it is drained; then wait for what is still held."""
    with ThreadPoolExecutor(member.slots, thread_name_prefix=f"slot of {member.name}") as slots:
        for claim in member.claims():
            slots.submit(_serve_one, member, claim, serve_claim)


def _serve_one(member: Member, claim: Claim | None, serve_claim: Callable[[Claim], Claim | None]) -> None:
    while claim is not None:
        ticket = claim.ticket
        of_build = {name: str(ticket.body[name]) for name in ("build", "task") if name in ticket.body}
        with tracing.doing(ticket.traceparent, ticket=claim.token, kind=ticket.kind, worker=member.name, **of_build):
            try:
                log.info("claimed")
                with claim, _resting_after_failure(member):
                    claim = serve_claim(claim)
                log.info("done")
            except ClaimLost as error:
                log.warning("%s", error)
                return
            except Exception:
                # Whatever went wrong, it concerns this ticket; it has been put back, and this worker lives on.
                log.exception("claim %s came to nothing", ticket.token)
                return


@contextmanager
def _resting_after_failure(member: Member) -> Iterator[None]:
    try:
        yield
    except MACHINE_FAULTS:
        with suppress(Unavailable):
            member.rest()
        raise
    member.recover()
