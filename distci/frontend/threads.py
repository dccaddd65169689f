"""The threads that wait for the tree and the store, so that the event loop does not.

There are so many and no more, and the wait for one is bounded: while a store hangs, whoever needs it is told soon to come again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import anyio
from anyio import to_thread

from distci.errors import Unavailable

Value = TypeVar("Value")

THREADS = 64
WAIT_MAX_S = 5.0
"""How long a request waits for a thread before it is told to come again."""


class Threads:
    """Runs functions that may wait. Belongs to the event loop that it is first used in."""

    def __init__(self, count: int = THREADS) -> None:
        self._count = count
        self._limiter: anyio.CapacityLimiter | None = None

    async def run(
        self,
        function: Callable[..., Value],
        *arguments: object,
        wait_max_s: float = WAIT_MAX_S,
        is_left_alone: bool = True,
    ) -> Value:
        """What the function gives; Unavailable when all threads are busy for too long.

        Cancelled, which happens when the server ends or a client is gone, it leaves the function to its own end, or waits for that. Till
        then the thread is one of the so many.
        """
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(self._count)
        limiter, borrower = self._limiter, object()
        try:
            with anyio.fail_after(wait_max_s):
                await limiter.acquire_on_behalf_of(borrower)
        except TimeoutError:
            raise Unavailable("all threads of this front end wait for the tree or the store; try again") from None
        call = partial(to_thread.run_sync, function, *arguments, limiter=anyio.CapacityLimiter(1))
        if not is_left_alone:
            try:
                return await call()
            finally:
                limiter.release_on_behalf_of(borrower)
        # A task of its own, which goes on when nobody waits for it any more.
        running = asyncio.ensure_future(call(abandon_on_cancel=True))
        running.add_done_callback(lambda _: limiter.release_on_behalf_of(borrower))
        return await asyncio.shield(running)
