"""Claims of workers that have no session with the tree: whoever they reach speaks for them, another process each time.

A member's claim lives as long as its session. Here nobody's session may carry it, since the process that answered the claim may die before the
next call. So the heartbeat's node lasts, and the record says for how long the claim stands unless it is renewed: its *lease*, by the
tree's own times. Sweepers take it away after that, as they do with work that hangs; the fence, and all else, is as for every claim.

A ticket is asked for with a *key*, whose node is made and deleted with the claim's record. So whoever asks again with the same key, after an answer
that was lost, is given that same claim, also by a process that never heard of the first time; and of two that are asked at once one is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from distci.coordination.port import Create, Operation, Stat, Write
from distci.errors import CoordinationUnavailable, Forbidden
from distci.model import Hold
from distci.protocol import outcomes, paths, transactions
from distci.protocol.claims import Claim
from distci.protocol.members import describe
from distci.protocol.records import Offer, Running, Ticket, from_bytes, to_bytes
from distci.protocol.tickets import Tickets
from distci.protocol.tree import Tree

LEASE_S = 60.0
"""For how long a claim stands that nobody renews. Sweepers leave it alone a little longer, as with all that is overdue."""

RENEW_AFTER_S = LEASE_S / 4
"""A renewal costs a write, so it is left out while the last one is younger than this."""

PATIENCE_S = 10.0
"""How long a transaction whose answer was lost is looked for while the tree is away."""


class Spokesman:
    """Holds claims for workers that have no session. It need not remember them: all there is to know is in the tree."""

    control_version = -1

    def __init__(self, tickets: Tickets) -> None:
        self.tickets = tickets

    def keep(self, follow: Sequence[Ticket]) -> Claim | None:
        """None: what follows goes to whoever asks next."""
        return None

    def settled(self, claim: Claim) -> None:
        """Nothing needs to be known of it."""

    def forget(self, claim: Claim, is_stray: bool = False) -> None:
        """Nothing was known. A claim that nobody is told of ends with its lease, or is given to who asks again."""

    def idle_hint(self) -> list[Operation]:
        """Nothing: a worker is idle when it asks."""
        return []

    def went_idle(self) -> None: ...


class Request(Spokesman):
    """One worker's request for one ticket, as a :class:`~distci.protocol.claiming.Claimer` serves it."""

    def __init__(
        self,
        tickets: Tickets,
        worker: str,
        offer: Offer,
        key: str,
        *,
        host: str = "",
        slots: int = 1,
        version: str = "",
        takes: Callable[[Ticket], bool] = lambda ticket: True,
        is_choosy: bool = False,
    ) -> None:
        """``takes`` says whether it may have a ticket that its offer suits. One that ``is_choosy`` refuses many, and so is woken for none."""
        super().__init__(tickets)
        # Two processes may serve the same request for a while, each with an idle node of its own.
        self.name = f"{worker}~{tickets.new_nonce()[:8]}"
        self.offer = offer
        self.takes = takes
        self.wakes = not is_choosy
        self.is_willing = True
        self.worker = worker
        self._host = host
        self._slots = slots
        self._version = version
        self._key = key
        self._held: Claim | None = None

    @property
    def is_full(self) -> bool:
        return self._held is not None

    def hold(self, ticket: Ticket, slots: Sequence[tuple[str, int]]) -> Claim:
        self._held = Claim(self, Running(ticket, self.worker, self._key, slots, LEASE_S))
        return self._held

    def forget(self, claim: Claim, is_stray: bool = False) -> None:
        """If the ticket was refused because another process has served this request, no other is tried."""
        self._held = None
        self.is_willing = not is_stray and self.served() is None

    def join(self) -> None:
        """Stand among the live workers for a lease. Forbidden when it was told to take nothing more, for as long as it goes on asking."""
        tree, path = self.tickets.tree, paths.worker(self.worker)
        document = describe(self.offer, self._slots, self._host, self._version, tree.speaks) | {"lease_s": LEASE_S}
        node = tree.coordination.read(path)
        is_drained = node is not None and bool(from_bytes(node.data, path).get("drain"))
        data = to_bytes(document | {"drain": True} if is_drained else document)
        if node is None:
            tree.commit(Create(path, data))
        elif node.data != data or not _is_young(tree, node.stat):
            tree.commit(Write(path, data, node.version))
        if is_drained:
            raise Forbidden(f"worker {self.worker} shall take nothing more, and may end")

    def served(self) -> str | None:
        """The token of the claim that this request was given, by whomever; None as yet, and when that is over."""
        coordination = self.tickets.tree.coordination
        coordination.sync()
        node = coordination.read(paths.claim_key(self.worker, self._key))
        return node.data.decode() if node else None


@dataclass(frozen=True, slots=True)
class Standing:
    """A claim that stands, as it was read."""

    running: Running
    stat: Stat

    def claim(self, tickets: Tickets) -> Claim:
        """The claim, to be ended by whoever speaks for its worker. CoordinationUnavailable when that takes too long."""
        return Claim(Spokesman(tickets), self.running, outcomes.Deadline(PATIENCE_S))

    def age_s(self, tickets: Tickets) -> float:
        """How long it has stood, by the tree's own times."""
        return (tickets.tree.now_ms() - self.stat.created_ms) / 1000

    def renew(self, tickets: Tickets, progress: int | None = None, hold: Hold | None = None) -> bool:
        """Let its lease begin anew, and note how far the work is in percents, and that it is held; False when it does not stand any more. May be repeated."""
        running = self.running.told(progress, hold)
        if _is_young(tickets.tree, self.stat) and running == self.running:
            return True
        path = paths.worker(self.running.worker)
        node = tickets.tree.coordination.read(path)
        # What its worker is known to be able to do stays known as long as it works.
        also = [Write(path, node.data, node.version)] if node else []
        done = tickets.tree.commit(transactions.renew(running), hints=also)
        if done.unknown:
            raise CoordinationUnavailable(
                f"whether claim {self.running.ticket.token} was renewed is not known; try again"
            )
        return done.committed


def _is_young(tree: Tree, stat: Stat) -> bool:
    """Whether what has a lease was renewed so lately that it need not be again."""
    return tree.now_ms() - stat.modified_ms < RENEW_AFTER_S * 1000


def standing(tickets: Tickets, token: str) -> Standing | None:
    """The claim of a token, if it stands and has a lease. InvalidDocument when its record cannot be read."""
    coordination, path = tickets.tree.coordination, paths.running(token)
    node = coordination.read(path)
    if node is None:
        # Another process may have made it a moment ago.
        coordination.sync()
        node = coordination.read(path)
    if node is None:
        return None
    running = Running.from_bytes(node.data, path)
    return Standing(running, node.stat) if running.lease_s else None
