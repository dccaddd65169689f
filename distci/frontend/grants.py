"""Who has which role in which project, and who sees it."""

from __future__ import annotations

from collections.abc import Sequence

from distci.access import Action, Role, Visibility
from distci.frontend.endpoint import REASON, Answer, Call, Endpoint, Parameter, Returns
from distci.projects import SYSTEM

TEXT = {"type": "string", "minLength": 1, "maxLength": 300}


def list_roles(call: Call) -> Answer:
    return Answer({"items": call.system.access.roles(), "next": None})


def grant_role(call: Call) -> Answer:
    given = call.body
    role, project, reason = Role(given["role"]), given.get("project", SYSTEM), given.get("reason", "")
    done = call.system.access.grant(given["subject"], role, project, actor=call.actor, reason=reason)
    return _told(done.is_told)


def revoke_role(call: Call) -> Answer:
    given = call.query
    done = call.system.access.revoke_role(given["subject"], given["project"], actor=call.actor, reason=given["reason"])
    return _told(done.is_told)


def list_visibilities(call: Call) -> Answer:
    told = sorted(call.system.access.visibilities().items())
    items = [{"project": project, "visibility": visibility} for project, visibility in told]
    return Answer({"items": items, "next": None})


def set_visibility(call: Call) -> Answer:
    given = call.body
    wanted = None if given["visibility"] is None else Visibility(given["visibility"])
    reason = given.get("reason", "")
    done = call.system.access.set_visibility(given["project"], wanted, actor=call.actor, reason=reason)
    return _told(done.is_told)


def _told(is_told: bool) -> Answer:
    return Answer({"is_told": is_told})


CHANGED = {200: Returns("It is in force.", "access-changed")}

ENDPOINTS: Sequence[Endpoint] = (
    Endpoint(
        "GET",
        "/roles",
        "list_roles",
        "List all roles on record",
        list_roles,
        Action.ADMIN,
        {200: Returns("The roles, by project and subject.", "role-page", headers=("ETag",))},
        tag="access",
    ),
    Endpoint(
        "PUT",
        "/roles",
        "grant_role",
        "Give a role in a project, in place of what the subject had just there",
        grant_role,
        Action.ADMIN,
        CHANGED,
        body="role-given",
        tag="access",
    ),
    Endpoint(
        "DELETE",
        "/roles",
        "revoke_role",
        "Take away the role that a subject was given just there",
        revoke_role,
        Action.ADMIN,
        CHANGED,
        (
            Parameter("subject", TEXT, "Whose role.", is_required=True),
            Parameter("project", {"type": "string", "default": "", "maxLength": 128}, "Where; empty: everywhere."),
            REASON,
        ),
        tag="access",
    ),
    Endpoint(
        "GET",
        "/visibilities",
        "list_visibilities",
        "List what was said of who sees projects",
        list_visibilities,
        Action.ADMIN,
        {200: Returns("By project.", "visibility-page", headers=("ETag",))},
        tag="access",
    ),
    Endpoint(
        "PUT",
        "/visibilities",
        "set_visibility",
        "Say who sees a project without a role in it",
        set_visibility,
        Action.ADMIN,
        CHANGED,
        body="visibility-said",
        tag="access",
    ),
)
