"""SIGINT and SIGTERM. To a server the first one is the wish for an orderly end, and the second one ends the process at once; to all else Ctrl-C is an exception."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from types import FrameType

import click

SIGNALS = (signal.SIGINT, signal.SIGTERM)


REPEATED_S = 2.0


def repeat_unheard() -> None:
    """Have Ctrl-C raise KeyboardInterrupt again and again until it is :func:`heard`. For the main thread of a program.

    What a signal's handler raises goes unheard where Python drops exceptions, as in what the finalizers of files call.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, REPEATED_S)
        raise KeyboardInterrupt

    # Whoever started the program may have wished that it takes no notice.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGALRM, interrupt)


def heard() -> None:
    """The program ends for it."""
    signal.setitimer(signal.ITIMER_REAL, 0)


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
