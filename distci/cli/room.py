"""Room on the disk that everything of a run is kept on. What finds none waits for it, which nobody would know of if it were not said."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import click

from distci.errors import Unavailable

ROOM_BYTES_MIN = 16 * 1024 * 1024
"""Below this a tree and a store cannot go about their own work for long, whatever tasks keep."""

LOOK_S = 0.5
"""How soon it is said that the disk is full."""


def require_room(folder: Path) -> None:
    """Raise Unavailable when the folder's disk is all but full."""
    place = _existing(folder)
    if problem := _problem(place):
        raise Unavailable(f"{problem}; make room there, or name a folder on another disk with --data")


@contextmanager
def watched_room(folder: Path) -> Iterator[None]:
    """Say on stderr, once each time, that the folder's disk has become all but full."""
    is_over = Event()

    def look() -> None:
        was_full = False
        while not is_over.wait(LOOK_S):
            problem = _problem(folder)
            if problem and not was_full:
                click.echo(f"distci: {problem}; make room there, what needs some waits for it", err=True)
            was_full = bool(problem)

    watcher = Thread(target=look, name="room", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        is_over.set()
        watcher.join()


def _problem(folder: Path) -> str:
    """What is full and where; empty while there is room, or nobody can tell."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return ""
    return f"the disk of {folder} is full: {free >> 10} KiB are left" if free < ROOM_BYTES_MIN else ""


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there already."""
    return next((place for place in (folder, *folder.parents) if place.exists()), folder)
