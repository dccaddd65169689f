"""What the store tests stand on: stores by address, so that other processes can open them too, and a bad network."""

from __future__ import annotations

import http.client
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from services import s3
from services.ceph import POOL

from distci.store.directory import DirectoryStore
from distci.store.port import Store
from distci.store.rados import RadosObjects, RadosStore
from distci.store.s3 import S3Store


class SharedObjects(RadosObjects):
    """RADOS objects over one connection of this process, since each connection has a dozen threads."""

    def cluster(self) -> Any:
        return _cluster(self.conf)[1]


@cache
def _cluster(configuration: str) -> tuple[RadosObjects, Any]:
    owner = RadosObjects(POOL, "", conf=configuration, name="client.admin")
    return owner, owner.cluster()


class Address(NamedTuple):
    """Where a store is: a directory, a bucket behind an S3 endpoint, or a namespace of the Ceph with that configuration."""

    place: str
    bucket: str = ""
    namespace: str = ""

    def open(self, **settings: Any) -> Store:
        if self.namespace:
            return self.open_namespace(**settings)
        return self.open_bucket(**settings) if self.bucket else DirectoryStore(Path(self.place), durable=False)

    def open_namespace(self, **settings: Any) -> RadosStore:
        return RadosStore(self.objects(), **settings)

    def objects(self) -> RadosObjects:
        return SharedObjects(POOL, self.namespace, conf=self.place, name="client.admin")

    def rados_objects(self, prefix: str) -> list[str]:
        """The names of the RADOS objects that start with a prefix."""
        with self.objects().operation("") as context:
            return sorted(each.key for each in context.list_objects() if each.key.startswith(prefix))

    def open_bucket(self, **settings: Any) -> S3Store:
        defaults = {"access_key": "tests", "secret_key": "tests", "region": "us-east-1"}
        return S3Store(self.bucket, endpoint_url=self.place, **{**defaults, **settings})

    def client(self) -> Any:
        """A bare client of the endpoint, to look behind the adapter's back."""
        return s3.client(self.place)


def new_namespace(configuration: Path) -> Address:
    """An empty store in the pool of a Ceph cluster."""
    return Address(str(configuration), namespace=f"tests-{uuid.uuid4().hex}")


def new_bucket(endpoint: str) -> Address:
    return Address(endpoint, s3.new_bucket(endpoint))


class Answer(NamedTuple):
    """What to answer to the next request of a method, instead of asking the server."""

    method: str
    status: int
    body: bytes = b""


@dataclass
class BadNetwork:
    """What happens between a client and its server. Lists are used up from the front, one entry a request."""

    endpoint: str = ""
    answers: list[Answer] = field(default_factory=list)
    dropped_headers: set[str] = field(default_factory=set)
    downloads_cut_after: list[int] = field(default_factory=list)
    """The connection ends after so many bytes of a GET's answer."""
    puts_unanswered: list[bool] = field(default_factory=list)
    """The server does what was asked, and the answer is lost."""
    answers_afterwards: list[Answer] = field(default_factory=list)
    """Become ``answers`` once an answer was lost."""
    page_length: int = 0
    """The server lists no more than this at a time, whatever it is asked for."""
    hosts: set[str] = field(default_factory=set)
    """The names that are answered to, as one server with many sites does; empty: any."""
    requests: list[str] = field(default_factory=list)
    """The methods of all requests so far."""


@contextmanager
def bad_network(endpoint: str) -> Iterator[BadNetwork]:
    """A proxy before ``endpoint`` that does what it is told to; well-behaved at first."""
    network = BadNetwork()
    handler = type("Handler", (_Proxy,), {"network": network, "upstream": urlsplit(endpoint).netloc})
    with _Server(("127.0.0.1", 0), handler) as server:
        network.endpoint = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield network
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are no news here."""


class _Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    network: BadNetwork
    upstream: str

    def handle_one(self) -> None:
        self.network.requests.append(self.command)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        canned = next((answer for answer in self.network.answers if answer.method == self.command), None)
        if self.network.hosts and self.headers.get("Host") not in self.network.hosts:
            self._reply(404, {"Content-Length": "0"}, b"")
        elif canned:
            self.network.answers.remove(canned)
            self._reply(canned.status, {"Content-Length": str(len(canned.body))}, canned.body)
        else:
            self._forward(body)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_one

    def log_message(self, format: str, *args: Any) -> None:
        """Not to the terminal."""

    def _forward(self, body: bytes) -> None:
        dropped = {"expect", "connection", *self.network.dropped_headers}
        headers = {name: value for name, value in self.headers.items() if name.lower() not in dropped}
        path = self.path
        if self.network.page_length:
            path = path.replace("max-keys=1000", f"max-keys={self.network.page_length}")
        connection = http.client.HTTPConnection(self.upstream, timeout=30)
        try:
            connection.request(self.command, path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        self._send_back(answer.status, dict(answer.headers), content)

    def _send_back(self, status: int, headers: dict[str, str], content: bytes) -> None:
        network = self.network
        headers.pop("Transfer-Encoding", None)
        headers["Connection"] = "keep-alive"
        if self.command != "HEAD":
            headers["Content-Length"] = str(len(content))
        if self.command == "PUT" and network.puts_unanswered and network.puts_unanswered.pop(0):
            network.answers = network.answers_afterwards
            self.close_connection = True
        elif self.command == "GET" and network.downloads_cut_after:
            self._reply(status, headers, content[: network.downloads_cut_after.pop(0)])
            self.close_connection = True
        else:
            self._reply(status, headers, content)

    def _reply(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
