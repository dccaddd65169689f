"""Sessions of people in browsers: a signed cookie, and in the tree a list of those that were ended before their time.

Nothing is kept of a session that runs out by itself. Keys and list are in the same tree: where it is lost, so are all sessions, and none that
was ended comes back. While the tree does not answer, cookies are good for half a minute more, then nobody knows whether they are.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic as monotonic_clock

from distci.access.kept import Kept
from distci.access.principals import Person
from distci.access.rights import Role
from distci.access.signing import Signing
from distci.coordination.port import Create, Delete, Reason
from distci.errors import CoordinationUnavailable, NotAuthenticated
from distci.protocol import paths
from distci.protocol.outcomes import Deadline, Truth, settle
from distci.protocol.tree import Tree

log = logging.getLogger(__name__)

PURPOSE = "session"
LIFETIME_S = 12 * 3600
"""How long a session lasts from its login on."""
GROUPS_CHARS_MAX = 2000
"""Browsers keep cookies of 4 KiB."""
SWEPT_AT_ONCE = 50
SETTLE_S = 10.0


@dataclass(frozen=True, slots=True)
class Session:
    """A session that is good."""

    id: str
    person: Person
    until_ms: int
    """When it runs out, in milliseconds since 1970 by the tree's clock."""


class Sessions:
    """The sessions of one system. Any thread may use it."""

    def __init__(self, tree: Tree, signing: Signing, monotonic: Callable[[], float] = monotonic_clock) -> None:
        self._tree = tree
        self._signing = signing
        self._ended: Kept[frozenset[str]] = Kept(self._read_ended, monotonic)

    def begin(self, person: Person, lifetime_s: float = LIFETIME_S) -> str:
        """The value of a cookie for somebody who has just logged in. Send it as ``HttpOnly; Secure; SameSite=Lax``.

        CoordinationUnavailable while the tree is away.
        """
        groups = _fitting(person)
        content = {
            "id": secrets.token_hex(16),
            "name": person.name,
            "groups": groups,
            "roles": {project: role.value for project, role in person.roles.items()},
        }
        return self._signing.sign(PURPOSE, content, lifetime_s)

    def read(self, cookie: str) -> Session:
        """The session of a cookie. NotAuthenticated when it is none of ours, has run out or was ended: on other front ends a second ago at most."""
        content = self._signing.read(PURPOSE, cookie)
        if content["id"] in self._ended.current():
            raise NotAuthenticated("that session was ended; log in")
        roles = {project: Role(role) for project, role in content["roles"].items()}
        person = Person(content["name"], frozenset(content["groups"]), roles)
        return Session(content["id"], person, content["until_ms"])

    def end(self, cookie: str) -> None:
        """Make a cookie, and every copy of it, worthless. Nothing happens to one that is already.

        CoordinationUnavailable while the tree is away: then it is not ended.
        """
        try:
            session = self.read(cookie)
        except NotAuthenticated:
            return
        mark = paths.access_mark(paths.ENDED_SESSIONS, session.id, session.until_ms)

        def look() -> Truth:
            return Truth.COMMITTED if self._tree.coordination.exists(mark) else Truth.NOT_COMMITTED

        sweeping = sweep(self._tree, paths.ENDED_SESSIONS)
        done = settle(self._tree, lambda: self._tree.commit(Create(mark), hints=sweeping), look, Deadline(SETTLE_S))
        if isinstance(done, Truth) or not (done.committed or done.refused_at(0, Reason.EXISTS)):
            raise CoordinationUnavailable("the session could not be ended; try again")
        with suppress(CoordinationUnavailable):
            self._ended.again()

    def _read_ended(self) -> frozenset[str]:
        self._tree.coordination.sync()
        names = self._tree.coordination.children(paths.ENDED_SESSIONS)
        return frozenset(paths.access_mark_of(name)[0] for name in names)


def sweep(tree: Tree, folder: str) -> list[Delete]:
    """Operations that delete some of the marks whose time is over."""
    now_ms = tree.now_ms()
    over = [name for name in tree.coordination.children(folder) if paths.access_mark_of(name)[1] < now_ms]
    return [Delete(f"{folder}/{name}") for name in over[:SWEPT_AT_ONCE]]


def _fitting(person: Person) -> list[str]:
    """The person's groups, as many as a cookie has room for. Fewer groups never mean more rights."""
    kept: list[str] = []
    left = GROUPS_CHARS_MAX
    for group in sorted(person.groups):
        left -= len(group.encode()) + 3
        if left >= 0:
            kept.append(group)
    if len(kept) < len(person.groups):
        log.warning("%s is in %s groups; only %s fit into a cookie", person.name, len(person.groups), len(kept))
    return kept
