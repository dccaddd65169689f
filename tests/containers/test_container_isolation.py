"""All that every driver promises, by containers of podman and of Docker. Needs root: ``tests/run containers``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from conformance.test_isolation import *  # noqa: F403 - the same tests, with other drivers
from isolations import ENGINES, Runner, runner_of

del test_an_image_is_refused_where_there_are_none  # noqa: F821
del test_services_are_refused_where_there_are_none  # noqa: F821
del test_a_killed_worker_does_not_keep_its_control_groups  # noqa: F821
del test_tools_of_the_machine_are_there  # noqa: F821


@pytest.fixture(params=ENGINES)  # type: ignore[no-redef]
def runner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runner]:
    """Each engine."""
    yield from runner_of(request.param, tmp_path)


@pytest.fixture(params=ENGINES)  # type: ignore[no-redef]
def plain(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runner]:
    """The same: both suites of arguments are one here."""
    yield from runner_of(request.param, tmp_path)
