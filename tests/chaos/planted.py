"""The program ``distci`` with a bug in it, for tests of the checker: ``planted.py BUG ARGUMENT...``.

It has the bug while things go wrong, and none in the calm performance that comes before, which the other one is compared with.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from distci import console
from distci.chaos.run import HIT
from distci.cli import main
from distci.coordination.port import Check, Create, Delete, Operation
from distci.protocol import paths, transactions
from distci.protocol.claims import Claim
from distci.protocol.records import Running, Ticket


def no_fence() -> None:
    """Claims end without the removal of their record, which nobody else could have done, too."""
    end = transactions.end

    def planted(running: Running, has_owner: bool = True, version: int = -1) -> list[Operation]:
        operations = end(running, has_owner, version)
        # Sweepers are innocent.
        return [Check(paths.CONTROL), *operations[1:]] if has_owner else operations

    transactions.end = planted


def no_offsets() -> None:
    """Every chunk of a log is the first one."""
    upload = console.LogWriter._upload

    def planted(self: Any, chunk: bytes) -> None:
        put = self._put
        self._put = lambda offset, data: put(0, data)
        upload(self, chunk)
        self._put = put

    console.LogWriter._upload = planted  # type: ignore[method-assign]


def two_transactions() -> None:
    """A claim is ended first, and what follows from that is committed a moment later."""

    def planted(self: Any, *operations: Operation, follow: Sequence[Ticket] = (), **more: Any) -> None:
        self._end()
        self._member.tickets.commit(*operations, post=follow)

    Claim.finish = planted  # type: ignore[method-assign]


def no_heartbeat() -> None:
    """Claims are made without the node that dies with their worker."""
    start = transactions.start

    def planted(running: Running) -> list[Operation]:
        return [step for step in start(running) if not (isinstance(step, Create) and step.ephemeral)]

    transactions.start = planted


def leaking_permit() -> None:
    """Claims end and keep the permits that they held."""
    end = transactions.end

    def planted(running: Running, has_owner: bool = True, version: int = -1) -> list[Operation]:
        slots = {paths.permit(name, slot) for name, slot in running.slots}
        return [
            step for step in end(running, has_owner, version) if not (isinstance(step, Delete) and step.path in slots)
        ]

    transactions.end = planted


BUGS: dict[str, Callable[[], None]] = {
    bug.__name__: bug for bug in (no_fence, no_offsets, two_transactions, no_heartbeat, leaking_permit)
}

if __name__ == "__main__":
    bug = BUGS[sys.argv.pop(1)]
    if f"/{HIT}/" in os.environ["DISTCI_HISTORY"]:
        bug()
    main()
