"""``distci bench``: what a system can do, measured on its own back ends."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial

import click

from distci.cli.command import Group, Invocation, json_option
from distci.cli.output import print_facts, print_json

SMALL_BYTES, LARGE_BYTES = 4 * 1024, 8 * 1024 * 1024
"""Of objects that the store is measured with: a record, and a part of an artifact."""


@click.group(cls=Group, examples=("distci bench tickets", "distci bench scale --json"))
def bench() -> None:
    """Measure this system against its own back ends."""


@bench.command(examples=("distci bench builds", "distci bench builds --builds 500 --workers 8"))
@click.option("--builds", type=click.IntRange(1), default=50, show_default=True, help="How many at once.")
@click.option("--tasks", type=click.IntRange(1, 100), default=4, show_default=True, help="Of each, in a chain.")
@click.option("--workers", type=click.IntRange(1, 100), default=4, show_default=True, help="Of each kind.")
@json_option
@click.pass_obj
def builds(invocation: Invocation, builds: int, tasks: int, workers: int) -> None:
    """Measure whole builds whose tasks do nothing, in a root and a prefix of their own that are removed again."""
    from distci import bench as measure

    with measure.fenced(invocation.settings()) as own:
        figures = measure.builds(own, builds, tasks, workers)
    if invocation.is_json:
        print_json(asdict(figures) | {"tasks_per_s": figures.tasks_per_s, "ratio": figures.ratio})
        return
    print_facts(
        {
            "builds": f"{figures.builds} of {figures.tasks} tasks at once in {figures.seconds:.1f} s",
            "a build": f"p50 {figures.p50_s:.2f} s, p99 {figures.p99_s:.2f} s",
            "tasks a second": f"{figures.tasks_per_s:.0f}",
            "raw pairs a second": f"{figures.raw_pairs_per_s:.0f}",
            "ratio of steps to raw pairs": f"{figures.ratio:.2f}",
        }
    )


@bench.command(examples=("distci bench store", "distci bench store --json"))
@click.option("--count", type=click.IntRange(1), default=100, show_default=True, help="Objects of each size.")
@json_option
@click.pass_obj
def store(invocation: Invocation, count: int) -> None:
    """Measure the store with small and large objects, beside its bare client on the same server."""
    from distci import bench as measure
    from distci.app import open_store

    with measure.fenced(invocation.settings()) as own:
        opened = open_store(own)
        figures = [
            *measure.objects(opened, SMALL_BYTES, count),
            *measure.objects(opened, LARGE_BYTES, max(1, count // 10)),
        ]
    for figure in figures:
        if invocation.is_json:
            print_json(asdict(figure) | {"ratio": figure.ratio})
            continue
        raw = f"raw p50 {figure.raw_p50_ms:.1f}, p99 {figure.raw_p99_ms:.1f} ms, ratio {figure.ratio:.2f}"
        print_facts(
            {
                f"{figure.operation} of {figure.size_bytes} bytes": (
                    f"p50 {figure.p50_ms:.1f}, p99 {figure.p99_ms:.1f} ms; {raw if figure.ratio else 'no bare client'}"
                )
            }
        )


@bench.command(examples=("distci bench scale", "distci bench scale --workers 200 --per-s 20 --json"))
@click.option("--workers", type=click.IntRange(1, 5000), default=1000, show_default=True, help="Idle workers.")
@click.option("--tickets", type=click.IntRange(10), default=500, show_default=True, help="Posted to idle workers.")
@click.option("--per-s", type=click.FloatRange(0.1), default=50.0, show_default=True, help="Tickets posted a second.")
@click.option("--few", type=click.IntRange(10), default=100, show_default=True, help="A short queue.")
@click.option("--many", type=click.IntRange(10), default=10_000, show_default=True, help="A long queue.")
@json_option
@click.pass_obj
def scale(invocation: Invocation, workers: int, tickets: int, per_s: float, few: int, many: int) -> None:
    """Measure long queues and very many idle workers, in a root of its own that is removed again."""
    from distci import bench as measure
    from distci.app import open_coordination

    with measure.fenced(invocation.settings()) as own:
        connect = partial(open_coordination, own)
        backlog = measure.backlog(connect, few, many, max(40, tickets // 2))
        crowd = measure.idle_crowd(connect, workers, tickets, per_s)
    if invocation.is_json:
        print_json({"backlog": asdict(backlog) | {"ratio": backlog.ratio}, "idle_crowd": crowd})
        return
    print_facts(
        {
            f"tickets a second, {backlog.few} waiting": f"{backlog.few_per_s:.0f}",
            f"tickets a second, {backlog.many} waiting": f"{backlog.many_per_s:.0f}",
            "ratio": f"{backlog.ratio:.2f}",
            "raw pairs a second": f"{backlog.raw_per_s:.0f}",
            "idle crowd": f"{crowd.workers} workers, {crowd.tickets} tickets, {crowd.per_s:.0f} a second",
            "claims tried a ticket": f"{crowd.claims_tried_per_ticket:.2f}",
            "post to claim": f"p50 {crowd.p50_ms:.0f} ms, p99 {crowd.p99_ms:.0f} ms",
            "raw transaction": f"p50 {crowd.raw_p50_ms:.1f} ms, p99 {crowd.raw_p99_ms:.1f} ms",
        }
    )


@bench.command(
    examples=("distci bench tickets", "distci bench tickets --concurrency 10 --chains 200 --tickets 2000 --json")
)
@click.option("--tickets", type=click.IntRange(10), default=400, show_default=True, help="How many to measure with.")
@click.option(
    "--concurrency", type=click.IntRange(1, 100), default=1, show_default=True, help="Workers that chain tickets."
)
@click.option("--chains", type=click.IntRange(1), help="Chains of tickets at once.  [one a worker]")
@click.option("--workers", type=click.IntRange(1, 500), default=50, show_default=True, help="Idle workers in a crowd.")
@json_option
@click.pass_obj
def tickets(invocation: Invocation, tickets: int, concurrency: int, chains: int | None, workers: int) -> None:
    """Measure tickets on the coordination tree, beside raw transactions of the same size on the same tree.

    Tickets of kinds that no other worker serves are posted and finished; a system in use is slowed down meanwhile.
    """
    from distci import bench as measure
    from distci.app import open_coordination

    settings = invocation.settings()
    connect = partial(open_coordination, settings)
    cycle = measure.cycle(connect, tickets, concurrency, chains)
    wake = measure.wake(connect, max(10, tickets // 8))
    crowd = measure.crowd(connect, workers, tickets)
    if invocation.is_json:
        print_json({"cycle": asdict(cycle) | {"ratio": cycle.ratio}, "wake": wake, "crowd": crowd})
        return
    print_facts(
        {
            "tickets a second": f"{cycle.tickets_per_s:.0f}, in {cycle.chains} chains by {cycle.concurrency}",
            "raw pairs a second": f"{cycle.raw_per_s:.0f}",
            "ratio": f"{cycle.ratio:.2f}",
            "transactions a ticket": f"{cycle.commits_per_ticket:.2f}",
            "idle worker wakes in": f"p50 {wake.p50_ms:.1f} ms, p99 {wake.p99_ms:.1f} ms",
            "crowd": f"{crowd.workers} idle workers, {crowd.tickets} tickets in {crowd.seconds:.1f} s",
            "claims tried a ticket": f"{crowd.claims_tried_per_ticket:.2f}",
            "transactions a ticket in the crowd": f"{crowd.commits_per_ticket:.2f}",
        }
    )
