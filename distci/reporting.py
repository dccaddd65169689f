"""Reading the reports of a task, as the worker does that has just run it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distci import artifacts
from distci.errors import Invalid
from distci.masking import Masker
from distci.reports import junit
from distci.reports.asked import asked
from distci.reports.lines import Lines
from distci.reports.results import CASES_MAX, Report

FILES_BYTES_MAX = 256 * 1024 * 1024
"""Of all files of a task that are read."""


class Reading:
    """What one attempt's reports tell: lines as they come, files once the work is done."""

    def __init__(self, reports: Mapping[str, Any], masker: Masker) -> None:
        """``masker`` takes secrets out of lines. Invalid for what no report can be read by."""
        self.asked = asked(reports)
        self.report = Report()
        self.unmatched: list[str] = []
        """The patterns that no file matched."""
        self._lines = Lines(self.asked, self.report) if self.asked.listens else None
        self._masker = masker

    def write(self, data: bytes) -> None:
        """More of what the task prints: not what is said of it meanwhile, which may come in the middle of a line."""
        if self._lines:
            self._lines.write(self._masker.feed(data))

    @property
    def unheard(self) -> Sequence[str]:
        """The expressions that no line has matched. It changes nothing: a script that failed early has not come to those."""
        return self._lines.unmatched if self._lines else ()

    def hide(self, masker: Masker) -> None:
        """Take out more secrets from now on."""
        if self._lines:
            self._lines.write(self._masker.flush())
        self._masker = masker

    def read_files(self, root: Path, mask: junit.Mask, checkpoint: Callable[[], None]) -> None:
        """Read what the task has left beneath ``root``. What is wrong with a file is one of the report's problems."""
        if self._lines:
            self._lines.write(self._masker.flush())
            self._lines.end()
        found: dict[str, str] = {}
        for pattern in self.asked.junit:
            try:
                files, unmatched = artifacts.find(root, [pattern])
            except Invalid as error:
                self.report.problem(mask.whole(str(error)))
                continue
            found |= dict(files)
            self.unmatched += unmatched
        for pattern in self.unmatched:
            self.report.problem(f"no file matches {pattern!r}")
        left = FILES_BYTES_MAX
        for name, source in sorted(found.items()):
            checkpoint()
            try:
                with artifacts.opened(root, name, source) as file:
                    size_bytes = file.left_bytes
                    if size_bytes > min(left, junit.FILE_BYTES_MAX):
                        raise Invalid(
                            f"{name}: has {size_bytes} bytes; there is room for {min(left, junit.FILE_BYTES_MAX)}"
                        )
                    left -= size_bytes
                    data = _whole(file)
                room = CASES_MAX - len(self.report.cases)
                self.report.cases += junit.read(data, name, mask, checkpoint, room)
            except Invalid as error:
                self.report.problem(mask.whole(str(error)))


class SecretMask(junit.Mask):
    """Takes a task's secrets out of the texts of its reports."""

    def __init__(self, masker: Masker) -> None:
        self._masker = masker

    def feed(self, text: str) -> str:
        return _text(self._masker.feed(text.encode(errors="surrogateescape")))

    def flush(self) -> str:
        return _text(self._masker.flush())


def _whole(file: artifacts.Upload) -> bytes:
    return b"".join(iter(lambda: file.read(artifacts.CHUNK_BYTES), b""))


def _text(data: bytes) -> str:
    # A piece may end within a letter that a secret begins with.
    return data.decode(errors="replace")
