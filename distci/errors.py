"""What can go wrong, sorted by what the reader must do about it.

::

    DistCIError
    ├── Invalid        fix the request, never retry    InvalidJob, InvalidSettings, InvalidPath,
    │                                                  InvalidDocument, WrongFormat, IllegalTransition
    ├── Denied         ask for the right               NotAuthenticated, Forbidden
    ├── Missing        nothing there                   NoSuchJob, NoSuchBuild, NoSuchTask, NoSuchArtifact,
    │                                                  NoSuchTicket, NoSuchWorker, NoSuchToken, NoSuchObject,
    │                                                  NoSuchReceiver, NoSuchChange, NoSuchSecret, NoSuchTest
    ├── Conflict       someone was first; read again   AlreadyExists, VersionConflict
    ├── ClaimLost      stop now, write nothing more    (session gone, or token superseded)
    ├── Unavailable    wait, then try again            CoordinationUnavailable, StoreUnavailable
    └── Damaged        stored bytes are not what was written; what was derived from them is void

A failed build is none of these: it is an :class:`distci.model.Outcome`. Each class carries the exit
code that the command line ends with; a front end maps the same classes to HTTP codes. The error of a
library never passes its adapter: it is mapped to one of these with the cause chained.
"""

from __future__ import annotations

from collections.abc import Iterable


class DistCIError(Exception):
    """Root of all that DistCI raises on purpose."""

    exit_code = 1


class Invalid(DistCIError):
    """The request itself is wrong; repeating it will not help."""

    exit_code = 2


class WithProblems(Invalid):
    """An :class:`Invalid` that names every problem at once, not only the first."""

    def __init__(self, subject: str, problems: Iterable[str]) -> None:
        self.subject = subject
        self.problems = tuple(problems)
        super().__init__("\n".join((subject, *(f"  - {problem}" for problem in self.problems))))


class InvalidJob(WithProblems):
    """A job definition that cannot be run; each problem names its place in the document."""


class InvalidSettings(WithProblems):
    """Settings that cannot be used; each problem names the file, variable or flag."""


class InvalidPath(Invalid):
    """A path that would leave the directory it must stay in."""


class InvalidDocument(Invalid):
    """A stored or received document that cannot be read: not JSON, off its schema, or of an unknown format."""


class WrongFormat(InvalidDocument):
    """The coordination tree is of a format that this version of DistCI does not speak."""


class IllegalTransition(Invalid):
    """A state that cannot follow the present one, such as retrying a build that still runs."""


class Denied(DistCIError):
    """Well-formed, but not allowed."""

    exit_code = 6


class NotAuthenticated(Denied):
    """Nobody is known to have asked."""


class Forbidden(Denied):
    """Somebody asked who may not."""


class Missing(DistCIError):
    """There is nothing of that name. Never raised because something could not be reached."""

    exit_code = 5


class NoSuchJob(Missing):
    """No job of that id."""


class NoSuchBuild(Missing):
    """No build of that number."""


class NoSuchTask(Missing):
    """The build has no task of that name."""


class NoSuchArtifact(Missing):
    """The build published no artifact of that name."""


class NoSuchTicket(Missing):
    """No ticket of that id is waiting, running, parked or set aside."""


class NoSuchWorker(Missing):
    """No live worker of that name."""


class NoSuchToken(Missing):
    """No access token of that id."""


class NoSuchReceiver(Missing):
    """No receiver of that name is installed."""


class NoSuchChange(Missing):
    """No change of that id waits for an approval."""


class NoSuchSecret(Missing):
    """No secret of that name is set for that project."""


class NoSuchTest(Missing):
    """No test of that name is in quarantine."""


class NoSuchObject(Missing):
    """The store holds nothing under that key."""


class Conflict(DistCIError):
    """Someone was first: read again, then decide again."""

    exit_code = 7


class AlreadyExists(Conflict):
    """What was to be created is there already."""


class VersionConflict(Conflict):
    """What was to be changed has been changed since it was read."""


class ClaimLost(DistCIError):
    """The claim is no longer held: stop the work and write nothing more."""

    exit_code = 7


class Unavailable(DistCIError):
    """Something that DistCI needs cannot be reached; nothing is known about what it holds."""

    exit_code = 4


class CoordinationUnavailable(Unavailable):
    """The coordination tree did not answer in time."""


class StoreUnavailable(Unavailable):
    """The object store did not answer in time."""


class Damaged(DistCIError):
    """Bytes came back other than they were written; the message names the object."""

    exit_code = 1
