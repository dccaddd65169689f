"""``distci run``: a whole job, here and now."""

from __future__ import annotations

import json
import os
import shlex
import signal
from pathlib import Path

import pytest
from integration.cli.homes import BROKEN, HELLO, WRONG, waits_for
from program import Home, is_alive
from waiting import wait_until

HELD = {"job": "team/held", "tasks": [{"name": "test", "type": "shell", "hold": "30m", "script": "exit 7"}]}


class TestRun:
    def test_a_job_that_passes(self, home: Home) -> None:
        ran = home.run("run", home.file(HELLO))

        assert (ran.returncode, ran.stderr) == (0, "")
        assert "hello world\n" in ran.stdout
        assert "team/hello#1 passed" in ran.stdout
        assert "1 artifact went with the temporary folder" in ran.stdout

    def test_a_job_that_fails_says_where_and_why(self, home: Home) -> None:
        ran = home.run("run", home.file(BROKEN))

        assert ran.returncode == 1
        [row] = [line.split() for line in ran.stdout.splitlines() if line.startswith("fall ")]
        assert row[1] == "failed"
        assert row[-3:] == ["exit", "status", "7"]

    def test_nothing_is_held_whatever_the_settings_allow(self, home: Home) -> None:
        home.environment["DISTCI_HOLD_MAX"] = "1h"

        ran = home.run("run", home.file(HELD))

        assert ran.returncode == 1
        assert "not held, since `distci run` holds nothing" in ran.stdout

    def test_names_of_workers_are_short(self, home: Home) -> None:
        ran = home.run("run", home.file(HELLO), "--json")

        view = json.loads(ran.stdout.splitlines()[-1])
        [worker] = {task["worker"] for task in view["tasks"]}
        assert "shell" not in worker

    def test_every_fault_of_a_job_is_told_with_its_place(self, home: Home) -> None:
        ran = home.run("run", home.file(WRONG))

        assert ran.returncode == 2
        assert "tasks[0].scrpt: unknown key; did you mean 'script'?" in ran.stderr
        assert "tasks[1]" in ran.stderr
        assert "Traceback" not in ran.stderr

    @pytest.mark.parametrize(
        ("file", "said"),
        [("none.json", "none.json: No such file or directory"), (".", "Is a directory"), ("text", "line 1, column 1")],
    )
    def test_a_file_that_holds_no_job_is_named(self, home: Home, file: str, said: str) -> None:
        home.file("no json", "text")

        ran = home.run("run", file)

        assert ran.returncode == 2
        assert said in ran.stderr

    def test_a_task_that_nobody_here_would_take_is_named_at_once(self, home: Home) -> None:
        flash = {"name": "flash", "type": "shell", "script": "true", "matrix": {"label": ["board=a", "board=b"]}}
        deploy = {"name": "deploy", "type": "org.example.deploy"}

        ran = home.run("run", home.file({"job": "a", "tasks": [flash, deploy]}), "--label", "board=a")

        assert (ran.returncode, ran.stderr.splitlines()) == (
            2,
            [
                "distci: job a cannot run here:",
                "  - task flash[board=b] asks for board=b; if this machine will do, add --label board=b",
                "  - task deploy: no worker of kind 'org.example.deploy' is installed",
            ],
        )

    def test_labels_are_offered(self, home: Home) -> None:
        ran = home.run(
            "run",
            home.file({"job": "a", "tasks": [{"name": "a", "type": "shell", "script": "true", "labels": ["os=*"]}]}),
            "--label=os=linux",
        )

        assert (ran.returncode, ran.stderr) == (0, "")

    def test_the_job_may_come_from_standard_input(self, home: Home) -> None:
        ran = home.pipe("run", "-", input=json.dumps(HELLO))

        assert ran.returncode == 0

    def test_a_closed_standard_input_is_said(self, home: Home) -> None:
        ran = home.pipe("run", "-", preexec_fn=lambda: os.close(0))

        assert ran.returncode == 2
        assert "standard input is closed" in ran.stderr

    def test_parameters_reach_the_script(self, home: Home) -> None:
        ran = home.run("run", home.file(HELLO), "--parameter", "WHO=you = me")

        assert "hello you = me\n" in ran.stdout

    @pytest.mark.parametrize(
        ("parameter", "said"),
        [("WHOM=me", "parameters.WHOM"), ("WHO", "write NAME=VALUE"), ("=me", "write NAME=VALUE")],
    )
    def test_a_wrong_parameter_is_named(self, home: Home, parameter: str, said: str) -> None:
        ran = home.run("run", home.file(HELLO), "--parameter", parameter)

        assert ran.returncode == 2
        assert said in ran.stderr

    @pytest.mark.parametrize("given", ["TOKEN=s3same-0pen", "TOKEN"])
    def test_a_secret_reaches_the_script_and_no_log(self, home: Home, given: str) -> None:
        home.environment["TOKEN"] = "s3same-0pen"
        task = {"name": "t", "type": "shell", "script": 'echo "<$TOKEN> ${#TOKEN}"', "secrets": ["TOKEN"]}

        ran = home.run("run", home.file({"job": "team/secret", "tasks": [task]}), "--secret", given, "--data", "kept")

        assert ran.returncode == 0
        assert " 11\n" in ran.stdout
        assert "s3same-0pen" not in ran.stdout + ran.stderr
        kept = b"".join(path.read_bytes() for path in home.folder.rglob("kept/**/*") if path.is_file())
        assert b"s3same-0pen" not in kept

    def test_a_secret_that_is_not_in_the_environment_is_named(self, home: Home) -> None:
        ran = home.run("run", home.file(HELLO), "--secret", "TOKEN")

        assert ran.returncode == 2
        assert "no environment variable 'TOKEN'" in ran.stderr

    def test_nothing_is_left_behind(self, home: Home, tmp_path: Path) -> None:
        home.environment["TMPDIR"] = str(tmp_path / "temporary")
        (tmp_path / "temporary").mkdir()

        home.run("run", home.file(HELLO))

        assert [*(tmp_path / "temporary").iterdir()] == []
        assert not (tmp_path / ".local").exists()

    @pytest.mark.parametrize("option", [["--keep"], ["--data", "kept folder"]])
    def test_what_is_kept_is_read_with_the_commands_that_it_prints(self, home: Home, option: list[str]) -> None:
        home.environment["TMPDIR"] = str(home.folder)

        ran = home.run("run", home.file(HELLO), *option)

        commands = [
            line.partition(":")[2] for line in ran.stdout.splitlines() if line.startswith(("log:", "artifacts:"))
        ]
        log, artifacts = (home.run(*shlex.split(command)[1:]) for command in commands)
        assert "hello world\n" in log.stdout
        assert artifacts.stdout == "greeting.txt\n"

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_cancels_the_build_and_leaves_nothing_running(self, home: Home, number: signal.Signals) -> None:
        with home.running("run", home.file(waits_for(home.folder / "never"))) as process:
            wait_until((home.folder / "begun").exists)
            process.signal(number)
            code = process.wait()

        assert code == 3
        assert "cancelling" in process.stderr
        assert "team/slow#1 cancelled" in process.stdout
        assert not is_alive(int((home.folder / "begun").read_text()))

    def test_a_second_signal_leaves_at_once(self, home: Home) -> None:
        trap = {"name": "wait", "type": "shell", "script": "trap '' TERM INT; touch begun-here; sleep 300"}
        trap["script"] = trap["script"].replace("begun-here", str(home.folder / "begun"))
        with home.running("run", home.file({"job": "team/stubborn", "tasks": [trap]})) as process:
            wait_until((home.folder / "begun").exists)
            process.signal(signal.SIGINT)
            wait_until(lambda: "cancelling" in process.stderr)
            process.signal(signal.SIGINT)
            code = process.wait()

        assert code == 130

    def test_back_ends_are_refused(self, home: Home) -> None:
        ran = home.run("--store", "file:///tmp/x", "run", home.file(HELLO))

        assert ran.returncode == 2
        assert "distci --store file:///tmp/x build trigger" in ran.stderr
