"""How tickets do when many wait, and when very many workers are idle.

Workers are simulated: the protocol's own members, each with its threads, its idle node and its watch, a few hundred of
them to a process and to a session. What is not simulated is that each would have a session of its own.
"""

from __future__ import annotations

import math
import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from threading import Lock, Thread

from distci.bench.measuring import Connect, Counting, fresh, percentile, raw_commits_ms, raw_pairs_per_s, session, until
from distci.errors import CoordinationUnavailable
from distci.protocol import Claim, Member, Offer, Ticket, Tickets, paths

POSTED_AT_ONCE = 200

SETTLING_S = 5.0
"""For so long tickets are posted that are not measured, before those that are."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """Throughput with few and with many tickets waiting, in turns on one tree: medians of the rounds."""

    concurrency: int
    few: int
    many: int
    few_per_s: float
    many_per_s: float
    raw_per_s: float
    """Pairs of raw transactions a second, as large as a claim and as a finish that posts."""

    @property
    def ratio(self) -> float:
        """What many waiting leave of the throughput with few."""
        return self.many_per_s / self.few_per_s


@dataclass(frozen=True, slots=True)
class IdleCrowd:
    """Very many idle workers, and tickets at a steady rate."""

    workers: int
    tickets: int
    per_s: float
    """As they were posted; less than what was asked for where one poster cannot do more."""
    claims_tried_per_ticket: float
    p50_ms: float
    """From the beginning of a post to holding the claim."""
    p99_ms: float
    raw_p50_ms: float
    """One raw transaction by the poster, between the posts: a post and a claim are two and the news of the first."""
    raw_p99_ms: float


def backlog(
    connect: Connect, few: int = 100, many: int = 10_000, tickets: int = 400, concurrency: int = 4, rounds: int = 5
) -> Backlog:
    """Workers that finish a ticket and post another, so that as many wait all the time."""
    rates: dict[int, list[float]] = {few: [], many: []}
    raw: list[float] = []
    with ExitStack() as stack:
        sessions = [stack.enter_context(session(connect)) for _ in range(concurrency)]
        queues: dict[int, list[Member]] = {}
        for waiting in rates:
            kind = fresh(f"backlog-{waiting}")
            boss = Tickets(sessions[0])
            for start in range(0, waiting, POSTED_AT_ONCE):
                numbers = range(start, min(waiting, start + POSTED_AT_ONCE))
                boss.commit(post=[Ticket(f"{kind}-{number}-0", kind) for number in numbers])
            queues[waiting] = [
                stack.enter_context(Member(Tickets(own), Offer([kind]), fresh("bench"))) for own in sessions
            ]
        streams = {waiting: [(member, member.claims()) for member in members] for waiting, members in queues.items()}

        def work(claims: Callable[[], Claim]) -> None:
            for _ in range(tickets // concurrency):
                claim = claims()
                name, _, turn = claim.ticket.id.rpartition("-")
                claim.finish(follow=[Ticket(f"{name}-{int(turn) + 1}", claim.ticket.kind)])

        # The first round makes folders and fills memories.
        for turn in range(rounds + 1):
            for waiting in sorted(rates, reverse=bool(turn % 2)):
                started = time.perf_counter()
                with ThreadPoolExecutor(concurrency) as pool:
                    list(pool.map(work, [claims.__next__ for _, claims in streams[waiting]]))
                if turn:
                    rates[waiting].append(tickets / (time.perf_counter() - started))
            if turn:
                raw.append(raw_pairs_per_s(connect, tickets, concurrency))
    return Backlog(
        concurrency, few, many, statistics.median(rates[few]), statistics.median(rates[many]), statistics.median(raw)
    )


def idle_crowd(
    connect: Connect, workers: int = 1000, tickets: int = 500, per_s: float = 50.0, processes: int = 4
) -> IdleCrowd:
    """``connect`` goes to other processes, so it must be something that can be pickled."""
    kind = fresh("crowd")
    spawn = multiprocessing.get_context("spawn")
    ends: list[Connection] = []
    share = [workers // processes + (number < workers % processes) for number in range(processes)]
    with ExitStack() as stack:
        boss = Tickets(stack.enter_context(session(connect)))
        for count in share:
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=_serve, args=(connect, kind, count, theirs), daemon=True)
            process.start()
            stack.callback(process.join)
            stack.callback(ours.close)
            ends.append(ours)
        folder = f"{paths.IDLE}/{Offer([kind]).name}"
        until(lambda: len(boss.tree.coordination.children(folder)) == workers, 300)
        raw: list[float] = []

        def post(name: str, count: int, is_timed: bool) -> float:
            """Post as many at the rate wanted, until they have been claimed; how long the posts took."""
            started = time.monotonic()
            for number in range(count):
                ahead_s = started + number / per_s - time.monotonic()
                if ahead_s > 0:
                    time.sleep(ahead_s)
                body = {"posted": time.monotonic(), "is_timed": is_timed}
                boss.post(Ticket(f"{kind}-{name}-{number}", kind, body))
                if number % 10 == 0:
                    raw.append(raw_commits_ms(boss.tree, 1)[0])
            seconds = time.monotonic() - started
            until(lambda: not any(queued.kind == kind for queued in boss.queue()), 120)
            return seconds

        # Those who have only just begun all look for work at once, and are not idle yet.
        post("early", math.ceil(per_s * SETTLING_S), is_timed=False)
        raw.clear()
        for end in ends:
            end.send("begin")
            end.recv()
        seconds = post("timed", tickets, is_timed=True)
        delays: list[float] = []
        tried = 0
        for end in ends:
            end.send("end")
        for end in ends:
            its_delays, its_tried = end.recv()
            delays += its_delays
            tried += its_tried
    if len(delays) != tickets:
        raise CoordinationUnavailable(f"{len(delays)} of {tickets} tickets were claimed")
    return IdleCrowd(
        workers,
        tickets,
        tickets / seconds,
        tried / tickets,
        statistics.median(delays),
        percentile(delays, 99),
        statistics.median(raw),
        percentile(raw, 99),
    )


def _serve(connect: Connect, kind: str, count: int, end: Connection) -> None:
    """Many workers in this process, on one session."""
    threading.stack_size(256 * 1024)
    delays: list[float] = []
    lock = Lock()

    def work(member: Member) -> None:
        for claim in member.claims():
            delay_s = time.monotonic() - claim.ticket.body["posted"]
            claim.finish()
            if claim.ticket.body["is_timed"]:
                with lock:
                    delays.append(1000 * delay_s)

    with session(connect) as coordination:
        counting = Counting(coordination)
        tickets = Tickets(counting)
        members = [Member(tickets, Offer([kind]), fresh("bench")).join() for _ in range(count)]
        workers = [Thread(target=work, args=(member,), daemon=True) for member in members]
        for worker in workers:
            worker.start()
        end.recv()
        counting.reset()
        end.send("begun")
        end.recv()
        for member in members:
            member.drain()
        for worker in workers:
            worker.join()
        end.send((delays, counting.claims))
