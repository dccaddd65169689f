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
from pathlib import Path

from waiting import wait_until

from services.s3 import S3Server
from services.zookeeper import ZooKeeperServers

VARIABLE = "DISTCI_TESTS_SERVICES"
"""Names the run's folder to all of its processes."""
STOP_TIME_MAX_S = 10.0


def begin() -> None:
    """Make the run's folder; for its first process."""
    os.environ[VARIABLE] = tempfile.mkdtemp(prefix="distci-services-")


def end() -> None:
    """Stop what was started; for its first process."""
    folder = Path(os.environ.pop(VARIABLE))
    for record in folder.glob("*.json"):
        for pid in json.loads(record.read_text())["pids"]:
            _stop(pid)
    shutil.rmtree(folder, ignore_errors=True)


def zookeeper_hosts() -> str:
    """One ZooKeeper server."""
    return _address("zookeeper", _start_one)


def zookeeper_ensemble_hosts() -> str:
    """Three ZooKeeper servers that form one service."""
    return _address("ensemble", _start_three)


def s3_endpoint() -> str:
    """The URL of an S3 server."""
    return _address("s3", _start_s3)


def _address(name: str, start: Callable[[Path], tuple[str, list[int]]]) -> str:
    folder = Path(os.environ[VARIABLE])
    record = folder / f"{name}.json"
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not record.exists():
            (folder / name).mkdir(exist_ok=True)
            address, pids = start(folder / name)
            record.write_text(json.dumps({"address": address, "pids": pids}))
    address = json.loads(record.read_text())["address"]
    assert isinstance(address, str)
    return address


def _start_one(folder: Path) -> tuple[str, list[int]]:
    servers = ZooKeeperServers(folder)
    return servers.hosts, servers.pids


def _start_three(folder: Path) -> tuple[str, list[int]]:
    servers = ZooKeeperServers(folder, 3)
    return servers.hosts, servers.pids


def _start_s3(folder: Path) -> tuple[str, list[int]]:
    server = S3Server(folder)
    return server.endpoint, server.pids


def _stop(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not _is_alive(pid), STOP_TIME_MAX_S)
    except ProcessLookupError:
        return
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)


def _is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and that nobody waited for yet does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"
