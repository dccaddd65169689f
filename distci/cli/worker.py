"""``distci worker``: processes that do the work."""

from __future__ import annotations

from collections.abc import Sequence

import click

from distci.cli import serving
from distci.cli.command import Group, Invocation, json_option
from distci.cli.output import moment, print_json, print_line, print_records

secrets_option = click.option(
    "--secret-file", metavar="FILE", help="TOML file of the secrets that tasks may name: NAME = 'value'."
)


@click.group(cls=Group, examples=("distci worker run shell git-checkout --slots 4", "distci worker list"))
def worker() -> None:
    """Run workers; see and drain those there are."""


@worker.command(
    examples=(
        "distci worker run control",
        "distci worker run shell git-checkout --slots 4 --label os=linux",
        "distci worker run shell --only gpu=a100",
    )
)
@click.argument("kinds", nargs=-1, required=True, metavar="KIND...")
@click.option(
    "--label", "labels", multiple=True, metavar="NAME[=VALUE]", help="What tasks may ask for; may be repeated."
)
@click.option("--only", multiple=True, metavar="LABEL", help="A label, too; takes only tasks that ask for it.")
@click.option("--slots", type=click.IntRange(1), default=1, show_default=True, help="Tasks at once.")
@click.option("--name", default="", help="Begins the names of its workers.  [host and some letters]")
@secrets_option
@click.pass_obj
def run(
    invocation: Invocation,
    kinds: tuple[str, ...],
    labels: tuple[str, ...],
    only: tuple[str, ...],
    slots: int,
    name: str,
    secret_file: str | None,
) -> None:
    """Serve tickets of these kinds until drained, or until SIGTERM or Ctrl-C; what runs then is finished first.

    A second signal ends the process at once; its tasks are taken over by others.
    """
    from distci.cli import logs

    logs.begin(invocation.verbosity, is_service=True)
    labels = tuple(dict.fromkeys((*labels, *only)))
    secrets = serving.read_secrets(secret_file)
    with invocation.connect() as system:
        process = serving.worker_process(system, kinds, slots, name=name, labels=labels, only=only, secrets=secrets)
        serving.serve(process, _welcome(process.names))


def _welcome(names: Sequence[str]) -> str:
    return f"Serving as {' and '.join(names)}. Ctrl-C finishes what runs and ends."


@worker.command("list", examples=("distci worker list", "distci worker list --json | jq .name"))
@json_option
@click.pass_obj
def list_(invocation: Invocation) -> None:
    """List the live workers."""
    from distci.protocol.members import workers

    with invocation.connect() as system:
        views = list(workers(system.tickets))
    print_records(
        views,
        ("WORKER", "STATE", "KINDS", "LABELS", "SLOTS", "HOST", "VERSION", "SINCE"),
        lambda view: (
            view.name,
            "draining" if view.is_draining else "live",
            " ".join(view.offer.kinds),
            " ".join(view.offer.labels),
            view.slots,
            view.host,
            view.version,
            moment(view.since_ms),
        ),
        is_json=invocation.is_json,
    )


@worker.command(examples=("distci worker drain build-7-shell",))
@click.argument("name")
@json_option
@click.pass_obj
def drain(invocation: Invocation, name: str) -> None:
    """Let a worker finish what it holds and take nothing more."""
    from distci.protocol.members import drain as ask_to_drain

    with invocation.connect() as system:
        ask_to_drain(system.tickets, name)
    print_json({"name": name, "is_draining": True}) if invocation.is_json else print_line(f"{name} is draining")
