"""What is printed for programs, and where printing ends."""

from __future__ import annotations

import json
import os
import re
import subprocess

import pytest
from integration.cli.homes import HELLO, WRONG
from program import Home


class TestJson:
    @pytest.mark.parametrize(
        "command",
        [
            "job list",
            "job get team/hello",
            "job history team/hello",
            "job diff team/hello",
            "build list team/hello",
            "build show team/broken#1",
            "build log team/bytes#1",
            "artifact list team/hello#1",
            "worker list",
        ],
    )
    def test_what_is_printed_is_an_object_a_line(self, busy: Home, command: str) -> None:
        printed = busy.json(*command.split())

        assert printed
        assert all(isinstance(value, dict) for value in printed)

    @pytest.mark.parametrize(
        "command",
        [
            "job get team/none",
            "job list --bogus",
            "job put",
            "build list team/none",
            "build show none",
            "build wait team/hello#1 --timeout soon",
            "artifact list team/hello#99",
            "ticket show none",
            "worker drain none",
            "job list --config none.toml",
            "nonsense",
        ],
    )
    def test_so_is_what_went_wrong(self, busy: Home, command: str) -> None:
        asked = busy.ask(*command.split(), "--json")

        error = json.loads(asked.stderr)
        assert asked.stdout == ""
        assert error["exit_code"] == asked.exit_code
        assert error["message"]

    def test_so_are_all_problems_of_a_job(self, home: Home) -> None:
        linted = home.ask("job", "lint", home.file(WRONG), "--json")

        assert any(
            re.match(r"line 1, column \d+: tasks\[0\]\.scrpt", problem)
            for problem in json.loads(linted.stderr)["problems"]
        )


class TestOutput:
    def test_a_reader_that_has_seen_enough_is_no_error(self, busy: Home) -> None:
        reading, writing = os.pipe()
        os.close(reading)

        ran = busy.pipe("build", "log", "team/large#1", capture_output=False, stdout=writing, stderr=subprocess.PIPE)
        os.close(writing)

        assert ran.stderr == ""

    @pytest.mark.parametrize("command", [["job", "list"], ["build", "log", "team/large#1"]])
    def test_a_full_disk_is_said_in_a_line(self, busy: Home, command: list[str]) -> None:
        with open("/dev/full", "w") as full:
            ran = busy.pipe(*command, capture_output=False, stdout=full, stderr=subprocess.PIPE)

        assert (ran.returncode, ran.stderr) == (1, "distci: No space left on device\n")

    @pytest.mark.parametrize("command", [["job", "list"], ["build", "list", "team/hello"]])
    def test_a_closed_standard_output_is_bearable(self, busy: Home, command: list[str]) -> None:
        ran = busy.pipe(
            *command, capture_output=False, stderr=subprocess.PIPE, stdout=None, preexec_fn=lambda: os.close(1)
        )

        assert (ran.returncode, ran.stderr) == (0, "")

    def test_names_from_elsewhere_cannot_move_the_cursor(self, busy: Home) -> None:
        busy.ask("job", "put", busy.file(HELLO | {"job": "team/odd"}), "--reason", "\033[2Jgone\nVERSION")

        history = busy.ask("job", "history", "team/odd").stdout

        assert "\033" not in history
        assert history.count("\n") == 2

    def test_an_unexpected_error_shows_its_traceback_on_request_only(
        self, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("distci.cli.job._read", lambda file: 1 / 0)

        quiet, chatty = (home.ask("job", "lint", "x", *more) for more in ((), ("-v",)))

        assert quiet.exit_code == chatty.exit_code == 1
        assert quiet.stderr == "distci: unexpected ZeroDivisionError: division by zero; run with -v for the traceback\n"
        assert "Traceback" in chatty.stderr
