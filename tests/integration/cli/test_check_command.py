"""``distci check``: whether a machine and its back ends are fit."""

from __future__ import annotations

import json
import re

import pytest
from program import Home
from services import STORES


class TestCheck:
    @pytest.mark.parametrize("busy", ["beside it"], indirect=True)
    def test_a_fit_system(self, busy: Home) -> None:
        checked = busy.ask("check")

        assert busy.json("check")

        assert checked.exit_code == 0
        assert "problem" not in checked.stdout
        assert "3 live" in checked.stdout

    @pytest.mark.parametrize("store_url", [kind for kind in STORES if kind != "directory"], indirect=True)
    def test_a_store_elsewhere_is_tried(self, home: Home, store_url: str) -> None:
        checked = home.ask("check", "--store", store_url)

        assert checked.exit_code == 0, checked.stdout
        assert re.search("store +ok +reads and lists", checked.stdout)

    @pytest.mark.parametrize("store_url", ["gateway", "rados"], indirect=True)
    def test_a_stranger_to_the_store_is_told_so(self, home: Home, store_url: str) -> None:
        url = store_url.replace("access_key=tests", "access_key=nobody").replace("client.admin", "client.nobody")

        checked = home.ask("check", "--store", url)

        assert checked.exit_code == 2
        assert re.search("store +problem +.*(InvalidAccessKeyId|permission denied)", checked.stdout)

    def test_another_session_timeout_than_was_asked_for_is_told(self, home: Home, zookeeper_url: str) -> None:
        home.environment |= {"DISTCI_COORDINATION": zookeeper_url, "DISTCI_SESSION_TIMEOUT": "90s"}

        checked = home.ask("check")

        assert checked.exit_code == 0
        assert "s, not the 90 s of session_timeout" in checked.stdout
        assert "maxSessionTimeout" in checked.stdout

    def test_all_wrong_settings_are_told_at_once(self, home: Home) -> None:
        config = home.file('coordination = "foo://x"\nstore = "s3://"\nsesion_timeout = "9s"', "distci.toml")

        checked = home.ask("check", "--config", config, "--json")
        plain = home.ask("check", "--config", config)

        findings = [json.loads(line) for line in checked.stdout.splitlines()]
        problems = [finding["detail"] for finding in findings if finding["state"] == "problem"]
        assert checked.exit_code == 2
        assert [any(word in problem for problem in problems) for word in ("foo://x", "s3://", "sesion_timeout")]
        assert len(problems) == 3
        assert plain.stdout.count("settings: correct it") == 1
        assert all(finding["remedy"] for finding in findings if finding["state"] == "problem")

    def test_a_missing_command_and_a_bad_folder_are_both_told(self, home: Home) -> None:
        home.environment["DISTCI_SEARCH_PATH"] = str(home.folder)

        checked = home.ask("check", "--data", home.file("a file", "data"))

        problems = [line.split()[0] for line in checked.stdout.splitlines() if " problem " in line]
        assert problems == ["sh", "git", "data", "coordination", "store"]
        assert checked.exit_code == 4
