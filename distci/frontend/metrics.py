"""Figures for Prometheus: what waits and runs, how builds end, how long tree, store and requests take.

What stands in the tree is looked at when somebody asks, and the same from every front end: take one of them, or the greatest. The others
are what this process has seen since it began: add them up.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Event, Lock
from typing import TYPE_CHECKING, BinaryIO

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from distci.access import Action
from distci.coordination.passing import PassingCoordination
from distci.coordination.port import CommitResult, Coordination, Node, Operation, Stat, Unknown
from distci.errors import Missing, Unavailable
from distci.frontend.endpoint import Call, Endpoint, Returns
from distci.frontend.hiding import lines
from distci.frontend.threads import Threads
from distci.model import BuildId
from distci.protocol import waits
from distci.protocol.tickets import Tickets
from distci.store.passing import PassingStore
from distci.store.port import ObjectInfo, Store

if TYPE_CHECKING:
    from prometheus_client import Metric

    from distci.app import DistCI

CALL_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
JOBS_FOLLOWED_MAX = 500
BUILD_S = (1, 5, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400)


class Metrics:
    """The figures of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._coordination_s = self._histogram(
            "distci_coordination_seconds", "How long calls of the coordination tree took.", "call", "outcome"
        )
        self._store_s = self._histogram("distci_store_seconds", "How long calls of the store took.", "call", "outcome")
        self._request_s = self._histogram(
            "distci_request_seconds", "How long requests took until their answer began.", "endpoint", "status"
        )
        self.builds_s = Histogram(
            "distci_build_seconds",
            "How long builds took from their trigger to their result, of those seen to end.",
            ("result",),
            registry=self.registry,
            buckets=BUILD_S,
        )

    def around(self, coordination: Coordination, store: Store) -> tuple[Coordination, Store]:
        """The same, with each call timed."""
        return TimedCoordination(coordination, self._coordination_s), TimedStore(store, self._store_s)

    def requested(self, endpoint: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._request_s.labels(endpoint, str(status)).observe(seconds)

    def _histogram(self, name: str, told: str, *labels: str) -> Histogram:
        return Histogram(name, told, labels, registry=self.registry, buckets=CALL_S)


@contextmanager
def _timed(histogram: Histogram, call: str) -> Iterator[list[str]]:
    began = time.perf_counter()
    outcome = ["ok"]
    try:
        yield outcome
    except Unavailable:
        outcome[0] = "unavailable"
        raise
    except Exception:
        outcome[0] = "refused"
        raise
    finally:
        histogram.labels(call, outcome[0]).observe(time.perf_counter() - began)


class TimedCoordination(PassingCoordination):
    """A coordination tree whose calls are timed."""

    def __init__(self, coordination: Coordination, histogram: Histogram) -> None:
        super().__init__(coordination)
        self._histogram = histogram

    def read(self, path: str) -> Node | None:
        with _timed(self._histogram, "read"):
            return super().read(path)

    def children(self, path: str) -> Sequence[str]:
        with _timed(self._histogram, "children"):
            return super().children(path)

    def exists(self, path: str) -> Stat | None:
        with _timed(self._histogram, "exists"):
            return super().exists(path)

    def commit(self, *operations: Operation) -> CommitResult:
        with _timed(self._histogram, "commit") as outcome:
            result = super().commit(*operations)
            if isinstance(result, Unknown):
                outcome[0] = "unknown"
            return result

    def watch(self, path: str, changed: Event) -> Stat | None:
        with _timed(self._histogram, "watch"):
            return super().watch(path, changed)

    def sync(self) -> None:
        with _timed(self._histogram, "sync"):
            super().sync()


class TimedStore(PassingStore):
    """A store whose calls are timed; of a stream, its opening is."""

    def __init__(self, store: Store, histogram: Histogram) -> None:
        super().__init__(store)
        self._histogram = histogram

    def put(self, key: str, data: bytes | BinaryIO) -> None:
        with _timed(self._histogram, "put"):
            super().put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        with _timed(self._histogram, "put_if_absent"):
            return super().put_if_absent(key, data)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        with _timed(self._histogram, "get"):
            return super().get(key, start, length)

    def open(self, key: str, start: int = 0) -> BinaryIO:
        with _timed(self._histogram, "open"):
            return super().open(key, start)

    def head(self, key: str) -> ObjectInfo | None:
        with _timed(self._histogram, "head"):
            return super().head(key)

    def list(self, prefix: str, after: str = "", limit: int = 1000) -> Sequence[ObjectInfo]:
        with _timed(self._histogram, "list"):
            return super().list(prefix, after, limit)

    def delete(self, key: str) -> None:
        with _timed(self._histogram, "delete"):
            super().delete(key)


class Standing:
    """What stands in the tree, as figures: a collector."""

    def __init__(self, tickets: Tickets, may_read: Callable[[str], bool]) -> None:
        self._tickets = tickets
        self._may_read = may_read

    def collect(self) -> Iterator[Metric]:
        """Unavailable when the tree is."""
        situation = waits.read(self._tickets)
        # That none waits or runs is told as 0, apart from that nobody knows: else what scales workers by it would end them in an outage.
        waiting = Counter(dict.fromkeys(waits.kinds(situation) | {*situation.running_kinds}, 0))
        running = Counter(waiting)
        running.update(situation.running_kinds)
        oldest_ms: dict[str, int] = {}
        for queued in situation.queue:
            waiting[queued.kind] += 1
            oldest_ms[queued.kind] = min(queued.name.time_ms, oldest_ms.get(queued.kind, situation.now_ms))
        ages_s = {kind: (situation.now_ms - posted_ms) / 1000 for kind, posted_ms in oldest_ms.items()}
        serving = Counter(kind for worker in situation.workers for kind in worker.offer.kinds)
        parked = lines({name: len(line.waiting) for name, line in situation.lines.items()}, self._may_read)
        yield _gauge("distci_tickets_waiting", "Tickets that wait to be claimed.", "kind", waiting)
        yield _gauge("distci_tickets_oldest_seconds", "How long the oldest of them has waited.", "kind", ages_s)
        yield _gauge("distci_tickets_running", "Tickets that are claimed.", "kind", running)
        yield _gauge("distci_tickets_parked", "Tickets in line for a permit.", "permit", parked)
        yield _gauge("distci_workers", "Live workers that serve a kind.", "kind", serving)
        lost = sum(waits.without_heartbeat(token, situation) for token in situation.running)
        for name, told, value in (
            ("distci_tickets_without_heartbeat", "Claimed tickets whose worker is gone.", lost),
            ("distci_tickets_set_aside", "Tickets that were set aside.", len(self._tickets.dead_tokens())),
            ("distci_slots", "How much all live workers can do at once.", sum(w.slots for w in situation.workers)),
        ):
            yield GaugeMetricFamily(name, told, value)


class Endings:
    """The builds that end while somebody looks now and then: how they ended, and after how long.

    Seen are those that were live at a look, and all later ones of their jobs: what they cost is a listing of the live builds, and a
    read for each job that had one lately.
    """

    def __init__(self, system: DistCI, seconds: Histogram) -> None:
        self._system = system
        self._seconds = seconds
        self._lock = Lock()
        self._last: OrderedDict[str, int] = OrderedDict()
        """The newest build known of each job that had a live one lately."""
        self._open: set[BuildId] = set()

    def look(self) -> None:
        """Count the builds that have ended since the last look."""
        with self._lock:
            live = set(self._system.lifecycle.live_builds())
            for build in live:
                self._last.setdefault(build.job, build.number)
                self._last.move_to_end(build.job)
            self._open |= live
            for job, last in self._last.items():
                newest = self._system.builds.last_number(job)
                self._open |= {BuildId(job, number) for number in range(last + 1, newest + 1)}
                self._last[job] = max(last, newest)
            while len(self._last) > JOBS_FOLLOWED_MAX:
                self._last.popitem(last=False)
            for build in self._open - live:
                self._count(build)

    def _count(self, build: BuildId) -> None:
        try:
            view = self._system.builds.get(build)
        except Missing:
            self._open.discard(build)
            return
        if view.is_archived:
            self._open.discard(build)
            self._seconds.labels(view.state).observe((view.finished_ms - view.created_ms) / 1000)


class Exposition:
    """The endpoint."""

    def __init__(self, system: DistCI, metrics: Metrics, threads: Threads) -> None:
        self._metrics = metrics
        self._threads = threads
        self._endings = Endings(system, metrics.builds_s)
        self._tickets = system.tickets

    async def get(self, call: Call) -> Response:
        text = await self._threads.run(self._text, call.may_read)
        return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST, "Cache-Control": "no-store"})

    def _text(self, may_read: Callable[[str], bool]) -> bytes:
        """What this process has seen is told also while the tree is away; that it is, is to be seen there."""
        try:
            self._endings.look()
            registry = CollectorRegistry()
            registry.register(Standing(self._tickets, may_read))
            standing, up = generate_latest(registry), 1
        except Unavailable:
            standing, up = b"", 0
        told = b"# HELP distci_up Whether tree and store answer.\n# TYPE distci_up gauge\ndistci_up %d\n" % up
        return told + standing + generate_latest(self._metrics.registry)


def endpoints(exposition: Exposition) -> Sequence[Endpoint]:
    returns = {200: Returns("Figures in Prometheus's text format.", media_type="text/plain")}
    return (
        Endpoint(
            "GET",
            "/metrics",
            "get_metrics",
            "Read figures about the system and this front end",
            exposition.get,
            Action.READ,
            returns,
            needs_tree=False,
            root="",
            tag="health",
        ),
    )


def _gauge(name: str, told: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, told, labels=[label])
    for key, value in sorted(values.items()):
        family.add_metric([key], value)
    return family
