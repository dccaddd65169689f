"""Whether anybody can commit: a small commit by way of each ZooKeeper server now and then, as long as a performance lasts."""

from __future__ import annotations

from dataclasses import replace
from threading import Event, Thread
from time import monotonic
from typing import Self

from distci.app import open_coordination
from distci.chaos.ensemble import ZooKeeperServers
from distci.coordination.port import Check, Committed, Coordination
from distci.errors import Unavailable
from distci.protocol import paths
from distci.settings import Settings

BEAT_S = 0.2
"""How often it is tried by way of each server."""


class Pulse:
    """Commits in a thread for each server; a context manager. A system without servers of its own has none."""

    def __init__(self, settings: Settings, ensemble: ZooKeeperServers | None) -> None:
        """``settings`` name the tree by way of all servers."""
        self.beats: list[tuple[float, float]] = []
        """From when to when each commit took that took effect."""
        self._stop = Event()
        root = settings.coordination_address.path
        urls = [f"zookeeper://{host}{root}" for host in ensemble.hosts.split(",")] if ensemble else []
        self._threads = [
            Thread(target=self._run, args=(replace(settings, coordination=url),), name=f"pulse {number}", daemon=True)
            for number, url in enumerate(urls)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, settings: Settings) -> None:
        coordination: Coordination | None = None
        while not self._stop.wait(BEAT_S):
            started_s = monotonic()
            try:
                coordination = coordination or open_coordination(settings)
                if isinstance(coordination.commit(Check(paths.FORMAT)), Committed):
                    self.beats.append((started_s, monotonic()))
            except Unavailable:
                continue
        if coordination:
            coordination.close()
