"""Access tokens: made, listed, revoked by who may say who may do what in the whole system."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from distci.access import Action, Allowed, Denied, Person, TokenRecord, may_give
from distci.access.rights import SYSTEM
from distci.access.service import EXPIRES_S
from distci.errors import Forbidden, Invalid
from distci.frontend.endpoint import CURSOR, Answer, Call, Endpoint, Returns, limit
from distci.frontend.paging import page


def list_tokens(call: Call) -> Answer:
    used_s = call.system.access.last_uses()
    now_s = time.time()
    return page(
        call,
        _after(call.system.access.tokens(), call.query["cursor"]),
        lambda record: record.id,
        lambda record: {**record.shown(now_s), "used_s": used_s.get(record.id, 0)},
    )


def create_token(call: Call) -> Answer:
    given = call.body
    access, project = call.system.access, given.get("project", SYSTEM)
    scopes = [Action(scope) for scope in given.get("scopes", [])]
    kinds, person = given.get("kinds", []), given.get("person", "")
    if kinds and (scopes or person):
        raise Invalid("a token of kinds is for work alone; leave out scopes and person")
    decision = may_give(call.principal, access.grants(), scopes, project)
    if not isinstance(decision, Allowed):
        raise Forbidden(decision.reason if isinstance(decision, Denied) else f"{call.actor} may not give that")
    expires_s, reason = given.get("expires_s", EXPIRES_S), given.get("reason", "")
    if kinds:
        made = access.create_worker_token(
            given["label"],
            kinds,
            given.get("labels", []),
            project=project,
            expires_s=expires_s,
            actor=call.actor,
            reason=reason,
        )
    else:
        made = access.create_token(
            given["label"],
            scopes,
            project=project,
            person=Person(person) if person else None,
            expires_s=expires_s,
            actor=call.actor,
            reason=reason,
        )
    shown = {"token": made.text, **made.record.shown(time.time())}
    return Answer(shown, 201, {"Cache-Control": "no-store"})


def revoke_token(call: Call) -> Answer:
    reason = (call.body or {}).get("reason", "")
    done = call.system.access.revoke_token(call.path["token"], actor=call.actor, reason=reason)
    return Answer({"is_told": done.is_told})


def _after(records: Sequence[TokenRecord], cursor: str | None) -> Iterator[TokenRecord]:
    ids = [record.id for record in records]
    return iter(records[ids.index(cursor) + 1 if cursor in ids else 0 :])


ENDPOINTS: Sequence[Endpoint] = (
    Endpoint(
        "GET",
        "/tokens",
        "list_tokens",
        "List access tokens, the newest first",
        list_tokens,
        Action.ADMIN,
        {200: Returns("A page of tokens, without their texts.", "token-page", headers=("ETag", "Link"))},
        (limit(200), CURSOR),
        tag="access",
    ),
    Endpoint(
        "POST",
        "/tokens",
        "create_token",
        "Make an access token",
        create_token,
        Action.ADMIN,
        {201: Returns("The token, whose text is shown this once.", "token-made")},
        body="token-wanted",
        description="Nobody gives what they do not have themselves. With `kinds` it is a worker's.",
        tag="access",
    ),
    Endpoint(
        "POST",
        "/tokens/{token}/revoke",
        "revoke_token",
        "Make a token useless everywhere, for ever",
        revoke_token,
        Action.ADMIN,
        {200: Returns("It is refused everywhere within a second.", "access-changed")},
        body="token-revoked",
        is_body_optional=True,
        tag="access",
    ),
)
