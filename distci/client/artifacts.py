"""Artifacts through a front end."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from distci.artifacts import Artifact, measured, save
from distci.client.address import build_of, of_artifact, of_build
from distci.client.download import Download
from distci.client.link import UPLOADED_S, Link
from distci.model import BuildId
from distci.published import chosen
from distci.views import from_json

PAGE = 1000


class RemoteArtifacts:
    """As :class:`distci.published.Published`."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def list(self, build: BuildId | str) -> Sequence[Artifact]:
        path = of_build(build_of(build), "artifacts")
        return [from_json(Artifact, item) for item in self._link.items(path, limit=PAGE)]

    def open(self, build: BuildId | str, name: str, start: int = 0) -> BinaryIO:
        return Download(self._link, of_artifact(build_of(build), name), start).buffered()

    def put(self, build: BuildId | str, name: str, stream: BinaryIO, *, sha256: str = "") -> Artifact:
        offered = measured(name, stream, sha256)
        digest = base64.b64encode(bytes.fromhex(offered.sha256)).decode()

        def again() -> BinaryIO:
            stream.seek(0)
            return stream

        headers = {"Content-Digest": f"sha-256=:{digest}:"}
        path = of_artifact(build_of(build), name)
        return from_json(Artifact, self._link.upload(path, again, headers=headers, answer_s=UPLOADED_S))

    def download(self, build: BuildId | str, destination: Path | str, names: Sequence[str] = ()) -> Sequence[Path]:
        known = {artifact.name: artifact for artifact in self.list(build)}
        return [
            self._saved(build_of(build), artifact, Path(destination))
            for artifact in (chosen(build_of(build), known, names) if names else known.values())
        ]

    def _saved(self, build: BuildId, artifact: Artifact, destination: Path) -> Path:
        with self.open(build, artifact.name) as stream:
            return save(stream, artifact, destination)
