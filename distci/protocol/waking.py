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

WAKE_TRIES = 3
"""How often somebody is woken when the answer is lost. Waking twice is harmless; who is never woken looks by itself in a minute."""


class Waking:
    """Finds idle workers. Any thread may use it."""

    def __init__(self, tree: Tree, random: Random) -> None:
        self._tree = tree
        self._random = random
        self._lock = Lock()
        self._known: dict[str, tuple[float, set[str]]] = {}

    def choose(
        self, tickets: Sequence[Ticket], afresh: bool = False, besides: Collection[str] = ()
    ) -> Mapping[str, str]:
        """For each ticket that somebody idle can do, by its id, the idle node to delete; every worker at most once, ``besides`` not at all.

        Where many are idle it goes by what it read within the last second, unless it shall read ``afresh``. Who is chosen may
        then be idle no more, and the transaction that wakes is refused; but only a fresh look finds nobody.
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
                if path not in chosen.values() and path not in besides
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
        found: list[tuple[Offer, Sequence[str]]] = []
        for folder in self._tree.coordination.children(paths.IDLE):
            offer = _offer(folder)
            if offer and any(offer.accepts(ticket.kind, ticket.labels) for ticket in tickets):
                found.append((offer, self._below(f"{paths.IDLE}/{folder}", afresh)))
        return found

    def _below(self, folder: str, afresh: bool) -> Sequence[str]:
        now = time.monotonic()
        with self._lock:
            read_at, known = self._known.get(folder, (0.0, ()))
            if known and not afresh and now - read_at < KNOWN_AGE_S:
                return list(known)
        paths_below = [f"{folder}/{worker}" for worker in self._tree.coordination.children(folder)]
        with self._lock:
            self._known[folder] = (now, set(paths_below) if len(paths_below) >= IDLE_MANY else set())
        return paths_below

    def _forget(self, woken: Iterable[str]) -> None:
        with self._lock:
            for path in woken:
                _, known = self._known.get(path.rpartition("/")[0], (0.0, set()))
                known.discard(path)


def _offer(folder: str) -> Offer | None:
    try:
        return Offer.parse(folder)
    except Invalid:
        return None
