"""The text of tokens: made, told from anything else, and reduced to what is kept of it.

A text is a prefix that says what it is for, 43 characters for 256 random bits, and 6 for a check sum, all of them letters and digits: so that
programs which look for leaked secrets find it (:data:`PATTERN`), a double click selects it, and a mistyped one is told without looking it up.
Only its SHA-256 is kept anywhere. It takes no salt and no slow function: nobody can guess 256 bits.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib
from collections.abc import Callable
from enum import StrEnum

from distci.errors import NotAuthenticated

RANDOM_BYTES = 32

PATTERN = re.compile(r"\b(distci[wl]?)_([0-9A-Za-z]{43})([0-9A-Za-z]{6})\b")
"""Every token of every DistCI, and hardly anything else."""

MASK = "***"

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_LENGTH = 12


class Sort(StrEnum):
    """What a token is for; the value is what its text begins with."""

    ACCESS = "distci"
    WORKER = "distciw"
    LOGIN = "distcil"
    """A login link's, good for one time."""


def new_text(sort: Sort, random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """A token that has never been."""
    body = _base62(int.from_bytes(random_bytes(RANDOM_BYTES)), 43)
    return f"{sort.value}_{body}{_check_sum(sort.value, body)}"


def sort_of(text: str) -> Sort:
    """What a token is for; :class:`~distci.errors.NotAuthenticated` for a text that is none, without a word of it."""
    found = PATTERN.fullmatch(text)
    if not found or _check_sum(found[1], found[2]) != found[3]:
        raise NotAuthenticated(
            "that is no token: it has been cut or mistyped, or is of something else; those of DistCI begin with distci_ or distciw_"
        )
    return Sort(found[1])


def digest_of(text: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(text.encode()).hexdigest()


def id_of(digest: str) -> str:
    """What a token is called by, wherever it is listed; says nothing of its text."""
    return digest[:_ID_LENGTH]


def masked(text: str) -> str:
    """The text with every token in it made unreadable."""
    return PATTERN.sub(MASK, text)


def _check_sum(prefix: str, body: str) -> str:
    return _base62(zlib.crc32(f"{prefix}_{body}".encode()), 6)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
