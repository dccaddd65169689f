"""The program ``distci`` as a process of its own, in the hands of a user with a home of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import forked
from click.testing import CliRunner, Result
from forked import PROGRAM, Called
from waiting import wait_until

from distci.cli import cli

__all__ = ["PROGRAM", "Home", "Process", "is_alive"]

TIME_MAX_S = 60


class Home:
    """A user with a home of their own, and the program."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            "PATH": f"{PROGRAM.parent}:{os.defpath}",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            # Many tests at once have a front end each.
            "DISTCI_LISTEN": "127.0.0.1:0",
            # Most scripts in tests tell the test of what they do by files beside their workspace.
            "DISTCI_ISOLATION": "host sandbox",
        }

    def file(self, document: object, name: str = "job.json") -> str:
        """The path of a file with that document."""
        path = self.folder / name
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return str(path)

    def run(self, *arguments: str, time_max_s: float = TIME_MAX_S) -> subprocess.CompletedProcess[str]:
        """The program as a process, to its end."""
        process = Process(self, arguments)
        try:
            code = process.wait(time_max_s)
        finally:
            process.kill()
        return subprocess.CompletedProcess([str(PROGRAM), *arguments], code, process.stdout, process.stderr)

    def pipe(self, *arguments: str, **more: Any) -> subprocess.CompletedProcess[Any]:
        """The same with pipes, or whatever else its standard streams shall be; begun with nothing, which takes longer."""
        options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": TIME_MAX_S} | more
        return subprocess.run([PROGRAM, *arguments], cwd=self.folder, env=self.environment, **options)

    def ask(self, *arguments: str, **more: Any) -> Result:
        """The program without a process of its own: for what needs none."""
        return CliRunner(env=self.environment).invoke(
            cli, arguments, prog_name="distci", catch_exceptions=False, **more
        )

    def json(self, *arguments: str) -> list[Any]:
        """The objects that a command prints with ``--json``."""
        asked = self.ask(*arguments, "--json")
        assert asked.exit_code == 0, asked.output
        return [json.loads(line) for line in asked.stdout.splitlines()]

    @contextmanager
    def running(self, *arguments: str, until: str = "") -> Iterator[Process]:
        """The program as a process beside the test, once it has said ``until`` on stdout; killed if it outlives the block."""
        with ExitStack() as stack:
            process = Process(self, arguments)
            stack.callback(process.kill)
            wait_until(lambda: until in process.stdout or process.has_ended)
            assert until in process.stdout, process.stderr
            yield process


class Process:
    """A running program, whose output goes to files."""

    def __init__(self, home: Home, arguments: Sequence[str]) -> None:
        name = f"process-{uuid.uuid4().hex[:8]}"
        self._out = home.folder / f"{name}.out"
        self._err = home.folder / f"{name}.err"
        self._out.touch()
        self._err.touch()
        self._process = forked.start(Called(home.folder, home.environment, arguments, self._out, self._err))

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def stdout(self) -> str:
        return self._out.read_text(errors="replace")

    @property
    def stderr(self) -> str:
        return self._err.read_text(errors="replace")

    @property
    def has_ended(self) -> bool:
        return not self._process.is_alive()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal as supervisors do, or SIGINT as Ctrl-C does: to all that share the terminal. One that has ended gets none."""
        with suppress(ProcessLookupError):
            if number is signal.SIGINT:
                os.killpg(self.pid, number)
            else:
                os.kill(self.pid, number)

    def wait(self, time_max_s: float = TIME_MAX_S) -> int:
        """The exit code."""
        self._process.join(time_max_s)
        assert self._process.exitcode is not None, f"still running after {time_max_s} s"
        return self._process.exitcode

    def pause(self) -> None:
        """SIGSTOP, and wait until all of its threads stand still."""
        os.kill(self.pid, signal.SIGSTOP)
        wait_until(lambda: self.has_ended or _stands_still(self.pid))

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._process.kill()
        self._process.join()


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def _stands_still(pid: int) -> bool:
    stats = (task.joinpath("stat").read_text() for task in Path(f"/proc/{pid}/task").iterdir())
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)
