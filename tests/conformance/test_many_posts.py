"""What many posts, and many triggers, ask of the tree: who posts much looks for idle workers once a post, after it, and misses nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from distci.builds import Builds
from distci.coordination.port import Coordination, Create
from distci.jobs import Jobs
from distci.lifecycle import Lifecycle
from distci.protocol import Offer, Ticket, Tickets, paths, tickets, waking
from distci.store.directory import DirectoryStore
from distci.testing import CutCoordination

Connect = Callable[[], "Line"]


class Line(CutCoordination):
    """A connection that counts what is asked, and the looks for idle workers among it."""

    asked = looks = 0

    def _check(self) -> None:
        self.asked += 1
        super()._check()

    def children(self, path: str) -> Sequence[str]:
        self.looks += path == paths.IDLE
        return super().children(path)


@pytest.fixture
def connect(cluster: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """Connections to one empty tree, and time enough for many posts on a busy machine."""
    monkeypatch.setattr(waking, "POSTS_MANY_S", 600)
    monkeypatch.setattr(tickets, "ROW_AGE_S", 600)
    with ExitStack() as stack:

        def connect() -> Line:
            coordination: Coordination = cluster.connect()  # type: ignore[attr-defined]
            stack.callback(coordination.close)
            return Line(coordination)

        yield connect


def test_many_posts_take_one_look_each(connect: Connect) -> None:
    line = connect()
    poster = Tickets(line)
    for number in range(waking.POSTS_MANY):
        poster.post(Ticket(f"first-{number}", "x"))
    before = line.looks
    for number in range(10):
        poster.post(Ticket(f"then-{number}", "x"))
    assert line.looks - before == 10


def test_who_goes_idle_among_many_posts_is_woken_by_the_next(connect: Connect) -> None:
    line, worker = connect(), connect()
    poster = Tickets(line)
    idle = paths.idle(Offer(("x",)).name, "w")
    for number in range(2 * waking.POSTS_MANY):
        poster.post(Ticket(f"first-{number}", "x"))
    for number in range(5):
        assert Tickets(worker).tree.commit(Create(idle, ephemeral=True)).committed
        poster.post(Ticket(f"then-{number}", "x"))
        assert line.exists(idle) is None


def test_one_of_many_triggers_takes_three_round_trips_to_the_tree(connect: Connect, tmp_path: Path) -> None:
    """Its transaction; who went idle meanwhile; whether the tree still has the build once the store knows of it."""
    line, store = connect(), DirectoryStore(tmp_path, durable=False)
    jobs = Jobs(store)
    builds = Builds(Lifecycle(Tickets(line), store, jobs), jobs)
    jobs.put({"job": "team/hello", "tasks": [{"name": "say", "type": "shell", "script": "true"}]})
    # So many that the shards of builds are there, and so few that the front row takes all.
    for number in range(45):
        builds.trigger("team/hello", cause=f"first-{number}")
    before = line.asked
    for number in range(10):
        builds.trigger("team/hello", cause=f"then-{number}")
    assert line.asked - before == 30
