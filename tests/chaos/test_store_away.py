"""A worker is killed while the store is away and all that its script printed waits on it; others do the attempt anew."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from chaos.test_whole_builds import record
from program import Home, Process
from waiting import wait_until

from distci.app import DistCI, connect
from distci.chaos.links import Links, lines
from distci.console import read_log
from distci.model import BuildId, Result, TaskState
from distci.protocol import paths
from distci.settings import Settings
from distci.store import keys

JOB = "team/job"
SESSION_TIMEOUT = "1s"
BUILD_TIME_MAX_S = 60.0
LINES = 3_000_000
PRINTED = "".join(f"{number}\n" for number in range(1, LINES + 1)).encode()
"""No two parts of it are the same, and it is more than waits in memory."""


class Site:
    """A system, whose workers have one line to its store."""

    def __init__(self, ci: DistCI, links: Links, folder: Path, stack: ExitStack) -> None:
        self.ci = ci
        self.line = links.store
        self._folder = folder
        self._stack = stack
        self._home = Home(folder)
        settings = links.through(ci.settings)
        told = {name: getattr(settings, name) for name in ("coordination", "store", "data")}
        told["session_timeout"] = SESSION_TIMEOUT
        self._home.environment |= {f"DISTCI_{name.upper()}": value for name, value in told.items()}

    def hire(self, kind: str, name: str) -> Process:
        """A worker process."""
        self._home.environment["DISTCI_HISTORY"] = str(self._folder / f"{name}.history")
        process = Process(self._home, ["worker", "run", kind, "--name", name])
        self._stack.callback(process.kill)
        wait_until(lambda: "Serving as" in process.stdout or process.has_ended)
        return process

    def has_written(self, name: str, words: str) -> bool:
        """Whether a worker has begun to write an object with that in its key."""
        return words in (self._folder / f"{name}.history").read_text()

    def put_job(self) -> None:
        tell, wait = f'echo "$DISTCI_ATTEMPT $1" >> {self._folder}/marks', "until test -e {}; do sleep 0.02; done"
        script = [
            f"tell() {{ {tell}; }}",
            "tell begun; echo $DISTCI_ATTEMPT begun",
            wait.format(self._folder / "print"),
            f"seq {LINES}; tell printed",
            wait.format(self._folder / "end"),
            "tell ended",
        ]
        make = {"name": "make", "type": "shell", "script": "\n".join(script), "attempts": 2}
        self.ci.jobs.put({"job": JOB, "tasks": [make]})

    def let(self, word: str) -> None:
        """Let scripts print, or end."""
        (self._folder / word).touch()

    def marks(self) -> list[str]:
        """What scripts have done, and in which attempt."""
        marks = self._folder / "marks"
        return marks.read_text().splitlines() if marks.exists() else []

    def token(self, attempt: int) -> str:
        """The claim of an attempt at a script, once there is one."""
        views = [self.ci.tickets.view_running(token) for token in self.ci.tickets.running_tokens()]
        found = [view.token for view in views if view.ticket and view.ticket.kind == "shell"]
        return next((token for token in found if paths.attempt_of(token) == attempt), "")

    def log(self, token: str) -> bytes:
        """What is stored of what an attempt has printed."""
        return b"".join(read_log(self.ci.store, keys.log(BuildId(JOB, 1), "make", token)))

    def end(self, build: BuildId) -> Any:
        view = self.ci.builds.wait(build, BUILD_TIME_MAX_S)
        assert view.is_archived, f"{build} is still {view.state}"
        return view


@pytest.fixture
def site(url: str, store_url: str, tmp_path: Path) -> Iterator[Site]:
    settings = Settings(coordination=url, store=store_url, data=str(tmp_path / "data"), actor="tester")
    with ExitStack() as stack:
        ci = stack.enter_context(connect(settings=settings))
        yield Site(ci, stack.enter_context(Links(lines(settings))), tmp_path, stack)


def spooled_bytes(process: Process) -> int:
    """What waits in files of a process that have no name."""
    found = 0
    for path in Path(f"/proc/{process.pid}/fd").iterdir():
        try:
            if os.readlink(path).endswith("(deleted)"):
                found += path.stat().st_size
        except FileNotFoundError:
            continue
    return found


@pytest.mark.timeout(240)
@pytest.mark.parametrize("store_url", ["gateway"], indirect=True)
@pytest.mark.parametrize("how", ["cut", "silence"])
@pytest.mark.parametrize("waits", ["the log", "the outcome"])
def test_an_attempt_whose_end_died_with_its_worker_while_the_store_was_away_is_done_anew(
    site: Site, waits: str, how: str
) -> None:
    # Given a script under way
    site.hire("control", "planner")
    victim = site.hire("shell", "victim")
    site.put_job()
    build = site.ci.builds.trigger(JOB)
    wait_until(lambda: site.marks() == ["1 begun"])
    first = site.token(1)
    begun = b"1 begun\n"
    wait_until(lambda: site.log(first) == begun)
    go_away = site.line.cut if how == "cut" else site.line.silence

    # When the store goes away before it prints and ends, or between the two
    if waits == "the log":
        go_away()
        site.let("print")
        site.let("end")
        wait_until(lambda: "1 ended" in site.marks())
        wait_until(lambda: spooled_bytes(victim) > 0)
    else:
        site.let("print")
        log = keys.log(build, "make", first)
        wait_until(lambda: sum(map(len, read_log(site.ci.store, log))) == len(begun + PRINTED))
        go_away()
        site.let("end")
        wait_until(lambda: site.has_written("victim", f"{first}/outcome.json"))
    assert site.token(1) == first
    # And its worker is killed, and somebody else begins while it is still away
    victim.kill()
    site.hire("shell", "heir")
    wait_until(lambda: bool(site.token(2)))
    assert site.ci.builds.get(build).task("make").state is TaskState.RUNNING
    site.line.restore()

    # Then that is the attempt which counts
    view = site.end(build)
    assert view.result is Result.PASSED
    assert view.task("make").token == paths.token(paths.ticket_of(first), 2)
    assert [mark for mark in site.marks() if mark[0] == "2"] == ["2 begun", "2 printed", "2 ended"]
    # And its log is whole, and what is left of the other is the beginning of what that printed
    assert b"".join(site.ci.builds.log(build, "make")) == b"2 begun\n" + PRINTED
    left = site.log(first)
    assert left.startswith(begun)
    assert (begun + PRINTED).startswith(left)
    assert site.ci.store.head(keys.attempt_outcome(build, "make", first)) is None or how == "silence"
    # And the record is that of a build that nobody disturbed
    calm = site.end(site.ci.builds.trigger(JOB))
    assert record(view) == record(calm)
    assert [ended["attempt"] for ended in view.task("make").attempts] == [2]
    wait_until(lambda: list(site.ci.tickets.list()) == [])
