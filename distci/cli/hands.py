"""The terminal that this program was called from, while somebody types on one elsewhere."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from types import FrameType
from typing import Protocol

POLL_MS = 50
READ_BYTES = 4096


class Keyboard(Protocol):
    """Where what is typed goes."""

    def send(self, data: bytes) -> None: ...

    def resize(self, lines: int, columns: int) -> None: ...


@contextmanager
def hands(keyboard: Keyboard, has_begun: Callable[[], bool]) -> Iterator[None]:
    """From when something ``has_begun`` there until this is left, all that is typed here is typed there, Ctrl-C included.

    For the main thread. The terminal is as it was afterwards.
    """
    source = sys.stdin.fileno()
    before = termios.tcgetattr(source)
    over = Event()

    def size(number: int = 0, frame: FrameType | None = None) -> None:
        columns, lines = shutil.get_terminal_size()
        keyboard.resize(lines, columns)

    def pass_on() -> None:
        while not has_begun():
            if over.wait(POLL_MS / 1000):
                return
        tty.setraw(source, termios.TCSADRAIN)
        typed = select.poll()
        typed.register(source, select.POLLIN)
        while not over.is_set():
            if typed.poll(POLL_MS):
                data = os.read(source, READ_BYTES)
                if not data:
                    return
                keyboard.send(data)

    size()
    resized_before = signal.signal(signal.SIGWINCH, size)
    reader = Thread(target=pass_on, name="hands", daemon=True)
    reader.start()
    try:
        yield
    finally:
        over.set()
        reader.join()
        signal.signal(signal.SIGWINCH, resized_before)
        with suppress(termios.error):
            termios.tcsetattr(source, termios.TCSADRAIN, before)
