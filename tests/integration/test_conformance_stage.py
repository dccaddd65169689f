"""Where a worker is tried: who interrupts it is not kept waiting, at whatever point."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from program import PROGRAM

from distci.conformance import stage
from distci.conformance.relay import Weather
from distci.conformance.stage import Options, Stage


class InterruptedAsItStarts(ThreadPoolExecutor):
    """Ctrl-C falls between the program's start and the block that it runs in."""

    def submit(self, *what: Any, **more: Any) -> Future[Any]:
        super().submit(*what, **more)
        raise KeyboardInterrupt


def test_a_program_that_is_interrupted_as_it_starts_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = Options(["sleep", "600"], "shell", tmp_path, [str(PROGRAM)], os.environ, 20.0)
    with Stage(options) as opened:
        opened.relay.begin(Weather())
        monkeypatch.setattr(stage, "ThreadPoolExecutor", InterruptedAsItStarts)
        with pytest.raises(KeyboardInterrupt), opened.worker():
            pytest.fail("the block is not reached")
