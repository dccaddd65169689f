"""``distci backup``: a copy of all that must last."""

from __future__ import annotations

import sys
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING

import click

from distci.cli.command import Command, Invocation, json_option
from distci.cli.output import print_json, print_line, size

if TYPE_CHECKING:
    from distci.backup import Copied
    from distci.store.port import Store

TELL_S = 0.2


@click.command(
    cls=Command,
    examples=("distci backup file:///mnt/backup/distci", "distci backup s3://backups/distci --json"),
)
@click.argument("other", metavar="URL")
@json_option
@click.pass_obj
def backup(invocation: Invocation, other: str) -> None:
    """Copy the whole store to another one, while builds run or not; again to the same one, only what is new.

    The copy may be broken off and begun again. Every object is compared by its digest. The coordination tree need not be copied.
    """
    from distci.app import open_store

    copy(invocation, open_store(invocation.settings()), other_store(invocation, other))


def other_store(invocation: Invocation, url: str) -> Store:
    """The store of a URL; InvalidSettings when it is none, or the system's own, which is no copy of itself."""
    from distci.app import open_store
    from distci.errors import InvalidSettings

    own = invocation.settings()
    settings = replace(own, store=url, origins={"store": "URL"})
    problems = settings.problems()
    if not problems and settings.is_store_of(own):
        problems = ["URL: is the system's own store; a copy is kept in another one"]
    if problems:
        raise InvalidSettings("this URL cannot be used:", problems)
    return open_store(settings)


def copy(invocation: Invocation, source: Store, target: Store) -> None:
    """Copy a store, and say how much that was; on a terminal also how far it is."""
    from distci.backup import copy as copy_store

    is_shown = sys.stderr.isatty() and not invocation.is_json
    told = monotonic()

    def tell(copied: Copied) -> None:
        nonlocal told
        if is_shown and monotonic() - told > TELL_S:
            told = monotonic()
            click.echo(f"\r{_amount(copied)}\x1b[K", err=True, nl=False)

    copied = copy_store(source, target, tell)
    if is_shown:
        click.echo("\r\x1b[K", err=True, nl=False)
    if invocation.is_json:
        print_json(copied)
        return
    print_line(_amount(copied))
    for build in copied.in_flight:
        print_line(f"{build} was not over: it begins again from this copy")


def _amount(copied: Copied) -> str:
    kept = f", {copied.kept} were there" if copied.kept else ""
    return f"{copied.objects} objects copied, {size(copied.size_bytes)}{kept}"
