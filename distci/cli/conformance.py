"""``distci conformance``: whether a program is a worker."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp

import click

from distci.cli.chaos import LAUNCHER
from distci.cli.command import Invocation, LocalCommand, json_option
from distci.cli.output import print_json, print_line


@click.command(
    cls=LocalCommand,
    examples=(
        "distci conformance -- ./worker.sh",
        "distci conformance --case cancel --case claim-lost -- python3 my_worker.py",
        "distci conformance --json -- ./worker.sh | jq 'select(.is_met | not)'",
    ),
)
@click.option("--case", "cases", multiple=True, metavar="NAME", help="Only this case; may be repeated.")
@click.option(
    "--kind", default="shell", show_default=True, help="The kind of task, which has a script, that it is given."
)
@click.option(
    "--patience",
    type=click.FloatRange(1),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long it may take for what it is expected to do at once.",
)
@click.option("--keep", is_flag=True, help="Keep the folder with the worker's own output.  [when it is no worker]")
@click.argument("command", nargs=-1, required=True, metavar="-- COMMAND...")
@json_option
@click.pass_obj
def conformance(
    invocation: Invocation, cases: Sequence[str], kind: str, patience: float, keep: bool, command: Sequence[str]
) -> int:
    """Try a program as a worker of the ticket gateway, on a system of its own: with work, and with all that can go wrong.

    The program is started for each case, with DISTCI_URL, DISTCI_TOKEN and DISTCI_KIND in its environment, and ended by SIGTERM. Exits with 0 when
    it did all that is expected of a worker, with 1 otherwise.
    """
    from distci.conformance.cases import CASES
    from distci.conformance.run import run
    from distci.conformance.stage import Options

    # Whoever ends us, what we have started is to end with us.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(mkdtemp(prefix="distci-conformance-"))
    width = max(len(case.name) for case in CASES)
    is_worker, is_kept = True, keep
    try:
        for verdict in run(Options(command, kind, folder, LAUNCHER, os.environ, patience), cases, _tell):
            is_worker &= verdict.is_met
            is_kept |= not verdict.is_met
            _tell("")
            if invocation.is_json:
                print_json(verdict)
                continue
            print_line(f"{verdict.case:{width}}  {'passed' if verdict.is_met else 'FAILED'}  {verdict.seen}")
            if not verdict.is_met:
                print_line(f"{'':{width}}  expected: {verdict.expected}")
    finally:
        _tell("")
        if is_kept:
            click.echo(f"kept in {folder}; what the program said is in worker.log", err=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return 0 if is_worker else 1


def _tell(what: str) -> None:
    """What is being done, on a terminal; a line that the next one takes the place of."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{what}", nl=False, err=True)
