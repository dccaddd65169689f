"""The worker processes of a run: ``distci worker run`` as anybody starts it, and what can be done to such a process."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from time import monotonic, sleep
from typing import Self

from distci.build_tickets import CONTROL_KIND
from distci.chaos.links import Lines, Links
from distci.chaos.waiting import wait_until
from distci.errors import Unavailable
from distci.settings import CREDENTIALS, PREFIX, Settings

KINDS = (CONTROL_KIND, "git-checkout", "shell", "publish-artifacts", "copy-artifacts")
SLOTS = 2
ORDERLY = (0, -signal.SIGTERM, Unavailable.exit_code)
"""How workers may end that are told to: by the signal if they were just starting, and for want of a tree."""

AIM_LOOK_S = 0.0003
"""How soon it is noticed that a worker has begun a call: in the time that a commit takes."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where a run's files are."""

    folder: Path

    @property
    def histories(self) -> Path:
        return self.folder / "history"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def marks(self) -> Path:
        return self.folder / "marks"

    def history(self, process: str) -> Path:
        """The file that a process of that name writes down what it does in."""
        return self.histories / f"{process}.jsonl"


class Fleet:
    """So many workers; a context manager that ends all processes that it started."""

    def __init__(
        self,
        settings: Settings,
        lines: Lines,
        site: Site,
        launcher: Sequence[str],
        environment: Mapping[str, str],
        count: int,
    ) -> None:
        """``launcher`` is the program ``distci``; ``environment`` is what its processes have besides their settings."""
        self._settings = settings
        self._site = site
        self._launcher = launcher
        self._environment = {name: value for name, value in environment.items() if not name.startswith(PREFIX)}
        self._stack = ExitStack()
        self.links = [self._stack.enter_context(Links(lines)) for _ in range(count)]
        """Those of each worker."""
        self._lives = [0] * count
        self.crashed: list[str] = []
        """Workers that ended by themselves, or not when they were told to: what each did."""
        self._lock = Lock()
        self._down: set[int] = set()
        self._live: list[subprocess.Popen[bytes]] = []
        self._ended: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self._site.logs.mkdir(parents=True, exist_ok=True)
        self._live = [self._launch(index) for index in range(len(self._lives))]
        return self

    def __exit__(self, *error: object) -> None:
        for process in (*self._live, *self._ended):
            process.kill()
            process.wait()
        self._stack.close()

    def name(self, index: int) -> str:
        """The name of the process that is a worker now."""
        return f"w{index}-{self._lives[index]}"

    def wait_for_call(self, index: int, word: str, time_max_s: float) -> None:
        """Until a worker begins a call of a sort, as its history tells; not for longer than ``time_max_s``."""
        path = self._site.history(self.name(index))
        known = path.stat().st_size if path.exists() else 0

        def has_begun() -> bool:
            with suppress(FileNotFoundError), path.open("rb") as history:
                history.seek(known)
                return f'"{word}":'.encode() in history.read()
            return False

        deadline = monotonic() + time_max_s
        while not has_begun() and monotonic() < deadline:
            sleep(AIM_LOOK_S)

    def kill(self, index: int) -> None:
        with self._lock:
            self._down.add(index)
            self._live[index].kill()
            self._live[index].wait()

    def pause(self, index: int) -> None:
        self._live[index].send_signal(signal.SIGSTOP)

    def resume(self, index: int) -> None:
        self._live[index].send_signal(signal.SIGCONT)

    def start(self, index: int) -> None:
        """Another process in the place of one that was killed."""
        with self._lock:
            self._down.discard(index)
            self._live[index] = self._launch(index)

    def replace(self, index: int) -> None:
        """Another process, while the one there was ends what it holds."""
        with self._lock:
            self._live[index].terminate()
            self._ended.append(self._live[index])
            self._live[index] = self._launch(index)

    def mend(self) -> None:
        """Start anew what ended by itself, as whoever looks after services would; all but those who had found no tree count as crashed."""
        with self._lock:
            for index, process in enumerate(self._live):
                if index in self._down or process.poll() is None:
                    continue
                if process.returncode != Unavailable.exit_code:
                    self.crashed.append(
                        f"{self.name(index)} ended with {process.returncode}: {self._last_words(index)}"
                    )
                self._live[index] = self._launch(index)

    def drain(self, time_max_s: float) -> None:
        """SIGTERM to all, and wait for their ends. Who takes longer, or ends otherwise than in order, has :attr:`crashed`."""
        processes = [*self._live, *self._ended]
        for process in processes:
            process.terminate()
        with suppress(TimeoutError):
            wait_until(lambda: all(process.poll() is not None for process in processes), time_max_s)
        for process in processes:
            if process.poll() not in ORDERLY:
                how = "did not end" if process.poll() is None else f"ended with {process.returncode}"
                self.crashed.append(f"{_name_of(process)} {how} when it was told to")

    def _launch(self, index: int) -> subprocess.Popen[bytes]:
        self._lives[index] += 1
        name = self.name(index)
        settings = self.links[index].through(replace(self._settings, history=str(self._site.history(name))))
        names = ("coordination", "store", "data", "session_timeout", "search_path", "history", *CREDENTIALS)
        told = {f"{PREFIX}{name.upper()}": getattr(settings, name) for name in names}
        command = [*self._launcher, "worker", "run", *KINDS, "--slots", str(SLOTS), "--name", name]
        with (self._site.logs / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment | told,
                start_new_session=True,
            )

    def _last_words(self, index: int) -> str:
        return (self._site.logs / f"{self.name(index)}.log").read_text(errors="replace")[-500:].strip()


def _name_of(process: subprocess.Popen[bytes]) -> str:
    assert isinstance(process.args, list)
    return str(process.args[-1])
