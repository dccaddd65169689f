"""``distci bench``: what a system can do, measured on its own back ends."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial

import click

from distci.cli.command import Group, Invocation, json_option
from distci.cli.output import print_facts, print_json


@click.group(cls=Group, examples=("distci bench tickets",))
def bench() -> None:
    """Measure this system against its own back ends."""


@bench.command(examples=("distci bench tickets", "distci bench tickets --concurrency 8 --json"))
@click.option("--tickets", type=click.IntRange(10), default=400, show_default=True, help="How many to measure with.")
@click.option(
    "--concurrency", type=click.IntRange(1, 100), default=1, show_default=True, help="Workers that chain tickets."
)
@click.option("--workers", type=click.IntRange(1, 500), default=50, show_default=True, help="Idle workers in a crowd.")
@json_option
@click.pass_obj
def tickets(invocation: Invocation, tickets: int, concurrency: int, workers: int) -> None:
    """Measure tickets on the coordination tree, beside raw transactions of the same size on the same tree.

    Tickets of kinds that no other worker serves are posted and finished; a system in use is slowed down meanwhile.
    """
    from distci import bench as measure
    from distci.app import open_coordination

    settings = invocation.settings()
    connect = partial(open_coordination, settings)
    cycle = measure.cycle(connect, tickets, concurrency)
    wake = measure.wake(connect, max(10, tickets // 8))
    crowd = measure.crowd(connect, workers, tickets)
    if invocation.is_json:
        print_json({"cycle": asdict(cycle) | {"ratio": cycle.ratio}, "wake": wake, "crowd": crowd})
        return
    print_facts(
        {
            "tickets a second": f"{cycle.tickets_per_s:.0f}, chained by {cycle.concurrency}",
            "raw pairs a second": f"{cycle.raw_per_s:.0f}",
            "ratio": f"{cycle.ratio:.2f}",
            "transactions a ticket": f"{cycle.commits_per_ticket:.2f}",
            "idle worker wakes in": f"p50 {wake.p50_ms:.1f} ms, p99 {wake.p99_ms:.1f} ms",
            "crowd": f"{crowd.workers} idle workers, {crowd.tickets} tickets in {crowd.seconds:.1f} s",
            "claims tried a ticket": f"{crowd.claims_tried_per_ticket:.2f}",
            "transactions a ticket in the crowd": f"{crowd.commits_per_ticket:.2f}",
        }
    )
