"""Artifacts by the build that they belong to, whichever task and attempt published them, or whoever uploaded them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from distci.artifacts import Artifact, Artifacts, check_name, is_match, measured, save
from distci.builds import Builds, BuildView
from distci.errors import AlreadyExists, NoSuchArtifact
from distci.model import BuildId
from distci.store.port import Store

Named = TypeVar("Named")

NAMES_SHOWN_MAX = 20
"""How many names an error message lists."""


@dataclass(frozen=True, slots=True)
class Source:
    """An artifact, and the attempt that published it; of one that was uploaded, task and token are empty."""

    build: BuildId
    task: str
    token: str
    artifact: Artifact


class Published:
    """The artifacts of the builds of one system. Any thread may use it.

    A build has the artifacts of its tasks that have ended, however they and the build did, and those of the tasks that
    it took over from the build it runs again. What an attempt uploaded that does not count is not among them. Where two
    tasks published the same name, the one that comes later in the job counts. Besides it has the files that were put to it,
    while it ran or afterwards; they never take the place of what a task has published.
    """

    def __init__(self, builds: Builds, store: Store) -> None:
        self._builds = builds
        self._artifacts = Artifacts(store)

    def list(self, build: BuildId | str) -> Sequence[Artifact]:
        """What a build has published so far, by name; NoSuchBuild when there is none of that number.

        >>> ci.artifacts.list("docs/hello#1")
        []
        """
        return [source.artifact for source in self._sources(self._builds.get(build)).values()]

    def find(self, build: BuildId | str, name: str) -> Source:
        """The artifact of that name and who published it; NoSuchBuild, and NoSuchArtifact with the names that there are."""
        view = self._builds.get(build)
        found = self._find(view, name)
        if found is None:
            (found,) = chosen(view.id, self._sources(view), [name], operator.eq)
        return found

    def taken(self, build: BuildId | str, name: str) -> Artifact | None:
        """The artifact that has a name already which somebody wants to put a file under. Raises as :meth:`put` does."""
        found = self._find(self._builds.get(build), check_name(name))
        return found.artifact if found else None

    def put(self, build: BuildId | str, name: str, stream: BinaryIO, *, sha256: str = "") -> Artifact:
        """Make a file an artifact of a build, whether that runs or is over. May be repeated.

        The stream can be read from its beginning more than once. Raises AlreadyExists when the build has an artifact of that
        name with other bytes, NoSuchBuild, and Invalid for a name that no artifact can have, for bytes whose SHA-256 is not
        ``sha256`` (in hexadecimal), if that is given, and when a build has taken as many as it may.

        >>> import io
        >>> ci.artifacts.put("docs/hello#1", "signed/hello.txt", io.BytesIO(b"hello")).size_bytes
        5
        """
        view = self._builds.get(build)
        offered = measured(name, stream, sha256)
        source = self._of_tasks(view).get(name)
        there = source.artifact if source else self._artifacts.upload(view.id, offered, stream)
        if there != offered:
            raise other_bytes(view.id, there)
        return there

    def open(self, build: BuildId | str, name: str, start: int = 0) -> BinaryIO:
        """A stream of an artifact's bytes from ``start`` on, as they are stored. The caller closes it.

        Raises NoSuchBuild, and NoSuchArtifact with the names that there are. Digests are for the reader to compare.
        """
        return self.stream(self.find(build, name), start)

    def stream(self, source: Source, start: int = 0) -> BinaryIO:
        """The same of one that was found."""
        if not source.task:
            return self._artifacts.open_upload(source.build, source.artifact, start)
        return self._artifacts.open(source.build, source.task, source.token, source.artifact.name, start)

    def download(self, build: BuildId | str, destination: Path | str, names: Sequence[str] = ()) -> Sequence[Path]:
        """Write a build's artifacts below a directory, each under its name, and give back where they are.

        All of them, or those that ``names`` ask for: names, or patterns as for publishing. Raises NoSuchBuild,
        NoSuchArtifact for a name that asks for nothing, InvalidPath where one would lie outside of the directory, and
        Damaged where bytes are not as they were published.
        """
        view = self._builds.get(build)
        sources = self._sources(view)
        return [
            self._saved(source, Path(destination))
            for source in (chosen(view.id, sources, names) if names else sources.values())
        ]

    def _saved(self, source: Source, destination: Path) -> Path:
        with self.stream(source) as stream:
            return save(stream, source.artifact, destination)

    def _sources(self, view: BuildView) -> Mapping[str, Source]:
        uploaded = {artifact.name: _uploaded(view.id, artifact) for artifact in self._artifacts.uploads(view.id)}
        return dict(sorted((uploaded | self._of_tasks(view)).items()))

    def _find(self, view: BuildView, name: str) -> Source | None:
        """The source of that name, without a look at all uploads."""
        found = self._of_tasks(view).get(name)
        if found is None and (artifact := self._artifacts.uploaded(view.id, name)):
            return _uploaded(view.id, artifact)
        return found

    def _of_tasks(self, view: BuildView) -> dict[str, Source]:
        return {source.artifact.name: source for source in self._all_of_tasks(view)}

    def _all_of_tasks(self, view: BuildView) -> Iterator[Source]:
        for task in view.tasks:
            # An attempt that ended says how much it published, so that the others need not be asked.
            if not task.state.is_final or not task.attempts or not task.attempts[-1].get("artifacts"):
                continue
            build = BuildId.parse(task.origin) if task.origin else view.id
            for artifact in self._artifacts.index(build, task.name, task.token):
                yield Source(build, task.name, task.token, artifact)


def chosen(
    build: BuildId, known: Mapping[str, Named], wanted: Iterable[str], takes: Callable[[str, str], bool] = is_match
) -> Sequence[Named]:
    """What somebody asks for of what is known by name; NoSuchArtifact when one of the wishes comes to nothing."""
    found: dict[str, Named] = {}
    for wish in wanted:
        taken = {name: value for name, value in known.items() if takes(name, wish)}
        if not taken:
            raise NoSuchArtifact(f"{build} published no artifact {wish!r}; {_inventory([*known])}")
        found |= taken
    return [*found.values()]


def other_bytes(build: BuildId, there: Artifact) -> AlreadyExists:
    """What is raised where a name is taken."""
    return AlreadyExists(
        f"{build} has an artifact {there.name!r} with other bytes (SHA-256 {there.sha256}), and artifacts never change: take another name"
    )


def _uploaded(build: BuildId, artifact: Artifact) -> Source:
    return Source(build, "", "", artifact)


def _inventory(names: Sequence[str]) -> str:
    if not names:
        return "it published none at all"
    shown = ", ".join(names[:NAMES_SHOWN_MAX])
    more = len(names) - NAMES_SHOWN_MAX
    return f"there are: {shown} and {more} more" if more > 0 else f"there are: {shown}"
