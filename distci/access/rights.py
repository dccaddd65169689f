"""What can be allowed: actions, roles in projects, and who sees a project at all.

A project is a prefix of job ids, ``team`` or ``team/web``; ``""`` is the whole system, and everything lies within it. Roles go down:
who has one in ``team`` has it in ``team/web``, and a smaller one there takes nothing away. Of visibilities the nearest counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from distci.errors import Invalid
from distci.model import check_project
from distci.projects import SYSTEM, lineage

EVERYBODY = "everybody"
"""The subject that is every person who has logged in."""

GROUP = "group:"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._%+@:/|=~-]{0,199}")
_SUBJECT = re.compile(
    rf"(?:(?!group:){_NAME.pattern})|(?:\*@[A-Za-z0-9.-]{{1,200}})|(?:group:[^\x00-\x1f\x7f]{{1,200}})"
)


class Action(StrEnum):
    """What somebody wants to do. These few cover all there is to do; each is a right of its own."""

    READ = "read"
    """Look: at jobs, builds, logs, artifacts; of the whole system at workers, queue and events."""
    TRIGGER = "trigger"
    """Start, cancel and repeat builds, and approve what waits for it."""
    REPORT = "report"
    """Send test results of tasks that are over, as other systems do."""
    QUARANTINE = "quarantine"
    """Say which tests' failures count for nothing for a while."""
    SHELL = "shell"
    """Open terminals in failed tasks that are held, which know the tasks' secrets, and end the hold."""
    WRITE = "write"
    """Change jobs, and put files to their builds."""
    ADMIN = "admin"
    """Say who may do what in a project, and give out its tokens; in the whole system also: pause, drain, requeue, weigh, limit, read the audit."""
    WORK = "work"
    """Claim tickets, and write what their attempts print, keep and end with. Of workers alone, whatever else somebody may do."""


class Role(StrEnum):
    """What a person may do in a project, each more than the one before."""

    VIEWER = "viewer"
    RUNNER = "runner"
    EDITOR = "editor"
    OWNER = "owner"

    @property
    def actions(self) -> frozenset[Action]:
        return _ACTIONS[self]


_EDITORS = frozenset({Action.READ, Action.TRIGGER, Action.REPORT, Action.QUARANTINE, Action.SHELL, Action.WRITE})

_ACTIONS = {
    Role.VIEWER: frozenset({Action.READ}),
    Role.RUNNER: frozenset({Action.READ, Action.TRIGGER}),
    Role.EDITOR: _EDITORS,
    Role.OWNER: _EDITORS | {Action.ADMIN},
}


class Visibility(StrEnum):
    """Who sees a project without having a role in it."""

    PRIVATE = "private"
    """Nobody: to others it is not there. So is everything of which nothing else is said."""
    INTERNAL = "internal"
    """Every person who has logged in."""
    PUBLIC = "public"
    """Everybody who asks."""


@dataclass(frozen=True, slots=True)
class Grant:
    """One role of one subject in one project."""

    subject: str
    """A person's name; ``*@example.org`` for all of whom the provider says that they have such an address; ``group:NAME``; ``everybody``."""
    role: Role
    project: str = SYSTEM


@dataclass(frozen=True, slots=True)
class Grants:
    """All roles and visibilities that are in force."""

    roles: Mapping[str, Mapping[str, Role]] = field(default_factory=dict)
    """By project, then by subject."""
    visibilities: Mapping[str, Visibility] = field(default_factory=dict)

    def with_role(self, grant: Grant) -> Grants:
        """The same with that role, in place of any other that the subject had just there."""
        return self._with(grant.project, {**self.roles.get(grant.project, {}), grant.subject: grant.role})

    def with_more(self, grant: Grant) -> Grants:
        """The same with that role, unless the subject has a greater one just there."""
        has = self.roles.get(grant.project, {}).get(grant.subject)
        return self if has is not None and has.actions >= grant.role.actions else self.with_role(grant)

    def without_role(self, subject: str, project: str) -> Grants:
        return self._with(
            project, {name: role for name, role in self.roles.get(project, {}).items() if name != subject}
        )

    def with_visibility(self, project: str, visibility: Visibility | None) -> Grants:
        """The same with that visibility; None: that of what the project is within."""
        others = {name: told for name, told in self.visibilities.items() if name != project}
        return replace(self, visibilities={**others, project: visibility} if visibility else others)

    def visibility(self, project: str) -> Visibility:
        """The one that the project or the nearest one around it was given."""
        told = (self.visibilities.get(outer) for outer in reversed(lineage(project)))
        return next(filter(None, told), Visibility.PRIVATE)

    def listed(self) -> Iterator[Grant]:
        """Each role, by project and subject."""
        for project, given in sorted(self.roles.items()):
            for subject, role in sorted(given.items()):
                yield Grant(subject, role, project)

    def _with(self, project: str, given: Mapping[str, Role]) -> Grants:
        others = {name: roles for name, roles in self.roles.items() if name != project}
        return replace(self, roles={**others, project: given} if given else others)


def check_name(name: str) -> str:
    """A person's name itself when it can be one; :class:`~distci.errors.Invalid` otherwise."""
    if not _NAME.fullmatch(name) or name == EVERYBODY or name.startswith(GROUP):
        raise Invalid(f"{name!r} cannot be a person's name: write an address as in ada@example.org")
    return name


def check_subject(subject: str) -> str:
    """The subject of a grant itself when it is well formed; :class:`~distci.errors.Invalid` otherwise."""
    if not _SUBJECT.fullmatch(subject):
        raise Invalid(
            f"{subject!r} is nobody: write ada@example.org, '*@example.org', group:NAME, or {EVERYBODY} for all who log in"
        )
    if "@" in subject and not subject.startswith(GROUP) and subject != subject.lower():
        raise Invalid(
            f"{subject!r} would be nobody: addresses of people who log in are in lower case, {subject.lower()!r}"
        )
    return subject


def rules(text: str) -> Sequence[Grant]:
    """The roles of the setting ``oidc_roles``: ``group:admins=owner; *@example.org=viewer@team``. Invalid for anything else."""
    found = []
    for rule in filter(None, map(str.strip, text.split(";"))):
        subject, mark, given = rule.rpartition("=")
        role, _, project = given.partition("@")
        if not mark or role not in [*Role]:
            raise Invalid(f"{rule!r}: write WHO=ROLE or WHO=ROLE@PROJECT, with a role of {', '.join(Role)}")
        found.append(Grant(check_subject(subject.strip()), Role(role), check_project(project)))
    return found
