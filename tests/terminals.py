"""A program with somebody at its terminal."""

from __future__ import annotations

import fcntl
import os
import subprocess
import termios
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Thread

from program import PROGRAM, TIME_MAX_S, Home
from waiting import wait_until


class Typist:
    """Types to a program, and sees what it shows."""

    def __init__(self, home: Home, arguments: Sequence[str]) -> None:
        self._screen, terminal = os.openpty()
        self._shown = bytearray()

        def take_terminal() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self._process = subprocess.Popen(
            [PROGRAM, *arguments],
            cwd=home.folder,
            env=home.environment,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            preexec_fn=take_terminal,
        )
        os.close(terminal)
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def shown(self) -> str:
        return self._shown.decode(errors="replace")

    def see(self, text: str) -> None:
        """Wait until it stands there."""
        wait_until(lambda: text in self.shown or self._process.poll() is not None)
        assert text in self.shown, self.shown

    def type(self, text: str) -> None:
        os.write(self._screen, text.encode())

    def resize(self, lines: int, columns: int) -> None:
        """Another size, as when somebody pulls at a window's corner."""
        termios.tcsetwinsize(self._screen, (lines, columns))

    def wait(self) -> int:
        """The exit code, once all that it has shown has been seen."""
        code = self._process.wait(TIME_MAX_S)
        self._reader.join(TIME_MAX_S)
        return code

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join(TIME_MAX_S)
        os.close(self._screen)

    def _read(self) -> None:
        while True:
            try:
                self._shown += os.read(self._screen, 65536)
            except OSError:
                return


@contextmanager
def typing(home: Home, *arguments: str) -> Iterator[Typist]:
    """The program on a terminal of its own; killed if it outlives the block."""
    typist = Typist(home, arguments)
    try:
        yield typist
    finally:
        typist.close()
