"""``distci up``: a whole system in one process."""

from __future__ import annotations

import json
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from integration.cli.homes import HELLO, waits_for
from program import Home, Process, is_alive
from waiting import wait_until


@contextmanager
def told_to_end(home: Home) -> Iterator[Process]:
    """A system in the middle of a script, which has had its first signal."""
    home.ask("job", "put", home.file(waits_for(home.folder / "go")))
    with home.running("up", until="Ctrl-C") as up:
        home.ask("build", "trigger", "team/slow")
        wait_until((home.folder / "begun").exists)
        up.signal(signal.SIGTERM)
        wait_until(lambda: "taking nothing more" in up.stderr)
        yield up


class TestUp:
    def test_a_build_is_started_and_followed_from_another_process(self, home: Home) -> None:
        with home.running("up", "--data", "a b", until="Ctrl-C") as up:
            [put] = [line for line in up.stdout.splitlines() if "job put" in line]
            where = shlex.split(put)[-2:]
            link = home.run(*shlex.split(up.stdout.partition("`distci ")[2].partition("`")[0]))
            saved = home.run("job", "put", home.file(HELLO), *where)
            built = home.run("build", "trigger", "team/hello", "--wait", "--follow", *where)
            up.signal(signal.SIGTERM)
            code = up.wait()

        assert link.stdout.partition("/login/")[0] in up.stdout.partition("/api/v1/")[0].split()
        assert (saved.returncode, saved.stdout) == (0, "team/hello version 1\n")
        assert built.returncode == 0
        assert "hello world\n" in built.stdout
        assert "team/hello#1 passed" in built.stdout
        assert "team/hello#1 has been started" in built.stderr
        assert code == 0

    def test_a_signal_lets_it_finish_what_runs(self, home: Home) -> None:
        with told_to_end(home) as up:
            (home.folder / "go").touch()
            code = up.wait()
        with home.running("up", until="Ctrl-C"):
            waited = home.run("build", "wait", "team/slow#1", "--json")

        assert code == 0
        assert waited.returncode == 0
        assert len(json.loads(waited.stdout)["tasks"][0]["attempts"]) == 1

    def test_a_second_signal_ends_it_at_once(self, home: Home) -> None:
        with told_to_end(home) as up:
            up.signal(signal.SIGTERM)
            code = up.wait()

        assert code == 128 + signal.SIGTERM
        wait_until(lambda: not is_alive(int((home.folder / "begun").read_text())))

    def test_secrets_come_from_a_file(self, home: Home) -> None:
        task = {"name": "t", "type": "shell", "script": "echo ${#TOKEN}; echo $TOKEN", "secrets": ["TOKEN"]}
        home.ask("job", "put", home.file({"job": "team/secret", "tasks": [task]}))
        secrets = home.file("[team]\nTOKEN = 's3same-0pen'\n", "secrets.toml")

        with home.running("up", "--secret-file", secrets, until="Ctrl-C") as up:
            built = home.run("build", "trigger", "team/secret", "--follow")

        assert built.returncode == 0
        assert "11\n" in built.stdout
        assert "s3same-0pen" not in built.stdout + up.stdout + up.stderr

    @pytest.mark.parametrize("content", ["TOKEN = s3same", "TOKEN = 's3same'", "[team]\nTOKEN = 7", None])
    def test_a_secret_file_that_cannot_be_used_is_named_and_not_quoted(self, home: Home, content: str | None) -> None:
        secrets = home.file(content, "secrets.toml") if content else "none.toml"

        ran = home.run("up", "--secret-file", secrets)

        assert ran.returncode == 2
        assert secrets in ran.stderr
        assert "s3same" not in ran.stderr
