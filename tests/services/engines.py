"""Engines of containers, each with a storage and a socket of its own, and with the same image: podman's service, and dockerd."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from distci.isolation.processes import others
from services.containers import PACKAGES, Podman
from services.daemon import Daemon, accepts, free_port

IMAGE = "localhost/tests:1"
NEEDED = (*PACKAGES, "util-linux", "mawk")
"""What the scripts of tests run."""


LOOPBACK = "127.0.0.1"

USER, PASSWORD = "ada", "battery staple"
HTPASSWD = "ada:$2b$05$SbsMiZ368hruOg//Xkt1YuVr5vjSRckixNeGgv5zmwDKCMHusN6HC\n"
"""What that registry takes which does not give to everybody."""

REGISTRY = """\
version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}/images}}}}
http: {{addr: "{address}"}}
"""
AUTH = """\
auth: {{htpasswd: {{realm: tests, path: {folder}/htpasswd}}}}
"""


class Registry:
    """A registry of images, for everybody or for one user."""

    def __init__(self, folder: Path, *, is_private: bool = False) -> None:
        port = free_port()
        self.address = f"{LOOPBACK}:{port}"
        configuration = folder / "registry.yml"
        configuration.write_text((REGISTRY + (AUTH if is_private else "")).format(folder=folder, address=self.address))
        (folder / "htpasswd").write_text(HTPASSWD)
        self._daemon = Daemon("registry", ["docker-registry", "serve", str(configuration)], folder)
        self._daemon.wait_until_ready(lambda: accepts(port))

    @property
    def pids(self) -> list[int]:
        return [self._daemon.pid]


class PodmanService:
    """Podman, and its image as an archive for others."""

    def __init__(self, folder: Path) -> None:
        program = Podman(folder, without_tls=LOOPBACK)
        program.import_base(IMAGE, NEEDED)
        program("save", "--quiet", f"--output={archive(folder)}", IMAGE)
        place = folder / "engine.sock"
        self.address = f"unix://{place}"
        self._daemon = Daemon("podman", program.command("system", "service", "--time=0", self.address), folder)
        self._daemon.wait_until_ready(lambda: _listens(place))

    @property
    def pids(self) -> list[int]:
        return [self._daemon.pid]

    def stop(self) -> None:
        self._daemon.stop()


class DockerDaemon:
    """A Docker daemon that changes nothing of the machine's network, with the image of an archive."""

    def __init__(self, folder: Path, image: Path) -> None:
        self.address = f"unix://{folder / 'engine.sock'}"
        places = [f"--{name}={folder / name}" for name in ("data-root", "exec-root", "pidfile")]
        alone = ["--iptables=false", "--ip6tables=false", "--ip-forward=false", "--bridge=none"]
        self._daemon = Daemon("dockerd", ["dockerd", *places, *alone, f"--host={self.address}"], folder)
        docker = ["docker", f"--host={self.address}"]
        self._daemon.wait_until_ready(lambda: subprocess.run([*docker, "info"], capture_output=True).returncode == 0)
        subprocess.run([*docker, "load", "--quiet", f"--input={image}"], check=True, capture_output=True)

    @property
    def pids(self) -> list[int]:
        # Its own one of containerd dies with it.
        return [self._daemon.pid]

    def stop(self) -> None:
        self._daemon.stop()


@contextmanager
def running(folder: Path) -> Iterator[Mapping[str, str]]:
    """The URLs of both engines, by name, for who shares them with nobody."""
    for name in ("podman", "docker"):
        (folder / name).mkdir(parents=True)
    podman = PodmanService(folder / "podman")
    docker = DockerDaemon(folder / "docker", archive(folder / "podman"))
    try:
        yield {"podman": podman.address, "docker": docker.address}
    finally:
        podman.stop()
        docker.stop()
        unmount(folder)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def archive(folder: Path) -> Path:
    """Where Podman's image is."""
    return folder / "image.tar"


def unmount(folder: Path) -> None:
    """Take off what engines that were killed have left mounted, having ended what still attends to their containers.

    Podman keeps a process for each command that was run in a container from outside, for five minutes after its end.
    """
    for pid in others():
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            if words.startswith(b"/usr/bin/conmon\0") and f"{folder}/".encode() in words:
                os.kill(pid, signal.SIGKILL)
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    for place in reversed([line.split()[4] for line in lines]):
        if place.startswith(f"{folder}/"):
            subprocess.run(["umount", "--lazy", place], check=False)
