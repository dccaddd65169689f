"""``distci hook``: deliveries from a terminal, the mail-drop, and what waits for an approval."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deliveries
import pytest
from program import Home
from unit.test_receivers import DROPPED

PUSH = "github/push-new-branch"
FORKED = "github/pull_request-opened"
SETTINGS = {"DISTCI_RECEIVERS_GITHUB_SECRETS": f"old-one {deliveries.SECRET}", "DISTCI_RECEIVERS_GITHUB_TOKEN": "t0ken"}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with a job that both GitHub and a mail-drop may start."""
    home = Home(tmp_path)
    home.environment |= SETTINGS
    triggers = [
        {"type": "github", "repository": "Codertocat/Hello-World", "events": ["push", "pull_request"]},
        {"type": "directory", "repository": "org/hello"},
    ]
    job = {"job": "team/hello", "triggers": triggers, "tasks": [{"name": "do", "type": "shell", "script": "true"}]}
    assert home.ask("job", "put", home.file(job)).exit_code == 0
    return home


def deliver(
    home: Home,
    name: str,
    *options: str,
    change: Callable[[dict[str, Any]], None] | None = None,
    secret: str = deliveries.SECRET,
) -> Any:
    body = deliveries.recorded(name, change)
    (home.folder / "body").write_bytes(body)
    headers = [f"--header={key}: {value}" for key, value in deliveries.headers(name, body, secret=secret).items()]
    return home.ask("hook", "deliver", name.partition("/")[0], str(home.folder / "body"), *headers, *options)


def of_fork(body: dict[str, Any]) -> None:
    body["pull_request"]["head"]["repo"]["full_name"] = "stranger/Hello-World"


def test_a_delivery_is_played_and_says_which_build_it_is(home: Home) -> None:
    assert [deliver(home, PUSH).stdout for _ in range(2)] == ["team/hello#1\n"] * 2
    [shown] = home.json("build", "show", "team/hello#1")
    assert shown["trigger"]["delivery"]["id"] == "delivery-1"
    assert shown["trigger"]["is_untrusted"] is False


def test_a_delivery_that_starts_nothing_says_why(home: Home) -> None:
    told = deliver(home, "github/ping")
    assert (told.exit_code, told.stdout) == (0, "ping delivery-1: nothing is built: pong\n")
    answer = json.loads(deliver(home, "github/push", "--json").stdout)
    assert (answer["reason"], answer["jobs"]) == ("refs/tags/simple-tag was deleted", [])


def test_a_delivery_may_have_to_prove_its_sender(home: Home) -> None:
    assert deliver(home, PUSH, "--verify").exit_code == 0
    for secret in ("another-one", "t0ken"):
        refused = deliver(home, PUSH, "--verify", secret=secret)
        assert refused.exit_code == 6
        assert deliveries.SECRET not in refused.stderr
    body = home.file("{}", "empty")
    assert home.ask("hook", "deliver", "gitlab", body, "--verify").exit_code == 6


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("gitub", "body"), 5, "no receiver 'gitub' is installed"),
        (("github", "none.json"), 1, "none.json: No such file"),
        (("github", "body"), 2, "github: the header X-GitHub-Event is missing"),
        (("github", "body", "--header", "X-GitHub-Event: push", "--header", "X-GitHub-Delivery: d"), 2, "github: ref: is missing, not a text"),
        (("github", "body", "--header", "nonsense"), 2, "write NAME: VALUE"),
    ],
)  # fmt: skip
def test_what_cannot_be_played_is_told_with_its_place(
    home: Home, arguments: tuple[str, ...], code: int, told: str
) -> None:
    home.file("{}", "body")
    ran = home.run("hook", "deliver", *arguments)
    assert ran.returncode == code
    assert told in ran.stderr
    assert "Traceback" not in ran.stderr


def test_receivers_are_listed_without_what_is_secret(home: Home) -> None:
    listed = {view["name"]: (view["secrets"], view["tells_status"]) for view in home.json("hook", "list")}
    assert listed["github"] == (2, True)
    assert listed["gitea"] == (0, False)
    shown = home.ask("hook", "list").stdout
    assert "waiting: no live worker has the token" in shown
    assert deliveries.SECRET not in shown
    assert "t0ken" not in shown


def test_what_a_stranger_wrote_is_shown_and_approved_and_its_build_says_so(home: Home) -> None:
    told = deliver(home, FORKED, change=of_fork)
    [held] = home.json("hook", "held")
    assert f"distci hook approve {held['id']}" in told.stdout
    assert held["change"]["pull_request"] == 2
    why = home.ask("why", held["id"]).stdout
    assert "waits for an approval" in why
    assert f"distci hook approve {held['id']}" in why
    assert "Update the README" in home.ask("hook", "held").stdout

    assert home.ask("hook", "approve", held["id"]).stdout == "team/hello#1\n"

    shown = home.ask("build", "show", "team/hello#1").stdout
    assert "trust         written by somebody without rights; no secrets" in shown
    assert "pull request  2" in shown
    assert home.json("hook", "held") == []
    assert home.ask("hook", "approve", held["id"]).exit_code == 5


def test_what_a_stranger_wrote_may_be_refused(home: Home) -> None:
    deliver(home, FORKED, change=of_fork)
    [held] = home.json("hook", "held")

    assert home.ask("hook", "refuse", held["id"]).exit_code == 0

    assert home.json("hook", "held") == []
    assert home.ask("hook", "refuse", held["id"]).exit_code == 5
    assert home.json("build", "list", "team/hello") == []


def test_files_of_a_drop_are_taken_or_refused_with_the_reason_beside_them(home: Home) -> None:
    drop = home.folder / "drop"
    drop.mkdir()
    (drop / "1.json").write_text(json.dumps(DROPPED))
    (drop / "2.json").write_text(json.dumps(DROPPED | {"comit": "x"}))
    (drop / "3.json").write_text(json.dumps(DROPPED | {"commit": "2" * 40}))
    (drop / "4.json.part").write_text("{")
    (drop / ".5.json").write_text("{")

    collected = home.ask("hook", "collect", str(drop))

    assert (collected.exit_code, collected.stdout) == (2, "team/hello#1\nteam/hello#2\n")
    assert "2.json: directory: comit: unknown key" in collected.stderr
    assert sorted(path.name for path in (drop / "taken").iterdir()) == ["1.json", "3.json"]
    assert (drop / "refused" / "2.json.reason").read_text().startswith("directory: comit: unknown key")
    assert sorted(path.name for path in drop.iterdir()) == [".5.json", "4.json.part", "refused", "taken"]
    assert home.ask("hook", "collect", str(drop)).exit_code == 0


def test_who_dies_before_a_file_is_put_away_starts_nothing_new(home: Home) -> None:
    drop = home.folder / "drop"
    drop.mkdir()
    (drop / "1.json").write_text(json.dumps(DROPPED))
    home.ask("hook", "collect", str(drop))
    (drop / "taken" / "1.json").rename(drop / "1.json")

    assert home.ask("hook", "collect", str(drop)).stdout == "team/hello#1\n"


def test_a_drop_that_is_not_there_is_named(home: Home) -> None:
    ran = home.run("hook", "collect", "nowhere")
    assert ran.returncode == 1
    assert "nowhere: No such file or directory" in ran.stderr
    assert home.run("hook", "collect", ".", "--receiver", "acme.mail").returncode == 5
