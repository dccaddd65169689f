"""``distci login``: a link that lets one person into the web page."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from distci.cli.command import Command, Invocation, json_option
from distci.cli.output import print_json, print_line
from distci.errors import Invalid, Unavailable

if TYPE_CHECKING:
    from distci.app import DistCI
    from distci.frontend.serving import FrontEnd
    from distci.settings import Settings

ANOTHER = "`distci login` prints a link that lets you in"


@click.command(cls=Command, examples=("distci login", "distci login --at https://ci.example.org"))
@click.option("--at", metavar="URL", help="Where the front end is.  [public_url, or where one listens on this machine]")
@json_option
@click.pass_obj
def login(invocation: Invocation, at: str | None) -> None:
    """Print a link that lets you into the web page as an owner of the whole system: once, within ten minutes.

    Whoever may run this on the back ends may do everything. Others log in by a provider (the settings oidc_...).
    """
    with invocation.connect_directly() as system:
        link = link_to(system, at or system.settings.public_url or _here(system.settings.listen))
    if invocation.is_json:
        print_json({"link": link})
    else:
        print_line(link)


def link_to(system: DistCI, address: str) -> str:
    """A login link for whoever runs this program, as an owner."""
    from distci.access.rights import check_name
    from distci.settings import LOGIN_PAGE

    try:
        name = check_name(system.settings.actor)
    except Invalid:
        name = "owner"
    with system.audit.note("session.link"):
        return f"{address.rstrip('/')}{LOGIN_PAGE}#{system.login_links.make(name)}"


def invitation(system: DistCI, front_end: FrontEnd) -> str:
    """What somebody who has just started a front end is told of how to log in.

    What a service prints is kept, and may be read by many: a link is printed where only this machine can use it, or to a terminal.
    """
    if not (front_end.is_local or sys.stdout.isatty()):
        return ANOTHER
    try:
        link = link_to(system, system.settings.public_url or front_end.address)
        return f"{link} (once, within ten minutes; `{_another(system.settings, front_end)}` prints another)"
    except Unavailable:
        return ANOTHER


def _another(settings: Settings, front_end: FrontEnd) -> str:
    """What to type elsewhere, where nobody knows what this program was told by flags."""
    from distci.cli import serving

    is_known = settings.public_url or not (serving.is_flag(settings, "listen") or settings.listen.endswith(":0"))
    return f"distci login{serving.told(settings)}" + ("" if is_known else f" --at {front_end.address}")


def _here(listen: str) -> str:
    from distci.frontend.serving import address_of, parse

    host, port = parse(listen)
    if not port:
        raise Invalid("where the front end is was left to chance; copy its address from what it printed: --at URL")
    return address_of(host, port)
