"""Envelopes for what may lie in a store that others read: values are sealed with a data key, and the data key with a master key, which is never there.

Everything is sealed by AES-256-GCM and bound to a text that says what it is: moved to another place, it does not open. Whoever rotates the master key seals data keys
anew, and no value.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections.abc import Mapping, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from distci.errors import Damaged, Invalid

KEY_BYTES = 32
NONCE_BYTES = 12
ID_DIGITS = 12


class NoSuchKey(Invalid):
    """What is to be opened was sealed with a key that is not at hand."""


class DataKey:
    """Seals values."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def new(cls) -> DataKey:
        return cls(secrets.token_bytes(KEY_BYTES))

    def seal(self, value: bytes, what: str) -> str:
        """The value as printable ASCII, bound to what it is."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return base64.b64encode(nonce + AESGCM(self._key).encrypt(nonce, value, what.encode())).decode()

    def open(self, sealed: str, what: str) -> bytes:
        """The value again. Damaged when it was not sealed by this key, or as something else."""
        try:
            data = base64.b64decode(sealed, validate=True)
            return AESGCM(self._key).decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], what.encode())
        except (InvalidTag, ValueError) as error:
            raise Damaged(f"{what}: not what was sealed there") from error


class MasterKeys:
    """Seal data keys: the first one does, all of them open."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Keys as base64. Invalid, which does not repeat it, for what is none."""
        keys = [_key_of(text) for text in texts]
        self._keys: Mapping[str, DataKey] = {_id_of(key): DataKey(key) for key in keys}
        self.first = _id_of(keys[0]) if keys else ""
        """The id of the key that seals; empty where there is none."""

    def wrap(self, data_key: DataKey, what: str) -> str:
        """A data key, sealed with the first master key. NoSuchKey where there is none."""
        return self._of(self.first).seal(data_key._key, what)

    def unwrap(self, wrapped: str, key_id: str, what: str) -> DataKey:
        """A data key again, which was sealed with the key of that id. NoSuchKey where that is not at hand."""
        return DataKey(self._of(key_id).open(wrapped, what))

    def _of(self, key_id: str) -> DataKey:
        if key_id not in self._keys:
            raise NoSuchKey(f"master key {key_id} is not among those at hand" if key_id else "no master key is at hand")
        return self._keys[key_id]


def _key_of(text: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise Invalid(f"a master key is {KEY_BYTES} bytes of chance as base64: openssl rand -base64 {KEY_BYTES}")
    return key


def _id_of(key: bytes) -> str:
    """A name for a key that tells nothing of it."""
    return hashlib.sha256(b"distci master key" + key).hexdigest()[:ID_DIGITS]
