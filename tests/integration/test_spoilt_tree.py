"""Nodes that nobody of ours wrote, anywhere in the tree: they are set aside with their reason, and everything else goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from waiting import wait_until

from distci.build_tickets import control_ticket
from distci.cli.check import look
from distci.cli.command import Invocation
from distci.coordination.port import Create
from distci.model import BuildId, Result
from distci.protocol import Offer, Sweeper, Ticket, paths
from distci.protocol.records import Running

SPOILT = 80
NAMES = ("x", "0", "a.b", "5-0000-000000000-t.1", "9-zzzz-!!!!!!!!!-t.x", "team:job:7", "-1", "~", "%", "\u00e9\u4e2d")


@pytest.fixture(params=["sqlite", "zookeeper"])
def coordination_url(request: pytest.FixtureRequest) -> str | None:
    return str(request.getfixturevalue("zookeeper_url")) if request.param == "zookeeper" else None


def places(chance: Random) -> Iterator[str]:
    """Paths below every folder of the map, at the depths that readers look at."""
    while True:
        number = chance.randrange(8)
        name = f"{chance.choice(NAMES)}{chance.choice(('', chance.randrange(1000)))}"
        pool = Ticket("x", chance.choice(("shell", "control", "other"))).pool
        yield chance.choice(
            (
                f"{pool}/0/{name}",
                f"{paths.QUEUE}/{name}/0/{name}",
                f"{paths.RUNNING}/{number}/{name}",
                f"{paths.OWNERS}/{number}/{name}",
                f"{paths.parked_folder(paths.DUE)}/{name}",
                f"{paths.parked_for('resource:board')}/{name}",
                f"{paths.parked_folder(name)}/{name}",
                f"{paths.BUILDS}/{number}/{name}",
                f"{paths.WORKERS}/{name}",
                f"{paths.IDLE}/{Offer(['shell']).name}/{name}",
                f"{paths.IDLE}/{name}/{name}",
                f"{paths.permit_folder(name)}/{name}",
                f"{paths.DEAD}/{name}",
                f"{paths.ONCE}/{name}/{name}",
                f"{paths.JOBS}/{name}",
            )
        )


def contents(chance: Random) -> Iterator[bytes]:
    """Bytes at random, and what was good once: cut off, or with a value of another sort."""
    ticket = Ticket("t", "shell", {"build": "team/none#1", "task": "a"}, posted_ms=1)
    good = [
        ticket.to_bytes(),
        Running(ticket, "w", "n").to_bytes(),
        control_ticket(BuildId("a/b", 1), "plan").to_bytes(),
    ]
    wrong: tuple[Any, ...] = (None, -1, 10**30, "", [], {}, [[[]]], {"a": {"b": 1}}, "\ud800", True)
    while True:
        data = chance.choice(good)
        document = json.loads(data)
        document[chance.choice([*document])] = chance.choice(wrong)
        yield chance.choice(
            (b"", b"{}", b"[1]", chance.randbytes(chance.randrange(200)), data[: chance.randrange(len(data))])
            + (json.dumps(document).encode(),) * 5
        )


@pytest.mark.parametrize("seed", [1, 2])
def test_d26_a_spoilt_node_anywhere_keeps_nothing_from_going_on(system: Any, seed: int) -> None:
    chance = Random(seed)
    system.run_tasks({"name": "a", "type": "shell", "script": "true"})
    where, what = places(chance), contents(chance)
    made = [
        path for path in (next(where) for _ in range(SPOILT)) if system.ci.tickets.tree.commit(Create(path, next(what)))
    ]
    assert len(made) == SPOILT

    tasks = [
        {"name": "a", "type": "shell", "script": "echo a", "resources": ["board"]},
        {"name": "b", "type": "shell", "script": "echo b", "resources": ["board"], "needs": []},
        {"name": "c", "type": "shell", "script": "echo c", "needs": ["a", "b"]},
    ]
    for number in range(3):
        document = {"job": "team/after", "tasks": tasks, "concurrency": {}}
        assert system.run(document, cause=f"{seed} {number}").result is Result.PASSED

    sweeper = Sweeper(system.ci.tickets, "sweeper", lambda: ["sweeper"], grace_s=0)
    wait_until(lambda: not sweeper.sweep())
    left = [view for view in system.ci.tickets.list() if view.ticket is None]
    assert [view for view in left if view.place == "running"] == []
    assert all(view.reason for view in left)
    assert system.ci.why.build("team/after#1")


def test_d26_check_names_what_was_set_aside_and_what_nobody_can_read(system: Any, tmp_path: Any) -> None:
    tree = system.ci.tickets.tree
    tree.commit(Create(f"{Ticket('x', 'shell').pool}/0/{Ticket('spoilt', 'shell', posted_ms=1).name()}", b"spoilt"))
    tree.commit(Create(f"{paths.BUILDS}/3/team:job:7", b"spoilt"))
    wait_until(lambda: [view.place for view in system.ci.tickets.list()] == ["dead"])

    settings = system.ci.settings
    flags = {"data": settings.data, "coordination": settings.coordination, "store": settings.store}
    found = {finding.subject: finding for finding in look(Invocation({k: v or None for k, v in flags.items()}))}

    assert found["ticket spoilt.1"].detail.startswith("set aside: ")
    assert "/builds/3/team:job:7" in found["build"].detail + found["build"].remedy
