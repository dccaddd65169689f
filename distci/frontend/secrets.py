"""Secrets of projects: whoever may change jobs of a project sets and forgets its secrets, and sees which there are. Nobody is told a value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distci.access import Action
from distci.errors import Forbidden
from distci.frontend.endpoint import CURSOR, PROJECT, REASON, Answer, Call, Endpoint, Parameter, Returns, limit
from distci.frontend.paging import page
from distci.projects import SYSTEM, called
from distci.secrets import Secret

NAME = {"type": "string", "minLength": 1, "maxLength": 128}


def list_secrets(call: Call) -> Answer:
    return page(call, _seen(call), _position)


def set_secret(call: Call) -> Answer:
    given = call.body
    project = given.get("project", SYSTEM)
    _require(call, Action.WRITE, project)
    done = call.system.secrets.set(
        given["name"], given["value"], project, actor=call.actor, reason=given.get("reason", "")
    )
    return Answer(done)


def delete_secret(call: Call) -> Answer:
    given = call.query
    _require(call, Action.WRITE, given["project"])
    call.system.secrets.delete(given["name"], given["project"], actor=call.actor, reason=given["reason"])
    return Answer({"project": given["project"], "name": given["name"], "is_deleted": True})


def rotate_secrets(call: Call) -> Answer:
    given = call.body or {}
    project = given.get("project", SYSTEM)
    _require(call, Action.ADMIN, project)
    return Answer(call.system.secrets.rotate(project, actor=call.actor, reason=given.get("reason", "")))


def _seen(call: Call) -> Iterator[Secret]:
    after = call.query["cursor"] or ""
    for secret in call.system.secrets.list(call.query["project"]):
        if _position(secret) > after and call.may(Action.WRITE, secret.project):
            yield secret


def _position(secret: Secret) -> str:
    """Where it stands in a list: names of jobs have no ``:``, so it sorts as the list does."""
    return f"{secret.project.replace('/', ':') or '-'}/{secret.name}"


def _require(call: Call, action: Action, project: str) -> None:
    """Forbidden, in the same words whether there is such a project or not, for those who may not."""
    if not call.may(action, project):
        who = "editors and owners" if action is Action.WRITE else "owners"
        raise Forbidden(f"{call.actor} may not do that to secrets of {called(project)}; its {who} may")


ENDPOINTS: Sequence[Endpoint] = (
    Endpoint(
        "GET",
        "/secrets",
        "list_secrets",
        "List the secrets of the projects that you may change jobs of",
        list_secrets,
        None,
        {
            200: Returns(
                "A page of secrets, by project and name; never a value.", "secret-page", headers=("ETag", "Link")
            )
        },
        (PROJECT, limit(100), CURSOR),
        tag="secrets",
        needs_tree=False,
    ),
    Endpoint(
        "PUT",
        "/secrets",
        "set_secret",
        "Set a secret of a project, in place of any other value",
        set_secret,
        None,
        {200: Returns("It is set. Nobody is ever told its value again.", "secret")},
        body="secret-wanted",
        tag="secrets",
        description="It takes an editor of the project. Asking again does no harm.",
        needs_tree=False,
    ),
    Endpoint(
        "DELETE",
        "/secrets",
        "delete_secret",
        "Forget a secret of just that project",
        delete_secret,
        None,
        {200: Returns("It is forgotten.", "secret-deleted")},
        (
            Parameter("name", NAME, "Its name.", is_required=True),
            PROJECT,
            REASON,
        ),
        tag="secrets",
        description="It takes an editor of the project.",
        needs_tree=False,
    ),
    Endpoint(
        "POST",
        "/secrets/rotate",
        "rotate_secrets",
        "Seal what secrets are sealed with anew, with the first master key",
        rotate_secrets,
        None,
        {200: Returns("No value has changed.", "secrets-rotated")},
        body="secret-rotation",
        is_body_optional=True,
        tag="secrets",
        description="It takes an owner of the project. Asking again does no harm.",
        needs_tree=False,
    ),
)
