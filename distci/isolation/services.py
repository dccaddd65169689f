"""Containers beside that of a command: begun before it, asked whether they are well, ended with it.

All of them share one network, which is the first one's: what listens in one is reached from the others on the loopback interface, by the service's name. So
none needs a network of the engine's to be made and removed, a command without network reaches its services and nothing else, and what a service
listens on is seen by nobody else, whatever the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from threading import Event, Thread
from time import monotonic
from typing import Any, Protocol

import docker
from docker.errors import DockerException

from distci.errors import Invalid, Unavailable
from distci.isolation.port import Ended, Service
from distci.isolation.supervised import readable

LOG_BYTES_MAX = 1 << 20
"""How much of what a service has said is kept: the end of it."""
LAST_LINES = 20
FIRST_PAUSE_S, PAUSE_MAX_S = 0.05, 1.0
"""Between two looks at a service, which become rarer."""


class Running:
    """One service, whose container has been started."""

    def __init__(
        self,
        service: Service,
        health: Sequence[str],
        environment: Mapping[str, str],
        container: str,
        run: Callable[[Callable[[bytes], None], Event], Ended],
    ) -> None:
        """``run`` attends to the container until it ends; ``health`` is what succeeds in there once it is well, if there is such."""
        self.name = service.name
        self.container = container
        self.stop = Event()
        self.ended: Ended | None = None
        """How it ended, be it that it was ended."""
        self.said_bytes = 0
        self._service = service
        self._health = health
        self._environment = environment
        self._run = run
        self._log = bytearray()
        self._thread = Thread(target=self._attend, name=f"service {service.name}", daemon=True)
        self._thread.start()

    def wait_until_well(self, engine: docker.APIClient, is_off: Callable[[], bool]) -> None:
        """Return once it is well, or nobody wants it any more; Invalid when it has ended, or is not well in time."""
        until_s = monotonic() + self._service.health_time_max_s
        pause_s = FIRST_PAUSE_S
        while not is_off():
            if self._is_well(engine, until_s, is_off):
                return
            self.check()
            if monotonic() >= until_s:
                raise Invalid(f"service {self.name} was not ready within {self._service.health_time_max_s:g} s")
            self.stop.wait(pause_s)
            pause_s = min(2 * pause_s, PAUSE_MAX_S)

    def check(self) -> None:
        """Return if it runs; Invalid when it has ended, or died with its engine."""
        if not self._thread.is_alive():
            how = self.ended.describe() if self.ended else "it could not be attended to"
            raise Invalid(f"service {self.name} ended before it was needed: {how}")

    def end(self) -> None:
        """Have it ended, and wait for that."""
        self.stop.set()
        self._thread.join()

    @property
    def log(self) -> bytes:
        """The end of what it has said."""
        return bytes(self._log)

    def _is_well(self, engine: docker.APIClient, until_s: float, is_off: Callable[[], bool]) -> bool:
        if not self._health:
            return self._thread.is_alive()
        # One that has just ended is seen to have, and an engine that is away will be missed by others.
        with suppress(DockerException, OSError):
            asked = engine.exec_create(self.container, [*self._health], environment=dict(self._environment))["Id"]
            # Podman never tells the end of one that is not attended to.
            with closing(_Attended(engine.exec_start(asked, socket=True))) as attended:
                while not attended.has_ended(FIRST_PAUSE_S):
                    if monotonic() >= until_s or is_off() or not self._thread.is_alive():
                        return False
            return bool(engine.exec_inspect(asked)["ExitCode"] == 0)
        return False

    def _attend(self) -> None:
        self.ended = self._run(self._hear, self.stop)

    def _hear(self, data: bytes) -> None:
        self.said_bytes += len(data)
        self._log += data
        del self._log[:-LOG_BYTES_MAX]


class _Attended:
    """What runs in a container, as long as its output is open."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def has_ended(self, wait_s: float) -> bool:
        """Whether it has, or does within so many seconds."""
        return bool(readable([self._stream.fileno()], wait_s)) and not self._stream.read(4096)

    def close(self) -> None:
        # Two that have each other are closed by neither.
        self._stream._response.close()
        self._stream.close()


class Start(Protocol):
    """Starts one service in a network."""

    def __call__(self, service: Service, network: str, stop: Event) -> Running: ...


class Beside:
    """The services of one command."""

    def __init__(self, services: Sequence[Service], start: Start, network: str) -> None:
        self._services = services
        self._start = start
        self._network = network
        self._running: list[Running] = []
        self._is_ready = False

    def begin(self, engine: docker.APIClient, stop: Event, timeout_s: float | None) -> str:
        """The network that they are in once all are well, or ``stop`` is set, or the time is up. Invalid where one does not get well."""
        until_s = None if timeout_s is None else monotonic() + timeout_s

        def is_off() -> bool:
            return stop.is_set() or (until_s is not None and monotonic() >= until_s)

        for service in self._services:
            with self.needed():
                self._running.append(self._start(service, self._network, stop))
            self._network = f"container:{self._running[0].container}"
        for running in self._running:
            running.wait_until_well(engine, is_off)
        self._is_ready = True
        return self._network

    @contextmanager
    def needed(self) -> Iterator[None]:
        """For what cannot be begun without them: that one has ended says more than what the engine makes of that."""
        try:
            yield
        except (Invalid, Unavailable):
            for running in self._running:
                running.check()
            raise

    def end(self, output: Callable[[bytes], None]) -> None:
        """End them, and hand on what each has said: all that was kept, or the last lines where they were not ready."""
        for running in self._running:
            if self._is_ready and running.ended:
                output(f"distci: service {running.name} had ended by itself: {running.ended.describe()}\n".encode())
        # All but the first are in its network.
        for running in reversed(self._running):
            running.end()
        for running in self._running:
            output(_told(running, is_whole=self._is_ready))


def _told(running: Running, *, is_whole: bool) -> bytes:
    log = running.log
    kept = log if is_whole else b"".join(log.splitlines(keepends=True)[-LAST_LINES:])
    if not kept:
        return f"distci: service {running.name} said nothing\n".encode()
    rest = "" if len(kept) == running.said_bytes else f", of {running.said_bytes} bytes the last {len(kept)}"
    end = b"" if kept.endswith(b"\n") else b"\n"
    return f"distci: service {running.name} said{rest}:\n".encode() + kept + end
