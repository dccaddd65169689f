"""What people ask for in comments of pull requests: a line such as ``/distci retry``. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from distci.receivers.port import Command, Ignored

EVENT = "comment"
WORDS = ("retry", "cancel", "approve", "refuse")

_LINE = re.compile(r"^/distci(?:[ \t]+(.*?))?[ \t]*\r?$", re.M)
_COMMIT = re.compile(r"[0-9a-f]{7,64}")


def read_comment(
    delivery: str, repository: str, urls: Sequence[str], pull_request: int, author: str, text: str
) -> Command | Ignored:
    """What a comment that has just been made asks for; Ignored, saying why, when that is nothing, or nothing that is known."""
    lines = [line.strip() for line in _LINE.findall(text)]
    if not lines:
        return nothing(delivery)
    if len(lines) > 1:
        return Ignored(delivery, EVENT, "a comment has one line that begins with /distci, not several")
    word, _, more = lines[0].partition(" ")
    commit = more.strip()
    if word not in WORDS or (commit and (word != "approve" or not _COMMIT.fullmatch(commit))):
        known = ", ".join(f"/distci {known}" for known in WORDS)
        return Ignored(delivery, EVENT, f"{f'/distci {lines[0][:80]}'.strip()!r} is none of {known}")
    return Command(delivery, repository, urls, pull_request, author, word, commit)


def nothing(delivery: str) -> Ignored:
    """A comment that asks for nothing: another text, not on a pull request, or changed since."""
    return Ignored(delivery, EVENT, "nothing to do")
