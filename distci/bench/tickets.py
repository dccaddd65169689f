"""What tickets cost on a given coordination tree, beside what the tree itself can do, measured in the same run.

Every figure that depends on the machine is given as a ratio to raw transactions of the same number and size on the same server at the
same concurrency, since machines differ and are noisy.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from queue import Queue
from threading import Semaphore

from distci.bench.measuring import (
    Connect,
    Counting,
    counter_of,
    fresh,
    percentile,
    raw_pairs_per_s,
    session,
    threads,
    until,
)
from distci.protocol import Claim, Member, Offer, Ticket, Tickets, paths

POSTED_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Cycle:
    """Chained tickets against raw transactions, at one concurrency."""

    concurrency: int
    chains: int
    """Of tickets, each posted by the one before, at once."""
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


def cycle(connect: Connect, tickets: int = 400, concurrency: int = 1, chains: int | None = None) -> Cycle:
    """Workers that each finish a ticket and go on with the next of its chain, against the raw transactions of such a cycle.

    With more ``chains`` than workers, which are as many without it, others stand in line all the time.
    """
    kind = fresh("cycle")
    chains = chains or concurrency
    per_chain = max(1, tickets // chains)
    total = per_chain * chains
    ended = Semaphore(0)

    def serve(member: Member) -> None:
        for claim in member.claims():
            if _go_through(claim):
                ended.release()

    with _workers(connect, [kind], concurrency) as members, threads(members, serve):
        boss = members[0].tickets
        started = time.perf_counter()
        for start in range(0, chains, POSTED_AT_ONCE):
            numbers = range(start, min(chains, start + POSTED_AT_ONCE))
            boss.post(*(Ticket(f"{kind}-{chain}-0", kind, {"left": per_chain - 1}) for chain in numbers))
        for _ in range(chains):
            ended.acquire()
        tickets_per_s = total / (time.perf_counter() - started)
        commits = sum(counter_of(member.tickets).commits for member in members) / total
    return Cycle(concurrency, chains, tickets_per_s, raw_pairs_per_s(connect, total, concurrency), commits)


def wake(connect: Connect, posts: int = 50) -> Wake:
    """One idle worker, tickets posted one at a time by somebody else, each when the worker has gone idle again."""
    kind = fresh("wake")
    claimed: Queue[float] = Queue()

    def serve(member: Member) -> None:
        for claim in member.claims():
            claimed.put(time.perf_counter())
            claim.finish()

    with ExitStack() as stack:
        members = stack.enter_context(_workers(connect, [kind], 1))
        boss = Tickets(stack.enter_context(session(connect)))
        stack.enter_context(threads(members, serve))
        idle = paths.idle(members[0].offer.name, members[0].name)
        delays = []
        for number in range(posts):
            until(lambda: boss.tree.coordination.exists(idle) is not None)
            posted = time.perf_counter()
            boss.post(Ticket(f"{kind}-{number}", kind))
            delays.append((claimed.get(timeout=60) - posted) * 1000)
    return Wake(statistics.median(delays), percentile(delays, 99))


def crowd(connect: Connect, workers: int = 50, tickets: int = 1000) -> Crowd:
    """Idle workers, each with a session of its own, and tickets that are posted one by one as fast as one poster can."""
    kind = fresh("crowd")
    finished = Semaphore(0)

    def finish_all(member: Member) -> None:
        for claim in member.claims():
            claim.finish()
            finished.release()

    with ExitStack() as stack:
        members = stack.enter_context(_workers(connect, [kind], workers))
        boss = Tickets(Counting(stack.enter_context(session(connect))))
        stack.enter_context(threads(members, finish_all))
        until(lambda: len(boss.tree.coordination.children(f"{paths.IDLE}/{members[0].offer.name}")) == workers)
        counted = [counter_of(tickets_of) for tickets_of in (boss, *(member.tickets for member in members))]
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


def _go_through(claim: Claim) -> bool:
    """Finish a ticket and those of its chain that are kept; whether that was all of the chain."""
    kept: Claim | None = claim
    while kept is not None:
        left = kept.ticket.body["left"]
        if left == 0:
            kept.finish()
            return True
        chain, _, number = kept.ticket.id.rpartition("-")
        follow = Ticket(f"{chain}-{int(number) + 1}", kept.ticket.kind, {"left": left - 1})
        kept = kept.finish(follow=[follow], keep=True)
    return False


@contextmanager
def _workers(connect: Connect, kinds: Sequence[str], count: int) -> Iterator[list[Member]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                Member(Tickets(Counting(stack.enter_context(session(connect)))), Offer(kinds), fresh("bench"))
            )
            for _ in range(count)
        ]
