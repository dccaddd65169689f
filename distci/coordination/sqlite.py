"""The embedded coordination tree: one SQLite file, shared by the processes of one machine."""

from __future__ import annotations

import logging
import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Lock, RLock, Thread
from typing import Any

from distci.coordination.port import (
    CommitResult,
    Committed,
    Create,
    Delete,
    Node,
    Operation,
    Reason,
    Refused,
    Session,
    SessionState,
    Stat,
    Unknown,
    Write,
    check_operations,
    check_path,
)
from distci.errors import CoordinationUnavailable, InvalidDocument

APPLICATION_ID = 0x44697374
"""``Dist`` in ASCII: tells our files from others."""

BUSY_PAUSE_S = 0.01
"""Longest pause before a transaction is tried again while another process has one; some take 1 ms."""

POLL_S = 0.01
"""How often the file is looked at for commits of other processes while somebody watches: some 5 microseconds a look."""

IDLE_LOOK_S = 1.0
"""How often the thread that looks sees whether it is to end, while nobody watches: closing may cross the last watch's firing."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS nodes (
    path TEXT PRIMARY KEY, parent TEXT NOT NULL, name TEXT NOT NULL, data BLOB NOT NULL, version INTEGER NOT NULL,
    created_ms INTEGER NOT NULL, modified_ms INTEGER NOT NULL, owner INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS nodes_by_parent ON nodes (parent, name);
CREATE INDEX IF NOT EXISTS nodes_by_owner ON nodes (owner) WHERE owner != 0;
CREATE TABLE IF NOT EXISTS sessions (
    id INTEGER PRIMARY KEY AUTOINCREMENT, boot TEXT NOT NULL, expires_s REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS deletions (number INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT NOT NULL UNIQUE);
"""

DELETIONS_KEPT = 10_000
"""How many deletions are remembered, for watches to tell a node that came and went, or was made anew, from one untouched."""

MARK = """
SELECT (SELECT version FROM nodes WHERE path = :path), (SELECT created_ms FROM nodes WHERE path = :path),
    (SELECT number FROM deletions WHERE path = :path)
"""

STAT = "version, created_ms, modified_ms, owner, (SELECT count(*) FROM nodes AS child WHERE child.parent = nodes.path)"


log = logging.getLogger(__name__)


def boottime() -> float:
    """Seconds since the machine was started, the same for all its processes, going on while it sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SqliteCoordination:
    """A coordination tree in a file, for any number of processes and threads of one machine.

    Keeps the port's promises with these limits: the file must not be on a network file system; a commit is durable when the file
    system's own sync is; watches of other processes' commits fire within some 10 ms; sessions are told by a thread of
    this process, so one that is stopped for longer than the timeout loses its session.

    Raises InvalidDocument when the file is something else than a coordination tree, CoordinationUnavailable when it cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        *,
        session_timeout_s: float = 10.0,
        call_timeout_s: float = 10.0,
        clock: Callable[[], float] = boottime,
    ) -> None:
        self.transactions = 0
        """Commits that were tried, for whoever counts them."""
        self._path = path
        self._clock = clock
        self._lock = RLock()
        self._reading_lock = RLock()
        self._wait_s = call_timeout_s / 2
        """Half of a call's time is for waiting for other threads, half for other processes."""
        self._is_closed = Event()
        self._boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        self._database = self._open()
        # Reads go on while a transaction of ours waits for those of other processes.
        self._reader = self._connect()
        self._watches = _Watches()
        self._session = _SqliteSession(session_timeout_s, clock)
        with self._transaction():
            self._reap()
            self._begin_session()
        self._renewer = Thread(target=self._renew, name="coordination session", daemon=True)
        self._poller = Thread(target=self._poll, name="coordination watches", daemon=True)
        self._teller = Thread(target=self._tell_of_doubt, name="coordination doubt", daemon=True)
        for thread in (self._renewer, self._poller, self._teller):
            thread.start()

    @property
    def session(self) -> Session:
        return self._session

    def read(self, path: str) -> Node | None:
        row = self._one(f"SELECT data, {STAT} FROM nodes WHERE path = ?", path)
        return Node(row[0], Stat(*row[1:])) if row else None

    def children(self, path: str) -> Sequence[str]:
        check_path(path)
        with self._reading() as database:
            return tuple(name for (name,) in database.execute("SELECT name FROM nodes WHERE parent = ?", (path,)))

    def exists(self, path: str) -> Stat | None:
        row = self._one(f"SELECT {STAT} FROM nodes WHERE path = ?", path)
        return Stat(*row) if row else None

    def watch(self, path: str, changed: Event) -> Stat | None:
        check_path(path)
        # The mark first: what changes between the two is seen by the caller, and told once more.
        self._watches.add(path, changed, self._mark(path))
        return self.exists(path)

    def sync(self) -> None:
        """Nothing to wait for: every read of the file sees all that was committed before it."""
        with self._reading() as database:
            database.execute("SELECT 1 FROM sessions LIMIT 1")

    def commit(self, *operations: Operation) -> CommitResult:
        check_operations(operations)
        touched: set[str] = set()
        self.transactions += 1
        try:
            with self._transaction() as database:
                self._require_session()
                for index, operation in enumerate(operations):
                    reason = self._apply(database, operation, touched)
                    if reason is not None:
                        raise _RefusedError(index, reason)
        except _RefusedError as refusal:
            return Refused(refusal.index, refusal.reason)
        except _CommitError as error:
            return Unknown(str(error))
        self._watches.fire(touched)
        return Committed()

    def close(self) -> None:
        self._is_closed.set()
        self._watches.armed.set()
        for thread in (self._renewer, self._poller, self._teller):
            thread.join()
        with self._lock:
            if self._session.is_closed:
                return
            try:
                with self._transaction() as database:
                    self._end_sessions(database, [self._session.id])
            finally:
                self._session.close()
                with self._reading_lock:
                    self._reader.close()
                self._database.close()

    # Operations

    def _apply(self, database: sqlite3.Connection, operation: Operation, touched: set[str]) -> Reason | None:
        """Do one operation within the transaction; why it cannot be done, or None."""
        path = operation.path
        row = database.execute("SELECT version FROM nodes WHERE path = ?", (path,)).fetchone()
        if isinstance(operation, Create):
            return self._create(database, operation, touched) if row is None else Reason.EXISTS
        if row is None:
            return Reason.MISSING
        if operation.version not in (-1, row[0]):
            return Reason.VERSION
        if isinstance(operation, Write):
            database.execute(
                "UPDATE nodes SET data = ?, version = version + 1, modified_ms = ? WHERE path = ?",
                (operation.data, _now_ms(), path),
            )
            touched.add(path)
        elif isinstance(operation, Delete):
            if database.execute("SELECT 1 FROM nodes WHERE parent = ? LIMIT 1", (path,)).fetchone():
                return Reason.NOT_EMPTY
            database.execute("DELETE FROM nodes WHERE path = ?", (path,))
            database.execute("REPLACE INTO deletions (path) VALUES (?)", (path,))
            touched.add(path)
        return None

    def _create(self, database: sqlite3.Connection, create: Create, touched: set[str]) -> Reason | None:
        parent, _, name = create.path.rpartition("/")
        if parent:
            row = database.execute("SELECT owner FROM nodes WHERE path = ?", (parent,)).fetchone()
            if row is None or row[0]:
                return Reason.MISSING
        now_ms = _now_ms()
        owner = self._session.id if create.ephemeral else 0
        database.execute(
            "INSERT INTO nodes VALUES (?, ?, ?, ?, 0, ?, ?, ?)",
            (create.path, parent, name, create.data, now_ms, now_ms, owner),
        )
        touched.add(create.path)
        return None

    # Sessions

    def _begin_session(self) -> None:
        """Open a session, within a transaction."""
        cursor = self._database.execute(
            "INSERT INTO sessions (boot, expires_s) VALUES (?, ?)",
            (self._boot, self._clock() + self._session.timeout_s),
        )
        self._session.begin(int(cursor.lastrowid or 0))

    def _require_session(self) -> None:
        """Let a process whose session was ended commit nothing more under it; it goes on with a new one."""
        known = self._database.execute("SELECT 1 FROM sessions WHERE id = ?", (self._session.id,)).fetchone()
        if known is None:
            raise _SessionLostError

    def _renew(self) -> None:
        while not self._is_closed.wait(self._session.timeout_s / 4):
            try:
                with self._transaction() as database:
                    expires_s = self._clock() + self._session.timeout_s
                    renewed = database.execute(
                        "UPDATE sessions SET expires_s = ? WHERE id = ?", (expires_s, self._session.id)
                    )
                    if renewed.rowcount == 0:
                        self._session.lose()
                        self._begin_session()
                    else:
                        self._session.renewed()
                    self._reap()
            except CoordinationUnavailable as error:
                log.info("session not renewed: %s", error)

    def _tell_of_doubt(self) -> None:
        """Doubt comes with time alone, and may come while the renewer waits for the file."""
        while not self._is_closed.wait(self._session.timeout_s / 12):
            self._session.look()

    def _reap(self) -> None:
        """End the sessions that have expired, and those of before the machine was started, within a transaction."""
        now_s = self._clock()
        expired = self._database.execute(
            "SELECT id FROM sessions WHERE expires_s < ? OR boot != ?", (now_s, self._boot)
        ).fetchall()
        self._end_sessions(self._database, [session for (session,) in expired])
        self._database.execute(
            "DELETE FROM deletions WHERE number <= (SELECT max(number) FROM deletions) - ?", (DELETIONS_KEPT,)
        )

    def _end_sessions(self, database: sqlite3.Connection, sessions: Sequence[int]) -> None:
        for session in sessions:
            paths = database.execute("SELECT path FROM nodes WHERE owner = ?", (session,)).fetchall()
            database.execute("REPLACE INTO deletions (path) SELECT path FROM nodes WHERE owner = ?", (session,))
            database.execute("DELETE FROM nodes WHERE owner = ?", (session,))
            database.execute("DELETE FROM sessions WHERE id = ?", (session,))
            self._watches.fire({path for (path,) in paths})

    # Watches

    def _poll(self) -> None:
        """Fire the watches of nodes that other processes have changed."""
        seen = -1
        while not self._is_closed.is_set():
            if not self._watches.armed.wait(IDLE_LOOK_S):
                continue
            try:
                with self._reading() as database:
                    (version,) = database.execute("PRAGMA data_version").fetchone()
                    if version != seen:
                        seen = version
                        self._watches.fire_changed(self._mark)
            except CoordinationUnavailable:
                seen = -1
            self._is_closed.wait(POLL_S)

    def _mark(self, path: str) -> _Mark:
        with self._reading() as database:
            mark: _Mark = database.execute(MARK, {"path": path}).fetchone()
            return mark

    # The file

    def _open(self) -> sqlite3.Connection:
        try:
            database = self._connect()
            # In this order: whoever makes the tree meanwhile commits its tables and its id at once.
            (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            (application,) = database.execute("PRAGMA application_id").fetchone()
            if application != APPLICATION_ID and tables:
                raise InvalidDocument(f"{self._path} is not a coordination tree of DistCI")
            self._when_free(database, "PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            if application != APPLICATION_ID:
                database.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA application_id = {APPLICATION_ID}; COMMIT;")
            database.execute("PRAGMA busy_timeout = 0")
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise CoordinationUnavailable(f"{self._path}: {error}") from error
            raise InvalidDocument(f"{self._path} is not a coordination tree of DistCI: {error}") from error
        return database

    def _one(self, query: str, path: str) -> tuple[Any, ...] | None:
        check_path(path)
        with self._reading() as database:
            row: tuple[Any, ...] | None = database.execute(query, (path,)).fetchone()
            return row

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(
            self._path, timeout=self._wait_s, isolation_level=None, check_same_thread=False, cached_statements=64
        )

    @contextmanager
    def _turn(self, lock: RLock) -> Iterator[None]:
        """A connection to ourselves, if other threads leave it in time."""
        if not lock.acquire(timeout=self._wait_s):
            raise CoordinationUnavailable(f"{self._path}: other threads are still waiting for the file")
        try:
            self._require_open()
            yield
        finally:
            lock.release()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._turn(self._reading_lock):
            try:
                yield self._reader
            except sqlite3.Error as error:
                raise CoordinationUnavailable(f"{self._path}: {error}") from error

    def _when_free(self, database: sqlite3.Connection, statement: str) -> None:
        """Execute what needs the file for itself, when the other processes leave room for it.

        SQLite's own waiting sleeps the longer the longer it has waited (up to 100 ms), so that among many processes those who came last
        go first, and some never; and a change of the journal's mode does not wait at all. Pauses of random length give everybody
        the same chance.
        """
        deadline = time.monotonic() + self._wait_s
        while True:
            try:
                database.execute(statement)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                    raise
            else:
                return
            time.sleep(random.uniform(0, BUSY_PAUSE_S))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; _CommitError when the commit itself failed, so that it is not known which."""
        with self._turn(self._lock):
            try:
                self._when_free(self._database, "BEGIN IMMEDIATE")
                try:
                    yield self._database
                except BaseException:
                    self._database.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise CoordinationUnavailable(f"{self._path}: {error}") from error
            except _SessionLostError as error:
                self._session.lose()
                with self._transaction():
                    self._begin_session()
                raise CoordinationUnavailable(f"{self._path}: our session was ended; a new one has begun") from error
            try:
                self._database.execute("COMMIT")
            except sqlite3.Error as error:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise _CommitError(f"{self._path}: {error}") from error

    def _require_open(self) -> None:
        if self._session.is_closed:
            raise CoordinationUnavailable(f"{self._path}: closed")


class _SqliteSession:
    """The session as this process may believe in it."""

    def __init__(self, timeout_s: float, clock: Callable[[], float]) -> None:
        self._timeout_s = timeout_s
        self._clock = clock
        self._id = 0
        self._renewed_s = clock()
        self._is_lost = True
        self.is_closed = False
        self._told = SessionState.LOST
        self._lock = Lock()
        self._listeners: list[Event] = []

    @property
    def id(self) -> int:
        return self._id

    @property
    def timeout_s(self) -> float:
        return self._timeout_s

    @property
    def state(self) -> SessionState:
        if self._is_lost or self.is_closed:
            return SessionState.LOST
        if self._clock() - self._renewed_s > self._timeout_s / 4 + self._timeout_s / 3:
            return SessionState.DOUBT
        return SessionState.CONNECTED

    def notify(self, changed: Event) -> None:
        self._listeners.append(changed)

    def begin(self, session: int) -> None:
        self._id = session
        self._is_lost = False
        self._renewed_s = self._clock()
        self._tell()

    def renewed(self) -> None:
        self._renewed_s = self._clock()
        self.look()

    def look(self) -> None:
        """Tell of a state that came with time."""
        with self._lock:
            is_news = self.state is not self._told
        if is_news:
            self._tell()

    def lose(self) -> None:
        self._is_lost = True
        self._tell()

    def close(self) -> None:
        self.is_closed = True
        self._tell()

    def _tell(self) -> None:
        with self._lock:
            self._told = self.state
        for listener in self._listeners:
            listener.set()


class _Watches:
    """Who wants to know of a change of which node, and what that node was like when they asked."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._events: dict[str, tuple[_Mark, set[Event]]] = {}
        self.armed = Event()
        """Set while there is anything to watch for."""

    def add(self, path: str, changed: Event, mark: _Mark) -> None:
        with self._lock:
            _, events = self._events.setdefault(path, (mark, set()))
            events.add(changed)
            self.armed.set()

    def fire(self, paths: set[str]) -> None:
        with self._lock:
            for path in paths & self._events.keys():
                self._fire(path)

    def fire_changed(self, mark_of: Callable[[str], _Mark]) -> None:
        """Fire for every node that is not as it was when it was first watched."""
        with self._lock:
            watched = {path: mark for path, (mark, _) in self._events.items()}
        changed = {path for path, mark in watched.items() if mark_of(path) != mark}
        self.fire(changed)

    def _fire(self, path: str) -> None:
        _, events = self._events.pop(path)
        for event in events:
            event.set()
        if not self._events:
            self.armed.clear()


_Mark = tuple[int | None, int | None, int | None]
"""What tells one state of a path from another: its node's version and time of creation, and its last deletion."""


def _now_ms() -> int:
    return int(time.time() * 1000)


class _RefusedError(Exception):
    def __init__(self, index: int, reason: Reason) -> None:
        super().__init__(index, reason)
        self.index = index
        self.reason = reason


class _CommitError(CoordinationUnavailable):
    """The file system failed in the middle of a commit."""


class _SessionLostError(Exception):
    """Others have ended our session."""
