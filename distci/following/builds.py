"""How a build stands, followed to its end."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from distci.builds import Builds, BuildView
from distci.coordination.port import Coordination
from distci.following.feeds import Feed
from distci.following.told import Told, ended
from distci.model import BuildId, Json
from distci.protocol import paths
from distci.views import to_bytes, to_json

if TYPE_CHECKING:
    from distci.following.sources import Sources

LOOK_S = 0.4
"""How often a build is looked at besides when its node changes: that an attempt begins changes other nodes."""


@dataclass(frozen=True, slots=True)
class BuildState:
    """A build as it is told, and what changed with this state, written once for all."""

    whole: Mapping[str, Json] = field(default_factory=dict)
    document: bytes = b""
    mark: str = ""
    """Tells this state from any other, wherever it is read: the entity tag of the build over HTTP."""
    change: bytes = b""
    """What is other than in the state ..."""
    changed_from: str = ""
    """... with this mark."""

    @classmethod
    def after(cls, old: BuildState, whole: Mapping[str, Json]) -> BuildState:
        document = to_bytes(whole)
        known = {task["name"]: task for task in old.whole.get("tasks", ())}
        change = {key: value for key, value in whole.items() if key != "tasks" and old.whole.get(key) != value}
        change["tasks"] = [task for task in whole["tasks"] if known.get(task["name"]) != task]
        return cls(whole, document, hashlib.sha256(document).hexdigest()[:32], to_bytes(change), old.mark)


class BuildFeed(Feed):
    """A build as it stands, until it is archived."""

    def __init__(self, builds: Builds, coordination: Coordination, build: BuildId) -> None:
        super().__init__()
        self._builds = builds
        self._coordination = coordination
        self._build = build
        self.view: BuildView | None = None
        """None before the first look."""
        self.state = BuildState()

    def look(self) -> float | None:
        path = paths.build(self._build)
        # Not watched when it is not there: a watch of a build that has been archived would stay for ever.
        if self._coordination.exists(path) is not None:
            self._coordination.watch(path, self.woken)
        view = self._builds.get(self._build)
        if view != self.view:
            self.state = BuildState.after(self.state, to_json(view))
            self.view = view
            self.tell()
        return None if view.is_archived else LOOK_S


class BuildFollower:
    """A :class:`Follower` of how a build stands: all of it first, unless that is known, and from then on what changes."""

    must_fetch = False

    def __init__(self, sources: Sources, build: BuildId, wake: Callable[[], None], mark: str = "") -> None:
        """``mark`` is that of the state that is known already."""
        self._sources = sources
        self._build = build
        self._wake = wake
        self._mark = mark
        self.is_over = False
        self.feed = sources.hold_build(build)
        self.feed.listen(wake)

    @property
    def is_ready(self) -> bool:
        return self.feed.view is not None or self.feed.is_over

    @property
    def trouble(self) -> str:
        return self.feed.trouble

    @property
    def end(self) -> bytes:
        return ended(self.feed.view.state if self.feed.view else "")

    def check(self) -> None:
        if self.feed.error is not None:
            raise self.feed.error

    def take(self) -> Iterator[Told]:
        self.check()
        # In this order: a state that comes between the two is taken the next time.
        is_last, state = self.feed.is_over, self.feed.state
        if state.mark and state.mark != self._mark:
            is_next = state.changed_from == self._mark != ""
            self._mark = state.mark
            yield Told("change", state.mark, state.change) if is_next else Told("build", state.mark, state.document)
        self.is_over = is_last

    def fetch(self) -> None:
        """There is nothing to fetch."""

    def close(self) -> None:
        self.feed.ignore(self._wake)
        self._sources.release(self._build)
