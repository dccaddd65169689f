"""``distci reproduce``: a task of a build once more, on one's own machine, from its back ends or through a front end."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from frontends import SCOPES, address_of
from integration.git_remotes import Remote
from isolations import LXC
from program import Home
from terminals import typing
from waiting import wait_until

from distci.cli.serving import elsewhere
from distci.settings import load

JOB = {
    "job": "team/again",
    "parameters": {"LEVEL": {"default": "fast"}},
    "tasks": [
        {"name": "make", "type": "shell", "script": "mkdir sub; echo made > sub/file; chmod 640 sub/file"},
        {
            "name": "test",
            "type": "shell",
            "environment": {"MODE": "strict"},
            "secrets": ["TOKEN"],
            "script": "cd sub\nexport INSIDE=yes\ncat file\nstat -c %a file\necho $LEVEL $MODE $DISTCI_TASK ${#TOKEN}\nsh -c 'exit 7'\necho never",
        },
        {
            "name": "python",
            "type": "shell",
            "needs": ["make"],
            "script": "#!/usr/bin/env python3\nimport sys\nsys.exit(5)",
        },
        {"name": "bash", "type": "shell", "needs": ["make"], "script": "#!/bin/bash -e\ntrue\nfalse\n"},
        {
            "name": "boxed",
            "type": "shell",
            "needs": ["make"],
            "script": "cat sub/file",
            "isolation": {"type": "sandbox"},
        },
        {
            "name": "closed",
            "type": "shell",
            "script": "echo here",
            "isolation": {"type": "sandbox", "network": False},
        },
        {"name": "killed", "type": "shell", "needs": ["make"], "script": "kill -9 $$"},
        {"name": "keep", "type": "publish-artifacts", "needs": ["make"], "paths": ["sub/*"]},
        {"name": "skipped", "type": "shell", "needs": ["test"], "script": "true"},
    ],
}
COPY = {
    "job": "team/copied",
    "tasks": [{"name": "copy", "type": "copy-artifacts", "job": "team/again", "build": 1, "paths": ["sub/file"]}],
}
BUILD = "team/again#1"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home where a build has been made that ended in many ways."""
    home = Home(tmp_path_factory.mktemp("built"))
    secrets = home.file('["team"]\nTOKEN = "s3same-0pen"\n', "secrets.toml")
    with home.running("up", "--secret-file", secrets, until="Ctrl-C") as up:
        scopes = [word for scope in SCOPES for word in ("--scope", scope.value)]
        token = home.ask("token", "create", "tests", *scopes).stdout.strip()
        home.environment |= {"FRONT_END": address_of(up), "DISTCI_TOKEN": token, "TOKEN": "0pen-s3same"}
        home.ask("job", "put", home.file(JOB))
        home.ask("job", "put", home.file(COPY))
        home.ask("build", "trigger", "team/again", "--wait", "--parameter", "LEVEL=full")
        home.ask("build", "trigger", "team/copied", "--wait")
        yield home


@pytest.fixture(params=["beside it"])
def home(built: Home, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """The same, with a folder of this test's own for what is made, by its back ends or through its front end."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    url = built.environment["FRONT_END"] if request.param == "by its URL" else ""
    # What a test changes of it is gone with the test.
    monkeypatch.setattr(built, "environment", built.environment | {"TMPDIR": str(tmp_path), "DISTCI_URL": url})
    return built


both = pytest.mark.parametrize("home", ["beside it", "by its URL"], indirect=True)


@both
def test_a_task_runs_by_its_build_s_script_variables_and_files(home: Home, tmp_path: Path) -> None:
    ran = home.ask("reproduce", BUILD, "test", "--secret", "TOKEN")

    assert (ran.exit_code, ran.stdout) == (7, "made\n640\nfull strict test 11\n")
    assert "test failed: exit status 7" in ran.stderr
    [folder] = tmp_path.iterdir()
    assert (folder / "workspace" / "sub" / "file").read_text() == "made\n"
    assert str(folder / "workspace") in ran.stderr


def test_a_secret_is_never_shown(home: Home) -> None:
    ran = home.ask("reproduce", BUILD, "test", "--secret", "TOKEN=full strict test")

    assert (ran.exit_code, ran.stdout) == (7, "made\n640\n*** 16\n")


def test_nobody_is_asked_for_secrets_where_nobody_is(home: Home) -> None:
    ran = home.ask("reproduce", BUILD, "test")

    assert ran.exit_code == 2
    assert "set TOKEN in the environment, and add --secret TOKEN" in ran.stderr


def test_secrets_are_asked_for_at_the_terminal(home: Home) -> None:
    with typing(home, "reproduce", BUILD, "test") as typist:
        typist.see("secret TOKEN:")
        typist.type("typed-by-hand\n")
        code = typist.wait()

    assert code == 7
    assert "full strict test 13\r\n" in typist.shown
    assert "typed-by-hand" not in typist.shown


@pytest.mark.parametrize(("task", "code"), [("make", 0), ("python", 5), ("killed", 128 + 9), ("keep", 0)])
def test_it_exits_as_the_task_does(home: Home, task: str, code: int) -> None:
    assert home.ask("reproduce", BUILD, task).exit_code == code


@both
def test_artifacts_of_other_builds_are_copied_anew(home: Home, tmp_path: Path) -> None:
    ran = home.ask("reproduce", "team/copied#1", "copy", "--directory", str(tmp_path / "there"))

    assert ran.exit_code == 0, ran.stderr
    assert (tmp_path / "there" / "workspace" / "sub" / "file").read_text() == "made\n"


def test_a_folder_that_is_there_is_left_alone(home: Home, tmp_path: Path) -> None:
    ran = home.ask("reproduce", BUILD, "make", "--directory", str(tmp_path))

    assert ran.exit_code == 2
    assert "is there already" in ran.stderr


@both
def test_a_task_that_never_began_says_why(home: Home) -> None:
    ran = home.ask("reproduce", BUILD, "skipped")

    assert ran.exit_code != 0
    assert "skipped" in ran.stderr
    assert "never begun" in ran.stderr


def test_a_task_in_a_sandbox_and_on_the_host(home: Home) -> None:
    for wanted in ("host", "sandbox"):
        ran = home.ask("reproduce", BUILD, "boxed", "--isolation", wanted)
        assert (ran.exit_code, ran.stdout) == (0, "made\n"), ran.stderr


def test_the_line_at_the_top_of_a_log_reproduces_it(home: Home) -> None:
    first = home.ask("build", "log", BUILD, "boxed").stdout.splitlines()[0]

    words = shlex.split(first.partition("here: ")[2])
    assert words[:3] == ["distci", "reproduce", BUILD]
    assert home.ask(*words[1:]).stdout == "made\n"


@pytest.mark.parametrize("isolation", ["host", "sandbox", *LXC])
def test_a_shell_begins_where_the_script_fails(home: Home, isolation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(home.environment, "DISTCI_ISOLATION", isolation)
    with typing(home, "reproduce", BUILD, "test", "--secret", "TOKEN", "--shell", "--isolation", isolation) as typist:
        typist.see("exit status 7, in ")
        typist.see("test> ")
        typist.type("echo in=$INSIDE at=${PWD##*/} token=${#TOKEN}; tty -s </dev/tty && echo a=terminal\r")
        typist.see("in=yes at=sub token=11\r\na=terminal")
        typist.type("exit 0\r")
        code = typist.wait()

    assert code == 7
    assert "never" not in typist.shown


def test_what_is_typed_interrupts_what_runs_in_the_shell(home: Home) -> None:
    with typing(home, "reproduce", BUILD, "bash", "--shell", "--isolation", "host") as typist:
        typist.see("at line 3, in ")
        typist.see("bash> ")
        # Said by what is interrupted: the shell itself would wait for one that it has just begun.
        typist.type("sh -c 'echo begun; exec sleep 600'; echo ended\r")
        typist.see("begun\r\n")
        typist.type("\x03")
        # What is typed before the shell asks again may be dropped with what was interrupted.
        wait_until(lambda: typist.shown.count("bash> ") > 1)
        typist.type("echo still=here\r")
        typist.see("still=here\r\n")
        typist.type("exit\r")
        assert typist.wait() == 1


def test_a_script_that_is_no_shell_s_has_its_shell_where_it_began(home: Home) -> None:
    with typing(home, "reproduce", BUILD, "python", "--shell") as typist:
        typist.see("no shell could be begun where that failed")
        typist.see("python> ")
        typist.type("ls sub; exit\r")
        assert typist.wait() == 5

    assert "file\r\n" in typist.shown


def test_a_shell_needs_a_terminal(home: Home) -> None:
    ran = home.ask("reproduce", BUILD, "test", "--shell")

    assert ran.exit_code == 2
    assert "--shell needs a terminal" in ran.stderr


def test_what_this_machine_has_not_is_said_and_done_without(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(home.environment, "DISTCI_ISOLATION", "host")
    ran = home.ask("reproduce", BUILD, "boxed")

    assert (ran.exit_code, ran.stdout) == (0, "made\n")
    assert "isolation sandbox cannot be had here" in ran.stderr
    assert "it runs in host instead" in ran.stderr


def test_what_is_to_have_no_network_gets_the_machine_s_only_where_somebody_says_so(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(home.environment, "DISTCI_ISOLATION", "host")
    ran = home.ask("reproduce", BUILD, "closed")

    assert (ran.exit_code, ran.stdout) == (2, "")
    assert "task closed is to have no network" in ran.stderr
    assert home.ask("reproduce", BUILD, "closed", "--isolation", "host").stdout == "here\n"


@pytest.mark.parametrize("isolation", LXC)
def test_an_image_that_is_not_here_is_done_without(tmp_path: Path, isolation: str) -> None:
    # Given a task of an image that is nowhere
    home = Home(tmp_path)
    home.environment |= {"DISTCI_ISOLATION": f"{isolation} sandbox", "DISTCI_DATA": str(home.folder / "data")}
    task = {"name": "imaged", "type": "shell", "script": "echo here"}
    job = {"job": "team/imaged", "tasks": [task | {"isolation": {"type": isolation, "image": "debian"}}]}
    home.ask("run", home.file(job), "--data", home.environment["DISTCI_DATA"])
    # When it is run once more
    ran = home.ask("reproduce", "team/imaged#1", "imaged", "--directory", str(tmp_path / "again"))
    # Then it is without that image, which is said, unless somebody insists
    assert (ran.exit_code, ran.stdout) == (0, "here\n"), ran.stderr
    assert "it runs in sandbox instead, with this machine's own tools in place of those of debian" in ran.stderr
    insisted = home.ask("reproduce", "team/imaged#1", "imaged", "--isolation", isolation)
    assert insisted.exit_code == 2
    assert "there is no image here" in insisted.stderr


@both
def test_a_checkout_is_that_of_the_build_wherever_its_branch_is_now(home: Home, tmp_path: Path) -> None:
    source = Remote(tmp_path / "source")
    built = source.commit(hello_txt="then")
    task = {"name": "source", "type": "git-checkout", "repository": f"file://{source.path}"}
    home.ask("job", "put", home.file({"job": f"team/{tmp_path.name}", "tasks": [task]}))
    home.ask("build", "trigger", f"team/{tmp_path.name}", "--wait")
    source.commit(hello_txt="now")

    ran = home.ask("reproduce", f"team/{tmp_path.name}#1", "source", "--directory", str(tmp_path / "there"))

    assert ran.exit_code == 0, ran.output
    assert (tmp_path / "there" / "workspace" / "hello.txt").read_text() == "then"
    assert built in ran.stdout


@both
def test_its_reports_are_read_and_decide_as_on_a_worker(home: Home, tmp_path: Path) -> None:
    job = f"team/{tmp_path.name}"
    reports = {
        "junit": ["r.xml"],
        "log": {"result": "^(?P<result>ok|not ok) (?P<name>.+)"},
        "exit_statuses": [1],
    }
    of_file = '<testsuite name="s"><testcase name="in-file"><failure/></testcase></testsuite>'
    script = f"echo '{of_file}' > r.xml; echo not ok printed; exit 1"
    task = {"name": "test", "type": "shell", "script": script, "reports": reports}
    home.ask("job", "put", home.file({"job": job, "tasks": [task]}))
    home.ask("build", "trigger", job, "--wait")

    failed = home.ask("reproduce", f"{job}#1", "test", "--directory", str(tmp_path / "before"))
    for test in ("printed", "s::in-file"):
        home.ask("test", "quarantine", job, test, "--owner", "ada")
    passed = home.ask("reproduce", f"{job}#1", "test", "--directory", str(tmp_path / "after"))
    home.ask("job", "delete", job)
    gone = home.ask("reproduce", f"{job}#1", "test", "--directory", str(tmp_path / "gone"))

    assert failed.exit_code == 1, failed.output
    assert "test failed: 2 tests failed: printed, s::in-file" in failed.stderr
    assert passed.exit_code == 0, passed.output
    assert "test passed: exit status 1, for 2 tests in quarantine and no other" in passed.stderr
    # Of a job that is no more, none is in quarantine
    assert "test failed: 2 tests failed" in gone.stderr, gone.output


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"data": "/a b"}, " --data '/a b'"),
        ({"data": "/a", "public_url": "https://ci.example.org"}, " --url https://ci.example.org"),
        ({"data": "/a", "url": "https://one https://two", "token": "secret"}, " --url https://one"),
        ({"data": "/a", "coordination": "zookeeper://zk:2181/ci", "store": "s3://b?secret_key=k"}, None),
    ],
)
def test_a_log_names_an_address_of_the_system_and_nothing_that_is_secret(
    flags: dict[str, str], said: str | None
) -> None:
    assert elsewhere(load(None, {}, flags)) == said
