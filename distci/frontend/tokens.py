"""Access tokens: whoever may say who may do what in a project makes, lists and revokes those that are for it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from distci.access import SYSTEM, Action, Person, TokenRecord
from distci.access.service import EXPIRES_S, no_such_token
from distci.errors import Conflict, NoSuchToken
from distci.frontend.endpoint import CURSOR, Answer, Call, Endpoint, Returns, limit
from distci.frontend.paging import no_cursor, page
from distci.frontend.problems import BadRequest


def list_tokens(call: Call) -> Answer:
    records = _given_by(call)
    after = call.query["cursor"]
    if after is not None:
        ids = [record.id for record in records]
        if after not in ids:
            raise no_cursor()
        records = records[ids.index(after) + 1 :]
    used = call.system.access.last_uses()
    now_s = time.time()
    return page(
        call,
        iter(records),
        lambda record: record.id,
        lambda record: {**record.shown(now_s), "used_s": used.get(record.id, 0)},
    )


def create_token(call: Call) -> Answer:
    wanted = call.body
    kinds, scopes = wanted.get("kinds", []), [Action(scope) for scope in wanted.get("scopes", [])]
    project, person = wanted.get("project", ""), wanted.get("person", "")
    if kinds and (scopes or person):
        raise _unfit("kinds: a token of a worker is for work alone; leave out scopes and person")
    if wanted.get("labels") and not kinds:
        raise _unfit("labels: are what a worker may offer; name its kinds")
    call.access.require_to_give(call.principal, [Action.WORK] if kinds else scopes, project)
    told = {"actor": call.actor, "reason": wanted.get("reason", "")}
    expires_s = wanted.get("expires_s", EXPIRES_S)
    if kinds:
        made = call.system.access.create_worker_token(
            wanted["label"], kinds, wanted.get("labels", []), project=project, expires_s=expires_s, **told
        )
    else:
        made = call.system.access.create_token(
            wanted["label"],
            scopes,
            project=project,
            person=Person(person) if person else None,
            expires_s=expires_s,
            **told,
        )
    return Answer({"token": made.text, **made.record.shown(time.time())}, 201, {"Cache-Control": "no-store"})


def revoke_token(call: Call) -> Answer:
    given = call.path["token"]
    named = [record.id for record in _given_by(call) if record.id.startswith(given)]
    if len(named) > 1:
        raise Conflict(f"{given!r} may be any of {', '.join(named)}; write more of it")
    if not named and call.may(Action.ADMIN, SYSTEM):
        raise no_such_token()
    if not named:
        raise NoSuchToken("there is no token of that id that you may revoke; `GET /api/v1/tokens` lists those")
    [token] = named
    done = call.system.access.revoke_token(token, actor=call.actor, reason=(call.body or {}).get("reason", ""))
    return Answer({"token": token, "is_revoked": True, "is_told": done.is_told})


def _given_by(call: Call) -> Sequence[TokenRecord]:
    """The tokens of all projects in which the caller says who may do what, the newest first."""
    return [record for record in call.system.access.tokens() if call.may(Action.ADMIN, record.project)]


def _unfit(problem: str) -> BadRequest:
    return BadRequest("the body is not as it should be:", [problem], status=422)


ENDPOINTS: Sequence[Endpoint] = (
    Endpoint(
        "GET",
        "/tokens",
        "list_tokens",
        "List the tokens of the projects that you are an owner of, the newest first",
        list_tokens,
        None,
        {
            200: Returns(
                "A page of tokens: those that are valid, or ended in the last 90 days.",
                "token-page",
                headers=("ETag", "Link"),
            )
        },
        (limit(100), CURSOR),
        tag="access",
        needs_tree=False,
    ),
    Endpoint(
        "POST",
        "/tokens",
        "create_token",
        "Make a token",
        create_token,
        None,
        {201: Returns("The token, with its text, which nobody is ever told again.", "token-made")},
        body="token-wanted",
        tag="access",
        description="It takes an owner of the project, and nobody gives what they may not do themselves. After an answer that was lost there may be a token that nobody has: revoke it.",
        needs_tree=False,
    ),
    Endpoint(
        "POST",
        "/tokens/{token}/revoke",
        "revoke_token",
        "Make a token useless, everywhere and for ever",
        revoke_token,
        None,
        {200: Returns("Every front end refuses it within a second.", "token-revoked")},
        body="token-revocation",
        is_body_optional=True,
        tag="access",
        description="Asking again does no harm.",
        needs_tree=False,
    ),
)
