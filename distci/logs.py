"""Console logs to be read: any bytes of them, their last lines, lines by their number, lines that hold some text.

What is stored are chunks of bytes that are named by where they begin (:mod:`distci.console`). Which of them there are is listed once, when a
log is opened; reading goes straight to the right one. Where lines begin is found out when somebody asks for lines, and is
remembered for the logs that were asked for last: forgetting it costs time and nothing else.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import BinaryIO

from distci.builds import Builds, TaskView
from distci.errors import Damaged, NoSuchTask
from distci.model import BuildId
from distci.store import keys
from distci.store.port import Store
from distci.store.sources import stream_of

LINE_BYTES_MAX = 16 * 1024
"""So much of a line is shown; how long it is, is told."""

TAIL_BYTES_MAX = 16 * 1024 * 1024
"""Last lines are looked for in so many bytes."""

SEARCHED_BYTES_MAX = 64 * 1024 * 1024
"""So many bytes one search looks through; whoever wants more goes on from there."""

LONG_LINE_BYTES = 1024 * 1024
"""A longer line is searched in pieces of this size, so that one without an end takes no more memory than that."""

STRIDE = 1000
"""Of so many lines, where one begins is remembered."""

REMEMBERED = 64
"""Of so many logs."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a log."""

    line: int
    """Counted from 1."""
    offset: int
    """Where it begins, in bytes."""
    size_bytes: int
    """Without its line break; no more is counted than ``LONG_LINE_BYTES``."""
    text: str
    """As far as it is shown; bytes that are no UTF-8 are replaced."""


@dataclass(frozen=True, slots=True)
class Place:
    """Between two lines of a log."""

    line: int = 1
    """The line that begins there."""
    offset: int = 0


BEGINNING = Place()


@dataclass(frozen=True, slots=True)
class _Chunk:
    key: str
    offset: int
    size_bytes: int


@dataclass
class _Marks:
    """Where the lines of a log begin, as far as it has been read: every :data:`STRIDE`-th."""

    offsets: list[int] = field(default_factory=lambda: [0])
    """Of lines 1, 1001, 2001 ..."""
    lines: int = 0
    """How many line breaks there are before ``read_bytes``."""
    read_bytes: int = 0
    lock: Lock = field(default_factory=Lock)


class Logs:
    """The console logs of the builds of one system. Any thread may use it."""

    def __init__(self, builds: Builds, store: Store) -> None:
        self._builds = builds
        self._store = store
        self._marks: OrderedDict[str, _Marks] = OrderedDict()
        self._lock = Lock()

    def open(self, build: BuildId | str, task: str, token: str = "") -> Log:
        """The log of a task's latest attempt, or of the attempt ``token``, as far as it is stored now.

        Raises NoSuchBuild, NoSuchTask (also for an attempt that there was none of), and Damaged when bytes in its middle are missing.

        >>> ci.logs.open("docs/hello#1", "say").size_bytes
        6
        """
        view = self._builds.get(build)
        found = view.task(task)
        token = token or found.token
        if token not in ("", *_tokens(found)):
            known = ", ".join(_tokens(found)) or "none yet"
            raise NoSuchTask(f"{view.id} has no attempt {token!r} at {task}; its attempts: {known}")
        is_last = token == found.token
        is_complete = found.state.is_final or not is_last
        if not token:
            return Log(self._store, "", (), is_complete, _Marks())
        origin = BuildId.parse(found.origin) if found.origin else view.id
        prefix = keys.log(origin, task, token)
        chunks = tuple(_chunks(self._store, prefix, is_complete))
        return Log(self._store, token, chunks, is_complete, self._marks_of(prefix))

    def _marks_of(self, prefix: str) -> _Marks:
        with self._lock:
            marks = self._marks.setdefault(prefix, _Marks())
            self._marks.move_to_end(prefix)
            if len(self._marks) > REMEMBERED:
                self._marks.popitem(last=False)
            return marks


class Log:
    """What one attempt printed, as far as it was stored when it was opened."""

    def __init__(self, store: Store, token: str, chunks: Sequence[_Chunk], is_complete: bool, marks: _Marks) -> None:
        self.token = token
        """The attempt; empty while there has been none."""
        self.is_complete = is_complete
        """Whether nothing will be added."""
        self.size_bytes = chunks[-1].offset + chunks[-1].size_bytes if chunks else 0
        self._store = store
        self._chunks = chunks
        self._starts = [chunk.offset for chunk in chunks]
        self._marks = marks

    def read(self, start: int = 0) -> Iterator[bytes]:
        """The bytes from ``start`` on, in pieces of a megabyte at most."""
        first = max(0, bisect_right(self._starts, start) - 1)
        for chunk in self._chunks[first:]:
            data = self._get(chunk, max(0, start - chunk.offset))
            if data:
                yield data

    def stream(self, start: int = 0) -> BinaryIO:
        """The same as something to read from."""
        return stream_of(self.read(start))

    def tail(self, lines: int) -> int:
        """Where the last ``lines`` lines begin, or as many of them as ``TAIL_BYTES_MAX`` hold.

        >>> ci.logs.open("docs/hello#1", "say").tail(1)
        0
        """
        # The line break at the very end ends the last line, and begins none.
        left = lines + 1
        for chunk in reversed(self._chunks):
            if self.size_bytes - chunk.offset > TAIL_BYTES_MAX:
                return chunk.offset + chunk.size_bytes
            data = self._get(chunk)
            if chunk is self._chunks[-1] and not data.endswith(b"\n"):
                left -= 1
            position = len(data)
            while left and (position := data.rfind(b"\n", 0, position)) >= 0:
                left -= 1
            if not left:
                return chunk.offset + position + 1
        return 0

    def count_lines(self) -> int:
        """How many lines there are, with the one at the end that is not ended yet.

        >>> ci.logs.open("docs/hello#1", "say").count_lines()
        1
        """
        marks = self._marked()
        return marks.lines + (not self._ends_line())

    def lines(self, first: int = 1) -> Iterator[Line]:
        """Lines from that number on.

        >>> [line.text for line in ci.logs.open("docs/hello#1", "say").lines()]
        ['hello']
        """
        stride = (first - 1) // STRIDE
        marks = self._marked()
        if stride >= len(marks.offsets):
            return
        for line in self._lines(Place(stride * STRIDE + 1, marks.offsets[stride])):
            if line.number >= first and line.is_begun:
                yield line.shown()

    def search(
        self,
        text: str,
        *,
        ignore_case: bool = False,
        at_start: bool = False,
        start: Place = BEGINNING,
        bytes_max: int = SEARCHED_BYTES_MAX,
    ) -> Iterator[Line | Place]:
        """The lines from ``start`` on that hold some text, or begin with it; last of all the place to go on from, if ``bytes_max`` ended it.

        Upper and lower case are those of ASCII.

        >>> [line.line for line in ci.logs.open("docs/hello#1", "say").search("ell")]
        [1]
        """
        wanted = text.encode(errors="surrogateescape")
        wanted = wanted.lower() if ignore_case else wanted
        for line in self._lines(start):
            if line.offset - start.offset >= bytes_max:
                yield Place(line.number, line.offset)
                return
            if line.holds(wanted, ignore_case, at_start):
                yield line.shown()

    def _lines(self, start: Place) -> Iterator[_RawLine]:
        number, offset, is_begun = start.line, start.offset, True
        held = b""
        for data in self.read(offset):
            held = held + data if held else data
            begin = 0
            while (end := held.find(b"\n", begin)) >= 0:
                yield _RawLine(number, offset + begin, held[begin:end], is_begun)
                begin, number, is_begun = end + 1, number + 1, True
            held, offset = held[begin:], offset + begin
            if len(held) >= LONG_LINE_BYTES:
                yield _RawLine(number, offset, held, is_begun)
                held, offset, is_begun = b"", offset + len(held), False
        if held:
            yield _RawLine(number, offset, held, is_begun)

    def _marked(self) -> _Marks:
        """Where lines begin, for all that is there."""
        marks = self._marks
        with marks.lock:
            for data in self.read(marks.read_bytes) if marks.read_bytes < self.size_bytes else ():
                position = -1
                while (position := data.find(b"\n", position + 1)) >= 0:
                    marks.lines += 1
                    if marks.lines % STRIDE == 0:
                        marks.offsets.append(marks.read_bytes + position + 1)
                marks.read_bytes += len(data)
        return marks

    def _ends_line(self) -> bool:
        if not self._chunks:
            return True
        last = self._chunks[-1]
        return self._get(last, last.size_bytes - 1).endswith(b"\n")

    def _get(self, chunk: _Chunk, start: int = 0) -> bytes:
        return self._store.get(chunk.key, start, chunk.size_bytes - start) if start < chunk.size_bytes else b""


@dataclass(frozen=True, slots=True)
class _RawLine:
    number: int
    offset: int
    data: bytes
    is_begun: bool
    """Whether it begins here: of a long line, this may be a later piece."""

    def holds(self, wanted: bytes, ignore_case: bool, at_start: bool) -> bool:
        data = self.data[: len(wanted)] if at_start else self.data
        return (self.is_begun or not at_start) and wanted in (data.lower() if ignore_case else data)

    def shown(self) -> Line:
        text = self.data[:LINE_BYTES_MAX].removesuffix(b"\r").decode(errors="replace")
        return Line(self.number, self.offset, len(self.data), text)


def _tokens(task: TaskView) -> Sequence[str]:
    """The attempts that there were and are, the oldest first."""
    tokens = [str(attempt["token"]) for attempt in task.attempts if attempt.get("token")]
    return [*dict.fromkeys(token for token in (*tokens, task.token) if token)]


def _chunks(store: Store, prefix: str, is_complete: bool) -> Iterator[_Chunk]:
    """The chunks of a log, in order, up to the first that is missing: of a log that still grows it may only be late."""
    position, after = 0, ""
    while page := store.list(prefix, after):
        for info in page:
            offset = keys.offset_of_chunk(info.key)
            if offset > position:
                if is_complete:
                    raise Damaged(f"{prefix}: bytes {position} to {offset} of the log are missing")
                return
            yield _Chunk(info.key, offset, info.size_bytes)
            position = offset + info.size_bytes
        after = page[-1].key
