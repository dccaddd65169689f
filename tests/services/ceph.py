"""Ceph from Debian's packages on loopback: a monitor, a manager, one OSD, and a RADOS gateway.

The OSD keeps objects in memory, and loses them when it is killed, or on disk, which takes some seconds more to start. Every
question to a daemon has a time limit.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from services.daemon import Daemon, ServiceFailed, accepts, free_port

PACKAGES = ("ceph-mon", "ceph-mgr", "ceph-osd", "radosgw", "ceph-common", "python3-rados")
PROGRAMS = ("ceph-mon", "ceph-mgr", "ceph-osd", "radosgw", "ceph")
POOL = "distci"
CALL_TIME_MAX_S = 60
OSD_BYTES = 16 << 30
"""As much as it says it has; on disk, a file grows to what is used."""
OSD_CACHE_BYTES = 64 << 20
ANY_KEY = "AQBQhqZfAAAAABAAxkIrHhtQ0LpUlN7M7PKz2w=="
"""A key that nobody was given."""

ENTITIES = {
    "mon.": {"mon": "allow *"},
    "client.admin": {"mon": "allow *", "osd": "allow *", "mgr": "allow *"},
    "client.gateway": {"mon": "allow rw", "osd": "allow rwx"},
    "mgr.a": {"mon": "allow profile mgr", "osd": "allow *"},
    "osd.0": {"mon": "allow profile osd", "mgr": "allow profile osd", "osd": "allow *"},
}


class Ceph:
    """A cluster of one monitor, one manager and one OSD, with an empty pool."""

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        """Raises ServiceFailed when Ceph is not installed or does not start."""
        _require_programs()
        self._folder = folder
        self._durable = durable
        self.configuration = folder / "ceph.conf"
        self._monitor = f"v2:127.0.0.1:{free_port()}"
        self._fsid = str(uuid.uuid4())
        self.configuration.write_text(self._settings())
        for entity, rights in ENTITIES.items():
            caps = [word for service, right in rights.items() for word in ("--cap", service, right)]
            create = [] if (folder / "keyring").exists() else ["--create-keyring"]
            self._call("ceph-authtool", *create, str(folder / "keyring"), "--gen-key", "-n", entity, *caps)
        self._daemons = [self._start_monitor(), self._launch("mgr", "ceph-mgr", "-i", "a")]
        self._make_osd()
        self.start_osd()
        self.admin("osd", "pool", "create", POOL, "8")

    @property
    def pids(self) -> list[int]:
        return [daemon.pid for daemon in (*self._daemons, self.osd)]

    def admin(self, *words: str) -> str:
        """What the ``ceph`` command answers."""
        return admin(self.configuration, *words)

    def start_osd(self) -> None:
        """Start the OSD, or start it again, on what it keeps on disk."""
        boots = self._osd_boots()
        self.osd = self._launch("osd", "ceph-osd", "-i", "0")
        self.osd.wait_until_ready(lambda: self._osd_boots() > boots)

    def stop(self) -> None:
        # Nothing that they hold is wanted any more.
        for daemon in (*self._daemons, self.osd):
            daemon.kill()

    def _start_monitor(self) -> Daemon:
        address = f"[{self._monitor}]"
        folder = self._folder
        self._call("monmaptool", "--create", "--addv", "a", address, "--fsid", self._fsid, str(folder / "monmap"))
        self._call(
            *("ceph-mon", "--mkfs", "-i", "a", "-c", str(self.configuration)),
            *("--monmap", str(folder / "monmap"), "--keyring", str(folder / "keyring")),
        )
        daemon = self._launch("mon", "ceph-mon", "-i", "a")
        daemon.wait_until_ready(partial(accepts, int(self._monitor.rpartition(":")[2])))
        return daemon

    def _make_osd(self) -> None:
        (self._folder / "osd.0").mkdir()
        identity = str(uuid.uuid4())
        self.admin("osd", "new", identity, "0")
        self._call("ceph-osd", "--mkfs", "-i", "0", "-c", str(self.configuration), "--osd-uuid", identity)

    def _osd_boots(self) -> int:
        """Rises each time that the OSD has told the monitor that it is up."""
        [osd] = json.loads(self.admin("osd", "dump", "-f", "json"))["osds"]
        return int(osd["up_from"])

    def _launch(self, name: str, *command: str) -> Daemon:
        return Daemon(name, [*command, "-f", "-c", str(self.configuration)], self._folder)

    def _call(self, *command: str) -> None:
        _output(*command)

    def _settings(self) -> str:
        folder = self._folder
        sections: dict[str, Mapping[str, object]] = {
            "global": {
                "fsid": self._fsid,
                "mon_initial_members": "a",
                "mon_host": f"[{self._monitor}]",
                "public_addr": "127.0.0.1",
                "auth_cluster_required": "cephx",
                "auth_service_required": "cephx",
                "auth_client_required": "cephx",
                "auth_allow_insecure_global_id_reclaim": "false",
                "keyring": folder / "keyring",
                "run_dir": folder,
                "admin_socket": "",
                "log_file": "",
                "log_to_stderr": "false",
                "err_to_stderr": "true",
                "osd_pool_default_size": 1,
                "osd_pool_default_min_size": 1,
                "osd_pool_default_pg_num": 8,
                "osd_pool_default_pg_autoscale_mode": "off",
                "osd_crush_chooseleaf_type": 0,
                "mon_allow_pool_size_one": "true",
                "mon_allow_pool_delete": "true",
                "mon_max_pg_per_osd": 1000,
            },
            "mon": {
                "mon_data": folder / "mon",
                "mon_cluster_log_file": folder / "cluster.log",
                # Every pool and user waits for the monitors to agree, a second by default.
                "paxos_propose_interval": 0.05,
                "paxos_min_wait": 0.02,
                "mon_data_avail_warn": 5,
                "mon_data_avail_crit": 1,
            },
            # Of quotas it is known sooner that they are used up.
            "mgr": {"mgr_data": folder / "mgr", "mgr_initial_modules": "none", "mgr_stats_period": 1},
            "osd": {
                "osd_data": folder / "osd.$id",
                "osd_objectstore": "bluestore" if self._durable else "memstore",
                "memstore_device_bytes": OSD_BYTES,
                "bluestore_block_size": OSD_BYTES,
                "bluestore_cache_autotune": "false",
                "bluestore_cache_size": OSD_CACHE_BYTES,
                "osd_op_num_shards": 2,
            },
            # Clients notice sooner that an OSD is back, in 2 seconds instead of 14.
            "client": {"objecter_timeout": 2, "objecter_tick_interval": 0.5},
        }
        return "".join(
            f"[{section}]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items())
            for section, settings in sections.items()
        )


class Gateway:
    """A RADOS gateway, which serves S3, on a cluster that runs; its user is ``tests`` with the secret ``tests``."""

    def __init__(self, folder: Path, configuration: Path) -> None:
        """Raises ServiceFailed when it does not start."""
        _require_programs()
        port = free_port()
        # Small answers wait 40 ms for an acknowledgement without tcp_nodelay.
        self._daemon = Daemon(
            "gateway",
            [
                *("radosgw", "-f", "-c", str(configuration), "-n", "client.gateway"),
                *("--rgw-frontends", f"beast endpoint=127.0.0.1:{port} tcp_nodelay=1", "--rgw-thread-pool-size", "32"),
            ],
            folder,
        )
        self._daemon.wait_until_ready(lambda: accepts(port))
        user = ("--uid=tests", "--display-name=tests", "--access-key=tests", "--secret-key=tests")
        _output("radosgw-admin", "-c", str(configuration), "user", "create", *user)
        self.endpoint = f"http://127.0.0.1:{port}"

    @property
    def pids(self) -> list[int]:
        return [self._daemon.pid]

    def stop(self) -> None:
        self._daemon.kill()


def admin(configuration: Path, *words: str) -> str:
    """What the ``ceph`` command answers, asked as the administrator."""
    return _output("ceph", "-c", str(configuration), "--connect-timeout", "30", *words)


def unreachable_ceph(folder: Path) -> Path:
    """The configuration file of a cluster whose monitor is not there."""
    configuration = folder / "unreachable.conf"
    configuration.write_text(f"[global]\nmon_host = 127.0.0.1:{free_port()}\nkeyring = {folder / 'keyring'}\n")
    (folder / "keyring").write_text(f"[client.admin]\nkey = {ANY_KEY}\n")
    return configuration


def _output(*command: str) -> str:
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=CALL_TIME_MAX_S, check=True)
    except subprocess.TimeoutExpired as error:
        raise ServiceFailed(f"no answer within {CALL_TIME_MAX_S} s: {' '.join(command)}") from error
    except subprocess.CalledProcessError as error:
        raise ServiceFailed(f"{' '.join(command)}: exit status {error.returncode}: {error.stderr}") from error
    return ran.stdout


def _require_programs() -> None:
    if not all(map(shutil.which, PROGRAMS)):
        raise ServiceFailed(f"Ceph is not installed; run: apt-get install --no-install-recommends {' '.join(PACKAGES)}")
