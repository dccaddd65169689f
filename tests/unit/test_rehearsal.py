"""How it is told that a shell begins before somebody's own eyes."""

from __future__ import annotations

import pytest

from distci.rehearsal import Awaited

MARK = b"\033]distci;1\007"


@pytest.mark.parametrize("size", range(1, len(MARK) + 2))
def test_a_mark_is_found_and_not_shown_wherever_the_stream_is_cut(size: int) -> None:
    awaited = Awaited(MARK)
    text = b"\033]dist \033" + MARK + b"test> \033[0m"
    pieces = [text[start : start + size] for start in range(0, len(text), size)]

    assert b"".join(map(awaited.feed, pieces)) == b"\033]dist \033test> \033[0m"
    assert awaited.has_come


def test_what_only_looks_like_the_beginning_of_a_mark_is_shown() -> None:
    awaited = Awaited(MARK)

    assert awaited.feed(MARK[:-1]) == b""
    assert awaited.feed(b"2") == MARK[:-1] + b"2"
    assert not awaited.has_come
