"""``distci build``: builds from their trigger to their record."""

from __future__ import annotations

import os
import pty
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest
from integration.cli.homes import HELLO, waits_for
from program import PROGRAM, TIME_MAX_S, Home
from waiting import wait_until


class TestBuilds:
    def test_show_tells_how_each_task_ended(self, busy: Home) -> None:
        shown = busy.ask("build", "show", "team/broken#1").stdout

        assert "state        failed\n" in shown
        assert "exit status 7" in shown
        assert "late  skipped" in shown

    def test_the_newest_are_listed_first(self, busy: Home) -> None:
        busy.ask("job", "put", busy.file(HELLO | {"job": "team/twice"}))
        for _ in range(2):
            busy.ask("build", "trigger", "team/twice", "--wait")

        assert [view["id"] for view in busy.json("build", "list", "team/twice")] == ["team/twice#2", "team/twice#1"]
        assert [view["id"] for view in busy.json("build", "list", "team/twice", "--limit", "1")] == ["team/twice#2"]

    def test_a_list_that_was_cut_says_how_to_go_on(self, busy: Home) -> None:
        # Given two builds of a job and two jobs, of which one each is shown
        for job in ("pages/a", "pages/b"):
            busy.ask("job", "put", busy.file(HELLO | {"job": job}))
        for _ in range(2):
            busy.ask("build", "trigger", "pages/a", "--wait")
        cut = [busy.ask("build", "list", "pages/a", "--limit", "1"), busy.ask("job", "list", "pages/", "--limit", "1")]

        # When one goes on as is said
        said = [shlex.split(asked.stderr.partition(": distci ")[2]) for asked in cut]
        rest = [busy.ask(*arguments) for arguments in said]

        # Then the rest comes, and nothing is said any more
        assert "pages/a#2" in cut[0].stdout
        assert "pages/a#1" not in cut[0].stdout
        assert "pages/a#1" in rest[0].stdout
        assert "pages/a#2" not in rest[0].stdout
        assert [cut[1].stdout, rest[1].stdout] == ["pages/a\n", "pages/b\n"]
        assert [asked.stderr for asked in rest] == ["", ""]

    def test_a_job_without_builds_is_no_error_and_one_that_never_was_is(self, home: Home) -> None:
        home.ask("job", "put", home.file(HELLO))

        unbuilt, unknown = (home.ask("build", "list", job) for job in ("team/hello", "team/none"))

        assert (unbuilt.exit_code, unbuilt.stdout) == (0, "")
        assert "no builds yet" in unbuilt.stderr
        assert unknown.exit_code == 5

    def test_what_cannot_be_started_is_not_told_as_a_build_that_there_is(self, busy: Home) -> None:
        asked = busy.ask("build", "trigger", "team/hello", "--parameter", "NONSENSE=1")

        assert asked.exit_code == 2
        assert "a build of team/hello cannot be planned:\n  - parameters.NONSENSE: " in asked.stderr

    def test_who_asks_for_a_build_of_a_job_that_is_not_there_is_told_which_was_meant(self, busy: Home) -> None:
        for asked in (
            busy.ask("why", "team/helo#1"),
            busy.ask("why", "team/helo#1", "greet"),
            busy.ask("build", "show", "team/helo#1"),
        ):
            assert asked.exit_code == 5
            assert asked.stderr.startswith("distci: there is no job 'team/helo'; did you mean 'team/hello'?")
        assert "there is no job 'zzz'; `distci job list`" in busy.ask("why", "zzz#1").stderr
        assert (
            "there is no build team/hello#99; `distci build list team/hello`" in busy.ask("why", "team/hello#99").stderr
        )

    def test_who_asks_why_of_a_job_is_told_how_a_build_is_named(self, busy: Home) -> None:
        asked = busy.ask("why", "team/hello")

        assert asked.exit_code == 5
        assert "a build is JOB#NUMBER" in asked.stderr

    def test_the_log_of_one_task_comes_byte_for_byte(self, busy: Home) -> None:
        log = busy.pipe("build", "log", "team/bytes#1", "print", text=False)

        heading, _, printed = log.stdout.partition(b"\n")
        assert heading == b"distci: to run this here: distci reproduce team/bytes#1 print"
        assert printed == b"\xff\0\r\n\033[31m"

    def test_the_log_of_a_build_names_its_tasks(self, busy: Home) -> None:
        log = busy.ask("build", "log", "team/hello#1").stdout
        lines = [line for line in log.splitlines() if not line.startswith("distci: ")]
        assert lines == ["== say ==", "hello world", "== keep =="]

    def test_a_task_that_never_ran_has_no_log(self, busy: Home) -> None:
        log = busy.ask("build", "log", "team/broken#1", "late")

        assert (log.exit_code, log.stdout) == (0, "")
        assert "is skipped" in log.stderr

    def test_a_failed_build_says_where_to_read_on(self, busy: Home) -> None:
        waited = busy.ask("build", "wait", "team/broken#1")

        assert waited.exit_code == 1
        assert "fall failed: exit status 7; distci build log team/broken#1 fall" in waited.stdout

    def test_a_failure_that_is_allowed_is_told_as_such(self, home: Home) -> None:
        task = {"name": "a", "type": "shell", "script": "exit 7", "matrix": {"n": ["1"]}, "allow_failure": True}
        with home.running("up", "--label", "os=linux", until="Ctrl-C"):
            home.ask("job", "put", home.file({"job": "a", "tasks": [{**task, "labels": ["os=linux"]}]}))
            waited = home.ask("build", "trigger", "a", "--wait")
            why = home.ask("why", "a#1", "a[1]")

        assert "a[1] failed: exit status 7, as it is allowed to; distci build log a#1 'a[1]'\n" in waited.stdout
        assert why.stdout.splitlines()[1:] == ["    distci build log a#1 'a[1]'"]

    def test_a_retry_is_a_new_build(self, busy: Home) -> None:
        retried = busy.ask("build", "retry", "team/broken#1", "--failed", "--wait")

        assert retried.exit_code == 1
        assert busy.json("build", "show", "team/broken#2")[0]["trigger"]["retry_of"] == "team/broken#1"

    def test_the_same_cause_is_the_same_build(self, busy: Home) -> None:
        busy.ask("job", "put", busy.file(HELLO | {"job": "team/once"}))

        first, second = (busy.ask("build", "trigger", "team/once", "--cause", "delivery-1") for _ in range(2))

        assert first.stdout == second.stdout == "team/once#1\n"

    def test_a_cancelled_build_exits_so(self, busy: Home, tmp_path: Path) -> None:
        busy.ask("job", "put", busy.file(waits_for(tmp_path / "never")))
        build = busy.ask("build", "trigger", "team/slow").stdout.strip()
        wait_until((tmp_path / "begun").exists)

        early = busy.ask("build", "wait", build, "--timeout", "1s")
        cancelled = busy.ask("build", "cancel", build, "--reason", "wrong branch")
        waited = busy.ask("build", "wait", build)

        assert early.exit_code == 124
        assert f"{build} is still running" in early.stderr
        assert cancelled.exit_code == 0
        assert waited.exit_code == 3
        assert "wrong branch" in waited.stdout

    def test_an_interrupted_wait_leaves_the_build_alone(self, busy: Home, tmp_path: Path) -> None:
        job = waits_for(tmp_path / "go") | {"job": "team/patient"}
        busy.ask("job", "put", busy.file(job))
        with busy.running("build", "trigger", "team/patient", "--follow") as process:
            wait_until((tmp_path / "begun").exists)
            process.signal(signal.SIGINT)
            code = process.wait()
        (tmp_path / "go").touch()

        assert code == 130
        assert "team/patient#1 goes on" in process.stderr
        assert "Traceback" not in process.stderr
        assert busy.ask("build", "wait", "team/patient#1").exit_code == 0

    @pytest.mark.parametrize(
        ("arguments", "code"),
        [
            (["trigger", "team/none"], 5),
            (["trigger", "team/hello", "-p", "WHOM=x"], 2),
            (["show", "team/hello#99"], 5),
            (["show", "team/hello"], 2),
            (["log", "team/hello#1", "none"], 5),
            (["cancel", "team/hello#1"], 2),
            (["cancel", "team/hello#99"], 5),
            (["retry", "team/hello#1", "--failed"], 2),
            (["wait", "team/hello#99"], 5),
            (["wait", "team/hello#1", "--timeout", "soon"], 2),
        ],
    )
    def test_each_error_has_its_exit_code(self, busy: Home, arguments: list[str], code: int) -> None:
        asked = busy.ask("build", *arguments)

        assert asked.exit_code == code
        assert asked.stderr.strip()

    def test_what_keeps_a_build_from_starting_is_said_once(self, busy: Home) -> None:
        task = {"name": "test", "type": "shell", "script": "true", "labels": ["gpu=*"]}
        busy.ask("job", "put", busy.file({"job": "team/wants", "tasks": [task]}))
        said = re.compile(
            r"distci: team/wants#1 test ready for \d+\.\d s: no live worker of shell offers gpu=\*; "
            "start one: distci worker run shell"
        )

        with busy.running("build", "trigger", "team/wants", "--follow") as process:
            wait_until(lambda: bool(said.search(process.stderr)))
            busy.ask("build", "cancel", "team/wants#1")
            code = process.wait()

        assert code == 3
        assert len(said.findall(process.stderr)) == 1

    def test_a_terminal_is_told_what_runs_and_a_silent_task_has_its_heading(self, busy: Home, tmp_path: Path) -> None:
        job = waits_for(tmp_path / "go") | {"job": "team/silent"}
        job["tasks"].append({"name": "next", "type": "shell", "script": "true", "needs": ["wait"]})
        busy.ask("job", "put", busy.file(job))
        busy.ask("build", "trigger", "team/silent")
        shown, terminal = pty.openpty()
        out = tmp_path / "out"

        def printed() -> str:
            """What is shown but the line by which each log begins."""
            return re.sub("(?m)^distci: to run this here: .*\n", "", out.read_text())

        with (
            out.open("wb") as file,
            subprocess.Popen(
                [PROGRAM, "build", "log", "team/silent#1", "--follow"],
                stdout=file,
                stderr=terminal,
                env=busy.environment | {"TERM": "xterm"},
            ) as process,
        ):
            told = b""
            while not re.search(rb"wait running for \d+\.\d s: ", told):
                told += os.read(shown, 1024)
            wait_until(lambda: printed() == "== wait ==\n")
            (tmp_path / "go").touch()
            assert process.wait(TIME_MAX_S) == 0
        os.close(shown)
        os.close(terminal)

        assert printed() == "== wait ==\nwent\n== next ==\n"

    def test_nobody_to_serve_is_said_at_once(self, home: Home) -> None:
        home.ask("job", "put", home.file(HELLO))

        triggered = home.ask("build", "trigger", "team/hello")

        assert triggered.stdout == "team/hello#1\n"
        assert "no worker is live" in triggered.stderr
