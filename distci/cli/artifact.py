"""``distci artifact``: the files that builds published."""

from __future__ import annotations

from pathlib import Path

import click

from distci.cli.build import build_argument
from distci.cli.command import Group, Invocation, json_option
from distci.cli.output import print_json, print_line, print_records, size
from distci.model import BuildId


@click.group(cls=Group, examples=("distci artifact list team/hello#12", "distci artifact put team/hello#12 report.pdf"))
def artifact() -> None:
    """List and fetch what builds published, and put files to them."""


@artifact.command("list", examples=("distci artifact list team/hello#12 --json | jq .sha256",))
@build_argument
@json_option
@click.pass_obj
def list_(invocation: Invocation, wanted: BuildId) -> None:
    """List the artifacts of a build, by name."""
    with invocation.look_at() as system:
        found = system.artifacts.list(wanted)
    print_records(
        found,
        ("NAME", "SIZE", "SHA-256"),
        lambda item: (item.name, size(item.size_bytes), item.sha256),
        is_json=invocation.is_json,
    )


@artifact.command(
    examples=(
        "distci artifact put team/hello#12 report.pdf",
        "distci artifact put team/hello#12 hello.whl.sig --name dist/hello.whl.sig --url https://ci.example.org",
    )
)
@build_argument
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", metavar="NAME", help="What it is called in the build.  [the last part of FILE]")
@json_option
@click.pass_obj
def put(invocation: Invocation, wanted: BuildId, file: Path, name: str | None) -> None:
    """Put a file to a build as an artifact, whether that runs or is over. Put again, the same file changes nothing."""
    with invocation.connect() as system, file.open("rb") as stream:
        found = system.artifacts.put(wanted, file.name if name is None else name, stream)
    if invocation.is_json:
        print_json(found)
    else:
        print_line(f"{wanted} has {found.name} ({size(found.size_bytes)}, SHA-256 {found.sha256})")


@artifact.command(
    examples=(
        "distci artifact get team/hello#12 --directory dist",
        "distci artifact get team/hello#12 'dist/*.whl' report.xml",
    )
)
@build_argument
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--directory", default=".", metavar="DIR", help="Where to; made if it is not there.  [here]")
@json_option
@click.pass_obj
def get(invocation: Invocation, wanted: BuildId, names: tuple[str, ...], directory: str) -> None:
    """Fetch artifacts of a build, checked against their digests: all, or those of these names or patterns."""
    with invocation.look_at() as system:
        paths = system.artifacts.download(wanted, Path(directory), names)
    for path in paths:
        print_json({"path": str(path)}) if invocation.is_json else print_line(str(path))
    if not paths and not invocation.is_json:
        click.echo(f"distci: {wanted} has no artifacts", err=True)
