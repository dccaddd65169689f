"""Named semaphores: at most ``limit`` claimed tickets hold a permit at once, and none outlives its claim.

A slot is a node that is made in the transaction that claims and deleted in the one that ends the claim, whichever that is (finish,
give back, reclaim). So no slot can leak, and no second mechanism watches over them.

A ticket that finds no slot is parked. To lose no wake-up, parking holds on to every slot it saw taken and writes the
semaphore's folder; ending a claim checks that folder's version from before it looked for parked tickets. Whichever
commits second sees the other, and looks again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distci.coordination.port import Check, Delete, Operation
from distci.errors import InvalidDocument
from distci.protocol import paths, transactions
from distci.protocol.records import Permit, Running, Ticket
from distci.protocol.tickets import Step
from distci.protocol.tree import Tree

PARKED_FOR = "permit-"
"""Begins the name of the folder that tickets wait in for a permit."""


@dataclass(frozen=True, slots=True)
class Full:
    """All slots of a permit were taken."""

    permit: Permit
    version: int
    """Of the semaphore's folder, from before its slots were listed."""


def acquire(tree: Tree, ticket: Ticket) -> Sequence[tuple[str, int]] | Full:
    """The slots that a claim of this ticket would take, or the first permit that has none free."""
    slots: list[tuple[str, int]] = []
    for permit in ticket.permits:
        version = _folder_version(tree, permit.name)
        taken = set(tree.coordination.children(paths.permit_folder(permit.name)))
        free = [slot for slot in range(permit.limit) if str(slot) not in taken]
        if not free:
            return Full(permit, version)
        slots.append((permit.name, free[0]))
    return slots


def park(ticket: Ticket, queued_at: str, full: Full) -> list[Operation]:
    """Move a ticket aside until a slot is given back; refused when one has been meanwhile."""
    permit = full.permit
    still_full = [Check(paths.permit(permit.name, slot)) for slot in range(permit.limit)]
    seen = transactions.hold_version(paths.permit_folder(permit.name), full.version)
    return [Delete(queued_at), *transactions.park(ticket, _why(permit.name), (*still_full, *seen))]


def pass_on(tree: Tree, running: Running) -> Step:
    """What giving back a claim's slots must do besides: let the first ticket that waits for each into the queue."""
    operations: list[Operation] = []
    post: list[Ticket] = []
    for name, _ in running.slots:
        version = _folder_version(tree, name)
        operations.append(Check(paths.permit_folder(name), version))
        waiting = _first_parked(tree, paths.parked(_why(name), "").rstrip("/"))
        if waiting is not None:
            operations.append(Delete(waiting[0]))
            post.append(waiting[1])
    return Step(operations, post)


def _first_parked(tree: Tree, folder: str) -> tuple[str, Ticket] | None:
    for name in sorted(tree.coordination.children(folder)):
        node = tree.coordination.read(f"{folder}/{name}")
        try:
            if node is not None:
                return f"{folder}/{name}", Ticket.from_bytes(node.data, f"{folder}/{name}")
        except InvalidDocument:
            continue  # the sweeper sets it aside
    return None


def _folder_version(tree: Tree, name: str) -> int:
    tree.folder(paths.permit_folder(name))
    stat = tree.coordination.exists(paths.permit_folder(name))
    return stat.version if stat else 0


def _why(permit: str) -> str:
    return f"{PARKED_FOR}{permit}"
