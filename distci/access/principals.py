"""Who asks: a person, an access token, a worker, or nobody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from distci.access.rights import EVERYBODY, GROUP, Action, Role, check_name
from distci.model import is_isolation_label
from distci.projects import SYSTEM, is_within


@dataclass(frozen=True, slots=True)
class Nobody:
    """Whoever does not say who they are."""

    @property
    def name(self) -> str:
        return "nobody"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who has logged in. Raises Invalid when made with what cannot be a name."""

    name: str
    """The address that the provider vouches for, in lower case; or what else it knows them by."""
    groups: frozenset[str] = frozenset()
    """As the provider told them at the login."""
    roles: Mapping[str, Role] = field(default_factory=dict)
    """By project: what this login brings with it, besides all grants."""

    def __post_init__(self) -> None:
        check_name(self.name)

    def is_meant(self, subject: str) -> bool:
        """Whether a grant to that subject is one to this person."""
        if subject.startswith(GROUP):
            return subject.removeprefix(GROUP) in self.groups
        if subject.startswith("*@"):
            return self.name.endswith(subject[1:])
        return subject in (EVERYBODY, self.name)


@dataclass(frozen=True, slots=True)
class Commenter(Person):
    """Somebody of whom a forge says that they wrote something there. They have not logged in here: what ``everybody`` may who has, they may not."""

    def is_meant(self, subject: str) -> bool:
        return subject == self.name


@dataclass(frozen=True, slots=True)
class Token:
    """A program that has shown an access token."""

    id: str
    label: str
    """What its maker called it."""
    scopes: frozenset[Action]
    project: str = SYSTEM
    """Outside of that it is good for nothing."""
    person: Person | None = None
    """Whom it acts for: it may do nothing that they may not. None: it stands for itself."""

    @property
    def name(self) -> str:
        owner = f"{self.person.name} by " if self.person else ""
        return f"{owner}token {self.id} ({self.label})"


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker that has shown its token."""

    id: str
    label: str
    kinds: frozenset[str]
    labels: Sequence[str] = ()
    """What it may offer at most: words and ``key=value``, or ``key=glob``."""
    project: str = SYSTEM

    @property
    def name(self) -> str:
        return f"worker {self.id} ({self.label})"

    def may_offer(self, kinds: Sequence[str], labels: Sequence[str]) -> bool:
        """Whether it may serve all of these kinds, with all of these labels."""
        return self.kinds.issuperset(kinds) and all(self._may_say(label) for label in labels)

    def may_claim(self, kind: str, project: str) -> bool:
        """Whether a ticket of that kind and of a job of that project may be given to it."""
        return kind in self.kinds and is_within(project, self.project)

    def _may_say(self, label: str) -> bool:
        # How it isolates is found out, not given: nobody asks for one worker rather than another by that alone.
        return is_isolation_label(label) or any(fnmatchcase(label, allowed) for allowed in self.labels)


Principal = Nobody | Person | Token | Worker

NOBODY = Nobody()
