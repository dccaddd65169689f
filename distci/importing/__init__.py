"""Files of other systems become jobs of this one.

::

    gitlab, github, woodpecker, distci_2013     one module for each system
    expressions      what GitHub's workflows write in ${{ }}
    draft            the job while it is made
    conditions, reported, scripts
    source           the file, each part of which is translated or told

What is made is a job that :mod:`distci.documents` accepts, and notes: a line for each part of the file that is not simply translated. Nothing
is run and nothing is fetched. What cannot be translated never passes for what can: a step that does something unknown fails its task, and a
task of which nobody can tell when it runs does not run by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from distci.documents.foreign import ForeignFile, read_foreign
from distci.errors import Invalid, InvalidDocument
from distci.importing import distci_2013, github, gitlab, woodpecker
from distci.importing.draft import Draft, Wishes
from distci.importing.source import Note, Notes, Source
from distci.model import JOB_ID_LENGTH_MAX, Json
from distci.plan import did_you_mean

KINDS = ("gitlab", "github", "woodpecker", "distci-2013")

TAGS: Mapping[str, Sequence[str]] = {"gitlab": (gitlab.REFERENCE,)}
"""What each system has itself of YAML's tags."""

ReadFile = Callable[[str], bytes | None]
"""Reads a file beside the one that is imported, by its path from the repository's top; None where there is none."""


@dataclass(frozen=True)
class Imported:
    """What has become of a file."""

    kind: str
    document: dict[str, Json]
    """The job."""
    notes: Sequence[Note]
    """What was changed or dropped, in the order of the file."""


def import_job(
    data: bytes,
    name: str,
    kind: str = "",
    *,
    job: str = "",
    repository: str = "",
    with_images: bool = True,
    read: ReadFile = lambda _: None,
) -> Imported:
    """The job that does what another system's file says; ``kind`` is guessed from the file's name and content where it is left out.

    InvalidDocument, with line and column, for a file that cannot be read; Invalid where nobody can tell what it is.
    """
    if kind and kind not in KINDS:
        raise Invalid(f"{kind!r} is none of the systems that jobs are imported from{did_you_mean(kind, KINDS)}")
    file = read_foreign(data, name, [tag for tags in TAGS.values() for tag in tags])
    return import_file(file, kind or guess(file), job=job, repository=repository, with_images=with_images, read=read)


def import_file(
    file: ForeignFile,
    kind: str,
    *,
    job: str = "",
    repository: str = "",
    with_images: bool = True,
    read: ReadFile = lambda _: None,
) -> Imported:
    """The same of a file that has been read."""
    if not isinstance(file.document, dict):
        raise InvalidDocument(f"{file.name}: line 1, column 1: there is no object in it, and so nothing to import")
    notes = Notes()
    root = Source.of(file, notes)
    draft = Draft(Wishes(job or _job_id(file, kind), repository, with_images), root, notes)
    others: list[Source] = []

    def include(path: str) -> Source | None:
        found = read(path.lstrip("/"))
        if found is None:
            return None
        other = Source.of(read_foreign(found, path.lstrip("/"), TAGS.get(kind, ())), notes)
        others.append(other)
        return other if other.is_object else None

    if kind == "gitlab":
        gitlab.translate(draft, include)
    else:
        {"github": github, "woodpecker": woodpecker, "distci-2013": distci_2013}[kind].translate(draft)
    for source in (root, *others):
        source.tell_the_rest()
    return Imported(kind, draft.document(), notes.all())


def guess(file: ForeignFile) -> str:
    """Of which system a file is; Invalid where nobody can tell."""
    path, document = PurePath(file.name), file.document
    keys = {*document} if isinstance(document, dict) else set()
    parts = {*path.parts}
    if "configuration-version" in keys or ("job_id" in keys and "tasks" in keys):
        return "distci-2013"
    if "workflows" in parts or ("jobs" in keys and "on" in keys):
        return "github"
    if path.name.startswith((".woodpecker", ".drone")) or ".woodpecker" in parts:
        return "woodpecker"
    if "gitlab-ci" in path.name:
        return "gitlab"
    if "steps" in keys or "pipeline" in keys:
        return "woodpecker"
    jobs = [item for item in document.values() if isinstance(item, dict)] if keys else []
    if "stages" in keys or any({"script", "extends", "trigger"} & {*item} for item in jobs):
        return "gitlab"
    raise Invalid(f"{file.name}: nobody can tell which system this is of; say it with --from: {', '.join(KINDS)}")


def _job_id(file: ForeignFile, kind: str) -> str:
    """An id like the name of the file, or like the one that it says itself."""
    said = file.document.get("job_id") if kind == "distci-2013" else None
    wanted = said if isinstance(said, str) else PurePath(file.name).stem.lstrip(".")
    segments = [re.sub(r"[^A-Za-z0-9._-]+", "-", part).strip("-._") for part in wanted.split("/")]
    return "/".join([part for part in segments if part][:4])[:JOB_ID_LENGTH_MAX].strip("/") or "imported"
