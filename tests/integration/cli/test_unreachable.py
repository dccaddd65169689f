"""Whoever asks a back end that is not there is told so in one message."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping

import pytest
from program import TIME_MAX_S, Home


class TestUnreachable:
    """What answers from back ends that are not there, all asked at once since each takes its time."""

    STORE = "s3://bucket?endpoint_url=http://127.0.0.1:1&access_key=a&secret_key=s"
    TREE = "zookeeper://127.0.0.1:1/distci"
    NO_TREE = "distci: no ZooKeeper answers at 127.0.0.1:1 within 10 s (socket connection error: Connection refused)\n"

    @pytest.fixture(scope="class")
    @classmethod
    def answers(cls, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, subprocess.CompletedProcess[str]]:
        home = Home(tmp_path_factory.mktemp("unreachable"))
        questions = {
            "list": ("job", "list", "--coordination", cls.TREE),
            "json": ("job", "list", "--coordination", cls.TREE, "--json"),
            "up": ("up", "--coordination", cls.TREE),
            "worker": ("worker", "run", "shell", "--coordination", cls.TREE),
            "verbose": ("up", "--verbose", "--coordination", cls.TREE),
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
        assert answers["list"].stderr == self.NO_TREE
        assert answers["store"].stderr.count("\n") == 1

    @pytest.mark.parametrize("service", ["up", "worker"])
    def test_so_it_is_for_services_unless_they_are_to_tell_each_attempt(
        self, answers: Mapping[str, subprocess.CompletedProcess[str]], service: str
    ) -> None:
        assert (answers[service].returncode, answers[service].stdout) == (4, "")
        assert answers[service].stderr == self.NO_TREE
        assert answers["verbose"].stderr.count("Connection dropped") > 3

    def test_a_program_that_has_set_up_no_logs_is_told_by_the_error_alone(self) -> None:
        code = "from distci.coordination.zookeeper import kazoo_log; kazoo_log.warning('Connection dropped')"

        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=TIME_MAX_S)

        assert (ran.returncode, ran.stderr) == (0, "")

    @pytest.mark.parametrize("option", ["--coordination=sqlite:///dev/null/a/b", "--data=/dev/null/a"])
    def test_a_folder_that_cannot_be_is_no_surprise(self, home: Home, option: str) -> None:
        asked = home.ask("job", "delete", "team/hello", option)

        assert asked.exit_code == 4
        assert "Not a directory: /dev/null/a" in asked.stderr or "/dev/null/a: Not a directory" in asked.stderr

    def test_the_error_may_be_json(self, answers: Mapping[str, subprocess.CompletedProcess[str]]) -> None:
        error = json.loads(answers["json"].stderr)

        assert (error["error"], error["exit_code"]) == ("CoordinationUnavailable", 4)

    def test_check_tells_of_both(self, answers: Mapping[str, subprocess.CompletedProcess[str]]) -> None:
        findings = [json.loads(line) for line in answers["check"].stdout.splitlines()]

        assert answers["check"].returncode == 4
        assert [item["subject"] for item in findings if item["state"] == "problem"] == ["coordination", "store"]
