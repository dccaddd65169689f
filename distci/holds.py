"""Failed tasks that are held, and the terminals that people open in them.

Nobody connects to a worker, which may reach nothing but a front end. What is typed and what is shown goes by the store, as small objects under the
attempt: its *drawer*. Each is named by its number or its place, so that one that is put twice is there once, and is read in order or not at all::

    guest                    who is in there: whoever put it first; its worker removes it when they have left
    typed/<id>/<number>      what they typed, and how much they have seen
    shown/<id>/<offset>      what stands on their terminal from that byte on, secrets masked
    over/<id>                how their shell has ended, and how many bytes it has shown
    released                 that the hold shall end

That a task is held is in the record of its claim (:class:`~distci.model.Hold`), and ends with the claim. Its worker removes all of the drawer.
"""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event
from time import monotonic
from typing import Protocol

from distci.builds import Builds, TaskView
from distci.documents.strict_json import canonical, flag, number, read_json, text
from distci.errors import AlreadyExists, IllegalTransition, Invalid, InvalidDocument, NoSuchObject
from distci.isolation.terminal import SIZE_MAX
from distci.lifecycle import Lifecycle
from distci.model import BuildId, Json
from distci.protocol import paths
from distci.store import keys
from distci.store.port import Store, objects

FORMAT = 1
TYPED_BYTES_MAX = 16 * 1024
"""Of one piece."""
PIECE_BYTES_MAX = 3 * 512 * 1024
"""Of anything in a drawer."""
POLL_S = 0.05
"""How soon, at the latest, what is typed or shown is seen at the other end."""
WAIT_MAX_S = 20.0
"""How long one call waits for something to be shown."""
GUEST, RELEASED = "guest", "released"
LINES, COLUMNS, DUMB = 24, 80, "dumb"
"""A terminal of which nothing is known."""
NUMBER_MAX = 10**9 - 1
OFFSET_MAX = 10**15

NAME = re.compile(r"guest|released|(typed|shown)/[0-9a-f]{32}/[0-9]{9,16}|over/[0-9a-f]{32}")
"""What an object of a drawer may be called."""
_ID = re.compile(r"[0-9a-f]{32}")
_TERM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
WHO_CHARS_MAX = 200


def new_terminal() -> str:
    """An id that no terminal has had."""
    return uuid.uuid4().hex


def typed_name(terminal: str, number: int) -> str:
    return f"typed/{terminal}/{number:09}"


def shown_name(terminal: str, offset: int) -> str:
    return f"shown/{terminal}/{offset:016}"


def over_name(terminal: str) -> str:
    return f"over/{terminal}"


class Drawer(Protocol):
    """The objects by which a held task's worker and who comes to it reach each other. Any call may be repeated, and raises Unavailable where that may help."""

    def names(self) -> Sequence[str]: ...

    def get(self, name: str) -> bytes | None: ...

    def put(self, name: str, data: bytes) -> None: ...

    def remove(self, name: str) -> None: ...


class StoreDrawer:
    """A drawer for whoever reaches the store. Any thread may use it."""

    def __init__(self, store: Store, build: BuildId, task: str, token: str) -> None:
        self._store = store
        self._prefix = keys.hold(build, task, token)

    def names(self) -> Sequence[str]:
        return [info.key.removeprefix(self._prefix) for info in objects(self._store, self._prefix)]

    def get(self, name: str) -> bytes | None:
        try:
            return self._store.get(self._key(name), 0, PIECE_BYTES_MAX)
        except NoSuchObject:
            return None

    def put(self, name: str, data: bytes) -> None:
        self._store.put(self._key(name), _checked(data))

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Whether it was not there; after StoreUnavailable nobody knows."""
        return self._store.put_if_absent(self._key(name), _checked(data))

    def remove(self, name: str) -> None:
        self._store.delete(self._key(name))

    def _key(self, name: str) -> str:
        if not NAME.fullmatch(name):
            raise Invalid(f"nothing of a held task is called {name!r}")
        return keys.check_key(f"{self._prefix}{name}")


@dataclass(frozen=True, slots=True)
class Guest:
    """Who is in a held task, and what their terminal is like."""

    terminal: str
    """The id of their visit."""
    who: str
    lines: int
    columns: int
    kind: str
    """As ``TERM`` names it."""

    def to_bytes(self) -> bytes:
        told = ("terminal", "who", "lines", "columns", "kind")
        return canonical({"format": FORMAT} | {name: getattr(self, name) for name in told})

    @classmethod
    def from_bytes(cls, data: bytes) -> Guest:
        """Read it; InvalidDocument for anything else."""
        with _reading("guest") as read:
            document = read(data)
            terminal, who, kind = (text(document, name) for name in ("terminal", "who", "kind"))
            lines, columns = (_count(document, name) for name in ("lines", "columns"))
            is_well_named = _ID.fullmatch(terminal) and _TERM.fullmatch(kind) and who == name_of(who)
            if not is_well_named or max(lines, columns) > SIZE_MAX:
                raise ValueError("no guest is told so")
            return cls(terminal, who, lines, columns, kind)


@dataclass(frozen=True, slots=True)
class Typed:
    """What goes to a terminal at once."""

    data: bytes = b""
    lines: int = 0
    """With :attr:`columns`, its size from now on; 0: as before."""
    columns: int = 0
    seen: int = 0
    """How many bytes of what was shown have arrived."""
    is_gone: bool = False
    """Whoever typed has left."""

    def to_json(self) -> dict[str, Json]:
        return {
            "data": written(self.data),
            "lines": self.lines,
            "columns": self.columns,
            "seen": self.seen,
            "is_gone": self.is_gone,
        }

    def to_bytes(self) -> bytes:
        return canonical({"format": FORMAT} | self.to_json())

    @classmethod
    def from_json(cls, document: Mapping[str, Json]) -> Typed:
        """Read it; InvalidDocument for anything else."""
        with _reading("what was typed"):
            data = unwritten(text(document, "data", ""))
            lines, columns, seen = (_count(document, name) for name in ("lines", "columns", "seen"))
            if len(data) > TYPED_BYTES_MAX or max(lines, columns) > SIZE_MAX or seen > OFFSET_MAX:
                raise ValueError("that is too much")
            return cls(data, lines, columns, seen, flag(document, "is_gone"))

    @classmethod
    def from_bytes(cls, data: bytes) -> Typed:
        with _reading("what was typed") as read:
            return cls.from_json(read(data))


@dataclass(frozen=True, slots=True)
class Over:
    """How a shell in a held task has ended."""

    size_bytes: int
    """What it has shown, all in all."""
    exit_status: int | None
    """None where it was ended."""
    reason: str
    """Why it was; empty when it ended by itself."""
    ends_hold: bool = False
    """Whether the hold is over, too."""

    def to_bytes(self) -> bytes:
        told = ("size_bytes", "exit_status", "reason", "ends_hold")
        return canonical({"format": FORMAT} | {name: getattr(self, name) for name in told})

    @classmethod
    def from_bytes(cls, data: bytes) -> Over:
        """Read it; InvalidDocument for anything else."""
        with _reading("the end of a terminal") as read:
            document = read(data)
            size_bytes, exit_status = _count(document, "size_bytes"), number(document, "exit_status")
            return cls(size_bytes, exit_status, text(document, "reason"), flag(document, "ends_hold"))


@dataclass(frozen=True, slots=True)
class Shown:
    """What has come to a terminal since it was last looked at."""

    data: str
    """As base64."""
    over: Over | None = None
    """How it has ended, once all was shown."""

    @property
    def bytes(self) -> bytes:
        return unwritten(self.data)


@dataclass(frozen=True, slots=True)
class Visit:
    """A terminal that somebody has opened."""

    build: BuildId
    task: str
    token: str
    """The attempt that is held."""
    terminal: str
    """Its id."""
    until_ms: int
    """When the hold ends, in milliseconds since 1970."""


class Holds:
    """Terminals in the failed tasks of one system. Any thread may use it."""

    def __init__(self, lifecycle: Lifecycle, builds: Builds, store: Store) -> None:
        self._lifecycle = lifecycle
        self._builds = builds
        self._store = store

    def open(
        self,
        build: BuildId | str,
        task: str,
        *,
        lines: int = LINES,
        columns: int = COLUMNS,
        kind: str = DUMB,
        terminal: str = "",
        actor: str = "",
    ) -> Visit:
        """Go into a task that is held; ``kind`` is the terminal's, as ``TERM`` names it. With the same ``terminal``, an id, it is the same visit.

        Raises NoSuchBuild, NoSuchTask, IllegalTransition for a task that is not held, and AlreadyExists, saying who it is, while
        somebody is in there.
        """
        origin, view, until_ms = self._held(build, task)
        if not _TERM.fullmatch(kind):
            raise Invalid(f"{kind!r} names no kind of terminal; write for example xterm, or dumb where none is known")
        lines, columns = min(lines, SIZE_MAX), min(columns, SIZE_MAX)
        terminal = terminal or new_terminal()
        guest = Guest(terminal, name_of(actor), lines, columns, kind).to_bytes()
        drawer = self._drawer(origin, task, view.token)
        if not drawer.put_if_absent(GUEST, guest):
            told = drawer.get(GUEST)
            there = Guest.from_bytes(told) if told else None
            if there is None or there.terminal != terminal:
                who = there.who if there else "somebody"
                raise AlreadyExists(
                    f"{who} is in task {task} of {origin} already; one at a time: ask them, or try later"
                )
        return Visit(origin, task, view.token, terminal, until_ms)

    def type(self, visit: Visit, number: int, typed: Typed) -> None:
        """Have the piece of that number typed, from 0 on without gaps. May be repeated. IllegalTransition when the terminal is over."""
        if not 0 <= number <= NUMBER_MAX:
            raise Invalid(f"piece {number} is more than can be typed")
        self._check(visit)
        self._drawer_of(visit).put(typed_name(visit.terminal, number), typed.to_bytes())

    def shown(self, visit: Visit, offset: int, wait_s: float = 0.0) -> Shown | None:
        """What stands there from byte ``offset`` on, as soon as there is something; None where nothing came for ``wait_s`` seconds.

        ``offset`` is where what was shown before has ended. IllegalTransition when the terminal is over, and how is no more to be had.
        """
        until = monotonic() + min(wait_s, WAIT_MAX_S)
        found = self._shown_now(visit, offset)
        while found is None and monotonic() < until:
            Event().wait(POLL_S)
            found = self.look(visit, offset)
        return found or self._shown_now(visit, offset)

    def _shown_now(self, visit: Visit, offset: int) -> Shown | None:
        found = self.look(visit, offset)
        if found is None:
            self._check(visit)
        return found

    def look(self, visit: Visit, offset: int) -> Shown | None:
        """The same at once, whether or not the terminal still stands."""
        if not 0 <= offset <= OFFSET_MAX:
            raise Invalid(f"nothing is shown at byte {offset}")
        drawer = self._drawer_of(visit)
        data = drawer.get(shown_name(visit.terminal, offset))
        if data:
            return Shown(written(data))
        told = drawer.get(over_name(visit.terminal))
        over = Over.from_bytes(told) if told else None
        return Shown("", over) if over and offset >= over.size_bytes else None

    def release(self, build: BuildId | str, task: str, reason: str = "", *, actor: str = "") -> TaskView:
        """End the hold of a task: it is over, as it was known to be, within seconds. Raises as :meth:`open` does for a task that is not held."""
        origin, view, _ = self._held(build, task)
        told = {"format": FORMAT, "who": name_of(actor), "reason": reason[:WHO_CHARS_MAX]}
        self._drawer(origin, task, view.token).put(RELEASED, canonical(told))
        return view

    def _held(self, build: BuildId | str, task: str) -> tuple[BuildId, TaskView, int]:
        view = self._builds.get(build)
        found = view.task(task)
        if found.hold is None:
            why = f": {found.reason}" if found.reason else ""
            raise IllegalTransition(
                f"task {task} of {view.id} is {found.state}{why}; it is not held. A task with `hold` is, when it fails, "
                "where its worker's operator allows that; `distci reproduce --shell` runs one again elsewhere"
            )
        return view.id, found, found.hold.until_ms

    def _check(self, visit: Visit) -> None:
        """IllegalTransition unless the terminal stands."""
        there = self._drawer_of(visit).get(GUEST)
        is_there = there is not None and Guest.from_bytes(there).terminal == visit.terminal
        if not is_there or not self._lifecycle.tickets.tree.coordination.exists(paths.running(visit.token)):
            raise IllegalTransition(f"this terminal in task {visit.task} of {visit.build} is over")

    def _drawer_of(self, visit: Visit) -> StoreDrawer:
        if not _ID.fullmatch(visit.terminal):
            raise Invalid(f"{visit.terminal!r} is no terminal")
        return self._drawer(visit.build, visit.task, visit.token)

    def _drawer(self, build: BuildId, task: str, token: str) -> StoreDrawer:
        return StoreDrawer(self._store, build, task, token)


@contextmanager
def _reading(what: str) -> Iterator[Callable[[bytes], dict[str, Json]]]:
    """Turns what is wrong with a document into InvalidDocument; gives what reads one of our format."""

    def read(data: bytes) -> dict[str, Json]:
        document = read_json(data, what)
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise InvalidDocument(f"{what}: is of no format that this version reads")
        return document

    try:
        yield read
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidDocument(f"{what}: {error}") from error


def _count(document: Mapping[str, Json], name: str) -> int:
    value = number(document, name) if name in document else 0
    if value is None or value < 0:
        raise ValueError(f"{name} is no count")
    return value


def written(data: bytes) -> str:
    """Bytes as JSON can have them."""
    return base64.b64encode(data).decode()


def unwritten(data: str) -> bytes:
    """The bytes that are written so; InvalidDocument for what is not."""
    try:
        return base64.b64decode(data, validate=True)
    except ValueError as error:
        raise InvalidDocument(f"what should be base64 is not: {error}") from error


def name_of(actor: str) -> str:
    """Who somebody is, as far as it can be shown to others."""
    return "".join(letter for letter in actor if letter.isprintable())[:WHO_CHARS_MAX] or "somebody"


def _checked(data: bytes) -> bytes:
    if len(data) > PIECE_BYTES_MAX:
        raise Invalid(f"{len(data)} bytes are too many; at most {PIECE_BYTES_MAX} fit")
    return data
