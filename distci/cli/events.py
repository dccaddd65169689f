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
from distci.events import GAP, behind

if TYPE_CHECKING:
    from distci.client.events import RemoteEvents
    from distci.events import Event, Events

LISTED = 20
AWAY_S = 1.0
"""How long who follows waits for what is away before it is asked again."""


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

    Each has a number, dense from 1 on: whoever knows one can go on behind it. Where events behind it are not kept any more, that is said first.
    """
    with invocation.look_at() as system:
        number = _before_last(system.events, limit) if after is None else after
        for event in _following(system.events, number) if follow else behind(system.events.after, number):
            if invocation.is_json:
                print_json(event.to_json())
            else:
                print_line(_line(event))


def _before_last(events: Events | RemoteEvents, limit: int) -> int:
    """The number behind which the last so many are; through a front end there are gaps between them."""
    return min((event.number - 1 for event in islice(events.before(), limit)), default=0)


def _following(events: Events | RemoteEvents, number: int) -> Iterator[Event]:
    """Those that come, too, however often tree, store or front end are away meanwhile."""
    is_away = False
    while True:
        try:
            for event in events.follow(number):
                number, is_away = event.number, False
                yield event
        except Unavailable as error:
            if not is_away:
                click.echo(f"distci: {error}; waiting for it", err=True)
            is_away = True
            time.sleep(AWAY_S)


def _line(event: Event) -> str:
    if event.kind == GAP:
        return f"{event.number}  {_gap(event.number, event.more['after'])}; it goes on with {event.number + 1}"
    result = f" {event.more['result']}" if "result" in event.more else ""
    actor = f" by {event.more['actor']}" if event.more.get("actor") else ""
    cause = f", {event.more['trigger']}{actor}" if "trigger" in event.more else ""
    return f"{event.number}  {moment(event.at_ms)}  {event.build} {event.kind.removeprefix('build-')}{result}{cause}"


def _gap(number: int, after: int) -> str:
    if after < number:
        return f"events {after + 1} to {number} are not kept any more"
    return f"there is no event {after} any more: numbers have begun anew"
