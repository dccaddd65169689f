"""The nouns of DistCI, frozen, and the states that may follow each other. No I/O, no clock.

JSON forms of these are made and checked by :mod:`distci.documents`; what a job document may say is
described in ``docs/jobs.rst`` and enforced by the schemas in :mod:`distci.schemas`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from distci.errors import Invalid

JOB_ID_LENGTH_MAX = 128
JOB_ID_SEGMENTS_MAX = 4
TASK_NAME_LENGTH_MAX = 128
"""Of a full name, with the values of a matrix and the task that has defined it."""
_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

ISOLATION_LABEL = "isolation"
"""The label that says how a worker can isolate what tasks run."""

BUILD_IN_TEXT = re.compile(
    rf"(?<![A-Za-z0-9._/-])({_SEGMENT.pattern}(?:/{_SEGMENT.pattern}){{0,{JOB_ID_SEGMENTS_MAX - 1}}})#[1-9][0-9]{{0,8}}(?![0-9])"
)
"""A build that a text names, and its job."""

Json = Any
"""A value that :mod:`json` reads and writes."""


def check_job_id(job: str) -> str:
    """The id itself when it is well formed; :class:`~distci.errors.Invalid` with what is wrong otherwise."""
    if not isinstance(job, str):
        raise Invalid(f"{job!r} is not a job; write its id, for example team/hello")
    return _check_id("job id", job)


def check_project(project: str) -> str:
    """The project itself when it is well formed, be it that of the whole system; :class:`~distci.errors.Invalid` otherwise."""
    return _check_id("project", project) if project else project


def _check_id(what: str, text: str) -> str:
    segments = text.split("/")
    if len(text) > JOB_ID_LENGTH_MAX:
        raise Invalid(f"{what} is {len(text)} characters long; at most {JOB_ID_LENGTH_MAX} are allowed")
    if len(segments) > JOB_ID_SEGMENTS_MAX:
        raise Invalid(f"{what} {text!r} has {len(segments)} segments; at most {JOB_ID_SEGMENTS_MAX} are allowed")
    for segment in segments:
        if not _SEGMENT.fullmatch(segment):
            raise Invalid(
                f"{what} {text!r}: segment {segment!r} must be a letter or digit, then letters, digits, '.', '_', '-'"
            )
    return text


@dataclass(frozen=True, slots=True, order=True)
class BuildId:
    """One numbered build of a job, written ``team/hello#12``."""

    job: str
    number: int

    def __str__(self) -> str:
        return f"{self.job}#{self.number}"

    @classmethod
    def parse(cls, text: str) -> BuildId:
        """Read ``job#number``; :class:`~distci.errors.Invalid` when it is something else."""
        job, mark, number = text.rpartition("#") if isinstance(text, str) else ("", "", "")
        if not mark or not re.fullmatch(r"[1-9][0-9]{0,8}", number):
            raise Invalid(f"{text!r} is not a build; write JOB#NUMBER, for example team/hello#12")
        return cls(check_job_id(job), int(number))


class Verdict(StrEnum):
    """How one attempt at a task ended."""

    PASSED = "passed"
    FAILED = "failed"
    TIMED_OUT = "timed-out"
    CANCELLED = "cancelled"


class TaskState(StrEnum):
    """Where a task of a build stands."""

    WAITING = "waiting"
    """Its needs are not met yet."""
    BLOCKED = "blocked"
    """Never stored: READY with a ticket that waits for a permit, a time or somebody, as readers show it."""
    READY = "ready"
    """Its ticket is posted; whether a worker has claimed it is for the ticket to tell."""
    RUNNING = "running"
    """Never stored: READY with a claimed ticket, as readers show it."""
    PASSED = "passed"
    FAILED = "failed"
    TIMED_OUT = "timed-out"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    REUSED = "reused"
    LOST = "lost"
    """Its workers were lost as often as its attempts allow."""

    @property
    def is_final(self) -> bool:
        return self not in _UNFINISHED

    @property
    def is_bad(self) -> bool:
        """Whether the task went wrong, ``allow_failure`` aside."""
        return self in (TaskState.FAILED, TaskState.TIMED_OUT, TaskState.LOST)

    @property
    def is_good(self) -> bool:
        return self in (TaskState.PASSED, TaskState.REUSED)


_UNFINISHED = frozenset({TaskState.WAITING, TaskState.BLOCKED, TaskState.READY, TaskState.RUNNING})


class Result(StrEnum):
    """How a build ended."""

    PASSED = "passed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class When(StrEnum):
    """After which outcomes of its needs a task runs."""

    SUCCESS = "success"
    FAILURE = "failure"
    ALWAYS = "always"


APPROVAL = "approval"
"""The type of a task that waits until somebody has decided."""

CALL = "build"
"""The type of a task that starts a build of another job and waits for its end."""

DEFINITION = "definition"
"""The type of a task that takes more tasks from a file of a repository."""

PASSING = frozenset({APPROVAL, CALL})
"""Types of task that no worker performs: they hold no slot while they wait, and pass the files of their needs on."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a command and all that descended from it used; or all commands of an attempt, one after the other."""

    cpu_s: float
    memory_peak_bytes: int
    """Of all together where their memory was limited, else of the largest process."""
    read_bytes: int
    """From disks; what was cached does not count."""
    written_bytes: int

    def and_then(self, after: Usage) -> Usage:
        """With what another command used afterwards."""
        return Usage(
            self.cpu_s + after.cpu_s,
            max(self.memory_peak_bytes, after.memory_peak_bytes),
            self.read_bytes + after.read_bytes,
            self.written_bytes + after.written_bytes,
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended. A failed build is an Outcome; a broken DistCI is an exception."""

    verdict: Verdict
    reason: str = ""
    """For people; empty when there is nothing to add to the verdict."""
    exit_status: int | None = None
    signal: int | None = None
    details: Mapping[str, Json] = field(default_factory=dict)
    """What the kind of task wants on record: the commit it checked out, the artifacts it published."""
    usage: Usage | None = None
    """What its commands used; None where there were none, or nobody has counted."""

    @classmethod
    def passed(cls, reason: str = "", **details: Json) -> Outcome:
        return cls(Verdict.PASSED, reason, details=details)

    @classmethod
    def failed(cls, reason: str, **details: Json) -> Outcome:
        return cls(Verdict.FAILED, reason, details=details)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a forge or another source told that started a build, as far as the build has to know it."""

    id: str
    """The sender's own name for this telling; the same however often it is sent."""
    receiver: str
    """Who read it: ``github``, ``gitlab`` ..."""
    event: str
    """``push``, ``tag`` or ``pull_request``."""
    repository: str
    """Full name on the forge: ``org/hello``."""
    addresses: Sequence[str] = ()
    """Where that repository is fetched from, in the form of :func:`distci.repositories.address`."""
    branch: str = ""
    """The branch that has moved, or that a pull request is to be merged into."""
    pull_request: int = 0
    """Its number; 0 for none."""
    wants_status: bool = False
    """Whether the forge is to be told how the build stands."""
    changes: str = ""
    """By what the store knows which files have changed (:func:`distci.store.keys.changes`); empty where nobody was told of all."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """The cause of a build."""

    kind: str = "manual"
    """``manual``, ``job`` (an upstream build), ``build`` (a task of one), ``retry``, or a receiver's name, such as ``github``; later ``cron`` ..."""
    actor: str = ""
    """Who or what asked, for the record."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """What the event or the person gave: wins over everything."""
    presets: Mapping[str, str] = field(default_factory=dict)
    """What the job's own trigger says: wins over the job's defaults, gives way to a matrix."""
    commit: str = ""
    """The commit to check out, when the cause names one."""
    ref: str = ""
    """The ref that ``commit`` was seen on, for the record and the script's environment."""
    upstream: BuildId | None = None
    """The build whose end caused this one, or that had it started by a task."""
    caller: str = ""
    """The id of the ticket of that task; empty where it was the end."""
    retry_of: BuildId | None = None
    """The build that this one runs again."""
    only: Sequence[str] = ()
    """For a retry: the tasks to run; the others take over their state and workspace. Empty: all."""
    is_untrusted: bool = False
    """Whether somebody without a right to the repository wrote what is built, as in a pull request from a fork: no task gets a secret."""
    delivery: Delivery | None = None
    """What a receiver was told that caused this; None for other causes."""


class ParameterType(StrEnum):
    """What the values of a parameter must be. They are texts all the same: scripts see them as variables."""

    TEXT = "text"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    """``true`` or ``false``."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One declared parameter of a job."""

    default: str = ""
    choices: Sequence[str] = ()
    required: bool = False
    description: str = ""
    type: ParameterType = ParameterType.TEXT
    minimum: int | None = None
    maximum: int | None = None


@dataclass(frozen=True, slots=True)
class Permit:
    """A slot of a named semaphore that something needs while it lasts: a ticket while it is claimed, a build while it runs."""

    name: str
    limit: int = 1
    """How many may have one at once."""


class Policy(StrEnum):
    """What becomes of a build whose concurrency group is full."""

    QUEUE = "queue"
    """It waits for its turn."""
    CANCEL_OLD = "cancel-old"
    """It waits, and all older builds of the group are cancelled."""
    KEEP_LATEST = "keep-latest"
    """It waits, and older builds that wait too are cancelled."""
    REJECT = "reject"
    """It ends at once, as cancelled."""


@dataclass(frozen=True, slots=True)
class Concurrency:
    """How many builds of a group run at once. The group may span jobs."""

    group: str
    limit: int = 1
    policy: Policy = Policy.QUEUE


@dataclass(frozen=True, slots=True)
class Retrying:
    """When a further round of a task that failed begins, and after which failures."""

    pause_s: float = 0
    """Before the second round."""
    factor: float = 2
    """How many times as long as the one before each further pause is."""
    exit_statuses: Sequence[int] = ()
    """Only after these; empty: after any failure."""


@dataclass(frozen=True, slots=True)
class Filter:
    """The ``if`` of a task: what its build must be made for. Globs, one of which must match; empty: all do."""

    events: Sequence[str] = ()
    branches: Sequence[str] = ()
    paths: Sequence[str] = ()
    """Of the files that have changed."""
    parameters: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The values that each of these may have."""


@dataclass(frozen=True, slots=True)
class TaskDefinition:
    """One entry of a job, before parameters and matrix are filled in."""

    name: str
    type: str
    needs: Sequence[str] | None = None
    """None: the task before it; for ``when`` failure or always: all tasks before it. In a job with stages: those of the stage before, or of all before."""
    stage: str = ""
    when: When = When.SUCCESS
    on_cancel: bool = False
    filter: Filter = Filter()
    matrix: Mapping[str, Sequence[str]] = field(default_factory=dict)
    include: Sequence[Mapping[str, str]] = ()
    exclude: Sequence[Mapping[str, str]] = ()
    labels: Sequence[str] = ()
    isolation: Mapping[str, Json] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Sequence[str] = ()
    secret_files: Sequence[str] = ()
    timeout_s: float | None = None
    attempts: int = 3
    retries: int = 0
    retrying: Retrying = Retrying()
    allow_failure: bool = False
    priority: int = 5
    """0 (first) to 9 (last)."""
    resources: Sequence[Permit] = ()
    arguments: Mapping[str, Json] = field(default_factory=dict)
    """The keys that belong to the task's own type, such as ``script``."""


@dataclass(frozen=True, slots=True)
class JobTrigger:
    """Start a build when a build of another job has ended."""

    job: str
    on: str = "passed"
    """``passed``, ``failed`` or ``always``. A cancelled build triggers under ``always`` alone."""
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HookTrigger:
    """Start a build when a receiver is told of a change. Filters are globs, one of which must match; empty: all do."""

    receiver: str
    repository: str
    """Its full name on the forge, or a URL that it is fetched from."""
    events: Sequence[str] = ("push",)
    branches: Sequence[str] = ()
    """Of the branch that has moved, or that a pull request is to be merged into."""
    tags: Sequence[str] = ()
    paths: Sequence[str] = ()
    """Of the files that have changed, where the delivery tells them."""
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Job:
    """A named definition, as one version of its document says."""

    id: str
    tasks: Sequence[TaskDefinition]
    description: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    triggers: Sequence[JobTrigger] = ()
    """Triggers by other jobs."""
    hooks: Sequence[HookTrigger] = ()
    """Triggers by what receivers are told. Other types of trigger stay in the document for the parts that serve them."""
    concurrency: Concurrency | None = None
    tags: Sequence[str] = ()
    """Words to find it by, with others of their kind."""
    stages: Sequence[str] = ()
    """In their order; empty where tasks follow on each other by themselves."""


def isolation_label(type: str) -> str:
    """What workers offer that can isolate in this way, and tasks ask for that want it."""
    return f"{ISOLATION_LABEL}={type}"


def is_isolation_label(label: str) -> bool:
    """Whether a label says how a worker can isolate what tasks run: found out, and for nobody to say."""
    return label.partition("=")[0] == ISOLATION_LABEL


@dataclass(frozen=True, slots=True)
class Task:
    """One task of a plan, every parameter and matrix value filled in."""

    name: str
    type: str
    needs: Sequence[str] = ()
    when: When = When.SUCCESS
    on_cancel: bool = False
    labels: Sequence[str] = ()
    isolation: Mapping[str, Json] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    """Declared variables, parameters and matrix values, merged by precedence."""
    secrets: Sequence[str] = ()
    """Names of those that it sees as variables."""
    secret_files: Sequence[str] = ()
    """Names of those that it gets as files, with variables that say where."""
    timeout_s: float | None = None
    attempts: int = 3
    retries: int = 0
    retrying: Retrying = Retrying()
    allow_failure: bool = False
    priority: int = 5
    resources: Sequence[Permit] = ()
    """What it must hold while it runs."""
    unfit: str = ""
    """Why its ``if`` leaves it out of this build; empty when it does not."""
    emitter: str = ""
    """The task that has defined it; empty when the job has."""
    arguments: Mapping[str, Json] = field(default_factory=dict)

    @property
    def may_define(self) -> bool:
        """Whether it defines more tasks for its build when it passes, as its job has it."""
        return self.type == DEFINITION or "emits" in self.arguments

    @property
    def named_secrets(self) -> Sequence[str]:
        """All that it has to do with: its script's, and those that it, or its worker for it, identifies itself with elsewhere, be it by host."""
        found: list[Json] = []
        for credentials in (self.arguments.get("credentials"), self.isolation.get("credentials")):
            found += credentials.values() if isinstance(credentials, dict) else [credentials]
        return (*self.secrets, *self.secret_files, *(name for name in found if name and isinstance(name, str)))


@dataclass(frozen=True, slots=True)
class Hold:
    """A task has failed, and its worker keeps all that it had, for somebody who wants to look."""

    until_ms: int
    """In milliseconds since 1970, by its worker's clock."""
    reason: str
    """How it has failed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A job expanded for one build: every task spelled out, in the job's order (needs come first)."""

    build: BuildId
    config: int
    """Version of the job's document that this was made from."""
    trigger: Trigger
    parameters: Mapping[str, str]
    tasks: Sequence[Task]
    concurrency: Concurrency | None = None

    def task(self, name: str) -> Task:
        """The task of that name; KeyError when there is none."""
        for task in self.tasks:
            if task.name == name:
                return task
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class Progress:
    """Where one task of a running build stands."""

    state: TaskState = TaskState.WAITING
    round: int = 1
    """Raised by each retry after a failure; with the task's name it makes the ticket's id."""
    token: str = ""
    """The attempt whose outcome counts: ``<ticket>.<attempt>``; empty before there is one."""
    origin: str = ""
    """The build that a taken-over task ran in (a retry of only what failed), as ``job#number``; usually empty."""


@dataclass(frozen=True, slots=True)
class BuildState:
    """Where all tasks of a running build stand, and whether it shall end early."""

    tasks: Mapping[str, Progress]
    is_cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Advance:
    """What follows from one event: the new state, the tasks to post now, the result once all is final."""

    state: BuildState
    ready: Sequence[str] = ()
    result: Result | None = None
