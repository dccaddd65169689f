"""``distci cluster``: the system as a whole."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import click

from distci.cli.command import Group, Invocation, json_option
from distci.cli.output import print_facts, print_json, print_line


@click.group(cls=Group, examples=("distci cluster status", "distci cluster pause shell"))
def cluster() -> None:
    """See how the whole system does; pause and resume it; weigh and limit its projects; bring back what a lost tree had."""


@cluster.command(examples=("distci cluster status", "distci cluster status --json | jq .waiting"))
@json_option
@click.pass_obj
def status(invocation: Invocation) -> None:
    """Show what waits and runs, of which kind, and who is there to do it."""
    with invocation.connect() as system:
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
        print_line(f"no live worker serves {kind}; start one: distci worker run {kind}")


@cluster.command(examples=("distci cluster pause shell git-checkout", "distci cluster pause '*'"))
@click.argument("kinds", nargs=-1, required=True, metavar="KIND...")
@json_option
@click.pass_obj
def pause(invocation: Invocation, kinds: tuple[str, ...]) -> None:
    """Let nobody claim tickets of these kinds, * for all, until resumed; what runs goes on."""
    with invocation.connect() as system:
        system.tickets.pause(*kinds)
        known = system.status.kinds()
    unknown = sorted({*kinds} - {*known} - {"*"})
    for kind in unknown:
        _warn_of_unknown(kind, known)
    if invocation.is_json:
        print_json({"paused": sorted({*kinds}), "unknown": unknown})


@cluster.command(examples=("distci cluster resume",))
@click.pass_obj
def resume(invocation: Invocation) -> None:
    """Let all kinds of tickets be claimed again."""
    with invocation.connect() as system:
        system.tickets.pause()


@cluster.command(examples=("distci cluster weigh team/web 3", "distci cluster weigh team/web 1"))
@click.argument("project")
@click.argument("weight", type=float, metavar="N")
@click.pass_obj
def weigh(invocation: Invocation, project: str, weight: float) -> None:
    """Give a project N claims for each one of another, while both have tickets waiting; 1 is what all have."""
    with invocation.connect() as system:
        system.tickets.weigh(project, weight)


@cluster.command(examples=("distci cluster limit team/web 4", "distci cluster limit team/web none"))
@click.argument("project")
@click.argument("quota", metavar="N|none")
@click.pass_obj
def limit(invocation: Invocation, project: str, quota: str) -> None:
    """Let at most N tasks of a project, and of all within it, run at once; none lifts that. The others wait."""
    if quota != "none" and not quota.isdigit():
        raise click.UsageError(f"{quota!r} is neither a number nor none")
    with invocation.connect() as system:
        system.tickets.limit(project, None if quota == "none" else int(quota))


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


def _warn_of_unknown(kind: str, known: Collection[str]) -> None:
    """It may be served later. It may also be a slip, and then what should have been paused goes on."""
    from distci.plan import did_you_mean

    hint = did_you_mean(kind, known)
    click.echo(
        f"distci: warning: {kind} is paused, but no live worker serves it and no ticket of it waits{hint}", err=True
    )


def _counts(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counted.items()))
