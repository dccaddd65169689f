"""What the benchmarks share: sessions that count, raw transactions to compare with, percentiles."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from threading import Thread
from typing import Any

from distci.coordination.port import Check, CommitResult, Committed, Coordination, Create, Delete, Operation
from distci.errors import CoordinationUnavailable
from distci.protocol import Member, Ticket, Tickets, paths, transactions
from distci.protocol.records import Running
from distci.protocol.tree import Tree

Connect = Callable[[], Coordination]
"""Opens one more session on the tree that is measured."""


class Counting:
    """A session that counts what is committed through it."""

    def __init__(self, coordination: Coordination) -> None:
        self._coordination = coordination
        self.commits = 0
        self.claims = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coordination, name)

    def commit(self, *operations: Operation) -> CommitResult:
        self.commits += 1
        self.claims += any(isinstance(step, Create) and step.path.startswith(paths.OWNERS) for step in operations)
        return self._coordination.commit(*operations)

    def reset(self) -> None:
        self.commits = self.claims = 0


def counter_of(tickets: Tickets) -> Counting:
    coordination = tickets.tree.coordination
    assert isinstance(coordination, Counting)
    return coordination


def raw_pairs_per_s(connect: Connect, pairs: int, concurrency: int) -> float:
    """Pairs of raw transactions a second: each as large, in operations and bytes, as a claim and the finish of it."""
    kind = fresh("raw")
    with ExitStack() as stack:
        sessions = [stack.enter_context(session(connect)) for _ in range(concurrency)]
        tree = Tickets(sessions[0]).tree
        for bucket in range(paths.CLAIM_BUCKETS):
            tree.folder(f"{paths.RUNNING}/{bucket}")
            tree.folder(f"{paths.OWNERS}/{bucket}")
        tickets = [Ticket(f"{kind}-{number}-0", kind, {"left": 0}, posted_ms=1) for number in range(concurrency)]
        folder = f"{tickets[0].pool}/0"
        tree.folder(folder)
        epoch = Check(paths.epoch(tree.epoch))
        for ticket in tickets:
            sure(sessions[0].commit(transactions.post(ticket, folder)))

        def run(number: int) -> None:
            own, ticket = sessions[number], tickets[number]
            for turn in range(1, pairs // concurrency + 1):
                running = Running(ticket, "w" * 30, "n" * 32)
                sure(own.commit(epoch, Delete(f"{folder}/{ticket.name()}"), *transactions.start(running)))
                ticket = replace(ticket, id=f"{kind}-{number}-{turn}", body={"left": turn})
                sure(own.commit(epoch, *transactions.end(running), transactions.post(ticket, folder)))
            tickets[number] = ticket

        started = time.perf_counter()
        with ThreadPoolExecutor(concurrency) as pool:
            list(pool.map(run, range(concurrency)))
        seconds = time.perf_counter() - started
        sure(sessions[0].commit(*(Delete(f"{folder}/{ticket.name()}") for ticket in tickets)))
    return pairs / seconds


def raw_commits_ms(tree: Tree, count: int) -> list[float]:
    """How long raw transactions take, each as large as a post."""
    kind = fresh("raw")
    folder = f"{paths.pool('raw', ())}/0"
    tree.folder(folder)
    taken = []
    for number in range(count):
        ticket = Ticket(f"{kind}-{number}", "raw", posted_ms=1)
        started = time.perf_counter()
        sure(tree.coordination.commit(transactions.post(ticket, folder)))
        taken.append(1000 * (time.perf_counter() - started))
        sure(tree.coordination.commit(Delete(f"{folder}/{ticket.name()}")))
    return taken


def sure(result: CommitResult) -> None:
    """What is refused takes less time, so that it must not be measured."""
    if not isinstance(result, Committed):
        raise CoordinationUnavailable(f"a transaction that was measured did not take effect: {result}")


@contextmanager
def threads(members: Sequence[Member], serve: Callable[[Member], None]) -> Iterator[None]:
    threads = [Thread(target=serve, args=(member,)) for member in members]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for member in members:
            member.drain()
        for thread in threads:
            thread.join()


@contextmanager
def session(connect: Connect) -> Iterator[Coordination]:
    coordination = connect()
    try:
        yield coordination
    finally:
        coordination.close()


def until(holds: Callable[[], bool], timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > end:
            raise CoordinationUnavailable("the tree is too slow to be measured")
        time.sleep(0.002)


def percentile(values: Sequence[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def fresh(what: str) -> str:
    return f"{what}-{uuid.uuid4().hex[:8]}"
