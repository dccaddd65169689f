"""Secrets of projects, through a front end."""

from __future__ import annotations

from collections.abc import Iterator

from distci.client.link import Link
from distci.model import Json
from distci.projects import SYSTEM
from distci.secrets import Rotated, Secret
from distci.views import from_json

PAGE = 1000


class RemoteSecrets:
    """As :class:`distci.secrets.Secrets`, but that values can be set and not had; of projects, those that the token may change jobs of.

    On record as who sets one is who the token is of; ``actor`` is not sent.
    """

    def __init__(self, link: Link) -> None:
        self._link = link

    def set(self, name: str, value: str, project: str = SYSTEM, *, actor: str = "", reason: str = "") -> Secret:
        body = {"project": project, "name": name, "value": value, "reason": reason}
        return from_json(Secret, self._link.change("PUT", "/secrets", body))

    def list(self, project: str = SYSTEM) -> Iterator[Secret]:
        for item in self._link.items("/secrets", project=project or None, limit=PAGE):
            yield from_json(Secret, item)

    def delete(self, name: str, project: str = SYSTEM, *, actor: str = "", reason: str = "") -> None:
        def look() -> Json:
            return self._is_gone(name, project) or None

        self._link.change("DELETE", "/secrets", look=look, project=project, name=name, reason=reason)

    def rotate(self, project: str = SYSTEM, *, actor: str = "", reason: str = "") -> Rotated:
        return from_json(Rotated, self._link.change("POST", "/secrets/rotate", {"project": project, "reason": reason}))

    def _is_gone(self, name: str, project: str) -> bool:
        return all((secret.project, secret.name) != (project, name) for secret in self.list(project))
