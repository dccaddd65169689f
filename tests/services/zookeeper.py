"""Apache ZooKeeper from Debian's package, one server or an ensemble, on free loopback ports.

Debian's start script lacks a logging back end on its class path, so the server is started directly. Every question to a
server has a time limit: one that is accepted while the server starts may never be answered.
"""

from __future__ import annotations

import re
import shutil
import socket
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from services.certificates import Authority, Certificate
from services.daemon import Daemon, ServiceFailed, free_ports

JARS = Path("/usr/share/java")
CLASS_PATH = (
    "zookeeper",
    "zookeeper-jute",
    "slf4j-api",
    "slf4j-simple",
    "netty-codec",
    "netty-resolver",
    "netty-transport-native-unix-common",
    "metrics-core",
    "snappy-java",
)
MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
TICK_MS = 200
"""The server's unit of time; sessions last two ticks at least and end within one more."""
PROBE_TIME_MAX_S = 2.0


@dataclass(frozen=True)
class Tls:
    """What servers show to clients, and who must have signed what clients show."""

    authority: Authority
    server: Certificate


class ZooKeeperServers:
    """Servers that form one service; each can be killed, paused and started again by its index."""

    def __init__(self, folder: Path, count: int = 1, tls: Tls | None = None) -> None:
        """With ``tls`` each server has a port besides for clients that show a certificate.

        Raises ServiceFailed when ZooKeeper is not installed or does not start.
        """
        if not (JARS / "zookeeper.jar").exists() or not shutil.which("java"):
            raise ServiceFailed("ZooKeeper is not installed; run: apt-get install --no-install-recommends zookeeper")
        self._folder = folder
        ports = iter(free_ports(4 * count))
        self.ports, voting, leading, self.tls_ports = (list(islice(ports, count)) for _ in range(4))
        self._peers = list(zip(voting, leading, strict=True))
        self._tls = tls
        self._daemons: list[Daemon] = []
        for index in range(count):
            self._configure(index)
        self._daemons = [self._launch(index) for index in range(count)]
        for index in range(count):
            self._wait_for(index)

    @property
    def hosts(self) -> str:
        """``host:port,host:port`` for clients."""
        return ",".join(f"127.0.0.1:{port}" for port in self.ports)

    @property
    def pids(self) -> list[int]:
        return [daemon.pid for daemon in self._daemons]

    def leader(self) -> int:
        """The index of the server that leads, or stands alone."""
        return next(
            index for index in range(len(self.ports)) if re.search("Mode: (leader|standalone)", self.ask(index, "srvr"))
        )

    def ask(self, index: int, word: str) -> str:
        """A server's answer to a four-letter word; empty when it does not give one in time."""
        return ask(self.ports[index], word)

    def kill(self, index: int) -> None:
        self._daemons[index].kill()

    def pause(self, index: int) -> None:
        self._daemons[index].pause()

    def resume(self, index: int) -> None:
        self._daemons[index].resume()

    def start(self, index: int) -> None:
        """Start a killed server again, on its data."""
        self._daemons[index] = self._launch(index)
        self._wait_for(index)

    def stop(self) -> None:
        for daemon in self._daemons:
            daemon.resume()
            daemon.stop()

    def _configure(self, index: int) -> None:
        data = self._folder / f"server{index}"
        data.mkdir(parents=True)
        settings = {
            "tickTime": TICK_MS,
            "initLimit": 50,
            "syncLimit": 25,
            "dataDir": data,
            "clientPort": self.ports[index],
            "clientPortAddress": "127.0.0.1",
            "admin.enableServer": "false",
            "4lw.commands.whitelist": "*",
            "maxClientCnxns": 0,
            "maxSessionTimeout": 60_000,
        }
        if len(self.ports) > 1:
            settings |= {"standaloneEnabled": "false", "quorumListenOnAllIPs": "false"}
            settings |= {
                f"server.{number}": f"127.0.0.1:{peer}:{vote}" for number, (peer, vote) in enumerate(self._peers, 1)
            }
            (data / "myid").write_text(f"{index + 1}\n")
        if self._tls:
            settings |= {
                "serverCnxnFactory": "org.apache.zookeeper.server.NettyServerCnxnFactory",
                "secureClientPort": self.tls_ports[index],
                "secureClientPortAddress": "127.0.0.1",
                "ssl.keyStore.location": self._tls.server.both,
                "ssl.trustStore.location": self._tls.authority.certificate,
                "ssl.clientAuth": "need",
            }
        text = "".join(f"{name}={value}\n" for name, value in settings.items())
        self._configuration(index).write_text(text)

    def _configuration(self, index: int) -> Path:
        return self._folder / f"server{index}.cfg"

    def _launch(self, index: int) -> Daemon:
        options = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dzookeeper.preAllocSize=4096"]
        options += ["-Dzookeeper.extendedTypesEnabled=true", "-Dznode.container.checkIntervalMs=1000"]
        options += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
        class_path = ":".join(str(JARS / f"{name}.jar") for name in CLASS_PATH)
        command = ["java", *options, "-cp", class_path, MAIN, str(self._configuration(index))]
        return Daemon(f"zookeeper{index}", command, self._folder)

    def _wait_for(self, index: int) -> None:
        self._daemons[index].wait_until_ready(lambda: "Mode: " in self.ask(index, "srvr"))


def ask(port: int, word: str) -> str:
    """The answer of a server on this machine to a four-letter word; empty when it does not give one in time."""
    try:
        with socket.create_connection(("127.0.0.1", port), PROBE_TIME_MAX_S) as connection:
            connection.settimeout(PROBE_TIME_MAX_S)
            connection.sendall(word.encode())
            with connection.makefile("rb") as answer:
                return answer.read().decode(errors="replace")
    except OSError:
        return ""
