"""A call that goes on and on comes to an end, wherever it is: by TLS, in the midst of its handshake, of the headers, of the body."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import pytest
import requests
from services.certificates import Authority

from distci_workers import deadlines

HEADERS = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
LONG_S = 30.0
"""For each sign of life: not what ends a call here."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(params=["answer", "body", "answer by TLS", "handshake"])
def url(request: pytest.FixtureRequest, authority: Authority) -> Iterator[str]:
    """Where somebody sends a byte now and then, in that place."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate = authority.sign("server", "DNS:localhost")
    context.load_cert_chain(certificate.certificate, certificate.key)
    # A record of the handshake that is long.
    begin = {"body": HEADERS, "handshake": b"\x16\x03\x03\x40\x00"}.get(request.param, b"HTTP/1.1 200 ")
    has_ended = Event()

    def drip(connected: socket.socket) -> None:
        with suppress(OSError), connected:
            connected.sendall(begin)
            while not has_ended.wait(0.02):
                connected.sendall(b"x")

    def serve() -> None:
        connected, _ = listener.accept()
        drip(context.wrap_socket(connected, server_side=True) if request.param == "answer by TLS" else connected)

    with socket.create_server(("localhost", 0)) as listener:
        thread = Thread(target=serve)
        thread.start()
        yield f"{'http' if request.param in ('answer', 'body') else 'https'}://localhost:{listener.getsockname()[1]}/"
        has_ended.set()
        thread.join()


def test_a_call_that_goes_on_and_on_comes_to_an_end(url: str, authority: Authority) -> None:
    with pytest.raises(requests.RequestException), deadlines.session(0.3) as session:  # noqa: PT012
        session.trust_env = False
        with session.get(url, verify=str(authority.certificate), timeout=LONG_S, stream=True) as answer:
            assert answer.content is not None


def test_an_answer_that_is_there_in_time_is_whole_and_leaves_no_connection(tmp_path: Path) -> None:
    body = b"x" * 100000

    def serve() -> None:
        connected, _ = listener.accept()
        with connected:
            connected.recv(10000)
            connected.sendall(HEADERS + body)
            assert connected.recv(1) == b""  # it hangs up

    with socket.create_server(("localhost", 0)) as listener:
        thread = Thread(target=serve)
        thread.start()
        with deadlines.session(LONG_S) as session:
            session.trust_env = False
            assert session.get(f"http://localhost:{listener.getsockname()[1]}/", timeout=LONG_S).content == body
        thread.join(LONG_S)
        assert not thread.is_alive()
