"""The address that a worker knows: a balancer before the front ends, on a line that loses, doubles and delays what it carries."""

from __future__ import annotations

import http.client
import re
import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Lock, Thread
from time import monotonic
from typing import Self

CALL_TIME_MAX_S = 120.0
TOKEN = re.compile(r"/attempts/([^/?]+)")
NOT_PASSED_ON = frozenset({"connection", "transfer-encoding", "content-length", "expect", "host"})


@dataclass(frozen=True, slots=True)
class Call:
    """A call of the worker, as a front end has answered it."""

    method: str
    path: str
    status: int
    """0 when no answer came."""
    at_s: float
    is_lost: bool = False
    """Whether the worker was not told."""

    @property
    def token(self) -> str:
        """The claim that it was for; empty for none."""
        found = TOKEN.search(self.path)
        return found[1] if found else ""


@dataclass(slots=True)
class Weather:
    """What happens to calls on their way."""

    doubles: bool = False
    """Every call arrives twice, and every other answer is lost."""
    write_pause_s: float = 0.0
    """How long whatever is written takes, as with a slow store."""
    outages: Iterator[int] = field(default_factory=lambda: iter(()))
    """For each call that writes, whether it is answered with 503."""
    while_called: Callable[[str, int], object] = lambda path, front: None
    """Called when a front end has a call and has not answered it, with its path and the front end's place."""


class Relay:
    """Listens on loopback and passes calls on to one front end after the other; a context manager."""

    def __init__(self, fronts: Sequence[tuple[str, int]]) -> None:
        self.weather = Weather()
        self.calls: list[Call] = []
        self._fronts = fronts
        self._turn = count()
        self._lock = Lock()
        relay = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = CALL_TIME_MAX_S

            def log_message(self, *arguments: object) -> None: ...

            def handle_one_request(self) -> None:
                with suppress(OSError):
                    super().handle_one_request()

            def __getattr__(self, name: str) -> Callable[[], None]:
                if not name.startswith("do_"):
                    raise AttributeError(name)
                return self._serve

            def _serve(self) -> None:
                relay.serve(self)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def begin(self, weather: Weather) -> None:
        """Forget what was seen, and let there be this weather."""
        self.weather, self.calls = weather, []

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        """One call: as often as it arrives, and with the last answer, if it is told any."""
        body = b"".join(_body(request))
        weather, number = self.weather, next(self._turn)
        is_write = request.command == "PUT"
        if is_write:
            time.sleep(weather.write_pause_s)
            if next(weather.outages, 0):
                self._note(request, 503)
                _answer(request, 503, {"Retry-After": "1"}, b"")
                return
        answered = None
        for _ in range(2 if weather.doubles else 1):
            answered = self._passed_on(request, body)
        is_lost = answered is None or (weather.doubles and number % 2 == 0)
        self._note(request, answered[0] if answered else 0, is_lost)
        if answered is None or is_lost:
            request.close_connection = True
            return
        _answer(request, *answered)

    def _passed_on(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, Mapping[str, str], bytes] | None:
        """What a front end answers; None when the one that had the call did not live to."""
        headers = {name: value for name, value in request.headers.items() if name.lower() not in NOT_PASSED_ON}
        for _ in self._fronts:
            front = next(self._turn) % len(self._fronts)
            connection = http.client.HTTPConnection(*self._fronts[front], timeout=CALL_TIME_MAX_S)
            try:
                connection.connect()
            except OSError:
                continue
            try:
                connection.request(request.command, request.path, body or None, headers)
                self.weather.while_called(request.path, front)
                _wait_for(connection.sock, request.connection)
                response = connection.getresponse()
                return response.status, dict(response.getheaders()), response.read()
            except (OSError, http.client.HTTPException):
                return None
            finally:
                connection.close()
        return None

    def _note(self, request: BaseHTTPRequestHandler, status: int, is_lost: bool = False) -> None:
        with self._lock:
            self.calls.append(Call(request.command, request.path, status, monotonic(), is_lost))

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, name="relay", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _wait_for(answer: socket.socket, caller: socket.socket) -> None:
    """Wait until there is an answer; OSError when whoever waits for it has hung up, as balancers tell it to those behind them."""
    end_s = monotonic() + CALL_TIME_MAX_S
    while answer not in (ready := select.select([answer, caller], [], [], max(0.0, end_s - monotonic()))[0]):
        if not ready or not caller.recv(1, socket.MSG_PEEK):
            raise OSError("nobody waits for the answer any more")


def _body(request: BaseHTTPRequestHandler) -> Iterator[bytes]:
    """The body of a request, of a known length or in chunks."""
    if "chunked" not in request.headers.get("Transfer-Encoding", "").lower():
        yield request.rfile.read(int(request.headers.get("Content-Length", "0")))
        return
    while size := int(request.rfile.readline().partition(b";")[0], 16):
        yield request.rfile.read(size)
        request.rfile.readline()
    while request.rfile.readline().strip():
        pass


def _answer(request: BaseHTTPRequestHandler, status: int, headers: Mapping[str, str], body: bytes) -> None:
    request.send_response_only(status)
    for name, value in headers.items():
        if name.lower() not in NOT_PASSED_ON:
            request.send_header(name, value)
    if status != 204:
        request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)
