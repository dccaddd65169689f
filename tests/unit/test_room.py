"""A disk that is full is told of at once, with what is full and where."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from program import Home
from waiting import wait_until

from distci.cli.room import ROOM_BYTES_MIN, watched_room


class Disk:
    """What is left on every disk, as far as anybody is told."""

    def __init__(self) -> None:
        self.free = 0
        self.looks = 0
        self._real = shutil.disk_usage

    def usage(self, path: Path) -> Any:
        self.looks += 1
        return self._real(path)._replace(free=self.free)

    def is_seen(self) -> None:
        """Wait until somebody has looked and looks once more."""
        before = self.looks
        wait_until(lambda: self.looks >= before + 2)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(shutil, "disk_usage", disk.usage)
    return disk


@pytest.mark.parametrize("data", [[], ["--data", "not/there/yet"]], ids=["temporary", "data"])
def test_a_run_does_not_begin_on_a_full_disk(tmp_path: Path, disk: Disk, data: list[str]) -> None:
    home = Home(tmp_path)
    job = home.file({"job": "team/a", "tasks": [{"name": "t", "type": "shell", "script": "true"}]})
    disk.free = 5 * 1024

    asked = home.ask("run", job, *data, "--json")

    message = json.loads(asked.stderr)["message"]
    assert (asked.exit_code, asked.stdout) == (4, "")
    assert message.startswith("the disk of /")
    assert message.endswith("is full: 5 KiB are left; make room there, or name a folder on another disk with --data")


def test_a_disk_that_becomes_full_amid_a_run_is_told_of_once_each_time(
    tmp_path: Path, disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    disk.free = ROOM_BYTES_MIN
    with watched_room(tmp_path):
        for free in (ROOM_BYTES_MIN, 0, ROOM_BYTES_MIN, 1024):
            disk.free = free
            disk.is_seen()

    assert capsys.readouterr().err.splitlines() == [
        f"distci: the disk of {tmp_path} is full: {left} KiB are left; make room there, what needs some waits for it"
        for left in (0, 1)
    ]
