"""What tickets cost on a given coordination tree, beside what the tree itself can do, measured in the same run.

Every figure that depends on the machine is given as a ratio to raw transactions of the same number and size on the same server at the
same concurrency, since machines differ and are noisy.
"""

from __future__ import annotations

import statistics
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from queue import Queue
from threading import Semaphore, Thread
from typing import Any

from distci.coordination.port import CommitResult, Committed, Coordination, Create, Delete, Operation
from distci.errors import CoordinationUnavailable
from distci.protocol import Claim, Member, Offer, Ticket, Tickets, paths, transactions
from distci.protocol.records import Running

Connect = Callable[[], Coordination]
"""Opens one more session on the tree that is measured."""


@dataclass(frozen=True, slots=True)
class Cycle:
    """Chained tickets against raw transactions, at one concurrency."""

    concurrency: int
    tickets_per_s: float
    raw_per_s: float
    """Pairs of transactions a second (one as large as a claim, one as large as a finish)."""
    commits_per_ticket: float

    @property
    def ratio(self) -> float:
        return self.tickets_per_s / self.raw_per_s


@dataclass(frozen=True, slots=True)
class Wake:
    """How long an idle worker takes from a post to holding the claim, in milliseconds."""

    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Crowd:
    """Many idle workers and a flood of tickets."""

    workers: int
    tickets: int
    claims_tried_per_ticket: float
    commits_per_ticket: float
    """All transactions that were sent, the refused ones and those that only wake included."""
    seconds: float


def cycle(connect: Connect, tickets: int = 400, concurrency: int = 1) -> Cycle:
    """Workers that each finish a ticket and go on with the next of its chain, against the raw transactions of such a cycle."""
    kind = _fresh("cycle")
    per_chain = max(1, tickets // concurrency)
    total = per_chain * concurrency
    with _workers(connect, [kind], concurrency) as members:
        started = time.perf_counter()
        firsts = [Ticket(f"{kind}-{chain}-0", kind, {"left": per_chain - 1}) for chain in range(concurrency)]
        members[0].tickets.post(*firsts)
        with ThreadPoolExecutor(concurrency) as pool:
            list(pool.map(_chained, members))
        tickets_per_s = total / (time.perf_counter() - started)
        commits = sum(_counter(member.tickets).commits for member in members) / total
    return Cycle(concurrency, tickets_per_s, _raw_pairs_per_s(connect, total, concurrency), commits)


def wake(connect: Connect, posts: int = 50) -> Wake:
    """One idle worker, tickets posted one at a time by somebody else, each when the worker has gone idle again."""
    kind = _fresh("wake")
    claimed: Queue[float] = Queue()

    def serve(member: Member) -> None:
        for claim in member.claims():
            claimed.put(time.perf_counter())
            claim.finish()

    with ExitStack() as stack:
        members = stack.enter_context(_workers(connect, [kind], 1))
        boss = Tickets(stack.enter_context(_session(connect)))
        stack.enter_context(_threads(members, serve))
        idle = paths.idle(members[0].offer.name, members[0].name)
        delays = []
        for number in range(posts):
            _until(lambda: boss.tree.coordination.exists(idle) is not None)
            posted = time.perf_counter()
            boss.post(Ticket(f"{kind}-{number}", kind))
            delays.append((claimed.get(timeout=60) - posted) * 1000)
    return Wake(statistics.median(delays), _percentile(delays, 99))


def crowd(connect: Connect, workers: int = 50, tickets: int = 1000) -> Crowd:
    """Idle workers, each with a session of its own, and tickets that are posted one by one as fast as one poster can."""
    kind = _fresh("crowd")
    finished = Semaphore(0)

    def finish_all(member: Member) -> None:
        for claim in member.claims():
            claim.finish()
            finished.release()

    with ExitStack() as stack:
        members = stack.enter_context(_workers(connect, [kind], workers))
        boss = Tickets(_Counting(stack.enter_context(_session(connect))))
        stack.enter_context(_threads(members, finish_all))
        _until(lambda: len(boss.tree.coordination.children(f"{paths.IDLE}/{members[0].offer.name}")) == workers)
        counted = [_counter(tickets_of) for tickets_of in (boss, *(member.tickets for member in members))]
        for counter in counted:
            counter.reset()
        started = time.perf_counter()
        for number in range(tickets):
            boss.post(Ticket(f"{kind}-{number}", kind))
        for _ in range(tickets):
            finished.acquire()
        seconds = time.perf_counter() - started
        tried = sum(counter.claims for counter in counted)
        sent = sum(counter.commits for counter in counted)
    return Crowd(workers, tickets, tried / tickets, sent / tickets, seconds)


class _Counting:
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


def _counter(tickets: Tickets) -> _Counting:
    coordination = tickets.tree.coordination
    assert isinstance(coordination, _Counting)
    return coordination


def _raw_pairs_per_s(connect: Connect, pairs: int, concurrency: int) -> float:
    """Pairs of raw transactions a second: each as large, in operations and bytes, as a claim and the finish of it."""
    kind = _fresh("raw")
    with ExitStack() as stack:
        sessions = [stack.enter_context(_session(connect)) for _ in range(concurrency)]
        tree = Tickets(sessions[0]).tree
        for bucket in range(paths.CLAIM_BUCKETS):
            tree.folder(f"{paths.RUNNING}/{bucket}")
            tree.folder(f"{paths.OWNERS}/{bucket}")
        tickets = [Ticket(f"{kind}-{number}-0", kind, {"left": 0}, posted_ms=1) for number in range(concurrency)]
        folder = f"{tickets[0].pool}/0"
        tree.folder(folder)
        for ticket in tickets:
            _sure(sessions[0].commit(transactions.post(ticket, folder)))

        def run(number: int) -> None:
            session, ticket = sessions[number], tickets[number]
            for turn in range(1, pairs // concurrency + 1):
                running = Running(ticket, "w" * 30, "n" * 32)
                _sure(session.commit(Delete(f"{folder}/{ticket.name()}"), *transactions.start(running)))
                ticket = replace(ticket, id=f"{kind}-{number}-{turn}", body={"left": turn})
                _sure(session.commit(*transactions.end(running), transactions.post(ticket, folder)))
            tickets[number] = ticket

        started = time.perf_counter()
        with ThreadPoolExecutor(concurrency) as pool:
            list(pool.map(run, range(concurrency)))
        seconds = time.perf_counter() - started
        _sure(sessions[0].commit(*(Delete(f"{folder}/{ticket.name()}") for ticket in tickets)))
    return pairs / seconds


def _sure(result: CommitResult) -> None:
    """What is refused takes less time, so that it must not be measured."""
    if not isinstance(result, Committed):
        raise CoordinationUnavailable(f"a transaction that was measured did not take effect: {result}")


def _chained(member: Member) -> None:
    for claim in member.claims():
        kept: Claim | None = claim
        while kept is not None:
            left = kept.ticket.body["left"]
            chain, _, number = kept.ticket.id.rpartition("-")
            if left == 0:
                kept.finish()
                return
            follow = Ticket(f"{chain}-{int(number) + 1}", kept.ticket.kind, {"left": left - 1})
            kept = kept.finish(follow=[follow], keep=True)


@contextmanager
def _workers(connect: Connect, kinds: Sequence[str], count: int) -> Iterator[list[Member]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                Member(Tickets(_Counting(stack.enter_context(_session(connect)))), Offer(kinds), _fresh("bench"))
            )
            for _ in range(count)
        ]


@contextmanager
def _threads(members: Sequence[Member], serve: Callable[[Member], None]) -> Iterator[None]:
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
def _session(connect: Connect) -> Iterator[Coordination]:
    coordination = connect()
    try:
        yield coordination
    finally:
        coordination.close()


def _until(holds: Callable[[], bool], timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > end:
            raise CoordinationUnavailable("the tree is too slow to be measured")
        time.sleep(0.002)


def _percentile(values: Sequence[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def _fresh(what: str) -> str:
    return f"{what}-{uuid.uuid4().hex[:8]}"
