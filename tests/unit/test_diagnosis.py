"""What is told of processes that print nothing."""

from __future__ import annotations

import subprocess

from distci.isolation.diagnosis import COMMAND_CHARS_MAX, diagnosis


def test_the_secret_of_a_long_command_is_masked_before_that_is_cut() -> None:
    before = "x" * (COMMAND_CHARS_MAX - len("sh -c read _ sh ") - 3)
    command = ["sh", "-c", "read _", "sh", before, "so-secret-a-word"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, env={"DIAGNOSED": "this"}) as process:
        lines = diagnosis(b"DIAGNOSED=this", lambda data: data.replace(b"so-secret-a-word", b"***"))
        process.communicate(b"\n")

    assert lines[0].startswith(f"{process.pid} ")
    assert lines[0].endswith("x **")
