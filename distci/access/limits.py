"""How often somebody may ask: a token bucket for each, in the memory of the process that is asked."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from time import monotonic as monotonic_clock

from distci.errors import Invalid

NAMES_MAX = 10_000
"""Of how many somebodies is remembered what they have left; who asked longest ago is forgotten first, and begins with a full bucket."""
PERIODS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class Rate:
    """So many in the long run, and so many at once."""

    per_s: float
    burst: float

    @classmethod
    def parse(cls, text: str) -> Rate:
        """``600/m``: 600 at once, and then one each 0.1 s. Invalid for anything else."""
        found = re.fullmatch(r"([1-9][0-9]{0,8})/([smhd])", text)
        if not found:
            raise Invalid(f"{text!r} is no rate; write for example 20/s, 600/m or 100/h")
        return cls(int(found[1]) / PERIODS_S[found[2]], float(found[1]))


@dataclass(frozen=True, slots=True)
class Bucket:
    """How much is left, as of when."""

    level: float
    at_s: float


def take(rate: Rate, bucket: Bucket | None, now_s: float, cost: float = 1) -> tuple[Bucket, float]:
    """Take ``cost`` out of a bucket (None: a full one): what is left, and 0; or all that there was, and how many seconds to wait."""
    level = rate.burst
    if bucket is not None:
        level = min(rate.burst, bucket.level + max(0.0, now_s - bucket.at_s) * rate.per_s)
        # Should the clock have gone back, nothing is gained by its coming again.
        now_s = max(now_s, bucket.at_s)
    if level >= cost:
        return Bucket(level - cost, now_s), 0.0
    return Bucket(level, now_s), (cost - level) / rate.per_s


class Limits:
    """A bucket for each name. Any thread may use it; with several processes, each has its own."""

    def __init__(
        self, rate: Rate, monotonic: Callable[[], float] = monotonic_clock, names_max: int = NAMES_MAX
    ) -> None:
        self._rate = rate
        self._monotonic = monotonic
        self._names_max = names_max
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._lock = Lock()

    def take(self, name: str, cost: float = 1) -> float:
        """0 when that may be done now; otherwise in how many seconds. Name a principal, an address, or a project.

        Raises Invalid for a cost that never fits.
        """
        if cost > self._rate.burst:
            raise Invalid(f"{cost:g} at once are more than the {self._rate.burst:g} that are allowed")
        with self._lock:
            bucket, wait_s = take(self._rate, self._buckets.get(name), self._monotonic(), cost)
            self._buckets[name] = bucket
            self._buckets.move_to_end(name)
            if len(self._buckets) > self._names_max:
                self._buckets.popitem(last=False)
            return wait_s
