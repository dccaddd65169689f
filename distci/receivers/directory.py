"""A mail-drop: each JSON file in a folder is a delivery. Whatever can write a file can start builds: a mail filter, a cron job, a hook of
a repository on the same machine; and it is the example of a receiver.

A file says what a :class:`~distci.receivers.port.Change` holds, by the same names::

    {"event": "push", "repository": "org/hello", "urls": ["/srv/git/hello.git"],
     "ref": "refs/heads/main", "branch": "main", "commit": "4f2a..."}

``distci hook collect`` takes them in. Who sends one by HTTP proves that they know a secret, as GitHub does, in ``X-DistCI-Signature``.
"""

from __future__ import annotations

from collections.abc import Sequence

from distci.errors import InvalidDocument
from distci.receivers.port import Call, Change, Headers, Ignored, Status
from distci.receivers.reading import Fields, header, is_signed

KEYS = frozenset(
    (
        *("event", "repository", "urls", "ref", "commit", "branch", "tag", "before", "paths"),
        *("actor", "pull_request", "message", "trusted"),
    )
)


class Directory:
    """Changes as somebody wrote them down."""

    name = "directory"
    api_url = ""
    has_sealed_bodies = False

    def verify(self, headers: Headers, body: bytes, secrets: Sequence[str]) -> bool:
        return is_signed(body, headers.get("x-distci-signature", "").removeprefix("sha256="), secrets)

    def read(self, headers: Headers, body: bytes) -> Change | Ignored:
        fields = Fields.of_body(headers, body)
        unknown = sorted({*fields.keys()} - KEYS)
        if unknown:
            raise InvalidDocument(f"{unknown[0]}: unknown key; known are: {', '.join(sorted(KEYS))}")
        return Change(
            delivery=header(headers, "X-DistCI-Delivery"),
            event=fields.text("event"),
            repository=fields.text("repository"),
            urls=fields.texts("urls"),
            ref=fields.text("ref"),
            commit=fields.text("commit"),
            branch=fields.text("branch", ""),
            tag=fields.text("tag", ""),
            before=fields.text("before", ""),
            paths=fields.texts("paths") if "paths" in fields else None,
            actor=fields.text("actor", ""),
            pull_request=fields.number("pull_request", 0),
            message=fields.text("message", ""),
            is_trusted=fields.flag("trusted", True),
        )

    def call(self, api_url: str, token: str, status: Status) -> Call | None:
        return None
