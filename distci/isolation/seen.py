"""What of this machine a command sees that is kept apart from it, whoever mounts that: the machine's tools, read-only, and the attempt's own folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from distci.isolation.port import Command

TOOLS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/sys")
"""What of the machine can be seen, where it is there."""

HIDDEN = ("/etc/distci",)
"""Folders in there that look empty: they have the worker's own secrets."""

FOR_ALL, FOR_ROOT = 0o1777, 0o755
EMPTY = {"/tmp": FOR_ALL, "/var/tmp": FOR_ALL, "/run": FOR_ROOT}
"""Folders of the command's own, in memory, gone with it, and their modes."""

NAME_FILES = ("/etc/resolv.conf", "/etc/hosts")
"""Where names are looked up. Each may be told by a file elsewhere."""


@dataclass(frozen=True, slots=True)
class Bind:
    """A folder or file of the machine."""

    path: str
    is_writable: bool = False
    may_be_missing: bool = False
    place: str = ""
    """Where it is seen; empty: where it is."""


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link."""

    path: str
    target: str


@dataclass(frozen=True, slots=True)
class Memory:
    """An empty folder that is in memory."""

    path: str
    mode: int = FOR_ROOT
    size_bytes: int | None = None


Sight = Bind | Link | Memory
"""One of what is seen. Later ones cover earlier ones."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is seen besides the machine's tools, read-only, and folders of all that look empty."""

    paths: Sequence[str] = ()
    hidden: Sequence[str] = ()

    def tools(self) -> Iterator[Sight]:
        """The machine's tools."""
        for path in TOOLS:
            yield Link(path, os.readlink(path)) if os.path.islink(path) else Bind(path, may_be_missing=True)

    def beside(self, disk_bytes: int | None) -> Iterator[Sight]:
        """What there is besides the tools; ``disk_bytes`` is how much may be written to each of what is in memory."""
        yield from _empty(disk_bytes)
        for path in NAME_FILES:
            real = os.path.realpath(path)
            if real != path and os.path.exists(real):
                yield Bind(real)
        yield from self._shared()

    def in_image(self, disk_bytes: int | None, is_on_network: bool) -> Iterator[Sight]:
        """What there is besides the files of an image, where nothing is of the machine's tools."""
        yield Bind("/sys")
        yield from _empty(disk_bytes)
        for path in NAME_FILES if is_on_network else ():
            yield Bind(os.path.realpath(path), may_be_missing=True, place=path)
        yield from self._shared()

    def _shared(self) -> Iterator[Sight]:
        """What the operator shares with every command."""
        for path in self.paths:
            yield Bind(path, may_be_missing=True)
        for path in (*HIDDEN, *self.hidden):
            if os.path.isdir(path) and any(Path(path).is_relative_to(seen) for seen in (*TOOLS, *self.paths)):
                yield Memory(path)


def _empty(disk_bytes: int | None) -> Iterator[Sight]:
    for path, mode in EMPTY.items():
        yield Memory(path, mode, disk_bytes)


def attempts_own(command: Command) -> Iterator[Sight]:
    """The folders of an attempt, and where its command runs."""
    for mount in command.mounts:
        yield Bind(str(mount.path), mount.is_writable)
    if not any(command.directory.is_relative_to(mount.path) for mount in command.mounts):
        yield Bind(str(command.directory), is_writable=True)
