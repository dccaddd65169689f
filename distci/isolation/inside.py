"""A command whose supervisor is inside namespaces of its own, where the kernel kills everybody when the first process ends.

Shared by the drivers that have a program of this machine make those.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event

from distci.errors import Unavailable
from distci.isolation.port import Cause, Confinement, Ended
from distci.isolation.supervised import Supervised, readable
from distci.isolation.users import NOBODY, User, find_user

SUPERVISOR_RIGHTS = ("KILL", "SETGID", "SETUID")
"""What the supervisor needs of root's capabilities; the command has none."""

REASON_BYTES_MAX = 500


class Inside(Supervised):
    """A supervisor in there."""

    _first: int | None = None

    def first(self) -> int | None:
        """A hold of the first process in there, to be closed; None once it is gone."""
        raise NotImplementedError

    def joined(self) -> Sequence[Path]:
        # Whoever is to be born into a group has to see it.
        return [*dict.fromkeys(self._group.controllers.values())]

    def born_into(self) -> str:
        return ""

    def begun(self) -> None:
        """Take hold of the first process."""
        self._first = self.first()

    def kill(self) -> None:
        if self._first is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._first, signal.SIGKILL)
        super().kill()

    def kill_leftovers(self) -> None:
        self.kill()

    def close(self) -> None:
        if self._first is not None:
            # It is gone only when everybody else in there is.
            self.kill()
            readable([self._first])
            os.close(self._first)
        super().close()


def hold(process: int) -> int | None:
    """A hold of a process; None when there is none of that number (any more)."""
    try:
        return os.pidfd_open(process)
    except ProcessLookupError:
        return None
    except OSError as error:
        raise Unavailable(f"no hold can be taken of a process: {error.strerror}") from error


def run_inside(what: str, start: Callable[[], Inside], output: Callable[[bytes], None], stop: Event) -> Ended:
    """How a command ended. What is printed before anything runs is said by who makes ``what``: Unavailable, why it could not."""
    printed = bytearray()

    def take(data: bytes) -> None:
        if not inside.has_begun:
            printed.extend(data[:REASON_BYTES_MAX])
        else:
            output(data)

    inside = start()
    ended = inside.run(take, stop)
    if not inside.has_begun and ended.cause is Cause.ENDED:
        raise Unavailable(f"no {what} can be made: {printed.decode(errors='replace').strip()}")
    return ended


def other_problems(wanted: Confinement, type_: str) -> Iterator[str]:
    """What none of these drivers can do by its nature."""
    if wanted.type not in ("", type_):
        yield f"it is not {wanted.type}"
    if wanted.services:
        yield "services are containers, and there are none here"


def root_problems(user: User) -> Iterator[str]:
    """Whom no command may run as that nothing but namespaces keeps from this machine's users."""
    if is_root() and user.uid == 0:
        yield "root of this machine must not run commands; name another user, or none"


def user_of(wanted: Confinement) -> User:
    """Whom commands run as: told, or nobody where root runs the worker, or whoever else runs it."""
    if wanted.user:
        return find_user(wanted.user)
    return NOBODY if is_root() else User(os.getuid(), os.getgid())


def is_root() -> bool:
    return os.geteuid() == 0
