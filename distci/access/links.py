"""Login links: each lets one person in, one time, wherever it is opened first, and soon not at all."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping

from distci.access.principals import Person
from distci.access.rights import Role
from distci.access.sessions import sweep
from distci.access.texts import Sort, digest_of, new_text, sort_of
from distci.coordination.port import Create, Delete, Reason
from distci.errors import CoordinationUnavailable, InvalidDocument, NotAuthenticated
from distci.projects import SYSTEM
from distci.protocol import paths
from distci.protocol.outcomes import Deadline, Truth, settle
from distci.protocol.records import FORMAT, from_bytes, to_bytes
from distci.protocol.tree import Tree

LIFETIME_S = 600
SETTLE_S = 10.0


class LoginLinks:
    """The login links of one system. Any thread may use it."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def make(self, name: str, roles: Mapping[str, Role] | None = None, lifetime_s: float = LIFETIME_S) -> str:
        """A text for the address of a page that logs somebody in; by default as owner of everything. Only its digest is kept."""
        person = Person(name, roles=roles if roles is not None else {SYSTEM: Role.OWNER})
        text = new_text(Sort.LOGIN)
        path = paths.login_link(digest_of(text))
        data = to_bytes(
            {
                "f": FORMAT,
                "name": person.name,
                "roles": {project: role.value for project, role in person.roles.items()},
                "until_ms": self._tree.now_ms() + int(lifetime_s * 1000),
            }
        )

        def look() -> Truth:
            return Truth.COMMITTED if self._tree.coordination.exists(path) else Truth.NOT_COMMITTED

        # A front end that is started again and again makes one each time.
        old = self._old_links()
        done = settle(self._tree, lambda: self._tree.commit(Create(path, data), hints=old), look, Deadline(SETTLE_S))
        if isinstance(done, Truth) or not (done.committed or done.refused_at(0, Reason.EXISTS)):
            raise CoordinationUnavailable("no login link could be made; try again")
        return text

    def use(self, text: str) -> Person:
        """Who the link lets in: of all who ever ask with it, exactly one is told.

        NotAuthenticated for a link that was used, is too old, or never was; CoordinationUnavailable while the tree is away, after which asking again is safe.
        """
        refused = NotAuthenticated("that login link was used, or is too old; `distci login` prints another")
        if sort_of(text) is not Sort.LOGIN:
            raise refused
        digest = digest_of(text)
        path = paths.login_link(digest)
        self._tree.coordination.sync()
        node = self._tree.coordination.read(path)
        if node is None:
            raise refused
        try:
            document = from_bytes(node.data, path)
            person = Person(document["name"], roles={name: Role(role) for name, role in document["roles"].items()})
            until_ms = int(document["until_ms"])
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidDocument(f"{path} cannot be read: {error!r}") from error
        if self._tree.now_ms() >= until_ms:
            raise refused
        if not self._take(path, paths.access_mark(paths.USED_LINKS, digest, until_ms)):
            raise refused
        return person

    def _take(self, path: str, mark: str) -> bool:
        """Whether we, and nobody else, have used the link. The mark is for whoever does not hear whether it was them."""
        nonce = json.dumps(secrets.token_hex(16)).encode()

        def look() -> Truth:
            node = self._tree.coordination.read(mark)
            if node is not None:
                return Truth.COMMITTED if node.data == nonce else Truth.SUPERSEDED
            is_there = self._tree.coordination.exists(path) is not None
            return Truth.NOT_COMMITTED if is_there else Truth.SUPERSEDED

        sweeping = sweep(self._tree, paths.USED_LINKS) + self._old_links()
        taking = (Delete(path), Create(mark, nonce))
        done = settle(
            self._tree,
            lambda: self._tree.commit(*taking, hints=[step for step in sweeping if step.path not in (path, mark)]),
            look,
            Deadline(SETTLE_S),
        )
        return not isinstance(done, Truth) and done.committed

    def _old_links(self) -> list[Delete]:
        """Links that nobody used while they could be; seldom any."""
        found = []
        for name in self._tree.coordination.children(paths.LOGIN_LINKS)[:20]:
            node = self._tree.coordination.read(f"{paths.LOGIN_LINKS}/{name}")
            if node is not None and self._tree.now_ms() >= int(from_bytes(node.data, name).get("until_ms", 0)):
                found.append(Delete(f"{paths.LOGIN_LINKS}/{name}"))
        return found
