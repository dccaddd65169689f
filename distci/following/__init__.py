"""Builds, logs and the system as they go on, for any number of followers in one process, and with no HTTP.

What somebody follows is looked at by one *feed*, however many follow it: a few threads look after all feeds, woken by watches of the tree
or by the time. A *follower* is told by the feeds it holds that there may be more, and takes it when it likes:

====================  ============================================================  =============================================
follower              is told                                                       its position
====================  ============================================================  =============================================
of a build            all of it, then what changes; the end                         the mark of the state that it knows
of logs               bytes of each attempt, in order, each byte once; the end      attempt and offset (:mod:`~.positions`)
of the system         events by their numbers; workers and queue as they stand      the number of the last event
====================  ============================================================  =============================================

A position is all there is to a follower: nobody keeps anything for one that is away, and any process goes on from it. Nor is anything
kept for one that is slow. A feed keeps the last of what it read, the same for all; who is further behind reads the store at their own pace.

::

    feeds        what many want is looked at once
    told         what a follower is, and what it is told
    positions    where a follower of logs is
    builds logs system
                 the feeds and followers of each
    sources      who holds which feed
"""

from __future__ import annotations

from collections.abc import Callable

from distci.builds import Builds
from distci.events import Events
from distci.following.builds import BuildFollower
from distci.following.logs import LogFollower
from distci.following.sources import Sources
from distci.following.system import SystemFollower
from distci.following.told import Follower
from distci.model import BuildId
from distci.protocol.tickets import Tickets
from distci.store.port import Store

Wake = Callable[[], None]


class Following:
    """What can be followed in one system. Any thread may use it; each follower is closed by whoever asked for it.

    ``wake`` is called, in whatever thread, when there may be more; it must not wait. A position that is none raises Invalid.
    """

    def __init__(self, builds: Builds, tickets: Tickets, events: Events, store: Store) -> None:
        self.sources = Sources(builds, tickets, events, store)

    def build(self, build: BuildId, wake: Wake, position: str = "") -> Follower:
        """A follower of how a build stands."""
        return BuildFollower(self.sources, build, wake, position)

    def logs(self, build: BuildId, wake: Wake, position: str = "", task: str = "") -> Follower:
        """A follower of all that a build prints, or one of its tasks."""
        return LogFollower(self.sources, build, wake, task, position)

    def system(self, wake: Wake, position: str = "") -> Follower:
        """A follower of the system as a whole: builds that begin and end, workers, what waits."""
        return SystemFollower(self.sources, wake, position)

    def close(self) -> None:
        """Look at nothing any more."""
        self.sources.feeds.close()
