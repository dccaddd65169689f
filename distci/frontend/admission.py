"""Whether those who have a stream open may have it still, and what of it they may see.

They are asked about every few seconds, all at once. So what was revoked ends within seconds; and what a stream tells is decided with what is
known already: thousands of streams that are told of hundreds of jobs ask neither store nor tree, and wait for no thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic

from distci.access import Action, Allowed, Grants, decide
from distci.errors import DistCIError, Unavailable
from distci.frontend.endpoint import Call

CONFIRM_S = 2.0
"""How often they are asked about. What was revoked is known everywhere within a second."""

UNCONFIRMED_S = 30.0
"""How long they may stay while nobody can be asked; after that they have to come again."""


class Admitted:
    """Somebody who was let in, and has stayed."""

    def __init__(self, call: Call, grants: Grants, tell: Callable[[], None]) -> None:
        """``tell`` is called, in whatever thread, when they may stay no longer."""
        self._call = call
        self._grants = grants
        self._tell = tell
        self._confirmed_s = monotonic()
        self.is_over = False
        """Whether they have become somebody else, or may read it no more: they have to ask anew."""

    def may_read(self, job: str) -> bool:
        """Whether they may read a job, or the system as a whole where it is empty. Does not wait."""
        return isinstance(decide(self._call.principal, self._grants, Action.READ, job), Allowed)

    def confirm(self) -> None:
        """Ask anew. May wait."""
        if not self._may_stay():
            self.is_over = True
            self._tell()

    def _may_stay(self) -> bool:
        try:
            principal = self._call.access.principal(self._call.request)
            self._grants = self._call.access.grants()
        except Unavailable:
            return monotonic() - self._confirmed_s < UNCONFIRMED_S
        except DistCIError:
            return False
        self._confirmed_s = monotonic()
        job = self._call.path.get("job")
        return principal == self._call.principal and (job is None or self.may_read(job))


def confirm(admitted: Iterable[Admitted]) -> None:
    """Ask about all of these. May wait."""
    for one in admitted:
        one.confirm()
