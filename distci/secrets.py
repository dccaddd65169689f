"""Keeping secrets out of logs: every form in which a script may print one is masked in the stream, before it is stored."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote

from distci.errors import Invalid

MASK = b"***"
LENGTH_MIN = 4
"""Shorter secrets would mask ordinary text, and could be guessed from where the masks are."""


class Masker:
    """Replaces secrets in a stream of bytes, wherever the stream is cut. One thread uses it at a time.

    Raises Invalid for a secret of fewer than 4 characters.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        forms: set[bytes] = set()
        for secret in secrets:
            if len(secret) < LENGTH_MIN:
                raise Invalid(f"a secret of {len(secret)} characters cannot be masked; use at least {LENGTH_MIN}")
            forms.update(_forms(secret))
        # Longest first: an alternative that is part of another must not win over it.
        self._forms = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile(b"|".join(re.escape(form) for form in self._forms)) if forms else None
        self._first = frozenset(form[0] for form in self._forms)
        self._longest = len(self._forms[0]) if forms else 0
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What of the stream may be stored now; only bytes that may be the beginning of a secret are kept back."""
        if self._pattern is None:
            return data
        text = self._held + data
        keep = self._kept_from(text)
        ready, self._held = text[:keep], text[keep:]
        return self._pattern.sub(MASK, ready)

    def flush(self) -> bytes:
        """The rest, at the end of the stream."""
        rest, self._held = self._held, b""
        return self._pattern.sub(MASK, rest) if self._pattern else rest

    def _kept_from(self, text: bytes) -> int:
        """From where on the text may be the beginning of a form that is not complete yet.

        A complete match before that point may reach into it; then the cut moves to the match's end.
        """
        start = max(0, len(text) - self._longest + 1)
        cut = len(text)
        for position in range(start, len(text)):
            if text[position] in self._first and self._may_begin(text[position:]):
                cut = position
                break
        if self._pattern is None:
            return cut
        for match in self._pattern.finditer(text, max(0, start - self._longest)):
            if match.start() < cut < match.end():
                return match.end()
        return cut

    def _may_begin(self, rest: bytes) -> bool:
        return any(len(rest) < len(form) and form.startswith(rest) for form in self._forms)


def _forms(secret: str) -> Iterator[bytes]:
    """The secret as it is, line by line, and as base64, URL and JSON write it."""
    raw = secret.encode(errors="surrogateescape")
    yield raw
    for line in raw.splitlines():
        if len(line) >= LENGTH_MIN:
            yield line
    yield quote(raw, safe="").encode()
    yield quote(raw).encode()
    yield json.dumps(secret)[1:-1].encode()
    yield json.dumps(secret, ensure_ascii=False)[1:-1].encode(errors="surrogateescape")
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for shift in range(3):
            # What stands before the secret shifts its bits: the first and last letters mix with neighbours and are left out.
            coded = encode(b"\0" * shift + raw).rstrip(b"=")
            start = (0, 2, 3)[shift]
            end = len(coded) - (1 if (shift + len(raw)) % 3 else 0)
            if end - start >= LENGTH_MIN:
                yield coded[start:end]
