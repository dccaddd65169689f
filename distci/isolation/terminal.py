"""Somebody's hands on the terminal of a command, wherever that runs: what they type goes by a named pipe, which any way of isolation can mount."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from shlex import quote
from types import TracebackType
from typing import Self

DATA_BYTES_MAX = 1024
"""Of one frame. Pipes keep apart what is written at once if it is no more than 4 KiB."""
SIZE_MAX = 9999
INTERACTIVE = "if command -v bash >/dev/null 2>&1; then bash --norc -i; else sh -i; fi </dev/tty >/dev/tty 2>&1"


def interactive(kind: str, name: str) -> str:
    """A script for a shell on the terminal, in the directory and with the variables of whoever runs it; ``kind`` is what ``TERM`` says, ``name`` is in its prompt."""
    return f"export TERM={quote(kind)} PS1={quote(f'{name}> ')}; {INTERACTIVE}"


class Terminal:
    """One terminal, before its command is there and while it is. A context manager: left, its pipe is gone. Any thread may use it."""

    def __init__(self, folder: Path) -> None:
        """``folder`` is made. It is to be mounted for the command, as its own."""
        folder.mkdir(mode=0o700)
        self.folder = folder
        self.pipe = folder / "typed"
        os.mkfifo(self.pipe, 0o600)
        # To read from it, too: else nothing could be typed before somebody listens.
        self._typed = os.open(self.pipe, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def send(self, data: bytes) -> None:
        """Type these bytes. What nobody reads for long is dropped."""
        for start in range(0, len(data), DATA_BYTES_MAX):
            piece = data[start : start + DATA_BYTES_MAX]
            self._write(b"d%04d0000" % len(piece) + piece)

    def resize(self, lines: int, columns: int) -> None:
        self._write(b"s%04d%04d" % (min(lines, SIZE_MAX), min(columns, SIZE_MAX)))

    def _write(self, frame: bytes) -> None:
        with suppress(BlockingIOError):
            os.write(self._typed, frame)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._typed)
        with suppress(FileNotFoundError):
            self.pipe.unlink()
