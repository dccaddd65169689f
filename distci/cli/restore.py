"""``distci restore``: all that must last, back from a copy."""

from __future__ import annotations

import click

from distci.cli.backup import copy, other_store
from distci.cli.command import Command, Invocation, json_option, pasteable
from distci.cli.output import print_line


@click.command(
    cls=Command,
    examples=("distci restore file:///mnt/backup/distci", "distci cluster rebuild"),
)
@click.argument("other", metavar="URL")
@click.option("--force", is_flag=True, help="Also into a store that is not empty: what differs there is replaced.")
@json_option
@click.pass_obj
def restore(invocation: Invocation, other: str, force: bool) -> None:
    """Copy what distci backup has copied to URL into the store, which must be empty. Then have the tree rebuilt.

    It may be broken off; to begin again, say --force.
    """
    from distci.app import open_store
    from distci.backup import check_copy, check_empty

    source, target = other_store(invocation, other), open_store(invocation.settings())
    check_copy(source)
    if not force:
        check_empty(target)
    copy(invocation, source, target)
    if not invocation.is_json:
        print_line(pasteable("now put back what the coordination tree lacks: distci cluster rebuild"))
