"""GitHub: https://docs.github.com/en/webhooks/webhook-events-and-payloads."""

from __future__ import annotations

from collections.abc import Sequence

from distci.receivers import forge
from distci.receivers.port import Call, Change, Command, Headers, Ignored, Status
from distci.receivers.reading import Fields, header, is_signed

SIGNED = "sha256="
COMMITS_MAX = 2048
"""Commits of a push that are named; where there are so many, there may be more."""


class GitHub:
    """Pushes, tags, pull requests and comments on these; proved by the body's HMAC under the webhook's secret."""

    name = "github"
    api_url = "https://api.github.com"
    has_sealed_bodies = True

    def verify(self, headers: Headers, body: bytes, secrets: Sequence[str]) -> bool:
        signature = headers.get("x-hub-signature-256", "")
        return is_signed(body, signature.removeprefix(SIGNED), secrets) and signature.startswith(SIGNED)

    def read(self, headers: Headers, body: bytes) -> Change | Command | Ignored:
        event, delivery = header(headers, "X-GitHub-Event"), header(headers, "X-GitHub-Delivery")
        fields = Fields.of_body(headers, body)
        match event:
            case "push":
                named = sum(1 for _ in fields.objects("commits"))
                paths = forge.pushed_paths(fields, None) if named < COMMITS_MAX else None
                return forge.read_push(delivery, fields, paths)
            case "pull_request":
                return forge.read_pull_request(delivery, fields)
            case "issue_comment":
                return forge.read_issue_comment(delivery, fields)
            case "ping":
                return Ignored(delivery, event, "pong")
            case "create" | "delete":
                what = f"{fields.text('ref_type')} {fields.text('ref')}"
                return Ignored(delivery, event, f"{what}: the push that comes beside it says more")
        return Ignored(delivery, event, f"nothing is built for {event}")

    def call(self, api_url: str, token: str, status: Status) -> Call | None:
        headers = {
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {token}",
            "X-GitHub-Api-Version": "2022-11-28",
        }
        return forge.status_call(api_url, headers, status, "per_page=100")
