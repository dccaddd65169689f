"""Tests, coverage and annotations in what a task prints, line by line as it comes."""

from __future__ import annotations

import re

from distci.reports.asked import Asked, LogTests
from distci.reports.results import (
    ANNOTATIONS_MAX,
    CASES_MAX,
    MESSAGE_CHARS_MAX,
    NAME_CHARS_MAX,
    Annotation,
    Case,
    Level,
    Report,
    line_of,
    milliseconds,
    text_of,
)

LINE_BYTES_MAX = 16 * 1024
"""Of a longer line this much is looked at."""
FILE_CHARS_MAX = 400
_COLOUR = re.compile(rb"\x1b\[[0-9;]*[A-Za-z]")
_NUMBER = re.compile(r"[0-9]+(?:[.,][0-9]+)*")
_LEVELS = {"error": Level.ERROR, "fatal": Level.ERROR, "warning": Level.WARNING, "warn": Level.WARNING}


class Lines:
    """Looks for what a task asks for in its output, from which secrets are gone. One thread uses it."""

    def __init__(self, asked: Asked, report: Report) -> None:
        self._asked = asked
        self._report = report
        self._begun = bytearray()
        self._suite = ""
        self._unknown: set[str] = set()
        self.unmatched = [name for name, wanted in (("log.result", asked.log), ("coverage", asked.coverage)) if wanted]
        """The expressions that no line has matched, of those that some line should match."""

    def write(self, data: bytes) -> None:
        """More of the output, wherever it is cut."""
        *whole, rest = data.split(b"\n")
        for line in whole:
            self._add(line)
            self._look(bytes(self._begun))
            self._begun.clear()
        self._add(rest)

    def end(self) -> None:
        """A last line need not have an end."""
        self._look(bytes(self._begun))
        self._begun.clear()

    def _add(self, piece: bytes) -> None:
        self._begun += piece[: max(0, LINE_BYTES_MAX - len(self._begun))]

    def _look(self, raw: bytes) -> None:
        line = _COLOUR.sub(b"", raw).decode(errors="replace").rstrip("\r")
        if not line:
            return
        if self._asked.log:
            self._look_for_test(self._asked.log, line)
        if self._asked.coverage and (found := self._asked.coverage.find(line)):
            self._has_matched("coverage")
            percent = _number(found["percent"])
            if 0 <= percent <= 100:
                self._report.coverage = percent
        if self._asked.annotations and (found := self._asked.annotations.find(line)):
            self._annotate(found)

    def _look_for_test(self, wanted: LogTests, line: str) -> None:
        if wanted.suite and (found := wanted.suite.find(line)):
            self._suite = found["suite"]
            return
        found = wanted.result.find(line)
        if not found or not found["name"].strip():
            return
        self._has_matched("log.result")
        name = f"{self._suite}::{found['name']}" if self._suite else found["name"]
        for pattern, by in wanted.rename:
            name = pattern.replaced(by, name)
        outcome = wanted.results.get(found["result"].strip().lower())
        if outcome is None:
            self._tell_unknown(found["result"])
        elif len(self._report.cases) < CASES_MAX:
            seconds, message = (
                milliseconds(found.get("seconds", "")),
                line_of(found.get("message", ""), MESSAGE_CHARS_MAX),
            )
            self._report.cases.append(Case(line_of(name, NAME_CHARS_MAX), outcome, seconds, message, origin="log"))
        else:
            self._tell_unknown("")

    def _has_matched(self, name: str) -> None:
        if name in self.unmatched:
            self.unmatched.remove(name)

    def _tell_unknown(self, result: str) -> None:
        if result in self._unknown or len(self._unknown) > 10:
            return
        self._unknown.add(result)
        if result:
            self._report.problem(
                f"log: tests with the result {result!r} are not counted: say what it means in `results`"
            )
        else:
            self._report.problem(f"log: more than {CASES_MAX} tests; the others are not counted")

    def _annotate(self, found: dict[str, str]) -> None:
        if len(self._report.annotations) >= ANNOTATIONS_MAX:
            return
        number = found.get("line", "")
        self._report.annotations.append(
            Annotation(
                line_of(found["file"], FILE_CHARS_MAX),
                int(number) if number.isascii() and number.isdigit() and len(number) < 9 else 0,
                _LEVELS.get(found.get("level", "").lower(), Level.NOTICE),
                text_of(found["text"], MESSAGE_CHARS_MAX),
            )
        )


def _number(text: str) -> float:
    """The first number in a text; one that no percents are where there is none, or it is a version."""
    found = _NUMBER.search(text)
    try:
        return float(found[0].replace(",", ".")) if found else -1.0
    except ValueError:
        return -1.0
