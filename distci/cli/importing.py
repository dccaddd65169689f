"""``distci job import``: jobs made of other systems' files."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import click

from distci.cli.command import Invocation, LocalCommand, json_option
from distci.cli.output import print_json
from distci.errors import Invalid, InvalidJob, InvalidPath

KINDS = ("gitlab", "github", "woodpecker", "distci-2013")


@click.command(
    "import",
    cls=LocalCommand,
    examples=(
        "distci job import .gitlab-ci.yml --repository https://git.example.org/team/hello.git > job.yaml",
        "distci job import .github/workflows/test.yml --job team/hello --as json",
        "distci job import - --from woodpecker < .woodpecker.yaml",
    ),
)
@click.argument("file")
@click.option("--from", "kind", type=click.Choice(KINDS), help="Whose file it is.  [guessed from its name and content]")
@click.option(
    "--as", "form", type=click.Choice(["yaml", "json"]), default="yaml", help="How the job is printed.  [yaml]"
)
@click.option("--job", "name", default="", metavar="JOB", help="The job's id.  [like the file's name]")
@click.option("--repository", default="", metavar="URL", help="Where the file's repository is fetched from.")
@click.option("--no-images", is_flag=True, help="Run tasks on the workers' own systems, whatever images are named.")
@json_option
@click.pass_obj
def import_job(
    invocation: Invocation, file: str, kind: str | None, form: str, name: str, repository: str, no_images: bool
) -> None:
    """Print the job that does what another system's FILE says (- for standard input).

    What could not be translated, and what means something else here, is told line by line on standard error. Nothing is run, fetched
    or saved: read it, change it, then `distci job put`.
    """
    from distci.documents.jobs import job_from_json
    from distci.documents.printed import as_yaml
    from distci.importing import import_job as imported_from

    data, told = _read(file)
    found = imported_from(
        data,
        told,
        kind or "",
        job=name,
        repository=repository,
        with_images=not no_images,
        read=_beside(Path(file)) if file != "-" else lambda _: None,
    )
    if invocation.is_json:
        print_json({"from": found.kind, "job": found.document, "notes": found.notes})
    else:
        for note in found.notes:
            click.echo(f"distci: {note}", err=True)
        text = as_yaml(found.document) if form == "yaml" else json.dumps(found.document, indent=2, ensure_ascii=False)
        click.echo(text.rstrip("\n"))
    try:
        job_from_json(found.document)
    except InvalidJob as error:
        raise InvalidJob("what has come of it is no valid job yet:", error.problems) from error


def _read(file: str) -> tuple[bytes, str]:
    from distci.documents.written import YAML_BYTES_MAX

    try:
        if file == "-":
            if sys.stdin is None:
                raise Invalid("standard input is closed; name a file")
            return sys.stdin.buffer.read(YAML_BYTES_MAX + 1), "standard input"
        with open(file, "rb") as stream:
            return stream.read(YAML_BYTES_MAX + 1), file
    except (OSError, ValueError) as error:
        raise Invalid(f"{file}: {getattr(error, 'strerror', None) or error}") from error


def _beside(file: Path) -> Callable[[str], bytes | None]:
    """Reads files of the folder that the file is in, and of folders within it; nothing outside of it."""
    from distci.documents.written import YAML_BYTES_MAX
    from distci.safepath import check_path

    folder = file.absolute().parent

    def read(path: str) -> bytes | None:
        try:
            found = folder.joinpath(check_path(path)).resolve()
            if not found.is_relative_to(folder.resolve()) or not found.is_file():
                return None
            with found.open("rb") as stream:
                return stream.read(YAML_BYTES_MAX + 1)
        except (InvalidPath, OSError, ValueError):
            return None

    return read
