"""What reproducing a task takes, through a front end."""

from __future__ import annotations

from typing import BinaryIO

from distci.client.address import build_of, of_task
from distci.client.download import Download
from distci.client.link import Link
from distci.model import BuildId
from distci.reproductions import Reproduction
from distci.views import from_json


class RemoteReproductions:
    """As :class:`distci.reproductions.Reproductions`."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def get(self, build: BuildId | str, task: str) -> Reproduction:
        return from_json(Reproduction, self._link.get(of_task(build_of(build), task, "reproduction")))

    def workspace(self, build: BuildId | str, task: str) -> BinaryIO:
        return Download(self._link, of_task(build_of(build), task, "reproduction/workspace")).buffered()
