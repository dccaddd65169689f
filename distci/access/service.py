"""Access control as the rest of DistCI uses it: who a token is, what they may do, and how that is changed."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from threading import Semaphore
from time import monotonic as monotonic_clock
from time import time as wall_clock

from distci.access import state as changes
from distci.access.audit import Audit
from distci.access.decisions import Decision, decide
from distci.access.principals import Person, Principal
from distci.access.register import Recorded, Register
from distci.access.rights import Action, Grant, Grants, Role, Visibility, check_name, check_subject
from distci.access.state import Change, State, TokenRecord
from distci.access.texts import Sort, digest_of, new_text, sort_of
from distci.access.used import LastUses
from distci.errors import Conflict, Invalid, NoSuchToken, NotAuthenticated
from distci.model import check_project
from distci.projects import SYSTEM
from distci.protocol.records import KIND
from distci.protocol.tree import Tree
from distci.store.port import Store

log = logging.getLogger(__name__)

DAY_S = 86400
EXPIRES_S = 90 * DAY_S
"""How long a token is good for unless its maker says otherwise."""
EXPIRES_S_MAX = 5 * 366 * DAY_S
LABEL_CHARS_MAX = 100
GROUPS_MAX = 100
LOOKS_MAX = 4
"""How many tokens that nobody knows are looked up in the store at a time."""


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that has just been made, with its text, which nobody can be told again."""

    text: str
    record: TokenRecord


class Access:
    """Who may do what in one system. Any thread may use it."""

    def __init__(
        self,
        store: Store,
        tree: Tree,
        audit: Audit,
        configured: Sequence[Grant] = (),
        clock: Callable[[], float] = wall_clock,
        monotonic: Callable[[], float] = monotonic_clock,
    ) -> None:
        """``configured`` are the roles that the settings give, besides those on record."""
        self._register = Register(store, tree, clock, monotonic)
        self._audit = audit
        self._configured = configured
        self._clock = clock
        self._uses = LastUses(store, clock)
        self._looks = Semaphore(LOOKS_MAX)

    def authenticate(self, text: str, origin: str = "") -> Principal:
        """Who shows a token: :class:`Token` or :class:`Worker`.

        NotAuthenticated when it is none, or is expired or revoked, for at most a second as of when it was; StoreUnavailable when that cannot be found out.
        """
        sort = sort_of(text)
        digest = digest_of(text)
        record = self._register.current().tokens.get(digest) or self._just_made(digest)
        if record is None or not hmac.compare_digest(record.digest, digest) or record.sort is not sort:
            raise NotAuthenticated("nobody knows that token; it was of another system, or was revoked long ago")
        state = record.state(self._clock())
        if state != "valid":
            raise NotAuthenticated(f"token {record.id} ({record.label}) is {state}; ask for another")
        self._uses.note(record.id, origin)
        return record.principal()

    def _just_made(self, digest: str) -> TokenRecord | None:
        """A token that may be younger than what is known: whoever has just made one may use it at once.

        Only a few look at a time, so that nobody keeps the store or many threads busy with tokens that never were.
        """
        if not self._looks.acquire(blocking=False):
            return None
        try:
            return self._register.current(0).tokens.get(digest)
        finally:
            self._looks.release()

    def decide(self, principal: Principal, action: Action, project: str = SYSTEM) -> Decision:
        """Whether they may do that in a project, which may be a job's id; see :func:`~distci.access.decisions.decide`."""
        return decide(principal, self.grants(), action, project)

    def grants(self) -> Grants:
        """All roles and visibilities in force; decide with them on many projects at once."""
        grants = self._register.current().grants
        for grant in self._configured:
            grants = grants.with_more(grant)
        return grants

    def has_token(self, scope: Action, project: str) -> bool:
        """Whether there is, or was of late, a token with that scope for just that project."""
        records = self._register.current().tokens.values()
        return any(record.project == project and scope in record.scopes for record in records)

    def create_token(
        self,
        label: str,
        scopes: Sequence[Action],
        *,
        project: str = SYSTEM,
        person: Person | None = None,
        expires_s: float = EXPIRES_S,
        actor: str = "",
        reason: str = "",
    ) -> NewToken:
        """A token for programs. With ``person`` it may never do what they may not; without, it stands for itself.

        Asked again after a lost answer there may be two of them, of which one is nobody's.

        >>> made = ci.access.create_token("nightly", ["trigger"], project="docs")
        >>> ci.access.authenticate(made.text).label
        'nightly'
        """
        wanted = {_action(scope) for scope in scopes}
        if not wanted:
            raise Invalid("a token needs a scope at least: read, trigger, write, admin")
        record = replace(
            self._record(new := new_text(Sort.ACCESS), label, project, expires_s, actor),
            scopes=tuple(sorted(wanted)),
            person=check_name(person.name) if person else "",
            groups=tuple(sorted(person.groups)[:GROUPS_MAX]) if person else (),
        )
        return self._created(new, record, actor, reason)

    def create_worker_token(
        self,
        label: str,
        kinds: Sequence[str],
        labels: Sequence[str] = (),
        *,
        project: str = SYSTEM,
        expires_s: float = EXPIRES_S,
        actor: str = "",
        reason: str = "",
    ) -> NewToken:
        """A token for a worker: it may claim tickets of these kinds, offer at most these labels, and do nothing else."""
        if not kinds:
            raise Invalid("the token of a worker needs a kind at least, such as shell")
        for kind in kinds:
            if not KIND.fullmatch(kind):
                raise Invalid(f"{kind!r} is no kind: lower-case letters, digits, '.', '-'")
        new = new_text(Sort.WORKER)
        record = self._record(new, label, project, expires_s, actor)
        return self._created(
            new, replace(record, kinds=tuple(sorted({*kinds})), labels=tuple(sorted({*labels}))), actor, reason
        )

    def tokens(self) -> Sequence[TokenRecord]:
        """All tokens that are valid, or have ended in the last 90 days, the newest first."""
        return sorted(self._register.latest().tokens.values(), key=lambda record: -record.created_s)

    def last_uses(self) -> dict[str, float]:
        """About when tokens were last used, by id; seconds since 1970, within an hour."""
        return self._uses.all()

    def revoke_token(self, token: str, *, actor: str = "", reason: str = "") -> Recorded:
        """Make a token useless, named by its id, the beginning of that, or its text; nothing happens when it is already.

        Every front end that reaches the store refuses it within a second. NoSuchToken when there is none, Conflict when several are meant.
        Asking again is safe.
        """

        def revoke(state: State) -> Change | None:
            record = _one(state, token)
            if record.revoked_s:
                return None
            remark.target = record.id
            return changes.token_revoked(
                replace(record, revoked_s=self._clock(), revoked_by=actor, reason=reason[:LABEL_CHARS_MAX])
            )

        with self._audit.change("token.revoke", token, actor=actor, reason=reason) as remark:
            return self._register.change(revoke, actor=actor, reason=reason)

    def roles(self) -> Sequence[Grant]:
        """All roles on record now, by project and subject; those of the settings are not among them."""
        return [*self._register.latest().grants.listed()]

    def visibilities(self) -> dict[str, Visibility]:
        """What was said of projects, by project; others are as those around them, and private beyond that."""
        return dict(self._register.latest().grants.visibilities)

    def grant(self, subject: str, role: Role, project: str = SYSTEM, *, actor: str = "", reason: str = "") -> Recorded:
        """Give a role in a project and all within it, in place of what the subject had just there.

        >>> recorded = ci.access.grant("ada@example.org", "editor", "docs")
        >>> [(role.subject, role.role.value) for role in ci.access.roles()]
        [('ada@example.org', 'editor')]
        """
        wanted = Grant(check_subject(subject), _role(role), check_project(project))

        def change(state: State) -> Change | None:
            has = state.grants.roles.get(project, {}).get(subject)
            return None if has is wanted.role else changes.role_granted(wanted)

        with self._audit.change(
            "access.grant", project, actor=actor, reason=reason, subject=subject, role=wanted.role.value
        ):
            return self._register.change(change, actor=actor, reason=reason)

    def revoke_role(self, subject: str, project: str = SYSTEM, *, actor: str = "", reason: str = "") -> Recorded:
        """Take away what a subject was given just there; nothing happens when that is nothing."""

        def change(state: State) -> Change | None:
            has = subject in state.grants.roles.get(project, {})
            return changes.role_revoked(subject, project) if has else None

        with self._audit.change("access.revoke", project, actor=actor, reason=reason, subject=subject):
            return self._register.change(change, actor=actor, reason=reason)

    def set_visibility(
        self, project: str, visibility: Visibility | None, *, actor: str = "", reason: str = ""
    ) -> Recorded:
        """Say who sees a project and all within it without a role; None: whoever sees what it is within."""
        wanted = _visibility(visibility)
        check_project(project)

        def change(state: State) -> Change | None:
            is_so = state.grants.visibilities.get(project) is wanted
            return None if is_so else changes.visibility_set(project, wanted)

        told = wanted.value if wanted else "as around"
        with self._audit.change("access.show", project, actor=actor, reason=reason, visibility=told):
            return self._register.change(change, actor=actor, reason=reason)

    def _record(self, text: str, label: str, project: str, expires_s: float, actor: str) -> TokenRecord:
        if not label.strip() or len(label) > LABEL_CHARS_MAX:
            raise Invalid(f"a token needs a label of 1 to {LABEL_CHARS_MAX} characters, to be told from others")
        if not 0 < expires_s <= EXPIRES_S_MAX:
            raise Invalid("a token must expire, and within five years")
        now_s = self._clock()
        return TokenRecord(digest_of(text), label, now_s, actor, now_s + expires_s, project=check_project(project))

    def _created(self, text: str, record: TokenRecord, actor: str, reason: str) -> NewToken:
        details = {"label": record.label, "project": record.project, "person": record.person}
        allowed = {"scopes": [*record.scopes], "kinds": [*record.kinds]}
        with self._audit.change("token.create", record.id, actor=actor, reason=reason, **details, **allowed):
            # After a lost answer it may be there.
            self._register.change(
                lambda state: None if record.digest in state.tokens else changes.token_created(record),
                actor=actor,
                reason=reason,
            )
        return NewToken(text, record)


def no_such_token() -> NoSuchToken:
    """What somebody who sees all tokens is told of one that is not there."""
    return NoSuchToken("there is no token of that id; `distci token list` shows all there are")


def _one(state: State, token: str) -> TokenRecord:
    digest = digest_of(token)
    found = [state.tokens[digest]] if digest in state.tokens else state.named(token)
    if not found:
        raise no_such_token()
    if len(found) > 1:
        raise Conflict(f"{token!r} may be any of {', '.join(record.id for record in found)}; write more of it")
    return found[0]


def _action(scope: Action | str) -> Action:
    try:
        action = Action(scope)
    except ValueError as error:
        raise Invalid(f"{scope!r} is no scope: read, trigger, write, admin") from error
    if action is Action.WORK:
        raise Invalid("a token for work is made with `distci token create --worker`")
    return action


def _role(role: Role | str) -> Role:
    try:
        return Role(role)
    except ValueError as error:
        raise Invalid(f"{role!r} is no role: {', '.join(Role)}") from error


def _visibility(visibility: Visibility | str | None) -> Visibility | None:
    try:
        return Visibility(visibility) if visibility is not None else None
    except ValueError as error:
        raise Invalid(f"{visibility!r} is no visibility: {', '.join(Visibility)}") from error
