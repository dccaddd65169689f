"""``distci job``: definitions and their versions."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from shlex import quote
from typing import TYPE_CHECKING

import click

from distci.cli.command import Group, Invocation, LocalCommand, json_option, pasteable
from distci.cli.importing import import_job
from distci.cli.output import cut, moment, print_json, print_line, print_records
from distci.errors import Invalid, InvalidDocument, InvalidJob
from distci.model import Json

if TYPE_CHECKING:
    from distci.documents.written import Written


@click.group(
    cls=Group,
    examples=("distci job put job.json --reason 'run the slow tests at night'", "distci job history team/hello"),
)
def job() -> None:
    """Save, read, compare, check and import jobs.

    A job is a JSON document. Every version of it is kept, with who changed it, when and why.
    """


@job.command(examples=("distci job put job.json", "distci job put - --expect 3 < job.json"))
@click.argument("file")
@click.option("--expect", type=click.IntRange(0), metavar="VERSION", help="Only if this version is in force (0: none).")
@click.option("--reason", default="", help="Why, for the history.")
@json_option
@click.pass_obj
def put(invocation: Invocation, file: str, expect: int | None, reason: str) -> None:
    """Save the job in FILE (- for standard input) as its next version."""
    with _located(file) as document, invocation.connect() as system:
        saved = system.jobs.put(document, expected=expect, actor=system.settings.actor, reason=reason)
    _print_warnings(document)
    print_json(saved) if invocation.is_json else print_line(f"{saved.job} version {saved.version}")


@job.command(examples=("distci job get team/hello > job.json", "distci job get team/hello --version 2"))
@click.argument("name", metavar="JOB")
@click.option("--version", type=click.IntRange(1), metavar="N", help="An earlier version.")
@json_option
@click.pass_obj
def get(invocation: Invocation, name: str, version: int | None) -> None:
    """Print a job's document; with --json, its version, author and reason around it."""
    with invocation.look_at() as system:
        found = system.jobs.get(name, version)
    if invocation.is_json:
        print_json(found)
    else:
        click.echo(json.dumps(found.document, indent=2, ensure_ascii=False))


@job.command(
    "list",
    examples=(
        "distci job list",
        "distci job list team/ --limit 100 --after team/hello",
        "distci job list --tag nightly",
        "distci job list --search hello",
    ),
)
@click.argument("prefix", default="")
@click.option("--tag", default="", help="Only those that have this tag.")
@click.option("--search", default="", metavar="TEXT", help="Only those whose id holds this, in letters of any case.")
@click.option("--limit", type=click.IntRange(1), help="How many at most.  [all]")
@click.option("--after", default="", metavar="JOB", help="Only those that come after this one.")
@json_option
@click.pass_obj
def list_(invocation: Invocation, prefix: str, tag: str, search: str, limit: int | None, after: str) -> None:
    """List the jobs whose id starts with PREFIX."""
    with invocation.look_at() as system:
        names, is_cut = cut(system.jobs.list(prefix, after, limit and limit + 1, tag=tag, text=search), limit)
    if not (names or prefix or tag or search or after):
        invocation.note_none("jobs")
    for name in names:
        print_json({"job": name}) if invocation.is_json else print_line(name)
    if is_cut and not invocation.is_json:
        given = {"tag": tag, "search": search, "limit": limit, "after": names[-1]}
        more = "".join(f" --{name} {quote(str(value))}" for name, value in given.items() if value)
        start = f" {quote(prefix)}" if prefix else ""
        click.echo(pasteable(f"distci: more: distci job list{start}{more}"), err=True)


@job.command(examples=("distci job history team/hello", "distci job history team/hello --json | jq .reason"))
@click.argument("name", metavar="JOB")
@json_option
@click.pass_obj
def history(invocation: Invocation, name: str) -> None:
    """List a job's versions, the newest first."""
    with invocation.look_at() as system:
        versions = list(system.jobs.history(name))
    print_records(
        versions,
        ("VERSION", "CHANGED", "BY", "REASON"),
        lambda item: (
            item.version,
            moment(int(item.changed_s * 1000)),
            item.actor,
            " ".join(filter(None, ("(deleted)" if item.is_deleted else "", item.reason))),
        ),
        is_json=invocation.is_json,
    )


@job.command(examples=("distci job diff team/hello", "distci job diff team/hello 2 5"))
@click.argument("name", metavar="JOB")
@click.argument("old", type=click.IntRange(1), required=False)
@click.argument("new", type=click.IntRange(1), required=False)
@json_option
@click.pass_obj
def diff(invocation: Invocation, name: str, old: int | None, new: int | None) -> None:
    """Show what changed between two versions: the last two, or OLD and NEW (the latest by default)."""
    with invocation.look_at() as system:
        to = new or next(system.jobs.history(name)).version
        since = old or max(1, to - 1)
        text = system.jobs.diff(name, since, to)
    if invocation.is_json:
        print_json({"job": name, "old": since, "new": to, "diff": text})
    elif text:
        click.echo(text)
    elif since == to:
        click.echo(f"distci: version {to} of {name} has nothing before it to be compared with", err=True)
    else:
        click.echo(f"distci: versions {since} and {to} of {name} are the same", err=True)


@job.command(examples=("distci job rollback team/hello 2 --reason 'version 3 hangs'",))
@click.argument("name", metavar="JOB")
@click.argument("version", type=click.IntRange(1))
@click.option("--reason", default="", help="Why, for the history.")
@json_option
@click.pass_obj
def rollback(invocation: Invocation, name: str, version: int, reason: str) -> None:
    """Save an old version of a job as its next one."""
    with invocation.connect() as system:
        saved = system.jobs.rollback(name, version, actor=system.settings.actor, reason=reason)
    if invocation.is_json:
        print_json(saved)
    else:
        print_line(f"{saved.job} version {saved.version}, as version {version} was")


@job.command(examples=("distci job delete team/hello --reason 'moved to team/world'",))
@click.argument("name", metavar="JOB")
@click.option("--expect", type=click.IntRange(1), metavar="VERSION", help="Only if this version is in force.")
@click.option("--reason", default="", help="Why, for the history.")
@json_option
@click.pass_obj
def delete(invocation: Invocation, name: str, expect: int | None, reason: str) -> None:
    """Take a job out of force. Its history and its builds stay, and a rollback brings it back."""
    with invocation.connect() as system:
        system.jobs.delete(name, expected=expect, actor=system.settings.actor, reason=reason)
    print_json({"job": name, "is_deleted": True}) if invocation.is_json else print_line(f"{name} deleted")


@job.command(
    cls=LocalCommand,
    examples=(
        "distci job lint job.json",
        "distci job lint jobs/*.yaml --strict",
        "distci job lint - < job.json",
    ),
)
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--strict", is_flag=True, help="What is warned of is wrong, too.")
@json_option
@click.pass_obj
def lint(invocation: Invocation, files: tuple[str, ...], strict: bool) -> None:
    """Check the jobs in the FILEs (- for standard input) without saving them.

    Everything that is wrong is told at once, with line and column, and so is what is allowed and surely a mistake. Exits with 2 if
    anything is wrong, else with 0.
    """
    failed: dict[str, InvalidDocument | Invalid] = {}
    for file in files:
        try:
            _lint(invocation, file, strict)
        except (Invalid, InvalidDocument) as error:
            failed[file] = error
    if len(files) == 1 and failed:
        raise failed[files[0]]
    if failed:
        problems = [f"{file}: {problem}" for file, error in failed.items() for problem in _problems_of(file, error)]
        raise InvalidJob(f"{len(failed)} of {len(files)} jobs are wrong:", problems)


def _lint(invocation: Invocation, file: str, strict: bool) -> None:
    """Tell what is to be told of one valid job; InvalidJob or InvalidDocument for another."""
    from distci.documents.jobs import job_from_json
    from distci.documents.written import located

    written = _read(file)
    try:
        definition = job_from_json(written.document)
    except InvalidJob as error:
        raise InvalidJob(error.subject, located(error.problems, written)) from error
    warnings = _warnings(written.document)
    if strict and warnings:
        raise InvalidJob(f"job {definition.id}:", located(warnings, written))
    if invocation.is_json:
        print_json({"file": file, "job": definition.id, "warnings": warnings})
        return
    for warning in located(warnings, written):
        click.echo(f"distci: warning: {file}: {warning}", err=True)
    print_line(f"{definition.id} is a valid job")


def _problems_of(file: str, error: InvalidDocument | Invalid) -> list[str]:
    problems = getattr(error, "problems", None)
    return [*problems] if problems else [str(error).removeprefix(f"{file}: ")]


@job.command(cls=LocalCommand, examples=("distci job schema > job.schema.json",))
@json_option
@click.pass_obj
def schema(invocation: Invocation) -> None:
    """Print the JSON Schema of jobs, by which editors complete and check them."""
    from importlib.resources import files

    click.echo(files("distci.schemas").joinpath("job.json").read_text(), nl=False)


@contextmanager
def _located(file: str) -> Iterator[Json]:
    """The document of a file; what is found wrong with the job in it is told with line and column."""
    from distci.documents.written import located

    written = _read(file)
    try:
        yield written.document
    except InvalidJob as error:
        raise InvalidJob(error.subject, located(error.problems, written)) from error


def read_document(file: str) -> Json:
    """The document of a file, or of standard input for ``-``; Invalid when it cannot be read, InvalidDocument when it is neither JSON nor YAML."""
    return _read(file).document


def _read(file: str) -> Written:
    from distci.documents.strict_json import DOCUMENT_BYTES_MAX
    from distci.documents.written import read_written

    most = DOCUMENT_BYTES_MAX + 1
    try:
        if file == "-":
            if sys.stdin is None:
                raise Invalid("standard input is closed; name a file")
            return _of_job(read_written(sys.stdin.buffer.read(most), "standard input"), "standard input")
        with open(file, "rb") as stream:
            return _of_job(read_written(stream.read(most), file), file)
    except (OSError, ValueError) as error:
        raise Invalid(f"{file}: {getattr(error, 'strerror', None) or error}") from error


def _of_job(written: Written, file: str) -> Written:
    if not isinstance(written.document, dict):
        raise InvalidDocument(f"{file}: line 1, column 1: a job is an object, with `job` and `tasks`")
    return written


def _print_warnings(document: Json) -> None:
    for warning in _warnings(document):
        click.echo(f"distci: warning: {warning}", err=True)


def _warnings(document: Json) -> list[str]:
    from distci.documents.jobs import warnings_for
    from distci.documents.mistakes import mistakes

    return [*warnings_for(document), *mistakes(document)]


job.add_command(import_job)
