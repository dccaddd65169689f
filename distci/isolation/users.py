"""Whom commands run as, and what is given to them."""

from __future__ import annotations

import os
import pwd
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from distci.errors import Invalid, Unavailable
from distci.isolation.port import Mount


@dataclass(frozen=True, slots=True)
class User:
    """By numbers."""

    uid: int
    gid: int


SET_ID_BITS = stat.S_ISUID | stat.S_ISGID
"""What a change of owner takes from a file."""

NOBODY = User(65534, 65534)
"""Who owns nothing, on every Linux."""


ROOT_RIGHTS = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SYS_CHROOT")
"""Capabilities of who is root in a container: what installing packages takes, and nothing that concerns the machine."""

SUBORDINATES = 1 << 16
"""As many users as a container has."""


@dataclass(frozen=True, slots=True)
class Subordinates:
    """Users of this machine who are nobody but a container's: whoever is 0 in there is ``uid`` and ``gid`` here, and so on."""

    uid: int
    gid: int
    count: int = SUBORDINATES

    def outside(self, user: User) -> User:
        return User(self.uid + user.uid, self.gid + user.gid)

    def problems(self, user: User) -> Iterator[str]:
        if max(user.uid, user.gid) >= self.count:
            yield f"there is no user {user.uid}:{user.gid} in there: they are 0 to {self.count - 1}"


def find_subordinates(etc: Path = Path("/etc")) -> Subordinates | None:
    """Those that root may give to containers, as ``subuid`` and ``subgid`` of a folder say; None for too few."""
    uid, gid = (_subordinates(etc / name) for name in ("subuid", "subgid"))
    return None if uid is None or gid is None else Subordinates(uid, gid)


def _subordinates(file: Path) -> int | None:
    try:
        lines = _table(file.read_text(), 3)
    except OSError:
        return None
    firsts = (
        int(first)
        for user, first, count, *_ in lines
        if user in ("root", "0") and first.isdigit() and count.isdigit() and int(count) >= SUBORDINATES
    )
    return next(firsts, None)


def find_user(text: str) -> User:
    """The user of a name, ``UID`` or ``UID:GID``; the group of a bare UID is its own, or that of the same number. Invalid for none."""
    numbers = re.fullmatch(r"([0-9]{1,9})(?::([0-9]{1,9}))?", text)
    if numbers and numbers[2]:
        return User(int(numbers[1]), int(numbers[2]))
    try:
        found = pwd.getpwuid(int(numbers[1])) if numbers else pwd.getpwnam(text)
    except KeyError:
        if numbers:
            return User(int(numbers[1]), int(numbers[1]))
        raise Invalid(f"this machine has no user {text!r}; write a name that it has, UID, or UID:GID") from None
    return User(found.pw_uid, found.pw_gid)


def find_user_in(read: Callable[[str], str], text: str) -> User:
    """The same among the users of an image, where ``read`` gives the text of a file; ``NAME:GROUP`` is one, too."""
    name, _, group = text.partition(":")
    if name.isdigit() and group.isdigit():
        return User(int(name), int(group))
    users = _table(read("/etc/passwd"), 4)
    found = next((fields for fields in users if name in (fields[0], fields[2])), None)
    if found is None and not name.isdigit():
        raise Invalid(f"the image has no user {name!r}; write a name that it has, UID, or UID:GID")
    uid = found[2] if found else name
    gid = found[3] if found else name
    if group and not group.isdigit():
        gid = next((fields[2] for fields in _table(read("/etc/group"), 3) if fields[0] == group), "")
    elif group:
        gid = group
    if not (uid.isdigit() and gid.isdigit()):
        raise Invalid(f"the image has no user and group {text!r}; write a name that it has, UID, or UID:GID")
    return User(int(uid), int(gid))


def _table(text: str, columns: int) -> Sequence[Sequence[str]]:
    """The lines of a file such as /etc/passwd that have so many columns at least."""
    lines = (line.split(":") for line in text.splitlines())
    return [fields for fields in lines if len(fields) >= columns]


def give(mounts: Iterable[Mount], user: User) -> None:
    """Let a user own those mounts that belong to the attempt. Links are given themselves, never what they lead to."""
    for mount in mounts:
        if mount.is_own:
            try:
                _give(mount, user)
            except OSError as error:
                raise Unavailable(f"{mount.path} cannot be given to {user.uid}: {error.strerror}") from error


def _give(mount: Mount, user: User) -> None:
    for _, folders, files, descriptor in os.fwalk(mount.path, onerror=_raise, follow_symlinks=False):
        for name in (*folders, *files):
            found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if (found.st_uid, found.st_gid) != (user.uid, user.gid):
                os.chown(name, user.uid, user.gid, dir_fd=descriptor, follow_symlinks=False)
                if stat.S_ISREG(found.st_mode) and found.st_mode & SET_ID_BITS:
                    os.chmod(name, stat.S_IMODE(found.st_mode), dir_fd=descriptor)
    os.chown(mount.path, user.uid, user.gid, follow_symlinks=False)


def _raise(error: OSError) -> None:
    if not isinstance(error, NotADirectoryError):
        raise error
