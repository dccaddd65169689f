"""``distci up``: a whole system in one process."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from distci.cli import serving
from distci.cli.command import Command, Invocation
from distci.cli.frontend import listen_option
from distci.cli.worker import labels_option, secrets_option

if TYPE_CHECKING:
    from distci.app import DistCI
    from distci.isolation.choice import ChosenIsolation
    from distci.settings import Address, Settings


@click.command(
    cls=Command,
    examples=("distci up", "distci up --data /var/lib/distci --slots 8", "distci up --listen 127.0.0.1:9000"),
)
@click.option("--slots", type=click.IntRange(1), help="Tasks at once.  [as many as processors, at least 2]")
@labels_option
@secrets_option
@listen_option
@click.option("--no-frontend", "is_dumb", is_flag=True, help="Serve nothing over HTTP.")
@click.pass_obj
def up(
    invocation: Invocation,
    slots: int | None,
    labels: tuple[str, ...],
    secret_file: str | None,
    listen: str | None,
    is_dumb: bool,
) -> None:
    """Run workers of every kind and a front end in this process, on the configured back ends or on embedded ones.

    SIGTERM or Ctrl-C lets it finish what runs; a second one ends it at once.
    """
    from distci.cli import logs
    from distci.process import installed_kinds

    logs.begin(invocation.verbosity, is_service=True)
    secrets = serving.read_secrets(secret_file)
    kinds = installed_kinds()
    slots = slots or serving.slots_here()
    invocation.flags["listen"] = listen
    with ExitStack() as stack:
        if is_dumb:
            system, http = stack.enter_context(invocation.connect_directly()), ""
        else:
            system, http = _front_end(invocation, stack)
        isolation = serving.isolation_of(system.settings, serving.ON_ONE_MACHINE, kinds)
        elsewhere = serving.elsewhere(system.settings) or ""
        process = serving.worker_process(system, kinds, slots, isolation, elsewhere, labels=labels, secrets=secrets)
        serving.serve(process, _welcome(system.settings, kinds, slots, isolation, http))


def _front_end(invocation: Invocation, stack: ExitStack) -> tuple[DistCI, str]:
    """The system with a front end, and what is said of that. It ends after the workers: people look at what these finish."""
    from distci.cli.login import invitation
    from distci.frontend.metrics import Metrics
    from distci.frontend.serving import FrontEnd

    metrics = Metrics()
    system = stack.enter_context(invocation.connect_directly(metrics.around))
    front_end = stack.enter_context(FrontEnd(system, system.settings.listen, metrics=metrics))
    return system, f"\n  HTTP          {front_end.address}/api/v1/\n  log in        {invitation(system, front_end)}"


def _welcome(settings: Settings, kinds: list[str], slots: int, isolation: ChosenIsolation, http: str) -> str:
    told = serving.told(settings)
    return f"""\
DistCI serves {", ".join(kinds)}: {slots} tasks at once.
  coordination  {_shown(settings.coordination_address)}
  store         {_shown(settings.store_address)}
  data          {settings.data_folder}
  tasks run in  {serving.said(isolation, settings)}{http}
Try from another terminal:
  distci job put job.json{told}
  distci build trigger JOB --follow{told}
Ctrl-C finishes what runs and ends."""


def _shown(address: Address) -> str:
    """A back end's URL without what may be secret in it."""
    return f"{address.scheme}://{address.host.rpartition('@')[2]}{address.path}"
