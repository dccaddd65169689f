"""A worker process of the tests, which dies or stops at a chosen point of the protocol.

It serves tickets of the kind ``work``. What a finish means is on record in the tree: in the transaction of the finish a
node below ``/finished`` is created, so that a second finish of the same ticket could not go unnoticed.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread, get_ident
from typing import Any

from distci.app import open_coordination
from distci.coordination.port import CommitResult, Committed, Coordination, Create, Delete, Operation
from distci.errors import ClaimLost, CoordinationUnavailable, VersionConflict
from distci.protocol import Claim, Member, Offer, Sweeper, Ticket, Tickets, paths
from distci.settings import Settings
from distci.testing import LossyCoordination

KIND = "work"
FINISHED = "/finished"
SWEEP_S = 0.1
GRACE_S = 0.3


@dataclass(frozen=True)
class Fault:
    """What happens to a process, and where: just before or just after its first transaction of a sort takes effect."""

    sort: str
    """``post``, ``claim`` or ``finish``."""
    is_after: bool
    number: int = signal.SIGKILL

    def __str__(self) -> str:
        return f"{signal.Signals(self.number).name} {'after' if self.is_after else 'before'} {self.sort}"


@dataclass(frozen=True)
class Serving:
    """Which tree to serve, as whom, and what goes wrong."""

    url: str
    name: str
    journal: Path
    fault: Fault | None = None
    sweeps: bool = True
    session_timeout: str = "1s"
    workers: int = 1
    """How many workers the process is, each with a session of its own."""

    def settings(self) -> Settings:
        return Settings(coordination=self.url, session_timeout=self.session_timeout)


class Faulty(LossyCoordination):
    """A tree whose client is hit by a signal at one transaction."""

    def __init__(self, coordination: Coordination, fault: Fault | None) -> None:
        super().__init__(coordination)
        self._fault = fault

    def commit(self, *operations: Operation) -> CommitResult:
        fault = self._fault
        if fault is None or sort_of(operations) != fault.sort:
            return super().commit(*operations)
        result = super().commit(*operations) if fault.is_after else None
        if result is None or isinstance(result, Committed):
            self._fault = None
            # To this very thread, which then does nothing more; one sent to the process may reach another thread first.
            signal.pthread_kill(get_ident(), fault.number)
        return result if result is not None else super().commit(*operations)


def sort_of(operations: Sequence[Operation]) -> str:
    """What a transaction does: finishing may post and claim, and claiming may not finish."""
    if any(isinstance(step, Delete) and _is_claim(step.path) for step in operations):
        return "finish"
    if any(isinstance(step, Create) and _is_claim(step.path) for step in operations):
        return "claim"
    if any(isinstance(step, Create) and _is_queued(step.path) for step in operations):
        return "post"
    return ""


def _is_claim(path: str) -> bool:
    return path.startswith(f"{paths.RUNNING}/") and path.count("/") == 3


def _is_queued(path: str) -> bool:
    return path.startswith(f"{paths.QUEUE}/") and path.count("/") == 4


def connect(serving: Serving) -> Tickets:
    """The tickets of a tree, with the record of what was finished."""
    tickets = Tickets(Faulty(open_coordination(serving.settings()), serving.fault))
    tickets.tree.folder(FINISHED)
    return tickets


def post(serving: Serving, ticket: Ticket) -> None:
    """Post a ticket; the main program of a process that posts."""
    connect(serving).post(ticket)


def serve(serving: Serving) -> None:
    """Serve tickets until SIGTERM; the main program of a process that works."""
    # For this thread alone, which waits for it; the others inherit that it is blocked.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    stop = Event()
    with ExitStack() as stack:
        journal = stack.enter_context(serving.journal.open("a", buffering=1))
        members = [stack.enter_context(_member(serving, number)) for number in range(serving.workers)]
        threads = [Thread(target=_serve, args=(member, journal)) for member in members]
        if serving.sweeps:
            threads.append(Thread(target=_sweep, args=(members[0].tickets, serving.name, stop)))
        for thread in threads:
            thread.start()
        signal.sigwait([signal.SIGTERM])
        stop.set()
        for member in members:
            member.drain()
        for thread in threads:
            thread.join()


@contextmanager
def _member(serving: Serving, number: int) -> Iterator[Member]:
    tickets = connect(serving)
    try:
        with Member(tickets, Offer([KIND]), f"{serving.name}-{number}") as member:
            yield member
    finally:
        tickets.tree.coordination.close()


def _serve(member: Member, journal: Any) -> None:
    for claim in member.claims():
        _work(claim, journal)


def _work(claim: Claim, journal: Any) -> None:
    """Finish a ticket, with the follow-on that its body asks for, and tell the journal how that went."""
    body = claim.ticket.body
    follow = [Ticket(str(body["next"]), KIND, attempts=claim.ticket.attempts)] if "next" in body else []
    record = Create(f"{FINISHED}/{claim.ticket.id}", claim.token.encode())
    try:
        with claim:
            if "poison" in body:
                os.kill(os.getpid(), signal.SIGKILL)
            claim.finish(record, follow=follow)
    except ClaimLost:
        journal.write(f"lost {claim.token}\n")
    except VersionConflict:
        journal.write(f"DOUBLE {claim.token}\n")
    else:
        journal.write(f"finished {claim.token}\n")


def _sweep(tickets: Tickets, name: str, stop: Event) -> None:
    """Sweep as if alone: of several who do, one's transactions take effect."""
    sweeper = Sweeper(tickets, name, lambda: [name], grace_s=GRACE_S)
    while not stop.wait(SWEEP_S):
        try:
            sweeper.sweep()
        except CoordinationUnavailable:
            continue
