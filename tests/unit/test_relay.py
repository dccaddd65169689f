"""Lines that can be cut."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest
from waiting import wait_until

from distci.chaos.relay import Relay

TIME_MAX_S = 20.0


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIME_MAX_S)
        yield listener


@pytest.fixture
def relay(server: socket.socket) -> Iterator[Relay]:
    with Relay([server.getsockname()]) as relay:
        yield relay


def connect(relay: Relay) -> socket.socket:
    host, _, port = relay.hosts.partition(":")
    return socket.create_connection((host, int(port)), TIME_MAX_S)


def test_bytes_go_both_ways_and_an_end_is_passed_on(relay: Relay, server: socket.socket) -> None:
    with connect(relay) as client, server.accept()[0] as peer:
        peer.settimeout(TIME_MAX_S)
        client.sendall(b"there")
        assert peer.recv(100) == b"there"
        peer.sendall(b"back")
        assert client.recv(100) == b"back"
        peer.close()
        assert client.recv(100) == b""


def test_a_cut_ends_what_there_is_and_all_that_comes_until_it_is_mended(relay: Relay, server: socket.socket) -> None:
    with connect(relay) as client, server.accept()[0]:
        relay.cut()
        assert _is_over(client)
    with connect(relay) as client:
        assert _is_over(client)

    relay.restore()

    with connect(relay) as client, server.accept()[0] as ended:
        # The connection that came while the line was cut may have reached the server for a moment.
        peer = ended
        client.sendall(b"again")
        while not (data := peer.recv(100)):
            peer, _ = server.accept()
        assert data == b"again"


def test_silence_holds_back_what_is_sent_and_loses_nothing(relay: Relay, server: socket.socket) -> None:
    with connect(relay) as client, server.accept()[0] as peer:
        relay.silence()
        client.sendall(b"late")
        peer.settimeout(0.2)
        with pytest.raises(TimeoutError):
            peer.recv(100)

        relay.restore()

        peer.settimeout(TIME_MAX_S)
        assert peer.recv(100) == b"late"


def test_leaving_ends_all_connections(server: socket.socket) -> None:
    with Relay([server.getsockname()]) as relay:
        client = connect(relay)
        peer, _ = server.accept()
    with client, peer:
        assert _is_over(client)
        wait_until(lambda: _is_over(peer))


def _is_over(connection: socket.socket) -> bool:
    with suppress(ConnectionError):
        return connection.recv(100) == b""
    return True
