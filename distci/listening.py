"""Listening to what a command prints: how far it says that it is, and whether it says anything."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Lock, Thread
from time import monotonic
from types import TracebackType
from typing import Self

from distci.errors import Invalid
from distci.patterns import Pattern

LINES_BYTES_MAX = 16 * 1024
"""Of what was printed since the last look, so much is searched, from its end: who prints much more tells how far it is again soon."""
LOOK_S = 1.0
"""How often what is printed is searched, at most."""
DIAGNOSES_MAX = 20
"""Of one command: silences after so many are nothing new."""
THREAD_WAIT_MAX_S = 86_400.0


def pattern_of(text: str) -> Pattern:
    """An expression with one group, which finds percents, or two: how many are done, of how many. Invalid for one that finds no number."""
    try:
        pattern = Pattern(text)
    except Invalid as error:
        raise Invalid(f"progress: {text!r} {error}") from None
    if pattern.groups not in (1, 2):
        raise Invalid(f"progress: {text!r} needs one group, for percents, or two, for how many of how many")
    return pattern


class Progress:
    """Percents, as the last line that tells any does. One thread uses it at a time."""

    def __init__(self, pattern: str, told: Callable[[int], None]) -> None:
        """``told`` hears of each change. Invalid as :func:`pattern_of` says."""
        self._pattern = pattern_of(pattern)
        self._told = told
        self._held = b""
        self._due = 0.0
        self._percent = -1

    def hear(self, data: bytes) -> None:
        self._held = (self._held + data)[-LINES_BYTES_MAX:]
        if monotonic() >= self._due:
            self.look()

    def look(self) -> None:
        """Search what has not been searched yet. What has come of the last line is searched again once there is more."""
        self._due = monotonic() + LOOK_S
        numbers = self._pattern.last(self._held.decode("latin-1"))
        self._held = self._held[max(self._held.rfind(b"\n"), self._held.rfind(b"\r")) + 1 :]
        percent = _percent(numbers)
        if percent is not None and percent != self._percent:
            self._percent = percent
            self._told(percent)


class Ear:
    """Calls somebody once in each silence. A context manager around one command."""

    def __init__(self, silence_s: float, call: Callable[[float], None]) -> None:
        """``call`` is told for how many seconds nothing was heard, and called in a thread of its own."""
        self._silence_s = silence_s
        self._call = call
        self._heard = monotonic()
        self._lock = Lock()
        self._over = Event()
        self._listener = Thread(target=self._listen, name="ear", daemon=True)

    def hear(self) -> None:
        with self._lock:
            self._heard = monotonic()

    def __enter__(self) -> Self:
        self._listener.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._listener.join()

    def _listen(self) -> None:
        called_of, calls = 0.0, 0
        while calls < DIAGNOSES_MAX:
            with self._lock:
                heard = self._heard
            left_s = heard + self._silence_s - monotonic()
            if heard == called_of:
                left_s = self._silence_s
            elif left_s <= 0:
                called_of, calls = heard, calls + 1
                self._call(self._silence_s)
                continue
            if self._over.wait(min(left_s, THREAD_WAIT_MAX_S)):
                return


def _percent(groups: tuple[str | None, ...]) -> int | None:
    try:
        numbers = [float(group or "") for group in groups]
    except ValueError:
        return None
    if len(numbers) == 2:
        numbers = [100 * numbers[0] / numbers[1]] if numbers[1] > 0 else []
    # What is no number at all is unlike itself.
    return int(max(0.0, min(100.0, numbers[0]))) if numbers and numbers[0] == numbers[0] else None
