"""Trees to kill workers on, and the processes that are killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
from chaos.serving import Serving, post, serve
from forked import context
from waiting import wait_until

from distci.protocol import Ticket


class Processes:
    """Starts worker processes on one tree, and ends all of them at the end."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self._folder = folder
        self._started: list[ForkServerProcess] = []

    def serving(self, name: str, **options: Any) -> Serving:
        return Serving(self.url, name, self._folder / f"{name}.journal", **options)

    def start(self, name: str, **options: Any) -> ForkServerProcess:
        """A worker of that name."""
        return self._launch(serve, self.serving(name, **options))

    def post(self, ticket: Ticket, **options: Any) -> ForkServerProcess:
        """Somebody who posts a ticket and is done."""
        return self._launch(post, self.serving("poster", **options), ticket)

    def journal(self, name: str) -> list[str]:
        path = self.serving(name).journal
        return path.read_text().splitlines() if path.exists() else []

    def journals(self) -> list[str]:
        """All lines of all workers."""
        return [line for path in self._folder.glob("*.journal") for line in path.read_text().splitlines()]

    def end(self) -> None:
        for process in self._started:
            if process.is_alive():
                process.kill()
        for process in self._started:
            process.join()

    def _launch(self, target: Callable[..., None], *arguments: Any) -> ForkServerProcess:
        process = context.Process(target=target, args=arguments, daemon=True)
        process.start()
        self._started.append(process)
        return process


def is_stopped(process: ForkServerProcess) -> bool:
    """Whether a process stands still after SIGSTOP."""
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def wake_up(process: ForkServerProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGCONT)


def wait_until_hit(process: ForkServerProcess, number: int) -> None:
    """Wait until a process has been killed or stopped by its fault."""
    if number == signal.SIGSTOP:
        wait_until(lambda: is_stopped(process))
    else:
        process.join(60)
        assert process.exitcode == -number


@pytest.fixture
def processes(tree_url: str, tmp_path: Path) -> Iterator[Processes]:
    made = Processes(tree_url, tmp_path)
    try:
        yield made
    finally:
        made.end()
