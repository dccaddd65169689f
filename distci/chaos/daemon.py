"""One service process: started on a free port, waited for, killed, paused, stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from distci.chaos.waiting import wait_until
from distci.errors import Unavailable

START_TIME_MAX_S = 60.0
STOP_TIME_MAX_S = 10.0


class ServiceFailed(Unavailable):
    """A service could not be started; the message says why and what to do."""


class Daemon:
    """A process in a session of its own, with its output in a file."""

    def __init__(self, name: str, command: Sequence[str], folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, start_new_session=True
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_ready(self, is_ready: Callable[[], bool]) -> None:
        """Raises ServiceFailed, with the end of its output, when the process ends before it is ready."""

        def is_decided() -> bool:
            return self._process.poll() is not None or is_ready()

        try:
            wait_until(is_decided, START_TIME_MAX_S)
        except TimeoutError:
            self.kill()
            raise self._failed(f"is not ready after {START_TIME_MAX_S:g} s") from None
        if self._process.poll() is not None:
            raise self._failed(f"ended with exit status {self._process.returncode}")

    def pause(self) -> None:
        """SIGSTOP, and wait until all of its threads stand still."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """SIGTERM, then SIGKILL for one that does not listen."""
        self._process.terminate()
        try:
            self._process.wait(STOP_TIME_MAX_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def _failed(self, how: str) -> ServiceFailed:
        lines = self.log.read_text(errors="replace").splitlines()[-20:]
        return ServiceFailed(f"{self.name} {how}; the end of {self.log}:\n" + "\n".join(lines))


def free_ports(count: int) -> list[int]:
    """So many loopback ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
