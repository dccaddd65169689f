"""Deliveries as forges send them: recorded bodies, and the headers that come with them."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent / "data" / "webhooks"
SECRET = "a-secret-of-the-webhook"
EVENTS = {
    "pull-request": "pull_request",
    "push": "push",
    "create": "create",
    "delete": "delete",
    "issue-comment": "issue_comment",
}

Change = Callable[[Any], Any]


def sign(body: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def recorded(name: str, change: Callable[[dict[str, Any]], None] | None = None) -> bytes:
    """A recorded body, ``github/push``; as it was recorded byte for byte, unless it is changed."""
    body = (RECORDED / f"{name}.json").read_bytes()
    if change is None:
        return body
    document = json.loads(body)
    change(document)
    return json.dumps(document).encode()


def headers(name: str, body: bytes, delivery: str = "delivery-1", secret: str = SECRET) -> Mapping[str, str]:
    """What stands above a body of that name."""
    forge, _, event = name.partition("/")
    if forge == "github":
        return {
            "X-GitHub-Event": event.partition("-")[0],
            "X-GitHub-Delivery": delivery,
            "X-Hub-Signature-256": f"sha256={sign(body, secret)}",
            "Content-Type": "application/json",
        }
    if forge == "gitea":
        return {
            "X-Gitea-Event": EVENTS[event.removesuffix("-event")],
            "X-Gitea-Delivery": delivery,
            "X-Gitea-Signature": sign(body, secret),
        }
    return {"X-Gitlab-Event": event, "X-Gitlab-Token": secret, "Idempotency-Key": delivery}
