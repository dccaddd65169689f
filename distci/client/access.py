"""Who may do what, through a front end."""

from __future__ import annotations

import re
from collections.abc import Sequence

from distci.access import SYSTEM, Action, Grant, NewToken, Person, Role, TokenRecord, Visibility
from distci.access.register import Recorded
from distci.access.service import EXPIRES_S, no_such_token
from distci.access.state import State
from distci.access.texts import PATTERN, digest_of, id_of
from distci.client.link import Link
from distci.model import Json
from distci.views import from_json

PAGE = 1000
ID = re.compile(r"[0-9a-f]{1,64}")


class RemoteAccess:
    """As :class:`distci.access.Access`, as far as it says who may do what: who may do it is for the front end to decide.

    On record as who says so is who the token is of; ``actor`` is not sent. Of tokens no more is known than their ids (``digest`` is that), of a change
    no more than whether the tree was told (``state`` is empty).
    """

    def __init__(self, link: Link) -> None:
        self._link = link

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
        wanted = {"scopes": [*scopes], **({"person": person.name} if person else {})}
        return self._made({"label": label, "project": project, "expires_s": expires_s, "reason": reason, **wanted})

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
        wanted = {"kinds": [*kinds], "labels": [*labels]}
        return self._made({"label": label, "project": project, "expires_s": expires_s, "reason": reason, **wanted})

    def tokens(self) -> Sequence[TokenRecord]:
        return [_record(item) for item in self._link.items("/tokens", limit=PAGE)]

    def last_uses(self) -> dict[str, float]:
        return {item["id"]: item["used_s"] for item in self._link.items("/tokens", limit=PAGE) if item["used_s"]}

    def revoke_token(self, token: str, *, actor: str = "", reason: str = "") -> Recorded:
        # The text itself would be in the logs of all that are between.
        name = id_of(digest_of(token)) if PATTERN.fullmatch(token) else token
        if not ID.fullmatch(name):
            raise no_such_token()
        return _recorded(self._link.change("POST", f"/tokens/{name}/revoke", {"reason": reason}))

    def roles(self) -> Sequence[Grant]:
        return [from_json(Grant, item) for item in self._link.items("/roles")]

    def visibilities(self) -> dict[str, Visibility]:
        return {item["project"]: Visibility(item["visibility"]) for item in self._link.items("/visibilities")}

    def grant(self, subject: str, role: Role, project: str = SYSTEM, *, actor: str = "", reason: str = "") -> Recorded:
        body = {"subject": subject, "role": role, "project": project, "reason": reason}
        return _recorded(self._link.change("PUT", "/roles", body))

    def revoke_role(self, subject: str, project: str = SYSTEM, *, actor: str = "", reason: str = "") -> Recorded:
        return _recorded(self._link.change("DELETE", "/roles", subject=subject, project=project, reason=reason))

    def set_visibility(
        self, project: str, visibility: Visibility | None, *, actor: str = "", reason: str = ""
    ) -> Recorded:
        body = {"project": project, "visibility": visibility, "reason": reason}
        return _recorded(self._link.change("PUT", "/visibilities", body))

    def _made(self, wanted: Json) -> NewToken:
        # Once more, there might be two, of which one is nobody's.
        made = self._link.change("POST", "/tokens", wanted, is_repeatable=False)
        return NewToken(made["token"], _record(made))


def _record(item: Json) -> TokenRecord:
    return from_json(TokenRecord, {**item, "digest": item["id"]})


def _recorded(answer: Json) -> Recorded:
    return Recorded(State(), answer["is_told"])
