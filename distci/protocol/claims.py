"""One worker's exclusive hold on one ticket, from the claim to its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Event
from time import monotonic
from types import TracebackType
from typing import Protocol, Self

from distci.coordination.port import Check, Operation, Reason, Refused
from distci.errors import ClaimLost, CoordinationUnavailable, Unavailable, VersionConflict
from distci.model import Hold
from distci.protocol import outcomes, paths, permits, transactions
from distci.protocol.outcomes import GivesUp, Truth
from distci.protocol.records import Running, Ticket
from distci.protocol.tickets import Step, Tickets
from distci.protocol.tree import Done

PROGRESS_S = 3.0
"""Least time between two notes in the tree of how far work is."""

DECLINED_MAX = 100
"""Claims of a ticket after which to decline it uses up an attempt all the same."""


class Holder(Protocol):
    """What a claim asks of whoever holds it: a member, or somebody who speaks for a worker that has no session."""

    @property
    def tickets(self) -> Tickets: ...

    @property
    def control_version(self) -> int:
        """Version of ``/control`` that it goes by."""

    def keep(self, follow: Sequence[Ticket]) -> Claim | None:
        """A claim, so far in memory only, of the first of these tickets that it goes on with at once."""

    def settled(self, claim: Claim) -> None:
        """The transaction that begins the claim is known to have been committed."""

    def forget(self, claim: Claim, is_stray: bool = False) -> None:
        """The claim is over; ``is_stray``: it is not known whether it ever began."""

    def idle_hint(self) -> list[Operation]:
        """Going idle with the end of a claim."""

    def went_idle(self) -> None:
        """That took effect."""


class Claim:
    """A claimed ticket. A context manager: left without :meth:`finish`, the ticket goes back into the queue.

    ``lost`` is set as soon as it is known that the claim has been superseded; then whatever is being done for it shall
    stop and write nothing more. One thread works on a claim at a time.
    """

    def __init__(self, member: Holder, running: Running, patience: GivesUp | None = None) -> None:
        """``patience`` says when its end waits for the tree no longer, which is then unavailable; None: when the claim is lost."""
        self.running = running
        self.lost = Event()
        self._patience = patience or self.lost
        self._member = member
        self.is_ending = False
        """Whether its end is under way, or over."""
        self._is_over = False
        self._renewed_at = monotonic()

    @property
    def ticket(self) -> Ticket:
        return self.running.ticket

    @property
    def token(self) -> str:
        """The fencing token: this attempt and no other, ``<ticket>.<attempt>``; it rises with each claim of the ticket."""
        return self.running.ticket.token

    def finish(
        self,
        *operations: Operation,
        follow: Sequence[Ticket] = (),
        keep: bool = False,
        proof: Callable[[], bool] | None = None,
        hints: Sequence[Operation] = (),
    ) -> Claim | None:
        """End the ticket, take the given operations and post the tickets that follow, in one transaction; with the hints that still hold.

        With ``keep``, the first follow-on ticket that this worker may do itself is claimed in that same transaction, and
        returned. ``proof`` tells from the tree, after a lost answer, whether this very call took effect.

        Raises :class:`~distci.errors.ClaimLost` when the claim has been superseded (nothing took effect), and
        :class:`~distci.errors.VersionConflict` when one of ``operations`` was refused: read again, and finish again; or when a
        ticket that follows stands in the queue already.
        While the tree cannot be reached it waits, as long as its holder has patience.
        """
        kept = self._member.keep(follow) if keep else None
        if kept is None:
            self._check(self._end(*operations, post=follow, proof=proof, hints=hints))
            return None
        posted = [ticket for ticket in follow if ticket.id != kept.ticket.id]
        begun = [Check(paths.CONTROL, self._member.control_version), *transactions.start(kept.running)]
        try:
            refused = self._end(*operations, *begun, post=posted, proof=kept.is_ours, goes_idle=False, hints=hints)
        except BaseException:
            self._member.forget(kept, is_stray=True)
            raise
        if refused is None:
            self._member.settled(kept)
            return kept
        self._member.forget(kept)
        if refused < len(operations):
            self._check(refused)
        # Paused in the meantime: then the follow-on ticket stands in line like any other.
        return self.finish(*operations, follow=follow, proof=proof, hints=hints)

    def is_ours(self) -> bool:
        """Whether the tree has this claim on record."""
        return outcomes.of_claim(self._member.tickets.tree, self.running) is Truth.COMMITTED

    def renew(self, progress: int | None = None, hold: Hold | None = None) -> None:
        """Tell that the work gets on, and how far it is in percents if it says so, lest the claim be taken over when the ticket's limit has passed. For any thread, as often as it likes.

        It writes once in half of the limit, when the percents are others than they were :data:`PROGRESS_S` ago, and at once when what is over is
        held, or is so no more. Raises CoordinationUnavailable.
        """
        limit_s = self.ticket.limit_s
        running = self.running.told(progress, hold)
        is_news = running != self.running
        pause_s = 0 if hold != self.running.hold else PROGRESS_S if is_news else limit_s / 2
        if not (limit_s or is_news) or self._is_over or monotonic() - self._renewed_at < pause_s:
            return
        began = monotonic()
        if self._member.tickets.tree.commit(transactions.renew(running)).committed:
            self._renewed_at, self.running = began, running

    def watch(self, changed: Event) -> None:
        """Have ``changed`` set when somebody takes the claim over, or may have; set ``lost`` when somebody has. For any thread.

        Raises CoordinationUnavailable.
        """
        coordination, path = self._member.tickets.tree.coordination, paths.running(self.token)
        if coordination.watch(path, changed) is None:
            # A session that has just begun may read what is older than the claim.
            coordination.sync()
            if coordination.exists(path) is None and not self._is_over:
                self.lost.set()

    def give_back(self, reason: str, *, is_declined: bool = False) -> None:
        """Put the ticket back into the queue for its next attempt, or set it aside when it was the last one allowed.

        One that ``is_declined`` was refused by its worker: that uses up no attempt, and the worker leaves it to others for a moment.
        """
        ticket = self.ticket.spared(DECLINED_MAX) if is_declined else self.ticket
        while True:
            try:
                # What follows may be for the store or the tree to say, and either may be away just now.
                step = outcomes.persist(lambda: self._member.tickets.next_attempt(ticket, reason), self.lost)
            except Unavailable as error:
                raise self._superseded() from error
            post = [self._declined(follow) if is_declined else follow for follow in step.post]
            if self._end(*step.operations, post=post) is None:
                return

    def _declined(self, follow: Ticket) -> Ticket:
        return replace(follow, declined_by=self.running.worker) if follow.id == self.ticket.id else follow

    def park_until(self, due_ms: int, *operations: Operation, uses_attempt: bool = True) -> None:
        """Let the ticket wait until a time and be claimed again, and take the given operations with it.

        ``due_ms`` is in milliseconds since 1970, by the tree's clock (:meth:`~distci.protocol.tree.Tree.now_ms`). Raises
        :class:`~distci.errors.VersionConflict` when an operation was refused: look again.
        """
        waiting = self.ticket.again() if uses_attempt else self.ticket.spared().again()
        self._check(self._end(*operations, *transactions.park_until(waiting, due_ms)))

    def park_for(self, full: permits.Full, *operations: Operation, hints: Sequence[Operation] = ()) -> None:
        """Let the ticket wait until a slot of that permit is given back, and take the given operations with it, and the hints that still hold.

        However often it has to wait, that uses up no attempt. Raises :class:`~distci.errors.VersionConflict` when a slot has been
        given back meanwhile, another ticket has begun to wait, or an operation was refused: look again.
        """
        step = permits.park(self._member.tickets.tree, self.ticket.spared().again(), self.ticket.permits, full)
        self._check(self._end(*operations, *step.operations, post=step.post, hints=hints))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_over:
            return
        try:
            self.give_back(f"{kind.__name__}: {error}" if kind else "left unfinished")
        except ClaimLost:
            return

    def _end(
        self,
        *operations: Operation,
        post: Sequence[Ticket] = (),
        proof: Callable[[], bool] | None = None,
        goes_idle: bool = True,
        hints: Sequence[Operation] = (),
    ) -> int | None:
        """End the claim; the index among ``operations`` (or past them: a ticket to post) of what was refused, or None when all took effect."""
        if self._is_over or self.lost.is_set():
            raise self._superseded()
        self.is_ending = True
        try:
            return self._try_to_end(operations, post, proof, goes_idle, hints)
        finally:
            self.is_ending = self._is_over

    def _try_to_end(
        self,
        operations: Sequence[Operation],
        post: Sequence[Ticket],
        proof: Callable[[], bool] | None,
        goes_idle: bool,
        hints: Sequence[Operation],
    ) -> int | None:
        tickets, tree = self._member.tickets, self._member.tickets.tree
        has_owner = True
        passed_on = Step()
        idle: Sequence[Operation] = ()
        while True:
            ended = transactions.end(self.running, has_owner)

            def commit(ended: Sequence[Operation] = ended) -> Done:
                nonlocal passed_on, idle
                passed_on = permits.pass_on(tree, [name for name, _ in self.running.slots])
                idle = self._member.idle_hint() if goes_idle else []
                return tickets.commit(
                    *ended, *operations, *passed_on.operations, post=[*post, *passed_on.post], hints=[*idle, *hints]
                )

            try:
                settled = outcomes.settle(
                    tree,
                    lambda: outcomes.persist(commit, self._patience),
                    lambda: outcomes.of_end(tree, self.running, proof),
                    self._patience,
                )
            except CoordinationUnavailable as error:
                if not self.lost.is_set():
                    raise
                raise self._superseded() from error
            if isinstance(settled, Done) and settled.committed:
                if any(hint in idle for hint in settled.hints):
                    self._member.went_idle()
                self._over()
                return None
            refused = settled.result if isinstance(settled, Done) else None
            if not isinstance(refused, Refused) or refused.index == transactions.FENCE:
                raise self._superseded()
            if refused.index == transactions.OWNER:
                # Our session was lost, or the claim has been adopted again meanwhile.
                has_owner = refused.reason is not Reason.MISSING
            elif (index := refused.index - len(ended)) - len(operations) not in range(len(passed_on.operations)):
                return index
            # Otherwise somebody has begun to wait for our permit meanwhile: look again.

    def _check(self, refused: int | None) -> None:
        if refused is not None:
            raise VersionConflict(f"claim {self.token}: operation {refused} builds on something that has changed")

    def _superseded(self) -> ClaimLost:
        self.lost.set()
        self._over()
        return ClaimLost(f"claim {self.token} is over or has been superseded; nothing was written")

    def _over(self) -> None:
        self._is_over = True
        self._member.forget(self)
