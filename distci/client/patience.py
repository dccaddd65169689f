"""When to ask again, and for how long."""

from __future__ import annotations

import random as random_module
import time
from collections.abc import Callable

PAUSE_MIN_S, PAUSE_MAX_S = 0.2, 10.0


class Patience:
    """Exponential back-off with full jitter, so that many who were cut off at once do not come back at once; for one call.

    See "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    def __init__(
        self,
        patience_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], bool | None] = time.sleep,
        random: Callable[[float, float], float] = random_module.uniform,
    ) -> None:
        """``sleep`` may say, by True, that nobody waits any more, as :meth:`threading.Event.wait` does."""
        self._began = clock()
        self._until = self._began + patience_s
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self._most_s = PAUSE_MIN_S

    @property
    def left_s(self) -> float:
        return max(0.0, self._until - self._clock())

    @property
    def spent_s(self) -> float:
        return self._clock() - self._began

    def again(self, at_least_s: float = 0.0) -> bool:
        """Wait, for ``at_least_s`` where somebody has asked for that, and say True; False when there is no time left for it, or nobody waits."""
        pause_s = at_least_s + self._random(0.0, self._most_s)
        if pause_s > self.left_s:
            return False
        if self._sleep(pause_s):
            return False
        self._most_s = min(2 * self._most_s, PAUSE_MAX_S)
        return True
