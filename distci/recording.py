"""Writing down what a process commits and stores, for :mod:`distci.chaos` to check afterwards.

Adapters around the two ports. A line goes to the file before a call and another one after it, each in one write, so that a process that is
killed in between leaves a call without an end: it may have taken effect or not, as far as anybody can tell from this process.

::

    {"n": 7, "t": 12.5, "commit": [["delete", "/running/3/a.1", -1], ["create", "/queue/...", "{...}", false]]}
    {"n": 7, "t": 12.6, "end": "committed"}
    {"n": 8, "t": 12.6, "put": "builds/.../log/0000000000000000", "size": 4, "sha256": "..."}
    {"n": 8, "t": 12.7, "end": "done"}

Times are seconds of the machine's monotonic clock, the same for all of its processes.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from distci.coordination.passing import PassingCoordination
from distci.coordination.port import (
    CommitResult,
    Committed,
    Coordination,
    Create,
    Delete,
    Operation,
    Unknown,
    Write,
)
from distci.store.passing import PassingStore
from distci.store.port import Store

COMMITTED, REFUSED, UNKNOWN, DONE = "committed", "refused", "unknown", "done"
"""How a call ended. One that raised has its error's name instead."""

T = TypeVar("T")


class Recorder:
    """A history file that calls are appended to. Any thread may use it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Without a buffer: what was written survives the process. Never closed, since threads that end late may still write.
        self._file = path.open("ab", buffering=0)
        self._numbers = count(1)

    def call(self, what: dict[str, Any], call: Callable[[], T], end: Callable[[T], str] = lambda result: DONE) -> T:
        """Make a call, and write down what it is before and how it ended after."""
        number = next(self._numbers)
        self._write({"n": number} | what)
        try:
            result = call()
        except BaseException as error:
            self._write({"n": number, "end": type(error).__name__})
            raise
        self._write({"n": number, "end": end(result)})
        return result

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line | {"t": time.monotonic()}, separators=(",", ":")).encode() + b"\n")


class RecordingCoordination(PassingCoordination):
    """A tree of which every commit is written down."""

    def __init__(self, coordination: Coordination, recorder: Recorder) -> None:
        super().__init__(coordination)
        self._recorder = recorder

    def commit(self, *operations: Operation) -> CommitResult:
        what = {"commit": [_operation(step) for step in operations]}
        return self._recorder.call(what, lambda: self._coordination.commit(*operations), _outcome)


class RecordingStore(PassingStore):
    """A store of which every write is written down. Of streams the bytes are not: they may be large, and are read by the store alone."""

    def __init__(self, store: Store, recorder: Recorder) -> None:
        super().__init__(store)
        self._recorder = recorder

    def put(self, key: str, data: bytes | BinaryIO) -> None:
        self._recorder.call({"put": key} | _content(data), lambda: self._store.put(key, data))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        what = {"put": key, "if_absent": True} | _content(data)
        return self._recorder.call(
            what, lambda: self._store.put_if_absent(key, data), lambda won: DONE if won else REFUSED
        )

    def delete(self, key: str) -> None:
        self._recorder.call({"delete": key}, lambda: self._store.delete(key))


def _outcome(result: CommitResult) -> str:
    if isinstance(result, Committed):
        return COMMITTED
    return UNKNOWN if isinstance(result, Unknown) else REFUSED


def _operation(step: Operation) -> list[Any]:
    if isinstance(step, Create):
        return ["create", step.path, _text(step.data), step.ephemeral]
    if isinstance(step, Write):
        return ["write", step.path, _text(step.data), step.version]
    return ["delete" if isinstance(step, Delete) else "check", step.path, step.version]


def _text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def _content(data: bytes | BinaryIO) -> dict[str, Any]:
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} if isinstance(data, bytes) else {}
