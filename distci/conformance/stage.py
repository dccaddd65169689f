"""Where a worker is tried: an embedded system in a folder, two front ends as processes of their own, and the program beside them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any, Self

from distci.app import DistCI, open_isolation
from distci.brokers.direct import Direct
from distci.build_tickets import CONTROL_KIND
from distci.builds import BuildView
from distci.chaos.daemon import Daemon, free_ports
from distci.chaos.waiting import wait_until
from distci.conformance.relay import Relay
from distci.isolation.port import Command, Ended
from distci.model import BuildId
from distci.process import Post, WorkerProcess
from distci.protocol.leases import standing
from distci.settings import Settings

FRONT_ENDS = 2
END_TIME_MAX_S = 5.0
LOOK_S = 1.0
"""How often it is looked whether the program has ended."""

JOB = "conformance/case"


@dataclass(frozen=True, slots=True)
class Options:
    """What is tried, and how."""

    command: Sequence[str]
    kind: str
    folder: Path
    """Of this run alone."""
    launcher: Sequence[str]
    """The program ``distci``, for front ends."""
    environment: Mapping[str, str]
    time_max_s: float
    """How long a worker may take for what it is expected to do at once."""


class Stage:
    """The system; a context manager."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.ports = free_ports(FRONT_ENDS)
        self.relay = Relay([("127.0.0.1", port) for port in self.ports])
        self.marks = options.folder / "marks"
        self._stack = ExitStack()
        self._ended: Future[Ended] | None = None
        self._fronts: dict[int, Daemon] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            folder = self.options.folder
            self.marks.mkdir()
            self.ci = stack.enter_context(DistCI(Settings(data=str(folder / "data"), actor="conformance")))
            process = WorkerProcess(
                Direct(self.ci.lifecycle, self.ci.store),
                open_isolation(),
                folder / "scratch",
                [Post((CONTROL_KIND,), 2)],
                search_path=os.defpath,
            )
            stack.enter_context(process)
            self.token = self.ci.access.create_worker_token("conformance", [self.options.kind]).text
            stack.callback(self._end)
            self.start_front_ends()
            stack.enter_context(self.relay)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def start_front_ends(self) -> None:
        """Have all front ends run."""
        for place, port in enumerate(self.ports):
            if place not in self._fronts:
                told = ("frontend", "--data", str(self.options.folder / "data"), "--listen", f"127.0.0.1:{port}")
                self._fronts[place] = Daemon(f"front-end-{place}", [*self.options.launcher, *told], self.options.folder)
                self._fronts[place].wait_until_ready(lambda port=port: _answers(port))  # type: ignore[misc]

    def kill_front_end(self, place: int) -> None:
        """SIGKILL; nothing when it is dead already."""
        if daemon := self._fronts.pop(place, None):
            daemon.kill()

    @contextmanager
    def worker(self) -> Iterator[Future[Ended]]:
        """The program as it runs, and how it ended if it has; ended in the end, with all that it has started."""
        environment = {
            **self.options.environment,
            "DISTCI_URL": self.relay.url,
            "DISTCI_TOKEN": self.token,
            "DISTCI_KIND": self.options.kind,
        }
        command = Command(self.options.command, Path.cwd(), environment, "worker", grace_s=END_TIME_MAX_S)
        stop = Event()
        with (self.options.folder / "worker.log").open("ab", buffering=0) as log, ThreadPoolExecutor(1) as thread:

            def note(data: bytes) -> None:
                log.write(data)

            # Whoever interrupts us may do so while it starts: nobody is to wait for a program that was not told to end.
            try:
                ended = self._ended = thread.submit(open_isolation().run, command, note, stop)
                yield ended
            finally:
                stop.set()
        # Until the front ends know that nobody waits for a ticket any more, they might give one away.
        waking, kind = self.ci.tickets.waking, self.options.kind
        wait_until(lambda: not any(offer.accepts(kind, ()) for offer in waking.offers()))

    def start(self, *tasks: Mapping[str, Any]) -> BuildId:
        """Have a build of these tasks run, all of the worker's kind."""
        self.ci.jobs.put({"job": JOB, "tasks": [{"type": self.options.kind, **task} for task in tasks]})
        return self.ci.builds.trigger(JOB)

    def view(self, build: BuildId) -> BuildView:
        return self.ci.builds.get(build)

    @property
    def has_ended(self) -> bool:
        """Whether the program has ended by itself: then there is nothing to wait for."""
        return self._ended is not None and self._ended.done()

    def end(self, build: BuildId, time_max_s: float) -> BuildView:
        """The build when it is over, or as it is when the time is up or the program has ended."""
        end = monotonic() + time_max_s
        while True:
            had_ended = self.has_ended
            view = self.ci.builds.wait(build, max(0.0, min(LOOK_S, end - monotonic())))
            if view.is_archived or had_ended or monotonic() >= end:
                return view

    def log(self, build: BuildId, task: str = "work") -> bytes:
        """What the script has printed: a worker may begin with a line of its own."""
        log = b"".join(self.ci.builds.log(build, task))
        return log.partition(b"\n")[2] if log.startswith(b"distci: ") else log

    def claimed(self, build: BuildId) -> str:
        """The token of a claim of the build's; empty while there is none."""
        for view in self.ci.tickets.list():
            if view.place == "running" and view.ticket and view.ticket.body.get("build") == str(build):
                return view.token if "task" in view.ticket.body else ""
        return ""

    def take_away(self, token: str) -> None:
        """Have a claim lost: from now on its token is out of date, and the ticket waits for its next attempt."""
        found = standing(self.ci.tickets, token)
        if found:
            found.claim(self.ci.tickets).give_back("taken away to see what its worker does")

    def is_alive(self, mark: str, within_s: float = 2.0) -> bool:
        """Whether a script that touches a file a few times a second still runs."""
        path = self.marks / mark
        before = path.stat().st_mtime_ns if path.exists() else 0
        end = monotonic() + within_s

        def is_decided() -> bool:
            return monotonic() > end or (path.exists() and path.stat().st_mtime_ns != before)

        wait_until(is_decided)
        return path.exists() and path.stat().st_mtime_ns != before

    def _end(self) -> None:
        for daemon in self._fronts.values():
            daemon.stop()


def _answers(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
