"""What something is done for: told once by whoever begins it, and put to every line that is logged meanwhile.

The ids are ``request``, ``build``, ``task``, ``ticket`` and the like, the same names everywhere. A trace goes beyond one process: it is known by its
``traceparent`` (W3C Trace Context), which is handed on as it came, from a request to the tickets that it posts and from a ticket to those
that follow from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token

TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?![0-9a-f])")
"""The trace, then who in it has asked, then whether somebody records it."""

_IDS: ContextVar[Mapping[str, str]] = ContextVar("ids", default={})  # noqa: B039  # never changed
_TRACEPARENT: ContextVar[str] = ContextVar("traceparent", default="")


def note(traceparent: str = "", **ids: str) -> tuple[Token[Mapping[str, str]], Token[str]]:
    """Say what the rest of this task of the event loop is done for, besides what has been said already. What is no traceparent counts as none given,
    an empty id too.
    """
    found = TRACEPARENT.match(traceparent)
    trace = {"trace_id": found[1]} if found else {}
    told = {name: text for name, text in ids.items() if text}
    return _IDS.set({**_IDS.get(), **trace, **told}), _TRACEPARENT.set(found[0] if found else _TRACEPARENT.get())


@contextmanager
def doing(traceparent: str = "", **ids: str) -> Iterator[None]:
    """Say what this block is done for."""
    before, before_it = note(traceparent, **ids)
    try:
        yield
    finally:
        _IDS.reset(before)
        _TRACEPARENT.reset(before_it)


def ids() -> Mapping[str, str]:
    """What is done now is done for these."""
    return _IDS.get()


def traceparent() -> str:
    """The trace that is gone on with; empty for none."""
    return _TRACEPARENT.get()
