"""Fifty workers in ten processes, two thousand tickets, and somebody who kills and stops workers all the time; the history is checked."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.context import ForkServerProcess
from threading import Event, Thread
from time import monotonic

import pytest
from chaos.conftest import Processes
from chaos.serving import FINISHED, KIND, connect
from waiting import wait_until

from distci.errors import CoordinationUnavailable
from distci.protocol import Permit, Ticket, Tickets, outcomes, paths

PROCESSES = 10
WORKERS_EACH = 5
TICKETS = 2000
BATCH = 50
CHAINED = 10
"""Every so many tickets, one has a follow-on."""
PERMIT = Permit("shared", 3)
ATTEMPTS = 1000
PAUSE_S = 0.5
STOPPED = 0.25
"""Share of the hits that only stop a worker: in the middle of a transaction on SQLite that stops all of them."""

SESSION = "3s"
"""Longer than fifty busy processes on few processors keep one of them waiting, mostly."""
TIME_MAX_S = 240.0


@pytest.mark.timeout(TIME_MAX_S + 60)
@pytest.mark.parametrize("seed", [1])
def test_every_ticket_is_finished_once_whoever_dies(processes: Processes, seed: int) -> None:
    # Given fifty workers
    tickets = connect(processes.serving("test", session_timeout="30s"))
    stop = Event()
    hunter = Hunter(processes, random.Random(seed), stop)
    watcher = Watcher(connect(processes.serving("watcher", session_timeout="30s")), stop)
    threads = [Thread(target=hunter.run), Thread(target=watcher.run)]
    for thread in threads:
        thread.start()

    # When tickets come, and workers go and come
    ids = [f"t{number}" for number in range(TICKETS)]
    expected = {*ids, *(f"{ticket}-next" for ticket in ids[::CHAINED])}
    try:
        for first in range(0, TICKETS, BATCH):
            if first == TICKETS - BATCH:
                # However quick or slow the machine is: the last come when enough has happened to those before.
                wait_until(lambda: watcher.looks > 10 and hunter.killed > 10 and hunter.stopped >= 3, TIME_MAX_S)
            batch = [_ticket(number, ids[number]) for number in range(first, first + BATCH)]
            # Whoever is stopped in the middle of a transaction holds up a SQLite tree: then the answer is to post again.
            outcomes.persist(partial(tickets.post, *batch), Event())
        folder = tickets.tree.coordination
        wait_until(lambda: len(folder.children(FINISHED)) >= len(expected), TIME_MAX_S)
    finally:
        stop.set()
        for thread in threads:
            thread.join()

    # Then each has been finished, and none twice
    assert set(folder.children(FINISHED)) == expected
    told = [line.split() for line in processes.journals()]
    assert [line for line in told if line[0] == "DOUBLE"] == []
    finishes = Counter(paths.ticket_of(token) for word, token in told if word == "finished")
    assert [ticket for ticket, count in finishes.items() if count > 1] == []
    assert list(tickets.list()) == []
    # And at no time was an invariant of the tree broken
    assert watcher.violations == []
    # And nobody holds what belongs to nothing
    wait_until(lambda: not _claims(tickets, paths.OWNERS))
    assert folder.children(paths.permit_folder(PERMIT.name)) in ((), [])
    tickets.tree.coordination.close()


def _ticket(number: int, name: str) -> Ticket:
    body = {"next": f"{name}-next"} if number % CHAINED == 0 else {}
    permits = [PERMIT] if number % 20 == 7 else []
    return Ticket(name, KIND, body, attempts=ATTEMPTS, permits=permits)


def _claims(tickets: Tickets, folder: str) -> set[str]:
    """The tokens below ``/running`` or ``/owners``."""
    buckets = range(paths.CLAIM_BUCKETS)
    return {token for bucket in buckets for token in tickets.tree.coordination.children(f"{folder}/{bucket}")}


@dataclass
class Hunter:
    """Keeps the number of workers up, and kills or stops one of them now and then."""

    processes: Processes
    chance: random.Random
    stop: Event
    killed: int = 0
    stopped: int = 0
    started: int = 0

    def run(self) -> None:
        workers = [self._start(f"w{number}-0") for number in range(PROCESSES)]
        asleep: list[tuple[float, int]] = []
        while not self.stop.wait(PAUSE_S):
            # One that could not reach the tree in time when it began has ended by itself.
            workers = [
                worker if worker.is_alive() else self._start(f"w{number}-{self.started}")
                for number, worker in enumerate(workers)
            ]
            for wake_at, number in list(asleep):
                if wake_at < monotonic():
                    asleep.remove((wake_at, number))
                    self._signal(workers[number].pid, signal.SIGCONT)
            victim = self.chance.randrange(PROCESSES)
            if any(number == victim for _, number in asleep):
                continue
            if self.chance.random() < STOPPED:
                # Some for longer than their sessions live, some not.
                asleep.append((monotonic() + self.chance.uniform(0.2, 6.0), victim))
                self._signal(workers[victim].pid, signal.SIGSTOP)
                self.stopped += 1
            else:
                workers[victim].kill()
                self.killed += 1
                workers[victim].join()
        for _, number in asleep:
            self._signal(workers[number].pid, signal.SIGCONT)

    def _start(self, name: str) -> ForkServerProcess:
        self.started += 1
        return self.processes.start(name, session_timeout=SESSION, workers=WORKERS_EACH)

    def _signal(self, pid: int | None, number: int) -> None:
        assert pid is not None
        os.kill(pid, number)


@dataclass
class Watcher:
    """Looks at the tree again and again, for what must never be seen.

    A token names one attempt and never comes back to a place that it has left. So one that is seen in a place before and after
    a look at another place was there during that look.
    """

    tickets: Tickets
    stop: Event
    looks: int = 0
    violations: list[str] = field(default_factory=list)

    def run(self) -> None:
        while not self.stop.wait(0.05):
            try:
                self._look()
            except CoordinationUnavailable:
                continue
            self.looks += 1
        self.tickets.tree.coordination.close()

    def _look(self) -> None:
        queued, owned = self._queued(), _claims(self.tickets, paths.OWNERS)
        running = _claims(self.tickets, paths.RUNNING)
        owned &= _claims(self.tickets, paths.OWNERS)
        queued &= self._queued()
        self.violations += [f"I1: {token} is queued and running" for token in queued & running]
        twice = {paths.ticket_of(token) for token in queued} & {paths.ticket_of(token) for token in running}
        self.violations += [f"I1: {ticket} has two live attempts" for ticket in twice]
        self.violations += [f"I2: {token} is owned and does not run" for token in owned - running]
        held = self.tickets.tree.coordination.children(paths.permit_folder(PERMIT.name))
        if len(held) > PERMIT.limit:
            self.violations.append(f"I7: {len(held)} hold a permit of {PERMIT.limit}")

    def _queued(self) -> set[str]:
        coordination = self.tickets.tree.coordination
        return {
            _token_in(name)
            for pool in coordination.children(paths.QUEUE)
            for bucket in coordination.children(f"{paths.QUEUE}/{pool}")
            for name in coordination.children(f"{paths.QUEUE}/{pool}/{bucket}")
        }


def _token_in(name: str) -> str:
    parsed = paths.Name.parse(name)
    return paths.token(parsed.ticket, parsed.attempt)
