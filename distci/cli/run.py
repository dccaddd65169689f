"""``distci run``: one job, here and now, by the same planner, protocol and workers as everywhere."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from shlex import quote
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING, Any

import click

from distci.cli import following, serving
from distci.cli.command import CONFIG, DATA, VERBOSITY, Command, Invocation, json_option, pair, parameter_option
from distci.cli.job import read_document
from distci.cli.output import print_line
from distci.cli.reports import print_reports
from distci.cli.room import require_room, watched_room
from distci.cli.worker import labels_option
from distci.errors import DistCIError, Invalid, InvalidJob
from distci.projects import SYSTEM

if TYPE_CHECKING:
    from distci.app import DistCI
    from distci.builds import BuildView
    from distci.isolation.choice import ChosenIsolation
    from distci.model import BuildId, Job
    from distci.settings import Settings

CANCELLING = "cancelling the build; once more to leave at once"


secret_option = click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="NAME[=VALUE]",
    callback=lambda ctx, param, values: dict(map(_secret, values)),
    help="Without VALUE: the environment variable of that name.",
)


class RunCommand(Command):
    """A command that brings its own back ends."""

    shared = (DATA, CONFIG, VERBOSITY)


@click.command(
    cls=RunCommand,
    examples=(
        "distci run job.json",
        "distci run job.json --parameter LEVEL=full --secret TOKEN --label gpu",
        "distci run - --data ./ci < job.json",
    ),
)
@click.argument("file")
@parameter_option
@secret_option
@click.option("--keep", is_flag=True, help="Keep the temporary folder, with log and artifacts.")
@click.option("--slots", type=click.IntRange(1), help="Tasks at once.  [as many as processors, at least 2]")
@labels_option
@json_option
@click.pass_obj
def run(
    invocation: Invocation,
    file: str,
    parameters: Mapping[str, str],
    secrets: Mapping[str, str],
    keep: bool,
    slots: int | None,
    labels: tuple[str, ...],
) -> int:
    """Run the job in FILE (- for standard input) on this machine, with nothing else needed.

    Everything happens in a temporary folder, or in --data DIR. Exits with the result: 0 passed, 1 failed, 3
    cancelled. Ctrl-C cancels the build and waits for its end; a second one leaves at once.
    """
    from distci.process import installed_kinds

    document = read_document(file)
    with _system(invocation, keep) as (folder, system), watched_room(folder):
        version = system.jobs.put(document, actor=system.settings.actor)
        kinds = installed_kinds()
        isolation = serving.isolation_of(system.settings, serving.ON_ONE_MACHINE, kinds)
        _check_doable(version.definition(), kinds, labels, isolation)
        slots = slots or serving.slots_here()
        # Whoever waits for its end is the only one who could come while a task is held.
        options: dict[str, Any] = {"labels": labels, "secrets": {SYSTEM: secrets}, "hold_max_s": None}
        with serving.worker_process(system, kinds, slots, isolation, **options):
            build = system.builds.trigger(version.job, parameters)
            view = _to_the_end(system, build, invocation.is_json)
        is_kept = keep or invocation.flags.get("data") is not None
        _print_summary(system, view, folder if is_kept else None, invocation.is_json)
    return following.EXIT_CODES[view.result] if view.result else following.NOT_IN_TIME


def _secret(text: str) -> tuple[str, str]:
    if "=" in text:
        return pair(text)
    if text not in os.environ:
        raise click.BadParameter(f"there is no environment variable {text!r}; set it, or write NAME=VALUE.")
    return text, os.environ[text]


@contextmanager
def _system(invocation: Invocation, keep: bool) -> Iterator[tuple[Path, DistCI]]:
    from distci.app import DistCI

    with _folder(invocation, keep) as folder:
        require_room(folder)
        with DistCI(_settings(invocation, folder)) as system:
            yield folder, system


@contextmanager
def _folder(invocation: Invocation, keep: bool) -> Iterator[Path]:
    """Where the embedded back ends live; gone afterwards unless it is wanted."""
    for back_end in ("coordination", "store"):
        if invocation.flags.get(back_end) is not None:
            raise Invalid(
                f"--{back_end}: `distci run` needs no back ends; `distci build trigger` starts builds on them"
            )
    data = invocation.flags.get("data")
    if data is not None:
        yield Path(data).absolute()
    elif keep:
        yield Path(mkdtemp(prefix="distci-run-"))
    else:
        with TemporaryDirectory(prefix="distci-run-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)


def _settings(invocation: Invocation, folder: Path) -> Settings:
    """What is configured, except for the back ends."""
    return replace(invocation.settings_without_system(), coordination="", store="", data=str(folder))


def _check_doable(job: Job, kinds: Sequence[str], labels: Sequence[str], isolation: ChosenIsolation) -> None:
    """Raise InvalidJob for tasks that no worker here would take: they would wait for ever, and nobody be told."""
    from distci.build_tickets import kind_of
    from distci.model import APPROVAL, PASSING
    from distci.plan import expand_tasks
    from distci.protocol import Offer

    offer = Offer(kinds, labels)
    problems = []
    for task in expand_tasks(job, {})[0]:
        if task.type == APPROVAL:
            problems.append(
                f"task {task.name} waits for an approval, and nobody is here to give it; `distci up` has a page for that"
            )
        elif task.type in PASSING:
            continue
        elif kind_of(task.type) not in kinds:
            problems.append(f"task {task.name}: no worker of kind {kind_of(task.type)!r} is installed")
        elif task.isolation.get("type", isolation.types[0]) not in isolation.types:
            wanted = task.isolation["type"]
            reason = isolation.missing.get(wanted, f"what may be had here is {', '.join(isolation.types)}")
            problems.append(f"task {task.name} wants isolation {wanted}: {reason}")
        elif not offer.accepts(kind_of(task.type), task.labels):
            options = " ".join(f"--label {quote(label)}" for label in task.labels)
            problems.append(
                f"task {task.name} asks for {', '.join(task.labels)}; if this machine will do, add {options}"
            )
    if problems:
        raise InvalidJob(f"job {job.id} cannot run here:", problems)


def _to_the_end(system: DistCI, build: BuildId, is_json: bool) -> BuildView:
    from distci.cli.interrupts import interrupts

    def cancel() -> None:
        try:
            system.builds.cancel(build, "interrupted")
        except DistCIError as error:
            click.echo(f"distci: {build} cannot be cancelled: {error}", err=True)

    with interrupts(cancel, CANCELLING):
        following.print_logs(system, build, is_json=is_json)
        return system.builds.wait(build)


def _print_summary(system: DistCI, view: BuildView, kept: Path | None, is_json: bool) -> None:
    if not is_json:
        click.echo()
        following.print_tasks(view)
        print_reports(view)
        click.echo()
    following.print_end(view, is_json)
    artifacts = system.artifacts.list(view.id)
    if is_json:
        return
    if kept is not None:
        print_line(f"log:       distci build log {view.id} --data {quote(str(kept))}")
        if artifacts:
            print_line(f"artifacts: distci artifact get {view.id} --data {quote(str(kept))}")
    elif artifacts:
        count = "1 artifact" if len(artifacts) == 1 else f"{len(artifacts)} artifacts"
        print_line(f"{count} went with the temporary folder; --keep or --data DIR keeps them")
