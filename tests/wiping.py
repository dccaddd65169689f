"""The loss of all that a coordination tree holds, at once and under those who work with it."""

from __future__ import annotations

from collections.abc import Sequence

from waiting import wait_until

from distci.coordination.port import Committed, Coordination, Delete, leaves_first
from distci.protocol import paths


def wipe(coordination: Coordination, but: Sequence[str] = ()) -> None:
    """Delete every node in one transaction, but those below some folders of the root; the sessions live on."""

    def is_gone() -> bool:
        coordination.sync()
        tops = [
            top for top in (*paths.FOLDERS, paths.ACCESS, paths.DEPTHS, paths.CONTROL, paths.FORMAT) if top not in but
        ]
        every = [path for top in tops if coordination.exists(top) for path in leaves_first(coordination, top)]
        return isinstance(coordination.commit(*map(Delete, every)), Committed)

    wait_until(is_gone)
