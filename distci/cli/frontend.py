"""``distci frontend``: the system over HTTP."""

from __future__ import annotations

import click

from distci.cli import serving
from distci.cli.command import Command, Invocation

listen_option = click.option(
    "--listen", metavar="HOST:PORT", help="Where to be found; port 0 takes a free one.  [DISTCI_LISTEN, 127.0.0.1:8420]"
)


@click.command(cls=Command, examples=("distci frontend", "distci frontend --listen 127.0.0.1:9000"))
@listen_option
@click.pass_obj
def frontend(invocation: Invocation, listen: str | None) -> None:
    """Serve the HTTP API and the web page until SIGTERM or Ctrl-C, and print a link that lets you in.

    Any number of front ends may serve one system; each may end at any moment.
    """
    from distci.cli import logs
    from distci.cli.login import invitation
    from distci.frontend.metrics import Metrics
    from distci.frontend.serving import FrontEnd

    logs.begin(invocation.verbosity, is_service=True)
    invocation.flags["listen"] = listen
    serving.allow_many_files()
    metrics = Metrics()
    with invocation.connect_directly(metrics.around) as system:
        front_end = FrontEnd(system, system.settings.listen, metrics=metrics)
        serving.serve_http(front_end, invitation(system, front_end))
