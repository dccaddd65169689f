"""Reports as they are stored: lines of JSON, compressed, so that a reader needs no more than a line of one at a time.

The first line has the summary, then there is one for each annotation and for each test. Each is one object, which is there whole or not at all: that of an attempt
counts once the attempt does, and those that other systems have sent of a task that is over (:meth:`StoredReports.put_late`) never change.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, BinaryIO

import zstandard

from distci.documents.strict_json import read_json
from distci.errors import Damaged, InvalidDocument
from distci.model import BuildId
from distci.reports.results import Annotation, Case, CaseOutcome, Report, Summary
from distci.store import keys
from distci.store.port import Store, objects
from distci.views import from_json, to_bytes, to_json

FORMAT = 1
PACKED_BYTES_MAX = 64 * 1024 * 1024
"""Of a whole report as it is stored."""
BYTES_MAX = 512 * 1024 * 1024
"""Of a whole report once it is unpacked."""
LINE_BYTES_MAX = 256 * 1024
WINDOW_BYTES_MAX = 8 * 1024 * 1024

_TYPES = {"name": str, "outcome": str} | {item.name: type(item.default) for item in fields(Case)[2:]}


class StoredReports:
    """Puts and reads them. Any thread may use it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, build: BuildId, task: str, token: str, data: bytes) -> None:
        """Keep the report of an attempt. May be repeated."""
        self._store.put(keys.report(build, task, token), data)

    @contextmanager
    def open(self, build: BuildId, task: str, token: str) -> Iterator[BinaryIO]:
        """The bytes of an attempt's report; NoSuchObject where it has none."""
        with self._store.open(keys.report(build, task, token)) as stream:
            yield stream

    def put_late(self, build: BuildId, task: str, source: str, data: bytes) -> bytes:
        """Keep what another system says of a task, unless it has said something before; what is there then. May be repeated."""
        key = keys.late_report(build, task, source)
        return data if self._store.put_if_absent(key, data) else self._store.get(key)

    @contextmanager
    def open_late(self, build: BuildId, task: str, source: str) -> Iterator[BinaryIO]:
        """The bytes of such a report; NoSuchObject where there is none."""
        with self._store.open(keys.late_report(build, task, source)) as stream:
            yield stream

    def late(self, build: BuildId) -> Sequence[tuple[str, str]]:
        """The task and the source of each late report of a build."""
        return [keys.late_report_of(info.key) for info in objects(self._store, keys.late_reports(build))]


def write(report: Report) -> bytes:
    """The report's bytes: the same for the same report."""
    packed = io.BytesIO()
    with zstandard.ZstdCompressor(level=3).stream_writer(packed, closefd=False) as stream:
        head = {"format": FORMAT, "summary": to_json(report.summary())}
        for line in (head, *({"annotation": to_json(each)} for each in report.annotations)):
            stream.write(to_bytes(line) + b"\n")
        for case in report.cases:
            stream.write(json.dumps({"case": _told(case)}, ensure_ascii=False).encode(errors="replace") + b"\n")
    return packed.getvalue()


def summary(stream: BinaryIO) -> Summary:
    """What it comes to. Raises as :func:`read` does."""
    return from_json(Summary, _head(_lines(stream))["summary"])


def read(stream: BinaryIO) -> Iterator[Case | Annotation]:
    """All that is in it, piece by piece. Damaged or InvalidDocument for what is no report, or too large a one."""
    lines = _lines(stream)
    _head(lines)
    for line in lines:
        try:
            document = json.loads(line)
            if "annotation" in document:
                yield from_json(Annotation, document["annotation"])
            else:
                yield _case(document["case"])
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise InvalidDocument(f"a line of a report is neither a test nor an annotation: {error!r}") from error


def cases(stream: BinaryIO) -> Iterator[Case]:
    """The tests alone."""
    return (each for each in read(stream) if isinstance(each, Case))


def check(data: bytes) -> Summary:
    """What a report comes to that somebody has sent, all of which has been read; raises as :func:`read` does."""
    for _ in read(io.BytesIO(data)):
        pass
    return summary(io.BytesIO(data))


def _case(told: dict[str, Any]) -> Case:
    """A test as a line has it. Of these there are many, so that the general way would take four times as long."""
    for name, value in told.items():
        if name in _TYPES and type(value) is not _TYPES[name]:
            raise TypeError(name)
    known = {name: value for name, value in told.items() if name in _TYPES}
    return Case(**{**known, "name": told["name"], "outcome": CaseOutcome(told["outcome"])})


def _told(case: Case) -> dict[str, Any]:
    """All of a test that is not as usual."""
    told = {item.name: getattr(case, item.name) for item in fields(case)}
    return {name: value for name, value in told.items() if value or name == "outcome"}


def _head(lines: Iterator[bytes]) -> dict[str, Any]:
    document = read_json(next(lines, b""), "the beginning of a report")
    if not isinstance(document, dict) or document.get("format") != FORMAT or "summary" not in document:
        raise InvalidDocument(f"no report of format {FORMAT}, which this version reads")
    return document


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    left = BYTES_MAX
    try:
        unpacked = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX).stream_reader(stream)
        buffered = io.BufferedReader(unpacked, 64 * 1024)
        while line := buffered.readline(LINE_BYTES_MAX):
            left -= len(line)
            if left < 0 or not line.endswith(b"\n"):
                raise Damaged("a report is cut off, or larger than any is")
            yield line
    except zstandard.ZstdError as error:
        raise Damaged(f"a report cannot be unpacked: {error}") from error
