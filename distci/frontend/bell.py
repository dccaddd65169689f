"""What wakes coroutines from threads: those who wait for a claim, and those who follow something."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from threading import Event

import anyio


class Bell:
    """Sets events of one loop, from any thread: a crowd of them by one call into the loop, since each call costs a write to a pipe."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._rung: deque[asyncio.Event] = deque()
        self._is_called = False

    def ring(self, event: asyncio.Event) -> None:
        # In this order: whoever finds that the loop has been called was here before it looks.
        self._rung.append(event)
        if not self._is_called:
            self._is_called = True
            # The loop may have been closed, and then there is nobody to be woken.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._set_all)

    def _set_all(self) -> None:
        self._is_called = False
        while self._rung:
            self._rung.popleft().set()


class Wake(Event):
    """An event that threads set, and may clear and wait for as for any other, and that one coroutine waits for besides."""

    def __init__(self, bell: Bell) -> None:
        super().__init__()
        self._bell = bell
        self._heard = asyncio.Event()

    def set(self) -> None:
        super().set()
        if not self._heard.is_set():
            self._bell.ring(self._heard)

    def begin(self) -> None:
        """From now on it is waited for. Look after this, never before it, whether there is anything."""
        self._heard.clear()

    async def until_set(self, time_max_s: float) -> bool:
        """Wait until it is set, from :meth:`begin` on; False when the time ran out first."""
        with anyio.move_on_after(time_max_s):
            await self._heard.wait()
        return self._heard.is_set()
