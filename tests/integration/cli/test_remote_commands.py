"""The program through a front end: whom it asks, what it shows there, what it cannot do there."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import deliveries
import pytest
from frontends import Stage, job
from integration.cli.homes import HELLO
from program import TIME_MAX_S, Home
from unit.test_receivers import BUILT
from waiting import wait_until

from distci.access import Action
from distci.events import BEGUN, ENDED
from distci.model import BuildId

FORK = "gitea/pull-request-event"
SECRET = "distci_" + "0" * 49


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Stage]:
    """A system on embedded back ends."""
    with ExitStack() as stack:
        yield Stage(stack, tmp_path, None, None)


@pytest.fixture
def remote(local: Stage) -> Home:
    """A user who has a front end of ``local``, and no back end."""
    api, _ = local.front_end()
    local.home.environment |= {"DISTCI_URL": api.url, "DISTCI_TOKEN": local.token}
    return local.home


class TestWhom:
    def test_a_flag_names_it(self, local: Stage, home: Home) -> None:
        api, _ = local.front_end()
        home.environment["DISTCI_TOKEN"] = local.token
        local.ci.jobs.put(job())

        assert home.json("job", "list", "--url", api.url) == [{"job": "team/hello"}]

    def test_who_names_back_ends_means_them(self, remote: Home) -> None:
        elsewhere = str(remote.folder / "elsewhere")
        remote.ask("job", "put", remote.file(HELLO), "--data", elsewhere)

        assert remote.ask("job", "list").stdout == ""
        assert remote.ask("job", "list", "--data", elsewhere).stdout == "team/hello\n"
        both = remote.ask("job", "list", "--data", elsewhere, "--url", "https://ci.example.org")
        assert both.exit_code == 2
        assert "leave out one or the other" in both.stderr

    def test_who_has_no_token_is_told_how_to_have_one(self, remote: Home) -> None:
        del remote.environment["DISTCI_TOKEN"]

        asked = remote.ask("job", "list")

        assert asked.exit_code == 6
        assert (
            "DISTCI_TOKEN_FILE; its owner makes one on the page, or by `token create` where the back ends"
            in asked.stderr
        )

    def test_tls_where_there_is_none_is_told(self, remote: Home) -> None:
        remote.environment["DISTCI_PATIENCE"] = "1s"

        asked = remote.ask("job", "list", "--url", remote.environment["DISTCI_URL"].replace("http://", "https://"))

        assert asked.exit_code == 4
        assert "does not answer by TLS; a front end itself speaks http://" in asked.stderr

    def test_the_token_may_be_in_a_file(self, local: Stage, remote: Home) -> None:
        del remote.environment["DISTCI_TOKEN"]
        unknown = remote.ask("job", "list")
        remote.environment["DISTCI_TOKEN_FILE"] = remote.file(f"{local.token}\n", "token")

        assert unknown.exit_code == 6
        assert remote.ask("job", "list").exit_code == 0

    @pytest.mark.parametrize("text", ["", "two words", "Authorization: Bearer x"])
    def test_a_file_without_a_token_is_named_and_not_shown(self, remote: Home, text: str) -> None:
        del remote.environment["DISTCI_TOKEN"]
        remote.environment["DISTCI_TOKEN_FILE"] = file = remote.file(text, "token")

        asked = remote.ask("job", "list")

        assert asked.exit_code == 2
        assert file in asked.stderr
        assert not text or text not in asked.stderr

    @pytest.mark.parametrize(
        ("url", "said"),
        [
            ("http://ci.example.org", "write https://"),
            (f"https://ada:{SECRET}@ci.example.org", "without user, password"),
            ("ci.example.org", "begins with https://"),
            ("https://ci.example.org/#jobs", "? and #"),
        ],
    )
    def test_another_url_is_refused(self, home: Home, url: str, said: str) -> None:
        asked = home.ask("job", "list", "--url", url)

        assert asked.exit_code == 2
        assert said in asked.stderr
        assert SECRET not in asked.stderr


class TestDirectly:
    @pytest.mark.parametrize(
        "command",
        [
            "up",
            "frontend",
            "cluster rebuild",
            "cluster upgrade",
            "login",
            "hook deliver github /dev/null",
            "hook collect none",
            "backup file:///tmp/none",
            "restore file:///tmp/none",
            "check",
            "bench store",
        ],
    )
    def test_what_works_on_back_ends_says_so(self, remote: Home, command: str) -> None:
        asked = remote.ask(*command.split())

        assert asked.exit_code == 2
        assert asked.stderr.count("\n") == 1
        assert "works on the back ends themselves" in asked.stderr
        assert "DISTCI_URL" in asked.stderr

    def test_a_worker_of_what_is_no_task_does_too(self, remote: Home) -> None:
        asked = remote.ask("worker", "run", "shell", "control")

        assert asked.exit_code == 2
        assert "control works on the back ends themselves" in asked.stderr

    def test_a_job_that_is_run_here_needs_neither(self, remote: Home) -> None:
        assert remote.ask("run", remote.file(HELLO)).exit_code == 0


class TestHooks:
    def test_a_worker_whose_token_does_not_fit_is_told_so_once_and_welcomed_by_nobody(self, remote: Home) -> None:
        refused = remote.ask("worker", "run", "shell")

        assert (refused.exit_code, refused.stdout) == (6, "")
        # All workers of a user share the folder in memory: what others have left there is swept up first.
        told = [line for line in refused.stderr.splitlines() if "leftovers of workers" not in line]
        assert len(told) == 1, refused.stderr

    def test_what_a_stranger_wrote_is_shown_approved_and_refused(self, local: Stage, remote: Home) -> None:
        # Given two changes of a fork
        local.ci.jobs.put(job(triggers=[{"type": "gitea", "repository": BUILT[FORK][1], "events": ["pull_request"]}]))
        body = deliveries.recorded(FORK)
        one, other = (
            local.ci.hooks.play("gitea", deliveries.headers(FORK, body, delivery), body).held
            for delivery in ("one", "other")
        )

        # When somebody looks at them through a front end, and decides
        assert {item["name"] for item in remote.json("hook", "list")} >= {"github", "gitea"}
        assert {item["id"] for item in remote.json("hook", "held")} == {one, other}
        assert remote.ask("hook", "approve", one).stdout == "team/hello#1\n"
        assert remote.ask("hook", "refuse", other).stdout == f"{other} is refused\n"

        # Then none waits, and it is on record who it was
        assert remote.json("hook", "held") == []
        assert remote.ask("hook", "approve", one).exit_code == 5
        assert local.ci.builds.get("team/hello#1").trigger.actor.endswith("(tests)")
        assert [*local.ci.builds.list("team/hello", before=1)] == []


class TestEvents:
    def test_those_that_may_be_read_are_listed_and_followed(self, local: Stage, remote: Home) -> None:
        # Given events of two projects, and somebody who may read one
        for name in ("team/hello", "other/hello"):
            local.ci.events.append(BEGUN, BuildId(name, 1), trigger="manual")
            local.ci.events.append(ENDED, BuildId(name, 1), result="passed")
        assert [event["number"] for event in remote.json("events", "--limit", "3")] == [2, 3, 4]
        remote.environment["DISTCI_TOKEN"] = local.ci.access.create_token("team", [Action.READ], project="team").text
        assert [event["number"] for event in remote.json("events")] == [1, 2]
        assert [event["number"] for event in remote.json("events", "--after", "1")] == [2]

        # When they follow, and more happens
        with remote.running("events", "--follow", "--json", "--limit", "1", until="team/hello#1") as process:
            for name in ("other/hello", "team/hello"):
                local.ci.events.append(BEGUN, BuildId(name, 2))
            # Then they hear of their own, once
            wait_until(lambda: "team/hello#2" in process.stdout)
            process.signal(signal.SIGINT)
            assert process.wait() == 130
            assert [json.loads(line)["number"] for line in process.stdout.splitlines()] == [2, 6]

    def test_while_the_front_end_is_away_who_follows_waits(self, local: Stage, home: Home) -> None:
        # Given somebody who follows through a front end
        api, front_end = local.front_end()
        home.environment |= {"DISTCI_URL": api.url, "DISTCI_TOKEN": local.token, "DISTCI_PATIENCE": "1s"}
        local.ci.events.append(BEGUN, BuildId("team/hello", 1))
        with home.running("events", "--follow", "--json", until="team/hello#1") as process:
            # When that is killed, something happens, and another one is there
            front_end.kill()
            wait_until(lambda: "waiting for it" in process.stderr)
            local.ci.events.append(ENDED, BuildId("team/hello", 1), result="passed")
            local.front_end("--listen", api.url.partition("//")[2])
            # Then it is told, once
            wait_until(lambda: "build-ended" in process.stdout)
            process.signal(signal.SIGINT)
            assert process.wait() == 130
            assert [json.loads(line)["number"] for line in process.stdout.splitlines()] == [1, 2]


class TestRights:
    def test_who_may_start_builds_of_a_project_needs_no_right_to_look_at_the_system(
        self, local: Stage, remote: Home
    ) -> None:
        local.ci.jobs.put(job())
        scopes = [Action.READ, Action.TRIGGER]
        remote.environment["DISTCI_TOKEN"] = local.ci.access.create_token("team", scopes, project="team").text

        triggered = remote.ask("build", "trigger", "team/hello")

        assert (triggered.exit_code, triggered.stdout, triggered.stderr) == (0, "team/hello#1\n", "")
        assert remote.ask("job", "put", remote.file(HELLO)).exit_code == 6

    def test_tokens_roles_and_the_audit_go_through_it(self, local: Stage, remote: Home) -> None:
        made = remote.json("token", "create", "reader", "--scope", "read", "--project", "team")[0]
        remote.ask("access", "grant", "ada@example.org", "owner", "--project", "team")
        remote.ask("access", "show", "internal", "--project", "team")
        revoked = remote.ask("token", "revoke", made["token"], "--reason", "was in a log")

        assert revoked.stdout == f"{made['id']} is revoked\n"
        listed = {item["id"]: item["state"] for item in remote.json("token", "list")}
        assert listed[made["id"]] == "revoked"
        assert remote.json("access", "list") == [
            {"subject": "ada@example.org", "role": "owner", "project": "team"},
            {"project": "team", "visibility": "internal"},
        ]
        done = {entry["what"]: entry for entry in remote.json("audit", "list", "--since", "1h")}
        assert {"token.create", "access.grant", "access.show", "token.revoke"} <= {*done}
        assert done["access.grant"]["who"].endswith("(tests)")

    def test_nobody_gives_what_they_do_not_have(self, local: Stage, remote: Home) -> None:
        remote.environment["DISTCI_TOKEN"] = local.ci.access.create_token("admin", [Action.ADMIN]).text

        assert remote.ask("token", "create", "more", "--scope", "admin").exit_code == 0
        refused = remote.ask("token", "create", "more", "--scope", "write")

        assert refused.exit_code == 6
        assert "may not give write in the whole system" in refused.stderr


def test_an_error_may_be_json(home: Home) -> None:
    home.environment |= {"DISTCI_URL": "http://127.0.0.1:1", "DISTCI_TOKEN": SECRET, "DISTCI_PATIENCE": "1s"}

    asked = home.ask("job", "list", "--json")

    error = json.loads(asked.stderr)
    assert (error["error"], error["exit_code"]) == ("Unavailable", 4)
    assert error["message"] == "http://127.0.0.1:1 does not answer (Connection refused)"


def test_no_back_end_is_loaded_for_it(remote: Home) -> None:
    slow = ("kazoo", "boto3", "sqlite3", "starlette")
    code = f"import sys, atexit; atexit.register(lambda: print([m for m in {slow} if m in sys.modules])); from distci.cli import main; main()"

    ran = subprocess.run(
        [sys.executable, "-c", code, "job", "list"],
        env=remote.environment,
        capture_output=True,
        text=True,
        timeout=TIME_MAX_S,
    )

    assert (ran.stdout, ran.stderr) == ("[]\n", "")
