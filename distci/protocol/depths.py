"""How deep the queue was, minute by minute: for whoever asks afterwards how long which work waited.

One control worker looks once a minute, and writes only while something waits, and once when it no longer does: a minute without a sample
after an empty one, or at the very beginning, is one in which nothing waited, as far as a control worker was there to see it. The samples of an hour are one
node, changed against its version, and a minute has one sample: whoever is second, or asks again after a lost answer, writes nothing.
Nodes of hours gone by are deleted along with the first sample of a new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from distci.coordination.port import Create, Delete, Node, Write
from distci.errors import InvalidDocument
from distci.protocol import paths
from distci.protocol.records import FORMAT, from_bytes, to_bytes
from distci.protocol.tickets import Queued, Tickets
from distci.protocol.tree import Tree

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
HOURS_KEPT = 12
KINDS_MAX = 20
"""Of so many kinds, those with the most tickets, a sample tells: an hour of them is some 70 KB at most."""


@dataclass(frozen=True, slots=True)
class Depth:
    """How many tickets of a kind waited to be claimed at one moment."""

    waiting: int
    oldest_s: int
    """For how long the one that had waited longest had waited."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What waited at one moment."""

    at_ms: int
    kinds: Mapping[str, Depth]
    """By kind; empty when nothing waited any more."""


def depth(queue: Iterable[Queued], now_ms: int) -> Mapping[str, Depth]:
    """What waits now, by kind. Pure."""
    posted: dict[str, list[int]] = {}
    for queued in queue:
        posted.setdefault(queued.kind, []).append(queued.name.time_ms)
    most = sorted(posted, key=lambda kind: -len(posted[kind]))[:KINDS_MAX]
    return {kind: Depth(len(posted[kind]), max(0, now_ms - min(posted[kind])) // 1000) for kind in sorted(most)}


def note(tickets: Tickets) -> bool:
    """Sample the queue as it stands, unless nothing waits and that is on record; whether a sample was written."""
    now_ms = int(tickets.clock() * 1000)
    found = depth(tickets.queue(), now_ms)
    if not found:
        last = read(tickets.tree, now_ms, hours=1)
        if not (last and last[-1].kinds):
            return False
    return record(tickets.tree, Sample(now_ms, found))


def record(tree: Tree, sample: Sample) -> bool:
    """Write a sample; False where its minute has one, or somebody else writes at the same time."""
    hour = sample.at_ms // HOUR_MS
    path = paths.depths(hour)
    node = tree.coordination.read(path)
    samples = [] if node is None else _samples(node, path)
    if any(known.at_ms // MINUTE_MS == sample.at_ms // MINUTE_MS for known in samples):
        return False
    data = to_bytes({"f": FORMAT, "samples": [_stored(each) for each in (*samples, sample)]})
    # Of a clock that was wrong there may be hours to come.
    out_of_date = [other for other in _hours(tree) if not hour - HOURS_KEPT < other <= hour + 1] if node is None else []
    return tree.commit(
        Create(path, data) if node is None else Write(path, data, node.version),
        hints=[Delete(paths.depths(other)) for other in out_of_date],
    ).committed


def read(tree: Tree, now_ms: int, hours: int = HOURS_KEPT) -> Sequence[Sample]:
    """The samples of the last hours, the oldest first."""
    since_ms = now_ms - hours * HOUR_MS
    found: list[Sample] = []
    for hour in _hours(tree):
        if since_ms // HOUR_MS <= hour <= now_ms // HOUR_MS:
            path = paths.depths(hour)
            node = tree.coordination.read(path)
            found += [] if node is None else _samples(node, path)
    return sorted((sample for sample in found if since_ms < sample.at_ms <= now_ms), key=lambda sample: sample.at_ms)


def _hours(tree: Tree) -> Sequence[int]:
    return sorted(int(name) for name in tree.coordination.children(paths.DEPTHS) if name.isdigit())


def _stored(sample: Sample) -> Sequence[object]:
    return [sample.at_ms, {kind: [depth.waiting, depth.oldest_s] for kind, depth in sample.kinds.items()}]


def _samples(node: Node, path: str) -> Sequence[Sample]:
    """What a node holds; nothing of one that cannot be read, since no work depends on it."""
    try:
        return [
            Sample(
                int(at_ms), {kind: Depth(int(waiting), int(oldest_s)) for kind, (waiting, oldest_s) in kinds.items()}
            )
            for at_ms, kinds in from_bytes(node.data, path)["samples"]
        ]
    except (InvalidDocument, KeyError, TypeError, ValueError, AttributeError):
        return []
