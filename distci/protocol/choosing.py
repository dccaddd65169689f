"""Which waiting ticket a worker tries first: pure, from names alone.

Lowest priority number first, where a ticket gains one class for every 15 minutes that it waits, so that nothing starves. Within the
class projects take part in a lottery, each with one ticket however many it has waiting. Within the project one of the
first few by age, at random: were everybody to try the very oldest, all but one would fail, and a failed claim costs
the quorum a write like a good one (100 workers on the oldest ticket: 87 transactions a ticket; at random
among the first few: 2.4).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from random import Random

from distci.protocol.paths import Name

AGEING_MS = 15 * 60 * 1000
WINDOW = 32
"""How many of a project's oldest tickets are tried at random."""


def choose(
    names: Iterable[Name], now_ms: int, random: Random, most: int, weights: Mapping[str, float] | None = None
) -> Sequence[Name]:
    """Up to ``most`` names to try, in this order. ``weights`` (by project tag, 1 by default) bias the lottery."""
    classes: dict[int, dict[str, list[Name]]] = defaultdict(lambda: defaultdict(list))
    for name in names:
        classes[urgency(name, now_ms)][name.project].append(name)
    if not classes:
        return ()
    projects = classes[min(classes)]
    tags = sorted(projects)
    [project] = random.choices(tags, [(weights or {}).get(tag, 1.0) for tag in tags])
    oldest = sorted(projects[project], key=lambda name: (name.time_ms, name.ticket))[:WINDOW]
    return random.sample(oldest, min(most, len(oldest)))


def urgency(name: Name, now_ms: int) -> int:
    """The class that a ticket is in by now: its priority number, one less for every 15 minutes that it has waited; 0 is first."""
    return max(0, name.priority - max(0, now_ms - name.time_ms) // AGEING_MS)
