"""What is told of a task while it runs and afterwards, whether its worker reaches the back ends or a front end alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from frontend.test_remote_workers import Crew
from frontends import Stage, shell
from waiting import wait_until

from distci.builds import BuildView
from distci.model import BuildId, Json


class Watched:
    """A system whose tasks somebody watches."""

    def __init__(self, stage: Stage, *, is_remote: bool) -> None:
        self.stage = stage
        self.ci = stage.ci
        if is_remote:
            Crew(stage)
        else:
            stage.start_workers()

    def start(self, *tasks: Mapping[str, Any]) -> BuildId:
        self.ci.jobs.put({"job": "team/hello", "tasks": [*tasks]})
        return self.ci.builds.trigger("team/hello")

    def end(self, build: BuildId) -> BuildView:
        return self.stage.end(build)

    def printed(self, build: BuildId, task: str = "say") -> str:
        has_begun = self.ci.builds.get(build).tasks
        return b"".join(self.ci.builds.log(build, task)).decode(errors="replace") if has_begun else ""


@pytest.fixture(params=["beside it", "through a front end"])
def watched(request: pytest.FixtureRequest, start_stage: Callable[..., Stage]) -> Watched:
    return Watched(start_stage(), is_remote=request.param != "beside it")


def test_what_a_task_used_is_on_record(watched: Watched) -> None:
    compute = f"{sys.executable} -c 'import time\nx = bytearray(60 << 20)\nwhile time.process_time() < 0.3: pass'"
    # What tests write elsewhere may be in memory alone.
    with TemporaryDirectory(dir="/var/tmp") as disk:
        write = f"dd if=/dev/zero of={disk}/f bs=1M count=3 conv=fsync status=none"
        view = watched.end(watched.start(shell(f"{compute}; {write}"), shell("true", "little")))

    used, little = (usage(view, name) for name in ("say", "little"))
    assert 0.3 <= used["cpu_s"] < 60
    assert used["memory_peak_bytes"] > 60 << 20
    assert used["written_bytes"] >= 3 << 20
    assert little["cpu_s"] < used["cpu_s"]
    shown = watched.stage.home.ask("build", "show", str(view.id), "--usage", *watched.stage.flags).stdout
    assert [line.split()[:2] for line in shown.splitlines()[-2:]] == [["say", "1"], ["little", "1"]]


def usage(view: BuildView, task: str) -> Mapping[str, Json]:
    found: Mapping[str, Json] = view.task(task).attempts[-1]["usage"]
    return found


def test_what_a_silent_task_does_is_told_in_its_log_and_it_goes_on(watched: Watched, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    # One that waits in a place that can be told, with a secret among its arguments
    script = f"exec 3<{sys.executable}; sh -c 'until test -e {gate}; do sleep 0.1; done' $TOKEN; echo went on"
    watched.ci.secrets.set("TOKEN", "s3same-0pen", "team")
    build = watched.start(shell(script, secrets=["TOKEN"], diagnose_after="500ms"))

    wait_until(lambda: "what runs:" in watched.printed(build) and "sleep" in watched.printed(build))
    gate.touch()
    assert watched.end(build).state == "passed"
    log = watched.printed(build)
    assert log.count("nothing was printed for 0.5 s") == 1
    assert f"until test -e {gate}" in log
    assert "s3same-0pen" not in log
    assert "3 /" in log
    assert log.endswith("went on\n")


def test_how_far_a_task_says_that_it_is_is_shown_while_it_runs(watched: Watched, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    script = f"printf 'step 1/8\\rstep 2/8'; until test -e {gate}; do sleep 0.1; done; echo"
    build = watched.start(shell(script, progress="step ([0-9]+)/([0-9]+)"))

    wait_until(lambda: [task.progress for task in watched.ci.builds.get(build).tasks] == [25])
    shown = watched.stage.home.ask("build", "show", str(build), *watched.stage.flags).stdout
    assert "running 25 %" in shown
    gate.touch()
    assert [task.progress for task in watched.end(build).tasks] == [None]
