"""Settling what became of a commit whose answer was lost.

Everyone who commits meets :class:`~distci.coordination.port.Unknown` sooner or later: the connection broke after the request had
been sent. Repeating blindly would double or refuse what has happened; so each transaction leaves something behind that only it
can have left, and :func:`settle` reads after ``sync`` to find out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum
from threading import Event
from typing import Protocol, TypeVar

from distci.coordination.port import Committed, Unknown
from distci.errors import CoordinationUnavailable, Unavailable
from distci.protocol import paths
from distci.protocol.records import Running
from distci.protocol.tree import Done, Tree

T = TypeVar("T")

LOST_IN_A_ROW = 3
"""After so many answers were lost, and nothing took effect, it is no accident any more: there is a pause before each further try."""

PAUSE_S = 0.2
"""Between attempts to reach a tree that does not answer."""


class GivesUp(Protocol):
    """Says when to wait for the tree no longer: an Event that somebody sets, or a :class:`Deadline`."""

    def wait(self, timeout: float) -> bool:
        """Wait for that long at most; whether it is time."""


class Deadline:
    """Gives up so many seconds after it was made."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def wait(self, timeout: float) -> bool:
        left_s = self._end - time.monotonic()
        Event().wait(max(0.0, min(timeout, left_s)))
        return left_s <= timeout


class Truth(Enum):
    """What a commit of unknown outcome turns out to have been."""

    COMMITTED = "committed"
    NOT_COMMITTED = "not committed"
    SUPERSEDED = "superseded"
    """It can neither be found nor be repeated: others have gone on from where it started."""


def settle(tree: Tree, commit: Callable[[], Done], look: Callable[[], Truth], give_up: GivesUp) -> Done | Truth:
    """Commit until the outcome is known: the ``Done`` of a known outcome, or ``Truth.SUPERSEDED``.

    ``look`` is called after a ``sync`` whenever the answer to a commit was lost. While the tree cannot be reached this
    waits for it; once ``give_up`` says so it raises :class:`~distci.errors.CoordinationUnavailable` instead. So it does for a tree
    that can be read and takes nothing, such as one on a full disk.
    """

    def look_again() -> Truth:
        tree.coordination.sync()
        return look()

    lost = 0
    while True:
        done = commit()
        if not isinstance(done.result, Unknown):
            return done
        truth = persist(look_again, give_up)
        if truth is Truth.COMMITTED:
            return Done(Committed())
        if truth is Truth.SUPERSEDED:
            return truth
        lost += 1
        if lost >= LOST_IN_A_ROW and give_up.wait(PAUSE_S):
            raise CoordinationUnavailable(f"the tree takes nothing: {done.result.cause}")


def persist(call: Callable[[], T], give_up: GivesUp) -> T:
    """What ``call`` returns, tried again while something it needs cannot be reached, until ``give_up`` says so."""
    while True:
        try:
            return call()
        except Unavailable:
            if give_up.wait(PAUSE_S):
                raise


def of_claim(tree: Tree, running: Running) -> Truth:
    """Whether a claim is ours: its record carries the nonce that only this claim has."""
    node = tree.coordination.read(paths.running(running.ticket.token))
    if node is None:
        return Truth.NOT_COMMITTED
    mine = Running.from_bytes(node.data, paths.running(running.ticket.token)).nonce == running.nonce
    return Truth.COMMITTED if mine else Truth.SUPERSEDED


def of_end(tree: Tree, running: Running, proof: Callable[[], bool] | None) -> Truth:
    """Whether the end of a claim took effect: ``proof`` reads something that only it can have written.

    Without a proof, a claim whose record is gone counts as superseded: it may have ended by our commit or by a reclaim, and
    in either case there is nothing left to do or to write.
    """
    if tree.coordination.exists(paths.running(running.ticket.token)) is not None:
        return Truth.NOT_COMMITTED
    return Truth.COMMITTED if proof is not None and proof() else Truth.SUPERSEDED
