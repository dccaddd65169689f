"""Something between clients and a front end that does to requests what a test says: loses answers, refuses, cuts off, sends elsewhere."""

from __future__ import annotations

import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import requests

TIME_MAX_S = 60
PIECE_BYTES = 64 * 1024


@dataclass(frozen=True)
class Seen:
    """A request that came."""

    method: str
    path: str
    headers: Mapping[str, str]
    at_s: float


class Between:
    """Passes requests on to a front end, but for the first ones, each of which meets with the next of ``fates``; a context manager."""

    def __init__(self, target: str, tls: tuple[str, str] | None = None) -> None:
        """``tls`` is the file of a certificate and that of its key: then it is found at ``https://localhost``."""
        self.target = target
        self.is_streaming = False
        """Whether streams of events are passed on as they come; else, as some proxies have it, when they have ended."""
        self.fates: deque[Fate] = deque()
        self.seen: list[Seen] = []
        between = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:
                    self.close_connection = True

            def __getattr__(self, name: str) -> Any:
                if name.startswith("do_"):
                    return lambda: between._serve(self)
                raise AttributeError(name)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self.url = f"https://localhost:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        self.seen.append(Seen(handler.command, handler.path, dict(handler.headers), time.monotonic()))
        fate = self.fates.popleft() if self.fates else passed
        fate(self, handler, body)

    def ask(self, handler: BaseHTTPRequestHandler, body: bytes, *, is_streamed: bool = False) -> requests.Response:
        """What the front end answers to a request."""
        headers = {name: value for name, value in handler.headers.items() if name.lower() != "host"}
        with requests.Session() as session:
            session.trust_env = False
            return session.request(
                handler.command,
                self.target + handler.path,
                data=body,
                headers=headers,
                timeout=TIME_MAX_S,
                allow_redirects=False,
                stream=is_streamed,
            )


Fate = Callable[[Between, BaseHTTPRequestHandler, bytes], None]


def passed(between: Between, handler: BaseHTTPRequestHandler, body: bytes) -> None:
    """Answered as the front end does."""
    if between.is_streaming and handler.path.endswith("/events"):
        streamed(handler, between.ask(handler, body, is_streamed=True))
    else:
        answered(between, handler, between.ask(handler, body))


def streamed(handler: BaseHTTPRequestHandler, answer: requests.Response) -> None:
    """What comes is passed on at once, and so is its end."""
    handler.close_connection = True
    handler.send_response(answer.status_code)
    handler.send_header("Content-Type", answer.headers["Content-Type"])
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    with answer, suppress(requests.RequestException):
        for piece in answer.iter_content(PIECE_BYTES):
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))


def answered(
    between: Between, handler: BaseHTTPRequestHandler, answer: requests.Response, bytes_max: int | None = None
) -> None:
    handler.send_response(answer.status_code)
    for name, value in answer.headers.items():
        if name.lower() not in ("connection", "transfer-encoding", "date", "server"):
            handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(answer.content[:bytes_max])


def lost(then: Callable[[], object] = lambda: None) -> Fate:
    """Served, and after ``then`` nobody hears of it."""

    def lose(between: Between, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        between.ask(handler, body)
        then()
        handler.close_connection = True

    return lose


def cut_after(count: int) -> Fate:
    """Served, of the body so many bytes."""

    def cut(between: Between, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        answered(between, handler, between.ask(handler, body), count)
        handler.close_connection = True

    return cut


def refused(status: int, body: bytes = b"", **headers: str) -> Fate:
    """Never passed on."""

    def refuse(between: Between, handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return refuse
