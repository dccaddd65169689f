"""What followers hold: a feed for each thing that is followed, shared by all who follow it."""

from __future__ import annotations

from collections.abc import Hashable

from distci.builds import Builds
from distci.coordination.port import Coordination
from distci.events import Events
from distci.following.builds import BuildFeed
from distci.following.feeds import Feeds
from distci.following.logs import KEPT_BYTES, KEPT_BYTES_ALL, PIECE_BYTES, Log, LogFeed
from distci.following.system import SYSTEM, SystemFeed
from distci.model import BuildId
from distci.protocol.tickets import Tickets
from distci.store.port import Store


class Sources:
    """The feeds of one process. Any thread may use it."""

    def __init__(self, builds: Builds, tickets: Tickets, events: Events, store: Store) -> None:
        self.store = store
        self.events = events
        self.feeds = Feeds()
        self._builds = builds
        self._tickets = tickets

    def hold_build(self, build: BuildId) -> BuildFeed:
        """The feed of a build, until it is released by its id. Only its first look tells whether there is such a build."""
        return self.feeds.hold(build, lambda: BuildFeed(self._builds, self._coordination, build))

    def hold_log(self, log: Log) -> LogFeed:
        """The feed of a log, until that is released."""
        return self.feeds.hold(log, lambda: LogFeed(self.store, log, self._share_bytes))

    def hold_system(self) -> SystemFeed:
        """The feed of the system as a whole, until that is released."""
        return self.feeds.hold(SYSTEM, lambda: SystemFeed(self._tickets, self.events))

    def release(self, key: Hashable) -> None:
        self.feeds.release(key)

    @property
    def _coordination(self) -> Coordination:
        return self._tickets.tree.coordination

    def _share_bytes(self) -> int:
        return max(PIECE_BYTES, min(KEPT_BYTES, KEPT_BYTES_ALL // max(1, len(self.feeds))))
