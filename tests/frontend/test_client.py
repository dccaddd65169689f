"""The library through a front end: the same names, the same records, the same errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from frontends import Stage, job, shell

from distci.client import Client, connect
from distci.errors import Missing, NoSuchBuild, NoSuchJob, NoSuchTask


@pytest.fixture
def client(local: Stage) -> Iterator[Client]:
    """Somebody who has a front end of ``local`` and nothing else."""
    api, _ = local.front_end()
    with connect(api.url, token=local.token) as client:
        yield client


def test_a_build_from_its_job_to_its_log(local: Stage, client: Client) -> None:
    local.start_workers()

    client.jobs.put(job("team/hello", shell("echo hello")))
    build = client.builds.trigger("team/hello")
    view = client.builds.wait(build, 60)

    assert view.state == "passed"
    assert view == local.ci.builds.get(build)
    assert client.jobs.get("team/hello") == local.ci.jobs.get("team/hello")
    assert b"".join(client.builds.log(build, "say")) == b"hello\n"
    assert [(piece.task, piece.data) for piece in client.builds.follow(build)] == [("say", b""), ("say", b"hello\n")]


def test_what_is_not_there_is_told_as_the_library_tells_it(local: Stage, client: Client) -> None:
    client.jobs.put(job())
    build = client.builds.trigger("team/hello")

    questions: list[Callable[[Any], object]] = [
        lambda ci: ci.jobs.get("none"),
        lambda ci: ci.builds.get("team/hello#9"),
        lambda ci: ci.builds.log(build, "none"),
        lambda ci: ci.logs.open("team/hello#9", "say"),
    ]

    def told(system: Any) -> list[str]:
        errors = []
        for ask in questions:
            with pytest.raises(Missing) as caught:
                ask(system)
            errors.append(f"{caught.type.__name__}: {caught.value}")
        return errors

    assert told(client) == told(local.ci)
    assert [line.partition(":")[0] for line in told(client)] == [
        kind.__name__ for kind in (NoSuchJob, NoSuchBuild, NoSuchTask, NoSuchBuild)
    ]
