"""An attempt that nobody gave and nobody waits for: a task of some build, done once more for whoever wants to see it done.

It reads what the build went by and writes nothing of it: what it would keep or publish stays where it was made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import BinaryIO, Protocol

from distci import tarballs
from distci.artifacts import Publication, Upload, publish
from distci.brokers.port import Held
from distci.console import LOG_BYTES_MAX
from distci.errors import NoSuchBuild, NoSuchJob
from distci.holds import Drawer
from distci.model import BuildId, Hold, Outcome, Verdict
from distci.quarantine import Quarantined
from distci.reproductions import Reproduction
from distci.store import keys
from distci.store.attended import Checkpoint
from distci.store.port import Store
from distci.workspaces import Workspaces

READ_BYTES = 1024 * 1024
SILENCE_S = 3600.0
"""Nobody takes it away for its silence."""


class Sources(Protocol):
    """A system, on its back ends or through a front end, as far as an attempt reads from it."""

    @property
    def reproductions(self) -> Workspace: ...

    @property
    def artifacts(self) -> Downloads: ...

    @property
    def quarantine(self) -> Tests: ...


class Workspace(Protocol):
    def workspace(self, build: BuildId | str, task: str) -> BinaryIO: ...


class Downloads(Protocol):
    def download(self, build: BuildId | str, destination: Path | str, names: Sequence[str] = ()) -> Sequence[Path]: ...


class Tests(Protocol):
    def list(self, job: str) -> Sequence[Quarantined]: ...


class Alone:
    """The attempt, as :class:`distci.brokers.port.Assignment` has it; :attr:`outcome` is what it came to."""

    log_bytes_max = LOG_BYTES_MAX
    is_called_off = False
    silence_s = SILENCE_S
    heading = ""
    elsewhere = ""
    progress: int | None = None
    hold: Hold | None = None
    drawer: Drawer | None = None

    def __init__(
        self,
        told: Reproduction,
        system: Sources,
        new_store: Callable[[Path], Store],
        secrets: Mapping[str, str],
        write: Callable[[bytes], None],
    ) -> None:
        """``new_store`` makes a store in a folder, for a moment; ``secrets`` are values by name; ``write`` takes what is printed."""
        self.build = told.build
        self.plan = told.plan
        self.task = told.plan.task(told.task)
        self.token = told.token
        self.lost = Event()
        self.changed = Event()
        self.outcome: Outcome | None = None
        self._told = told
        self._system = system
        self._new_store = new_store
        self._secrets = secrets
        self._write = write
        self._is_stopped = False

    def stop(self) -> None:
        """End it. From any thread or signal handler."""
        self._is_stopped = True
        self.changed.set()

    def variables(self) -> dict[str, str]:
        return dict(self._told.variables)

    def secrets(self) -> dict[str, str]:
        return dict(self._secrets)

    def write_log(self, offset: int, data: bytes) -> None:
        self._write(data)

    def restore(self, directory: Path, checkpoint: Checkpoint) -> None:
        with TemporaryDirectory(dir=directory.parent) as packs:
            store = self._new_store(Path(packs))
            if not self.task.needs:
                Workspaces(store, checkpoint).restore([], directory)
                return
            key = keys.workspace(self.build, self.task.name, "before")
            with self._system.reproductions.workspace(self.build, self.task.name) as tar:
                tarballs.restore(store, tar, key, self.task.name, directory, checkpoint)

    def save(self, directory: Path, checkpoint: Checkpoint) -> Sequence[str]:
        return ()

    def publish(self, root: Path, patterns: Sequence[str], checkpoint: Checkpoint) -> Publication:
        def place(name: str) -> str:
            return keys.artifact(self.build, self.task.name, self.token, name)

        def keep(where: str, file: Upload) -> None:
            while file.read(READ_BYTES):
                checkpoint()

        return publish(root, patterns, place, keep)

    def put_report(self, data: bytes) -> None:
        """It is told by the outcome."""

    def quarantine(self) -> Sequence[Quarantined]:
        with suppress(NoSuchJob):
            return [each for each in self._system.quarantine.list(self.build.job) if not each.is_over]
        return []

    def pin(self, name: str, find: Callable[[], str]) -> str:
        return self._told.pins.get(name) or find()

    def source(self) -> BuildId:
        if not self._told.source:
            raise NoSuchBuild(f"task {self.task.name} of {self.build} had no build to have files of")
        return BuildId.parse(self._told.source)

    def download(self, build: BuildId, directory: Path, names: Sequence[str], checkpoint: Checkpoint) -> Sequence[Path]:
        return self._system.artifacts.download(build, directory, names)

    def attend(self, is_well: bool) -> Verdict | None:
        return Verdict.CANCELLED if self._is_stopped else None

    def settle(self, outcome: Outcome, log_bytes: int) -> Held | None:
        self.outcome = outcome
        return None

    def wait_for_room(self) -> None:
        """Whoever asked for it is told by the error."""

    def close(self) -> None:
        self.changed.set()
