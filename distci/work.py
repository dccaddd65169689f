"""What a worker is, and what it sees of a task.

A kind of worker is a class with a ``kind`` and one method, found by the entry-point group ``distci.workers``. Most
kinds perform tasks of builds (:class:`Worker`): they see the task and a :class:`TaskContext`, and know nothing of
tickets, tree or store. A kind whose tickets are no tasks (``control``) serves the claim itself (:class:`TicketWorker`).
What goes on around them, the same for all, is :mod:`distci.worker_loop`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic
from typing import Any, Protocol, Self, TypeVar

from distci import approvals, calls
from distci.artifacts import Publication
from distci.brokers.port import Assignment
from distci.caches import Cache, Caches
from distci.console import LogWriter
from distci.documents.jobs import seconds
from distci.errors import ClaimLost, Invalid, InvalidDocument, Unavailable
from distci.isolation.asked import asked
from distci.isolation.diagnosis import diagnosis
from distci.isolation.port import VM, Cause, Command, Confinement, Ended, Isolation, Mount
from distci.isolation.supervised import FENCE
from distci.isolation.terminal import Terminal
from distci.lifecycle import Lifecycle
from distci.listening import Ear, Progress
from distci.masking import Masker
from distci.model import BuildId, Outcome, Task, Usage, Verdict
from distci.plan import is_carried_on
from distci.projects import project_of
from distci.protocol import outcomes
from distci.protocol.claims import Claim
from distci.quarantine import matcher
from distci.receivers.port import Call
from distci.reporting import Reading, SecretMask
from distci.reports.results import CaseOutcome
from distci.reports.verdicts import decided
from distci.repositories import address as repository_address
from distci.safepath import directory_beneath, remove
from distci.secrets import check_trusted, check_value, nearest
from distci.stored_reports import write as written_report
from distci.task_caches import TaskCaches
from distci.views import to_json

__all__ = [
    "Cache",
    "Call",
    "Cause",
    "Claim",
    "Ended",
    "Halted",
    "Lifecycle",
    "Site",
    "TaskContext",
    "TicketWorker",
    "Worker",
    "approvals",
    "calls",
    "project_of",
    "repository_address",
    "tidy_up",
]

T = TypeVar("T")

TEXT_BYTES_MAX = 64 * 1024
"""Of a file that is read as a text: one that defines tasks becomes part of the attempt's record."""
STOP_POLL_S = 0.05
"""How soon a command learns, at the latest, that it shall end."""

LOST_POLL_S = 0.5
"""How soon running work learns, at the latest, that its claim is lost."""

HANG_UP_GRACE_S = 1.0
"""How long what somebody runs by hand may take to end: their shell heeds no polite word."""

LOG_END_S = 10.0
"""How long the end of a log is waited for between two signs that the work gets on."""

DIAGNOSE_AFTER_S = 600.0
"""As :attr:`Site.diagnose_after_s`, where nothing is said."""

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


def no_memory() -> Path:
    raise Invalid("secrets cannot be handed over as files here")


@dataclass(frozen=True, slots=True)
class Site:
    """What a worker process works with: the same for all its kinds and tasks."""

    isolation: Isolation
    scratch: Path
    """A directory of this process alone; each attempt gets one below it, gone afterwards."""
    search_path: str
    """``PATH`` of scripts."""
    secrets: Mapping[str, Mapping[str, str]]
    """This machine's own secrets, by project and name."""
    memory: Callable[[], Path] = no_memory
    """A directory in memory of this process alone; each attempt that gets a secret as a file has one below it, gone afterwards. Invalid where there is none."""
    cache: Cache | None = None
    diagnose_after_s: float = DIAGNOSE_AFTER_S
    """After so long a silence of a task's command its log tells what is done meanwhile, unless the task says after how long."""


class Halted(Exception):
    """The work of an attempt shall end now, with this outcome. Raised by :meth:`TaskContext.checkpoint`; not to be caught."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


class _NotHere(Exception):
    """Something cannot be had here and now, and is not waited for."""


class TaskContext:
    """What a worker may do for one attempt at one task. One thread uses it at a time."""

    def __init__(self, site: Site, assignment: Assignment[Any], directory: Path) -> None:
        self.build: BuildId = assignment.build
        self.plan = assignment.plan
        self.task = assignment.task
        self.token = assignment.token
        self.stop = Event()
        """Set when the work shall end now; :attr:`stopped_by` says why."""
        self.stopped_by: Verdict | None = None
        self._site = site
        self._assignment = assignment
        self.directory = directory
        """Of this attempt alone; gone afterwards."""
        self._deadline = monotonic() + self.task.timeout_s if self.task.timeout_s else None
        self._own_secrets = dict(self._find_own_secrets())
        self._hidden = [*self._own_secrets.values()]
        self._masker = Masker(self._hidden)
        self._memory: Path | None = None
        self._silent_until = monotonic() + assignment.silence_s
        self._log = LogWriter(assignment.write_log, spool=directory, bytes_max=assignment.log_bytes_max)
        self._reading: Reading | None = None
        self._private: list[Path] = []
        self.usage: Usage | None = None
        """What all commands of the attempt have used so far, as far as somebody has counted."""
        self._terminal: Terminal | None = None
        """Of the commands that are run from now on."""
        self._is_restored = False
        self._ending = Lock()
        self._writing = Lock()
        self._is_saving = False

    # For workers

    def say(self, line: str) -> None:
        """A line of our own in the task's log."""
        self._tell(f"{line}\n".encode(errors="surrogateescape"))

    def write(self, data: bytes) -> None:
        """Bytes for the task's log, secrets masked, and for what its reports tell. From any thread."""
        with self._writing:
            if self._reading is not None:
                self._reading.write(data)
            self._print(self._masker.feed(data))

    def _tell(self, data: bytes) -> None:
        with self._writing:
            self._print(self._masker.feed(data))

    def _print(self, data: bytes) -> None:
        """Bytes that hold no secret."""
        self._log.write(data)

    @property
    def root(self) -> Path:
        """The workspace, as the task's needs left it."""
        path = self.directory / "workspace"
        if not self._is_restored:
            self.patiently(lambda: self._assignment.restore(path, self.checkpoint))
            self._is_restored = True
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
        path = _write(self.directory / name, _bytes(f"the {name}", text), mode)
        self._private.append(path)
        return path

    def secret_file(self, name: str, text: str, mode: int = 0o600) -> Path:
        """The same as :meth:`private_file` in memory, for what must not be on a disk. Invalid where this machine has no such place."""
        if self._memory is None:
            self._memory = self._site.memory() / self.token
            self._memory.mkdir(mode=0o700)
        return _write(self._memory / name, _bytes(f"the {name}", text), mode)

    def forget_secret_files(self) -> None:
        """Remove all that :meth:`secret_file` made: what the attempt runs from now on is not to see it."""
        for path in self._memory.iterdir() if self._memory else ():
            path.unlink()

    @property
    def cache(self) -> Cache | None:
        """What this machine keeps between tasks; None where it keeps nothing. Whoever uses it sees to its size."""
        return self._site.cache

    def secret(self, name: str) -> str:
        """The value of a secret that the task names, masked in its log from now on; Invalid when none of that name is set."""
        values = self._secrets
        if name not in values:
            raise Invalid(
                f"task {self.task.name}: no secret {name!r} is set for {self.build.job} or what it lies within; "
                f"`distci secret set {name} --project PROJECT` sets it, distci run gets it by --secret"
            )
        return values[name]

    def hide(self, *secrets: str) -> None:
        """Mask more texts from now on, such as a part of a secret; Invalid when one has fewer than 4 characters."""
        masker = Masker([*self._hidden, *secrets])
        self._print(self._masker.flush())
        self._hidden += secrets
        self._masker = masker
        if self._reading is not None:
            self._reading.hide(Masker(self._hidden))

    def text_of(self, relative: str, name: str = "") -> str:
        """The text of a file of the workspace, ``name`` for people; Invalid when there is none, or it is too large or no text."""
        path, named = self.inside(str(Path(relative).parent)) / Path(relative).name, name or relative
        try:
            with open(
                path, "rb", opener=lambda file, flags: os.open(file, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
            ) as file:
                data = file.read(TEXT_BYTES_MAX + 1)
        except OSError as error:
            raise Invalid(f"{named} cannot be read: {error.strerror}") from error
        if len(data) > TEXT_BYTES_MAX:
            raise Invalid(f"{named} has more than {TEXT_BYTES_MAX} bytes")
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise Invalid(f"{named} is no text: {error}") from error

    def definition_in(self, relative: str, name: str = "") -> str:
        """The same for a text that goes on record, for all to read who may read the build; Invalid when a secret of the task is in it."""
        text = self.text_of(relative, name)
        data = text.encode()
        if self._without_secrets(data) != data:
            raise Invalid(
                f"{name or relative} has the value of a secret in it; the tasks that it defines name the secret instead"
            )
        return text

    def run(
        self,
        argv: Sequence[str],
        directory: Path,
        environment: Mapping[str, str] | None = None,
        output: Callable[[bytes], None] | None = None,
        silence_s: float | None = None,
        until: Event | None = None,
    ) -> Ended:
        """Run a command in the task's isolation; its output goes to the log, or to ``output``.

        The environment is that of the task's script; or, for programs that the job has no say in, ``environment`` and
        what DistCI itself sets. Such a program runs as the worker does, unless the task says how it shall be isolated.
        A command that prints nothing for ``silence_s`` is stopped; so is one once ``until`` is set.
        Invalid where no process can be given such a text, and where the isolation cannot be had here.
        """
        is_isolated = environment is None or bool(self.task.isolation)
        confinement = asked(self.task.isolation, self._login) if is_isolated else None
        variables = (
            self.environment() if environment is None else self._minimum() | dict(environment) | self._own_variables()
        )
        if confinement and confinement.image:
            confinement = self._settled(confinement)
            if "PATH" not in {**self.task.environment, **(environment or {})}:
                # An image knows best where its programs are.
                del variables["PATH"]
        remaining_s = None if self._deadline is None else max(0.1, self._deadline - monotonic())
        command = Command(
            argv,
            directory,
            variables,
            self.token,
            remaining_s,
            mounts=self._mounts(),
            confinement=confinement,
            terminal=self._terminal.pipe if self._terminal and environment is None else None,
            **({} if until is None else {"grace_s": HANG_UP_GRACE_S}),
        )
        heard = _hear_nothing if environment is not None or until is not None else self._listened
        # How long a command may be silent is for its task to say, with a timeout.
        self.get_on(inf if remaining_s is None else remaining_s + command.grace_s)
        try:
            with heard() as hear, Patience(self.stop, silence_s, output or self.write, until) as patience:

                def take(data: bytes) -> None:
                    hear(data)
                    patience.hear(data)

                ended = self._site.isolation.run(command, take, patience.stop)
        except (Invalid, Unavailable):
            # Who is told to end while something is made ready breaks that off.
            self.checkpoint()
            raise
        finally:
            self.get_on()
        if ended.usage:
            self.usage = self.usage.and_then(ended.usage) if self.usage else ended.usage
        is_silent = ended.cause is Cause.STOPPED and not self.stop.is_set()
        return replace(ended, cause=Cause.SILENT) if is_silent else ended

    def run_on_terminal(self, terminal: Terminal, script: str, output: Callable[[bytes], None], until: Event) -> Ended:
        """Run a script on a terminal where the task began, with all that it had; stopped once ``until`` is set. Raises as :meth:`run` does."""
        self._terminal = terminal
        try:
            directory = self.inside(self.task.arguments.get("directory", ""))
            return self.run(["/bin/sh", "-c", script], directory, output=output, until=until)
        finally:
            self._terminal = None

    @contextmanager
    def holding(self) -> Iterator[None]:
        """What is done within the block takes nothing from the task's time, and is no part of what it used."""
        self._deadline, used = None, self.usage
        try:
            yield
        finally:
            self.usage = used

    def new_masker(self) -> Masker:
        """One that masks all secrets that the task has got to know."""
        return Masker(self._hidden)

    @contextmanager
    def _listened(self) -> Iterator[Callable[[bytes], None]]:
        """Hear what the task's command prints: how far it is, and when nothing comes any more."""
        pattern: str = self.task.arguments.get("progress", "")
        progress = Progress(pattern, self._progress) if pattern else None
        named: str = self.task.arguments.get("diagnose_after", "")
        with Ear(seconds(named) if named else self._site.diagnose_after_s, self._diagnose) as ear:

            def hear(data: bytes) -> None:
                ear.hear()
                if progress:
                    progress.hear(data)

            yield hear
            if progress:
                progress.look()

    def _progress(self, percent: int) -> None:
        self._assignment.progress = percent

    def _diagnose(self, silence_s: float) -> None:
        """Put into the log what is done while nothing is printed."""
        mark = f"{FENCE}={self._assignment.token}".encode()
        lines = [*diagnosis(mark, self._without_secrets)] or ["no process of it is seen from here"]
        if (self.task.isolation.get("type") or next(iter(self._site.isolation.types), "")) == VM:
            lines.append("it runs in a virtual machine, whose processes are not seen from here")
        self._tell(
            b"".join(
                f"distci: {line}\n".encode(errors="surrogateescape")
                for line in (f"nothing was printed for {silence_s:g} s; what runs:", *lines)
            )
        )

    def _settled(self, wanted: Confinement) -> Confinement:
        """The same with the very images that the whole build goes by, whatever their names mean by now."""
        services = [replace(service, image=self._image(service.image, wanted)) for service in wanted.services]
        return replace(wanted, image=self._image(wanted.image, wanted), services=services)

    def _image(self, name: str, wanted: Confinement) -> str:
        """The digest of an image as the whole build has it."""

        def find() -> str:
            try:
                return self._site.isolation.settle(replace(wanted, image=name), self.stop).image
            except Unavailable as error:
                # Of an engine or a registry that is away: another worker may have what this one has not.
                raise _NotHere from error

        self.get_on(inf)
        try:
            image = self.pin(f"image {name}", find)
        except Invalid:
            self.checkpoint()
            raise
        except _NotHere as error:
            self.checkpoint()
            assert error.__cause__
            raise error.__cause__ from None
        finally:
            self.get_on()
        if image != name:
            self.say(f"distci: {name} is {image}")
        return image

    def _login(self, name: str) -> str:
        """What a secret says to a registry, whose password is kept out of the log by itself, too."""
        login = self.secret(name)
        password = login.partition(":")[2]
        if password and password not in self._hidden:
            self.hide(password)
        return login

    def outcome_of(self, ended: Ended) -> Outcome:
        """What the end of the task's one command means for the task."""
        if ended.cause is Cause.TIMED_OUT:
            return replace(self._timed_out(), signal=ended.signal)
        if ended.cause is Cause.STOPPED:
            return replace(self._stopped(), signal=ended.signal)
        if ended.ok:
            return Outcome(Verdict.PASSED, exit_status=0)
        return Outcome(Verdict.FAILED, ended.describe(), ended.exit_status, ended.signal)

    def reported(self, outcome: Outcome) -> Outcome:
        """The outcome, with what the reports tell that the task asks for; where its job says so, they decide it.

        To be called once, when the work is done. A file that cannot be read is told of, and changes nothing.
        """
        reading = self._reading
        if reading is None or outcome.verdict is Verdict.CANCELLED:
            return outcome
        self._hand_in()
        reading.read_files(self.root, SecretMask(Masker(self._hidden)), self.checkpoint)
        report = reading.report
        if any(case.outcome is CaseOutcome.FAILED for case in report.cases):
            report = report.counted(matcher(self.patiently(self._assignment.quarantine)))
        else:
            report = report.counted(lambda name: False)
        data = written_report(report)
        self.patiently(lambda: self._assignment.put_report(data))
        summary = report.summary()
        for problem in (*summary.problems, *(f"no line matches `{name}`" for name in reading.unheard)):
            self.say(f"distci: reports: {problem}")
        told = replace(outcome, details={**outcome.details, "reports": to_json(summary)})
        return decided(told, summary, reading.asked, reading.unmatched)

    def environment(self) -> dict[str, str]:
        """The variables that the task's script sees, and no others."""
        return self._minimum() | dict(self.task.environment) | self._secret_variables | self._own_variables()

    def _mounts(self) -> list[Mount]:
        """What a command of the task may see of the attempt: its log, for one, is none of its business."""
        folders = [self.directory / name for name in ("workspace", "home")]
        own = [Mount(folder, is_writable=True, is_own=True) for folder in folders if folder.is_dir()]
        others = (self._memory, self._terminal.folder if self._terminal else None)
        private = [*self._private, *(path for path in others if path)]
        return own + [Mount(path, is_own=True) for path in private]

    def _minimum(self) -> dict[str, str]:
        return {"PATH": self._site.search_path, "HOME": str(self._home), "LANG": "C.UTF-8", "TERM": "dumb"}

    @property
    def _home(self) -> Path:
        home = self.directory / "home"
        home.mkdir(exist_ok=True)
        return home

    def _go_on(self) -> None:
        """The work gets on, unless somebody wants its end. What is around the task takes nothing from its time."""
        self.get_on()
        if self.stop.is_set():
            raise Halted(self._stopped())

    def _own_variables(self) -> dict[str, str]:
        own = self.patiently(self._assignment.variables)
        return own | {"DISTCI_WORKSPACE": str(self.directory / "workspace")}

    def pin(self, name: str, find: Callable[[], str]) -> str:
        """What the first task of this build that asked found under ``name``; found now if none has yet.

        A build that runs another one again takes what that one had found.
        """
        return self.patiently(lambda: self._assignment.pin(name, find))

    @cached_property
    def caches(self) -> TaskCaches:
        """What the task is lent of what this machine has kept for others."""
        cache, project = self._site.cache, project_of(self.build.job)
        return TaskCaches(
            Caches(cache.folder.with_name("caches"), cache.bytes_max) if cache else None,
            # Of a job that is in no project, they are its own.
            f"project {project}" if project else f"job {self.build.job}",
            self.root,
            self._home,
            self.say,
            self._go_on,
            is_kept=not self.plan.trigger.is_untrusted,
        )

    def publish(self, patterns: Sequence[str]) -> Publication:
        """Keep the files of the workspace that match any of the patterns, as artifacts of this build.

        Only once in an attempt. Raises Invalid as :meth:`~distci.artifacts.Artifacts.publish` does.
        """
        root = self.root
        return self.patiently(lambda: self._assignment.publish(root, patterns, self.checkpoint))

    def source(self) -> BuildId:
        """The build that the task's ``job`` and ``build`` mean: its number, ``last-passed`` or ``upstream``. Missing when there is none."""
        return self.patiently(self._assignment.source)

    def download(self, build: BuildId, directory: Path, names: Sequence[str] = ()) -> Sequence[Path]:
        """Write artifacts of the build that is :meth:`source` below a directory, and give back where they are: all, or those that ``names`` ask for.

        Raises as :meth:`~distci.published.Published.download` does.
        """
        return self.patiently(lambda: self._assignment.download(build, directory, names, self.checkpoint))

    def patiently(self, call: Callable[[], T]) -> T:
        """What a call that may be repeated returns. While store or tree are away it waits, until the work shall end.

        Waiting for them takes nothing from the task's time.
        """
        return self._persist(call, self.stop)

    def checkpoint(self) -> None:
        """To be passed now and then by whatever takes long and is no command. It tells that the work gets on.

        Raises :class:`Halted` when the work shall end: the build was cancelled, the claim lost, or the task's time is up.
        """
        self.get_on()
        if self.stop.is_set():
            raise Halted(self._stopped())
        if self._deadline is not None and monotonic() >= self._deadline:
            raise Halted(self._timed_out())

    # For the loop

    def listen(self) -> None:
        """Heed from now on what of the task's output its reports are about. Invalid for what no report can be read by."""
        if reports := self.task.arguments.get("reports"):
            self._reading = Reading(reports, Masker(self._hidden))

    def save(self) -> None:
        """Keep the workspace for the tasks that need this one, if any does."""
        if not is_carried_on(self.plan, self.task):
            return
        self._hand_in()
        root = self.root
        for path in self.patiently(lambda: self._assignment.save(root, self.checkpoint)):
            self.say(f"distci: {path} is neither file, directory nor link, and is not carried on")

    def masked(self, outcome: Outcome) -> Outcome:
        """The outcome, without the secrets that its reason may repeat."""
        reason = self._without_secrets(outcome.reason.encode(errors="surrogateescape"))
        return replace(outcome, reason=reason.decode(errors="surrogateescape"))

    def _without_secrets(self, data: bytes) -> bytes:
        masker = Masker(self._hidden)
        return masker.feed(data) + masker.flush()

    def close_log(self) -> int:
        """Flush the log; its size in bytes."""
        self._print(self._masker.flush())
        return self.insistently(lambda: self._log.close(LOG_END_S))

    def insistently(self, call: Callable[[], T]) -> T:
        """Like :meth:`patiently`, but until the claim is lost: for what ends an attempt, be it a stopped one."""
        return self._persist(call, self._assignment.lost)

    def abandon(self) -> None:
        """Stop what still works for this attempt, and forget its secrets: it has ended, one way or another."""
        self._log.abandon()
        if self._memory is not None:
            tidy_up(self._memory)

    def watch(self, done: Event) -> None:
        """Set :attr:`stop` when the build is cancelled or the claim lost; returns when ``done`` is set.

        With the claim, the log is given up too: else whoever writes to it would wait for a store that is away.
        """
        assignment = self._assignment
        while not done.is_set():
            if assignment.lost.is_set():
                self._end_by(Verdict.CANCELLED)
                self._log.abandon()
                return
            try:
                stop = assignment.attend(monotonic() < self._silent_until)
            except (Unavailable, InvalidDocument):
                done.wait(LOST_POLL_S)
                continue
            except ClaimLost:
                continue
            if stop is not None and self.stopped_by is None:
                self._end_by(stop)
            assignment.changed.wait(LOST_POLL_S)

    def _hand_in(self) -> None:
        """What a task left is kept also when its time is up, whoever has said so, or says so meanwhile."""
        self._deadline = None
        with self._ending:
            self._is_saving = True
            if self.stopped_by is Verdict.TIMED_OUT:
                self.stop.clear()

    def _end_by(self, verdict: Verdict) -> None:
        with self._ending:
            if verdict is Verdict.TIMED_OUT and self._is_saving:
                return
            self.stopped_by = verdict
            self.stop.set()

    def get_on(self, silence_s: float = 0.0) -> None:
        """The work gets on. After so many seconds, and then some, without another word it no longer does."""
        self._silent_until = monotonic() + silence_s + self._assignment.silence_s

    def _persist(self, call: Callable[[], T], give_up: Event) -> T:
        began = monotonic()

        def attempt() -> T:
            nonlocal began
            self.get_on()
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
        if self.stopped_by is Verdict.TIMED_OUT:
            return self._timed_out()
        return Outcome(self.stopped_by or Verdict.CANCELLED, "stopped")

    def _timed_out(self) -> Outcome:
        return Outcome(Verdict.TIMED_OUT, f"not done after {self.task.timeout_s:g} s")

    @cached_property
    def _secret_variables(self) -> dict[str, str]:
        files = {name: str(self.secret_file(f"secret-{name}", self.secret(name))) for name in self.task.secret_files}
        return {name: self.secret(name) for name in self.task.secrets} | files

    @cached_property
    def _secrets(self) -> Mapping[str, str]:
        """All that the task names, as far as this machine or the system has them; asked for when the first is wanted."""
        check_trusted(self.task, self.plan.trigger.is_untrusted)
        own = self._own_secrets
        if own.keys() >= {*self.task.named_secrets}:
            return own
        told = self.patiently(self._assignment.secrets)
        for name, value in told.items():
            check_value(name, value)
        self.hide(*told.values())
        return told | own

    def _find_own_secrets(self) -> Iterator[tuple[str, str]]:
        """This machine's own secrets that the task names, as its job has them."""
        by_project = self._site.secrets
        for name in self.task.named_secrets:
            value = nearest(self.build.job, name, [lambda project, name: by_project.get(project, {}).get(name)])
            if value is not None:
                yield name, value


class Patience:
    """Stops what says nothing for too long, or shall end for another reason. A context manager; without either it only hands on."""

    def __init__(
        self,
        stop: Event,
        silence_s: float | None,
        output: Callable[[bytes], None],
        until: Event | None = None,
    ) -> None:
        self._until = until or Event()
        self._is_watching = silence_s is not None or until is not None
        self.stop = Event() if self._is_watching else stop
        """To be set, too, by who wants the end for another reason."""
        self._outer = stop
        self._silence_s = inf if silence_s is None else silence_s
        self._output = output
        self._heard = monotonic()
        self._done = Event()
        self._watcher = Thread(target=self._watch, daemon=True)

    def hear(self, data: bytes) -> None:
        self._heard = monotonic()
        self._output(data)

    def __enter__(self) -> Self:
        if self._is_watching:
            self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._is_watching:
            self._watcher.join()

    def _watch(self) -> None:
        while not self._done.wait(STOP_POLL_S):
            if self._outer.is_set() or self._until.is_set() or monotonic() - self._heard > self._silence_s:
                self.stop.set()
                return


@contextmanager
def _hear_nothing() -> Iterator[Callable[[bytes], None]]:
    yield lambda data: None


def _bytes(what: str, text: str) -> bytes:
    """What a text is to files and processes; Invalid naming ``what`` it is when that is not Unicode."""
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError as error:
        raise Invalid(f"{what} is not valid Unicode") from error


def _write(path: Path, data: bytes, mode: int) -> Path:
    """The path, of a new file with these bytes."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
        file.write(data)
    return path


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
