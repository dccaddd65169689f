"""Receivers: what forges and other sources tell, turned into changes that builds are started for.

A receiver is one module that knows one sender: how it proves who it is, what its messages look like, and how it is told of a commit's
status. It is found by its name in the entry-point group ``distci.receivers``; a package may bring more. A name that is not one of
DistCI's own has a dot in it (``acme.mail``), so that jobs may name it where it is not installed.

:mod:`distci.receivers.port` says what a receiver has to be, :mod:`distci.receivers.directory` is the example to copy, and
:mod:`distci.hooks` does the rest.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from distci.errors import NoSuchReceiver

if TYPE_CHECKING:
    from distci.receivers.port import Receiver

GROUP = "distci.receivers"


def installed() -> list[str]:
    """The names of all receivers that are installed."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def load(name: str) -> Receiver:
    """The receiver of that name; NoSuchReceiver when none is installed."""
    found = {point.name: point for point in entry_points(group=GROUP)}
    if name not in found:
        raise NoSuchReceiver(f"no receiver {name!r} is installed; there are: {', '.join(sorted(found))}")
    receiver: Receiver = found[name].load()()
    return receiver
