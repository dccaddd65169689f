"""Login by an OpenID Connect provider: the authorization code flow with state, nonce and PKCE.

Two steps, and any front end may take the second: what must be remembered between them is in a signed cookie. The caller sends the person to
:attr:`Begun.url`, and gives what came back to :meth:`OidcLogin.finish`.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hmac import compare_digest
from threading import Lock
from time import monotonic as monotonic_clock
from time import time as wall_clock
from typing import Any
from urllib.parse import urlsplit

import requests
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.requests_client import OAuth2Session
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from distci.access.principals import Person
from distci.access.signing import Signing
from distci.errors import Invalid, NotAuthenticated, Unavailable

log = logging.getLogger(__name__)

PURPOSE = "login"
FLOW_S = 600
"""How long somebody may take at the provider."""
TIMEOUT_S = 10
LEEWAY_S = 60
"""How far the provider's clock may be from ours."""
KNOWN_S = 3600
"""How long what the provider says of itself is believed."""
AGAIN_S = 30
"""How soon its keys are fetched again for a token that is signed with another one."""
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""All by keys of which the provider alone has the private half."""
GROUP_CHARS_MAX = 200


class ProviderUnavailable(Unavailable):
    """The login provider did not answer, or not as one does."""


@dataclass(frozen=True, slots=True)
class Provider:
    """Who logs people in, and as whom we are known there."""

    issuer: str
    client_id: str
    client_secret: str
    scopes: str = "openid email profile"
    groups_claim: str = "groups"


@dataclass(frozen=True, slots=True)
class Begun:
    """A login that has begun."""

    url: str
    """Where to send the browser."""
    cookie: str
    """What the browser must keep until it comes back: ``HttpOnly; Secure; SameSite=Lax``, for ten minutes."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A login that has succeeded."""

    person: Person
    then: str
    """The path on this site that they wanted to go to."""


class OidcLogin:
    """Logins by one provider. Any thread may use it; it asks the provider over the network, for 10 seconds at most each time."""

    def __init__(
        self,
        provider: Provider,
        signing: Signing,
        clock: Callable[[], float] = wall_clock,
        monotonic: Callable[[], float] = monotonic_clock,
    ) -> None:
        self._provider = provider
        self._signing = signing
        self._clock = clock
        self._monotonic = monotonic
        self._lock = Lock()
        self._metadata: tuple[float, Mapping[str, Any]] | None = None
        self._keys: tuple[float, KeySet] | None = None

    def begin(self, redirect_uri: str, then: str = "/") -> Begun:
        """Where to send somebody who wants to log in; ``redirect_uri`` is where they come back to, as the provider knows it.

        Raises Unavailable when the provider or the tree does not answer.
        """
        flow = {
            "state": secrets.token_urlsafe(32),
            "nonce": secrets.token_urlsafe(32),
            "verifier": secrets.token_urlsafe(48),
            "then": then if _is_path_here(then) else "/",
            "redirect_uri": redirect_uri,
        }
        metadata = self._described()
        url, _ = self._session(redirect_uri).create_authorization_url(
            metadata["authorization_endpoint"],
            state=flow["state"],
            nonce=flow["nonce"],
            code_verifier=flow["verifier"],
        )
        return Begun(url, self._signing.sign(PURPOSE, flow, FLOW_S))

    def finish(self, query: Mapping[str, str], cookie: str) -> Finished:
        """Who has come back, with this query and the cookie of :meth:`begin`.

        NotAuthenticated for whatever is not just the end of that login; Unavailable when the provider or the tree does not answer.
        """
        flow = self._signing.read(PURPOSE, cookie)
        if not compare_digest(query.get("state", "").encode(), flow["state"].encode()):
            raise NotAuthenticated("that is not the end of a login that began in this browser; log in again")
        if query.get("iss", self._provider.issuer) != self._provider.issuer:
            raise NotAuthenticated("somebody else than the login provider sent you here; log in again")
        if "error" in query or not query.get("code"):
            raise NotAuthenticated(f"the login provider did not let you in: {_word(query.get('error', 'no code'))}")
        told = self._redeem(query["code"], flow)
        return Finished(self._person(self._claims(told, flow["nonce"])), flow["then"])

    def _redeem(self, code: str, flow: Mapping[str, Any]) -> str:
        """The ID token for a code."""
        try:
            told = self._session(flow["redirect_uri"]).fetch_token(
                self._described()["token_endpoint"],
                grant_type="authorization_code",
                code=code,
                code_verifier=flow["verifier"],
                timeout=TIMEOUT_S,
            )
        except AuthlibBaseError as error:
            raise NotAuthenticated(f"the login provider did not take the login: {_word(error.error)}") from error
        except (requests.RequestException, ValueError) as error:
            raise ProviderUnavailable(f"the login provider does not answer: {type(error).__name__}") from error
        token = told.get("id_token")
        if not isinstance(token, str):
            raise NotAuthenticated("the login provider did not say who you are")
        return token

    def _claims(self, token: str, nonce: str) -> Mapping[str, Any]:
        """What a token says that the provider has signed for us, for this login, and not too long ago."""
        registry = jwt.JWTClaimsRegistry(
            now=int(self._clock()),
            leeway=LEEWAY_S,
            iss={"essential": True, "value": self._provider.issuer},
            aud={"essential": True, "value": self._provider.client_id},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
            nonce={"essential": True, "value": nonce},
        )
        try:
            claims = self._decoded(token)
            registry.validate(claims)
        except (JoseError, ValueError) as error:
            log.warning("a token of the login provider was refused: %s", error)
            raise NotAuthenticated(f"what the login provider said does not hold: {_word(str(error))}") from error
        audience = claims["aud"]
        is_for_others = isinstance(audience, list) and len(audience) > 1
        if (is_for_others or "azp" in claims) and claims.get("azp") != self._provider.client_id:
            raise NotAuthenticated("what the login provider said was for somebody else")
        return claims

    def _decoded(self, token: str) -> dict[str, Any]:
        try:
            return dict(jwt.decode(token, self._key_set(KNOWN_S), algorithms=ALGORITHMS).claims)
        except (JoseError, ValueError):
            # It may be signed with a key that is newer than what we know.
            return dict(jwt.decode(token, self._key_set(AGAIN_S), algorithms=ALGORITHMS).claims)

    def _person(self, claims: Mapping[str, Any]) -> Person:
        """By the address if the provider has made sure of it; else by what it knows them by, which nobody can choose."""
        email = claims.get("email")
        is_sure = claims.get("email_verified") is True and isinstance(email, str)
        name = str(email).lower() if is_sure else f"oidc:{claims['sub']}"
        groups = claims.get(self._provider.groups_claim) or []
        listed = groups if isinstance(groups, list) else [groups]
        try:
            return Person(name, frozenset(group for group in listed if isinstance(group, str) and _is_group(group)))
        except Invalid as error:
            raise NotAuthenticated("the login provider knows you by a name that cannot be used here") from error

    def _session(self, redirect_uri: str) -> OAuth2Session:
        provider = self._provider
        return OAuth2Session(
            provider.client_id,
            provider.client_secret,
            scope=provider.scopes,
            redirect_uri=redirect_uri,
            code_challenge_method="S256",
        )

    def _described(self) -> Mapping[str, Any]:
        """What the provider says of itself."""
        with self._lock:
            known = self._metadata
        if known is not None and self._monotonic() - known[0] < KNOWN_S:
            return known[1]
        found = self._fetched(f"{self._provider.issuer.rstrip('/')}/.well-known/openid-configuration")
        if found.get("issuer") != self._provider.issuer:
            raise ProviderUnavailable(
                f"the login provider says that it is {found.get('issuer')!r}; see the setting oidc_issuer"
            )
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            if not is_safe_url(str(found.get(name, ""))):
                raise ProviderUnavailable(f"the login provider names no {name} that begins with https://")
        with self._lock:
            self._metadata = self._monotonic(), found
        return found

    def _key_set(self, age_s: float) -> KeySet:
        """The keys that the provider signs with, as of so long ago at most."""
        with self._lock:
            known = self._keys
        if known is not None and self._monotonic() - known[0] < age_s:
            return known[1]
        document = self._fetched(self._described()["jwks_uri"])
        usable = [key for key in document.get("keys", []) if isinstance(key, dict) and key.get("use", "sig") == "sig"]
        try:
            keys = KeySet.import_key_set({"keys": usable})
        except (JoseError, ValueError, KeyError) as error:
            raise ProviderUnavailable("the login provider's keys cannot be read") from error
        with self._lock:
            self._keys = self._monotonic(), keys
        return keys

    def _fetched(self, url: str) -> dict[str, Any]:
        try:
            answer = requests.get(url, timeout=TIMEOUT_S)
            answer.raise_for_status()
            document = answer.json()
        except (requests.RequestException, ValueError) as error:
            raise ProviderUnavailable(f"the login provider does not answer: {type(error).__name__}") from error
        if not isinstance(document, dict):
            raise ProviderUnavailable("the login provider answers with something else than an object")
        return document


def is_safe_url(url: str) -> bool:
    """Whether nobody on the way can read or change what goes there: by TLS, or on this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1"))


def _is_path_here(path: str) -> bool:
    """Whether a browser stays on this site by it; backslashes and two slashes lead elsewhere."""
    return path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()


def _is_group(group: str) -> bool:
    return 0 < len(group) <= GROUP_CHARS_MAX and group.isprintable()


def _word(text: object) -> str:
    """What somebody else said, short and on one line."""
    return "".join(character for character in str(text) if character.isprintable())[:100]
