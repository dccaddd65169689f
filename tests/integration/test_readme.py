"""What the README shows works as it is shown."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent


def blocks(language: str) -> list[str]:
    """The README's code blocks in a language."""
    text = (ROOT / "README.rst").read_text()
    return [
        dedent(found) for found in re.findall(rf"\.\. code-block:: {language}\n\n((?:   .*\n|\n)+)", text, re.MULTILINE)
    ]


def run(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": f"{PROGRAMS}:{os.defpath}", "HOME": str(folder), "LANG": "C.UTF-8"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def test_the_first_job_passes_and_keeps_what_it_made(tmp_path: Path) -> None:
    [job] = blocks("json")
    (tmp_path / "hello.json").write_text(job)

    ran = run(PROGRAMS / "distci", "run", "hello.json", "--data", "data", folder=tmp_path)
    got = run(PROGRAMS / "distci", "artifact", "get", "hello#1", "--data", "data", folder=tmp_path)

    assert ran.returncode == 0, ran.stderr
    assert "hello#1 passed" in ran.stdout
    assert got.returncode == 0, got.stderr
    assert next(tmp_path.rglob("greeting.txt")).read_text() == "hello\n"


def test_the_twenty_lines_of_tickets_do_what_they_say(tmp_path: Path) -> None:
    [example] = [block for block in blocks("python") if "Ticket(" in block]

    ran = run(sys.executable, "-c", example, folder=tmp_path)

    assert ran.stderr == ""
    assert ran.stdout == "resizing cat.png\ncat.png is small now\n"


@pytest.mark.usefixtures("served")
def test_the_client_script_follows_a_build_to_its_end(tmp_path: Path) -> None:
    [example] = [block for block in blocks("python") if "follow(build)" in block]

    ran = run(sys.executable, "-c", example, folder=tmp_path)

    assert ran.stderr == ""
    assert "greet distci: to run this here: distci reproduce hello#1 greet\nhello\n" in ran.stdout
    assert ran.stdout.endswith("passed\n")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[None]:
    """A system of one process on the default back ends of a user whose home is the test's folder."""
    (tmp_path / "hello.json").write_text(blocks("json")[0])
    put = run(PROGRAMS / "distci", "job", "put", "hello.json", folder=tmp_path)
    assert put.returncode == 0, put.stderr
    environment = {"PATH": f"{PROGRAMS}:{os.defpath}", "HOME": str(tmp_path), "LANG": "C.UTF-8"}
    environment["DISTCI_LISTEN"] = "127.0.0.1:0"
    with subprocess.Popen(
        [PROGRAMS / "distci", "up"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        yield
        process.terminate()
        process.communicate()
