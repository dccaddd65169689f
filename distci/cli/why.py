"""``distci why``: the reason of each wait, skip and repetition."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from distci.cli import following
from distci.cli.command import Command, Invocation, json_option, pasteable
from distci.cli.missing import looking_for
from distci.cli.output import duration, print_json, print_line
from distci.errors import Missing, NoSuchTicket

if TYPE_CHECKING:
    from distci.cli.command import System
    from distci.why import Reason

HELD = re.compile("[0-9a-f]{16}")
"""The id of a change that waits for an approval."""


@click.command(
    cls=Command,
    examples=(
        "distci why team/hello#12                  the build and its tasks",
        "distci why team/hello#12 test             one task",
        "distci why 7f3k2m                         a ticket, by id or token",
        "distci why 4f2a9c1e5b7d0836               a change that waits for an approval",
    ),
)
@click.argument("subject", metavar="BUILD|TICKET|CHANGE")
@click.argument("task", required=False)
@json_option
@click.pass_obj
def why(invocation: Invocation, subject: str, task: str | None) -> None:
    """Say why a build, a task, a ticket or a change waits, was skipped, ran again or failed, and what would change it."""
    with invocation.look_at() as system:
        reasons = _reasons(system, subject, task)
    for reason in reasons:
        if invocation.is_json:
            print_json(reason)
        else:
            _print(reason)


def _reasons(system: System, subject: str, task: str | None) -> list[Reason]:
    if task is not None or "#" in subject:
        with looking_for(system, subject):
            return system.why.build(subject) if task is None else [system.why.task(subject, task)]
    try:
        return [system.why.ticket(subject)]
    except Missing as error:
        from distci.why import Reason

        if HELD.fullmatch(subject) and (held := next((one for one in system.hooks.held() if one.id == subject), None)):
            because = f"{held.change.actor} has no rights to {held.change.repository}: it waits for an approval"
            return [Reason(held.id, "held", because, f"distci hook approve {held.id}")]
        raise NoSuchTicket(
            f"no live ticket {subject!r}; `distci ticket list` shows all there are, and a build is JOB#NUMBER, for example team/hello#12"
        ) from error


def _print(reason: Reason) -> None:
    print_line(following.told(reason))
    if reason.place:
        soon = f"; starts in about {duration(reason.starts_in_s * 1000)}" if reason.starts_in_s else ""
        print_line(f"    number {reason.place} in line{soon}")
    if reason.remedy:
        print_line(pasteable(f"    {reason.remedy}"))
