"""``distci secret``: what tasks may know and nobody may read."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from distci.cli.command import Group, Invocation, json_option, reason_option, within_option
from distci.cli.output import moment, print_json, print_line, print_records
from distci.errors import Invalid
from distci.projects import called
from distci.providers.port import without_line_end


@click.group(
    cls=Group,
    examples=(
        "distci secret set DEPLOY_TOKEN --project team/web < token",
        "distci secret list --project team",
        "distci secret delete DEPLOY_TOKEN --project team/web",
    ),
)
def secret() -> None:
    """Set, list and forget secrets of projects; seal them with another master key.

    A task gets the secrets that it names, of its job's project or one around it. Nobody is ever told a value again.
    """


@secret.command(
    "set",
    examples=(
        "distci secret set DEPLOY_TOKEN --project team/web < token",
        "distci secret set NPM_TOKEN --project team --json < npm-token",
        "distci secret set SSH_KEY --project team/web --file ~/.ssh/deploy --reason 'the old one was in a log'",
    ),
)
@click.argument("name")
@within_option
@click.option("--file", type=click.Path(path_type=Path), metavar="FILE", help="The value is in FILE.  [standard input]")
@reason_option
@json_option
@click.pass_obj
def set_(invocation: Invocation, name: str, project: str, file: Path | None, reason: str) -> None:
    """Set the secret NAME to what standard input says, in place of any other value; a terminal is asked for it.

    A value of one line loses the newline at its end.
    """
    value = _value(file)
    with invocation.connect() as system:
        done = system.secrets.set(name, value, project, actor=system.settings.actor, reason=reason)
    print_json(done) if invocation.is_json else print_line(f"{name} is set for {called(project)}")


@secret.command("list", examples=("distci secret list", "distci secret list --project team --json | jq .name"))
@within_option
@json_option
@click.pass_obj
def list_(invocation: Invocation, project: str) -> None:
    """List the secrets that are set for a project and those within it: their names, never their values."""
    with invocation.look_at() as system:
        found = [*system.secrets.list(project)]
    print_records(
        found,
        ("PROJECT", "SECRET", "SET", "BY"),
        lambda secret: (called(secret.project), secret.name, moment(secret.set_ms), secret.set_by),
        is_json=invocation.is_json,
    )


@secret.command(examples=("distci secret delete DEPLOY_TOKEN --project team/web",))
@click.argument("name")
@within_option
@reason_option
@json_option
@click.pass_obj
def delete(invocation: Invocation, name: str, project: str, reason: str) -> None:
    """Forget the secret NAME of just that project."""
    with invocation.connect() as system:
        system.secrets.delete(name, project, actor=system.settings.actor, reason=reason)
    if invocation.is_json:
        print_json({"project": project, "name": name, "is_deleted": True})
    else:
        print_line(f"{name} is no secret of {called(project)} any more")


@secret.command(examples=("distci secret rotate", "distci secret rotate --project team --json"))
@within_option
@reason_option
@json_option
@click.pass_obj
def rotate(invocation: Invocation, project: str, reason: str) -> None:
    """Seal what secrets are sealed with anew, with the first of the master keys; no value changes.

    Put a new key before the old one wherever secrets are sealed or opened, rotate, then take the old one away.
    """
    with invocation.connect() as system:
        done = system.secrets.rotate(project, actor=system.settings.actor, reason=reason)
    if invocation.is_json:
        print_json(done)
    else:
        print_line(f"{done.sealed} data keys are sealed anew; {done.kept} were already")


def _value(file: Path | None) -> str:
    if file is None and sys.stdin.isatty():
        value: str = click.prompt("value", hide_input=True, err=True)
        return value
    data = sys.stdin.buffer.read() if file is None else file.read_bytes()
    try:
        return without_line_end(data.decode())
    except UnicodeDecodeError:
        # The cause would quote it.
        raise Invalid("the value is no text; write it as base64, and have its task decode it") from None
