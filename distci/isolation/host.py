"""Commands as processes of this machine, told apart from the worker by nothing but a process tree of their own.

This driver keeps scripts together, not apart: they may read and write whatever the worker's user may. It is for machines whose
operator trusts what is built there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL
from threading import Event

from distci.errors import Invalid
from distci.isolation import supervisor
from distci.isolation.cgroups import ControlGroups
from distci.isolation.port import HOST, Command, Confinement, Ended
from distci.isolation.processes import environment, others, stat
from distci.isolation.supervised import MARK, Supervised, check
from distci.isolation.users import User, find_user, give

SPARED = b"DISTCI_GATEWAY="
"""A variable of scripts that have no supervisor, since they are run by workers of another sort, which see to what they start."""

SUPERVISOR = os.fsencode(os.path.join("", *supervisor.__name__.split("."))) + b".py\0"
"""How the path of every installation's supervisor ends, as a command line has it."""


class HostIsolation:
    """Runs commands under a supervising process each, and in a control group each where these can be had."""

    types: Sequence[str] = (HOST,)

    def __init__(self, cgroups: ControlGroups | None = None) -> None:
        """``cgroups`` are where we may make control groups; None: supervisors have to do, and nothing is limited."""
        self._cgroups = cgroups or ControlGroups()

    def run(self, command: Command, output: Callable[[bytes], None], stop: Event) -> Ended:
        check(command)
        wanted = command.confinement or Confinement()
        if problems := [*_problems(wanted), *self._cgroups.problems(wanted.limits)]:
            raise Invalid(f"isolation {HOST}: {'; '.join(problems)}")
        user = _user(wanted)
        if user:
            give(command.mounts, user)
        with self._cgroups.group(command.tag, wanted.limits) as group:
            return Supervised(command, group, user).run(output, stop)

    def settle(self, wanted: Confinement, stop: Event) -> Confinement:
        return wanted

    def sweep(self) -> int:
        return self._cgroups.sweep() + _sweep_orphans()


def _problems(wanted: Confinement) -> Iterator[str]:
    """What this driver cannot do by its nature."""
    if wanted.type not in ("", HOST):
        yield f"it is not {wanted.type}"
    if wanted.services:
        yield "services are containers, and there are none here"
    if wanted.image:
        yield "commands have the machine's own files, and no image"
    if not wanted.network:
        yield "commands have the machine's network, and it cannot be taken from them"
    if wanted.read_only:
        yield "commands may write wherever their user may, and no root is read-only"


def _user(wanted: Confinement) -> User | None:
    """Whom to become; None: nobody else. Invalid where that takes rights that we do not have."""
    user = find_user(wanted.user) if wanted.user else None
    if user is None or user == User(os.getuid(), os.getgid()):
        return None
    if os.geteuid() != 0:
        raise Invalid(f"isolation {HOST}: only a worker that root runs can run commands as {wanted.user}")
    return user


def _sweep_orphans() -> int:
    """Kill what descends from commands whose supervisor is gone."""
    killed = 0
    for pid in others():
        given = environment(pid)
        if MARK in given and SPARED not in given and not _is_supervised(pid):
            with suppress(ProcessLookupError):
                os.kill(pid, SIGKILL)
                killed += 1
    return killed


def _is_supervised(pid: int) -> bool:
    ancestor, gone = pid, {pid}
    while ancestor > 1:
        try:
            if SUPERVISOR in Path(f"/proc/{ancestor}/cmdline").read_bytes():
                return True
            ancestor = int(stat(ancestor)[1])
        except (OSError, IndexError):
            if ancestor in gone:
                return False
            # It has died since it was named as an ancestor: there is another one now.
            gone.add(ancestor)
            ancestor = pid
    return False
