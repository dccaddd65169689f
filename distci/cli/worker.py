"""``distci worker``: processes that do the work."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from distci.cli import serving
from distci.cli.command import Group, Invocation, json_option
from distci.cli.output import moment, print_json, print_line, print_records
from distci.errors import CoordinationUnavailable, NoSuchWorker

WELL_WITHIN_S = 60.0
"""Longer than most elections and restarts of ZooKeeper take."""

secrets_option = click.option(
    "--secret-file",
    metavar="FILE",
    help="TOML file of this machine's own secrets: below [\"PROJECT\"], NAME = 'value'.",
)
labels_option = click.option(
    "--label", "labels", multiple=True, metavar="NAME[=VALUE]", help="What tasks may ask for; may be repeated."
)


@click.group(cls=Group, examples=("distci worker run shell git-checkout --slots 4", "distci worker list"))
def worker() -> None:
    """Run workers; see and drain those there are."""


@worker.command(
    examples=(
        "distci worker run control",
        "distci worker run shell git-checkout --slots 4 --label os=linux",
        "distci worker run shell --only gpu=a100",
        "distci worker run shell --url https://ci.example.org",
    )
)
@click.argument("kinds", nargs=-1, required=True, metavar="KIND...")
@labels_option
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

    A second signal ends the process at once; its tasks are taken over by others. With a front end's URL, and a token that was made by
    `distci token create --worker`, it needs neither tree nor store.
    """
    from distci.app import open_front_end
    from distci.cli import logs

    logs.begin(invocation.verbosity, is_service=True)
    labels = tuple(dict.fromkeys((*labels, *only)))
    secrets = serving.read_secrets(secret_file)
    options = {"name": name, "labels": labels, "only": only, "secrets": secrets}
    settings = invocation.any_settings()
    if settings.url:
        isolation = serving.isolation_of(settings, serving.AS_EVER, kinds)
        front_end = open_front_end(settings, serving.elsewhere(settings))
        process = serving.process_for(front_end, settings, kinds, slots, isolation, **options)
        serving.serve(process, _welcome(process.names, serving.unmet(isolation, settings)))
        return
    with invocation.connect_directly() as system:
        isolation = serving.isolation_of(system.settings, serving.AS_EVER, kinds)
        elsewhere = serving.elsewhere(system.settings)
        process = serving.worker_process(system, kinds, slots, isolation, elsewhere, **options)
        serving.serve(process, _welcome(process.names, serving.unmet(isolation, settings)))


def _welcome(names: Sequence[str], unmet: str) -> str:
    return f"Serving as {' and '.join(names)}{unmet}. Ctrl-C finishes what runs and ends."


@worker.command("list", examples=("distci worker list", "distci worker list --json | jq .name"))
@json_option
@click.pass_obj
def list_(invocation: Invocation) -> None:
    """List the live workers and the tickets that they hold."""
    with invocation.look_at() as system:
        serving_now = system.status.workers()
    if not serving_now:
        invocation.note_none("live workers")
    print_records(
        serving_now,
        ("WORKER", "STATE", "KINDS", "LABELS", "SLOTS", "HOST", "VERSION", "SINCE", "HOLDS"),
        lambda view: (
            view.name,
            "draining" if view.is_draining else "live",
            " ".join(view.offer.kinds),
            " ".join(view.offer.labels),
            view.slots,
            view.host,
            view.version,
            moment(view.since_ms),
            " ".join(view.holds),
        ),
        is_json=invocation.is_json,
    )


@worker.command(examples=("distci worker check", "distci worker check --within 300"))
@click.option(
    "--within",
    "within_s",
    type=click.FloatRange(0, min_open=True),
    default=WELL_WITHIN_S,
    show_default=True,
    metavar="SECONDS",
    help="How long ago each process may have had its session for the last time, or an answer of a front end.",
)
@json_option
@click.pass_obj
def check(invocation: Invocation, within_s: float) -> None:
    """See whether the worker processes of this data folder are well; for health checks, which ask often.

    It asks neither tree nor store nor front end. Exits with 0 when all are well, 4 when one has had none for too long, 5 when there is none.
    """
    from distci.process import beats

    scratch = serving.scratch(invocation.any_settings())
    now_s = time.time()
    ages_s = {name: max(0.0, now_s - beat_s) for name, beat_s in beats(scratch).items()}
    if not ages_s:
        raise NoSuchWorker(f"no worker process runs with its scratch space in {scratch}")
    silent = [f"{name} for {age_s:.0f} s" for name, age_s in ages_s.items() if age_s > within_s]
    if silent:
        raise CoordinationUnavailable(f"without a session: {', '.join(silent)}")
    for name, age_s in ages_s.items():
        print_json({"name": name, "age_s": age_s}) if invocation.is_json else print_line(f"{name} is well")


@worker.command(examples=("distci worker drain build-7-shell",))
@click.argument("name")
@json_option
@click.pass_obj
def drain(invocation: Invocation, name: str) -> None:
    """Let a worker finish what it holds and take nothing more."""
    with invocation.connect() as system:
        system.tickets.drain(name)
    print_json({"name": name, "is_draining": True}) if invocation.is_json else print_line(f"{name} is draining")
