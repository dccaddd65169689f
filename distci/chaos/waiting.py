"""Waiting for what other threads and processes do."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event
from time import monotonic

TIME_MAX_S = 60.0


def wait_until(is_so: Callable[[], bool], time_max_s: float = TIME_MAX_S) -> None:
    """Look again and again until it is so; TimeoutError when it takes too long."""
    deadline = monotonic() + time_max_s
    while not is_so():
        if monotonic() >= deadline:
            raise TimeoutError(f"it was not so within {time_max_s:g} s")
        Event().wait(0.01)
