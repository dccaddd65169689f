"""``distci build shell``: a terminal in a failed task that is held on its worker."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from shlex import quote
from threading import Event, Thread
from typing import TYPE_CHECKING

import click

from distci.cli.command import Command, Invocation, json_option, pasteable, reason_option
from distci.cli.hands import READ_BYTES, hands
from distci.cli.output import moment, print_json, print_line
from distci.errors import DistCIError, IllegalTransition, Invalid
from distci.model import BuildId

if TYPE_CHECKING:
    from distci.cli.command import System
    from distci.holds import Over, Typed, Visit

ENDED = 3
"""Where the shell did not end by itself, as for a build that was cancelled."""
ALIVE_S = 10.0
"""How often the worker hears, at least, that somebody still is there."""
WAIT_S = 10.0
"""How long one call waits for something to be shown."""
PATIENCE_S = 60.0
"""How long what is away is asked again."""
GOODBYE_S = 5.0


@click.command(
    cls=Command,
    examples=(
        "distci build shell team/hello#12 test",
        "distci build shell team/hello#12 test --url https://ci.example.org",
        "distci build shell team/hello#12 test --release --reason 'seen enough'",
    ),
)
@click.argument("wanted", metavar="BUILD", callback=lambda ctx, param, value: BuildId.parse(value))
@click.argument("task")
@click.option("--release", "is_release", is_flag=True, help="End the hold, without a terminal.")
@reason_option
@json_option
@click.pass_obj
def shell(invocation: Invocation, wanted: BuildId, task: str, is_release: bool, reason: str) -> int:
    """Open a terminal in TASK of BUILD, which has failed and is held, and exit as the shell there does.

    A task is held when it has `hold` and its worker's operator allows it. It has its folder, its variables and its secrets; leave it as you leave a shell,
    and come back as often as you like until the hold ends. One person at a time is in there.
    """
    if is_release:
        with invocation.connect() as system:
            view = system.holds.release(wanted, task, reason)
        told = f"{wanted} {task} is released; it failed: {view.reason}"
        print_json(view) if invocation.is_json else print_line(told)
        return 0
    if invocation.is_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Invalid(
            "a terminal is needed to type on, and no --json: call it from one, or end the hold with --release"
        )
    columns, lines = shutil.get_terminal_size()
    with invocation.connect() as system:
        visit = system.holds.open(wanted, task, lines=lines, columns=columns, kind=os.environ.get("TERM") or "dumb")
        _say(f"{task} of {wanted} is held until {moment(visit.until_ms)}; its worker opens a shell")
        over = _go_in(system, visit)
    is_held_on = over is None or not over.ends_hold
    if over is None or over.exit_status is None:
        why = over.reason if over and over.reason else "the terminal is over"
        _say(why if is_held_on else f"the hold is over: {why}")
    if is_held_on:
        again = f"distci build shell {quote(str(wanted))} {quote(task)}"
        _say(f"it is held on until {moment(visit.until_ms)}, unless that was the end: {again} [--release]")
    return ENDED if over is None or over.exit_status is None else over.exit_status


def _go_in(system: System, visit: Visit) -> Over | None:
    """Show what is shown there, and type what is typed here, until it is over; how it ended, None where that is not known."""
    from distci.protocol import outcomes

    offset = 0
    has_begun = Event()
    keyboard = Keyboard(system, visit)
    try:
        with hands(keyboard, has_begun.is_set), suppress(IllegalTransition):
            while True:
                look = partial(system.holds.shown, visit, offset, WAIT_S)
                shown = outcomes.persist(look, outcomes.Deadline(PATIENCE_S))
                if shown is None:
                    continue
                has_begun.set()
                if shown.over is not None:
                    return shown.over
                sys.stdout.buffer.write(shown.bytes)
                sys.stdout.buffer.flush()
                offset += len(shown.bytes)
                keyboard.see(offset)
    finally:
        keyboard.close()
    return None


class Keyboard:
    """What is typed here, on its way there, in pieces by a thread of its own. It tells, too, how much was seen, and that somebody still is here."""

    def __init__(self, system: System, visit: Visit) -> None:
        self._system = system
        self._visit = visit
        self._seen = 0
        # Unlike a Queue it may be used in the handler of a signal.
        self._events: SimpleQueue[bytes | tuple[int, int] | None] = SimpleQueue()
        self._sender = Thread(target=self._send_all, name="keyboard", daemon=True)
        self._sender.start()

    def send(self, data: bytes) -> None:
        self._events.put(data)

    def resize(self, lines: int, columns: int) -> None:
        self._events.put((lines, columns))

    def see(self, offset: int) -> None:
        """So many bytes have been shown here."""
        self._seen = offset
        self._events.put(b"")

    def close(self) -> None:
        """Tell that nobody is here any more, where that still interests somebody."""
        self._events.put(None)
        self._sender.join(GOODBYE_S)

    def _send_all(self) -> None:
        from distci.protocol import outcomes

        number, is_gone = 0, False
        while not is_gone:
            typed = self._gathered()
            is_gone = typed.is_gone
            put = partial(self._system.holds.type, self._visit, number, typed)
            try:
                outcomes.persist(put, outcomes.Deadline(PATIENCE_S))
            except DistCIError:
                return  # who waits for what is shown is told the same
            number += 1

    def _gathered(self) -> Typed:
        """All that was typed since the last piece, once there is something to tell."""
        from distci.holds import TYPED_BYTES_MAX, Typed

        data, size, is_gone = b"", (0, 0), False
        with suppress(Empty):
            event = self._events.get(timeout=ALIVE_S)
            while True:
                if isinstance(event, bytes):
                    data += event
                elif event is None:
                    is_gone = True
                else:
                    size = event
                if is_gone or len(data) > TYPED_BYTES_MAX - READ_BYTES:
                    break
                event = self._events.get_nowait()
        return Typed(data, *size, self._seen, is_gone)


def _say(text: str) -> None:
    click.echo(pasteable(f"distci: {text}"), err=True)
