"""The front end as something that runs: a socket, an event loop in a thread of its own, an end within two seconds."""

from __future__ import annotations

import logging
import socket
from asyncio import CancelledError
from threading import Event, Thread
from types import TracebackType
from typing import Self

import uvicorn

from distci.app import DistCI
from distci.errors import Invalid
from distci.frontend.app import create
from distci.frontend.content import CutShort
from distci.frontend.metrics import Metrics
from distci.frontend.streams import Streams
from distci.settings import is_loopback

DRAIN_S = 0.7
"""How long requests may go on once it shall end. What takes longer is cut off, and goes on at another front end."""

LEAVE_S = 0.5
"""How long its end may take after that: some thread may wait for a store that does not answer, and is left to itself."""

BACKLOG = 1024

UNACKNOWLEDGED_MS = 60_000
"""After so long without a sign that what was sent is taken, a connection is given up, and what waits for it in our buffers with it."""


class FrontEnd:
    """Serves a system's front end; a context manager. Leaving it drains."""

    def __init__(self, system: DistCI, listen: str, metrics: Metrics | None = None) -> None:
        """``listen`` is ``HOST:PORT``; port 0 takes one that is free.

        Raises Invalid when that cannot be listened on: not an address, or taken; and where a login provider would not know where to send people.
        """
        host, port = parse(listen)
        self.is_local = is_loopback(host)
        """Whether nobody from elsewhere can reach it."""
        if system.settings.oidc_issuer and not self.is_local and not system.settings.public_url:
            raise Invalid(
                "people who log in by a provider must find the way back; set public_url to where they find this"
            )
        self._socket = _listener(host, port)
        self.address = address_of(host, self._socket.getsockname()[1])
        """Where it is found."""
        self._stopping = Event()
        application = create(system, is_local=self.is_local, metrics=metrics, stopping=self._stopping)
        self.streams: Streams = application.state.streams
        config = uvicorn.Config(
            application,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=30,
            lifespan="off",
            ws="none",
        )
        # Said to be whole seconds, and only ever waited for.
        config.timeout_graceful_shutdown = DRAIN_S  # type: ignore[assignment]
        self._server = uvicorn.Server(config)
        self._ended = Event()
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, name="front end", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Take no more requests, and end the streams. From any thread."""
        self._stopping.set()
        self._server.should_exit = True
        self.streams.end()

    def wait_for_stop(self) -> None:
        """Wait until somebody has stopped it, or it has ended by itself; raises what it has ended with."""
        self._stopping.wait()
        if self._error is not None:
            raise self._error

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it has ended; False when the time ran out first."""
        return self._ended.wait(timeout_s)

    def _run(self) -> None:
        noise = _Noise()
        logging.getLogger("uvicorn.error").addFilter(noise)
        try:
            self._server.run(sockets=[self._socket])
        except BaseException as error:
            self._error = error
        finally:
            logging.getLogger("uvicorn.error").removeFilter(noise)
            self._socket.close()
            self._stopping.set()
            self._ended.set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self.wait(DRAIN_S + LEAVE_S)


class _Noise(logging.Filter):
    """Drops tracebacks of what is told already, or meant: requests that end before they are served in whole."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, CancelledError | CutShort)


def parse(listen: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``; Invalid when it is none."""
    host, mark, port = listen.rpartition(":")
    if not mark or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise Invalid(f"{listen!r} is nothing to listen on; write HOST:PORT, for example 127.0.0.1:8420")
    return host.removeprefix("[").removesuffix("]"), int(port)


def address_of(host: str, port: int) -> str:
    """Where somebody on this machine finds what listens there."""
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{_shown(here)}:{port}"


def _listener(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise Invalid(f"cannot listen on {host}: {error.strerror}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit it.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise Invalid(
            f"cannot listen on {_shown(host)}:{port}: {error.strerror}; another port: --listen {_shown(host)}:PORT"
        ) from error
    return listener


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
