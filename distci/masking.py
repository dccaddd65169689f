"""Keeping secrets out of logs: every form in which a script may print one is masked in the stream, before it is stored.

Forms begin with one of a few *heads*, their first bytes, which one automaton (Aho and Corasick, CACM 18(6), 1975) looks for all at once: it reads each byte of the
stream once, however many secrets there are, and stays small however long they are. What begins with a head is then compared with the whole forms.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from urllib.parse import quote, quote_plus

from ahocorasick_rs import BytesAhoCorasick, Implementation

from distci.errors import Invalid

MASK = b"***"
LENGTH_MIN = 4
"""Shorter secrets would mask ordinary text, and could be guessed from where the masks are."""

HEAD_BYTES = 8
"""Long enough that hardly anything begins so but a secret, short enough that the automaton of a hundred secrets stays in the processor's cache."""

LINES_BASE64 = (64, 76)
"""Letters in a line of base64, as openssl and as coreutils and mail write it."""

_BACKSLASHED = re.compile(r"""([\s!"$&'()*,;<>?\[\\\]^`{|}])""")
"""What the ``printf %q`` of bash puts a backslash before."""
_IN_QUOTES = re.compile(r'(["$`\\])')
"""The same for ``declare -p``, which writes double quotes."""
_C_ESCAPES = {ord(raw): f"\\{letter}" for raw, letter in zip("\a\b\x1b\f\n\r\t\v\\'", "abEfnrtv\\'", strict=True)}
"""What bash writes in ``$'...'``, where there are line ends and the like."""


class Masker:
    """Replaces secrets in a stream of bytes, wherever the stream is cut. One thread uses it at a time.

    Secrets that overlap become one mask. Raises Invalid for a secret of fewer than 4 characters, or that is not Unicode.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        by_head: dict[bytes, list[bytes]] = {}
        for form in sorted({form for secret in secrets for form in _forms(secret)}, key=len, reverse=True):
            by_head.setdefault(form[:HEAD_BYTES], []).append(form)
        self._forms: Sequence[Sequence[bytes]] = [*by_head.values()]
        """By head; of each, the longest first."""
        self._beginnings = {head[:length] for head in by_head for length in range(1, len(head))}
        self._heads = BytesAhoCorasick(by_head, implementation=Implementation.DFA) if by_head else None
        self._held = b""
        self._masked = 0
        """How much of what is held belongs to a mask that is out already."""

    def feed(self, data: bytes) -> bytes:
        """What of the stream may be stored now; only bytes that may be the beginning of a secret are kept back."""
        if self._heads is None:
            return data
        text = self._held + data if self._held else data
        spans, complete_to = self._find(self._heads, text)
        return self._release(text, spans, complete_to)

    def flush(self) -> bytes:
        """The rest, at the end of the stream."""
        if self._heads is None:
            return b""
        spans, _ = self._find(self._heads, self._held)
        return self._release(self._held, spans, len(self._held))

    def _find(self, heads: BytesAhoCorasick, text: bytes) -> tuple[Sequence[tuple[int, int]], int]:
        """Where secrets begin and end, in order; and up to where none begins that may be longer than the text."""
        spans: list[tuple[int, int]] = []
        complete_to = len(text)
        for index, start, _ in heads.find_matches_as_indexes(text, overlapping=True):
            for form in self._forms[index]:
                if text.startswith(form, start):
                    spans.append((start, start + len(form)))
                    break
                if start < complete_to and len(text) < start + len(form) and form.startswith(text[start:]):
                    complete_to = start
        for start in range(max(0, len(text) - HEAD_BYTES + 1), complete_to):
            if text[start:] in self._beginnings:
                complete_to = start
                break
        return sorted(spans), complete_to

    def _release(self, text: bytes, spans: Sequence[tuple[int, int]], end: int) -> bytes:
        """What begins before ``end``, masked; the rest is held."""
        released: list[bytes] = []
        clear = self._masked
        for start, stop in spans:
            if start >= end:
                break
            if start >= clear:
                released += text[clear:start], MASK
            clear = max(clear, stop)
        released.append(text[clear:end])
        self._held, self._masked = text[end:], max(0, clear - end)
        return b"".join(released)


def check_maskable(secret: str) -> None:
    """Return if all forms of a secret can be masked; Invalid, which does not repeat it, otherwise."""
    if len(secret) < LENGTH_MIN:
        raise Invalid(f"a secret of {len(secret)} characters cannot be masked; use at least {LENGTH_MIN}")
    try:
        secret.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        # The error has the secret in it, so it is not passed on.
        raise Invalid("a secret is not valid Unicode") from None


def _forms(secret: str) -> Iterator[bytes]:
    """The secret as it is, line by line, and as base64, URL, JSON and shells write it; none is shorter than LENGTH_MIN."""
    check_maskable(secret)
    raw = _bytes(secret)
    yield raw
    # The shell's $(...) drops newlines at the end.
    for text in {secret, secret.rstrip("\r\n")}:
        yield from (form for form in _encoded(text) if len(form) >= LENGTH_MIN)
    yield from (line for line in raw.splitlines() if len(line) >= LENGTH_MIN)


def _encoded(secret: str) -> Iterator[bytes]:
    raw = _bytes(secret)
    for url in (quote(raw, safe=""), quote(raw), quote_plus(raw)):
        yield url.encode()
        yield re.sub("%..", lambda digits: digits[0].lower(), url).encode()
    yield from map(_bytes, _in_json(secret))
    yield from map(_bytes, _in_shell(secret))
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield from _in_base64(raw, encode)


def _in_base64(raw: bytes, encode: Callable[[bytes], bytes]) -> Iterator[bytes]:
    for shift in range(3):
        # What stands before the secret shifts its bits: the first and last letters mix with neighbours and are left out.
        start = (0, 2, 3)[shift]
        coded = encode(b"\0" * shift + raw).rstrip(b"=")
        yield coded[start : len(coded) - (1 if (shift + len(raw)) % 3 else 0)]
        # Nothing follows, or what `echo` lets follow: then the last letters are known, too.
        for ended in (raw, raw + b"\n"):
            coded = encode(b"\0" * shift + ended)
            yield coded[start:]
            for width in LINES_BASE64 if shift == 0 else ():
                yield from (coded[at : at + width] for at in range(0, len(coded), width))


def _in_json(secret: str) -> Iterator[str]:
    for written in (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
        yield written
        yield written.replace("/", "\\/")
        # As Go has it, in whatever it writes.
        yield re.sub("[<>&]", lambda found: f"\\u{ord(found[0]):04x}", written)


def _in_shell(secret: str) -> Iterator[str]:
    """As ``set -x``, ``printf %q``, ``export -p`` and the like write it so that a shell would read it again."""
    yield shlex.quote(secret)[1:-1] if "'" in secret else secret
    yield secret.replace("'", "'\\''")
    yield _BACKSLASHED.sub(r"\\\1", secret)
    yield _IN_QUOTES.sub(r"\\\1", secret)
    written = re.sub("[\x00-\x1f\x7f]", lambda found: f"\\{ord(found[0]):03o}", secret.translate(_C_ESCAPES))
    yield written
    yield "".join(chr(byte) if byte < 128 else f"\\{byte:03o}" for byte in _bytes(written))


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
