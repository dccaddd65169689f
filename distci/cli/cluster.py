"""``distci cluster``: the system as a whole."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from distci.cli.command import Group, Invocation, json_option, pasteable
from distci.cli.output import duration, moment, print_facts, print_json, print_line, print_table
from distci.errors import Conflict

if TYPE_CHECKING:
    from distci.protocol.depths import Sample

LINE_LETTERS = 48
HEIGHTS = "·▁▂▃▄▅▆▇█"
"""What stands for none, and for few to most."""


@click.group(cls=Group, examples=("distci cluster status", "distci cluster pause shell"))
def cluster() -> None:
    """See how the whole system does; pause and resume it; weigh and limit its projects; bring back what a lost tree had."""


@cluster.command(examples=("distci cluster status", "distci cluster status --json | jq .waiting"))
@json_option
@click.pass_obj
def status(invocation: Invocation) -> None:
    """Show what waits and runs, of which kind, and who is there to do it."""
    with invocation.look_at() as system:
        seen = system.status.cluster()
    if invocation.is_json:
        print_json(seen)
        return
    figures = ("slots", "running", "without_heartbeat", "set_aside", "to_rebuild", "epoch", "format")
    print_facts(
        {
            "workers": _counts(seen.workers) or "none",
            "waiting": _counts(seen.waiting),
            "waiting for permits": _counts(seen.waiting_for_permits),
            **{name.replace("_", " "): getattr(seen, name) for name in figures},
            "formats of workers": ", ".join(f"{name} ({count})" for name, count in sorted(seen.worker_formats.items())),
            "paused": " ".join(seen.paused),
            "quotas": ", ".join(f"{name} {quota}" for name, quota in sorted(seen.quotas.items())),
            "weights": ", ".join(f"{name} {weight:g}" for name, weight in sorted(seen.weights.items())),
        }
    )
    for kind in sorted(seen.waiting.keys() - seen.workers.keys()):
        print_line(pasteable(f"no live worker serves {kind}; start one: distci worker run {kind}"))


@cluster.command(
    examples=("distci cluster history", "distci cluster history --hours 2", "distci cluster history --json | tail -n 5")
)
@click.option("--hours", type=click.IntRange(1, 12), default=12, show_default=True, help="How far back.")
@json_option
@click.pass_obj
def history(invocation: Invocation, hours: int) -> None:
    """Show how many tickets of each kind waited in the last hours, and for how long; with --json, a sample a minute.

    A minute has no sample in which nothing waited, or no control worker was there to look.
    """
    with invocation.look_at() as system:
        samples = system.status.queue_history(hours)
    if invocation.is_json:
        for sample in samples:
            print_json(sample)
        return
    kinds = sorted({kind for sample in samples for kind in sample.kinds})
    if not kinds:
        print_line(f"in the last {hours} h nobody saw anything wait")
    print_table(
        ("KIND", "MOST WAITED", "AT", "LONGEST", f"LAST {hours} H"),
        [_through_time(kind, samples, hours) for kind in kinds],
    )


@cluster.command(examples=("distci cluster pause shell git-checkout", "distci cluster pause '*'"))
@click.argument("kinds", nargs=-1, required=True, metavar="KIND...")
@json_option
@click.pass_obj
def pause(invocation: Invocation, kinds: tuple[str, ...]) -> None:
    """Let nobody claim tickets of these kinds, * for all, until resumed; what runs goes on.

    These and no others: kinds that were paused before and are not named are claimed again.
    """
    with invocation.connect() as system:
        before = system.status.cluster().paused
        system.tickets.pause(*kinds)
        known = system.status.kinds()
    unknown = sorted({*kinds} - {*known} - {"*"})
    for kind in unknown:
        _warn_of_unknown(kind, known)
    if "*" not in kinds and (resumed := sorted({*before} - {*kinds})):
        click.echo(f"distci: claimed again, since only what is named is paused: {' '.join(resumed)}", err=True)
    if invocation.is_json:
        print_json({"paused": sorted({*kinds}), "unknown": unknown})
        return
    _print_paused(kinds)


@cluster.command(examples=("distci cluster resume", "distci cluster resume shell"))
@click.argument("kinds", nargs=-1, metavar="[KIND...]")
@json_option
@click.pass_obj
def resume(invocation: Invocation, kinds: tuple[str, ...]) -> None:
    """Let tickets of these kinds be claimed again, by default of all."""
    with invocation.connect() as system:
        paused = {*system.status.cluster().paused}
        if kinds and "*" in paused - {*kinds}:
            raise Conflict("all kinds are paused at once; `distci cluster resume` ends that")
        left = sorted(paused - {*kinds}) if kinds else []
        system.tickets.pause(*left)
    for kind in sorted({*kinds} - paused):
        click.echo(f"distci: warning: {kind} was not paused", err=True)
    print_json({"paused": left}) if invocation.is_json else _print_paused(left)


@cluster.command(examples=("distci cluster weigh team/web 3", "distci cluster weigh team/web 1"))
@click.argument("project")
@click.argument("weight", type=float, metavar="N")
@json_option
@click.pass_obj
def weigh(invocation: Invocation, project: str, weight: float) -> None:
    """Give a project N claims for each one of another, while both have tickets waiting; 1 is what all have."""
    with invocation.connect() as system:
        system.tickets.weigh(project, weight)
    if invocation.is_json:
        print_json({"project": project, "weight": weight})
        return
    print_line(f"{project} has {weight:g} {'claim' if weight == 1 else 'claims'} for each one of another project")


@cluster.command(examples=("distci cluster limit team/web 4", "distci cluster limit team/web none"))
@click.argument("project")
@click.argument("quota", metavar="N|none")
@json_option
@click.pass_obj
def limit(invocation: Invocation, project: str, quota: str) -> None:
    """Let at most N tasks of a project, and of all within it, run at once; none lifts that. The others wait."""
    if quota != "none" and not quota.isdigit():
        raise click.UsageError(f"{quota!r} is neither a number nor none")
    number = None if quota == "none" else int(quota)
    with invocation.connect() as system:
        system.tickets.limit(project, number)
    if invocation.is_json:
        print_json({"project": project, "quota": number})
    elif number is None:
        print_line(f"{project} has no limit")
    else:
        print_line(f"{project}: at most {number} {'task runs' if number == 1 else 'tasks run'} at once")


@cluster.command(examples=("distci cluster rebuild",))
@json_option
@click.pass_obj
def rebuild(invocation: Invocation) -> None:
    """Put back from the store what the coordination tree has lost; what is there already stays as it is.

    Workers of the kind control do so by themselves when they find an empty tree.
    """
    with invocation.connect_directly() as system, system.audit.note("cluster.rebuild"):
        done = system.rebuild.run()
    if invocation.is_json:
        print_json(done)
        return
    for build in done.builds:
        print_line(f"{build} begins again")
    if not done.builds:
        print_line("nothing was missing")


@cluster.command(examples=("distci cluster upgrade",))
@json_option
@click.pass_obj
def upgrade(invocation: Invocation) -> None:
    """Put the newest format of the coordination tree in force that this version speaks, once all live workers speak it."""
    from distci.protocol.members import upgrade as put_in_force

    with invocation.connect_directly() as system:
        with system.audit.note("cluster.upgrade"):
            put_in_force(system.tickets)
        in_force = system.tickets.tree.format
    print_json({"format": in_force}) if invocation.is_json else print_line(f"format {in_force} is in force")


def _through_time(kind: str, samples: Sequence[Sample], hours: int) -> Sequence[object]:
    """When most tickets of a kind waited, for how long the oldest ever did, and a line of how many did from then till now."""
    seen = [(sample.at_ms, sample.kinds[kind]) for sample in samples if kind in sample.kinds]
    most_ms, most = max(seen, key=lambda item: item[1].waiting)
    since_ms = time.time() * 1000 - hours * 3_600_000
    deepest = [0] * LINE_LETTERS
    for at_ms, depth in seen:
        column = min(LINE_LETTERS - 1, max(0, int((at_ms - since_ms) * LINE_LETTERS / (hours * 3_600_000))))
        deepest[column] = max(deepest[column], depth.waiting)
    line = "".join(HEIGHTS[-(-count * (len(HEIGHTS) - 1) // most.waiting)] for count in deepest)
    return kind, most.waiting, moment(most_ms), duration(max(depth.oldest_s for _, depth in seen) * 1000), line


def _print_paused(kinds: Collection[str]) -> None:
    print_line(f"paused: {' '.join(sorted({*kinds}))}" if kinds else "nothing is paused")


def _warn_of_unknown(kind: str, known: Collection[str]) -> None:
    """It may be served later. It may also be a slip, and then what should have been paused goes on."""
    from distci.plan import did_you_mean

    hint = did_you_mean(kind, known)
    click.echo(
        f"distci: warning: {kind} is paused, but no live worker serves it and no ticket of it waits{hint}", err=True
    )


def _counts(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counted.items()))
