"""``distci events``: what happens to builds, in the whole system."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

import click

from distci.cli.command import Command, Invocation, json_option
from distci.cli.output import moment, print_json, print_line
from distci.errors import Unavailable

if TYPE_CHECKING:
    from distci.client.events import RemoteEvents
    from distci.events import Event, Events

LISTED = 20
POLL_S = 0.3
READ_AT_ONCE = 100


@click.command(
    cls=Command,
    examples=(
        "distci events                                      the last twenty",
        "distci events --follow                             and those that come",
        "distci events --follow --after 1200 --json         go on where a program was",
    ),
)
@click.option("--limit", type=click.IntRange(min=1), default=LISTED, show_default=True, help="How many of the last.")
@click.option("--after", type=click.IntRange(min=0), metavar="NUMBER", help="All behind this one instead.")
@click.option("--follow", is_flag=True, help="Go on with those that come, until Ctrl-C.")
@json_option
@click.pass_obj
def events(invocation: Invocation, limit: int, after: int | None, follow: bool) -> None:
    """Show what happened to builds: which began and which ended, the oldest first.

    Each has a number, dense from 1 on: whoever knows one can go on behind it.
    """
    with invocation.look_at() as system:
        number = _before_last(system.events, limit) if after is None else after
        for event in _behind(system.events, number, follow):
            if invocation.is_json:
                print_json(event.to_json())
            else:
                print_line(_line(event))


def _before_last(events: Events | RemoteEvents, limit: int) -> int:
    """The number behind which the last so many are; through a front end there are gaps between them."""
    return min((event.number - 1 for event in islice(events.before(), limit)), default=0)


def _behind(events: Events | RemoteEvents, number: int, follow: bool) -> Iterator[Event]:
    """The events behind a number; those that come, too, however often the store is away meanwhile."""
    is_away = False
    while True:
        try:
            found = events.after(number, READ_AT_ONCE)
            is_away = False
        except Unavailable as error:
            if not follow:
                raise
            if not is_away:
                click.echo(f"distci: {error}; waiting for it", err=True)
            found, is_away = (), True
        yield from found
        number = found[-1].number if found else number
        if not found:
            if not follow:
                return
            time.sleep(POLL_S)


def _line(event: Event) -> str:
    result = f" {event.more['result']}" if "result" in event.more else ""
    actor = f" by {event.more['actor']}" if event.more.get("actor") else ""
    cause = f", {event.more['trigger']}{actor}" if "trigger" in event.more else ""
    return f"{event.number}  {moment(event.at_ms)}  {event.build} {event.kind.removeprefix('build-')}{result}{cause}"
