"""Texts that browsers keep for us, signed, so that any front end knows that one of them has written it.

The keys are in one node of the tree. Whoever signs and finds the newest a day old adds another one, by the version of the node; whoever meets
a key that it does not know reads again. A key goes when nothing that it signed can be good any more. Where the tree is lost, new keys make all that was signed worthless.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from time import monotonic as monotonic_clock
from typing import Any

from itsdangerous import BadData, URLSafeSerializer

from distci.access.kept import Kept
from distci.coordination.port import Committed, Create, Refused, Write
from distci.errors import CoordinationUnavailable, NotAuthenticated
from distci.model import Json
from distci.protocol import paths
from distci.protocol.records import FORMAT, from_bytes, to_bytes
from distci.protocol.tree import Tree

ROTATE_MS = 24 * 3600 * 1000
LIFETIME_MS_MAX = 24 * 3600 * 1000
"""How long a signed text can be good for at most, and so how long a key is kept that signs no more."""
TRIES = 20

_ID_BYTES = 4
_KEY_ID = re.compile("[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class Key:
    """One key, and since when it signs, by the tree's clock."""

    id: str
    secret: str
    since_ms: int


@dataclass(frozen=True, slots=True)
class Known:
    """What the tree said: keys, the newest last, and its time, which our own clock counts on from."""

    keys: Sequence[Key]
    now_ms: int
    read_s: float

    def time_ms(self, monotonic_s: float) -> int:
        return self.now_ms + int((monotonic_s - self.read_s) * 1000)


class Signing:
    """Signs and reads texts. Any thread may use it."""

    def __init__(self, tree: Tree, monotonic: Callable[[], float] = monotonic_clock) -> None:
        self._tree = tree
        self._monotonic = monotonic
        self._kept: Kept[Known] = Kept(self._read, monotonic)

    def sign(self, purpose: str, content: Mapping[str, Json], lifetime_s: float) -> str:
        """A text that :meth:`read` takes for the same purpose, until that many seconds are over (a day at most)."""
        key, now_ms = self._newest()
        until_ms = now_ms + min(int(lifetime_s * 1000), LIFETIME_MS_MAX)
        return f"{key.id}.{_serializer(key, purpose).dumps({**content, 'until_ms': until_ms})}"

    def read(self, purpose: str, text: str) -> Mapping[str, Any]:
        """What was signed. NotAuthenticated when it was not signed for that, or too long ago; CoordinationUnavailable when that cannot be found out."""
        key_id, _, signed = text.partition(".")
        known = self._kept.current()
        if _key(known, key_id) is None and _KEY_ID.fullmatch(key_id):
            known = self._kept.again()
        key = _key(known, key_id)
        if key is None:
            raise NotAuthenticated("that was signed with a key that is not in use any more; log in")
        try:
            content = _serializer(key, purpose).loads(signed)
        except BadData:
            raise NotAuthenticated("that was not signed here; log in") from None
        if known.time_ms(self._monotonic()) >= content["until_ms"]:
            raise NotAuthenticated("that is over; log in again")
        return dict(content)

    def _newest(self) -> tuple[Key, int]:
        """The key to sign with, and the time."""
        for _ in range(TRIES):
            known = self._kept.current()
            now_ms = known.time_ms(self._monotonic())
            if known.keys and now_ms - known.keys[-1].since_ms < ROTATE_MS:
                return known.keys[-1], now_ms
            self._rotate(now_ms)
            self._kept.again()
        raise CoordinationUnavailable("no key could be made to sign with; try again")

    def _rotate(self, now_ms: int) -> None:
        """Add a key unless somebody else just has."""
        node = self._tree.coordination.read(paths.ACCESS_KEYS)
        known = _keys(node.data) if node else ()
        if known and now_ms - known[-1].since_ms < ROTATE_MS:
            return
        new = Key(secrets.token_hex(_ID_BYTES), secrets.token_hex(32), now_ms)
        # One that has a younger one beside it for so long signed nothing that is still good.
        kept = [key for key, after in pairwise([*known, new]) if now_ms - after.since_ms < LIFETIME_MS_MAX]
        listed = [{"id": key.id, "secret": key.secret, "since_ms": key.since_ms} for key in (*kept, new)]
        data = to_bytes({"f": FORMAT, "keys": listed})
        done = self._tree.commit(
            Write(paths.ACCESS_KEYS, data, node.version) if node else Create(paths.ACCESS_KEYS, data)
        )
        # In any other case than these, what is there now is read in a moment, and that is the truth.
        if not isinstance(done.result, Committed | Refused):
            self._tree.coordination.sync()

    def _read(self) -> Known:
        self._tree.coordination.sync()
        node = self._tree.coordination.read(paths.ACCESS_KEYS)
        if node is None:
            # Nobody has logged in yet, or the tree was lost: then whoever finds that out first makes it anew.
            self._tree.prepare()
        now_ms = self._tree.now_ms()
        return Known(_keys(node.data) if node else (), now_ms, self._monotonic())


def _key(known: Known, key_id: str) -> Key | None:
    return next((key for key in known.keys if key.id == key_id), None)


def _keys(data: bytes) -> Sequence[Key]:
    document = from_bytes(data, paths.ACCESS_KEYS)
    return tuple(Key(key["id"], key["secret"], key["since_ms"]) for key in document["keys"])


def _serializer(key: Key, purpose: str) -> URLSafeSerializer:
    options = {"digest_method": hashlib.sha256, "key_derivation": "hmac"}
    return URLSafeSerializer(key.secret, salt=f"distci {purpose}", signer_kwargs=options)
