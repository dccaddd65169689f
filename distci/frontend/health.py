"""Whether this front end lives, and whether it should be asked anything: for supervisors and balancers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from threading import Event

import anyio
from starlette.responses import Response

from distci.app import DistCI
from distci.coordination.port import SessionState
from distci.errors import CoordinationUnavailable, DistCIError, Unavailable
from distci.frontend import problems
from distci.frontend.endpoint import JSON, Call, Endpoint, Handler, Returns
from distci.frontend.rates import FREE
from distci.frontend.threads import Threads
from distci.store import keys
from distci.views import to_bytes

ANSWER_MAX_S = 3.0
"""Tree and store each answer within this time, or are away."""

FRESH_S = 1.0
"""So long an answer is given again: nobody loads tree and store by asking how they are."""

PROBES_AT_ONCE = 16
"""Of those that hang, which a store ends after half a minute: so many do not begin meanwhile, one after the other."""


class Health:
    """How the tree and the store of a system are, as seen from here."""

    def __init__(self, system: DistCI, stopping: Event) -> None:
        self._system = system
        self._stopping = stopping
        # Of its own: that all other threads wait for a store is when it is asked most.
        self._threads = Threads(PROBES_AT_ONCE)
        self._looking = asyncio.Lock()
        self._known: tuple[float, DistCIError | None] | None = None

    async def live(self, call: Call) -> Response:
        return _said("live")

    async def ready(self, call: Call) -> Response:
        if self._stopping.is_set():
            return problems.of(Unavailable("this front end is about to end"))
        async with self._looking:
            if self._known is None or time.monotonic() - self._known[0] > FRESH_S:
                error = await self._looked()
                self._known = (time.monotonic(), error)
            error = self._known[1]
        return _said("ready") if error is None else problems.of(error)

    async def _looked(self) -> DistCIError | None:
        for probe, name in ((self._tree, "coordination tree"), (self._store, "object store")):
            try:
                with anyio.fail_after(ANSWER_MAX_S):
                    await self._threads.run(probe)
            except TimeoutError:
                return Unavailable(f"the {name} did not answer within {ANSWER_MAX_S:g} s")
            except DistCIError as error:
                return error
        return None

    def _tree(self) -> None:
        if self._system.coordination.session.state is not SessionState.CONNECTED:
            raise CoordinationUnavailable("this front end is cut off from the coordination tree")
        self._system.tickets.control()

    def _store(self) -> None:
        self._system.store.list(keys.EPOCHS, limit=1)


def _said(status: str) -> Response:
    return Response(to_bytes({"status": status}), headers={"Cache-Control": "no-store"}, media_type=JSON)


def endpoints(health: Health) -> Sequence[Endpoint]:
    return (
        _public("/livez", "get_live", "See whether this front end lives", health.live, "live"),
        _public(
            "/readyz",
            "get_ready",
            "See whether it can be asked: tree and store answer, and it is not ending",
            health.ready,
            "ready",
        ),
    )


def _public(path: str, name: str, summary: str, handle: Handler, told: str) -> Endpoint:
    returns = {200: Returns(f"It is {told}.", "health")}
    return Endpoint(
        "GET",
        path,
        name,
        summary,
        handle,
        None,
        returns,
        is_public=True,
        rate=FREE,
        needs_tree=False,
        root="",
        tag="health",
    )
