"""The command line: everything that the library does, from a terminal.

Each group of commands is a module of its own beside this one, under its own name, and is imported when it is asked for: ``distci --help`` and
completion answer before any back end's library could have been loaded.

What a command raises ends here: one clear message on stderr (an object with ``--json``), and the exit code of the error's class. 0 is passed,
1 a failed build or a defect, 2 invalid use, 3 a cancelled build, 4 unavailable, 5 missing, 6 denied, 7 a conflict, 124 not in time, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any, NoReturn

import click

from distci.cli.command import Group, Invocation

COMMANDS = {
    "run": "Run a job here and now.",
    "up": "Run a whole system in this process.",
    "job": "Save, read, compare and check jobs.",
    "build": "Start, follow, cancel and repeat builds.",
    "reproduce": "Run a task of a build once more on this machine.",
    "hook": "Take in what forges tell; approve what strangers wrote.",
    "artifact": "List and fetch what builds published, and put files to them.",
    "test": "See the tests of builds; find flaky ones; put them in quarantine.",
    "frontend": "Serve all of this over HTTP.",
    "worker": "Run workers; see and drain those there are.",
    "ticket": "Look at the work that waits, runs or was set aside.",
    "events": "See which builds begin and end.",
    "why": "Say why something waits, was skipped or ran again.",
    "cluster": "See how the whole system does; pause, resume and rebuild it; weigh and limit its projects.",
    "login": "Print a link that lets you into the web page.",
    "access": "Say who may do what in which project.",
    "secret": "Set, list and forget what tasks may know and nobody may read.",
    "token": "Make, list and revoke access tokens.",
    "audit": "See who changed what.",
    "backup": "Copy all that must last to another store.",
    "restore": "Bring it back from there.",
    "check": "See whether this machine and its back ends are fit.",
    "bench": "Measure this system against its own back ends.",
    "chaos": "Kill its parts, and see whether every promise is kept.",
    "conformance": "Try a program as a worker, with all that can go wrong.",
    "completion": "Complete commands in bash, zsh or fish.",
}
"""Every command, in the order of the help page, with its first line there."""

INTERRUPTED = 130


def main() -> NoReturn:
    """The program ``distci``."""
    cli.main(prog_name="distci")


class Root(Group):
    """Imports a command when it is asked for, and turns how it ended into a message and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"distci.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([*COMMANDS.items()])

    def main(  # type: ignore[override]  # it ends the program in any case
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        **extra: Any,
    ) -> NoReturn:
        arguments = [*(sys.argv[1:] if args is None else args)]
        invocation = extra.setdefault("obj", Invocation())
        extra["standalone_mode"] = False
        call = partial(super().main, arguments, prog_name, complete_var, **extra)
        sys.exit(self._ended(invocation, call, "--json" in arguments))

    def _ended(self, invocation: Invocation, call: Callable[[], int | None], is_json: bool) -> int:
        """The exit code that a call comes to, its error reported; as JSON if it was asked for, however wrong the rest was."""
        try:
            code = call() or 0
            if sys.stdout is not None:
                sys.stdout.flush()
            return code
        except BrokenPipeError:
            # Whoever read our output has seen enough.
            _drop_output()
            return 1
        except click.Abort:
            click.echo("distci: interrupted", err=True)
            return INTERRUPTED
        except Exception as error:
            invocation.is_json |= is_json
            code = report(error, invocation)
            try:
                if sys.stdout is not None:
                    sys.stdout.flush()
            except OSError:
                _drop_output()
            return code


def _drop_output() -> None:
    """What could not be written is not to be tried again at exit, which would end with a code of its own."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def report(error: Exception, invocation: Invocation) -> int:
    """Say what went wrong, for people or as JSON; the exit code that it means."""
    from distci.errors import DistCIError, NoSuchBuild, NoSuchJob

    if isinstance(error, click.ClickException):
        if not invocation.is_json:
            error.show()
            return error.exit_code
        return _say(error, error.format_message(), error.exit_code, invocation)
    if isinstance(error, DistCIError):
        may_be_elsewhere = isinstance(error, NoSuchJob | NoSuchBuild) and invocation.unnamed and not invocation.is_json
        where = f" (in {invocation.unnamed}; --data or --url names another system)" if may_be_elsewhere else ""
        return _say(error, f"{error}{where}", error.exit_code, invocation)
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return _say(error, f"{place}{error.strerror}", 1, invocation)
    if invocation.verbosity:
        import traceback

        traceback.print_exception(error)
    hint = "" if invocation.verbosity else "; run with -v for the traceback"
    return _say(error, f"unexpected {type(error).__name__}: {error}{hint}", 1, invocation)


def _say(error: Exception, message: str, code: int, invocation: Invocation) -> int:
    if invocation.is_json:
        import json

        problems: Sequence[str] = getattr(error, "problems", ())
        document = {"error": type(error).__name__, "message": message, "problems": [*problems], "exit_code": code}
        message = json.dumps(document)
    else:
        message = f"distci: {invocation.pasteable(message)}"
    click.echo(message, err=True)
    return code


def _show_version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from distci import __version__

        click.echo(f"distci {__version__}")
        ctx.exit()


@click.group(
    cls=Root,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    examples=(
        "distci run job.json                       a whole job, here and now",
        "distci up                                 a whole system on this machine",
        "distci job put job.json",
        "distci build trigger team/hello --follow",
    ),
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Print the version."
)
def cli() -> None:
    """Continuous integration with no master.

    With nothing configured, everything is kept in a folder of yours (~/.local/share/distci). Options of the system
    may stand before or after the command.
    """
