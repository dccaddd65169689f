"""``distci reproduce``: a task of a build, once more, on this machine."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from shlex import quote
from tempfile import mkdtemp
from threading import Event
from typing import TYPE_CHECKING

import click

from distci.cli import serving
from distci.cli.command import Command, Invocation
from distci.cli.output import print_bytes
from distci.cli.run import secret_option
from distci.errors import Invalid
from distci.model import BuildId, Outcome, Task, Verdict

if TYPE_CHECKING:
    from distci.brokers.alone import Alone
    from distci.isolation.choice import ChosenIsolation
    from distci.model import Json
    from distci.reproductions import Reproduction
    from distci.settings import Settings

STOPPING = "ending the task; once more to leave at once"
SIGNALLED, NOT_IN_TIME, FAILED, STOPPED = 128, 124, 1, 3


@click.command(
    cls=Command,
    examples=(
        "distci reproduce team/hello#12 test",
        "distci reproduce team/hello#12 test --shell",
        "distci reproduce team/hello#12 deploy --secret TOKEN --directory ./again",
        "distci reproduce team/hello#12 'test[3.12]' --url https://ci.example.org --isolation host",
    ),
)
@click.argument("build", callback=lambda ctx, param, value: BuildId.parse(value))
@click.argument("task")
@click.option("--shell", "wants_shell", is_flag=True, help="Begin a shell where the script fails, before it ends.")
@click.option("--directory", metavar="DIR", help="Where to work; there must be nothing yet.  [a new folder]")
@secret_option
@click.option(
    "--isolation", "wanted", metavar="TYPE", help="Run it in that, with no limits: host, sandbox, container, lxc, vm."
)
@click.pass_obj
def reproduce(
    invocation: Invocation,
    build: BuildId,
    task: str,
    wants_shell: bool,
    directory: str | None,
    secrets: Mapping[str, str],
    wanted: str | None,
) -> int:
    """Run TASK of BUILD once more on this machine, as its latest attempt was run, and exit as its script does.

    The script, its variables, the digest of its image and the files that it begins with are those of the build. Secrets are not: those that are
    given by --secret are taken, the others asked for. Nothing that it comes to is kept but in the folder where it works.
    """
    from distci.app import open_scratch_store
    from distci.brokers.alone import Alone

    if wants_shell and not sys.stdin.isatty():
        raise Invalid("--shell needs a terminal to type on; leave it out, or call it from one")
    with invocation.look_at() as system, ExitStack() as stack:
        told = system.reproductions.get(build, task)
        if told.build != build:
            _say(f"{build} took this task over from {told.build}")
        settings = invocation.any_settings()
        kind = told.plan.task(task).type
        isolation = serving.isolation_of(settings, serving.ON_ONE_MACHINE, [kind])
        told = _with(told, _fitted(told.plan.task(task), isolation, wanted, wants_shell))
        values = _values(told.plan.task(task), secrets)
        folder = _made(directory)
        assignment = Alone(told, system, open_scratch_store, values, print_bytes)
        outcome = _run(stack, settings, isolation, assignment, folder, wants_shell)
    _say(f"{task} {outcome.verdict}{f': {outcome.reason}' if outcome.reason else ''}")
    named = Path(directory) if directory else folder
    _say(f"its files are in {named / 'workspace'}; remove them with: rm -rf {quote(str(named))}")
    return _code(outcome)


def _run(
    stack: ExitStack, settings: Settings, isolation: ChosenIsolation, assignment: Alone, folder: Path, wants_shell: bool
) -> Outcome:
    from distci.cli.hands import hands
    from distci.cli.interrupts import interrupts
    from distci.isolation.terminal import Terminal
    from distci.memory import folder_in, name_for
    from distci.process import Memory, load_kind
    from distci.rehearsal import Rehearsal, Stepping
    from distci.work import Site
    from distci.worker_loop import attempt

    memory = Memory(folder_in(Path(settings.secret_folder)), name_for(folder.name, folder))
    stack.callback(memory.close)
    site = Site(isolation, folder, settings.search_path, {}, memory.folder, None, settings.diagnose_after_s)
    terminal = stack.enter_context(Terminal(folder / "terminal")) if wants_shell else None
    context = Rehearsal(site, assignment, folder, print_bytes, terminal)
    stack.enter_context(interrupts(assignment.stop, STOPPING))
    if terminal:
        stack.enter_context(hands(terminal, lambda: context.is_in_shell))
    attempt(Stepping(load_kind(assignment.task.type)()), assignment, context)
    assert assignment.outcome is not None, "it has been settled"
    return assignment.outcome


def _with(told: Reproduction, task: Task) -> Reproduction:
    tasks = tuple(task if other.name == task.name else other for other in told.plan.tasks)
    return replace(told, plan=replace(told.plan, tasks=tasks))


def _fitted(task: Task, isolation: ChosenIsolation, wanted: str | None, wants_shell: bool) -> Task:
    """The task, as far as this machine can isolate it; what it cannot is said."""
    from distci.isolation.port import HOST

    # Whoever types takes their time.
    task = replace(task, timeout_s=None) if wants_shell else task
    asked: Mapping[str, Json] = task.isolation
    named = wanted or asked.get("type") or ""
    # What an image is called means something to its own type alone.
    kept = {"image": asked["image"]} if "image" in asked and named == asked.get("type", "container") else {}
    reason = _lack(isolation, named, kept.get("image", "")) if named else ""
    if wanted and reason:
        raise Invalid(f"--isolation {wanted}: {reason}")
    if wanted:
        return replace(task, isolation={"type": wanted, **kept})
    if not reason:
        return task
    instead = next((other for other in isolation.types if other != named), "")
    if not instead:
        raise Invalid(f"isolation {named} cannot be had here, nor any other: {reason}")
    if instead == HOST and asked.get("network") is False:
        raise Invalid(
            f"isolation {named} cannot be had here: {reason}; task {task.name} is to have no network, which the host cannot keep from it: "
            f"to run it there with all that this machine reaches, add --isolation {HOST}"
        )
    _say(f"isolation {named} cannot be had here: {reason}")
    image = f" in place of those of {asked['image']}" if "image" in asked else ""
    _say(f"it runs in {instead} instead, with this machine's own tools{image} and without limits")
    return replace(task, isolation={"type": instead})


def _lack(isolation: ChosenIsolation, named: str, image: str) -> str:
    """Why that way of isolation, with that image, cannot be had here; empty when it can, or only a registry knows."""
    from distci.isolation.port import LXC, VM, Confinement

    if named not in isolation.types:
        return isolation.missing.get(named, f"what may be had is {', '.join(isolation.types)}")
    if image and named in (LXC, VM):
        try:
            isolation.settle(Confinement(type=named, image=image), Event())
        except Invalid as error:
            return str(error).removeprefix(f"isolation {named}: ")
    return ""


def _values(task: Task, given: Mapping[str, str]) -> Mapping[str, str]:
    """The secrets that the task names: those that were given, and those that somebody is asked for at the terminal."""
    names = dict.fromkeys(task.named_secrets)
    missing = [name for name in names if name not in given]
    if missing and not sys.stdin.isatty():
        options = " ".join(f"--secret {name}" for name in missing)
        raise Invalid(
            f"task {task.name} has secrets, and nobody is here to be asked: set {', '.join(missing)} in the environment, and add {options}"
        )
    asked = {name: click.prompt(f"secret {name}", hide_input=True, err=True) for name in missing}
    return {name: given[name] if name in given else asked[name] for name in names}


def _made(directory: str | None) -> Path:
    """A new folder to work in."""
    if directory is None:
        folder = Path(mkdtemp(prefix="distci-reproduce-"))
    else:
        folder = Path(directory).absolute()
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            raise Invalid(f"--directory: {directory} is there already; name one that is not") from None
    # Who the task runs as comes to its workspace through it.
    folder.chmod(0o711)
    return folder


def _code(outcome: Outcome) -> int:
    if outcome.signal is not None:
        return SIGNALLED + outcome.signal
    if outcome.verdict is Verdict.PASSED:
        return 0  # whatever its script said: its tests may have decided
    others = {Verdict.TIMED_OUT: NOT_IN_TIME, Verdict.CANCELLED: STOPPED}
    return outcome.exit_status or others.get(outcome.verdict, FAILED)


def _say(text: str) -> None:
    click.echo(f"distci: {text}", err=True)
