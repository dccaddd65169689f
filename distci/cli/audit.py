"""``distci audit``: who did what."""

from __future__ import annotations

import json
import re
import time
from datetime import datetime

import click

from distci.cli.command import Group, Invocation, json_option
from distci.cli.output import moment, print_records
from distci.cli.token import lifetime_s
from distci.errors import Invalid

FORMATS = ("%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S")


@click.group(cls=Group, examples=("distci audit list --since 1d", "distci audit list --since 2026-11-01 --json"))
def audit() -> None:
    """See who changed what, when, from where and why."""


@audit.command(
    "list",
    examples=(
        "distci audit list --since 12h",
        "distci audit list --since '2026-11-25 09:00' --who ada",
        "distci audit list --json | jq 'select(.what == \"token.revoke\")'",
    ),
)
@click.option(
    "--since", default="7d", show_default=True, metavar="TIME", help="A length of time (12h, 7d) or a moment here."
)
@click.option("--who", default="", metavar="NAME", help="Only what somebody of a name with this in it did.")
@click.option("--what", default="", metavar="WORD", help="Only what begins so: token, job.put.")
@json_option
@click.pass_obj
def list_(invocation: Invocation, since: str, who: str, what: str) -> None:
    """List what was done, the oldest first.

    How something ended is unknown while it is under way, and for ever when the process that did it died in the middle.
    """
    begin_ms = since_ms(since)
    with invocation.look_at() as system:
        entries = [entry for entry in system.audit.list(begin_ms) if who in entry.who and entry.what.startswith(what)]
    print_records(
        entries,
        ("WHEN", "WHO", "FROM", "WHAT", "TO WHAT", "HOW", "WHY"),
        lambda entry: (
            moment(entry.time_ms),
            entry.who,
            entry.origin,
            entry.what,
            " ".join([entry.target, *_said(entry.details)]).strip(),
            entry.outcome,
            entry.reason,
        ),
        is_json=invocation.is_json,
    )


def since_ms(text: str) -> int:
    """Milliseconds since 1970 of so long ago, or of a moment by the clock on the wall; Invalid for anything else."""
    if re.fullmatch(r"[0-9]+[mhd]", text):
        return int((time.time() - lifetime_s(text)) * 1000)
    for known in FORMATS:
        try:
            return int(datetime.strptime(text, known).timestamp() * 1000)
        except ValueError:
            continue
    raise Invalid(f"{text!r} is no time; write for example 12h, 7d, 2026-11-25 or '2026-11-25 09:00'")


def _said(details: object) -> list[str]:
    if not isinstance(details, dict):
        return []
    return [f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in details.items()]
