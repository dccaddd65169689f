"""How deep the queue was, on real trees: a sample a minute while something waits, none while nothing does, never two, never many."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Protocol

import pytest

from distci.coordination.port import Coordination, Create
from distci.protocol import Sweeper, Ticket, Tickets, depths, paths
from distci.protocol.depths import HOURS_KEPT, KINDS_MAX, Depth, Sample
from distci.testing import LossyCoordination

NOON_S = 1_800_000_000.0
"""A full hour."""


class Cluster(Protocol):
    def connect(self) -> Coordination: ...


class Bench:
    """A tree whose sweepers look at one clock, which goes when it is told to."""

    def __init__(self, cluster: Cluster, stack: ExitStack) -> None:
        self.now_s = NOON_S
        coordination = cluster.connect()
        stack.callback(coordination.close)
        self.line = LossyCoordination(coordination)
        self.tickets = Tickets(self.line, clock=lambda: self.now_s)

    def note(self, after_s: float = 60.0) -> bool:
        self.now_s += after_s
        return depths.note(self.tickets)

    def seen(self) -> list[tuple[float, dict[str, tuple[int, int]]]]:
        """The samples: seconds since noon, and what waited."""
        return [
            (
                sample.at_ms / 1000 - NOON_S,
                {kind: (depth.waiting, depth.oldest_s) for kind, depth in sample.kinds.items()},
            )
            for sample in depths.read(self.tickets.tree, int(self.now_s * 1000))
        ]

    def hours(self) -> list[str]:
        return sorted(self.line.children(paths.DEPTHS))


@pytest.fixture
def bench(cluster: Cluster) -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(cluster, stack)


def test_each_minute_tells_what_waited_and_for_how_long_until_nothing_does(bench: Bench) -> None:
    bench.tickets.post(Ticket("a", "shell"), Ticket("b", "shell", labels=["gpu=a"]), Ticket("c", "notify"))

    assert [bench.note(), bench.note()] == [True, True]
    for name in ("a", "b", "c"):
        withdrawal = bench.tickets.withdrawal_by_id(name)
        assert withdrawal is not None
        assert bench.tickets.tree.commit(withdrawal).committed
    assert [bench.note(), bench.note(), bench.note()] == [True, False, False]

    assert bench.seen() == [
        (60, {"notify": (1, 60), "shell": (2, 60)}),
        (120, {"notify": (1, 120), "shell": (2, 120)}),
        (180, {}),
    ]


def test_while_nothing_waits_nothing_is_written(bench: Bench) -> None:
    assert [bench.note() for _ in range(3)] == [False] * 3
    assert bench.hours() == []


def test_a_minute_has_one_sample_whoever_asks_again(bench: Bench) -> None:
    bench.tickets.post(Ticket("a", "shell"))
    other = Tickets(bench.line, clock=lambda: bench.now_s + 1)

    bench.line.lose_answer(committed=True, when=lambda steps: steps[0].path.startswith(f"{paths.DEPTHS}/"))
    bench.note()
    assert [bench.note(2), depths.note(other)] == [False, False]

    assert bench.seen() == [(60, {"shell": (1, 60)})]


def test_of_many_who_write_at_the_same_time_one_does(bench: Bench) -> None:
    sample = Sample(int(NOON_S * 1000), {"shell": Depth(1, 5)})
    with ThreadPoolExecutor(4) as threads:
        written = list(threads.map(lambda _: depths.record(bench.tickets.tree, sample), range(8)))
    assert (sum(written), bench.seen()) == (1, [(0, {"shell": (1, 5)})])


def test_only_the_last_hours_are_kept(bench: Bench) -> None:
    bench.tickets.post(Ticket("a", "shell"))
    first = int(NOON_S) // 3600
    bench.tickets.tree.commit(Create(paths.depths(first + 999)))  # of a clock that was wrong

    for _ in range(HOURS_KEPT + 3):
        assert bench.note(3600)

    last = first + HOURS_KEPT + 3
    assert bench.hours() == [str(hour) for hour in range(last - HOURS_KEPT + 1, last + 1)]
    assert len(bench.seen()) == HOURS_KEPT


def test_a_sample_tells_of_the_deepest_kinds_only(bench: Bench) -> None:
    bench.tickets.post(
        *(Ticket(f"t{number}", f"kind-{number}") for number in range(KINDS_MAX + 5)), Ticket("x", "kind-24")
    )
    bench.note()
    [(_, kinds)] = bench.seen()
    assert len(kinds) == KINDS_MAX
    assert kinds["kind-24"] == (2, 60)


def test_what_cannot_be_read_is_left_out_and_replaced(bench: Bench) -> None:
    hour = int(NOON_S) // 3600
    bench.tickets.tree.commit(Create(paths.depths(hour), b'{"f": 1, "samples": [[1]]}'))
    bench.tickets.post(Ticket("a", "shell"))
    assert bench.note()
    assert bench.seen() == [(60, {"shell": (1, 60)})]


def test_a_sweeper_looks_once_a_minute(bench: Bench) -> None:
    bench.tickets.post(Ticket("a", "shell"))
    sweeper = Sweeper(bench.tickets, "s", lambda: ["s"])
    for second in range(0, 180, 20):
        bench.now_s = NOON_S + second
        sweeper.sweep()
    assert [at_s for at_s, _ in bench.seen()] == [0, 60, 120]
