"""Whether a program is a worker: the one of the documentation is; programs with a defect are not, and it is said why."""

from __future__ import annotations

import signal
import subprocess
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from time import monotonic

import pytest
from program import PROGRAM, Home
from waiting import wait_until

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
    "claims anew when an answer is lost": ("sleep $pause;", "break;", "lost-answers", "the build is"),
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
    ran = home.run("conformance", "--json", "--", *command, time_max_s=RUN_TIME_MAX_S)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count('"is_met": true') == 11


def test_the_worker_of_the_documentation_says_what_it_asks_again_for(home: Home) -> None:
    class Away(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(503)
            self.end_headers()
            self.wfile.write(b"the store is away")

        def log_message(self, format: str, *arguments: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Away) as server, (home.folder / "said").open("wb") as said:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        told = {"DISTCI_URL": f"http://127.0.0.1:{server.server_port}", "DISTCI_TOKEN": "distci_x"}
        worker = subprocess.Popen([WORKER], env=home.environment | told, stderr=said)
        try:
            wait_until(lambda: "asked again in 2 s" in (home.folder / "said").read_text())
        finally:
            worker.terminate()
            worker.wait()
            server.shutdown()
    assert (
        (home.folder / "said").read_text().startswith("POST /api/v1/claims: 503  the store is away; asked again in 1 s")
    )


@pytest.mark.timeout(RUN_TIME_MAX_S)
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_worker_with_a_defect_is_found_out(home: Home, defect: str) -> None:
    old, new, case, told = DEFECTS[defect]
    text = WORKER.read_text()
    assert text.count(old) == 1
    broken = home.folder / "broken.sh"
    broken.write_text(text.replace(old, new))
    broken.chmod(0o755)
    cases = ("--case", "passes", "--case", case)
    ran = home.run("conformance", "--patience", "20", *cases, "--", str(broken), time_max_s=RUN_TIME_MAX_S)
    assert ran.returncode == 1, ran.stdout
    passing, failing, expected = ran.stdout.splitlines()
    assert passing.split()[:2] == ["passes", "passed"]
    assert failing.split()[:2] == [case, "FAILED"]
    assert told in failing
    assert "expected" in expected


def test_a_program_that_is_no_worker_is_told_what_was_expected(home: Home) -> None:
    ran = home.run("conformance", "--patience", "2", "--case", "passes", "--", "sleep", "60")
    assert ran.returncode == 1
    assert "not over after 2 s" in ran.stdout
    assert "worker.log" in ran.stderr


@pytest.mark.parametrize("case", ["passes", "claim-lost"])
def test_a_program_that_ends_is_not_waited_for(home: Home, case: str) -> None:
    began_s = monotonic()
    ran = home.run("conformance", "--patience", "500", "--case", case, "--", "sh", "-c", "exit 3", time_max_s=250)
    assert ran.returncode == 1
    assert "the program has ended: exit status 3" in ran.stdout
    assert monotonic() - began_s < 250


def test_a_program_that_there_is_not_is_told_before_anything_is_started(home: Home) -> None:
    (home.folder / "not-executable.sh").write_text("#!/bin/sh\n")
    for program in ("./no-such-program", str(home.folder / "not-executable.sh")):
        ran = home.run("conformance", "--", program)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert f"{program!r} is no program that can be executed here" in ran.stderr
        assert "kept" not in ran.stderr


def test_a_verdict_is_printed_as_its_case_ends(home: Home) -> None:
    program = home.folder / "ends-once.sh"
    program.write_text("#!/bin/sh\n[ -e ended ] && exec sleep 600\ntouch ended\n")
    program.chmod(0o755)
    cases = ("--case", "passes", "--case", "fails")
    with home.running("conformance", "--patience", "500", *cases, "--", str(program), until="expected") as process:
        assert process.stdout.split()[:2] == ["passes", "FAILED"]
        assert not process.has_ended
        process.signal(signal.SIGTERM)
        process.wait()


def test_a_case_that_there_is_not_is_named(home: Home) -> None:
    ran = home.run("conformance", "--case", "nonsense", "--", "true")
    assert ran.returncode == 2
    assert "claim-lost" in ran.stderr
