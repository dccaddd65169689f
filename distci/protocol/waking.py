"""Waking without a herd: whoever posts a ticket wakes one idle worker that can do it, in the same transaction.

A worker that goes idle creates ``/idle/<offer>/<worker>``, watches that node alone, and *then* lists its pools once
more. A poster that knew of no idle worker reads ``/idle`` once more *after* its commit. Both write first and read
second, each on its own session, so at least one of them sees the other, and no wake-up is lost. Busy workers watch nothing.

The ticket's name says who was woken for it. Others leave it to that worker for a moment, so that the one who was woken finds its
ticket, and nobody fails a claim over it. A ticket that comes back from a lost worker wakes two and is left to nobody: who was woken for it
may have been lost with that worker, and be idle only for as long as its session is not over.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from random import Random
from threading import Lock

from distci.coordination.port import Delete, Refused, Unknown
from distci.errors import CoordinationUnavailable, Invalid
from distci.protocol import paths
from distci.protocol.records import Offer, Ticket
from distci.protocol.tree import Done, Tree

IDLE_MANY = 32
"""From this many idle workers of an offer on, who posts remembers them for a moment: to list them costs more than the rest of a post."""

KNOWN_AGE_S = 1.0
"""How long that is."""

POSTS_MANY, POSTS_MANY_S = 8, 0.1
"""Who posts so often within so long goes by what it saw within that time before a post, however few are idle. After it, it looks afresh."""

WAKE_TRIES = 3
"""How often somebody is woken when the answer is lost. Waking twice is harmless; who is never woken looks by itself in a minute."""


class Waking:
    """Finds idle workers. Any thread may use it."""

    def __init__(self, tree: Tree, random: Random) -> None:
        self._tree = tree
        self._random = random
        self._lock = Lock()
        self._known: dict[str, tuple[float, set[str]]] = {}
        self._fresh_looks: deque[float] = deque(maxlen=POSTS_MANY)

    def choose(
        self, tickets: Sequence[Ticket], afresh: bool = False, besides: Collection[str] = ()
    ) -> Mapping[str, str]:
        """For each ticket that somebody idle can do, by its id, the idle node to delete; every worker at most once, ``besides`` not at all.

        Where many are idle, or much is posted, it goes by what it read a moment ago, unless it shall read ``afresh``. Who is chosen may
        then be idle no more, and the transaction that wakes is refused; that nobody is idle is believed of a fresh look alone
        (:meth:`afterwards`).
        """
        if not tickets:
            return {}
        idle = self._idle(tickets, afresh)
        chosen: dict[str, str] = {}
        for ticket in tickets:
            candidates = [
                path
                for offer, workers in idle
                if offer.accepts(ticket.kind, ticket.labels)
                for path in workers
                if path not in chosen.values() and path not in besides and not _has_declined(path, ticket)
            ]
            if candidates:
                chosen[ticket.id] = self._random.choice(candidates)
        self._forget(chosen.values())
        return chosen

    def afterwards(self, unwoken: Sequence[Ticket], done: Done) -> None:
        """After a post: wake by a transaction of its own, for tickets that nobody was woken for, those who went idle meanwhile.

        After a post whose answer was lost too, since its tickets may be there. Never raises that the tree is away: the post
        stands as it is, and idle workers look by themselves in a minute.
        """
        if isinstance(done.result, Refused):
            return
        with suppress(CoordinationUnavailable):
            self.wake(unwoken)

    def offers(self) -> Sequence[Offer]:
        """What those who are idle could do."""
        folders = self._tree.coordination.children(paths.IDLE)
        idle = [folder for folder in folders if self._tree.coordination.children(f"{paths.IDLE}/{folder}")]
        return [offer for folder in idle if (offer := _offer(folder))]

    def wake(self, tickets: Sequence[Ticket]) -> None:
        """Wake somebody idle for each ticket, by a transaction of its own."""
        for path in self.choose(tickets, afresh=True).values():
            for _ in range(WAKE_TRIES):
                if not isinstance(self._tree.coordination.commit(Delete(path)), Unknown):
                    break

    def _idle(self, tickets: Sequence[Ticket], afresh: bool) -> list[tuple[Offer, Sequence[str]]]:
        """The offers that suit any of the tickets, each with idle nodes below it."""
        if afresh:
            self._fresh_looks.append(time.monotonic())
        found: list[tuple[Offer, Sequence[str]]] = []
        for path in self._below(paths.IDLE, afresh):
            offer = _offer(path.rpartition("/")[2])
            if offer and any(offer.accepts(ticket.kind, ticket.labels) for ticket in tickets):
                found.append((offer, self._below(path, afresh)))
        return found

    def _below(self, folder: str, afresh: bool) -> Sequence[str]:
        now = time.monotonic()
        with self._lock:
            read_at, known = self._known.get(folder, (-KNOWN_AGE_S, set()))
            if not afresh and now - read_at < self._age_s(len(known)):
                return list(known)
        paths_below = [f"{folder}/{name}" for name in self._tree.coordination.children(folder)]
        with self._lock:
            self._known[folder] = (now, set(paths_below))
        return paths_below

    def _age_s(self, idle: int) -> float:
        """How old may be what is gone by."""
        posts_many = len(self._fresh_looks) == POSTS_MANY and time.monotonic() - self._fresh_looks[0] < POSTS_MANY_S
        return KNOWN_AGE_S if idle >= IDLE_MANY else POSTS_MANY_S if posts_many else 0

    def _forget(self, woken: Iterable[str]) -> None:
        with self._lock:
            for path in woken:
                _, known = self._known.get(path.rpartition("/")[0], (0.0, set()))
                known.discard(path)


def _has_declined(idle: str, ticket: Ticket) -> bool:
    """Whether an idle node is that of the worker that has just given the ticket back; what comes behind ``~`` tells its requests apart."""
    return bool(ticket.declined_by) and idle.rpartition("/")[2].partition("~")[0] == ticket.declined_by


def _offer(folder: str) -> Offer | None:
    try:
        return Offer.parse(folder)
    except Invalid:
        return None
