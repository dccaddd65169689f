"""Named semaphores: at most ``limit`` hold a permit at once, and none outlives its holder.

A slot is a node that is made in the transaction that begins what needs it and deleted in the one that ends it, whichever that is:
for a claimed ticket the claim and its finish, give-back or reclaim; for something longer, such as a build, whatever its service commits
(:func:`~distci.protocol.transactions.take`, :func:`give_back`). So no slot can leak, and no second mechanism watches over them.

Whoever finds no slot waits as a parked ticket. To lose no wake-up, parking holds on to every slot it saw taken and writes the
semaphore's folder; giving back checks that folder's version from before it looked for parked tickets. Whichever
commits second sees the other, and looks again.

Slots are taken from the lowest number up, so two who are after the last one always meet. Whoever asks says the limit; where the
limits of a name differ, each is held to its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from distci.coordination.port import Check, Delete, Operation, Write
from distci.errors import Invalid, InvalidDocument
from distci.model import Permit
from distci.protocol import paths, transactions
from distci.protocol.records import Ticket
from distci.protocol.tickets import Step
from distci.protocol.tree import Tree

Slots = Sequence[tuple[str, int]]
"""Places that are taken or can be: (permit name, slot)."""


@dataclass(frozen=True, slots=True)
class Full:
    """All slots of a permit were taken."""

    permit: Permit
    taken: Sequence[int]
    version: int
    """Of the semaphore's folder, from before its slots were listed."""


def acquire(tree: Tree, wanted: Iterable[Permit]) -> Slots | Full:
    """A slot of each permit that could be taken now, or the first permit that has none free."""
    slots: list[tuple[str, int]] = []
    for permit in wanted:
        version = _folder_version(tree, permit.name)
        taken = _taken(tree, permit.name)
        if len(taken) >= permit.limit:
            return Full(permit, sorted(taken), version)
        slots.append((permit.name, next(slot for slot in count() if slot not in taken)))
    return slots


def give_back(tree: Tree, slots: Slots) -> Step:
    """Give slots back, and let the first ticket that waits for each go on; refused when another has begun to wait meanwhile."""
    step = pass_on(tree, [name for name, _ in slots])
    return Step([*(Delete(paths.permit(name, slot)) for name, slot in slots), *step.operations], step.post)


def pass_on(tree: Tree, names: Iterable[str]) -> Step:
    """Let the first ticket that waits for each of these permits into the queue."""
    operations: list[Operation] = []
    post: list[Ticket] = []
    for name in names:
        version = _folder_version(tree, name)
        operations.append(Check(paths.permit_folder(name), version))
        for path, ticket in waiting(tree, name):
            operations.append(Delete(path))
            post.append(ticket)
            break
    return Step(operations, post)


def park(tree: Tree, ticket: Ticket, wanted: Iterable[Permit], full: Full) -> Step:
    """Let a ticket wait until a slot is given back; refused when one has been meanwhile.

    The other permits that are wanted for it may have been handed on to it: they go to the next.
    """
    name = full.permit.name
    still_full = [Check(paths.permit(name, slot)) for slot in full.taken]
    # Written, so that whoever gives back sees it; and for the sweeper, which must know how many there are.
    seen = Write(paths.permit_folder(name), str(full.permit.limit).encode(), full.version)
    others = pass_on(tree, [permit.name for permit in wanted if permit.name != name])
    return Step([transactions.park_for(name, ticket), *still_full, seen, *others.operations], others.post)


def waiting(tree: Tree, name: str) -> Iterator[tuple[str, Ticket]]:
    """Tickets parked for a permit with their paths, in the order in which they get their turn."""
    for path in line(tree, name):
        node = tree.coordination.read(path)
        try:
            if node is not None:
                yield path, Ticket.waiting(node.data, path)
        except InvalidDocument:
            continue  # the sweeper sets it aside when its turn comes


def line(tree: Tree, name: str) -> Sequence[str]:
    """Paths of the tickets parked for a permit, in the order in which they get their turn: by priority, then by age."""
    folder = paths.parked_for(name)
    return [f"{folder}/{text}" for text in sorted(tree.coordination.children(folder), key=_turn)]


def holders(tree: Tree, name: str) -> Iterator[str]:
    """Who holds the slots of a permit, as they were named when they took them."""
    for slot in sorted(_taken(tree, name)):
        node = tree.coordination.read(paths.permit(name, slot))
        if node is not None:
            yield node.data.decode(errors="replace")


def free(tree: Tree, name: str) -> int:
    """How many slots of a permit that somebody waits for are free, by the limit that the last one who began to wait gave."""
    node = tree.coordination.read(paths.permit_folder(name))
    limit = int(node.data) if node and node.data.isdigit() else 1
    return max(0, limit - len(_taken(tree, name)))


def waited_for(tree: Tree) -> Iterator[str]:
    """Names of the permits that tickets wait for."""
    yield from filter(None, map(paths.waited_for, tree.coordination.children(paths.PARKED)))


def _taken(tree: Tree, name: str) -> set[int]:
    return {int(slot) for slot in tree.coordination.children(paths.permit_folder(name)) if slot.isdigit()}


def _turn(text: str) -> tuple[int, int]:
    try:
        name = paths.Name.parse(text)
    except Invalid:
        return 0, 0
    return name.priority, name.time_ms


def _folder_version(tree: Tree, name: str) -> int:
    tree.folder(paths.permit_folder(name))
    stat = tree.coordination.exists(paths.permit_folder(name))
    return stat.version if stat else 0
