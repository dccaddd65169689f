"""Services shared by the processes of one test run: the first that asks starts one, the run's first process stops all.

The folder of a run names them: ``<service>.json`` holds the address and the process ids. A lock on a file makes one of those
who ask at once the one that starts it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from waiting import wait_until

from services import engines, machines
from services.ceph import Ceph, Gateway
from services.certificates import Authority
from services.s3 import S3Server
from services.zookeeper import Tls, ZooKeeperServers

VARIABLE = "DISTCI_TESTS_SERVICES"
"""Names the run's folder to all of its processes."""
STOP_TIME_MAX_S = 10.0


def begin() -> None:
    """Make the run's folder; for its first process."""
    os.environ[VARIABLE] = tempfile.mkdtemp(prefix="s-")  # Podman takes no long paths.
    # Some who run in containers of the engines are nobody.
    Path(os.environ[VARIABLE]).chmod(0o755)


def end() -> None:
    """Stop what was started; for its first process."""
    folder = Path(os.environ.pop(VARIABLE))
    pids = [pid for record in folder.glob("*.json") for pid in json.loads(record.read_text())["pids"]]
    # Nothing that they hold is wanted any more, and some would wait for others to end in good order.
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(map(_is_alive, pids)), STOP_TIME_MAX_S)
    engines.unmount(folder)
    shutil.rmtree(folder, ignore_errors=True)


def zookeeper_hosts() -> str:
    """One ZooKeeper server."""
    return _address("zookeeper", ZooKeeperServers, lambda servers: servers.hosts)


def zookeeper_ensemble_hosts() -> str:
    """Three ZooKeeper servers that form one service."""
    return _address("ensemble", partial(ZooKeeperServers, count=3), lambda servers: servers.hosts)


def zookeeper_tls() -> tuple[str, Path]:
    """One ZooKeeper server that takes those alone who show a certificate: the address that its own certificate is good for, and
    the folder of ``ca.pem``, ``client.crt`` and ``client.key``.
    """
    hosts = _address("zookeeper-tls", _start_with_tls, lambda servers: f"localhost:{servers.tls_ports[0]}")
    return hosts, Path(os.environ[VARIABLE], "zookeeper-tls")


def s3_endpoint() -> str:
    """The URL of an S3 server."""
    return _address("s3", S3Server, lambda server: server.endpoint)


def engine(name: str) -> str:
    """The URL of an engine of containers, by its name: ``podman`` or ``docker``."""
    if name == "podman":
        return _address("podman", engines.PodmanService, lambda service: service.address)
    engine("podman")
    image = engines.archive(Path(os.environ[VARIABLE], "podman"))
    return _address("docker", partial(engines.DockerDaemon, image=image), lambda daemon: daemon.address)


def kit_folder() -> Path:
    """For the interpreter that runs in containers, which is made once."""
    return Path(os.environ[VARIABLE], "kit")


def engine_folder(name: str) -> Path:
    """For what containers of an engine are given by the processes of one worker of the run."""
    return Path(os.environ[VARIABLE], name, f"ours-{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}")


def machine_image(*, is_small: bool = False) -> str:
    """An image of virtual machines, as the setting ``vm_images`` has it."""
    if is_small:
        return _address("small-image", machines.Made, lambda image: image.address)
    made = partial(machines.Made, packages=machines.NEEDED)
    return _address("image", made, lambda image: image.address)


def machine_folder() -> Path:
    """What virtual machines begin from, for all processes of the run."""
    return Path(os.environ[VARIABLE], "vms")


def registry() -> str:
    """The address of a registry of images that asks nobody who they are."""
    return _address("registry", engines.Registry, lambda registry: registry.address)


def private_registry() -> str:
    """The address of one that asks everybody."""
    start = partial(engines.Registry, is_private=True)
    return _address("private-registry", start, lambda registry: registry.address)


def _start_with_tls(folder: Path) -> ZooKeeperServers:
    authority = Authority(folder)
    authority.sign("client")
    return ZooKeeperServers(folder, tls=Tls(authority, authority.sign("server", "DNS:localhost")))


def ceph_configuration() -> Path:
    """The configuration file of a Ceph cluster."""
    return Path(_address("ceph", Ceph, lambda ceph: str(ceph.configuration)))


def gateway_endpoint() -> str:
    """The URL of the S3 service of that cluster."""
    return _address("gateway", partial(Gateway, configuration=ceph_configuration()), lambda gateway: gateway.endpoint)


class _Service(Protocol):
    @property
    def pids(self) -> list[int]: ...


_AnyService = TypeVar("_AnyService", bound=_Service)


def _address(name: str, start: Callable[[Path], _AnyService], address_of: Callable[[_AnyService], str]) -> str:
    folder = Path(os.environ[VARIABLE])
    record = folder / f"{name}.json"
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not record.exists():
            (folder / name).mkdir(exist_ok=True)
            service = start(folder / name)
            record.write_text(json.dumps({"address": address_of(service), "pids": service.pids}))
    return str(json.loads(record.read_text())["address"])


def _is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and that nobody waited for yet does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"
