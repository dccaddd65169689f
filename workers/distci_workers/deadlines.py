"""A deadline for a whole HTTP call: the timeouts of ``requests`` are for each sign of life, and who sends a byte now and then is waited for for ever."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock, Timer
from typing import Any

import requests
from requests.adapters import HTTPAdapter


@contextmanager
def session(time_max_s: float) -> Iterator[requests.Session]:
    """A session whose calls come to an end within that time, however they go on.

    Whoever waits for one then gets a ``requests.RequestException``, at the end of the block at the latest.
    """
    connections = _Connections()
    timer = Timer(time_max_s, connections.cut)
    timer.daemon = True
    timer.start()
    try:
        with requests.Session() as made:
            for scheme in ("https://", "http://"):
                made.mount(scheme, _Watched(connections))
            yield made
    finally:
        timer.cancel()
        connections.forget()
    if connections.are_cut:
        # What was cut in the midst of its headers looks like an answer without a body.
        raise requests.Timeout(f"not done after {time_max_s:g} s")


class _Connections:
    """Those of one session, to be cut off under whoever waits for them."""

    def __init__(self) -> None:
        self.are_cut = False
        self._lock = Lock()
        self._sockets: list[socket.socket] = []

    def add(self, connected: socket.socket) -> None:
        # A name of our own for it, which stays whoever wraps theirs in TLS, or closes it.
        with self._lock:
            self._sockets.append(connected.dup())
        if self.are_cut:
            self.cut()

    def cut(self) -> None:
        with self._lock:
            self.are_cut = True
            for each in self._sockets:
                with suppress(OSError):  # it has ended by itself
                    each.shutdown(socket.SHUT_RDWR)

    def forget(self) -> None:
        with self._lock:
            for each in self._sockets:
                each.close()
            self._sockets.clear()


class _Watched(HTTPAdapter):
    """Tells of every connection as soon as it is there, before anything is sent or read on it."""

    def __init__(self, connections: _Connections) -> None:
        self._connections = connections
        super().__init__()

    def get_connection_with_tls_context(self, *arguments: Any, **options: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*arguments, **options)
        add = self._connections.add

        class Connection(pool.ConnectionCls):  # type: ignore[misc]
            def _new_conn(self) -> socket.socket:
                connected: socket.socket = super()._new_conn()
                add(connected)
                return connected

        pool.ConnectionCls = Connection
        return pool
