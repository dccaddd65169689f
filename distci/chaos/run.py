"""A whole run: the calm performance, the one under faults, and what the checker says."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from distci.app import open_coordination
from distci.chaos import sandbox
from distci.chaos.checker import Evidence, check, settled_in_doubt
from distci.chaos.cost import Costs, costs
from distci.chaos.ensemble import ZooKeeperServers
from distci.chaos.findings import Violation, explain
from distci.chaos.history import settled
from distci.chaos.links import lines
from distci.chaos.output_rules import rerun_tokens
from distci.chaos.reference import LIMITS, Reference, make_repository
from distci.chaos.schedule import Fault, Theatre, schedule
from distci.chaos.stage import DRIVER, Performance, Progress, Stage
from distci.chaos.workers import Site
from distci.settings import Settings

CALM, HIT = "calm", "faults"
"""The two performances of a seed."""

SECONDS_A_FAULT = 1.5
SECONDS_A_ROUND = 3.0
"""So often two builds are triggered, and two follow."""


class BackEnds(StrEnum):
    """What a run is made on."""

    EMBEDDED = "embedded"
    ENSEMBLE = "ensemble"
    """Three ZooKeeper servers of the run's own, and a directory."""
    CONFIGURED = "configured"
    """A corner of what the settings name."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is to do."""

    settings: Settings
    folder: Path
    """For everything that the run leaves, which is nothing unless something is to be kept."""
    launcher: Sequence[str]
    """The program ``distci`` that workers are started with."""
    environment: Mapping[str, str]
    back_ends: BackEnds = BackEnds.EMBEDDED
    workers: int = 4
    faults: int = 20
    duration_s: float = 0.0
    """0: in proportion to the faults."""
    keep: bool = False
    """Keep what a seed leaves even if nothing was violated."""


@dataclass(frozen=True, slots=True)
class Report:
    """What came of one seed."""

    seed: int
    builds: int
    tasks: int
    faults: Mapping[str, int]
    rerun: int
    """Scripts that were started again because their worker was lost."""
    unknown: int
    """Commits whose answer was lost, and whose process found out what had become of them."""
    costs: Costs
    calm_s: float
    took_s: float
    left_out: Sequence[str]
    """Why some links were not among what may be cut, in sentences."""
    schedule: Sequence[Fault]
    violations: Sequence[Violation]
    explanations: Sequence[Sequence[str]]

    @property
    def verdict(self) -> str:
        return "violated" if self.violations else "clean"


def run(options: Options, seeds: Sequence[int], tell: Callable[[int, Progress], None]) -> Iterator[Report]:
    """The reports of the seeds, one after the other. Raises Unavailable for back ends that cannot be had."""
    with _ensemble(options) as ensemble:
        for seed in seeds:
            yield _run_one(options, seed, ensemble, lambda progress, seed=seed: tell(seed, progress))  # type: ignore[misc]


def _run_one(
    options: Options, seed: int, ensemble: ZooKeeperServers | None, tell: Callable[[Progress], None]
) -> Report:
    folder = options.folder / f"seed-{seed}"
    duration_s = options.duration_s or options.faults * SECONDS_A_FAULT
    repository = folder / "repository"
    commit = make_repository(repository, seed)
    reference = Reference(repository, commit, seed, max(1, math.ceil(duration_s / SECONDS_A_ROUND)))

    def settings(name: str) -> Settings:
        return _settings(options, f"{options.folder.name}-{seed}-{name}", folder / name / "data", ensemble)

    links = lines(settings(HIT))

    def stage(name: str, servers: ZooKeeperServers | None = None) -> Stage:
        return Stage(
            name,
            settings(name),
            links,
            Site(folder / name),
            reference,
            options.launcher,
            options.environment,
            options.workers,
            tell,
            servers,
        )

    peaceful, hostile = stage(CALM), stage(HIT, ensemble)
    theatre = Theatre(
        workers=options.workers,
        session_s=_granted_s(hostile.settings),
        has_links=bool(links.coordination),
        has_store_links=bool(links.store),
        members=len(ensemble.ports) if ensemble else 0,
    )
    planned = schedule(seed, options.faults, duration_s, theatre)
    is_kept = options.keep
    try:
        calm = peaceful.perform()
        report = _report(seed, links.left_out, (), calm, calm)
        if not report.violations:
            # Otherwise there is no right answer to compare with.
            hit = hostile.perform(planned, duration_s)
            report = _report(seed, links.left_out, planned, calm, hit, theatre.session_s)
        is_kept |= bool(report.violations)
        return report
    finally:
        if not is_kept:
            for each in (peaceful, hostile):
                sandbox.remove(each.settings)
            shutil.rmtree(folder)


def _report(
    seed: int,
    left_out: Sequence[str],
    planned: Sequence[Fault],
    calm: Performance,
    hit: Performance,
    session_s: float = 0.0,
) -> Report:
    evidence = Evidence(
        history=hit.history,
        tree=hit.tree,
        triggered=hit.triggered,
        limits=LIMITS,
        calm=calm.outputs,
        hit=hit.outputs,
        marks=hit.marks,
        unfinished=hit.unfinished,
        survivors=hit.survivors,
        crashed=hit.crashed,
    )
    violations = check(evidence)
    return Report(
        seed=seed,
        builds=len(hit.outputs),
        tasks=sum(len(output.tasks) for output in hit.outputs.values()),
        faults=Counter(str(each.fault.kind) for each in hit.hits),
        rerun=rerun_tokens(hit.marks),
        unknown=settled_in_doubt(hit.history),
        costs=costs(
            hit.hits,
            settled(hit.history.commits, hit.tree),
            session_s,
            hit.history.commits,
            [put for put in hit.history.puts if put.process != DRIVER],
            hit.beats,
        ),
        calm_s=calm.took_s,
        took_s=hit.took_s,
        left_out=left_out,
        schedule=planned,
        violations=violations,
        explanations=[explain(violation, hit.began_s) for violation in violations],
    )


def _granted_s(settings: Settings) -> float:
    """How long a session lives: servers have bounds of their own for what they are asked for."""
    coordination = open_coordination(settings)
    try:
        return coordination.session.timeout_s
    finally:
        coordination.close()


@contextmanager
def _ensemble(options: Options) -> Iterator[ZooKeeperServers | None]:
    if options.back_ends is not BackEnds.ENSEMBLE:
        yield None
        return
    folder = options.folder / "zookeeper"
    folder.mkdir(parents=True)
    servers = ZooKeeperServers(folder, 3)
    try:
        yield servers
    finally:
        servers.stop()
        shutil.rmtree(folder)


def _settings(options: Options, name: str, folder: Path, ensemble: ZooKeeperServers | None) -> Settings:
    match options.back_ends:
        case BackEnds.CONFIGURED:
            return sandbox.below(options.settings, name, folder)
        case BackEnds.ENSEMBLE if ensemble:
            made = sandbox.embedded(options.settings, folder)
            return replace(made, coordination=f"zookeeper://{ensemble.hosts}/{name}")
        case _:
            return sandbox.embedded(options.settings, folder)
