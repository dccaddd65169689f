"""Logs, followed while they are printed."""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

from distci import console
from distci.builds import BuildView, TaskView
from distci.errors import Damaged, Invalid
from distci.following.feeds import Feed
from distci.following.positions import ONLY, Position
from distci.following.told import Told, ended
from distci.model import BuildId, Json
from distci.store import keys
from distci.store.port import Store
from distci.views import to_bytes

if TYPE_CHECKING:
    from distci.following.sources import Sources

LOOK_S, LOOK_S_MAX = 0.15, 0.4
"""How often a log is looked at while it grows, and when it has been quiet for a while."""

PIECE_BYTES = 64 * 1024
"""Most bytes of a log that are told at a time."""

KEPT_BYTES = 1024 * 1024
"""What the feed of a log keeps for followers that are a little behind; it grows and goes with ..."""

KEPT_PIECES = 256
KEPT_BYTES_ALL = 64 * 1024 * 1024
"""... how many feeds share this."""


@dataclass(slots=True)
class Piece:
    """Some bytes of the log of an attempt, as they came."""

    task: str
    token: str
    offset: int
    data: bytes
    document: bytes = field(init=False)
    """The same as it is told, written once for all: JSON with the bytes as ``text`` where they are UTF-8, else as ``base64``."""

    def __post_init__(self) -> None:
        document: dict[str, Json] = {"task": self.task, "token": self.token, "offset": self.offset}
        try:
            document["text"] = self.data.decode()
        except UnicodeDecodeError:
            document["base64"] = base64.b64encode(self.data).decode()
        self.document = to_bytes(document)

    @property
    def end(self) -> int:
        return self.offset + len(self.data)

    def beginning_at(self, offset: int) -> Piece:
        """What of it is behind that offset."""
        if offset <= self.offset:
            return self
        return Piece(self.task, self.token, offset, self.data[offset - self.offset :])


def bytes_of(document: Mapping[str, Json]) -> bytes:
    """The bytes of a log that such a document carries."""
    if "text" in document:
        return str(document["text"]).encode()
    return base64.b64decode(document["base64"])


@dataclass(frozen=True, slots=True)
class Log:
    """The log of one attempt."""

    build: BuildId
    task: str
    token: str

    @property
    def prefix(self) -> str:
        return keys.log(self.build, self.task, self.token)

    def pieces(self, offset: int, data: bytes) -> Iterator[Piece]:
        """Bytes from an offset on as pieces that do not end within a character, as far as the bytes allow."""
        start = 0
        while start < len(data):
            end = _end_of_piece(data, start)
            yield Piece(self.task, self.token, offset + start, data[start:end])
            start = end


class LogFeed(Feed):
    """The growing end of one attempt's log."""

    def __init__(self, store: Store, log: Log, share_bytes: Callable[[], int]) -> None:
        super().__init__()
        self._store = store
        self._log = log
        self._share_bytes = share_bytes
        self._lock = Lock()
        self._kept: deque[Piece] = deque()
        self._kept_bytes = 0
        self._is_ending = False
        self._look_s = LOOK_S
        self.position: int | None = None
        """Up to where it has read; None until a follower has come to the end."""

    def begin(self, position: int) -> None:
        """Read on from there, the end of the log as a follower found it; no change if somebody was first."""
        with self._lock:
            if self.position is None:
                self.position = position
                self.woken.set()

    def end(self) -> None:
        """Its attempt is over: what is stored now is all there is."""
        if not self._is_ending:
            self._is_ending = True
            self.woken.set()

    def after(self, offset: int) -> Sequence[Piece] | None:
        """The next of what it keeps from ``offset`` on; none at the end. None when it does not reach back so far, or has not begun."""
        with self._lock:
            if self.position is None or offset < self.position - self._kept_bytes:
                return None
            ahead: list[Piece] = []
            for piece in reversed(self._kept):
                if piece.end <= offset:
                    break
                ahead.append(piece)
            ahead.reverse()
            return [piece.beginning_at(offset) for piece in _as_one_piece(ahead)]

    def look(self) -> float | None:
        if self.position is None:
            return 60.0
        is_ending = self._is_ending
        data = console.read_growth(self._store, self._log.prefix, self.position)
        if not data:
            self._look_s = min(self._look_s * 1.2, LOOK_S_MAX)
            return None if is_ending else self._look_s
        self._keep(data)
        self.tell()
        self._look_s = LOOK_S
        return 0.0 if len(data) >= console.CHUNK_BYTES or is_ending else self._look_s

    def _keep(self, data: bytes) -> None:
        assert self.position is not None
        pieces = [*self._log.pieces(self.position, data)]
        most = self._share_bytes()
        with self._lock:
            self._kept += pieces
            self._kept_bytes += len(data)
            self.position += len(data)
            while len(self._kept) > 1 and (self._kept_bytes > most or len(self._kept) > KEPT_PIECES):
                self._kept_bytes -= len(self._kept.popleft().data)


class LogFollower:
    """A :class:`Follower` of the logs of a build, or of one of its tasks."""

    def __init__(
        self, sources: Sources, build: BuildId, wake: Callable[[], None], task: str = "", position: str = ""
    ) -> None:
        """Go on from ``position``; Invalid when it is none. ``task`` is the one to follow; empty for all."""
        self._sources = sources
        self._wake = wake
        self._build = build
        self._task = task
        self._position = Position.parse(position, is_single=bool(task))
        self._reading: dict[int, _Reading] = {}
        self._to_fetch: deque[_Reading] = deque()
        self._fetched: deque[Told] = deque()
        self.is_over = False
        """Whether all has been told."""
        self.feed = sources.hold_build(build)
        self.feed.listen(wake)

    def close(self) -> None:
        for reading in [*self._reading.values()]:
            self._leave(reading)
        self.feed.ignore(self._wake)
        self._sources.release(self._build)

    @property
    def trouble(self) -> str:
        feeds: list[Feed] = [self.feed, *(reading.feed for reading in self._reading.values())]
        return next((feed.trouble for feed in feeds if feed.trouble), "")

    @property
    def is_ready(self) -> bool:
        return self.feed.view is not None or self.feed.is_over

    @property
    def must_fetch(self) -> bool:
        return bool(self._to_fetch)

    @property
    def end(self) -> bytes:
        view = self.feed.view
        return ended(view.task(self._task).state if view and self._task else view.state if view else "")

    def check(self) -> None:
        if self.feed.error is not None:
            raise self.feed.error
        if self.feed.view is not None:
            self._tasks(self.feed.view)

    def take(self) -> Iterator[Told]:
        """Raises what a feed has ended with, NoSuchTask, and Damaged."""
        while self._fetched:
            yield self._fetched.popleft()
        self._to_fetch.clear()
        self.check()
        view = self.feed.view
        if view is None:
            return
        tasks = self._tasks(view)
        # Of a build that has not been planned, or that may be planned again, nobody knows all tasks.
        is_all = view.result is not None or bool(self._task and tasks)
        for place, task in tasks:
            if place not in self._position.done:
                yield from self._take_from(view, place, task)
            is_all = is_all and place in self._position.done
        self.is_over = is_all

    def fetch(self) -> None:
        """Read from the store what the feeds do not keep; the next :meth:`take` gives it.

        Raises StoreUnavailable; Damaged when bytes are missing; Invalid when the position is behind the end of a log.
        """
        while self._to_fetch:
            reading = self._to_fetch.popleft()
            # Whether nothing will come any more must be known before it is looked whether there is more.
            is_ended, prefix = reading.is_ended, reading.log.prefix
            data = console.read_piece(self._sources.store, prefix, reading.offset, PIECE_BYTES)
            if data:
                self._fetched += [self._told(reading, piece) for piece in reading.log.pieces(reading.offset, data)]
                return
            if reading.offset and not console.read_piece(self._sources.store, prefix, reading.offset - 1, 1):
                raise Invalid(
                    f"{prefix}: there are no {reading.offset} bytes of that log; follow it from its beginning"
                )
            if not is_ended:
                reading.feed.begin(reading.offset)
            elif console.is_more_after(self._sources.store, prefix, reading.offset):
                raise Damaged(f"{prefix}: the log has a hole at byte {reading.offset}")
            else:
                reading.is_told = True

    def _tasks(self, view: BuildView) -> Sequence[tuple[int, TaskView]]:
        """The tasks that are followed, by their places. Of a whole build, logs that were printed in another one are none of its own."""
        if not self._task:
            return [(place, task) for place, task in enumerate(view.tasks) if not task.origin]
        return [(ONLY, view.task(self._task))] if view.tasks or view.result is not None else []

    def _take_from(self, view: BuildView, place: int, task: TaskView) -> Iterator[Told]:
        """What there is of the attempts at a task, one after the other."""
        tokens = tokens_of(task)
        while True:
            reading = self._reading.get(place)
            if reading is None:
                token = self._position.next_token(place, tokens)
                if token is None:
                    if task.state.is_final or view.result is not None:
                        self._position.done.add(place)
                    return
                reading = self._begin(view, place, task, token)
                if reading.offset == 0:
                    yield Told("attempt", str(self._position), to_bytes({"task": task.name, "token": token}))
            reading.is_ended = view.result is not None or _is_ended(task, reading.log.token, tokens)
            if reading.is_ended:
                reading.feed.end()
            yield from self._take_pieces(reading)
            if not reading.is_told:
                return
            self._leave(reading)
            self._position.through.add(place)

    def _take_pieces(self, reading: _Reading) -> Iterator[Told]:
        if reading.feed.error is not None:
            raise reading.feed.error
        # In this order: what comes between the two is taken the next time.
        is_over = reading.feed.is_over
        pieces = reading.feed.after(reading.offset)
        if pieces is not None:
            for piece in pieces:
                yield self._told(reading, piece)
            reading.is_told = is_over and reading.offset >= (reading.feed.position or 0)
        elif not reading.is_told:
            self._to_fetch.append(reading)

    def _told(self, reading: _Reading, piece: Piece) -> Told:
        reading.offset = piece.end
        self._position.at[reading.place] = piece.token, piece.end
        return Told("log", str(self._position), piece.document, piece)

    def _begin(self, view: BuildView, place: int, task: TaskView, token: str) -> _Reading:
        log = Log(BuildId.parse(task.origin) if task.origin else view.id, task.name, token)
        offset = self._position.begin(place, token)
        reading = self._reading[place] = _Reading(place, log, self._sources.hold_log(log), offset)
        reading.feed.listen(self._wake)
        return reading

    def _leave(self, reading: _Reading) -> None:
        reading.feed.ignore(self._wake)
        del self._reading[reading.place]
        self._sources.release(reading.log)


@dataclass(slots=True)
class _Reading:
    """How far a follower is with the attempt that it is at."""

    place: int
    log: Log
    feed: LogFeed
    offset: int
    is_ended: bool = False
    """Whether the attempt is over, so that its log grows no more."""
    is_told: bool = False
    """Whether all of it has been told."""


def tokens_of(task: TaskView) -> Sequence[str]:
    """The attempts at a task that left a record, and the one that runs, in their order."""
    tokens = [str(attempt["token"]) for attempt in task.attempts]
    return [*tokens, task.token] if task.token and task.token not in tokens else tokens


def _is_ended(task: TaskView, token: str, tokens: Sequence[str]) -> bool:
    """Whether an attempt is over: it is on record, or another one has taken its place."""
    is_on_record = any(attempt["token"] == token for attempt in task.attempts)
    return is_on_record or task.state.is_final or (bool(tokens) and tokens[-1] != token)


def _as_one_piece(pieces: Sequence[Piece]) -> Sequence[Piece]:
    """The first few, of about as many bytes as one may have: a follower that is slow holds no more than that."""
    taken, bytes_taken = 0, 0
    while taken < len(pieces) and bytes_taken < PIECE_BYTES:
        bytes_taken += len(pieces[taken].data)
        taken += 1
    return pieces[:taken]


def _end_of_piece(data: bytes, start: int) -> int:
    """Where the piece that begins there ends: not within a character, if that can be helped."""
    end = start + PIECE_BYTES
    if end >= len(data):
        return len(data)
    for cut in range(end, end - 4, -1):
        if data[cut] & 0xC0 != 0x80:
            return cut
    return end
