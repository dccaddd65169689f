"""Apache ZooKeeper from Debian's package, one server or an ensemble, on free loopback ports.

Debian's start script lacks a logging back end on its class path, so the server is started directly. Every question to a
server has a time limit: one that is accepted while the server starts may never be answered.
"""

from __future__ import annotations

import re
import shutil
import socket
from pathlib import Path

from distci.chaos.daemon import Daemon, ServiceFailed, free_ports

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


class ZooKeeperServers:
    """Servers that form one service; each can be killed, paused and started again by its index."""

    def __init__(self, folder: Path, count: int = 1) -> None:
        """Raises ServiceFailed when ZooKeeper is not installed or does not start."""
        if not (JARS / "zookeeper.jar").exists() or not shutil.which("java"):
            raise ServiceFailed("ZooKeeper is not installed; run: apt-get install --no-install-recommends zookeeper")
        self._folder = folder
        ports = free_ports(3 * count)
        self.ports = ports[:count]
        self._peers = list(zip(ports[count : 2 * count], ports[2 * count :], strict=True))
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

    def leader(self) -> int:
        """The index of the server that leads, or stands alone; ServiceFailed while none does."""
        for index in range(len(self.ports)):
            if re.search("Mode: (leader|standalone)", self.ask(index, "srvr")):
                return index
        raise ServiceFailed("no ZooKeeper server leads")

    def ask(self, index: int, word: str) -> str:
        """A server's answer to a four-letter word; empty when it does not give one in time."""
        return ask(self.ports[index], word)

    def kill(self, index: int) -> None:
        self._daemons[index].kill()

    def pause(self, *indexes: int) -> None:
        for index in indexes:
            self._daemons[index].pause()

    def resume(self, *indexes: int) -> None:
        for index in indexes:
            self._daemons[index].resume()

    def start(self, index: int) -> None:
        """Start a killed server again, on its data."""
        self.launch(index)
        self._wait_for(index)

    def launch(self, index: int) -> None:
        """The same, without waiting for it."""
        self._daemons[index] = self._launch(index)

    def stop(self) -> None:
        for daemon in self._daemons:
            daemon.resume()
            daemon.stop()

    def _configure(self, index: int) -> None:
        data = self._folder / f"server{index}"
        data.mkdir(parents=True)
        if len(self.ports) > 1:
            (data / "myid").write_text(f"{index + 1}\n")
        text = "".join(f"{name}={value}\n" for name, value in self._settings(index, data).items())
        self._configuration(index).write_text(text)

    def _settings(self, index: int, data: Path) -> dict[str, object]:
        settings: dict[str, object] = {
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
        return settings

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
