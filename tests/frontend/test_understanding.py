"""What is told of a task while it runs and afterwards, whether its worker reaches the back ends or a front end alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from frontend.test_remote_workers import Crew
from frontends import Stage, shell

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
        return b"".join(self.ci.builds.log(build, task)).decode(errors="replace")


@pytest.fixture(params=["beside it", "through a front end"])
def watched(request: pytest.FixtureRequest, start_stage: Callable[..., Stage]) -> Watched:
    return Watched(start_stage(), is_remote=request.param != "beside it")


def test_what_a_task_used_is_on_record(watched: Watched) -> None:
    burn = f"{sys.executable} -c 'import time\nx = bytearray(60 << 20)\nwhile time.process_time() < 0.3: pass'; dd if=/dev/zero of=f bs=1M count=3 conv=fsync status=none"
    view = watched.end(watched.start(shell(burn), shell("true", "little")))

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
