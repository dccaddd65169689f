"""Who may do what as it stands, and how each change moves it on: pure functions on documents of the change log.

What cannot be read raises :class:`~distci.errors.InvalidDocument`: to pass over a change that a later version made could be to pass over
a revocation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from distci.access.principals import Person, Principal, Token, Worker
from distci.access.rights import Action, Grant, Grants, Role, Visibility
from distci.access.texts import Sort, id_of
from distci.errors import InvalidDocument
from distci.model import Json
from distci.projects import SYSTEM

KEPT_S = 90 * 86400
"""How long a token that was revoked or has expired is still listed."""


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """What is kept of a token: all but its text."""

    digest: str
    label: str
    created_s: float
    """Seconds since 1970 by the clock of who made it; so are the others."""
    created_by: str
    expires_s: float
    scopes: Sequence[Action] = ()
    """Of a worker's token: none."""
    project: str = SYSTEM
    person: str = ""
    """Whom it acts for; empty: it stands for itself."""
    groups: Sequence[str] = ()
    """That person's, as they were when it was made."""
    kinds: Sequence[str] = ()
    """Of a worker's token: what it may serve."""
    labels: Sequence[str] = ()
    """Of a worker's token: what it may offer."""
    revoked_s: float = 0
    """0: it has not been revoked."""
    revoked_by: str = ""
    reason: str = ""
    """Why it was revoked."""

    @property
    def id(self) -> str:
        return id_of(self.digest)

    @property
    def sort(self) -> Sort:
        return Sort.WORKER if self.kinds else Sort.ACCESS

    def principal(self) -> Principal:
        """Who shows it."""
        if self.kinds:
            return Worker(self.id, self.label, frozenset(self.kinds), tuple(self.labels), self.project)
        person = Person(self.person, frozenset(self.groups)) if self.person else None
        return Token(self.id, self.label, frozenset(self.scopes), self.project, person)

    def state(self, now_s: float) -> str:
        """``valid``, ``expired`` or ``revoked``."""
        if self.revoked_s:
            return "revoked"
        return "valid" if now_s < self.expires_s else "expired"

    def shown(self, now_s: float) -> dict[str, Json]:
        """The token for people and programs to read: all but what could be guessed with."""
        return {
            "id": self.id,
            "label": self.label,
            "scopes": [*self.scopes],
            "project": self.project,
            "person": self.person,
            "kinds": [*self.kinds],
            "labels": [*self.labels],
            "created_s": self.created_s,
            "created_by": self.created_by,
            "expires_s": self.expires_s,
            "state": self.state(now_s),
            "revoked_s": self.revoked_s,
            "revoked_by": self.revoked_by,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class State:
    """All tokens, roles and visibilities after so many changes."""

    number: int = 0
    tokens: Mapping[str, TokenRecord] = field(default_factory=dict)
    """By digest."""
    grants: Grants = field(default_factory=Grants)

    def named(self, token: str) -> Sequence[TokenRecord]:
        """The tokens whose id starts so."""
        return [record for record in self.tokens.values() if token and record.id.startswith(token)]


Change = Mapping[str, Json]
"""What a change does: its ``type`` and what that takes."""


def token_created(record: TokenRecord) -> Change:
    return {"type": "token-created", "token": _token_to_json(record)}


def token_revoked(record: TokenRecord) -> Change:
    """``record`` as it is from now on."""
    told = ("digest", "revoked_s", "revoked_by", "reason")
    return {"type": "token-revoked", **{name: getattr(record, name) for name in told}}


def role_granted(grant: Grant) -> Change:
    return {"type": "role-granted", "subject": grant.subject, "role": grant.role.value, "project": grant.project}


def role_revoked(subject: str, project: str) -> Change:
    return {"type": "role-revoked", "subject": subject, "project": project}


def visibility_set(project: str, visibility: Visibility | None) -> Change:
    return {"type": "visibility-set", "project": project, "visibility": visibility.value if visibility else None}


def apply(state: State, number: int, change: Change) -> State:
    """The state after a change; it must be the next one."""
    if number != state.number + 1:
        raise InvalidDocument(f"access: change {number} does not follow on {state.number}")
    try:
        apply_to = _APPLY[str(change["type"])]
    except KeyError as error:
        raise InvalidDocument(
            f"access: change {number} is {change.get('type')!r}, which this version of DistCI does not know; use the one that wrote it"
        ) from error
    try:
        return replace(apply_to(state, change), number=number)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidDocument(f"access: change {number} cannot be read: {error!r}") from error


def pruned(state: State, now_s: float) -> State:
    """The state without tokens that have been good for nothing for long. What is not there is refused as one that is."""

    def is_kept(record: TokenRecord) -> bool:
        ended_s = min(record.expires_s, record.revoked_s or record.expires_s)
        return now_s - ended_s < KEPT_S

    return replace(state, tokens={digest: record for digest, record in state.tokens.items() if is_kept(record)})


def to_json(state: State) -> Json:
    return {
        "tokens": [_token_to_json(record) for record in state.tokens.values()],
        "roles": [role_granted(grant) for grant in state.grants.listed()],
        "visibilities": {project: told.value for project, told in sorted(state.grants.visibilities.items())},
    }


def from_json(number: int, document: Mapping[str, Any]) -> State:
    try:
        records = [_token_from_json(token) for token in document["tokens"]]
        grants = Grants(visibilities={name: Visibility(told) for name, told in document["visibilities"].items()})
        for role in document["roles"]:
            grants = grants.with_role(Grant(role["subject"], Role(role["role"]), role["project"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidDocument(f"access: the state after change {number} cannot be read: {error!r}") from error
    return State(number, {record.digest: record for record in records}, grants)


def _create(state: State, change: Mapping[str, Any]) -> State:
    record = _token_from_json(change["token"])
    # One that has been revoked stays revoked, whatever comes after.
    return state if record.digest in state.tokens else _with(state, record)


def _revoke(state: State, change: Mapping[str, Any]) -> State:
    record = state.tokens.get(change["digest"])
    if record is None or record.revoked_s:
        return state
    return _with(
        state,
        replace(record, revoked_s=change["revoked_s"], revoked_by=change["revoked_by"], reason=change["reason"]),
    )


def _grant(state: State, change: Mapping[str, Any]) -> State:
    grant = Grant(change["subject"], Role(change["role"]), change["project"])
    return replace(state, grants=state.grants.with_role(grant))


def _ungrant(state: State, change: Mapping[str, Any]) -> State:
    return replace(state, grants=state.grants.without_role(change["subject"], change["project"]))


def _set_visibility(state: State, change: Mapping[str, Any]) -> State:
    told = change["visibility"]
    return replace(state, grants=state.grants.with_visibility(change["project"], Visibility(told) if told else None))


_APPLY: Mapping[str, Callable[[State, Mapping[str, Any]], State]] = {
    "token-created": _create,
    "token-revoked": _revoke,
    "role-granted": _grant,
    "role-revoked": _ungrant,
    "visibility-set": _set_visibility,
}


def _with(state: State, record: TokenRecord) -> State:
    return replace(state, tokens={**state.tokens, record.digest: record})


def _token_to_json(record: TokenRecord) -> Json:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(record).items()}


def _token_from_json(document: Mapping[str, Any]) -> TokenRecord:
    told: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in document.items()
    }
    told["scopes"] = tuple(map(Action, told["scopes"]))
    return TokenRecord(**told)
