"""Where a front end is found, and by which names it answers."""

from __future__ import annotations

import pytest

from distci.frontend.site import Site


@pytest.mark.parametrize(
    ("host", "is_known"),
    [
        ("127.0.0.1:8420", True),
        ("localhost", True),
        ("[::1]:80", True),
        ("ci.example.org", True),
        ("evil.example.org", False),
        ("ci.example.org.evil.org", False),
        ("127.0.0.1@evil.org", False),
        ("[", False),
        ("", False),
    ],
)
def test_on_loopback_it_answers_to_few_names_elsewhere_to_all(host: str, is_known: bool) -> None:
    assert Site("https://ci.example.org").knows(host) is is_known
    assert Site("https://ci.example.org", is_local=False).knows(host)


@pytest.mark.parametrize(
    ("origin", "is_own"),
    [
        ("http://127.0.0.1:8420", True),
        ("https://ci.example.org", True),
        ("https://ci.example.org:443", True),
        ("https://127.0.0.1:8420", False),
        ("http://ci.example.org", False),
        ("http://127.0.0.1:8421", False),
        ("http://localhost:8420", False),
        ("null", False),
        ("", False),
        ("http://[", False),
    ],
)
def test_a_change_comes_from_a_page_of_its_own(origin: str, is_own: bool) -> None:
    assert Site("https://ci.example.org").is_own(origin, "127.0.0.1:8420") is is_own


def test_behind_a_proxy_that_ends_tls_its_own_pages_come_by_that() -> None:
    assert Site().is_own("https://ci.example.org", "ci.example.org", "https")
    assert not Site().is_own("http://ci.example.org", "ci.example.org", "https")


def test_without_a_host_no_page_is_its_own() -> None:
    assert not Site().is_own("", "")
    assert not Site().is_own("null", "")
