"""Every transaction of the protocol as a pure function: from what was read to the operations to commit.

The life of a ticket::

                 claim                  finish
    (post) queue ------> running+owner --------> gone, follow-on tickets in the queue
             ^  \\             |
             |   park         | reclaim, give back: attempt + 1
             |    v           v
             +-- parked     queue, or dead when its attempts are used up

What keeps them right when anybody may die or come back late:

* *The fence.* ``/running/<token>`` is deleted by exactly one of finish, reclaim and give-back. An attempt that has been superseded
  finds it gone, and nothing of its transaction takes effect.
* *Proof of absence.* Reclaim creates and deletes the owner node in one transaction, which cannot be done while it exists.
* *Whole steps.* A ticket leaves one place and enters the next in the same transaction, so it is always in exactly one.
"""

from __future__ import annotations

from collections.abc import Sequence

from distci.coordination.port import NODE_BYTES_MAX, Check, Create, Delete, Operation, Write
from distci.model import Json
from distci.protocol import paths
from distci.protocol.records import FORMAT, Running, Ticket, to_bytes

CLAIM_CONTROL, CLAIM_GUARD = 0, 2
"""Where in a claim the check of ``/control`` and, if there is one, that of the guard stand."""

REASON_CHARS_MAX = 500
"""Of why a ticket was set aside, since an error may say anything."""

CONTENT_CHARS_MAX = 2000
"""Of what cannot be read, where all of it does not fit into a node as JSON."""

FENCE, OWNER = 0, 1
"""Where in a finish the fence and what concerns the heartbeat stand."""


def post(ticket: Ticket, bucket: str, reserved: str = "") -> Operation:
    """Offer a ticket in the folder ``bucket`` of its pool; ``reserved`` is the tag of the worker that is woken for it."""
    return Create(f"{bucket}/{ticket.name(reserved)}", ticket.to_bytes())


def remember(cause: str, day: int, nonce: str) -> list[Operation]:
    """Refuse a cause that was served the day before, today or the day after (clocks differ), and remember it from now on."""
    absent: list[Operation] = []
    for other in (day - 1, day + 1):
        absent += [Create(paths.once(other, cause)), Delete(paths.once(other, cause))]
    return [Create(paths.once(day, cause), nonce.encode()), *absent]


def claim(running: Running, queued_at: str, control_version: int) -> list[Operation]:
    """Take a ticket out of the queue. The guard, if it has one, must still be there."""
    ticket = running.ticket
    operations: list[Operation] = [Check(paths.CONTROL, control_version), Delete(queued_at)]
    if ticket.guard:
        operations.append(Check(ticket.guard))
    return operations + start(running)


def start(running: Running) -> list[Operation]:
    """The nodes that make a claim: its record, its heartbeat, its permit slots.

    The heartbeat of one with a lease lasts as it does; and there is the key that it was asked for with, which is refused when it was served.
    """
    token = running.ticket.token
    return [
        Create(paths.running(token), running.to_bytes()),
        Create(paths.owner(token), ephemeral=not running.lease_s),
        *([Create(_key(running), token.encode())] if running.lease_s else []),
        *take(running.slots, token),
    ]


def take(slots: Sequence[tuple[str, int]], holder: str) -> list[Operation]:
    """Take permit slots for a holder, which the nodes name; refused when somebody was first."""
    return [Create(paths.permit(name, slot), holder.encode()) for name, slot in slots]


def end(running: Running, has_owner: bool = True, version: int = -1) -> list[Operation]:
    """Undo :func:`start`; the first operation is the fence. ``version``: only while nobody has renewed the claim since it was read.

    A claim whose session was lost has no heartbeat until it is adopted again, but may finish all the same: then ``has_owner`` is
    false, and the end is possible only while nobody's heartbeat is there, lest one that comes back meanwhile outlives the claim.
    """
    token = running.ticket.token
    owner = paths.owner(token)
    heartbeat: list[Operation] = [Delete(owner)] if has_owner else [Create(owner), Delete(owner)]
    slots = [Delete(paths.permit(name, slot)) for name, slot in running.slots]
    key = [Delete(_key(running))] if running.lease_s else []
    return [Delete(paths.running(token), version), *heartbeat, *key, *slots]


def _key(running: Running) -> str:
    return paths.claim_key(running.worker, running.nonce)


def adopt(token: str, replaces_owner: bool = False) -> list[Operation]:
    """Give a claim that still stands the heartbeat of a new session; ``replaces_owner``: the old session's node is still there."""
    forget: list[Operation] = [Delete(paths.owner(token))] if replaces_owner else []
    return [Check(paths.running(token)), *forget, Create(paths.owner(token), ephemeral=True)]


def renew(running: Running) -> Operation:
    """Let the time that a claim may stand begin anew: it counts from when the tree last wrote the record."""
    return Write(paths.running(running.ticket.token), running.to_bytes())


def set_aside(token: str, reason: str, content: Json, replaces: bool = False) -> list[Operation]:
    """Keep what cannot or shall not be claimed any more where people can look at it; ``replaces``: something of that token lies there."""
    document = {"f": FORMAT, "reason": reason[:REASON_CHARS_MAX], "ticket": content}
    data = to_bytes(document)
    if len(data) > NODE_BYTES_MAX:
        data = to_bytes(document | {"ticket": str(content)[:CONTENT_CHARS_MAX]})
    return [Write(paths.dead(token), data) if replaces else Create(paths.dead(token), data)]


def park_for(permit: str, ticket: Ticket) -> Operation:
    """Let a ticket wait outside the queue until it is its turn to have a permit."""
    return Create(f"{paths.parked_for(permit)}/{ticket.name()}", ticket.to_bytes())


def park_until(ticket: Ticket, due_ms: int) -> list[Operation]:
    """Let a ticket wait outside the queue until a time, in milliseconds since 1970."""
    return [Create(paths.parked_until(due_ms, ticket.name()), ticket.to_bytes())]
