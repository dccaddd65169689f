"""An OpenID Connect provider on this machine, which signs real tokens."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

CLIENT, SECRET = "distci", "s3cret"


@cache
def signing_key() -> RSAKey:
    """The same for all of a process: making one takes longer than most tests."""
    return RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})


@dataclass
class Answers:
    """How the provider answers; a test changes what it is about."""

    claims: dict[str, Any] = field(
        default_factory=lambda: {
            "sub": "u-1",
            "email": "Ada@Example.org",
            "email_verified": True,
            "groups": ["web", "admins"],
        }
    )
    forged: dict[str, Any] = field(default_factory=dict)
    """Claims in place of what would be right; None: left out."""
    issuer: str = ""
    key: RSAKey | ECKey = field(default_factory=signing_key)
    algorithm: str = "RS256"
    published: list[Mapping[str, Any]] | None = None
    is_away: bool = False
    token: Callable[[dict[str, Any]], str] | None = None
    """Makes the token in place of signing it."""


class StandIn:
    """An OpenID Connect provider: discovery, keys, authorization, token."""

    def __init__(self) -> None:
        self.answers = Answers()
        self.codes: dict[str, dict[str, str]] = {}
        self.fetched: list[str] = []
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stand_in.get(self)

            def do_POST(self) -> None:
                stand_in.post(self)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def get(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        self.fetched.append(parts.path)
        if self.answers.is_away:
            handler.send_error(503)
        elif parts.path == "/.well-known/openid-configuration":
            endpoints = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
            described = {name: f"{self.url}/{path}" for name, path in endpoints.items()}
            _answer(handler, {"issuer": self.answers.issuer or self.url, **described})
        elif parts.path == "/keys":
            published = self.answers.published
            _answer(handler, {"keys": [self.answers.key.as_dict(private=False)] if published is None else published})
        else:
            asked = dict(parse_qsl(parts.query))
            assert asked["response_type"] == "code"
            assert asked["code_challenge_method"] == "S256"
            code = secrets.token_urlsafe()
            self.codes[code] = asked
            handler.send_response(302)
            query = urlencode({"code": code, "state": asked["state"]})
            handler.send_header("Location", f"{asked['redirect_uri']}?{query}")
            handler.end_headers()

    def post(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"])).decode()
        told = {name: values[0] for name, values in parse_qs(body).items()}
        asked = self.codes.pop(told.get("code", ""), None)
        basic = "Basic " + base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        if handler.headers["Authorization"] != basic:
            _answer(handler, {"error": "invalid_client"}, 401)
        elif asked is None or told["redirect_uri"] != asked["redirect_uri"] or not _fits(told, asked):
            _answer(handler, {"error": "invalid_grant"}, 400)
        else:
            _answer(handler, {"access_token": "x", "token_type": "Bearer", "id_token": self._token(asked["nonce"])})

    def _token(self, nonce: str) -> str:
        now = int(time.time())
        right = {"iss": self.url, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": nonce}
        told = {**right, **self.answers.claims, **self.answers.forged}
        claims = {name: value for name, value in told.items() if value is not None}
        if self.answers.token is not None:
            return self.answers.token(claims)
        header = {"alg": self.answers.algorithm, "kid": self.answers.key.kid}
        return jwt.encode(header, claims, self.answers.key, algorithms=[self.answers.algorithm])


def _fits(told: Mapping[str, str], asked: Mapping[str, str]) -> bool:
    digest = hashlib.sha256(told.get("code_verifier", "").encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == asked["code_challenge"]


def _answer(handler: BaseHTTPRequestHandler, document: Mapping[str, Any], code: int = 200) -> None:
    data = json.dumps(document).encode()
    handler.send_response(code)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)
