"""Apache ZooKeeper, as ``distci chaos`` starts it, and with TLS."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from distci.chaos import ensemble
from distci.chaos.ensemble import ask
from services.certificates import Authority, Certificate
from services.daemon import free_ports

__all__ = ["Tls", "ZooKeeperServers", "ask"]


@dataclass(frozen=True)
class Tls:
    """What servers show to clients, and who must have signed what clients show."""

    authority: Authority
    server: Certificate


class ZooKeeperServers(ensemble.ZooKeeperServers):
    """With ``tls`` each server has a port besides for clients that show a certificate."""

    def __init__(self, folder: Path, count: int = 1, tls: Tls | None = None) -> None:
        self.tls_ports = free_ports(count)
        self._tls = tls
        super().__init__(folder, count)

    @property
    def pids(self) -> list[int]:
        return [daemon.pid for daemon in self._daemons]

    def lose(self, index: int) -> None:
        """Kill a server and start it again on nothing."""
        self.kill(index)
        shutil.rmtree(self._folder / f"server{index}" / "version-2")
        self.start(index)

    def _settings(self, index: int, data: Path) -> dict[str, object]:
        settings = super()._settings(index, data)
        if self._tls:
            settings |= {
                "serverCnxnFactory": "org.apache.zookeeper.server.NettyServerCnxnFactory",
                "secureClientPort": self.tls_ports[index],
                "secureClientPortAddress": "127.0.0.1",
                "ssl.keyStore.location": self._tls.server.both,
                "ssl.trustStore.location": self._tls.authority.certificate,
                "ssl.clientAuth": "need",
            }
        return settings
