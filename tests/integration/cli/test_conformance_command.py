"""Whether a program is a worker: the one of the documentation is; programs with a defect are not, and it is said why."""

from __future__ import annotations

from pathlib import Path

import pytest
from program import PROGRAM, Home

WORKER = Path(__file__).parents[3] / "docs" / "examples" / "worker.sh"
RUN_TIME_MAX_S = 280

DEFECTS = {
    "ignores a cancel": ("stop=cancelled", ":", "cancel", "its script still runs"),
    "ignores that its claim is lost": ("{ stop=lost; break; }", ":", "claim-lost", "its script still runs"),
    "loses bytes of the log": (
        "| head -c 1000000",
        "| tr -d '\\0' | head -c 1000000",
        "any-bytes",
        "differs from byte 0",
    ),
    "claims anew when an answer is lost": ("do sleep 1; done", "do break; done", "lost-answers", "the build is"),
}
"""What to change in the worker, the case that must find it, and what it says."""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    # What a run keeps when it found a defect goes with the test.
    home.environment["TMPDIR"] = str(tmp_path)
    return home


@pytest.mark.timeout(RUN_TIME_MAX_S)
@pytest.mark.parametrize("command", [[str(WORKER)], [str(PROGRAM), "worker", "run", "shell"]], ids=["docs", "own"])
def test_the_worker_of_the_documentation_is_one_and_so_is_our_own(home: Home, command: list[str]) -> None:
    ran = home.run("conformance", "--json", "--", *command, timeout=RUN_TIME_MAX_S)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count('"is_met": true') == 11


@pytest.mark.timeout(RUN_TIME_MAX_S)
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_worker_with_a_defect_is_found_out(home: Home, defect: str) -> None:
    old, new, case, told = DEFECTS[defect]
    text = WORKER.read_text()
    assert text.count(old) == 1
    broken = home.folder / "broken.sh"
    broken.write_text(text.replace(old, new))
    broken.chmod(0o755)
    patience = ("--patience", "20")
    passing = home.run("conformance", *patience, "--case", "passes", "--", str(broken), timeout=RUN_TIME_MAX_S)
    ran = home.run("conformance", *patience, "--case", case, "--", str(broken), timeout=RUN_TIME_MAX_S)
    assert ran.returncode == 1, ran.stdout
    assert "FAILED" in ran.stdout
    assert told in ran.stdout
    assert "expected" in ran.stdout
    assert passing.returncode == 0, passing.stdout


def test_a_program_that_is_no_worker_is_told_what_was_expected(home: Home) -> None:
    ran = home.run("conformance", "--patience", "2", "--case", "passes", "--", "sleep", "60")
    assert ran.returncode == 1
    assert "not over after 2 s" in ran.stdout
    assert "worker.log" in ran.stderr
    ran = home.run("conformance", "--patience", "2", "--case", "passes", "--", "./no-such-program")
    assert "the program has ended: exit status 127" in ran.stdout


def test_a_case_that_there_is_not_is_named(home: Home) -> None:
    ran = home.run("conformance", "--case", "nonsense", "--", "true")
    assert ran.returncode == 2
    assert "claim-lost" in ran.stderr
