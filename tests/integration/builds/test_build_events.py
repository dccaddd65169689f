"""Events of builds: each begin and each end is told once, though those who tell it fail in between."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from distci.app import DistCI
from distci.coordination.port import Coordination
from distci.employers.direct import Direct
from distci.errors import StoreUnavailable
from distci.isolation.host import HostIsolation
from distci.process import Post, WorkerProcess
from distci.settings import Settings
from distci.store import keys
from distci.store.passing import PassingStore
from distci.store.port import Store


class FailingBehindEvents(PassingStore):
    """A store that is away right after some event is there, so that nobody learns whether it is."""

    def __init__(self, store: Store, number: int) -> None:
        super().__init__(store)
        self._key = keys.event(number)
        self._fails = 0

    def put_if_absent(self, key: str, data: bytes) -> bool:
        done = super().put_if_absent(key, data)
        if key == self._key and done:
            self._fails = 3
        self._fail()
        return done

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self._fail()
        return super().get(key, start, length)

    def _fail(self) -> None:
        if self._fails:
            self._fails -= 1
            raise StoreUnavailable("away")


@pytest.mark.parametrize("number", [1, 2])
def test_o11_an_event_whose_teller_failed_right_behind_it_is_there_once(tmp_path: Path, number: int) -> None:
    # Given a store that is away after the first event, or after the second
    def around(coordination: Coordination, store: Store) -> tuple[Coordination, Store]:
        return coordination, FailingBehindEvents(store, number)

    ci = DistCI(Settings(data=str(tmp_path / "data")), around)
    worker = WorkerProcess(
        Direct(ci.lifecycle, ci.store),
        HostIsolation(),
        tmp_path / "scratch",
        [Post(("control", "shell"), slots=2)],
        search_path=os.defpath,
        name="worker",
    )
    # When builds run to their ends
    with ci, worker:
        ci.jobs.put({"job": "team/hello", "tasks": [{"name": "say", "type": "shell", "script": "echo hello"}]})
        for _ in range(2):
            assert ci.builds.wait(ci.builds.trigger("team/hello"), 60).is_archived
        events = ci.events.after(0, 100)
    # Then each has begun and has ended once, in that order
    assert {*Counter((event.kind, event.build) for event in events).values()} == {1}
    assert [event.kind for event in events if event.build == "team/hello#1"] == ["build-begun", "build-ended"]
    assert len(events) == 4
