"""Systems to put front ends before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from frontends import Stage
from services.nginx import Nginx


@pytest.fixture
def start_stage(tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    with ExitStack() as stack:

        def start(*, coordination: str | None = None, store: str | None = None) -> Stage:
            return Stage(stack, tmp_path, coordination, store)

        yield start


@pytest.fixture(params=["sqlite", "zookeeper"])
def stage(request: pytest.FixtureRequest, start_stage: Callable[..., Stage]) -> Stage:
    """A system on each kind of tree."""
    return start_stage(coordination=request.getfixturevalue("zookeeper_url") if request.param == "zookeeper" else None)


@pytest.fixture
def local(start_stage: Callable[..., Stage]) -> Stage:
    """A system on embedded back ends, for what has nothing to do with them."""
    return start_stage()


@pytest.fixture(scope="module")
def common(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A system on embedded back ends that the tests of a module share, each of which leaves it as it was."""
    with ExitStack() as stack:
        yield Stage(stack, tmp_path_factory.mktemp("common"), None, None)


@pytest.fixture
def start_nginx(tmp_path: Path) -> Iterator[Callable[..., Nginx]]:
    with ExitStack() as stack:

        def start(*front_ends: str) -> Nginx:
            nginx = Nginx(tmp_path / "nginx", front_ends)
            stack.callback(nginx.stop)
            return nginx

        yield start
