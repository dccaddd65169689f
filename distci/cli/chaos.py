"""``distci chaos``: whether a system keeps its promises while its parts are killed."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

import click

from distci.cli.command import Command, Invocation, json_option
from distci.cli.output import print_json, print_line, print_records, printable

if TYPE_CHECKING:
    from distci.chaos.cost import Cost, Sort, Spread, Wait
    from distci.chaos.run import Report
    from distci.chaos.stage import Progress

SEEDS = re.compile(r"([0-9]+)(?:\.\.([0-9]+))?")
SESSION = "2s"
VIOLATIONS_SHOWN_MAX = 5

LAUNCHER = (sys.executable, "-c", "from distci.cli import main; main()")
"""This very program, for the workers."""


def _seeds(ctx: click.Context, param: click.Parameter, text: str) -> Sequence[int]:
    match = SEEDS.fullmatch(text)
    if not match or int(match[2] or match[1]) < int(match[1]):
        raise click.BadParameter(f"{text!r} is no seed; write a number, or FIRST..LAST")
    return range(int(match[1]), int(match[2] or match[1]) + 1)


@click.command(
    cls=Command,
    examples=(
        "distci chaos",
        "distci chaos --ensemble --seed 1..20 --faults 40",
        "distci chaos --configured --workers 8 --json",
    ),
)
@click.option("--ensemble", is_flag=True, help="On three ZooKeeper servers of its own, which are killed, too.")
@click.option(
    "--configured", is_flag=True, help="On a fresh corner of the configured back ends.  [embedded ones of its own]"
)
@click.option(
    "--seed",
    "seeds",
    default="1",
    show_default=True,
    metavar="N|A..B",
    callback=_seeds,
    help="What all choices come from.",
)
@click.option("--faults", type=click.IntRange(0, 1000), default=20, show_default=True, help="How many things go wrong.")
@click.option("--duration", type=click.FloatRange(1), metavar="SECONDS", help="In which time.  [1.5 s a fault]")
@click.option("--workers", type=click.IntRange(1, 100), default=4, show_default=True, help="Worker processes.")
@click.option(
    "--session", default=SESSION, show_default=True, metavar="TIME", help="How long a silent worker keeps its claims."
)
@click.option(
    "--keep", is_flag=True, help="Keep histories, logs, tree and store.  [those of seeds that show a violation]"
)
@json_option
@click.pass_obj
def chaos(
    invocation: Invocation,
    ensemble: bool,
    configured: bool,
    seeds: Sequence[int],
    faults: int,
    duration: float | None,
    workers: int,
    session: str,
    keep: bool,
) -> int:
    """Run builds while workers and servers are killed, stopped and cut off, and check that every promise is kept.

    All that goes wrong follows from the seed. Exits with 0 when nothing was violated, with 1 and an explanation otherwise.
    """
    from distci.chaos.run import BackEnds, Options, run
    from distci.settings import Settings

    if ensemble and configured:
        raise click.UsageError("--ensemble and --configured name different back ends; give one of them")
    if not configured and (told := [name for name in ("coordination", "store", "data") if invocation.flags.get(name)]):
        raise click.UsageError(f"--{told[0]} is for a run with --configured; without it the back ends are its own")
    back_ends = BackEnds.ENSEMBLE if ensemble else BackEnds.CONFIGURED if configured else BackEnds.EMBEDDED
    # Whoever ends us, what we have started is to end with us.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _folder() as folder:
        base = invocation.settings() if configured else Settings(data=str(folder))
        settings = replace(base, session_timeout=session)
        if problems := settings.problems():
            raise click.UsageError(problems[0])
        options = Options(settings, folder, LAUNCHER, os.environ, back_ends, workers, faults, duration or 0.0, keep)
        reports = []
        with _progress() as tell:
            for report in run(options, seeds, tell):
                reports.append(report)
                _tell_end(report, len(reports), len(seeds))
                if len(reports) == 1:
                    for sentence in report.left_out:
                        click.echo(f"note: {printable(sentence)}", err=True)
                if invocation.is_json:
                    print_json(_document(report, back_ends))
        if not invocation.is_json:
            _print(reports)
    return 1 if any(report.violations for report in reports) else 0


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder of our own, of which is kept what the run has left there."""
    folder = Path(mkdtemp(prefix="distci-chaos-"))
    try:
        yield folder
    finally:
        try:
            folder.rmdir()
        except OSError:
            click.echo(f"kept in {folder}", err=True)


@contextmanager
def _progress() -> Iterator[Callable[[int, Progress], None]]:
    is_shown = sys.stderr.isatty()

    def tell(seed: int, progress: Progress) -> None:
        if is_shown:
            live = f"{progress.unfinished} builds and tickets live"
            line = f"seed {seed}, {progress.stage}: {progress.triggered} of {progress.builds} builds triggered, {live}"
            faults = f", {progress.faults_done} of {progress.faults} faults" if progress.faults else ""
            click.echo(f"\r\x1b[K{line}{faults}", nl=False, err=True)

    try:
        yield tell
    finally:
        if is_shown:
            click.echo("\r\x1b[K", nl=False, err=True)


def _tell_end(report: Report, done: int, of: int) -> None:
    """A line for each seed as it ends, so that a long run in the background can be followed; the table comes in the end."""
    clear = "\r\x1b[K" if sys.stderr.isatty() else ""
    faults = f"{sum(report.faults.values())} faults in {report.took_s:.0f} s"
    click.echo(f"{clear}{done} of {of}: seed {report.seed} {report.verdict}, {faults}", err=True)


def _document(report: Report, back_ends: str) -> dict[str, object]:
    return {
        "seed": report.seed,
        "back_ends": back_ends,
        "verdict": report.verdict,
        "builds": report.builds,
        "tasks": report.tasks,
        "faults": report.faults,
        "rerun": report.rerun,
        "unknown": report.unknown,
        "added": report.costs.by_sort,
        "over_limit": report.costs.over_limit,
        "calm_s": round(report.calm_s, 3),
        "took_s": round(report.took_s, 3),
        "left_out": report.left_out,
        "schedule": report.schedule,
        "violations": report.explanations,
    }


def _print(reports: Sequence[Report]) -> None:
    print_records(
        reports,
        ("SEED", "BUILDS", "TASKS", "FAULTS", "RE-RUN", "UNKNOWN", "VIOLATIONS", "VERDICT"),
        lambda report: (
            report.seed,
            report.builds,
            report.tasks,
            ", ".join(f"{count} {kind}" for kind, count in sorted(report.faults.items())),
            report.rerun,
            report.unknown,
            len(report.violations),
            report.verdict,
        ),
        is_json=False,
    )
    _print_costs(reports)
    for report in reports:
        for lines in report.explanations[:VIOLATIONS_SHOWN_MAX]:
            click.echo()
            for line in (f"seed {report.seed}: {lines[0]}", *lines[1:]):
                print_line(line)


def _print_costs(reports: Sequence[Report]) -> None:
    from distci.chaos.cost import together

    of_seeds = [(str(report.seed), report.costs) for report in reports]
    if len(reports) > 1:
        of_seeds.append(("all", together([report.costs for report in reports])))
    found = [(seed, sort, cost) for seed, costs in of_seeds for sort, cost in costs.by_sort.items()]
    if not found:
        return
    click.echo()
    print_records(
        found,
        (
            *("SEED", "FAULTS OF", "HIT", "TAKEN OVER", "WORST", "WAIT", "WORST", "LIMIT", "OVER"),
            *("OUTAGE", "WORST", "THROWN AWAY", "WORST"),
        ),
        lambda row: _cost_row(*row),
        is_json=False,
    )
    for report in reports:
        for wait in report.costs.over_limit:
            click.echo()
            for line in _explain_wait(report.seed, wait):
                print_line(line)


def _cost_row(seed: str, sort: Sort, cost: Cost) -> Sequence[object]:
    limit = ("", "") if cost.limit_s is None else (f"{cost.limit_s:.1f} s", cost.over_limit)
    taken_over = ("", "") if cost.taken_over is None else _both(cost.taken_over)
    return (
        seed,
        sort,
        cost.hits,
        *taken_over,
        *_both(cost.wait),
        *limit,
        *_both(cost.outage),
        *_both(cost.thrown_away),
    )


def _both(spread: Spread) -> tuple[str, str]:
    return f"{spread.median_s:.1f} s", f"{spread.worst_s:.1f} s"


def _explain_wait(seed: int, wait: Wait) -> Sequence[str]:
    taken_over = f", taken over after {wait.taken_over_s:.1f} s" if wait.taken_over_s is not None else ""
    outage = f" and {wait.outage_s:.1f} s in which nobody could commit" if wait.outage_s else ""
    permit = ", and found its permit taken" if wait.found_permit_taken else ""
    line = f"seed {seed}: {wait.token} waited {wait.wait_s:.1f} s{outage} for the {wait.fault} of {wait.process}"
    return [line + taken_over + permit, *(f"  meanwhile: {other}" for other in wait.meanwhile)]
