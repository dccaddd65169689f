"""Regular expressions that jobs bring, of which none can hold a worker up.

They are matched by RE2, in time that grows with the text and nothing else and in bounded memory, whatever the expression is: Python's own, and a time-out around
it, would let one job's ``(a+)+$`` hold the lock of the whole process. What cannot be matched so, such as back references, is refused when the job is saved.
"""

from __future__ import annotations

from collections.abc import Sequence

import re2

from distci.errors import Invalid

PATTERN_CHARS_MAX = 1000
MEMORY_BYTES_MAX = 4 * 1024 * 1024
"""Of what an expression is compiled to, and of what is remembered while it is matched."""


class Pattern:
    """One expression. Any thread may use it."""

    def __init__(self, text: str, groups: Sequence[str] = ()) -> None:
        """Invalid for what is no expression, is too large, or lacks one of the named ``groups``."""
        if len(text) > PATTERN_CHARS_MAX:
            raise Invalid(f"has {len(text)} characters; at most {PATTERN_CHARS_MAX} are allowed")
        options = re2.Options()
        options.max_mem = MEMORY_BYTES_MAX
        options.log_errors = False
        try:
            self._compiled = re2.compile(text, options)
        except re2.error as error:
            told = error.args[0] if error.args else ""
            why = told.decode(errors="replace") if isinstance(told, bytes) else str(told)
            raise Invalid(f"is no regular expression as RE2 has them: {why}") from None
        missing = [group for group in groups if group not in self._compiled.groupindex]
        if missing:
            wanted = ", ".join(f"(?P<{group}>...)" for group in missing)
            raise Invalid(f"has no {wanted}")

    @property
    def groups(self) -> int:
        return int(self._compiled.groups)

    def find(self, line: str) -> dict[str, str] | None:
        """What its named groups match of the first place in a line that it matches; None where it matches nowhere."""
        found = self._compiled.search(line)
        return {name: text or "" for name, text in found.groupdict().items()} if found else None

    def last(self, text: str) -> tuple[str | None, ...]:
        """What its groups match of the last place in a text that it matches; nothing where it matches nowhere."""
        found = None
        for found in self._compiled.finditer(text):  # noqa: B007
            pass
        return found.groups() if found else ()

    def replaced(self, by: str, text: str) -> str:
        """The text with all that it matches replaced, where ``\\1`` is the first group."""
        return str(self._compiled.sub(by, text))
