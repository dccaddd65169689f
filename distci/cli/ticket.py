"""``distci ticket``: what waits, runs, is parked or was set aside."""

from __future__ import annotations

import click

from distci.cli.command import Group, Invocation, json_option
from distci.cli.output import age, moment, print_facts, print_json, print_line, print_records
from distci.model import BuildId


@click.group(cls=Group, examples=("distci ticket list --place dead", "distci ticket requeue 7f3k2m"))
def ticket() -> None:
    """Look at the work that waits, runs or was set aside."""


@ticket.command(
    "list",
    examples=("distci ticket list --build team/hello#12", "distci ticket list --place waiting --kind shell --json"),
)
@click.option("--place", type=click.Choice(["waiting", "running", "parked", "dead"]), help="Only those that are there.")
@click.option("--kind", help="Only those of this kind.")
@click.option("--build", metavar="BUILD", help="Only those of this build.")
@json_option
@click.pass_obj
def list_(invocation: Invocation, place: str | None, kind: str | None, build: str | None) -> None:
    """List all live tickets. One that cannot be read is of no kind and no build."""
    of_build = None if build is None else str(BuildId.parse(build))
    with invocation.look_at() as system:
        views = [
            view
            for view in system.tickets.list()
            if place in (None, view.place)
            and (kind is None or (view.ticket and view.ticket.kind == kind))
            and (of_build is None or (view.ticket and view.ticket.body.get("build") == of_build))
        ]
    if not (views or place or kind or build):
        invocation.note_none("tickets")
    print_records(
        views,
        ("TICKET", "PLACE", "KIND", "LABELS", "POSTED", "WORKER", "REASON"),
        lambda view: (
            view.token,
            view.place,
            view.ticket.kind if view.ticket else "?",
            " ".join(view.ticket.labels) if view.ticket else "",
            moment(view.ticket.posted_ms) if view.ticket else "",
            view.worker,
            view.reason,
        ),
        is_json=invocation.is_json,
    )


@ticket.command(examples=("distci ticket show 7f3k2m", "distci ticket show 7f3k2m.2 --json"))
@click.argument("name", metavar="TICKET")
@json_option
@click.pass_obj
def show(invocation: Invocation, name: str) -> None:
    """Show one live ticket, by its id or token."""
    with invocation.look_at() as system:
        view = system.tickets.show(name)
    if invocation.is_json:
        print_json(view)
        return
    held = view.ticket
    print_facts(
        {
            "ticket": view.token,
            "place": view.place,
            "there for": age(view.since_ms),
            "worker": view.worker,
            "reason": view.reason,
        }
    )
    if held is not None:
        print_facts(
            {
                "kind": held.kind,
                "labels": " ".join(held.labels),
                "priority": held.priority,
                "project": held.project,
                "attempt": f"{held.attempt} of {held.attempts}",
                "posted": moment(held.posted_ms),
                **{f"body: {name}": value for name, value in held.body.items()},
            }
        )


@ticket.command(examples=("distci ticket requeue 7f3k2m",))
@click.argument("name", metavar="TICKET")
@json_option
@click.pass_obj
def requeue(invocation: Invocation, name: str) -> None:
    """Put a ticket that was set aside back into the queue, with its attempts counted anew."""
    with invocation.connect() as system:
        fresh = system.tickets.requeue(name)
    print_json(fresh) if invocation.is_json else print_line(f"{fresh.token} waits again")
