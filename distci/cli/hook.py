"""``distci hook``: what forges and other sources tell."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

import click

from distci.cli.command import Group, Invocation, json_option, pasteable
from distci.cli.output import print_json, print_line, print_records
from distci.errors import Invalid, NoSuchReceiver
from distci.model import BuildId

if TYPE_CHECKING:
    from distci.hooks import Answer, ReceiverView

TAKEN, REFUSED = "taken", "refused"
"""Folders of a mail-drop for what has been read."""


def _header(text: str) -> tuple[str, str]:
    name, mark, value = text.partition(":")
    if not mark or not name.strip():
        raise click.BadParameter(f"{name!r} has no value; write NAME: VALUE.")
    return name.strip(), value.strip()


@click.group(
    cls=Group,
    examples=(
        "distci hook list",
        "distci hook deliver github push.json --header 'X-GitHub-Event: push' --header 'X-GitHub-Delivery: 1'",
        "distci hook approve 4f2a9c1e5b7d0836",
    ),
)
def hook() -> None:
    """See what receivers there are, play deliveries, approve what strangers wrote.

    A receiver reads what one sort of sender tells: github, gitlab, gitea (Forgejo too), directory, and those that packages bring.
    """


@hook.command("list", examples=("distci hook list", "distci hook list --json | jq .name"))
@json_option
@click.pass_obj
def list_(invocation: Invocation) -> None:
    """List the receivers that are installed, and how many secrets each goes by."""
    from distci.statuses import label

    with invocation.look_at() as system:
        views = [*system.hooks.list()]
        offered = {label for worker in system.status.workers() for label in worker.offer.labels}

    def told(view: ReceiverView) -> str:
        if not view.tells_status:
            return "not told"
        return "told" if label(view.name) in offered else "waiting: no live worker has the token"

    print_records(
        views,
        ("RECEIVER", "SECRETS", "STATUSES"),
        lambda view: (view.name, view.secrets or "none: it takes nothing", told(view)),
        is_json=invocation.is_json,
    )


@hook.command(
    examples=(
        "distci hook deliver github push.json --header 'X-GitHub-Event: push' --header 'X-GitHub-Delivery: 1'",
        "distci hook deliver gitlab - < push.json",
        "distci hook deliver github push.json --verify --header 'X-Hub-Signature-256: sha256=...' --json",
    )
)
@click.argument("receiver")
@click.argument("file")
@click.option(
    "--header",
    "headers",
    multiple=True,
    metavar="NAME:VALUE",
    callback=lambda ctx, param, values: dict(map(_header, values)),
    help="A header of the delivery; may be repeated.",
)
@click.option("--verify", is_flag=True, help="Have it prove its sender, as over HTTP.")
@json_option
@click.pass_obj
def deliver(invocation: Invocation, receiver: str, file: str, headers: Mapping[str, str], verify: bool) -> None:
    """Play the delivery in FILE (- for standard input), byte for byte, as if its sender had made it.

    The same delivery starts its builds once, however often and by whomever it is played.
    """
    body = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    with invocation.connect_directly() as system:
        take = system.hooks.deliver if verify else system.hooks.play
        answer = take(receiver, headers, body)
    _print_answer(answer, invocation.is_json)


@hook.command(
    examples=("distci hook collect /var/spool/distci", "distci hook collect ./drop --receiver acme.mail --json")
)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--receiver", default="directory", show_default=True, help="Who reads the files.")
@json_option
@click.pass_obj
def collect(invocation: Invocation, folder: Path, receiver: str) -> int:
    """Take in every *.json file of FOLDER as a delivery.

    A file that was read goes to FOLDER/taken; one that makes no sense to FOLDER/refused, with the reason beside it. Whoever puts files
    there writes them under another name first, and renames them. Exits with 2 when any was refused.
    """
    refused = False
    with invocation.connect_directly() as system:
        if receiver not in [view.name for view in system.hooks.list()]:
            raise NoSuchReceiver(f"no receiver {receiver!r} is installed; `distci hook list` shows those there are")
        for file in sorted(folder / name for name in os.listdir(folder) if fnmatch(name, "[!.]*.json")):
            try:
                answer = system.hooks.play(receiver, {"X-DistCI-Delivery": file.name}, file.read_bytes())
            except Invalid as error:
                refused = True
                _move(file, folder / REFUSED, str(error))
                click.echo(f"distci: {file}: {error}", err=True)
                continue
            # After its builds are there: who dies before this reads it once more, and starts nothing new.
            _move(file, folder / TAKEN)
            _print_answer(answer, invocation.is_json)
    return 2 if refused else 0


@hook.command(examples=("distci hook held", "distci hook held --json | jq .change.message"))
@json_option
@click.pass_obj
def held(invocation: Invocation) -> None:
    """List the changes by people without rights to their repository, which wait until somebody approves them."""
    with invocation.look_at() as system:
        waiting = [*system.hooks.held()]
    print_records(
        waiting,
        ("ID", "REPOSITORY", "REF", "COMMIT", "BY", "WHAT"),
        lambda held: (
            held.id,
            held.change.repository,
            held.change.ref,
            held.change.commit[:12],
            held.change.actor,
            held.change.message.partition("\n")[0][:60],
        ),
        is_json=invocation.is_json,
    )


@hook.command(examples=("distci hook approve 4f2a9c1e5b7d0836",))
@click.argument("change", metavar="ID")
@json_option
@click.pass_obj
def approve(invocation: Invocation, change: str) -> None:
    """Build a change that was held. Its builds get no secrets all the same."""
    with invocation.connect() as system:
        answer = system.hooks.approve(change, system.settings.actor)
    _print_answer(answer, invocation.is_json)


@hook.command(examples=("distci hook refuse 4f2a9c1e5b7d0836",))
@click.argument("change", metavar="ID")
@json_option
@click.pass_obj
def refuse(invocation: Invocation, change: str) -> None:
    """Let a change that was held wait no longer."""
    with invocation.connect() as system:
        system.hooks.refuse(change)
    print_json({"id": change, "is_refused": True}) if invocation.is_json else print_line(f"{change} is refused")


def _print_answer(answer: Answer, is_json: bool) -> None:
    if is_json:
        print_json(answer)
        return
    if answer.reason:
        print_line(f"{answer.event} {answer.delivery}: nothing is built: {answer.reason}")
    for job in answer.jobs:
        print_line(pasteable(_line(job.job, job.build, job.reason)))


def _line(job: str, build: BuildId | None, reason: str) -> str:
    return str(build) if build else f"{job}: nothing is built: {reason}"


def _move(file: Path, folder: Path, reason: str = "") -> None:
    folder.mkdir(exist_ok=True)
    if reason:
        (folder / f"{file.name}.reason").write_text(f"{reason}\n")
    os.replace(file, folder / file.name)
