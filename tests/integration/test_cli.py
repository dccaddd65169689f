"""The program ``distci`` as people and scripts use it."""

from __future__ import annotations

import json
import logging
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import pytest
from program import PROGRAM, TIME_MAX_S, Home, is_alive
from services import STORES
from services.zookeeper import ZooKeeperServers
from waiting import wait_until

import distci
from distci.cli import cli
from distci.cli.command import Group, Invocation
from distci.protocol import Member, Offer, Ticket

HELLO = {
    "job": "team/hello",
    "parameters": {"WHO": {"default": "world"}},
    "tasks": [
        {"name": "say", "type": "shell", "script": 'echo "hello $WHO" | tee greeting.txt'},
        {"name": "keep", "type": "publish-artifacts", "paths": ["greeting.txt"]},
    ],
}
BROKEN = {
    "job": "team/broken",
    "tasks": [
        {"name": "fall", "type": "shell", "script": "exit 7"},
        {"name": "late", "type": "shell", "script": "echo"},
    ],
}
WRONG = {"job": "team/wrong", "tasks": [{"name": "a", "type": "shell", "scrpt": "true"}, {"name": "a", "type": "x"}]}
BYTES = {"job": "team/bytes", "tasks": [{"name": "print", "type": "shell", "script": r"printf '\377\0\r\n\033[31m'"}]}
LARGE = {"job": "team/large", "tasks": [{"name": "print", "type": "shell", "script": "seq 100000"}]}


def waits_for(file: Path, **task: Any) -> dict[str, Any]:
    """A job whose task writes ``begun`` beside the file, with its process id, and ends when the file is there."""
    script = f"echo $$ > {file.parent}/begun.part; mv {file.parent}/begun.part {file.parent}/begun\n"
    script += f"until test -e {file}; do sleep 0.05; done; echo went"
    return {"job": "team/slow", "tasks": [{"name": "wait", "type": "shell", "script": script, **task}]}


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Commands that are asked in this process set up its logging."""
    root, loggers = logging.getLogger(), [logging.getLogger(name) for name in ("", "distci", "distci.coordination")]
    handlers, levels = root.handlers[:], [logger.level for logger in loggers]
    yield
    root.handlers[:] = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home where ``distci up`` serves; each of some jobs has been built once. For tests that leave these builds as they are."""
    home = Home(tmp_path_factory.mktemp("busy"))
    with home.running("up", until="Ctrl-C"):
        for job in (HELLO, BROKEN, BYTES, LARGE):
            home.ask("job", "put", home.file(job))
            home.ask("build", "trigger", str(job["job"]), "--wait")
        yield home


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
        ran = home.run("run", "-", input=json.dumps(HELLO))

        assert ran.returncode == 0

    def test_a_closed_standard_input_is_said(self, home: Home) -> None:
        ran = home.run("run", "-", preexec_fn=lambda: os.close(0))

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
        assert "distci build trigger" in ran.stderr


class TestUp:
    def test_a_build_is_started_and_followed_from_another_process(self, home: Home) -> None:
        with home.running("up", "--data", "a b", until="Ctrl-C") as up:
            [put] = [line for line in up.stdout.splitlines() if "job put" in line]
            where = shlex.split(put)[-2:]
            saved = home.run("job", "put", home.file(HELLO), *where)
            built = home.run("build", "trigger", "team/hello", "--wait", "--follow", *where)
            up.signal(signal.SIGTERM)
            code = up.wait()

        assert (saved.returncode, saved.stdout) == (0, "team/hello version 1\n")
        assert built.returncode == 0
        assert "hello world\n" in built.stdout
        assert "team/hello#1 passed" in built.stdout
        assert "team/hello#1 has been started" in built.stderr
        assert code == 0

    def test_a_signal_lets_it_finish_what_runs(self, home: Home) -> None:
        home.ask("job", "put", home.file(waits_for(home.folder / "go")))
        with home.running("up", until="Ctrl-C") as up:
            home.ask("build", "trigger", "team/slow")
            wait_until((home.folder / "begun").exists)
            up.signal(signal.SIGTERM)
            wait_until(lambda: "taking nothing more" in up.stderr)
            (home.folder / "go").touch()
            code = up.wait()
        with home.running("up", until="Ctrl-C"):
            waited = home.run("build", "wait", "team/slow#1", "--json")

        assert code == 0
        assert waited.returncode == 0
        assert len(json.loads(waited.stdout)["tasks"][0]["attempts"]) == 1

    def test_a_second_signal_ends_it_at_once(self, home: Home) -> None:
        home.ask("job", "put", home.file(waits_for(home.folder / "go")))
        with home.running("up", until="Ctrl-C") as up:
            home.ask("build", "trigger", "team/slow")
            wait_until((home.folder / "begun").exists)
            up.signal(signal.SIGTERM)
            wait_until(lambda: "taking nothing more" in up.stderr)
            up.signal(signal.SIGTERM)
            code = up.wait()

        assert code == 128 + signal.SIGTERM
        wait_until(lambda: not is_alive(int((home.folder / "begun").read_text())))

    def test_secrets_come_from_a_file(self, home: Home) -> None:
        task = {"name": "t", "type": "shell", "script": "echo ${#TOKEN}; echo $TOKEN", "secrets": ["TOKEN"]}
        home.ask("job", "put", home.file({"job": "team/secret", "tasks": [task]}))
        secrets = home.file("TOKEN = 's3same-0pen'\n", "secrets.toml")

        with home.running("up", "--secret-file", secrets, until="Ctrl-C") as up:
            built = home.run("build", "trigger", "team/secret", "--follow")

        assert built.returncode == 0
        assert "11\n" in built.stdout
        assert "s3same-0pen" not in built.stdout + up.stdout + up.stderr

    @pytest.mark.parametrize("content", ["TOKEN = s3same", "TOKEN = 7", None])
    def test_a_secret_file_that_cannot_be_used_is_named_and_not_quoted(self, home: Home, content: str | None) -> None:
        secrets = home.file(content, "secrets.toml") if content else "none.toml"

        ran = home.run("up", "--secret-file", secrets)

        assert ran.returncode == 2
        assert secrets in ran.stderr
        assert "s3same" not in ran.stderr


class TestWorkers:
    def test_one_process_for_each_kind_on_zookeeper(self, home: Home, zookeeper_url: str) -> None:
        home.environment["DISTCI_COORDINATION"] = zookeeper_url
        task = {"name": "say", "type": "shell", "script": "echo on linux", "labels": ["os=lin*"]}
        with (
            home.running("worker", "run", "control", "--name", "boss", until="Serving"),
            home.running(
                *("worker", "run", "shell", "--label", "os=linux", "--slots", "3", "--name", "hand"), until="Serving"
            ) as hand,
        ):
            listed = {view["name"]: view for view in home.json("worker", "list")}
            home.run("job", "put", home.file({"job": "team/apart", "tasks": [task]}))
            built = home.run("build", "trigger", "team/apart", "--wait", "--follow")
            drained = home.run("worker", "drain", "hand-shell")
            code = hand.wait()
            left = [view["name"] for view in home.json("worker", "list")]

        assert [*listed] == ["boss-control", "hand-shell"]
        assert listed["hand-shell"]["slots"] == 3
        assert listed["hand-shell"]["offer"] == {"kinds": ["shell"], "labels": ["os=linux"], "only": []}
        assert built.returncode == 0, built.stderr
        assert "on linux\n" in built.stdout
        assert drained.stdout == "hand-shell is draining\n"
        assert code == 0
        assert left == ["boss-control"]

    def test_a_build_on_a_zookeeper_that_asks_who_we_are(self, home: Home, zookeeper_tls: tuple[str, Path]) -> None:
        hosts, folder = zookeeper_tls
        home.environment |= {
            "DISTCI_COORDINATION": f"zookeeper://{hosts}/guarded/{uuid.uuid4().hex}",
            "DISTCI_ZOOKEEPER_USER": "ci",
            "DISTCI_ZOOKEEPER_PASSWORD": "sesame",
            "DISTCI_ZOOKEEPER_CA": f"{folder}/ca.pem",
            "DISTCI_ZOOKEEPER_CERTIFICATE": f"{folder}/client.crt",
            "DISTCI_ZOOKEEPER_KEY": f"{folder}/client.key",
        }
        with home.running("worker", "run", "control", "shell", "publish-artifacts", until="Serving"):
            home.run("job", "put", home.file(HELLO))
            built = home.run("build", "trigger", "team/hello", "--wait")
            checked = home.run("check")

        home.environment["DISTCI_ZOOKEEPER_PASSWORD"] = "wrong"
        refused = home.run("build", "list", "team/hello")
        del home.environment["DISTCI_ZOOKEEPER_CERTIFICATE"], home.environment["DISTCI_ZOOKEEPER_KEY"]
        unknown = home.run("build", "list", "team/hello")

        assert built.returncode == 0, built.stderr
        assert checked.returncode == 0, checked.stdout
        assert "TLS with a certificate of ours and an access list for one user" in " ".join(checked.stdout.split())
        assert not any(value in checked.stdout for value in ("sesame", str(folder)))
        assert refused.returncode == unknown.returncode == 6
        assert "does not let user 'ci' at /guarded/" in refused.stderr
        assert "somebody without a certificate" in unknown.stderr

    def test_only_takes_tasks_that_ask_for_the_label(self, home: Home) -> None:
        script = {"type": "shell", "script": "true", "needs": []}
        job = {"job": "team/choosy", "tasks": [{"name": "a", "labels": ["gpu=*"], **script}, {"name": "b", **script}]}
        home.ask("job", "put", home.file(job))
        with (
            home.running("worker", "run", "control", until="Serving"),
            home.running("worker", "run", "shell", "--only", "gpu=a100", until="Serving"),
        ):
            home.ask("build", "trigger", "team/choosy")

            def states() -> list[str]:
                return [task["state"] for task in home.json("build", "show", "team/choosy#1")[0]["tasks"]]

            wait_until(lambda: states() == ["passed", "ready"])

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["shel"], "there are: control, copy-artifacts"),
            (["shell", "--name", "a b"], "worker name 'a b'"),
            (["shell", "--label", "os linux"], "label 'os linux'"),
            (["shell", "--only", "="], "label '='"),
            (["shell", "--slots", "0"], "--slots"),
            ([], "KIND"),
        ],
    )
    def test_what_no_worker_can_be_is_refused(self, home: Home, arguments: list[str], said: str) -> None:
        ran = home.ask("worker", "run", *arguments)

        assert ran.exit_code == 2
        assert said in ran.stderr

    def test_two_of_one_name_are_refused(self, home: Home) -> None:
        with home.running("worker", "run", "shell", "--name", "one", until="Serving"):
            second = home.run("worker", "run", "shell", "--name", "one")

        assert second.returncode == 7
        assert "'one'" in second.stderr

    def test_a_check_finds_those_that_live_here(self, home: Home) -> None:
        before = home.ask("worker", "check")
        with (
            home.running("worker", "run", "control", "--name", "boss", until="Serving"),
            home.running("worker", "run", "shell", "--name", "hand", until="Serving") as hand,
        ):
            both = home.ask("worker", "check")
            hand.kill()
            one = home.json("worker", "check")

        assert before.exit_code == 5
        assert sorted(both.stdout.splitlines()) == ["boss is well", "hand is well"]
        assert [item["name"] for item in one] == ["boss"]
        assert home.ask("worker", "check").exit_code == 5

    def test_a_check_tells_of_a_session_that_is_away_for_long(self, home: Home, tmp_path: Path) -> None:
        (tmp_path / "zookeeper").mkdir()
        servers = ZooKeeperServers(tmp_path / "zookeeper")
        check = ("worker", "check", "--within", "4")
        try:
            home.environment |= {
                "DISTCI_COORDINATION": f"zookeeper://{servers.hosts}/ci",
                "DISTCI_SESSION_TIMEOUT": "3s",
            }
            with home.running("worker", "run", "control", "--name", "boss", until="Serving") as boss:
                wait_until(lambda: home.ask(*check).exit_code == 0)

                servers.pause(0)
                wait_until(lambda: home.ask(*check).exit_code == 4)
                told = home.ask(*check).stderr

                servers.resume(0)
                wait_until(lambda: home.ask(*check).exit_code == 0)
                assert not boss.has_ended

            assert told.startswith("distci: without a session: boss for ")
        finally:
            servers.stop()

    def test_a_check_tells_of_a_process_that_stands_still(self, home: Home) -> None:
        with home.running("worker", "run", "shell", until="Serving") as hand:
            hand.signal(signal.SIGSTOP)

            wait_until(lambda: home.ask("worker", "check", "--within", "2").exit_code == 4)

    def test_the_list_tells_what_each_holds(self, home: Home) -> None:
        with distci.connect(home.folder / ".local" / "share" / "distci") as system:
            system.tickets.post(Ticket("resize-1", "resize"))
            with (
                Member(system.tickets, Offer(["resize"]), name="busy") as member,
                Member(system.tickets, Offer(["other"]), name="idle"),
                next(member.claims()),
            ):
                listed = home.json("worker", "list")
                shown = home.ask("worker", "list").stdout

        assert {view["name"]: view["holds"] for view in listed} == {"busy": ["resize-1.1"], "idle": []}
        assert "resize-1.1\n" in shown

    def test_draining_nobody_is_missing(self, busy: Home) -> None:
        assert busy.ask("worker", "drain", "nobody").exit_code == 5


class TestJobs:
    def test_versions_are_kept_compared_and_brought_back(self, home: Home) -> None:
        other = HELLO | {"description": "Says hello."}

        puts = [home.ask("job", "put", home.file(job), "--reason", "why not") for job in (HELLO, other, other)]
        diff = home.ask("job", "diff", "team/hello")
        back = home.ask("job", "rollback", "team/hello", "1", "--reason", "it was better")
        history = home.json("job", "history", "team/hello")

        assert [put.stdout for put in puts] == [f"team/hello version {version}\n" for version in (1, 2, 2)]
        assert '+  "description": "Says hello."' in diff.stdout
        assert back.stdout == "team/hello version 3, as version 1 was\n"
        assert [(change["version"], change["reason"]) for change in history] == [
            (3, "it was better"),
            (2, "why not"),
            (1, "why not"),
        ]

    def test_what_get_prints_can_be_put(self, home: Home) -> None:
        home.ask("job", "put", home.file(HELLO))

        printed = home.ask("job", "get", "team/hello").stdout
        again = home.ask("job", "put", "-", input=printed)

        assert json.loads(printed) == HELLO
        assert again.stdout == "team/hello version 1\n"

    def test_a_put_that_expected_another_version_is_a_conflict(self, home: Home) -> None:
        home.ask("job", "put", home.file(HELLO), "--expect", "0")

        second = home.ask("job", "put", home.file(HELLO | {"description": "x"}), "--expect", "0")

        assert second.exit_code == 7
        assert "version 1" in second.stderr

    def test_a_deleted_job_leaves_the_list_and_keeps_its_history(self, home: Home) -> None:
        home.ask("job", "put", home.file(HELLO))
        home.ask("job", "put", home.file(BROKEN))

        home.ask("job", "delete", "team/hello", "--reason", "moved")

        assert home.ask("job", "list").stdout == "team/broken\n"
        assert home.ask("job", "get", "team/hello").exit_code == 5
        assert "(deleted) moved" in home.ask("job", "history", "team/hello").stdout

    def test_what_is_missing_of_a_job_is_looked_for_in_its_history(self, home: Home) -> None:
        home.ask("job", "put", home.file(HELLO))
        home.ask("job", "delete", "team/hello")

        deleted = home.ask("job", "get", "team/hello").stderr
        never = home.ask("job", "get", "team/hello", "--version", "9").stderr

        hint = "`distci job history team/hello` shows all versions\n"
        assert deleted == f"distci: job 'team/hello' has been deleted; {hint}"
        assert never == f"distci: there is no version 9 of job 'team/hello'; {hint}"

    def test_the_list_may_be_of_one_project(self, home: Home) -> None:
        for job in (HELLO, HELLO | {"job": "other/hello"}):
            home.ask("job", "put", home.file(job))

        assert home.ask("job", "list", "other/").stdout == "other/hello\n"

    def test_a_single_version_has_nothing_to_be_compared_with(self, home: Home) -> None:
        home.ask("job", "put", home.file(HELLO))

        diff = home.ask("job", "diff", "team/hello")

        assert (diff.exit_code, diff.stdout) == (0, "")
        assert "nothing before it" in diff.stderr

    def test_lint_needs_no_system(self, home: Home) -> None:
        good, bad = (home.ask("job", "lint", home.file(job)) for job in (HELLO, WRONG))

        assert (good.exit_code, good.stdout) == (0, "team/hello is a valid job\n")
        assert bad.exit_code == 2
        assert "did you mean 'script'?" in bad.stderr
        assert not (home.folder / ".local").exists()

    @pytest.mark.parametrize(
        "arguments",
        [
            ["get", "team/none"],
            ["get", "team/hello", "--version", "9"],
            ["history", "team/none"],
            ["diff", "team/none"],
            ["rollback", "team/hello", "9"],
            ["delete", "team/none"],
        ],
    )
    def test_what_is_not_there_is_missing(self, busy: Home, arguments: list[str]) -> None:
        asked = busy.ask("job", *arguments)

        assert asked.exit_code == 5
        assert arguments[1] in asked.stderr


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

    def test_the_log_of_one_task_comes_byte_for_byte(self, busy: Home) -> None:
        log = busy.run("build", "log", "team/bytes#1", "print", text=False)

        assert log.stdout == b"\xff\0\r\n\033[31m"

    def test_the_log_of_a_build_names_its_tasks(self, busy: Home) -> None:
        assert busy.ask("build", "log", "team/hello#1").stdout.startswith("== say ==\nhello world\n== keep ==\n")

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
        said = (
            "distci: team/wants#1 test ready: no live worker of shell offers gpu=*; start one: distci worker run shell"
        )

        with busy.running("build", "trigger", "team/wants", "--follow") as process:
            wait_until(lambda: said in process.stderr)
            busy.ask("build", "cancel", "team/wants#1")
            code = process.wait()

        assert code == 3
        assert process.stderr.count(said) == 1

    def test_a_terminal_is_told_what_runs_and_a_silent_task_has_its_heading(self, busy: Home, tmp_path: Path) -> None:
        job = waits_for(tmp_path / "go") | {"job": "team/silent"}
        job["tasks"].append({"name": "next", "type": "shell", "script": "true", "needs": ["wait"]})
        busy.ask("job", "put", busy.file(job))
        busy.ask("build", "trigger", "team/silent")
        shown, terminal = pty.openpty()
        out = tmp_path / "out"

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
            while b"wait running: " not in told:
                told += os.read(shown, 1024)
            wait_until(lambda: out.read_text() == "== wait ==\n")
            (tmp_path / "go").touch()
            assert process.wait(TIME_MAX_S) == 0
        os.close(shown)
        os.close(terminal)

        assert out.read_text() == "== wait ==\nwent\n== next ==\n"

    def test_nobody_to_serve_is_said_at_once(self, home: Home) -> None:
        home.ask("job", "put", home.file(HELLO))

        triggered = home.ask("build", "trigger", "team/hello")

        assert triggered.stdout == "team/hello#1\n"
        assert "no worker is live" in triggered.stderr


class TestArtifacts:
    def test_they_are_listed_and_fetched(self, busy: Home, tmp_path: Path) -> None:
        listed = busy.json("artifact", "list", "team/hello#1")
        got = busy.ask("artifact", "get", "team/hello#1", "*.txt", "--directory", str(tmp_path / "new" / "dist"))

        assert [(item["name"], item["size_bytes"]) for item in listed] == [("greeting.txt", 12)]
        assert got.stdout == f"{tmp_path}/new/dist/greeting.txt\n"
        assert (tmp_path / "new" / "dist" / "greeting.txt").read_text() == "hello world\n"

    def test_what_stands_in_the_way_of_one_is_named(self, busy: Home, tmp_path: Path) -> None:
        (tmp_path / "greeting.txt").mkdir()

        got = busy.ask("artifact", "get", "team/hello#1", "--directory", str(tmp_path))

        assert (got.exit_code, got.stderr) == (1, f"distci: {tmp_path}/greeting.txt: Is a directory\n")

    def test_one_that_was_not_published_is_missing(self, busy: Home) -> None:
        got = busy.ask("artifact", "get", "team/hello#1", "none.txt")

        assert got.exit_code == 5
        assert "there are: greeting.txt" in got.stderr


class TestTickets:
    @pytest.fixture
    def dead(self, home: Home) -> str:
        """A ticket whose only attempt came to nothing."""
        with distci.connect(home.folder / ".local" / "share" / "distci") as system:
            system.tickets.post(Ticket("resize-1", "resize", {"picture": "cat.png"}, attempts=1))
            with Member(system.tickets, Offer(["resize"]), "worker") as member:
                for claim in member.claims():
                    with claim:
                        member.drain()
        return "resize-1"

    def test_one_that_was_set_aside_is_found_and_put_back(self, home: Home, dead: str) -> None:
        found = home.json("ticket", "list", "--place", "dead")
        shown = home.ask("ticket", "show", dead).stdout
        requeued = home.ask("ticket", "requeue", dead)
        [waiting] = home.json("ticket", "list", "--place", "waiting")

        assert [view["token"] for view in found] == ["resize-1.1"]
        assert "body: picture  cat.png" in shown
        assert requeued.stdout == "resize-1.2 waits again\n"
        assert waiting["ticket"]["id"] == dead

    def test_the_list_may_be_of_a_build_or_a_kind(self, home: Home) -> None:
        home.ask("job", "put", home.file(HELLO))
        for _ in range(2):
            home.ask("build", "trigger", "team/hello")
        with distci.connect(home.folder / ".local" / "share" / "distci") as system:
            system.tickets.post(Ticket("resize-1", "resize"))

        of_kind = home.json("ticket", "list", "--kind", "resize")
        of_build = home.json("ticket", "list", "--build", "team/hello#2")

        assert [view["ticket"]["id"] for view in of_kind] == ["resize-1"]
        assert [view["ticket"]["body"] for view in of_build] == [{"build": "team/hello#2", "action": "plan"}]

    @pytest.mark.parametrize("command", ["show", "requeue"])
    def test_one_that_is_nowhere_is_missing(self, busy: Home, command: str) -> None:
        assert busy.ask("ticket", command, "none").exit_code == 5


class TestCheck:
    def test_a_fit_system(self, busy: Home) -> None:
        checked = busy.ask("check")

        assert checked.exit_code == 0
        assert "problem" not in checked.stdout
        assert "2 live" in checked.stdout

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


class TestUnreachable:
    """What answers from back ends that are not there, all asked at once since each takes its time."""

    STORE = "s3://bucket?endpoint_url=http://127.0.0.1:1&access_key=a&secret_key=s"
    TREE = "zookeeper://127.0.0.1:1/distci"

    @pytest.fixture(scope="class")
    @classmethod
    def answers(cls, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, subprocess.CompletedProcess[str]]:
        home = Home(tmp_path_factory.mktemp("unreachable"))
        questions = {
            "list": ("job", "list", "--coordination", cls.TREE),
            "json": ("job", "list", "--coordination", cls.TREE, "--json"),
            "store": ("job", "list", "--store", cls.STORE),
            "check": ("check", "--json", "--coordination", cls.TREE, "--store", cls.STORE),
        }
        answers: dict[str, subprocess.CompletedProcess[str]] = {}

        def ask(name: str, *arguments: str) -> None:
            answers[name] = home.run(*arguments)

        threads = [threading.Thread(target=ask, args=(name, *question)) for name, question in questions.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return answers

    def test_it_is_one_line_and_exit_code_4(self, answers: Mapping[str, subprocess.CompletedProcess[str]]) -> None:
        assert answers["list"].returncode == answers["store"].returncode == 4
        reason = "socket connection error: Connection refused"
        assert answers["list"].stderr == f"distci: no ZooKeeper answers at 127.0.0.1:1 within 10 s ({reason})\n"
        assert answers["store"].stderr.count("\n") == 1

    @pytest.mark.parametrize("option", ["--coordination=sqlite:///dev/null/a/b", "--data=/dev/null/a"])
    def test_a_folder_that_cannot_be_is_no_surprise(self, home: Home, option: str) -> None:
        asked = home.ask("job", "list", option)

        assert asked.exit_code == 4
        assert "Not a directory: /dev/null/a" in asked.stderr or "/dev/null/a: Not a directory" in asked.stderr

    def test_the_error_may_be_json(self, answers: Mapping[str, subprocess.CompletedProcess[str]]) -> None:
        error = json.loads(answers["json"].stderr)

        assert (error["error"], error["exit_code"]) == ("CoordinationUnavailable", 4)

    def test_check_tells_of_both(self, answers: Mapping[str, subprocess.CompletedProcess[str]]) -> None:
        findings = [json.loads(line) for line in answers["check"].stdout.splitlines()]

        assert answers["check"].returncode == 4
        assert [item["subject"] for item in findings if item["state"] == "problem"] == ["coordination", "store"]


class TestWeigh:
    def test_a_weight_is_shown_until_it_is_one_again(self, home: Home) -> None:
        home.ask("cluster", "weigh", "team/web", "3")
        assert home.json("cluster", "status")[0]["weights"] == {"team/web": 3.0}
        assert "team/web 3" in home.run("cluster", "status").stdout
        home.ask("cluster", "weigh", "team/web", "1")
        assert home.json("cluster", "status")[0]["weights"] == {}

    def test_a_weight_that_no_project_can_have_is_refused(self, home: Home) -> None:
        ran = home.run("cluster", "weigh", "team/web", "0")
        assert ran.returncode == 2
        assert "between 0.01 and 100" in ran.stderr


class TestBench:
    def test_a_short_run_measures_and_leaves_no_tickets(self, home: Home) -> None:
        [figures] = home.json("bench", "tickets", "--tickets", "10", "--workers", "2")

        rates = [figures["cycle"][name] for name in ("tickets_per_s", "raw_per_s", "ratio", "commits_per_ticket")]
        assert all(rate > 0 for rate in rates)
        assert figures["crowd"]["tickets"] == 10
        assert home.json("ticket", "list") == []

    def test_builds_that_do_nothing_are_measured_and_leave_nothing(self, home: Home) -> None:
        [figures] = home.json("bench", "builds", "--builds", "2", "--tasks", "2", "--workers", "1")

        assert (figures["builds"], figures["tasks"]) == (2, 2)
        assert all(figures[name] > 0 for name in ("p50_s", "p99_s", "tasks_per_s", "raw_pairs_per_s", "ratio"))
        assert home.json("job", "list") == []
        assert not list(home.folder.rglob("*bench*"))

    def test_the_store_is_measured_beside_its_bare_client(self, home: Home) -> None:
        figures = home.json("bench", "store", "--count", "2")

        assert [(figure["operation"], figure["size_bytes"]) for figure in figures] == [
            ("put", 4096),
            ("get", 4096),
            ("put", 8 * 1024 * 1024),
            ("get", 8 * 1024 * 1024),
        ]
        assert all(figure["p50_ms"] > 0 and figure["ratio"] > 0 for figure in figures)

    def test_long_queues_and_idle_crowds_are_measured_and_leave_nothing(self, home: Home) -> None:
        options = ["--workers", "6", "--tickets", "12", "--few", "10", "--many", "100"]
        [figures] = home.json("bench", "scale", *options)

        assert figures["backlog"]["ratio"] > 0
        assert (figures["idle_crowd"]["workers"], figures["idle_crowd"]["tickets"]) == (6, 12)
        assert figures["idle_crowd"]["claims_tried_per_ticket"] >= 1
        assert home.json("ticket", "list") == []
        assert not list(home.folder.rglob("*bench*"))


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
            "check",
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

        assert any(problem.startswith("tasks[0].scrpt") for problem in json.loads(linted.stderr)["problems"])


class TestOutput:
    def test_a_reader_that_has_seen_enough_is_no_error(self, busy: Home) -> None:
        reading, writing = os.pipe()
        os.close(reading)

        ran = busy.run("build", "log", "team/large#1", capture_output=False, stdout=writing, stderr=subprocess.PIPE)
        os.close(writing)

        assert ran.stderr == ""

    @pytest.mark.parametrize("command", [["job", "list"], ["build", "log", "team/large#1"]])
    def test_a_full_disk_is_said_in_a_line(self, busy: Home, command: list[str]) -> None:
        with open("/dev/full", "w") as full:
            ran = busy.run(*command, capture_output=False, stdout=full, stderr=subprocess.PIPE)

        assert (ran.returncode, ran.stderr) == (1, "distci: No space left on device\n")

    @pytest.mark.parametrize("command", [["job", "list"], ["build", "list", "team/hello"]])
    def test_a_closed_standard_output_is_bearable(self, busy: Home, command: list[str]) -> None:
        ran = busy.run(
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
        monkeypatch.setattr("distci.cli.job.read_document", lambda file: 1 / 0)

        quiet, chatty = (home.ask("job", "lint", "x", *more) for more in ((), ("-v",)))

        assert quiet.exit_code == chatty.exit_code == 1
        assert quiet.stderr == "distci: unexpected ZeroDivisionError: division by zero; run with -v for the traceback\n"
        assert "Traceback" in chatty.stderr


def commands(group: Group, *names: str) -> Iterator[tuple[str, ...]]:
    """Every command of the program, the groups too."""
    yield names
    context = click.Context(group, obj=Invocation())
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, Group):
            yield from commands(command, *names, name)
        else:
            yield (*names, name)


EVERY = [*commands(cli)]


class TestHelp:
    @pytest.mark.parametrize("command", EVERY, ids=" ".join)
    def test_it_has_examples_that_are_valid_commands(
        self, home: Home, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TOKEN", "for an example that reads it")

        shown = home.ask(*command, "--help")

        head, mark, examples = shown.stdout.partition("\nExamples:\n")
        assert shown.exit_code == 0
        assert head.startswith("Usage: distci")
        assert mark
        for example in examples.splitlines():
            check_usage(example)

    def test_a_group_shows_the_first_sentence_of_each_command_in_full(self, home: Home) -> None:
        listed = home.ask("job", "--help").stdout.partition("\nCommands:\n")[2].partition("\nOptions:\n")[0]

        assert "history" in listed
        assert "..." not in listed

    def test_options_may_stand_before_or_after_the_command(self, home: Home) -> None:
        data = str(home.folder / "here")
        home.ask("job", "put", home.file(HELLO), "--data", data)

        before = home.ask("--data", data, "job", "list").stdout
        between = home.ask("job", "--data", data, "list").stdout

        assert before == between == "team/hello\n"

    def test_the_version(self, home: Home) -> None:
        assert home.ask("--version").stdout == f"distci {distci.__version__}\n"

    @pytest.mark.parametrize("code", ["import distci.cli", "from distci.cli import main; main()"])
    def test_it_is_quick_since_it_loads_no_back_end(self, code: str) -> None:
        slow = ("kazoo", "boto3", "rich", "jsonschema", "structlog")
        report = f"import sys, atexit; atexit.register(lambda: print([m for m in {slow} if m in sys.modules])); {code}"

        ran = subprocess.run(
            [sys.executable, "-c", report, "--help"], capture_output=True, text=True, timeout=TIME_MAX_S
        )

        assert ran.stdout.splitlines()[-1] == "[]"


def check_usage(example: str) -> None:
    """Raise what is wrong with a line of a help page as a command."""
    words = shlex.split(example.strip().partition("   ")[0])
    if words[0] == "eval":
        words = shlex.split(words[1].strip("$()"))
    words = words[: next((index for index, word in enumerate(words) if word in "|<>"), None)]
    assert words.pop(0) == "distci"
    command: click.Command = cli
    while isinstance(command, Group):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, words[0]
        command, words = found, words[1:]
    command.make_context(command.name, words, obj=Invocation())


class TestCompletion:
    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_there_is_a_script_for_each_shell(self, home: Home, shell: str) -> None:
        script = home.ask("completion", shell)

        assert script.exit_code == 0
        assert f"_DISTCI_COMPLETE={shell}_complete" in script.stdout

    def test_the_script_is_one_that_bash_takes(self, home: Home) -> None:
        script = home.file(home.ask("completion", "bash").stdout, "completion.bash")

        checked = subprocess.run(["bash", "-n", script], capture_output=True, text=True, timeout=TIME_MAX_S)

        assert (checked.returncode, checked.stderr) == (0, "")

    @pytest.mark.parametrize(
        ("words", "found"),
        [("distci be", ["bench"]), ("distci build tr", ["trigger"]), ("distci job put --rea", ["--reason"])],
    )
    def test_commands_and_options_are_completed(self, home: Home, words: str, found: Sequence[str]) -> None:
        home.environment |= {
            "_DISTCI_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        }

        ran = home.run()

        assert [line.partition(",")[2] for line in ran.stdout.splitlines()] == [*found]

    def test_another_shell_is_refused(self, home: Home) -> None:
        assert home.ask("completion", "csh").exit_code == 2
