"""Events of builds: each begin and each end is told once, though those who tell it fail in between."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from threading import Event, Thread

import pytest
from waiting import wait_until

from distci import events
from distci.app import DistCI
from distci.brokers.direct import Direct
from distci.coordination.port import Coordination
from distci.errors import StoreUnavailable
from distci.following import system
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
        found = ci.events.after(0, 100)
    # Then each has begun and has ended once, in that order
    assert {*Counter((event.kind, event.build) for event in found).values()} == {1}
    assert [event.kind for event in found if event.build == "team/hello#1"] == ["build-begun", "build-ended"]
    assert len(found) == 4


def test_who_follows_is_woken_by_builds_that_begin_and_end(
    ci: DistCI, another: Callable[[], DistCI], employ: Callable[..., WorkerProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given somebody who follows in a process of their own and never looks by themselves, and a front end's feed
    monkeypatch.setattr(events, "LOOK_S", 3600.0)
    monkeypatch.setattr(system, "LOOK_S", 3600.0)
    stop, told, fed = Event(), Queue[tuple[str, str]](), Event()
    follower, feeding = another(), another()

    def follow() -> None:
        for event in follower.events.follow(0, stop):
            told.put((event.kind, event.build))

    streamed = feeding.following.system(fed.set)
    thread = Thread(target=follow, daemon=True)
    thread.start()
    wait_until(lambda: streamed.is_ready)
    heard = [item.name for item in streamed.take()]

    def has_heard_all() -> bool:
        heard.extend(item.name for item in streamed.take())
        return heard.count("build-ended") == 2

    try:
        # When builds begin and end: one after the other
        ci.jobs.put({"job": "team/hello", "tasks": [{"name": "say", "type": "shell", "script": "echo hello"}]})
        with employ(ci.lifecycle):
            for number in (1, 2):
                assert ci.builds.wait(ci.builds.trigger("team/hello"), 60).is_archived
                # Then they are told of each
                for kind in ("build-begun", "build-ended"):
                    assert told.get(timeout=30) == (kind, f"team/hello#{number}")
            wait_until(has_heard_all, 30)
    finally:
        stop.set()
        streamed.close()
        thread.join()
    assert [name for name in heard if name.startswith("build-")] == ["build-begun", "build-ended"] * 2
