"""Console logs through a front end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import BinaryIO

from distci.client.address import build_of, of_task
from distci.client.download import Download
from distci.client.link import Link
from distci.logs import BEGINNING, SEARCHED_BYTES_MAX, Line, Place
from distci.model import BuildId
from distci.views import from_json

LINES_PAGE = 1000
TAIL_MAX = 100_000
"""So many last lines a front end looks for."""


class RemoteLogs:
    """As :class:`distci.logs.Logs`."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def open(self, build: BuildId | str, task: str, token: str = "") -> RemoteLog:
        path = of_task(build_of(build), task, "log")
        return RemoteLog(self._link, path, self._link.head(path, attempt=token or None))

    def printed(self, build: BuildId, task: str, token: str, start: int) -> Iterator[bytes]:
        """What an attempt has printed so far, from a byte on."""
        path = of_task(build, task, "log")
        return Download(self._link, path, start, is_fixed=False, attempt=token).pieces()


class RemoteLog:
    """As :class:`distci.logs.Log`."""

    def __init__(self, link: Link, path: str, headers: Mapping[str, str]) -> None:
        self.token = headers["DistCI-Attempt"]
        self.is_complete = headers["DistCI-Log-Complete"] == "true"
        self.size_bytes = int(headers["Content-Length"])
        self._link = link
        self._path = path
        self._attempt = self.token or None

    def read(self, start: int = 0) -> Iterator[bytes]:
        return self._from(start).pieces()

    def stream(self, start: int = 0) -> BinaryIO:
        return self._from(start).buffered()

    def tail(self, lines: int) -> int:
        headers = self._link.head(self._path, attempt=self._attempt, tail=min(lines, TAIL_MAX))
        return int(headers["DistCI-Log-Offset"])

    def count_lines(self) -> int:
        return int(self._link.get(f"{self._path}/lines", attempt=self._attempt, limit=1)["lines"])

    def lines(self, first: int = 1) -> Iterator[Line]:
        for item in self._link.items(f"{self._path}/lines", attempt=self._attempt, first=first, limit=LINES_PAGE):
            yield from_json(Line, item)

    def search(
        self,
        text: str,
        *,
        ignore_case: bool = False,
        at_start: bool = False,
        start: Place = BEGINNING,
        bytes_max: int = SEARCHED_BYTES_MAX,
    ) -> Iterator[Line | Place]:
        place: Place | None = start
        while place is not None:
            if place.offset - start.offset >= bytes_max:
                yield place
                return
            cursor = f"{place.line}:{place.offset}"
            asked = {"attempt": self._attempt, "text": text, "ignore_case": ignore_case, "at_start": at_start}
            page = self._link.get(f"{self._path}/search", **asked, cursor=cursor, limit=LINES_PAGE)
            for line in (from_json(Line, item) for item in page["items"]):
                if line.offset - start.offset >= bytes_max:
                    yield Place(line.line, line.offset)
                    return
                yield line
            place = Place(*map(int, page["next"].split(":"))) if page["next"] else None

    def _from(self, start: int) -> Download:
        return Download(self._link, self._path, start, self.size_bytes, is_fixed=False, attempt=self._attempt)
