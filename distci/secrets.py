"""Keeping secrets out of logs: every form in which a script may print one is masked in the stream, before it is stored."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from urllib.parse import quote, quote_plus

from distci.errors import Invalid

MASK = b"***"
LENGTH_MIN = 4
"""Shorter secrets would mask ordinary text, and could be guessed from where the masks are."""


LINES_BASE64 = (64, 76)
"""Letters in a line of base64, as openssl and as coreutils and mail write it."""


class Masker:
    """Replaces secrets in a stream of bytes, wherever the stream is cut. One thread uses it at a time.

    Secrets that overlap become one mask. Raises Invalid for a secret of fewer than 4 characters, or that is not Unicode.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets for form in _forms(secret)}
        self._pattern = re.compile(_longest_of(forms)) if forms else None
        self._longest = max(map(len, forms), default=0)
        self._by_head: dict[bytes, list[bytes]] = {}
        for form in forms:
            for length in range(1, LENGTH_MIN + 1):
                self._by_head.setdefault(form[:length], []).append(form)
        self._held = b""
        self._masked = 0
        """How much of what is held belongs to a mask that is out already."""

    def feed(self, data: bytes) -> bytes:
        """What of the stream may be stored now; only bytes that may be the beginning of a secret are kept back."""
        if self._pattern is None:
            return data
        text = self._held + data
        return self._release(self._pattern, text, self._complete_to(text))

    def flush(self) -> bytes:
        """The rest, at the end of the stream."""
        return self._release(self._pattern, self._held, len(self._held)) if self._pattern else b""

    def _release(self, pattern: re.Pattern[bytes], text: bytes, end: int) -> bytes:
        """What begins before ``end``, masked; the rest is held."""
        released: list[bytes] = []
        clear, position = self._masked, 0
        while (match := pattern.search(text, position)) and match.start() < end:
            if match.start() >= clear:
                released += text[clear : match.start()], MASK
            clear = max(clear, match.end())
            # Another one may begin within this one and reach beyond it.
            position = match.start() + 1
        released.append(text[clear:end])
        self._held, self._masked = text[end:], max(0, clear - end)
        return b"".join(released)

    def _complete_to(self, text: bytes) -> int:
        """Up to where no form begins that may be longer than the text."""
        for position in range(max(0, len(text) - self._longest + 1), len(text)):
            for form in self._by_head.get(text[position : position + LENGTH_MIN], ()):
                if len(text) - position < len(form) and form.startswith(text[position:]):
                    return position
        return len(text)


def _longest_of(forms: Iterable[bytes]) -> bytes:
    """A pattern for the longest of all forms that begin at a place.

    They are grouped by their first bytes: the lines of a private key are hundreds, and to try each everywhere takes long.
    """
    ordered = sorted(forms, key=lambda form: (form[0], -len(form)))
    return b"|".join(
        re.escape(bytes([first])) + b"(?:" + b"|".join(re.escape(form[1:]) for form in group) + b")"
        for first, group in groupby(ordered, key=itemgetter(0))
    )


def _forms(secret: str) -> Iterator[bytes]:
    """The secret as it is, line by line, and as base64, URL and JSON write it; none is shorter than LENGTH_MIN."""
    if len(secret) < LENGTH_MIN:
        raise Invalid(f"a secret of {len(secret)} characters cannot be masked; use at least {LENGTH_MIN}")
    try:
        raw = secret.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        # The error has the secret in it, so it is not passed on.
        raise Invalid("a secret is not valid Unicode") from None
    yield raw
    # The shell's $(...) drops newlines at the end.
    for text in {secret, secret.rstrip("\r\n")}:
        yield from (form for form in _encoded(text) if len(form) >= LENGTH_MIN)
    yield from (line for line in raw.splitlines() if len(line) >= LENGTH_MIN)


def _encoded(secret: str) -> Iterator[bytes]:
    raw = secret.encode(errors="surrogateescape")
    for url in (quote(raw, safe=""), quote(raw), quote_plus(raw)):
        yield url.encode()
        yield re.sub("%..", lambda digits: digits[0].lower(), url).encode()
    yield json.dumps(secret)[1:-1].encode()
    yield json.dumps(secret, ensure_ascii=False)[1:-1].encode(errors="surrogateescape")
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for shift in range(3):
            # What stands before the secret shifts its bits: the first and last letters mix with neighbours and are left out.
            coded = encode(b"\0" * shift + raw).rstrip(b"=")
            start = (0, 2, 3)[shift]
            end = len(coded) - (1 if (shift + len(raw)) % 3 else 0)
            yield coded[start:end]
            for width in LINES_BASE64 if shift == 0 else ():
                yield from (coded[at : min(at + width, end)] for at in range(0, end, width))
