"""Systems on the embedded tree and on ZooKeeper that nobody works for until a test says so."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from integration.builds.playing import KINDS, Gate

from distci.app import DistCI, connect
from distci.brokers.direct import Direct
from distci.isolation.host import HostIsolation
from distci.lifecycle import Lifecycle
from distci.process import Post, WorkerProcess


@pytest.fixture(params=["sqlite", "zookeeper"])
def coordination_url(request: pytest.FixtureRequest) -> str | None:
    return str(request.getfixturevalue("zookeeper_url")) if request.param == "zookeeper" else None


@pytest.fixture
def ci(tmp_path: Path, coordination_url: str | None) -> Iterator[DistCI]:
    """A system that nobody works for until a test says so."""
    with connect(tmp_path / "data", coordination=coordination_url, actor="tester") as connected:
        yield connected


@pytest.fixture
def another(tmp_path: Path, coordination_url: str | None) -> Iterator[Callable[[], DistCI]]:
    """Connects to the same system once more, in a session of its own."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(connect(tmp_path / "data", coordination=coordination_url))


@pytest.fixture
def employ(tmp_path: Path) -> Callable[..., WorkerProcess]:
    """Makes a worker process; it works while its context is entered."""

    def make(
        lifecycle: Lifecycle, *, kinds: Sequence[str] = KINDS, name: str = "worker", **options: Any
    ) -> WorkerProcess:
        posts = [Post(kinds, slots=4)]
        scratch = tmp_path / "scratch"
        return WorkerProcess(
            Direct(lifecycle, lifecycle.store),
            HostIsolation(),
            scratch,
            posts,
            search_path=os.defpath,
            name=name,
            **options,
        )

    return make


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path)
    yield gate
    gate.open()
