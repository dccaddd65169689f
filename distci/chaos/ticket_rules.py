"""What must be true of every ticket, whatever it is for: I1, I2, I4 and I7."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from distci.chaos.findings import Violation
from distci.chaos.history import Commit
from distci.coordination.port import Create
from distci.errors import DistCIError
from distci.protocol import paths
from distci.protocol.records import Running

RAISES = {(paths.RUNNING, paths.QUEUE), (paths.RUNNING, paths.PARKED)}
"""Moves with which the attempt rises by one; with all others it stays."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a ticket stands, and as which attempt."""

    folder: str
    token: str
    path: str

    @property
    def attempt(self) -> int:
        return paths.attempt_of(self.token)


@dataclass(frozen=True, slots=True)
class Move:
    """What a transaction did with one ticket: None for whence is a post, None for whither its end."""

    commit: Commit
    ticket: str
    whence: Place | None
    whither: Place | None


def place_of(path: str) -> Place | None:
    """The place that a node is; None for a node that is no ticket."""
    try:
        _, folder, *rest = path.split("/")
        match f"/{folder}", rest:
            case (paths.RUNNING, [_, token]) | (paths.DEAD, [token]):
                return Place(f"/{folder}", token, path)
            case (paths.QUEUE, [_, _, text]):
                name = paths.Name.parse(text)
            case (paths.PARKED, [paths.DUE, text]):
                name = paths.Name.parse(text.partition("-")[2])
            case (paths.PARKED, [_, text]):
                name = paths.Name.parse(text)
            case _:
                return None
    except DistCIError:
        return None
    return Place(f"/{folder}", paths.token(name.ticket, name.attempt), path)


def moves(commit: Commit) -> Iterator[Move]:
    """What a transaction does with each ticket that it touches; with one it removes or makes in two places, several moves."""
    removed: defaultdict[str, list[Place]] = defaultdict(list)
    made: defaultdict[str, list[Place]] = defaultdict(list)
    for path, change in commit.lasting.items():
        place = place_of(path)
        if place is not None:
            (made if change > 0 else removed)[paths.ticket_of(place.token)].append(place)
    for ticket in {*removed, *made}:
        for index in range(max(len(removed[ticket]), len(made[ticket]))):
            whence = removed[ticket][index] if index < len(removed[ticket]) else None
            whither = made[ticket][index] if index < len(made[ticket]) else None
            yield Move(commit, ticket, whence, whither)


def claims(commits: Sequence[Commit]) -> Mapping[str, tuple[Commit, Running]]:
    """The transaction that began each claim, and its record, by token."""
    found = {}
    for commit in commits:
        for step in commit.operations:
            if isinstance(step, Create) and (place := place_of(step.path)) and place.folder == paths.RUNNING:
                found[place.token] = (commit, Running.from_bytes(step.data, step.path))
    return found


def check_tickets(commits: Sequence[Commit], limits: Mapping[str, int]) -> Iterator[Violation]:
    """``commits`` are those that took effect; ``limits`` of permits by their names."""
    held = claims(commits)
    by_ticket = defaultdict(list)
    for commit in commits:
        yield from _check_limits(commit, limits)
        for move in moves(commit):
            by_ticket[move.ticket].append(move)
            yield from _check_move(move, held)
    for ticket, its_moves in by_ticket.items():
        yield from _check_life(ticket, its_moves)


def _check_life(ticket: str, its_moves: Sequence[Move]) -> Iterator[Violation]:
    posts = [move for move in its_moves if move.whence is None]
    ends = [move for move in its_moves if move.whither is None]
    story = [move.commit for move in its_moves]
    if len(posts) > 1:
        yield Violation("I1", f"ticket {ticket} was posted {len(posts)} times; once is right", story)
    if len(ends) > 1:
        yield Violation("I4", f"ticket {ticket} was ended {len(ends)} times; once is right", story)


def _check_move(move: Move, held: Mapping[str, tuple[Commit, Running]]) -> Iterator[Violation]:
    whence, whither, commit = move.whence, move.whither, move.commit
    if whence and whither:
        rises = (whence.folder, whither.folder) in RAISES
        if whither.attempt != whence.attempt + rises:
            what = f"{whence.token} went on as {whither.token}; attempt {whence.attempt + rises} is right"
            yield Violation("I1", what, [commit])
    if whence and whence.folder != paths.RUNNING and not whither:
        yield Violation("I1", f"{whence.token} was taken out of {whence.folder} and put nowhere", [commit])
    if whither and whither.folder == paths.RUNNING:
        yield from _check_begin(commit, whither.token, held[whither.token][1])
    if whence and whence.folder == paths.RUNNING and whence.token in held:
        yield from _check_end(commit, whence.token, *held[whence.token])


def _check_limits(commit: Commit, limits: Mapping[str, int]) -> Iterator[Violation]:
    """Of a permit there are as many slots as may be held, numbered from 0, and each is a node that one at a time can make."""
    for name, limit in limits.items():
        folder, _, _ = paths.permit(name, 0).rpartition("/")
        for step in commit.operations:
            slot = step.path.removeprefix(f"{folder}/")
            if isinstance(step, Create) and slot.isdigit() and int(slot) >= limit:
                yield Violation(
                    "I7", f"slot {slot} of permit {name!r} was taken; {limit} may be held at once", [commit]
                )


def _check_begin(commit: Commit, token: str, running: Running) -> Iterator[Violation]:
    owner = commit.creates(paths.owner(token))
    if owner is None or not owner.ephemeral:
        what = f"{token} was claimed without a heartbeat; the claim must make {paths.owner(token)} as a node that ends with the session"
        yield Violation("I2", what, [commit])
    slots = dict(running.slots)
    for permit in running.ticket.permits:
        slot = slots.get(permit.name)
        if slot is None or not commit.creates(paths.permit(permit.name, slot)):
            what = f"{token} was claimed without permit {permit.name!r}, which it needs"
            yield Violation("I7", what, [commit])


def _check_end(commit: Commit, token: str, begun: Commit, running: Running) -> Iterator[Violation]:
    if not commit.deletes(paths.owner(token)):
        what = f"the claim of {token} was ended, its heartbeat was not; both must go in one transaction"
        yield Violation("I2", what, [begun, commit])
    for name, slot in running.slots:
        if not commit.deletes(paths.permit(name, slot)):
            what = (
                f"the claim of {token} was ended and kept permit {name!r}; {paths.permit(name, slot)} must go with it"
            )
            yield Violation("I7", what, [begun, commit])
