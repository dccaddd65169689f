"""Service processes, as ``distci chaos`` starts them, and where they listen."""

import socket

from distci.chaos.daemon import Daemon, ServiceFailed, free_ports

__all__ = ["Daemon", "ServiceFailed", "accepts", "free_port", "free_ports"]


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    [port] = free_ports(1)
    return port


def accepts(port: int) -> bool:
    """Whether somebody listens on a loopback port."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
