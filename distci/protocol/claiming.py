"""How a worker comes by its next ticket: look into the pools, try a few, or go idle until woken.

Busy workers watch nothing, and idle ones watch a single node, their own (see :mod:`distci.protocol.waking`). Going idle and
ceasing to be idle ride on the transactions that end and begin claims, so that they cost no write of their own.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from threading import Event
from typing import Protocol

from distci.coordination.port import Check, Create, Delete, Operation, SessionState
from distci.errors import CoordinationUnavailable, Invalid, InvalidDocument
from distci.model import Permit
from distci.protocol import choosing, outcomes, paths, permits, transactions
from distci.protocol.claims import Claim, Holder
from distci.protocol.outcomes import GivesUp, Truth
from distci.protocol.records import Control, Offer, Ticket
from distci.protocol.tree import Done

UNWOKEN_POLL_S = 2.0
"""How long one waits for its next look whom nobody can wake."""

IDLE_POLL_S = 45.0
"""How long an idle worker trusts to be woken, give or take half: the net below a wake-up that died with whoever got it."""

TRIES = 3
"""Candidates that are tried before the queue is listed again."""

JITTER_S = 0.01
"""Up to this long a worker waits before it lists again, after others were first with every candidate."""

LEFT_TO_OTHERS_S = 1.0
"""How long a ticket is left to the worker that was woken for it."""

LONGER_EACH_TIME = 4
"""So much later an idle worker looks again after each look in a row that showed it tickets of others alone: where many are woken every
second there always are some, and a thousand idle workers must not all look once a second."""

FOLDERS_AGE_S = 1.0
"""How long the list of the queue's folders is trusted while there is something in them."""

BACKLOG_AGE_S = 1.0
"""How long a worker may keep follow-on tickets before it looks again whether others stand in line, and takes one of these if so."""

BATON_S = 0.1
"""Least time between two looks for somebody idle to pass the rest of a queue on to."""


class Claimant(Holder, Protocol):
    """For whom tickets are claimed."""

    @property
    def name(self) -> str: ...

    @property
    def worker(self) -> str:
        """The worker that it is, where one claims under several names."""

    @property
    def offer(self) -> Offer: ...

    @property
    def wakes(self) -> bool:
        """Whether it can be woken, and so waits for that."""

    @property
    def is_willing(self) -> bool:
        """Whether it takes tickets now."""

    @property
    def is_full(self) -> bool:
        """Whether all slots are taken."""

    def takes(self, ticket: Ticket) -> bool:
        """Whether it may have a ticket that its offer suits."""

    def hold(self, ticket: Ticket, slots: Sequence[tuple[str, int]]) -> Claim:
        """Know of a claim before it can exist."""


class Claimer:
    """Claims for one claimant. :meth:`next` and :meth:`look` are for one thread at a time; the rest may be called from any."""

    def __init__(
        self,
        member: Claimant,
        woken: Event | None = None,
        turns: choosing.Turns | None = None,
        patience: GivesUp | None = None,
    ) -> None:
        """``woken`` is set to end a wait. ``turns`` are whose turn it is, where several claim as one. ``patience`` is for a claim whose answer was lost."""
        self._member = member
        self._tickets = member.tickets
        self._tree = member.tickets.tree
        self._coordination = member.tickets.tree.coordination
        self._random = member.tickets.random
        self._idle_path = paths.idle(member.offer.name, member.name)
        self._woken = woken or Event()
        self._closed = Event()
        self._patience = patience or self._closed
        self._is_idle = False
        self._has_backlog = False
        self._line: choosing.Line | None = None
        self._known_control: tuple[int, Control] | None = None
        self._turns = turns or choosing.Turns()
        self._tag = paths.worker_tag(member.name)
        self._declined = paths.decliner_tag(member.worker)
        self._seen: dict[paths.Name, float] = {}
        self._not_ours: set[paths.Name] = set()
        self._left_to_others_s = LEFT_TO_OTHERS_S
        self._front: Sequence[str] = ()
        self._behind: list[str] = []
        self._next_behind = self._random.randrange(max(paths.QUEUE_WIDTHS))
        self._listed_at = -FOLDERS_AGE_S
        self._looked_at = 0.0
        self._passed_on_at = -BATON_S

    def next(self) -> Claim | None:
        """A claim; None after waiting in vain, or when the member drains. Ends the wait when woken."""
        claim, wait_s = self.look()
        if claim is None:
            self._woken.wait(wait_s)
        return claim

    def look(self) -> tuple[Claim | None, float]:
        """A claim; or how many seconds to wait to be woken before the next look."""
        if self._is_idle and self._woken.is_set():
            self._is_idle = self._coordination.exists(self._idle_path) is not None
        # Who is idle looks once for each wait, after it has made sure that it can be woken.
        claim = None if self._is_idle else self._claim_one()
        if claim is not None:
            self._left_to_others_s = LEFT_TO_OTHERS_S
            return claim, 0.0
        return self._claim_or_idle()

    def wake(self) -> None:
        """End a wait in :meth:`next`."""
        self._woken.set()

    def new_session(self) -> None:
        """The idle node has gone with the old session."""
        self._is_idle = False
        self._woken.set()

    def close(self) -> None:
        """Stop waiting for anything, and be idle no more."""
        self._closed.set()
        self.be_idle_no_more()

    @property
    def is_idle(self) -> bool:
        """Whether its idle node was there when it last looked."""
        return self._is_idle

    def be_idle_no_more(self) -> None:
        """End a wait in :meth:`next`, and let nobody wake this worker for a ticket; CoordinationUnavailable if that is not to be had."""
        self._woken.set()
        self._coordination.commit(Delete(self._idle_path))

    def pause(self, seconds: float) -> None:
        """Wait, unless closed meanwhile."""
        self._closed.wait(seconds)

    @property
    def control_version(self) -> int:
        """Version of ``/control`` that was last read; -1 passes always."""
        control = self._control
        return control.version if control else -1

    def may_keep(self, ticket: Ticket) -> bool:
        """Whether a follow-on ticket may be done at once by who posts it: nothing is paused, and it passes by nobody else's in line.

        It may pass by those of its own project: what was begun is ended before more is begun. But for a moment only, since
        those grow older, too.
        """
        control = self._control
        if control is None or control.paused or control.permits(ticket):
            return False
        now = time.monotonic()
        if now - self._looked_at >= BACKLOG_AGE_S:
            # A long chain of tickets must not pass by all who were posted since it began.
            try:
                stats = [self._coordination.exists(folder) for folder in self._front]
            except CoordinationUnavailable:
                return False
            self._has_backlog = any(stat.children for stat in stats if stat)
            self._line = None
            self._looked_at = now
        return not self._has_backlog or (self._line is not None and self._line.lets_by(ticket))

    def idle_hint(self) -> list[Operation]:
        """Going idle in the very transaction that ends a claim, when there seems to be nothing left to do."""
        if self._is_idle or self._has_backlog:
            return []
        return [Create(self._idle_path, ephemeral=True)]

    def went_idle(self) -> None:
        """The hint was taken: the idle node is there."""
        self._is_idle = True

    # Going idle

    def _claim_or_idle(self) -> tuple[Claim | None, float]:
        """Go idle, and look once more; how long to wait to be woken if there is nothing."""
        self._woken.clear()
        if not self._member.is_willing:
            return None, 0.0
        if not self._member.wakes:
            return None, LEFT_TO_OTHERS_S if self._seen else UNWOKEN_POLL_S
        if not self._go_idle():
            return None, 0.0
        claim = self._claim_one()
        if claim is not None:
            self._left_to_others_s = LEFT_TO_OTHERS_S
            return claim, 0.0
        wait_s = IDLE_POLL_S * self._random.uniform(0.5, 1.5)
        if self._seen:
            wait_s = min(wait_s, self._left_to_others_s)
            self._left_to_others_s *= LONGER_EACH_TIME
        return None, wait_s

    def _go_idle(self) -> bool:
        """Make sure that the idle node is there and watched. The pools are listed after this, never before it."""
        stat = self._coordination.watch(self._idle_path, self._woken)
        if stat is None or stat.owner != self._coordination.session.id:
            forget = [Delete(self._idle_path)] if stat else []
            created = self._tree.commit(*forget, Create(self._idle_path, ephemeral=True)).committed
            if not created or self._coordination.watch(self._idle_path, self._woken) is None:
                return False
        self._is_idle = True
        return True

    # Looking and trying

    def _claim_one(self) -> Claim | None:
        """Claim some suitable ticket; None when none is waiting."""
        if self._coordination.session.state is not SessionState.CONNECTED:
            raise CoordinationUnavailable("the session is in doubt; claiming nothing new")
        while self._member.is_willing:
            waiting = self._waiting()
            mine = [name for name in waiting if name.reserved == self._tag]
            free = self._free(waiting)
            now_ms = int(self._tickets.clock() * 1000)
            self._has_backlog = len(mine) + len(free) > 1
            self._line = choosing.Line.of([*mine, *free], now_ms)
            if not mine and not free:
                return None
            for name in choosing.choose(mine or free, now_ms, self._random, TRIES, self._turns):
                claim = self._try(waiting[name])
                if claim is not None:
                    self._turns.took(name.project, self._weight(name.project))
                    return claim
            self.pause(self._random.uniform(0, JITTER_S))
        return None

    def _waiting(self) -> Mapping[paths.Name, str]:
        """Waiting tickets of the pools that suit, and where they are: a sample where there are many."""
        self._looked_at = time.monotonic()
        if self._looked_at - self._listed_at < FOLDERS_AGE_S:
            waiting = self._look()
            if waiting:
                return waiting
        folders = self._suitable_folders()
        self._front = [folder for folder in folders if paths.is_front_row(folder)]
        self._behind = [folder for folder in folders if not paths.is_front_row(folder)]
        self._listed_at = time.monotonic()
        return self._look()

    def _look(self) -> Mapping[paths.Name, str]:
        """What waits in the front rows, and in the next folder behind them that has something in it.

        Each worker goes through these folders in turn, so what is there is seen however much is posted in front of it. One that
        was empty is left out until the list of folders is read again.
        """
        found = self._list(self._front)
        if any(name.reserved == self._tag for name in found):
            return found
        while self._behind:
            index = self._next_behind % len(self._behind)
            behind = self._list([self._behind[index]])
            if behind:
                self._next_behind = index + 1
                return {**found, **behind}
            del self._behind[index]
        return found

    def _free(self, waiting: Iterable[paths.Name]) -> Sequence[paths.Name]:
        """The tickets that are not left to others: to who was woken for them, or to all others once this worker has given them back.

        For a moment, as long as it has seen them, by its own clock.
        """
        now = time.monotonic()
        # Most are reserved to nobody, and there are many of them.
        left = [name for name in waiting if name.reserved and self._leaves(name)]
        self._seen = {name: self._seen.get(name, now) for name in left}
        seen = self._seen
        return [
            name for name in waiting if not name.reserved or name not in seen or now - seen[name] >= LEFT_TO_OTHERS_S
        ]

    def _leaves(self, name: paths.Name) -> bool:
        if name.reserved.startswith("!"):
            return name.reserved == self._declined
        return name.reserved != self._tag

    def _weight(self, tag: str) -> float:
        control = self._control
        return control.weight_by_tag.get(tag, 1.0) if control else 1.0

    def _suitable_folders(self) -> Sequence[str]:
        control = self._control_now()
        found = []
        for pool in self._coordination.children(paths.QUEUE):
            kind, labels = paths.pool_of(pool)
            if self._member.offer.accepts(kind, labels) and not control.pauses(kind):
                path = f"{paths.QUEUE}/{pool}"
                found += [f"{path}/{bucket}" for bucket in self._coordination.children(path)]
        return found

    def _list(self, folders: Sequence[str]) -> Mapping[paths.Name, str]:
        found: dict[paths.Name, str] = {}
        for folder in folders:
            for text in self._coordination.children(folder):
                try:
                    if (name := paths.Name.parse(text)) not in self._not_ours:
                        found[name] = f"{folder}/{text}"
                except Invalid as error:
                    path = f"{folder}/{text}"
                    self._tickets.set_aside(path, f"unreadable.{paths.digest(path, 16)}", str(error))
        return found

    def _try(self, queued_at: str) -> Claim | None:
        """Claim one ticket; None when somebody was first, or when it cannot be claimed now."""
        node = self._coordination.read(queued_at)
        # Looked at after reading, since a worker that begins to rest does so before it gives its ticket back.
        if node is None or not self._member.is_willing:
            return None
        try:
            ticket = Ticket.waiting(node.data, queued_at)
        except InvalidDocument as error:
            name = paths.Name.parse(queued_at.rpartition("/")[2])
            self._tickets.set_aside(queued_at, paths.token(name.ticket, name.attempt), str(error))
            return None
        if not self._member.takes(ticket):
            self._not_ours.add(paths.Name.parse(queued_at.rpartition("/")[2]))
            return None
        control = self._control_now()
        if control.pauses(ticket.kind):
            return None
        wanted = control.permits(ticket)
        slots = permits.acquire(self._tree, wanted)
        if isinstance(slots, permits.Full):
            self._park(ticket, wanted, slots, queued_at, control)
            return None
        return self._commit(ticket, slots, queued_at, control.version)

    def _park(
        self, ticket: Ticket, wanted: Sequence[Permit], full: permits.Full, queued_at: str, control: Control
    ) -> None:
        step = permits.park(self._tree, ticket, wanted, full)
        # A quota that has been raised or lifted meanwhile is not waited for: nobody might give back what it was full of.
        as_known = Check(paths.CONTROL, control.version)
        if not self._tickets.commit(as_known, Delete(queued_at), *step.operations, post=step.post).committed:
            self._known_control = None

    def _commit(self, ticket: Ticket, slots: Sequence[tuple[str, int]], queued_at: str, control: int) -> Claim | None:
        baton = self._baton(ticket)
        # From here on to the end of the claim's transaction, whatever fails, the slot is given back.
        claim = self._member.hold(ticket, slots)
        settled: Done | Truth | None = None
        try:
            operations = transactions.claim(claim.running, queued_at, control)
            idle_change = self._idle_change()
            hints = [*idle_change, *baton]
            settled = outcomes.settle(
                self._tree,
                lambda: self._tree.commit(*operations, hints=hints),
                lambda: outcomes.of_claim(self._tree, claim.running),
                self._patience,
            )
        finally:
            if settled is None:
                self._member.forget(claim, is_stray=True)
        if isinstance(settled, Done) and settled.committed:
            if idle_change and idle_change[0] in settled.hints:
                self._is_idle = isinstance(idle_change[0], Create)
            self._member.settled(claim)
            return claim
        self._member.forget(claim)
        if isinstance(settled, Done):
            self._learn(settled, ticket, queued_at)
        return None

    def _learn(self, refused: Done, ticket: Ticket, queued_at: str) -> None:
        """Draw the consequence of a claim that was refused for another reason than that somebody was first."""
        if refused.refused_at(transactions.CLAIM_CONTROL):
            self._known_control = None
            self._listed_at = -FOLDERS_AGE_S
        elif ticket.guard and refused.refused_at(transactions.CLAIM_GUARD):
            # What the ticket belonged to is gone, and the ticket with it.
            self._tree.commit(Delete(queued_at))

    def _idle_change(self) -> list[Operation]:
        """Stop being idle with the claim that fills the last slot; stay idle, or be so again, while slots are free."""
        if self._member.is_full:
            return [Delete(self._idle_path)] if self._is_idle else []
        return self.idle_hint()

    def _baton(self, ticket: Ticket) -> list[Operation]:
        """Wake one more worker when more is waiting than this one takes."""
        now = time.monotonic()
        if not self._has_backlog or now - self._passed_on_at < BATON_S:
            return []
        self._passed_on_at = now
        return [Delete(path) for path in self._tickets.waking.choose([ticket]).values() if path != self._idle_path]

    @property
    def _control(self) -> Control | None:
        """What was last read of ``/control``; None when that was in another tree, whose versions say nothing of this one's."""
        epoch, control = self._known_control or (0, None)
        return control if epoch == self._tree.epoch else None

    def _control_now(self) -> Control:
        """What claims go by. A resume wakes those who wait."""
        control = self._control
        if control is None or control.paused:
            epoch = self._tree.epoch
            self._coordination.watch(paths.CONTROL, self._woken)
            try:
                control = self._tickets.control()
            except InvalidDocument as error:
                # What is paused cannot be known: take nothing until somebody has mended it.
                raise CoordinationUnavailable(f"claiming nothing: {error}") from error
            self._known_control = epoch, control
        return control
