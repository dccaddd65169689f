"""Clients of streams: one that goes on where it was, and many at once."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any, Self
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import ProtocolError
from waiting import wait_until

from distci.following.logs import bytes_of

BROKEN = (requests.ConnectionError, requests.HTTPError, requests.exceptions.ChunkedEncodingError, ProtocolError)
"""What becomes of a stream whose front end is killed."""

QUIET_MAX_S = 60.0
"""How long a stream may say nothing at all, heartbeats included, before a test fails."""


@dataclass(frozen=True)
class Event:
    """An event as it came over the wire."""

    name: str
    data: Any
    id: str
    at_s: float


class Client:
    """Follows one stream, over any number of connections: each goes on behind the last event that was seen."""

    def __init__(self, path: str, shown: Mapping[str, str]) -> None:
        """``shown`` are the headers that say who it is."""
        self.path = path
        self._shown = shown
        self.id = ""
        self.retry_ms = 0
        self.comments: list[str] = []

    def events(self, url: str, **options: Any) -> Iterator[Event]:
        """The events of one connection, until the front end ends it; requests' errors when it breaks."""
        headers = {**self._shown, **({"Last-Event-ID": self.id} if self.id else {})}
        with requests.get(url + self.path, headers=headers, stream=True, timeout=QUIET_MAX_S, **options) as answer:
            answer.raise_for_status()
            if answer.status_code == 204:
                return
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            block: list[bytes] = []
            # A line of a stream may have a megabyte; the small pieces of iter_lines would take ages.
            rest = b""
            for data in answer.raw.stream(65536, decode_content=True):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    if line:
                        block.append(line)
                        continue
                    event = self._event(block)
                    block = []
                    if event:
                        yield event

    def _event(self, block: list[bytes]) -> Event | None:
        fields: dict[str, str] = {}
        for line in block:
            name, _, value = line.decode().partition(":")
            fields[name] = value.removeprefix(" ")
        if "" in fields:
            self.comments.append(fields[""])
        if "retry" in fields:
            self.retry_ms = int(fields["retry"])
        if "id" in fields:
            self.id = fields["id"]
        if "data" not in fields:
            return None
        return Event(fields["event"], json.loads(fields["data"]), self.id, time.monotonic())


class Log:
    """What a client has been told of logs, which must fit together byte by byte."""

    def __init__(self) -> None:
        self.by_attempt: dict[tuple[str, str], bytearray] = {}
        self.is_ended = False

    def add(self, event: Event) -> None:
        assert not self.is_ended, f"{event} came after the end"
        if event.name == "end":
            self.is_ended = True
            return
        assert event.name in ("attempt", "log"), event
        log = self.by_attempt.setdefault((event.data["task"], event.data["token"]), bytearray())
        if event.name == "log":
            assert event.data["offset"] == len(log), f"{len(log)} bytes were told before {event.data['offset']}"
            log += bytes_of(event.data)

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.by_attempt.values()))

    def of(self, task: str) -> bytes:
        """All that the attempts at a task printed, one after the other."""
        return b"".join(bytes(log) for (name, _), log in self.by_attempt.items() if name == task)


def follow(client: Client, url: Callable[[], str], log: Log, time_max_s: float = 60.0) -> Log:
    """Follow logs to their end, at whatever front end ``url`` names, however often one breaks off."""
    until = time.monotonic() + time_max_s
    while not log.is_ended:
        assert time.monotonic() < until, "the stream did not come to its end"
        try:
            for event in client.events(url()):
                log.add(event)
        except BROKEN:
            time.sleep(0.05)
    return log


@dataclass
class Heard:
    """What one of a crowd has heard."""

    bytes_heard: int = 0
    delays_s: list[float] = field(default_factory=list)
    """Of each line that says when it was printed, if all of the crowd were there by then: how long it took."""
    is_ended: bool = False
    retry_ms: int = 0
    closed_at_s: float = 0.0


class Crowd:
    """Many clients of one front end, in one thread. A context manager; all have been answered when it begins."""

    def __init__(self, url: str, paths: Sequence[str], token: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        assert parts.port
        self._address = parts.hostname, parts.port
        self._paths = paths
        self._token = token
        self.heard = [Heard() for _ in paths]
        self._answered = 0
        self._began_s = math.inf
        self._loop = asyncio.new_event_loop()
        self._everybody = self._loop.create_task(self._all())
        self._thread = Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: self._answered == len(self.heard), 120)
        self._began_s = time.time()
        return self

    def __exit__(self, *_: object) -> None:
        # All of them with it, before it is done itself.
        self._loop.call_soon_threadsafe(self._everybody.cancel)
        self._thread.join()
        self._loop.close()

    def wait_for_end(self, time_max_s: float = 60.0) -> None:
        """Wait until every stream has come to its end or was closed."""
        wait_until(lambda: all(heard.closed_at_s for heard in self.heard), time_max_s)

    def wait_for_lines(self, count: int, time_max_s: float = 120.0) -> None:
        """Wait until each has heard so many lines that were printed while all were there."""
        wait_until(lambda: min(len(heard.delays_s) for heard in self.heard) >= count, time_max_s)

    @property
    def delays_s(self) -> list[float]:
        return sorted(delay for heard in self.heard for delay in heard.delays_s)

    def _run(self) -> None:
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._everybody)

    async def _all(self) -> None:
        # So many at a time as a listener's backlog takes.
        turn = asyncio.Semaphore(200)
        await asyncio.gather(
            *(self._one(path, heard, turn) for path, heard in zip(self._paths, self.heard, strict=True))
        )

    async def _one(self, path: str, heard: Heard, turn: asyncio.Semaphore) -> None:
        async with turn:
            reader, writer = await asyncio.open_connection(*self._address, limit=4 * 1024 * 1024)
            host = f"{self._address[0]}:{self._address[1]}"
            shown = f"Host: {host}\r\nAuthorization: Bearer {self._token}\r\nConnection: close"
            writer.write(f"GET {path} HTTP/1.1\r\n{shown}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            self._answered += 1
        try:
            while line := await reader.readline():
                self._hear(line, heard)
        except ConnectionError:
            pass
        finally:
            heard.closed_at_s = time.monotonic()
            writer.close()

    def _hear(self, line: bytes, heard: Heard) -> None:
        """Lines of chunked bodies are as good as any: those that matter begin as only lines of events do."""
        if line.startswith(b"event: end"):
            heard.is_ended = True
        elif line.startswith(b"retry: "):
            heard.retry_ms = int(line[7:])
        elif line.startswith(b"data: {") and b'"offset"' in line:
            now_s = time.time()
            data = bytes_of(json.loads(line[6:]))
            heard.bytes_heard += len(data)
            printed = map(float, re.findall(rb"printed at ([0-9.]+)\n", data))
            heard.delays_s += [now_s - each for each in printed if each > self._began_s]


PRINTING = "while [ ! -e {end} ]; do echo printed at $(date +%s.%N); sleep {pause_s}; done"
"""A script whose lines say when they were printed, until there is a file ``end``."""


def resident_mib(pid: int, what: str = "VmRSS") -> float:
    """What a process has in memory now (``VmRSS``), or had at most (``VmHWM``)."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024
