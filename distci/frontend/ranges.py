"""Ranges of bytes (RFC 9110, 14): one a request. A request for several gets everything, as the RFC allows."""

from __future__ import annotations

import re

_RANGE = re.compile(r"bytes=\s*([0-9]{0,18})-([0-9]{0,18})\s*")


class Unsatisfiable(Exception):
    """There are no such bytes."""


def parse(header: str | None, size_bytes: int) -> tuple[int, int] | None:
    """The first byte wanted and the one past the last; None for all of them. Unsatisfiable when the range begins past the end."""
    match = _RANGE.fullmatch(header) if header else None
    if not match or match[1] == match[2] == "":
        return None
    first, last = match[1], match[2]
    if not first:
        if int(last) == 0 or size_bytes == 0:
            raise Unsatisfiable
        return max(0, size_bytes - int(last)), size_bytes
    if last and int(last) < int(first):
        return None
    if int(first) >= size_bytes:
        raise Unsatisfiable
    return int(first), min(int(last) + 1, size_bytes) if last else size_bytes
