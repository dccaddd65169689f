"""Numbers of builds on real trees: without gaps, whoever takes them, and seldom asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from distci import numbering
from distci.coordination.port import Coordination, Node
from distci.numbering import Numbers
from distci.protocol import paths
from distci.protocol.tree import Tree
from distci.store.directory import DirectoryStore
from distci.testing import CutCoordination

JOB = "team/hello"


class Process:
    """One that gives out numbers."""

    def __init__(self, coordination: Coordination, store: DirectoryStore) -> None:
        self.line = CutCoordination(coordination)
        self.reads = self.refused = 0
        self.tree = Tree(self, count(1).__next__)
        self.numbers = Numbers(self.tree, store)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.line, name)

    def read(self, path: str) -> Node | None:
        self.reads += path == paths.job(JOB)
        return self.line.read(path)

    def take(self) -> int:
        """A number, taken as builds take theirs: again and again until it is."""
        while True:
            with self.numbers.taking(JOB) as taking:
                if self.tree.commit(taking.operation).committed:
                    taking.taken()
                    return taking.number
            self.refused += 1


@pytest.fixture
def start(cluster: object, tmp_path: Path) -> Iterator[Callable[[], Process]]:
    """Processes on one empty tree and store."""
    with ExitStack() as stack:

        def start() -> Process:
            coordination: Coordination = cluster.connect()  # type: ignore[attr-defined]
            stack.callback(coordination.close)
            return Process(coordination, DirectoryStore(tmp_path, durable=False))

        yield start


def test_who_is_alone_with_a_job_soon_asks_for_its_number_no_more(start: Callable[[], Process]) -> None:
    one = start()
    assert [one.take() for _ in range(20)] == [*range(1, 21)]
    assert (one.reads, one.refused) == (2, 0)


def test_two_processes_take_each_number_once_and_are_seldom_refused(start: Callable[[], Process]) -> None:
    one, other = start(), start()
    assert [one.take() for _ in range(5)] == [1, 2, 3, 4, 5]
    assert [process.take() for _ in range(5) for process in (other, one)] == [*range(6, 16)]
    assert one.refused + other.refused == 1


def test_threads_of_a_process_take_turns(start: Callable[[], Process], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbering, "TURN_S", 60)
    one = start()
    with ThreadPoolExecutor(8) as threads:
        taken = sorted(threads.map(lambda _: one.take(), range(80)))
    assert taken == [*range(1, 81)]
    assert one.refused == 0


def test_it_is_the_next_threads_turn_as_soon_as_a_number_is_taken(
    start: Callable[[], Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numbering, "TURN_S", 600)
    one = start()
    with one.numbers.taking(JOB) as taking, ThreadPoolExecutor(1) as other:
        assert one.tree.commit(taking.operation).committed
        taking.taken()
        assert other.submit(one.take).result(60) == 2
    assert (one.take(), one.refused) == (3, 0)


def test_a_thread_that_stands_still_keeps_nobody_from_a_number(
    start: Callable[[], Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numbering, "TURN_S", 0.05)
    one = start()
    with one.numbers.taking(JOB) as taking:
        with ThreadPoolExecutor(1) as other:
            assert other.submit(one.take).result(60) == 1
        assert not one.tree.commit(taking.operation).committed
    assert one.take() == 2


@pytest.mark.parametrize("committed", [True, False])
def test_after_a_lost_answer_the_number_is_asked_for(start: Callable[[], Process], committed: bool) -> None:
    one = start()
    for _ in range(3):
        one.take()
    one.line.lose_answer(committed=committed, when=lambda _: True)
    with one.numbers.taking(JOB) as taking:
        assert one.tree.commit(taking.operation).unknown
    assert one.take() == (5 if committed else 4)
    assert one.refused == 0


def test_what_was_known_of_another_tree_counts_for_nothing(start: Callable[[], Process]) -> None:
    one = start()
    for _ in range(3):
        one.take()
    assert one.tree.renew()
    before = one.reads
    assert one.take() == 4
    assert (one.reads, one.refused) == (before + 1, 0)
