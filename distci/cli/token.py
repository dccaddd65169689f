"""``distci token``: what programs and workers show to say who they are."""

from __future__ import annotations

import re
import time

import click

from distci.cli.command import Group, Invocation, json_option, reason_option
from distci.cli.output import moment, print_json, print_line, print_records
from distci.errors import Invalid

SCOPES = ("read", "trigger", "report", "quarantine", "shell", "write", "admin")
UNITS_S = {"m": 60, "h": 3600, "d": 86400}

project_option = click.option("--project", default="", metavar="PROJECT", help="Only for this project.  [all]")


@click.group(
    cls=Group,
    examples=(
        "distci token create nightly --scope trigger --project team/web",
        "distci token create lab-7 --worker shell",
        "distci token revoke 5f0c1d2e3a4b --reason 'was in a log'",
    ),
)
def token() -> None:
    """Make, list and revoke the access tokens of programs and workers.

    A token is shown once, when it is made; only its digest is kept. Whoever may run this on the back ends may do everything.
    """


@token.command(
    examples=(
        "distci token create dashboard --scope read",
        "distci token create deploy --scope read --scope trigger --project team/web --expires 30d",
        "distci token create laptop --scope read --scope write --for ada@example.org",
        "distci token create lab-7 --worker shell --worker git-checkout --label os=linux --label 'gpu=*'",
    ),
)
@click.argument("label")
@click.option(
    "--scope", "scopes", type=click.Choice(SCOPES), multiple=True, help="What it is good for; may be repeated."
)
@project_option
@click.option(
    "--for", "person", default="", metavar="PERSON", help="Never more than this person may do.  [it stands for itself]"
)
@click.option(
    "--worker",
    "kinds",
    multiple=True,
    metavar="KIND",
    help="For a worker of this kind, for nothing else; may be repeated.",
)
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="LABEL",
    help="That the worker may offer: a word, key=value or key=glob.",
)
@click.option("--expires", default="90d", show_default=True, metavar="TIME", help="When it ends: 12h, 30d.")
@reason_option
@json_option
@click.pass_obj
def create(
    invocation: Invocation,
    label: str,
    scopes: tuple[str, ...],
    project: str,
    person: str,
    kinds: tuple[str, ...],
    labels: tuple[str, ...],
    expires: str,
    reason: str,
) -> None:
    """Make a token and print it, once; LABEL is to tell it from others."""
    from distci.access import Action, Person

    if kinds and (scopes or person):
        raise Invalid("--worker makes a token for work alone; leave out --scope and --for")
    if labels and not kinds:
        raise Invalid("--label says what a worker may offer; it takes --worker KIND")
    expires_s = lifetime_s(expires)
    with invocation.connect() as system:
        who = {"actor": system.settings.actor, "reason": reason}
        if kinds:
            made = system.access.create_worker_token(label, kinds, labels, project=project, expires_s=expires_s, **who)
        else:
            made = system.access.create_token(
                label,
                [Action(scope) for scope in scopes],
                project=project,
                person=Person(person) if person else None,
                expires_s=expires_s,
                **who,
            )
    if invocation.is_json:
        print_json({"token": made.text, **made.record.shown(time.time())})
        return
    print_line(made.text)
    ends = moment(int(made.record.expires_s * 1000))
    click.echo(f"distci: token {made.record.id}, until {ends}; it is shown this once", err=True)


@token.command(
    "list", examples=("distci token list", "distci token list --json | jq 'select(.state == \"valid\") | .id'")
)
@json_option
@click.pass_obj
def list_(invocation: Invocation) -> None:
    """List the tokens, the newest first, and about when each was last used; those that have ended for 90 days."""
    with invocation.look_at() as system:
        records = system.access.tokens()
        used = system.access.last_uses()
    if invocation.is_json:
        for record in records:
            print_json({**record.shown(time.time()), "used_s": used.get(record.id, 0)})
        return
    print_records(
        records,
        ("TOKEN", "LABEL", "FOR", "PROJECT", "STATE", "EXPIRES", "LAST USED"),
        lambda record: (
            record.id,
            record.label,
            " ".join(record.kinds or ([record.person] if record.person else []) + [*record.scopes]),
            record.project or "all",
            record.state(time.time()),
            moment(int(record.expires_s * 1000)),
            moment(int(used.get(record.id, 0) * 1000)),
        ),
        is_json=False,
    )


@token.command(examples=("distci token revoke 5f0c1d2e3a4b --reason 'was in a log'",))
@click.argument("token_id", metavar="TOKEN")
@reason_option
@json_option
@click.pass_obj
def revoke(invocation: Invocation, token_id: str, reason: str) -> None:
    """Make a token useless everywhere, for ever; TOKEN is its id, the beginning of that, or the token itself.

    Every front end refuses it within a second. Asking again does no harm.
    """
    from distci.access.texts import PATTERN, digest_of, id_of

    if PATTERN.fullmatch(token_id):
        token_id = id_of(digest_of(token_id))
    with invocation.connect() as system:
        done = system.access.revoke_token(token_id, actor=system.settings.actor, reason=reason)
    if invocation.is_json:
        print_json({"token": token_id, "is_revoked": True, "is_told": done.is_told})
    else:
        print_line(f"{token_id} is revoked")
    warn_untold(done.is_told)


def lifetime_s(text: str) -> float:
    """Seconds of ``30m``, ``12h``, ``90d``; Invalid for anything else."""
    found = re.fullmatch(r"([1-9][0-9]{0,4})([mhd])", text)
    if not found:
        raise Invalid(f"{text!r} is no length of time; write for example 12h or 90d")
    return float(int(found[1]) * UNITS_S[found[2]])


def warn_untold(is_told: bool) -> None:
    """Say so when the tree did not hear of a change."""
    if not is_told:
        click.echo(
            "distci: the coordination tree could not be told. The change is in force wherever the store can be read; "
            "a front end that cannot read it may go by what was before, for ten minutes at most. Say it again when the tree is back",
            err=True,
        )
