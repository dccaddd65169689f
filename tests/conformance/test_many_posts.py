"""Who posts much looks for idle workers once a post, after it, and misses nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from distci.coordination.port import Coordination, Create
from distci.protocol import Offer, Ticket, Tickets, paths, waking

Connect = Callable[[], "Line"]


class Line:
    """A connection that counts the looks for idle workers."""

    def __init__(self, coordination: Coordination) -> None:
        self._coordination = coordination
        self.looks = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coordination, name)

    def children(self, path: str) -> Sequence[str]:
        self.looks += path == paths.IDLE
        return self._coordination.children(path)


@pytest.fixture
def connect(cluster: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """Connections to one empty tree, and time enough for many posts on a busy machine."""
    monkeypatch.setattr(waking, "POSTS_MANY_S", 600)
    with ExitStack() as stack:

        def connect() -> Line:
            coordination: Coordination = cluster.connect()  # type: ignore[attr-defined]
            stack.callback(coordination.close)
            return Line(coordination)

        yield connect


def test_many_posts_take_one_look_each(connect: Connect) -> None:
    line = connect()
    tickets = Tickets(line)
    for number in range(waking.POSTS_MANY):
        tickets.post(Ticket(f"first-{number}", "x"))
    before = line.looks
    for number in range(10):
        tickets.post(Ticket(f"then-{number}", "x"))
    assert line.looks - before == 10


def test_who_goes_idle_among_many_posts_is_woken_by_the_next(connect: Connect) -> None:
    line, worker = connect(), connect()
    tickets = Tickets(line)
    idle = paths.idle(Offer(("x",)).name, "w")
    for number in range(2 * waking.POSTS_MANY):
        tickets.post(Ticket(f"first-{number}", "x"))
    for number in range(5):
        assert Tickets(worker).tree.commit(Create(idle, ephemeral=True)).committed
        tickets.post(Ticket(f"then-{number}", "x"))
        assert line.exists(idle) is None
