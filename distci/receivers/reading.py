"""What receivers share: proofs by a common secret, and bodies of JSON of which nothing is believed."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from urllib.parse import parse_qs

from distci.documents.strict_json import read_json
from distci.errors import InvalidDocument
from distci.model import Json
from distci.receivers.port import BODY_BYTES_MAX, Headers

FORM = "application/x-www-form-urlencoded"
NO_COMMIT = "0" * 40
"""What stands for the commit of a branch that was not there before, or is not there any more; 64 of them for SHA-256."""


def is_signed(body: bytes, signature: str, secrets: Sequence[str]) -> bool:
    """Whether a signature is the body's HMAC by SHA-256 under any of the secrets, in hexadecimal. All are tried, whatever fits."""
    told = signature.strip().lower().encode(errors="replace")
    fits = False
    for secret in secrets:
        expected = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest().encode()
        fits |= hmac.compare_digest(expected, told)
    return fits


def is_known(token: str, secrets: Sequence[str]) -> bool:
    """Whether a token is any of the secrets. Their digests are compared, so that not even their length can be found out."""
    told = hashlib.sha256(token.encode(errors="surrogateescape")).digest()
    fits = False
    for secret in secrets:
        fits |= hmac.compare_digest(hashlib.sha256(secret.encode()).digest(), told)
    return fits


def is_no_commit(commit: str) -> bool:
    return bool(commit) and not commit.strip("0")


class Fields:
    """An object of a body, and where it stands. Each accessor raises InvalidDocument, naming the place, for another type."""

    def __init__(self, value: Json, place: str) -> None:
        if not isinstance(value, dict):
            raise InvalidDocument(f"{place or 'the body'}: is {_type(value)}, not an object")
        self._value = value
        self._place = place

    @classmethod
    def of_body(cls, headers: Headers, body: bytes) -> Fields:
        """The object that is the body, or the field ``payload`` of a form."""
        if len(body) > BODY_BYTES_MAX:
            raise InvalidDocument(f"the body: {len(body)} bytes are too many; at most {BODY_BYTES_MAX} are read")
        if headers.get("content-type", "").partition(";")[0].strip().lower() == FORM:
            body = _payload(body)
        return cls(read_json(body, "the body", BODY_BYTES_MAX), "")

    def __contains__(self, key: str) -> bool:
        return self._value.get(key) is not None

    def object(self, key: str) -> Fields:
        return Fields(self._value.get(key), self._at(key))

    def objects(self, key: str) -> Iterator[Fields]:
        """The objects of a list; none where it is missing."""
        value = self._value.get(key)
        if value is None:
            return
        if not isinstance(value, list):
            raise InvalidDocument(f"{self._at(key)}: is {_type(value)}, not a list")
        for position, item in enumerate(value):
            yield Fields(item, f"{self._at(key)}[{position}]")

    def text(self, key: str, default: str | None = None) -> str:
        """A text; ``default`` where it is missing or null."""
        value = self._value.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise InvalidDocument(f"{self._at(key)}: is {_type(value)}, not a text")
        return value

    def texts(self, key: str) -> list[str]:
        """A list of texts; empty where it is missing."""
        value = self._value.get(key)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise InvalidDocument(f"{self._at(key)}: is no list of texts")
        return value

    def number(self, key: str, default: int | None = None) -> int:
        value = self._value.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, int) or isinstance(value, bool):
            raise InvalidDocument(f"{self._at(key)}: is {_type(value)}, not a whole number")
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        value = self._value.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise InvalidDocument(f"{self._at(key)}: is {_type(value)}, neither true nor false")
        return value

    def keys(self) -> Sequence[str]:
        return tuple(self._value)

    def _at(self, key: str) -> str:
        return f"{self._place}.{key}" if self._place else key


def changed_paths(commits: Iterator[Fields]) -> list[str]:
    """The files that any of the commits of a push has touched, as GitHub, GitLab and Gitea tell them."""
    touched = (path for commit in commits for key in ("added", "modified", "removed") for path in commit.texts(key))
    return [*dict.fromkeys(touched)]


def header(headers: Headers, *names: str) -> str:
    """The first of the headers that is there; InvalidDocument when none is."""
    for name in names:
        if value := headers.get(name.lower()):
            return value
    raise InvalidDocument(f"the header {names[0]} is missing")


def _payload(body: bytes) -> bytes:
    try:
        values = parse_qs(body, strict_parsing=True, max_num_fields=16)[b"payload"]
    except (ValueError, KeyError) as error:
        raise InvalidDocument("the body: is a form without the field payload") from error
    return values[0]


def _type(value: Json) -> str:
    if value is None:
        return "missing"
    names = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)
