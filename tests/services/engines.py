"""Engines of containers, each with a storage and a socket of its own, and with the same image: podman's service, and dockerd."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from services.containers import PACKAGES, Podman
from services.daemon import Daemon, accepts, free_port

IMAGE = "localhost/tests:1"
NEEDED = (*PACKAGES, "util-linux", "mawk")
"""What the scripts of tests run."""


REGISTRY = """\
version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}/images}}}}
http: {{addr: "{address}"}}
"""


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """The address of a registry that asks nobody who they are."""
    folder.mkdir(parents=True)
    port = free_port()
    address = f"127.0.0.1:{port}"
    configuration = folder / "registry.yml"
    configuration.write_text(REGISTRY.format(folder=folder, address=address))
    daemon = Daemon("registry", ["docker-registry", "serve", str(configuration)], folder)
    try:
        daemon.wait_until_ready(lambda: accepts(port))
        yield address
    finally:
        daemon.stop()


@contextmanager
def podman(folder: Path, without_tls: str = "") -> Iterator[tuple[str, Path]]:
    """The URL of a service of podman, and its image as an archive; ``without_tls`` is a registry that it may speak to so."""
    program = Podman(folder, without_tls)
    program.import_base(IMAGE, NEEDED)
    archive = folder / "image.tar"
    program("save", "--quiet", f"--output={archive}", IMAGE)
    socket = folder / "podman.sock"
    daemon = Daemon("podman-service", program.command("system", "service", "--time=0", f"unix://{socket}"), folder)
    try:
        daemon.wait_until_ready(socket.exists)
        yield f"unix://{socket}", archive
    finally:
        daemon.stop()
        program.close()


@contextmanager
def docker(folder: Path, archive: Path) -> Iterator[str]:
    """The URL of a Docker daemon that changes nothing of the machine's network, with the image of an archive."""
    folder.mkdir(parents=True)
    socket = folder / "docker.sock"
    places = [f"--{name}={folder / name}" for name in ("data-root", "exec-root", "pidfile")]
    alone = ["--iptables=false", "--ip6tables=false", "--ip-forward=false", "--bridge=none"]
    daemon = Daemon("dockerd", ["dockerd", *places, *alone, f"--host=unix://{socket}"], folder)
    try:
        docker = ["docker", f"--host=unix://{socket}"]
        daemon.wait_until_ready(lambda: subprocess.run([*docker, "info"], capture_output=True).returncode == 0)
        subprocess.run([*docker, "load", "--quiet", f"--input={archive}"], check=True, capture_output=True)
        yield f"unix://{socket}"
    finally:
        daemon.stop()
        for mount in (folder / "exec-root" / "netns").glob("*"):
            with suppress(subprocess.CalledProcessError):
                subprocess.run(["umount", str(mount)], check=True)
        subprocess.run(["rm", "-rf", str(folder)], check=True)
