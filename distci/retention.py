"""How many things of a sort are kept, and for how long: whoever adds one removes what is beyond that."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

PERIODS_S = {"h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class Retention:
    """So many of so long: what is beyond either goes, the oldest first."""

    number: int
    age_s: float

    @classmethod
    def parse(cls, text: str) -> Retention:
        """``1000/30d``: 1,000 at most, of the last 30 days. ValueError for anything else."""
        found = re.fullmatch(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,4})([hd])", text)
        if not found:
            raise ValueError(f"{text!r} does not say how many are kept and for how long; write for example 1000/30d")
        return cls(int(found[1]), int(found[2]) * PERIODS_S[found[3]])

    def is_too_old(self, written_s: float, now_s: float) -> bool:
        """Whether something that was written then is kept no longer."""
        return written_s < now_s - self.age_s

    def beyond(self, written_s: Sequence[float], count: int, now_s: float) -> int:
        """How many of the oldest of ``count`` things go, when the oldest of them were written then."""
        going = 0
        while going < len(written_s) and (count - going > self.number or self.is_too_old(written_s[going], now_s)):
            going += 1
        return going
