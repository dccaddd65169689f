"""Users with a home of their own, and one where a system serves already."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from frontends import SCOPES, address_of
from integration.cli.homes import BROKEN, BYTES, HELLO, LARGE
from program import Home


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Commands that are asked in this process set up its logging, some before the first test of a module begins."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    yield
    root.handlers[:] = handlers
    root.setLevel(logging.WARNING)
    for name in ("distci", "distci.coordination", "distci.coordination.zookeeper.kazoo"):
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture(scope="module", params=["beside it", "by its URL"])
def busy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home where ``distci up`` serves; each of some jobs has been built once. For tests that leave these builds as they are.

    Commands work on its back ends, or through its front end.
    """
    home = Home(tmp_path_factory.mktemp("busy"))
    with home.running("up", until="Ctrl-C") as up:
        if request.param == "by its URL":
            scopes = [word for scope in SCOPES for word in ("--scope", scope.value)]
            token = home.ask("token", "create", "tests", *scopes).stdout.strip()
            home.environment |= {"DISTCI_URL": address_of(up), "DISTCI_TOKEN": token}
        for job in (HELLO, BROKEN, BYTES, LARGE):
            home.ask("job", "put", home.file(job))
            home.ask("build", "trigger", str(job["job"]), "--wait")
        yield home
