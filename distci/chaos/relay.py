"""A line between one worker and its servers that can be cut: a relay of TCP connections in this process.

It needs no rights and works wherever sockets do, in front of servers on any machine; network namespaces would need root. What it cannot
show is packets that come late or twice: TCP lets neither through.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from threading import Event, Lock, Thread
from typing import Self

READ_BYTES = 64 * 1024
CONNECT_TIME_MAX_S = 5.0


class Relay:
    """Listens on a loopback port for each target, and carries bytes both ways; a context manager."""

    def __init__(self, targets: Sequence[tuple[str, int]]) -> None:
        self._listeners = {socket.create_server(("127.0.0.1", 0)): target for target in targets}
        self._lock = Lock()
        self._connections: set[socket.socket] = set()
        self._flows = Event()
        self._flows.set()
        self._is_cut = False

    @property
    def hosts(self) -> str:
        """``host:port,host:port`` to connect to, one for each target."""
        return ",".join(f"127.0.0.1:{listener.getsockname()[1]}" for listener in self._listeners)

    def cut(self) -> None:
        """End all connections, and every new one as soon as it is there."""
        with self._lock:
            self._is_cut = True
            for each in self._connections:
                _hang_up(each)

    def silence(self) -> None:
        """Carry nothing from now on; connections stay, and what is sent waits."""
        self._flows.clear()

    def restore(self) -> None:
        self._is_cut = False
        self._flows.set()

    def __enter__(self) -> Self:
        for listener, target in self._listeners.items():
            Thread(target=self._accept, args=(listener, target), name="relay", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        for listener in self._listeners:
            _hang_up(listener)
            listener.close()
        self.restore()
        self.cut()

    def _accept(self, listener: socket.socket, target: tuple[str, int]) -> None:
        # Closing the listener ends this.
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                Thread(target=self._carry, args=(client, target), name="relay", daemon=True).start()

    def _carry(self, client: socket.socket, target: tuple[str, int]) -> None:
        with client, suppress(OSError), socket.create_connection(target, CONNECT_TIME_MAX_S) as server:
            server.settimeout(None)
            with self._lock:
                if self._is_cut:
                    return
                self._connections |= {client, server}
            try:
                back = Thread(target=self._pump, args=(server, client), name="relay", daemon=True)
                back.start()
                self._pump(client, server)
                back.join()
            finally:
                with self._lock:
                    self._connections -= {client, server}

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(READ_BYTES):
                self._flows.wait()
                sink.sendall(data)
        _hang_up(source)
        _hang_up(sink)


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
