"""Whether somebody may do something: one pure function, and nothing else decides.

Nothing is allowed unless something allows it. Who may not even see a project is told nothing of it: for a stranger it is not there.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from distci.access.principals import NOBODY, Nobody, Person, Principal, Token, Worker
from distci.access.rights import Action, Grants, Visibility
from distci.projects import called, is_within, lineage


@dataclass(frozen=True, slots=True)
class Allowed:
    """Do it."""


@dataclass(frozen=True, slots=True)
class Denied:
    """They see the project, and may not do that."""

    reason: str


@dataclass(frozen=True, slots=True)
class Hidden:
    """To them there is no such project: answer as for a name that nobody has given."""


Decision = Allowed | Denied | Hidden


def decide(principal: Principal, grants: Grants, action: Action, project: str) -> Decision:
    """Whether ``principal`` may do ``action`` in ``project``: a job's id, a prefix of such, or ``""`` for the whole system."""
    visibility = grants.visibility(project)
    if action is Action.READ and visibility is Visibility.PUBLIC:
        return Allowed()
    match principal:
        case Nobody():
            return Denied("log in, or send a token") if visibility is Visibility.PUBLIC else Hidden()
        case Worker():
            return _of_worker(principal, grants, action, project)
        case Token():
            return _of_token(principal, grants, action, project)
        case Person():
            return _of_person(principal, grants, action, project)


def is_among(principal: Principal, subjects: Collection[str]) -> bool:
    """Whether somebody is one of those whom a job names; anybody is where it names nobody. A token is whom it acts for."""
    if not subjects:
        return True
    person = principal.person if isinstance(principal, Token) else principal
    return isinstance(person, Person) and any(map(person.is_meant, subjects))


def disguised(principal: Principal, grants: Grants, action: Action, project: str) -> Decision:
    """What somebody is told of a project that is hidden from them: the same as of a name beside it that nobody has given.

    Within a public project, for example, a private one is a job that is not there.
    """
    for outer in lineage(project):
        if isinstance(decide(principal, grants, Action.READ, outer), Hidden):
            grants = grants.with_visibility(outer, None)
    return decide(principal, grants, action, project)


def may_give(principal: Principal, grants: Grants, scopes: Collection[Action], project: str) -> Decision:
    """Whether ``principal`` may make a token with these scopes for a project; of a worker's token the scope is WORK.

    Who may say who may do what there; and nobody gives what they do not have themselves. What everybody may see is not theirs: there may
    be something private within it.
    """
    decision = decide(principal, grants, Action.ADMIN, project)
    own = replace(grants, visibilities={})
    for scope in sorted({*scopes} - {Action.WORK}):
        if not isinstance(decision, Allowed):
            break
        decision = decide(principal, own, scope, project)
    return decision


def actions_of(person: Person, grants: Grants, project: str) -> frozenset[Action]:
    """All that a person may do in a project."""
    found: set[Action] = set()
    if grants.visibility(project) is not Visibility.PRIVATE:
        found.add(Action.READ)
    for outer in lineage(project):
        for subject, role in grants.roles.get(outer, {}).items():
            if person.is_meant(subject):
                found |= role.actions
        if outer in person.roles:
            found |= person.roles[outer].actions
    return frozenset(found)


def _of_person(person: Person, grants: Grants, action: Action, project: str) -> Decision:
    may = actions_of(person, grants, project)
    if action in may:
        return Allowed()
    if Action.READ not in may:
        return Hidden()
    return Denied(_reason(person.name, action, project))


def _of_token(token: Token, grants: Grants, action: Action, project: str) -> Decision:
    if not is_within(project, token.project):
        return _outside(token, grants, action, project)
    if token.person is not None:
        behind = _of_person(token.person, grants, action, project)
        if not isinstance(behind, Allowed):
            return behind
    # Workers' tokens are of another sort: a scope never lets anybody complete what somebody else has claimed.
    if action in token.scopes and action is not Action.WORK:
        return Allowed()
    return Denied(f"token {token.id} has no scope {action}")


def _of_worker(worker: Worker, grants: Grants, action: Action, project: str) -> Decision:
    if not is_within(project, worker.project):
        return _outside(worker, grants, action, project)
    if action is Action.WORK:
        return Allowed()
    return Denied(f"the token of a worker is for its work alone, not for {action}")


def _outside(token: Token | Worker, grants: Grants, action: Action, project: str) -> Decision:
    """There it is worth no more than none."""
    decision = decide(NOBODY, grants, action, project)
    return Denied(f"token {token.id} is for {token.project} alone") if isinstance(decision, Denied) else decision


def _reason(name: str, action: Action, project: str) -> str:
    if action is Action.WORK:
        return "workers alone may do that, with a token of their own"
    return f"{name} may not {action} in {called(project)}"
