"""Secrets from a key-value store that is asked as HashiCorp Vault and OpenBao are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import requests

from distci.errors import Invalid, Unavailable
from distci.providers.port import Options

ANSWER_S = 10.0
"""How long one answer is waited for."""
OPTIONS = ("url", "path", "token_file", "field", "ca")
LOCAL = ("localhost", "127.0.0.1", "::1")


class Vault:
    """The secret ``NAME`` of the project ``team/web`` is the field ``value`` of what is at ``PATH/team/web/NAME``; of the whole system, at ``PATH/NAME``.

    Options: ``url`` (https, or http on this machine), ``path`` (below ``/v1/``: ``secret/data/distci`` of a mount ``secret`` of version 2, ``secret/distci`` of
    version 1), ``token_file`` (read each time, so that an agent may renew it), and if need be ``field`` and ``ca``, a PEM file.
    """

    def __init__(self, options: Options, environment: Mapping[str, str]) -> None:
        if unknown := sorted({*options} - {*OPTIONS}):
            raise Invalid(f"takes no {', '.join(unknown)}; it takes {', '.join(OPTIONS)}")
        if missing := [name for name in OPTIONS[:3] if not options.get(name)]:
            raise Invalid(f"lacks {', '.join(missing)}")
        parts = urlsplit(options["url"])
        if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOCAL)):
            raise Invalid("url must begin with https://, or with http:// on this machine")
        self._place = f"{options['url'].rstrip('/')}/v1/{quote(options['path'].strip('/'))}"
        self._token_file = Path(options["token_file"])
        self._field = options.get("field", "value")
        self._ca = options.get("ca") or True

    def get(self, project: str, name: str) -> str | None:
        where = f"{self._place}/{quote(project)}/{name}" if project else f"{self._place}/{name}"
        document = self._read(where)
        if document is None:
            return None
        data: Any = document.get("data")
        # Version 2 wraps the data once more, with what it knows of them.
        if isinstance(data, dict) and isinstance(data.get("data"), dict) and "metadata" in data:
            data = data["data"]
        value = data.get(self._field) if isinstance(data, dict) else None
        if not isinstance(value, str):
            raise Invalid(f"secrets: what is at {where} has no text in its field {self._field}")
        return value

    def _read(self, where: str) -> Mapping[str, Any] | None:
        """What is there; None for nothing. A refusal is no answer: a token that has expired is refused everywhere."""
        try:
            token = self._token_file.read_text().strip()
            # No redirect: the token is for that host alone. No proxy or .netrc of the environment, either.
            with requests.Session() as session:
                session.trust_env = False
                answer = session.get(
                    where,
                    headers={"X-Vault-Token": token, "X-Vault-Request": "true"},
                    timeout=ANSWER_S,
                    verify=self._ca,
                    allow_redirects=False,
                )
            if answer.status_code == 404:
                return None
            if answer.status_code != 200:
                raise Unavailable(f"secrets: {where} is answered with {answer.status_code}")
            document = answer.json()
        except (OSError, UnicodeDecodeError, ValueError) as error:
            # requests raises OSErrors, too, and ValueErrors for what is no JSON, which would quote it.
            raise Unavailable(f"secrets: {where}: {type(error).__name__}") from None
        return document if isinstance(document, dict) else {}
