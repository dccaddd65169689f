"""Gitea and Forgejo: https://docs.gitea.com/usage/webhooks. What they send is close to GitHub's, under headers of their own."""

from __future__ import annotations

from collections.abc import Sequence

from distci.receivers import forge
from distci.receivers.port import Call, Change, Command, Headers, Ignored, Status
from distci.receivers.reading import Fields, header, is_signed

EVENT = ("X-Gitea-Event", "X-Forgejo-Event")
DELIVERY = ("X-Gitea-Delivery", "X-Forgejo-Delivery")
SIGNATURE = ("x-gitea-signature", "x-forgejo-signature")


class Gitea:
    """Pushes, tags, pull requests and comments on these; proved by the body's HMAC under the webhook's secret."""

    name = "gitea"
    api_url = ""
    has_sealed_bodies = True

    def verify(self, headers: Headers, body: bytes, secrets: Sequence[str]) -> bool:
        signature = next((headers[name] for name in SIGNATURE if headers.get(name)), "")
        return is_signed(body, signature, secrets)

    def read(self, headers: Headers, body: bytes) -> Change | Command | Ignored:
        event, delivery = header(headers, *EVENT), header(headers, *DELIVERY)
        fields = Fields.of_body(headers, body)
        match event:
            case "push":
                total = fields.number("total_commits", -1)
                return forge.read_push(delivery, fields, forge.pushed_paths(fields, total if total >= 0 else None))
            case "pull_request" | "pull_request_sync":
                return forge.read_pull_request(delivery, fields)
            case "issue_comment":
                return forge.read_issue_comment(delivery, fields)
            case "create" | "delete":
                what = f"{fields.text('ref_type')} {fields.text('ref')}"
                return Ignored(delivery, event, f"{what}: the push that comes beside it says more")
        return Ignored(delivery, event, f"nothing is built for {event}")

    def call(self, api_url: str, token: str, status: Status) -> Call | None:
        return forge.status_call(api_url, {"Authorization": f"token {token}"}, status, "limit=50")
