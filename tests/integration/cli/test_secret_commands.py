"""``distci secret``, on back ends and through a front end."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from program import Home

VALUE = "hunter2-s3same"
KEY, NEW_KEY = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))


@pytest.fixture
def keeper(home: Home) -> Home:
    """Somebody with a master key in a file."""
    home.environment["DISTCI_SECRET_KEYS_FILE"] = home.file(f"{KEY}\n", "keys")
    return home


def test_one_that_is_set_reaches_its_task_is_listed_and_forgotten(keeper: Home) -> None:
    told = keeper.ask("secret", "set", "TOKEN", "--project", "team", input=f"{VALUE}\n")
    assert (told.exit_code, told.stdout) == (0, "TOKEN is set for team\n")
    key = Path(keeper.file("two\nlines\n", "key"))
    assert keeper.ask("secret", "set", "KEY", "--project", "team", "--file", str(key)).exit_code == 0

    task = {"name": "use", "type": "shell", "script": 'test "$TOKEN" = hunter2-s3same; wc -l < "$KEY"'}
    keeper.ask(
        "job",
        "put",
        keeper.file({"job": "team/job", "tasks": [task | {"secrets": ["TOKEN"], "secret_files": ["KEY"]}]}),
    )
    with keeper.running("up", "--no-frontend", until="Ctrl-C") as up:
        built = keeper.run("build", "trigger", "team/job", "--follow")
    assert (built.returncode, VALUE in built.stdout + up.stdout + up.stderr) == (0, False), built.stdout

    listed = keeper.json("secret", "list")
    assert [(secret["project"], secret["name"]) for secret in listed] == [("team", "KEY"), ("team", "TOKEN")]
    assert VALUE not in json.dumps(listed)
    assert keeper.json("secret", "delete", "TOKEN", "--project", "team") == [
        {"project": "team", "name": "TOKEN", "is_deleted": True}
    ]
    gone = keeper.ask("secret", "delete", "TOKEN", "--project", "team")
    assert (gone.exit_code, "no secret TOKEN is set for team" in gone.stderr) == (5, True)


def test_a_rotation_makes_the_old_key_useless(keeper: Home) -> None:
    keeper.ask("secret", "set", "TOKEN", input=VALUE)
    keeper.file(f"{NEW_KEY}\n{KEY}\n", "keys")
    assert keeper.json("secret", "rotate") == [{"sealed": 1, "kept": 0}]
    assert keeper.ask("secret", "rotate").stdout == "0 data keys are sealed anew; 1 were already\n"

    keeper.file(f"{KEY}\n", "keys")
    refused = keeper.ask("secret", "set", "TOKEN", input=VALUE)
    assert (refused.exit_code, "is not among those at hand" in refused.stderr) == (2, True)


def test_master_keys_that_others_may_read_are_told_of(keeper: Home) -> None:
    file = Path(keeper.environment["DISTCI_SECRET_KEYS_FILE"])
    found = {}
    for mode in (0o600, 0o640):
        file.chmod(mode)
        told = [json.loads(line) for line in keeper.ask("check", "--json").stdout.splitlines()]
        found[mode] = [finding["detail"] for finding in told if finding["subject"] == "secrets" and finding["remedy"]]
    assert found == {0o600: [], 0o640: [f"{file} can be read by others than its owner"]}


@pytest.mark.parametrize("value", [b"abc", b"\xffhunter2", b"hunter2\0", b"hunter2" * 10_000])
def test_what_cannot_be_kept_is_refused_and_not_repeated(keeper: Home, value: bytes) -> None:
    keeper.ask("secret", "set", "OTHER", input="open-sesame")

    refused = keeper.ask("secret", "set", "TOKEN", input=value)

    assert refused.exit_code == 2
    assert "hunter2" not in refused.output
    assert [kept["name"] for kept in keeper.json("secret", "list")] == ["OTHER"]


def test_a_value_is_not_taken_from_the_command_line(keeper: Home) -> None:
    assert keeper.ask("secret", "set", "TOKEN", VALUE).exit_code == 2
    assert keeper.ask("secret", "set", f"TOKEN={VALUE}", input=VALUE).exit_code == 2


def test_without_a_master_key_what_to_do_is_said(home: Home) -> None:
    refused = home.ask("secret", "set", "TOKEN", input=VALUE)

    assert refused.exit_code == 2
    assert "DISTCI_SECRET_KEYS_FILE" in refused.stderr
    assert "openssl rand -base64 32" in refused.stderr


def test_a_key_file_that_is_not_there_is_named(home: Home) -> None:
    home.environment["DISTCI_SECRET_KEYS_FILE"] = "/none"

    assert "DISTCI_SECRET_KEYS_FILE: /none: No such file" in home.ask("secret", "set", "TOKEN", input=VALUE).stderr
