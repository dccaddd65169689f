"""What followers are, and what they are told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from distci.views import to_bytes

if TYPE_CHECKING:
    from distci.following.logs import Piece


@dataclass(frozen=True, slots=True)
class Told:
    """Something that a follower is told."""

    name: str
    """What it is: ``build``, ``change``, ``attempt``, ``log`` ..."""
    position: str
    """Where the follower is once it has been told: what to go on from. Empty where it is where it was."""
    document: bytes
    """The thing itself, as JSON."""
    piece: Piece | None = None
    """The bytes, where it is more of a log."""
    job: str | None = None
    """Whose readers alone are to be told, empty for those of the whole system; None where all who follow are."""


class Follower(Protocol):
    """One who follows something. Not for several threads at once.

    :meth:`take` never waits. When it gives nothing, :meth:`fetch` may find more if it ``must_fetch``; else there is nothing until ``wake`` is
    called, which whoever made the follower gave it.
    """

    is_over: bool
    """Whether all has been told that there will be."""

    @property
    def is_ready(self) -> bool:
        """Whether it is known what is followed, or that there is no such thing, which :meth:`check` tells."""

    @property
    def must_fetch(self) -> bool: ...

    @property
    def trouble(self) -> str:
        """What it waits for, when that is no build and no log but what they are kept in; usually empty."""

    @property
    def end(self) -> bytes:
        """What to say of how it ended, as JSON."""

    def check(self) -> None:
        """Raise why there is nothing to follow; for who is ready."""

    def take(self) -> Iterator[Told]: ...

    def fetch(self) -> None: ...

    def close(self) -> None:
        """Hold nothing any more."""


def ended(state: str) -> bytes:
    """What is said of an end."""
    return to_bytes({"state": state})
