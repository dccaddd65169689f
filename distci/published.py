"""Artifacts by the build that published them, whichever task and attempt that was."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from distci.artifacts import Artifact, Artifacts, is_match
from distci.builds import Builds, BuildView
from distci.errors import NoSuchArtifact
from distci.model import BuildId
from distci.store.port import Store

Named = TypeVar("Named")

NAMES_SHOWN_MAX = 20
"""How many names an error message lists."""


@dataclass(frozen=True, slots=True)
class Source:
    """An artifact, and the attempt that published it."""

    build: BuildId
    task: str
    token: str
    artifact: Artifact


class Published:
    """The artifacts of the builds of one system. Any thread may use it.

    A build has the artifacts of its tasks that have ended, however they and the build did, and those of the tasks that
    it took over from the build it runs again. What an attempt uploaded that does not count is not among them. Where two
    tasks published the same name, the one that comes later in the job counts.
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
        (source,) = chosen(view.id, self._sources(view), [name], operator.eq)
        return source

    def open(self, build: BuildId | str, name: str, start: int = 0) -> BinaryIO:
        """A stream of an artifact's bytes from ``start`` on, as they are stored. The caller closes it.

        Raises NoSuchBuild, and NoSuchArtifact with the names that there are. Digests are for the reader to compare.
        """
        return self.stream(self.find(build, name), start)

    def stream(self, source: Source, start: int = 0) -> BinaryIO:
        """The same of one that was found."""
        return self._artifacts.open(source.build, source.task, source.token, source.artifact.name, start)

    def download(self, build: BuildId | str, destination: Path, names: Sequence[str] = ()) -> Sequence[Path]:
        """Write a build's artifacts below a directory, each under its name, and give back where they are.

        All of them, or those that ``names`` ask for: names, or patterns as for publishing. Raises NoSuchBuild,
        NoSuchArtifact for a name that asks for nothing, InvalidPath where one would lie outside of the directory, and
        Damaged where bytes are not as they were published.
        """
        view = self._builds.get(build)
        sources = self._sources(view)
        return [
            self._artifacts.download(source.build, source.task, source.token, source.artifact, destination)
            for source in (chosen(view.id, sources, names) if names else sources.values())
        ]

    def _sources(self, view: BuildView) -> Mapping[str, Source]:
        found = {source.artifact.name: source for source in self._all_sources(view)}
        return dict(sorted(found.items()))

    def _all_sources(self, view: BuildView) -> Iterator[Source]:
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


def _inventory(names: Sequence[str]) -> str:
    if not names:
        return "it published none at all"
    shown = ", ".join(names[:NAMES_SHOWN_MAX])
    more = len(names) - NAMES_SHOWN_MAX
    return f"there are: {shown} and {more} more" if more > 0 else f"there are: {shown}"
