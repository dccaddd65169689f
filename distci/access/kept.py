"""Something that is read from the tree, again once it is a second old, and never waited for longer than that."""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf
from threading import Event, Lock, Thread
from time import monotonic as monotonic_clock
from typing import Generic, TypeVar

from distci.errors import CoordinationUnavailable, DistCIError, InvalidDocument, Unavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

FRESH_S = 1.0
"""How long what was read counts."""
WAIT_S = 1.0
"""How long an answer is waited for while there is an older one."""
PATIENCE_S = 5.0
"""How long it is waited for while there is none."""
GRACE_S = 30.0
"""How old what was read may be while the tree does not answer: longer than it takes to choose another leader."""
AGAIN_S = 0.25
"""Between two reads that are asked for before their time."""


class Kept(Generic[T]):
    """What ``read`` gave last. Any thread may use it."""

    def __init__(self, read: Callable[[], T], monotonic: Callable[[], float] = monotonic_clock) -> None:
        self._read = read
        self._monotonic = monotonic
        self._lock = Lock()
        self._value: T | None = None
        self._begun = -inf
        """When the read that gave the value began."""
        self._reading: _Reading | None = None

    def current(self) -> T:
        """What is so, as of a second ago, or of half a minute while the tree is away; then CoordinationUnavailable."""
        return self._since(self._monotonic() - FRESH_S)

    def again(self) -> T:
        """What is so from now on; for somebody who has met what was not there yet."""
        asked = self._monotonic()
        Event().wait(max(0.0, min(AGAIN_S, self._begun + AGAIN_S - asked)))
        return self._since(asked)

    def _since(self, wanted: float) -> T:
        asked = self._monotonic()
        while True:
            with self._lock:
                if self._begun >= wanted and self._value is not None:
                    return self._value
                if self._reading is None or self._reading.done.is_set():
                    self._reading = _Reading(self._monotonic())
                    Thread(target=self._look, args=(self._reading,), name="access tree", daemon=True).start()
                reading, has_older = self._reading, self._value is not None
            left_s = asked + (WAIT_S if has_older else PATIENCE_S) - self._monotonic()
            if reading.done.wait(max(0.0, left_s)) and reading.error is None:
                continue
            if reading.error is not None and not isinstance(reading.error, Unavailable):
                raise reading.error
            with self._lock:
                if self._value is not None and self._begun >= self._monotonic() - GRACE_S:
                    return self._value
            raise CoordinationUnavailable("the coordination tree does not answer; try again") from reading.error

    def _look(self, reading: _Reading) -> None:
        try:
            value = self._read()
            with self._lock:
                self._value, self._begun = value, reading.begun
        except DistCIError as error:
            reading.error = error
        except Exception as error:  # whoever asks must hear of it, in whatever thread it was met
            log.exception("what the tree says of access cannot be read")
            reading.error = InvalidDocument(f"access: {error!r}")
        finally:
            reading.done.set()


class _Reading:
    def __init__(self, begun: float) -> None:
        self.begun = begun
        self.done = Event()
        self.error: DistCIError | None = None
