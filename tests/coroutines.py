"""Running coroutines from tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio


def run_coroutine(function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """Run a coroutine function to its end in a thread of its own: that of the tests belongs to the browser's event loop once a test had a page."""
    with ThreadPoolExecutor(1) as own:
        return own.submit(anyio.run, function, *args).result()
