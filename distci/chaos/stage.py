"""One performance of the reference builds, calm or under faults: from the first trigger to what is left when all have gone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Event
from time import monotonic

from distci.app import DistCI
from distci.chaos import gathering
from distci.chaos.cost import Beats
from distci.chaos.ensemble import ZooKeeperServers
from distci.chaos.faults import Faults, Hit
from distci.chaos.history import History
from distci.chaos.links import Lines
from distci.chaos.output_rules import BuildOutput, Mark, check_left
from distci.chaos.pulse import Pulse
from distci.chaos.reference import Reference
from distci.chaos.schedule import Fault
from distci.chaos.workers import Fleet, Site
from distci.errors import Unavailable
from distci.model import BuildId
from distci.protocol.outcomes import persist
from distci.settings import Settings

DRIVER = "driver"
"""The process that triggers the builds, in the history."""

PACE = 0.8
"""Share of the faults' duration in which all builds are triggered."""

LOOK_S = 0.1
PATIENCE_S = 60.0
"""How long nothing at all may move before what is unfinished counts as stuck."""

_NEVER = Event()


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a performance has come."""

    stage: str
    triggered: int
    builds: int
    unfinished: int
    """Builds and tickets that are live now."""
    faults_done: int
    faults: int


@dataclass(frozen=True, slots=True)
class Performance:
    """What one performance left."""

    began_s: float
    took_s: float
    """Until the last build had ended."""
    history: History
    tree: Mapping[str, bytes]
    triggered: Sequence[str]
    outputs: Mapping[str, BuildOutput]
    marks: Sequence[Mark]
    unfinished: Sequence[str]
    survivors: Sequence[str]
    crashed: Sequence[str]
    hits: Sequence[Hit]
    beats: Beats


@dataclass(slots=True)
class Stage:
    """Where a performance is given, once."""

    name: str
    settings: Settings
    """Of the sandbox."""
    lines: Lines
    site: Site
    reference: Reference
    launcher: Sequence[str]
    environment: Mapping[str, str]
    workers: int
    tell: Callable[[Progress], None]
    ensemble: ZooKeeperServers | None = None
    _triggered: dict[str, BuildId] = field(default_factory=dict)

    def perform(self, planned: Sequence[Fault] = (), duration_s: float = 0.0) -> Performance:
        """Run all builds to their ends, and do the planned faults meanwhile."""
        with ExitStack() as stack:
            system = stack.enter_context(DistCI(replace(self.settings, history=str(self.site.history(DRIVER)))))
            for document in self.reference.jobs(self.site.marks):
                system.jobs.put(document)
            fleet = stack.enter_context(
                Fleet(self.settings, self.lines, self.site, self.launcher, self.environment, self.workers)
            )
            pulse = stack.enter_context(Pulse(self.settings, self.ensemble))
            began_s = monotonic()
            with Faults(planned, fleet, self.ensemble) as faults:
                look = partial(self._look, system, fleet, faults, len(planned))
                self._trigger_all(system, began_s, duration_s * PACE, look)
                unfinished = self._wait_for_ends(faults, look)
            took_s = monotonic() - began_s
            if not unfinished:
                fleet.drain(PATIENCE_S)
                self._wait_for_sessions(system)
            return Performance(
                began_s=began_s,
                took_s=took_s,
                history=gathering.history(self.site),
                tree=gathering.tree(system),
                triggered=[str(build) for build in self._triggered.values()],
                outputs=dict(gathering.outputs(system, self._triggered)),
                marks=gathering.marks(self.site),
                unfinished=unfinished,
                survivors=[] if unfinished else gathering.survivors(self.site),
                crashed=fleet.crashed,
                hits=faults.hits,
                beats=pulse.beats,
            )

    def _trigger_all(self, system: DistCI, began_s: float, pace_s: float, look: Callable[[], object]) -> None:
        triggers = self.reference.triggers()
        for number, (cause, job, parameters) in enumerate(triggers):
            while monotonic() < began_s + pace_s * number / len(triggers):
                look()
            trigger = partial(system.builds.trigger, job, parameters, commit=self.reference.commit, cause=cause)
            self._triggered[cause] = persist(trigger, _NEVER)

    def _wait_for_ends(self, faults: Faults, look: Callable[[], Sequence[str] | None]) -> Sequence[str]:
        """Wait until all faults are over and nothing is live; what is unfinished when nothing moves any more."""
        moved_s, seen, quiet = monotonic(), None, 0
        while quiet < 2:
            # Twice, since a look at the tree is no look at one moment.
            unfinished = look()
            if unfinished is None:
                continue
            state = (unfinished, len(faults.hits))
            if state != seen:
                moved_s, seen = monotonic(), state
            elif monotonic() - moved_s > PATIENCE_S:
                return unfinished
            quiet = quiet + 1 if faults.are_over and not unfinished else 0
        return []

    def _look(self, system: DistCI, fleet: Fleet, faults: Faults, planned: int) -> Sequence[str] | None:
        """Let a moment pass and tell how things go; what is unfinished, or None while the tree cannot be reached."""
        _NEVER.wait(LOOK_S)
        fleet.mend()
        try:
            unfinished = gathering.unfinished(system)
        except Unavailable:
            return None
        builds = len(self.reference.triggers())
        self.tell(Progress(self.name, len(self._triggered), builds, len(unfinished), len(faults.hits), planned))
        return unfinished

    def _wait_for_sessions(self, system: DistCI) -> None:
        """Wait until the sessions of killed workers have ended, and what lived with them is gone; not for ever."""
        deadline = monotonic() + PATIENCE_S
        while any(check_left(gathering.tree(system))) and monotonic() < deadline:
            _NEVER.wait(LOOK_S)
