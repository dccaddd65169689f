"""SIGINT and SIGTERM: the first one asks for an orderly end, the second one ends the process at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from types import FrameType

import click

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interrupts(first: Callable[[], None], notice: str) -> Iterator[None]:
    """Call ``first`` at the first signal, in a thread of its own, and say the notice; leave without a word to anybody at the second.

    For the main thread. Signals are its default again afterwards.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def note(number: int, frame: FrameType | None) -> None:
        """Nothing: the number has gone down the pipe before this is called, whichever thread the signal hit."""

    def listen() -> None:
        if not os.read(reading, 1):
            return
        click.echo(f"distci: {notice}", err=True)
        Thread(target=first, name="orderly end", daemon=True).start()
        if number := os.read(reading, 1):
            os._exit(128 + number[0])

    listener = Thread(target=listen, name="interrupts", daemon=True)
    before = {number: signal.signal(number, note) for number in SIGNALS}
    woken_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    listener.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(woken_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writing)
        listener.join()
        os.close(reading)
