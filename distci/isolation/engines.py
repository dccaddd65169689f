"""Where engines listen that speak Docker's API."""

from __future__ import annotations

import os

SOCKETS = ("/run/docker.sock", "/run/podman/podman.sock", "/run/user/{uid}/podman/podman.sock")

NO_ENGINE = (
    "there is no container engine: install what Debian calls podman or docker.io, have its socket listen (systemctl enable --now podman.socket), "
    "or name another one in the setting container_engine"
)


def find_engine() -> str:
    """The URL of the first engine that this user may speak to where engines listen by themselves; empty when there is none."""
    sockets = (socket.format(uid=os.getuid()) for socket in SOCKETS)
    return next((f"unix://{socket}" for socket in sockets if os.access(socket, os.W_OK)), "")
