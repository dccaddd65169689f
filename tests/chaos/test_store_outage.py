"""Twenty tasks run on while the store is away for longer than sessions last; those that end meanwhile, and those that end later.

``tests/chaos/outages`` has it stay away for a minute.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from time import monotonic

import pytest
from program import Home, Process
from waiting import wait_until

from distci.app import DistCI, connect
from distci.chaos.links import Links, lines
from distci.chaos.relay import Relay
from distci.model import Result, TaskState
from distci.protocol import paths
from distci.settings import Settings

SESSION_TIMEOUT = "4s"
OUTAGE_S = float(os.environ.get("DISTCI_TESTS_STORE_OUTAGE_S", "6"))
"""Longer than sessions last."""
TASKS = 20
WORKERS = 2
LINES = 20_000
RECOVERY_MAX_S = 60.0
SCRIPT = """\
say() { echo "$DISTCI_TASK.$DISTCI_ATTEMPT $1" >>%(folder)s/marks; echo "$DISTCI_TASK $1"; }
at() { until test -e %(folder)s/$1; do sleep 0.2; done; }
say begun
at print; seq %(lines)d; say printed
at %(gate)s; say ended
"""


def gate(number: int) -> str:
    """When a task may end: every other one while the store is away."""
    return "middle" if number % 2 else "after"


def printed(task: str) -> bytes:
    numbers = "".join(f"{number}\n" for number in range(1, LINES + 1))
    return f"{task} begun\n{numbers}{task} printed\n{task} ended\n".encode()


@pytest.fixture
def ci(zookeeper_url: str, store_url: str, tmp_path: Path) -> Iterator[DistCI]:
    settings = Settings(coordination=zookeeper_url, store=store_url, data=str(tmp_path / "data"), actor="tester")
    with connect(settings=settings) as ci:
        yield ci


@pytest.fixture
def line(ci: DistCI, tmp_path: Path) -> Iterator[Relay]:
    """What all workers have between themselves and the store."""
    home = Home(tmp_path)
    with ExitStack() as stack:
        links = stack.enter_context(Links(lines(ci.settings)))
        settings = links.through(ci.settings)
        told = {"coordination": settings.coordination, "store": settings.store, "data": settings.data}
        told["session_timeout"] = SESSION_TIMEOUT
        home.environment |= {f"DISTCI_{name.upper()}": value for name, value in told.items()}
        for number in range(WORKERS):
            kinds = ["control", "shell", "--slots", str(TASKS // WORKERS), "--name", f"w{number}"]
            worker = Process(home, ["worker", "run", *kinds])
            stack.callback(worker.kill)
            wait_until(lambda worker=worker: "Serving as" in worker.stdout or worker.has_ended)  # type: ignore[misc]
        yield links.store


@pytest.mark.timeout(300 + 2 * OUTAGE_S)
@pytest.mark.parametrize("store_url", ["gateway"], indirect=True)
@pytest.mark.parametrize("how", ["cut", "silence"])
def test_running_tasks_go_on_without_the_store_and_count_once_with_whole_logs(
    ci: DistCI, line: Relay, tmp_path: Path, how: str
) -> None:
    # Given twenty tasks under way
    names = [f"t{number}" for number in range(TASKS)]
    scripts = [SCRIPT % {"folder": tmp_path, "lines": LINES, "gate": gate(number)} for number in range(TASKS)]
    tasks = [
        {"name": name, "type": "shell", "needs": [], "script": script}
        for name, script in zip(names, scripts, strict=True)
    ]
    ci.jobs.put({"job": "team/job", "tasks": tasks})
    build = ci.builds.trigger("team/job")
    marks = tmp_path / "marks"
    wait_until(lambda: marks.exists() and len(marks.read_text().splitlines()) == TASKS)

    # When the store goes away, they print, and half of them end
    (line.cut if how == "cut" else line.silence)()
    gone_s = monotonic()
    (tmp_path / "print").touch()
    Event().wait(OUTAGE_S / 2)
    (tmp_path / "middle").touch()
    Event().wait(gone_s + OUTAGE_S - monotonic())
    running = [task.state for task in ci.builds.get(build).tasks]
    line.restore()
    back_s = monotonic()
    (tmp_path / "after").touch()

    # Then none had ended without its log, and all of them count soon after it is back, each once and with all that it printed
    assert running == [TaskState.RUNNING] * TASKS
    view = ci.builds.wait(build, 2 * RECOVERY_MAX_S)
    recovery_s = monotonic() - back_s
    assert view.result is Result.PASSED
    assert [paths.attempt_of(task.token) for task in view.tasks] == [1] * TASKS
    for name in names:
        assert b"".join(ci.builds.log(build, name)) == printed(name)
    assert sorted(marks.read_text().splitlines()) == sorted(
        f"{name}.1 {word}" for name in names for word in ("begun", "printed", "ended")
    )
    wait_until(lambda: list(ci.tickets.list()) == [])
    assert recovery_s < RECOVERY_MAX_S
    print(f"{TASKS} tasks had ended {recovery_s:.1f} s after {OUTAGE_S:g} s without the store ({how})")
