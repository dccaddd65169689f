"""``distci token``, ``access`` and ``audit`` in the hands of a user."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
from program import Home
from waiting import wait_until

from distci.app import connect
from distci.cli.audit import since_ms
from distci.cli.token import lifetime_s
from distci.errors import Invalid, NotAuthenticated
from distci.store.directory import DirectoryStore


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def made(home: Home, *arguments: str) -> dict[str, object]:
    [token] = home.json("token", "create", *arguments)
    assert isinstance(token, dict)
    return token


def test_a_token_is_printed_alone_and_once(home: Home) -> None:
    created = home.ask("token", "create", "nightly", "--scope", "trigger")
    [text] = created.stdout.splitlines()
    with connect(home.folder / ".local/share/distci") as system:
        assert system.access.authenticate(text).name.endswith("(nightly)")
    assert text not in home.ask("token", "list").output
    assert text not in home.ask("token", "list", "--json").output
    assert text not in home.ask("audit", "list", "--json").output


def test_a_token_is_as_it_was_asked_for(home: Home) -> None:
    token = made(
        home,
        "x",
        "--scope",
        "read",
        "--scope",
        "write",
        "--project",
        "team",
        "--for",
        "ada@example.org",
        "--expires",
        "12h",
    )
    told = {name: token[name] for name in ("label", "scopes", "project", "person", "state")}
    assert told == {
        "label": "x",
        "scopes": ["read", "write"],
        "project": "team",
        "person": "ada@example.org",
        "state": "valid",
    }
    assert float(str(token["expires_s"])) - float(str(token["created_s"])) == 12 * 3600


def test_a_revoked_token_is_refused_at_once_by_others(home: Home) -> None:
    token = made(home, "x", "--scope", "read")
    with connect(home.folder / ".local/share/distci") as system:
        system.access.authenticate(str(token["token"]))
        assert home.ask("token", "revoke", str(token["id"])[:6], "--reason", "leaked").exit_code == 0
        begun = time.monotonic()

        def is_refused() -> bool:
            try:
                system.access.authenticate(str(token["token"]))
            except NotAuthenticated:
                return True
            return False

        wait_until(is_refused)
        assert time.monotonic() - begun < 3
    [listed] = home.json("token", "list")
    assert (listed["state"], listed["reason"]) == ("revoked", "leaked")


@pytest.mark.parametrize("step", ["begun.json", "000000002", "ended.json"])
def test_a_revocation_that_was_killed_is_done_or_not_and_done_by_asking_again(home: Home, step: str) -> None:
    token = made(home, "x", "--scope", "read")
    store = DirectoryStore(home.folder / ".local/share/distci/store")

    def count() -> int:
        return sum(info.key.endswith(f"/{step}") for info in store.list(""))

    before = count()
    with home.running("token", "revoke", str(token["id"])) as process:
        wait_until(lambda: count() > before)
        process.signal(signal.SIGKILL)
        process.wait()
    with connect(home.folder / ".local/share/distci") as system:
        [record] = system.access.tokens()
        assert record.revoked_s or step == "begun.json"
        system.access.revoke_token(str(token["id"]))
        with pytest.raises(NotAuthenticated):
            system.access.authenticate(str(token["token"]))
        assert len([*system.store.list("access/changes/")]) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("token", "create", "x"), "needs a scope"),
        (("token", "create", "x", "--worker", "shell", "--scope", "read"), "leave out --scope"),
        (("token", "create", "x", "--scope", "read", "--label", "a"), "takes --worker"),
        (("token", "create", "x", "--scope", "read", "--expires", "soon"), "write for example"),
        (("token", "create", "x", "--scope", "read", "--expires", "9999d"), "within five years"),
        (("token", "create", " ", "--scope", "read"), "needs a label"),
        (("token", "create", "x", "--scope", "read", "--project", "a//b"), "segment"),
        (("token", "create", "x", "--scope", "work"), "work"),
        (("access", "grant", "a b", "owner"), "is nobody"),
        (("access", "grant", "ada@example.org", "king"), "king"),
        (("audit", "list", "--since", "yesterday"), "is no time"),
    ],
)
def test_what_cannot_be_is_refused_with_a_reason(home: Home, arguments: tuple[str, ...], said: str) -> None:
    asked = home.ask(*arguments)
    assert asked.exit_code == 2
    assert said in asked.output


def test_roles_and_visibilities_are_listed_for_programs(home: Home) -> None:
    home.ask("access", "grant", "group:web", "editor", "--project", "team/web")
    home.ask("access", "show", "internal", "--project", "team")
    assert home.json("access", "list") == [
        {"subject": "group:web", "role": "editor", "project": "team/web"},
        {"project": "team", "visibility": "internal"},
    ]
    home.ask("access", "revoke", "group:web", "--project", "team/web")
    home.ask("access", "show", "as-around", "--project", "team")
    assert home.json("access", "list") == []


def test_the_audit_says_who_did_what(home: Home) -> None:
    home.environment["DISTCI_ACTOR"] = "ada"
    job = home.file({"job": "team/a", "tasks": [{"name": "t", "type": "shell", "script": "true"}]})
    home.ask("job", "put", job, "--reason", "first")
    home.ask("build", "trigger", "team/a")
    home.ask("cluster", "pause", "shell")
    home.ask("worker", "drain", "nobody")
    entries = home.json("audit", "list")
    assert [(entry["who"], entry["what"], entry["target"], entry["outcome"][:7]) for entry in entries] == [
        ("ada", "job.put", "team/a", "done"),
        ("ada", "build.trigger", "team/a#1", "done"),
        ("ada", "cluster.pause", "shell", "done"),
        ("ada", "worker.drain", "nobody", "refused"),
    ]
    assert [entry["what"] for entry in home.json("audit", "list", "--what", "job")] == ["job.put"]
    assert home.json("audit", "list", "--who", "bob") == []
    assert home.json("audit", "list", "--since", "2999-01-01") == []
    assert json.loads(home.ask("audit", "list", "--json").stdout.splitlines()[0])["reason"] == "first"


def test_settings_that_give_roles_to_nobody_are_refused(home: Home) -> None:
    home.environment["DISTCI_OIDC_ROLES"] = "group:web=king"
    asked = home.ask("cluster", "resume")
    assert (asked.exit_code, "group:web=king" in asked.output) == (2, True)


@pytest.mark.parametrize(("text", "seconds"), [("30m", 1800), ("12h", 43200), ("90d", 7776000)])
def test_lengths_of_time(text: str, seconds: float) -> None:
    assert lifetime_s(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "0d", "-1d", "1w", "1.5d", "1d "])
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(Invalid):
        lifetime_s(text)


def test_moments() -> None:
    assert abs(since_ms("1h") / 1000 - (time.time() - 3600)) < 10
    assert since_ms("2026-11-25") < since_ms("2026-11-25 09:00") < since_ms("2026-11-25T09:00:01")
