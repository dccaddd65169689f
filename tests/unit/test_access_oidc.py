"""Login by a provider, against one on this machine that signs real tokens."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey
from services.provider import CLIENT, SECRET, StandIn

from distci.access import Grant, Person, Role, Signing
from distci.access.oidc import OidcLogin, Provider, ProviderUnavailable, is_safe_url
from distci.access.rights import rules
from distci.coordination.sqlite import SqliteCoordination
from distci.errors import Invalid, NotAuthenticated
from distci.protocol.tree import Tree

CALLBACK = "https://ci.example.org/login/callback"


class Clock:
    ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


class Site:
    """Front ends that let people in by that provider."""

    def __init__(self, provider: StandIn, tree: Tree) -> None:
        self.provider = provider
        self.tree = tree
        self.clock = Clock()
        self.login = self.front_end()

    def front_end(self, **other: str) -> OidcLogin:
        known = {"issuer": self.provider.url, "client_id": CLIENT, "client_secret": SECRET, **other}
        return OidcLogin(Provider(**known), Signing(self.tree), monotonic=self.clock)

    def log_in(self, **changed: str) -> Person:
        """All of a login as a browser does it, with some of what comes back changed."""
        begun = self.login.begin(CALLBACK)
        return self.login.finish({**self.visit(begun.url), **changed}, begun.cookie).person

    def visit(self, url: str) -> dict[str, str]:
        """What the browser comes back with."""
        sent = requests.get(url, allow_redirects=False, timeout=10).headers["Location"]
        assert sent.startswith(f"{CALLBACK}?")
        return dict(parse_qsl(urlsplit(sent).query))


@pytest.fixture
def provider() -> Iterator[StandIn]:
    stand_in = StandIn()
    yield stand_in
    stand_in.close()


@pytest.fixture
def site(provider: StandIn, tmp_path: Path) -> Iterator[Site]:
    coordination = SqliteCoordination(tmp_path / "tree.sqlite")
    yield Site(provider, Tree(coordination))
    coordination.close()


def test_a1_a_person_is_who_the_provider_says(site: Site) -> None:
    assert site.log_in() == Person("ada@example.org", frozenset({"web", "admins"}))


def test_another_front_end_may_end_what_one_began(site: Site) -> None:
    begun = site.login.begin(CALLBACK, then="/jobs/team/a?x=1")
    finished = site.front_end().finish(site.visit(begun.url), begun.cookie)
    assert (finished.person.name, finished.then) == ("ada@example.org", "/jobs/team/a?x=1")


@pytest.mark.parametrize(
    "key", [ECKey.generate_key("P-256", {"kid": "e"}), RSAKey.generate_key(2048, {"kid": "r"})], ids=["EC", "RSA"]
)
def test_keys_of_both_usual_sorts_are_taken(site: Site, key: RSAKey | ECKey) -> None:
    site.provider.answers.key = key
    site.provider.answers.algorithm = "ES256" if isinstance(key, ECKey) else "PS256"
    assert site.log_in().name == "ada@example.org"


@pytest.mark.parametrize("verified", [False, None, "true", 1])
def test_an_address_that_nobody_vouches_for_is_no_name(site: Site, verified: object) -> None:
    site.provider.answers.forged = {"email_verified": verified}
    assert site.log_in().name == "oidc:u-1"


@pytest.mark.parametrize(
    "forged",
    [
        {"iss": "https://other.example.org"},
        {"iss": None},
        {"aud": "somebody-else"},
        {"aud": None},
        {"aud": [CLIENT, "other"]},
        {"aud": [CLIENT, "other"], "azp": "other"},
        {"azp": "other"},
        {"exp": 1_000_000},
        {"exp": None},
        {"iat": 5_000_000_000},
        {"nbf": 5_000_000_000},
        {"nonce": "other"},
        {"nonce": None},
        {"sub": None},
        {"email": "group:admins"},
        {"email": "everybody"},
    ],
    ids=str,
)
def test_what_does_not_hold_lets_nobody_in(site: Site, forged: dict[str, Any]) -> None:
    site.provider.answers.forged = forged
    with pytest.raises(NotAuthenticated):
        site.log_in()


def test_a_token_for_several_that_was_asked_for_by_us_is_taken(site: Site) -> None:
    site.provider.answers.forged = {"aud": [CLIENT, "other"], "azp": CLIENT}
    assert site.log_in().name == "ada@example.org"


def unsigned(claims: dict[str, Any]) -> str:
    parts = [json.dumps(part).encode() for part in ({"alg": "none"}, claims)]
    return ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), ""])


def signed_with(key: Any, algorithm: str) -> Callable[[dict[str, Any]], str]:
    return lambda claims: jwt.encode({"alg": algorithm, "kid": "one"}, claims, key)


def test_tokens_that_the_provider_did_not_sign_are_refused(site: Site) -> None:
    public = json.dumps(site.provider.answers.key.as_dict(private=False)).encode()
    forgers: list[Callable[[dict[str, Any]], str]] = [
        unsigned,
        signed_with(RSAKey.generate_key(2048), "RS256"),
        signed_with(OctKey.import_key(public), "HS256"),
        signed_with(OctKey.import_key(SECRET + "x" * 32), "HS256"),
        lambda claims: "no.token.atall",
        lambda claims: "",
    ]
    for forger in forgers:
        site.provider.answers.token = forger
        with pytest.raises(NotAuthenticated):
            site.log_in()


def test_j_the_state_must_be_that_of_this_browser(site: Site) -> None:
    begun, others = site.login.begin(CALLBACK), site.login.begin(CALLBACK)
    returned = site.visit(begun.url)
    for query, cookie in (
        (returned, others.cookie),
        ({**returned, "state": "x"}, begun.cookie),
        ({"code": returned["code"]}, begun.cookie),
        (returned, ""),
        (returned, begun.cookie[:-1]),
    ):
        with pytest.raises(NotAuthenticated):
            site.login.finish(query, cookie)
    assert site.login.finish(returned, begun.cookie).person.name == "ada@example.org"


def test_a_code_that_was_stolen_is_worth_nothing_without_its_verifier(site: Site) -> None:
    theirs, ours = site.login.begin(CALLBACK), site.login.begin(CALLBACK)
    stolen = site.visit(theirs.url)["code"]
    with pytest.raises(NotAuthenticated, match="invalid_grant"):
        site.login.finish({**site.visit(ours.url), "code": stolen}, ours.cookie)


def test_a_login_happens_once(site: Site) -> None:
    begun = site.login.begin(CALLBACK)
    returned = site.visit(begun.url)
    site.login.finish(returned, begun.cookie)
    with pytest.raises(NotAuthenticated):
        site.login.finish(returned, begun.cookie)


@pytest.mark.parametrize("changed", [{"iss": "https://other.example.org"}, {"error": "access_denied"}, {"code": ""}])
def test_an_end_that_is_none_lets_nobody_in(site: Site, changed: dict[str, str]) -> None:
    with pytest.raises(NotAuthenticated):
        site.log_in(**changed)


@pytest.mark.parametrize(
    "then", ["https://evil.example.org", "//evil.example.org", "/\\evil.example.org", "evil", "", "/a\nb"]
)
def test_nobody_is_sent_elsewhere_after_the_login(site: Site, then: str) -> None:
    begun = site.login.begin(CALLBACK, then)
    assert site.login.finish(site.visit(begun.url), begun.cookie).then == "/"


def test_a_wrong_secret_of_ours_is_told_and_not_shown(site: Site) -> None:
    site.login = site.front_end(client_secret="wrong-one")
    with pytest.raises(NotAuthenticated, match="invalid_client") as refused:
        site.log_in()
    assert "wrong-one" not in str(refused.value)


def test_new_keys_of_the_provider_are_fetched_when_they_are_met(site: Site) -> None:
    site.log_in()
    site.provider.answers.key = RSAKey.generate_key(2048, {"kid": "two", "use": "sig"})
    site.clock.ahead += 31
    assert site.log_in().name == "ada@example.org"
    assert site.provider.fetched.count("/keys") == 2
    assert site.provider.fetched.count("/.well-known/openid-configuration") == 1


def test_whoever_sends_bad_tokens_makes_nobody_fetch_keys_all_the_time(site: Site) -> None:
    site.log_in()
    site.provider.answers.token = signed_with(RSAKey.generate_key(2048), "RS256")
    for _ in range(5):
        with pytest.raises(NotAuthenticated):
            site.log_in()
    assert site.provider.fetched.count("/keys") == 1


def test_a_provider_that_is_away_is_an_outage_and_no_refusal(site: Site) -> None:
    site.provider.answers.is_away = True
    with pytest.raises(ProviderUnavailable):
        site.login.begin(CALLBACK)


def test_a_provider_that_says_to_be_another_is_not_believed(site: Site) -> None:
    site.provider.answers.issuer = "https://other.example.org"
    with pytest.raises(ProviderUnavailable, match="oidc_issuer"):
        site.login.begin(CALLBACK)


def test_keys_that_cannot_be_read_are_an_outage(site: Site) -> None:
    site.provider.answers.published = [{"kty": "RSA", "n": "?"}]
    with pytest.raises((ProviderUnavailable, NotAuthenticated)):
        site.log_in()


@pytest.mark.parametrize(
    ("url", "is_safe"),
    [
        ("https://id.example.org/x", True),
        ("http://localhost:8080", True),
        ("http://127.0.0.1", True),
        ("http://id.example.org", False),
        ("http://localhost.example.org", False),
        ("ftp://x", False),
        ("", False),
    ],
)
def test_secrets_go_by_tls_alone(url: str, is_safe: bool) -> None:
    assert is_safe_url(url) == is_safe


def test_roles_of_the_settings() -> None:
    assert rules("group:a=b=owner; *@example.org=viewer@team/web;") == [
        Grant("group:a=b", Role.OWNER),
        Grant("*@example.org", Role.VIEWER, "team/web"),
    ]


@pytest.mark.parametrize("text", ["x", "x=king", "=owner", "a b=owner", "x=owner@-bad", "*=owner"])
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        rules(text)
