"""JUnit XML, in the dialects of pytest, Surefire, gotestsum, jest and googletest.

Read by expat itself, of the standard library, in one pass and without a tree: a hundred thousand tests take no more memory than their names do. A document type
declaration is refused where it begins, and with it every entity but the five that XML has: none of those that write reports needs one, and there is
no bomb and no file to fetch without it. Hence no library that wraps the parsers of the standard library to the same end: it would
add a dependency, and say less of the place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn
from xml.parsers import expat

from distci.errors import Invalid
from distci.reports.results import (
    CASES_MAX,
    MESSAGE_CHARS_MAX,
    NAME_CHARS_MAX,
    TEXT_CHARS_MAX,
    TEXTS_CHARS_MAX,
    Case,
    CaseOutcome,
    line_of,
    milliseconds,
    text_of,
)

FILE_BYTES_MAX = 64 * 1024 * 1024
DEPTH_MAX = 50
ATTRIBUTES_CHARS_MAX = 1024 * 1024
"""Of one element."""
CHECK_EVERY = 1000
"""Elements between two checkpoints."""

_SUITES = frozenset({"testsuites", "testsuite"})
_BAD = frozenset({"failure", "error"})
_FLAKY = frozenset({"flakyFailure", "flakyError"})
"""Surefire: it failed, and passed when it was run again at once."""
_NOT_RUN = frozenset({"notrun", "suppressed", "disabled"})
"""Googletest: what ``DISABLED_`` tests have as their ``status`` or ``result``."""


class Mask:
    """What takes secrets out of texts, piece by piece. This one takes out none."""

    def feed(self, text: str) -> str:
        """What of the text may be kept by now."""
        return text

    def flush(self) -> str:
        """The rest."""
        return ""

    def whole(self, text: str) -> str:
        return self.feed(text) + self.flush()


def read(
    data: bytes, origin: str, mask: Mask, checkpoint: Callable[[], None], cases_max: int = CASES_MAX
) -> list[Case]:
    """The tests that a file tells of; Invalid, naming line and column, for one that is no such report, is cut off, or is not to be trusted."""
    return _Reader(origin, mask, checkpoint, cases_max).read(data)


class _Reader:
    """One file on its way."""

    def __init__(self, origin: str, mask: Mask, checkpoint: Callable[[], None], cases_max: int) -> None:
        self._origin = origin
        self._mask = mask
        self._checkpoint = checkpoint
        self._cases_max = cases_max
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._parser.StartDoctypeDeclHandler = self._doctype
        self._parser.EntityDeclHandler = self._doctype
        self._cases: list[Case] = []
        self._elements = 0
        self._depth = 0
        self._suites: list[str] = []
        self._texts_left = TEXTS_CHARS_MAX
        self._case: dict[str, str] | None = None
        self._outcome = CaseOutcome.PASSED
        self._is_flaky = False
        self._message = ""
        self._kept: list[str] = []
        self._left = 0
        """How many characters of the text that is being read are still kept."""
        self._is_kept = False

    def read(self, data: bytes) -> list[Case]:
        if len(data) > FILE_BYTES_MAX:
            raise Invalid(f"{self._origin}: has {len(data)} bytes; at most {FILE_BYTES_MAX} are read")
        try:
            # In one piece: expat reads a token anew that goes on in the next one.
            self._parser.Parse(data, True)
        except expat.ExpatError as error:
            raise Invalid(
                f"{self._origin}:{error.lineno}:{error.offset + 1}: {expat.ErrorString(error.code)}"
            ) from error
        except (ValueError, LookupError) as error:
            self._refuse(f"cannot be decoded: {error}")
        return self._cases

    def _start(self, name: str, attributes: Mapping[str, str]) -> None:
        self._elements += 1
        if self._elements % CHECK_EVERY == 0:
            self._checkpoint()
        name = name.rpartition(":")[2]
        if self._depth >= DEPTH_MAX:
            self._refuse(f"elements nested deeper than {DEPTH_MAX}")
        if not self._depth and name not in _SUITES:
            self._refuse(f"<{line_of(name, 40)}> is no JUnit report; it begins with <testsuites> or <testsuite>")
        if sum(map(len, attributes.values())) > ATTRIBUTES_CHARS_MAX:
            self._refuse(f"attributes of more than {ATTRIBUTES_CHARS_MAX} characters")
        self._depth += 1
        if name in _SUITES:
            self._suites.append(attributes.get("name", ""))
        elif name == "testcase" and self._case is None:
            self._begin_case(attributes)
        elif self._case is not None:
            self._part_of_case(name, attributes)

    def _begin_case(self, attributes: Mapping[str, str]) -> None:
        if len(self._cases) >= self._cases_max:
            self._refuse(f"more than {CASES_MAX} tests in all")
        self._case = dict(attributes)
        is_left_out = {attributes.get("status", ""), attributes.get("result", "")} & _NOT_RUN
        self._outcome = CaseOutcome.SKIPPED if is_left_out else CaseOutcome.PASSED
        self._is_flaky = False
        self._message = ""
        self._kept.clear()
        self._left = min(TEXT_CHARS_MAX, self._texts_left)

    def _part_of_case(self, name: str, attributes: Mapping[str, str]) -> None:
        told = attributes.get("message") or attributes.get("type") or ""
        if name in _BAD:
            self._outcome = CaseOutcome.FAILED
        elif name == "skipped" and self._outcome is CaseOutcome.PASSED:
            self._outcome = CaseOutcome.SKIPPED
        elif name in _FLAKY:
            self._is_flaky = True
        else:
            return
        self._message = self._message or line_of(self._mask.whole(told), MESSAGE_CHARS_MAX)
        self._is_kept = True

    def _characters(self, text: str) -> None:
        if self._is_kept and self._left > 0:
            # Masked before it is cut: the beginning of a secret would be no secret any more.
            self._keep(self._mask.feed(text))

    def _keep(self, text: str) -> None:
        kept = text[: self._left]
        self._left -= len(kept)
        self._kept.append(kept)

    def _end(self, name: str) -> None:
        self._depth -= 1
        name = name.rpartition(":")[2]
        if self._is_kept:
            rest = self._mask.flush()
            if self._left > 0:
                self._keep(rest)
            self._is_kept = False
        if name in _SUITES and self._suites:
            self._suites.pop()
        elif name == "testcase" and self._case is not None:
            self._cases.append(self._ended(self._case))
            self._case = None

    def _ended(self, told: Mapping[str, str]) -> Case:
        text = text_of("".join(self._kept).strip(), TEXT_CHARS_MAX)
        self._texts_left -= len(text)
        return Case(
            name=self._name(told),
            outcome=self._outcome,
            duration_ms=milliseconds(told.get("time", "")),
            message=self._message or line_of(text, MESSAGE_CHARS_MAX),
            text=text,
            origin=self._origin,
            is_flaky=self._is_flaky,
        )

    def _name(self, told: Mapping[str, str]) -> str:
        """What the test is called: by its class, or where that says nothing, by its suite. jest calls both the same."""
        name, group = told.get("name", ""), told.get("classname", "")
        if not group or group == name:
            group = next(filter(None, reversed(self._suites)), "")
        return line_of(self._mask.whole(f"{group}::{name}" if group and name else group or name), NAME_CHARS_MAX)

    def _doctype(self, *_: object) -> NoReturn:
        self._refuse("a document type declaration, which could define entities; reports have none")

    def _refuse(self, why: str) -> NoReturn:
        line, column = self._parser.CurrentLineNumber, self._parser.CurrentColumnNumber + 1
        raise Invalid(f"{self._origin}:{line}:{column}: {why}")
