"""How processes agree on who does what: tickets that are posted, claimed, finished and taken over.

Usable by itself for any kind of work, on any adapter of :mod:`distci.coordination.port`::

    tickets = Tickets(coordination)
    tickets.post(Ticket("resize-7", "resize", {"picture": "a.png"}))

    with Member(tickets, Offer(["resize"]), name="worker-1") as member:
        for claim in member.claims():
            with claim:                     # left without finish: the ticket goes back into the queue
                ...                         # the work; stop it when claim.lost is set
                claim.finish(follow=[Ticket("tell-7", "tell")])

What it promises: a posted ticket is durable; at most one claim of a ticket ever finishes, and what follows from it is posted in the same
transaction; a ticket whose worker died is claimed again, up to its number of attempts, then set aside. What it does not:
that at most one worker *works* on a ticket at any instant. One that was cut off may work on until it learns of it; it can
commit nothing. Give :attr:`Claim.token` to whatever must refuse such a late-comer.

The map of the tree is in :mod:`~distci.protocol.paths`, the transactions are in :mod:`~distci.protocol.transactions`.
"""

from distci.model import Permit
from distci.protocol.claims import Claim
from distci.protocol.members import Member, WorkerView
from distci.protocol.records import Offer, Ticket
from distci.protocol.sweeps import Sweeper
from distci.protocol.tickets import Step, Tickets, TicketView

__all__ = ["Claim", "Member", "Offer", "Permit", "Step", "Sweeper", "Ticket", "TicketView", "Tickets", "WorkerView"]
