"""What a worker process, and an attempt at a task, ask of whoever gives the work.

Where a call raises :class:`~distci.errors.Unavailable` it may be repeated, and what it does happens once. After
:class:`~distci.errors.ClaimLost` nothing more is to be done for that claim.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from distci.artifacts import Publication
from distci.errors import DistCIError
from distci.holds import Drawer
from distci.model import BuildId, Hold, Outcome, Plan, Task, Verdict
from distci.protocol.records import Offer, Ticket
from distci.quarantine import Quarantined
from distci.store.attended import Checkpoint


class Held(Protocol):
    """A ticket that this process holds; a context manager: left unfinished, the ticket goes to another one."""

    lost: Event
    """Set once it is known that somebody else has it."""

    @property
    def ticket(self) -> Ticket: ...

    @property
    def token(self) -> str: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


C = TypeVar("C", bound=Held)
Given = TypeVar("Given", bound=Held, covariant=True)


class Assignment(Protocol[Given]):
    """A task that one claim has to see to: what it works with, and where all that comes of it goes.

    One thread uses it at a time, but for :meth:`write_log` and :meth:`attend`, which have threads of their own. What moves bytes passes the
    ``checkpoint`` often, and ends with what that raises.
    """

    build: BuildId
    plan: Plan
    task: Task
    token: str
    lost: Event
    changed: Event
    """Set when it is worth the while to :meth:`attend` sooner."""
    is_called_off: bool
    """Whether its build was cancelled before this began."""
    log_bytes_max: int
    """How much of a log is kept, but for a last line that says so."""
    silence_s: float
    """For how long work that says nothing is taken to get on."""
    heading: str
    """The line that its log begins with; empty for none."""
    elsewhere: str
    """The options by which commands that its log names find the system, each with a space before it; empty where none are known."""
    progress: int | None
    """How far the work says that it is, in percents: set by who does it, told when it is attended to."""
    hold: Hold | None
    """How it has failed, while it is held: set and told in the same way."""
    drawer: Drawer | None
    """What goes to and from the terminal of somebody who comes while it is held; None where nobody could."""

    def variables(self) -> dict[str, str]:
        """What DistCI itself tells the script."""

    def secrets(self) -> dict[str, str]:
        """The values of the secrets that the task names, as far as the system has them, and no others.

        Invalid for one that cannot be opened, and where the build is not to be trusted with them.
        """

    def write_log(self, offset: int, data: bytes) -> None:
        """Put a piece of the log where it belongs. Repeated with the same bytes alone."""

    def restore(self, directory: Path, checkpoint: Checkpoint) -> None:
        """Fill a directory that is not there yet with what the task's needs have left. Invalid when they do not fit together."""

    def save(self, directory: Path, checkpoint: Checkpoint) -> Sequence[str]:
        """Keep what was restored there, as it is now, for the tasks that need this one; the paths that cannot be carried on.

        Invalid for what cannot be read or kept, naming its path.
        """

    def publish(self, root: Path, patterns: Sequence[str], checkpoint: Checkpoint) -> Publication:
        """Keep files as artifacts of the build, as :meth:`~distci.artifacts.Artifacts.publish` does."""

    def put_report(self, data: bytes) -> None:
        """Keep what the attempt's reports tell (:func:`distci.stored_reports.write`). It counts once the attempt does."""

    def quarantine(self) -> Sequence[Quarantined]:
        """The tests of the job whose failures count for nothing now."""

    def pin(self, name: str, find: Callable[[], str]) -> str:
        """What the whole build goes by for ``name``: as the first who asked found it."""

    def source(self) -> BuildId:
        """The build that the task's ``job`` and ``build`` mean (:func:`distci.attempts.source`). Missing when there is none."""

    def download(self, build: BuildId, directory: Path, names: Sequence[str], checkpoint: Checkpoint) -> Sequence[Path]:
        """Write artifacts of that build below a directory, as :meth:`~distci.published.Published.download` does."""

    def attend(self, is_well: bool) -> Verdict | None:
        """Tell that the work gets on, if it does, and learn how it shall end now; None: it goes on. About twice a second.

        Before it raises ClaimLost, ``lost`` is set.
        """

    def settle(self, outcome: Outcome, log_bytes: int) -> Given | None:
        """Put the outcome on record, which ends the claim; a claim of what this process goes on with at once, if there is such."""

    def wait_for_room(self) -> None:
        """See to it that the task is not lost because machines have no room for it, which is no fault of the task: it waits, or goes to others."""

    def close(self) -> None:
        """Wait for nothing any more: nobody works on it."""


class Member(Protocol[Given]):
    """One worker as it stands among all others; as :class:`distci.protocol.members.Member`."""

    name: str
    offer: Offer
    slots: int

    @property
    def refused(self) -> DistCIError | None:
        """Why it drained itself."""

    @property
    def is_draining(self) -> bool: ...

    def join(self) -> object: ...

    def leave(self) -> None: ...

    def drain(self) -> None:
        """Take no more. From any thread or signal handler."""

    def claims(self) -> Iterator[Given]:
        """Claims as they come and slots are free, until it is drained."""

    def rest(self) -> None:
        """Take nothing for a while: something is wrong with this machine."""

    def recover(self) -> None:
        """A claim was served to its end."""


@dataclass(frozen=True, slots=True)
class Chore:
    """What a worker process sees to besides its claims."""

    name: str
    step: Callable[[], object]
    """Raises Unavailable where it cannot be done yet."""
    pause_s: float
    may_be_left: bool = False
    """Whether it may be broken off at any point when the process ends."""


class Broker(Protocol[C]):
    """Gives work to the workers of one process."""

    has_tree: bool
    """Whether kinds whose tickets are no tasks can be served."""

    @property
    def is_connected(self) -> bool:
        """Whether its workers are beyond doubt known to be well."""

    def member(self, offer: Offer, name: str, slots: int) -> Member[C]: ...

    def take(self, claim: C) -> Assignment[C]:
        """What a claim of a task has to do. It waits while that cannot be read, until the claim is lost."""

    def serve_ticket(self, worker: Any, claim: C) -> C | None:
        """Have a worker serve a ticket that is no task."""

    def chores(self, members: Sequence[Member[C]]) -> Sequence[Chore]: ...
