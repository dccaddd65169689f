"""The coordination tree in Apache ZooKeeper, through kazoo and none of its recipes.

What kazoo does by default would hurt us, and why it is set otherwise here: its back-off between attempts to connect grows to an hour; its calls
wait without limit; its ``retry`` repeats what may have happened; and it never says that a session is lost while it cannot
connect, so doubt is told by our own clock.

Two locks may guard a tree, each by itself or both: TLS with certificates on both sides says who may connect, and an account, whose access list
all nodes are made with, says who may read and write them.
"""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from threading import Event, Lock, Timer
from typing import Any

from kazoo import exceptions as kazoo_errors
from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import ConnectionDropped
from kazoo.handlers.threading import KazooTimeoutError, SequentialThreadingHandler
from kazoo.protocol.connection import ConnectionHandler
from kazoo.protocol.serialization import Connect
from kazoo.protocol.states import WatchedEvent, ZnodeStat
from kazoo.retry import KazooRetry
from kazoo.security import make_digest_acl

from distci.coordination.port import (
    Check,
    CommitResult,
    Committed,
    Create,
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
from distci.errors import CoordinationUnavailable, Forbidden, Invalid, NotAuthenticated

RECONNECT_S_MAX = 1.0
"""Longest pause between attempts to connect."""

SERVERS_MIN = 3
"""kazoo waits for the answer of a server that has accepted it for the session timeout over the number of servers. With fewer
than this they are listed again, or the session would be over before the next attempt; one that is just being started does that.
"""

REASONS: dict[type[Exception], Reason] = {
    kazoo_errors.NodeExistsError: Reason.EXISTS,
    kazoo_errors.NoNodeError: Reason.MISSING,
    kazoo_errors.BadVersionError: Reason.VERSION,
    kazoo_errors.NotEmptyError: Reason.NOT_EMPTY,
    # A node below an ephemeral one: its parent cannot be.
    kazoo_errors.NoChildrenForEphemeralsError: Reason.MISSING,
}

LOST = (
    kazoo_errors.ConnectionLoss,
    kazoo_errors.ConnectionClosedError,
    kazoo_errors.SessionExpiredError,
    kazoo_errors.OperationTimeoutError,
    kazoo_errors.RequestTimeoutError,
    kazoo_errors.CancelledError,
    KazooTimeoutError,
)
"""After these it is not known whether a request took effect."""

DENIED = (kazoo_errors.NoAuthError, kazoo_errors.AuthFailedError, kazoo_errors.InvalidACLError)
WRONG = (kazoo_errors.BadArgumentsError, kazoo_errors.InvalidCallbackError, kazoo_errors.MarshallingError)

INNOCENT = (kazoo_errors.RolledBackError, kazoo_errors.RuntimeInconsistency)
"""What stands in the answer to a transaction for operations that were not the one refused."""

CHANGES = {
    KazooState.CONNECTED: (logging.INFO, "connected to ZooKeeper"),
    KazooState.SUSPENDED: (logging.WARNING, "cut off from ZooKeeper; trying to connect again"),
    KazooState.LOST: (logging.WARNING, "the session with ZooKeeper is over"),
}
"""What is logged of each change of the connection."""

PASSING = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
"""Ends of a TLS handshake that a server brings about which is just being started or ended."""

log = logging.getLogger(__name__)
kazoo_log = log.getChild("kazoo")
"""Of each attempt to connect, several lines."""
# Where a program has set up no logs, Python would print these to stderr: what matters of them is in what is raised.
kazoo_log.addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class Account:
    """Whom all nodes belong to, by ZooKeeper's ``digest`` scheme: nobody else may read or write them."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM: who signs the servers' certificates, and the certificate and key that we show, if any."""

    authority: Path
    certificate: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Read anew for each connection, so that renewed certificates are used. OSError names the file that cannot be."""
        try:
            # This authority alone, not those that the machine trusts besides.
            context = ssl.create_default_context(cafile=self.authority)
        except OSError as error:
            raise _unreadable(error, self.authority) from error
        if self.certificate and self.key:
            try:
                # Without a password OpenSSL would ask for one at the terminal.
                context.load_cert_chain(self.certificate, self.key, password="")
            except OSError as error:
                raise _unreadable(error, self.certificate, self.key) from error
        return context


class ZooKeeperCoordination:
    """A coordination tree below a root in ZooKeeper, over one session that is renewed when it is lost.

    Raises CoordinationUnavailable when nobody answers within ``connect_timeout_s``. As soon as it is known: NotAuthenticated when
    a server and we do not accept each other's certificates, Forbidden when the account may not read the root, Invalid for files
    that are no certificates.
    """

    def __init__(
        self,
        hosts: str,
        root: str,
        *,
        session_timeout_s: float = 10.0,
        call_timeout_s: float = 10.0,
        connect_timeout_s: float = 10.0,
        account: Account | None = None,
        tls: Tls | None = None,
    ) -> None:
        """``hosts`` is ``host:port,host:port``; ``root`` is the path that everything lies below, made if it is not there."""
        self.transactions = 0
        """Commits that were tried, for whoever counts them."""
        self._root = root.rstrip("/")
        self._call_timeout_s = call_timeout_s
        self._is_closed = False
        retry = {"max_tries": -1, "delay": 0.1, "backoff": 2, "max_delay": RECONNECT_S_MAX}
        servers = hosts.split(",")
        servers *= ceil(SERVERS_MIN / len(servers))
        self._who = f"user {account.user!r}" if account else "somebody without a user"
        self._tls = tls
        self._client = KazooClient(
            ",".join(servers),
            timeout=session_timeout_s,
            connection_retry=KazooRetry(**retry),
            command_retry=KazooRetry(**retry),
            logger=kazoo_log,
            use_ssl=tls is not None,
            handler=_TlsHandler(tls, session_timeout_s / len(servers)) if tls else None,
            auth_data=[("digest", _Secret(f"{account.user}:{account.password}"))] if account else None,
            default_acl=[make_digest_acl(account.user, account.password, all=True)] if account else None,
        )
        self._watches = _Watches()
        self._session = _ZooKeeperSession(self._client, session_timeout_s)
        self._connection = self._client._connection = _Connection(self._client, self._session)
        self._client.add_listener(self._state_changed)
        try:
            self._start(hosts, connect_timeout_s)
            self._session.begin()
            self._make_root()
            # Whoever may not read the root need not go on; a wrong password is noticed only now.
            self._ask(self._client.get_children_async, self._root or "/")
        except BaseException:
            self.close()
            raise

    @property
    def session(self) -> Session:
        return self._session

    def read(self, path: str) -> Node | None:
        found = self._read(self._client.get_async, path)
        return Node(found[0], _stat(found[1])) if found else None

    def children(self, path: str) -> Sequence[str]:
        found: Sequence[str] | None = self._read(self._client.get_children_async, path)
        return found or ()

    def exists(self, path: str) -> Stat | None:
        found = self._read(self._client.exists_async, path)
        return _stat(found) if found else None

    def watch(self, path: str, changed: Event) -> Stat | None:
        check_path(path)
        # The same callback each time: kazoo keeps a set of them for a path, so watches do not pile up.
        self._watches.add(self._path(path), changed)
        found = self._read(self._client.exists_async, path, watch=self._watches.fired)
        return _stat(found) if found else None

    def sync(self) -> None:
        self._ask(self._client.sync_async, self._root or "/")

    def commit(self, *operations: Operation) -> CommitResult:
        check_operations(operations)
        self._require_open()
        if not self._client.connected:
            raise CoordinationUnavailable("not connected to ZooKeeper; nothing was sent")
        self.transactions += 1
        request = self._client.transaction()
        for operation in operations:
            self._add(request, operation)
        try:
            results = request.commit_async().get(timeout=self._call_timeout_s)
        except LOST as error:
            return Unknown(f"the answer was lost: {error!r}")
        except Exception as error:
            raise home_of(error, self._who) from error
        result = outcome_of(results, self._who)
        if isinstance(result, Refused) and result.reason is Reason.MISSING and _is_top(operations[result.index]):
            # The root itself has gone, with all of the servers' data.
            self._make_root()
            return self.commit(*operations)
        return result

    def probe(self) -> Sequence[str]:
        """What keeps the account from having the tree for itself: nodes at the top that were made for others, or for all."""
        ours = self._client.default_acl
        if not ours:
            return ()
        root = self._root or "/"
        tops = [root, *(f"{self._root}/{name}" for name in self._ask(self._client.get_children_async, root))]
        lists = {top: self._ask(self._client.get_acls_async, top)[0] for top in tops}
        return [f"{top} can be reached by others than {self._who}" for top, list_ in lists.items() if list_ != ours]

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._session.close()
            self._client.remove_listener(self._state_changed)
            try:
                self._client.stop()
                self._client.close()
            except (*LOST, kazoo_errors.KazooException) as error:
                log.info("ZooKeeper session not closed in order: %r", error)
            self._watches.fire_all()

    def _read(self, call: Callable[..., Any], path: str, **options: Any) -> Any:
        """The answer to a read, or None where there is no node."""
        check_path(path)
        return self._ask(call, self._path(path), **options)

    def _ask(self, call: Callable[..., Any], path: str, **options: Any) -> Any:
        self._require_open()
        try:
            return call(path, **options).get(timeout=self._call_timeout_s)
        except kazoo_errors.NoNodeError:
            return None
        except Exception as error:
            raise home_of(error, self._who, path) from error

    def _add(self, request: Any, operation: Operation) -> None:
        path = self._path(operation.path)
        if isinstance(operation, Create):
            request.create(path, operation.data, ephemeral=operation.ephemeral)
        elif isinstance(operation, Write):
            request.set_data(path, operation.data, operation.version)
        elif isinstance(operation, Check):
            request.check(path, operation.version)
        else:
            request.delete(path, operation.version)

    def _path(self, path: str) -> str:
        return self._root + path

    def _start(self, hosts: str, timeout_s: float) -> None:
        """Connect, or raise: as soon as a server that answered and we cannot go together, else when the time is up."""
        self._check_files()
        live = self._client.start_async()
        self._connection.decided.wait(timeout_s)
        if live.is_set():
            return
        heard = self._connection.trouble
        if refusal := self._connection.refusal:
            raise NotAuthenticated(f"ZooKeeper at {hosts}: {_why(refusal, self._tls)}") from refusal
        raise CoordinationUnavailable(
            f"no ZooKeeper answers at {hosts} within {timeout_s:g} s{f' ({heard})' if heard else ''}"
        ) from heard

    def _check_files(self) -> None:
        try:
            if self._tls:
                self._tls.context()
        except OSError as error:
            raise Invalid(error.strerror) from error

    def _make_root(self) -> None:
        path = ""
        for name in self._root.strip("/").split("/"):
            path = f"{path}/{name}"
            # Asked first: looking needs no rights, and to make what is there already may need some that we do not have.
            if not name or self._ask(self._client.exists_async, path):
                continue
            try:
                self._client.create_async(path).get(timeout=self._call_timeout_s)
            except kazoo_errors.NodeExistsError:
                continue
            except Exception as error:
                raise home_of(error, self._who, path) from error

    def _require_open(self) -> None:
        if self._is_closed:
            raise CoordinationUnavailable("this session with ZooKeeper was closed")

    def _state_changed(self, state: str) -> None:
        """Runs in kazoo's connection thread: sets flags, tells the log, and does nothing else."""
        self._session.changed(state)
        if not self._is_closed:
            log.log(*CHANGES[state])
        if state != KazooState.CONNECTED:
            # kazoo forgets all watches with the connection; whoever waits has to look again.
            self._watches.fire_all()


def _is_top(operation: Operation) -> bool:
    """Whether it creates a node right below the root."""
    return isinstance(operation, Create) and operation.path.count("/") == 1


class _ZooKeeperSession:
    """The session as this process may believe in it."""

    def __init__(self, client: KazooClient, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._id = 0
        self._lock = Lock()
        self._cut_at: float | None = None
        self._is_lost = True
        self._is_closed = False
        self._doubt: Timer | None = None
        self._listeners: list[Event] = []

    @property
    def id(self) -> int:
        # Not asked of kazoo, which forgets it whenever it is cut off, and then the session is the same as before.
        return self._id

    @property
    def timeout_s(self) -> float:
        return self._timeout_s

    @property
    def is_overdue(self) -> bool:
        """Whether no server has answered for longer than the session lasts."""
        with self._lock:
            return self._cut_at is not None and time.monotonic() - self._cut_at >= self._timeout_s

    def granted(self, timeout_s: float) -> None:
        """The server has said how long the session is, which may be other than was asked for."""
        self._timeout_s = timeout_s

    @property
    def state(self) -> SessionState:
        with self._lock:
            if self._is_closed or self._is_lost:
                return SessionState.LOST
            if self._cut_at is not None and time.monotonic() - self._cut_at >= self._timeout_s / 3:
                return SessionState.DOUBT
            return SessionState.CONNECTED

    def notify(self, changed: Event) -> None:
        self._listeners.append(changed)

    def begin(self) -> None:
        self.changed(KazooState.CONNECTED)

    def changed(self, state: str) -> None:
        with self._lock:
            if self._doubt is not None:
                self._doubt.cancel()
                self._doubt = None
            if state == KazooState.CONNECTED:
                self._cut_at, self._is_lost = None, False
                self._id = (self._client.client_id or (self._id,))[0]
            elif state == KazooState.LOST:
                self._is_lost = True
            else:
                self._cut_at = time.monotonic()
                self._doubt = Timer(self._timeout_s / 3 + 0.001, self._tell)
                self._doubt.daemon = True
                self._doubt.start()
        self._tell()

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            if self._doubt is not None:
                self._doubt.cancel()
        self._tell()

    def _tell(self) -> None:
        for listener in self._listeners:
            listener.set()


class _Secret(str):
    """A text that is not told when a record of it is logged."""

    def __repr__(self) -> str:
        return "'***'"


class _TlsHandler(SequentialThreadingHandler):  # type: ignore[misc]  # kazoo has no types
    """kazoo's threads, with TLS as we mean it: kazoo's own trusts all authorities of the machine besides."""

    def __init__(self, tls: Tls, timeout_s: float) -> None:
        super().__init__()
        self._tls = tls
        self._timeout_s = timeout_s

    def create_connection(self, address: tuple[str, int], hostname: str, **options: Any) -> ssl.SSLSocket:
        plain = socket.create_connection(address, self._timeout_s)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._tls.context().wrap_socket(plain, server_hostname=hostname)


class _Connection(ConnectionHandler):  # type: ignore[misc]
    """kazoo's connection, which tells what kazoo keeps to itself (how long the server made the session, and why there is none), and
    survives answers that do not come."""

    def __init__(self, client: KazooClient, session: _ZooKeeperSession) -> None:
        super().__init__(client, client._conn_retry.copy(), logger=kazoo_log)
        self._of = session
        self.decided = Event()
        """Set once there was a connection, or all servers were tried and one of them refused us or was refused."""
        self.refusal: Exception | None = None
        """Why a server that answered and we cannot go together, in the last round over all servers."""
        self.trouble: Exception | None = None
        """What the last attempt ended with."""

    def _connect_loop(self, retry: KazooRetry) -> Any:
        self.refusal = None
        try:
            return super()._connect_loop(retry)
        finally:
            if self.refusal:
                self.decided.set()

    def _connect(self, host: str, hostip: str, port: int) -> Any:
        try:
            times = super()._connect(host, hostip, port)
        except kazoo_errors.AuthFailedError as error:
            self.refusal = error
            raise
        except ConnectionDropped as error:
            self.trouble = error
            cause = error.__context__
            if isinstance(cause, ssl.SSLError) and not isinstance(cause, PASSING):
                self.refusal = cause
            raise
        self.decided.set()
        return times

    def _invoke(self, timeout: float, request: Any, xid: int | None = None) -> Any:
        if isinstance(request, Connect) and self._of.is_overdue:
            # Servers that lost their data refuse whoever has seen more than they have, for ever.
            request = request._replace(last_zxid_seen=0)
        answer = super()._invoke(timeout, request, xid)
        if isinstance(request, Connect) and (granted_ms := answer[0].time_out) > 0:
            self._of.granted(granted_ms / 1000)
        return answer

    def _read_response(self, header: Any, buffer: bytes, offset: int) -> Any:
        # A server may leave a request unanswered, in the middle of an election. kazoo takes the next answer for a defect and ends
        # its thread; here it is the end of this connection, and what was asked on it has lost its answer.
        pending = self.client._pending
        if not pending or pending[0][2] != header.xid:
            raise kazoo_errors.ConnectionDropped("an answer is missing")
        return super()._read_response(header, buffer, offset)


class _Watches:
    """Who wants to know of a change of which path."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._events: dict[str, set[Event]] = defaultdict(set)

    def add(self, path: str, changed: Event) -> None:
        with self._lock:
            self._events[path].add(changed)

    def fired(self, event: WatchedEvent) -> None:
        """kazoo's callback, in its own thread: sets flags and does nothing else."""
        with self._lock:
            for changed in self._events.pop(event.path, ()):
                changed.set()

    def fire_all(self) -> None:
        with self._lock:
            for events in self._events.values():
                for changed in events:
                    changed.set()
            self._events.clear()


def home_of(error: BaseException, who: str = "us", path: str = "") -> BaseException:
    """The error of ours that an error of kazoo is; others stay what they are. ``who`` asked for ``path``."""
    if isinstance(error, DENIED):
        place = f" at {path}" if path else ""
        return Forbidden(f"ZooKeeper does not let {who}{place}; another user or password may be needed: {error!r}")
    if isinstance(error, WRONG):
        return Invalid(f"ZooKeeper does not take the request: {error!r}")
    if isinstance(error, (*LOST, kazoo_errors.KazooException)):
        return CoordinationUnavailable(f"no answer from ZooKeeper: {error!r}")
    return error


def outcome_of(results: Sequence[Any], who: str = "us") -> CommitResult:
    """What the answer to a transaction says: one culprit among many innocents, if it was refused."""
    errors = [(index, error) for index, error in enumerate(results) if isinstance(error, Exception)]
    if not errors:
        return Committed()
    for index, error in errors:
        if isinstance(error, INNOCENT):
            continue
        for known, reason in REASONS.items():
            if isinstance(error, known):
                return Refused(index, reason)
        if isinstance(error, LOST):
            return Unknown(f"the answer was lost: {error!r}")
        raise home_of(error, who) from error
    raise CoordinationUnavailable(f"ZooKeeper refused a transaction without saying why: {errors[0][1]!r}")


def _stat(found: ZnodeStat) -> Stat:
    return Stat(found.version, found.ctime, found.mtime, found.ephemeralOwner or 0, found.numChildren)


def _unreadable(error: OSError, *files: Path) -> OSError:
    """The same, with the files that it is about; OpenSSL names none."""
    reason = getattr(error, "reason", None) or error.strerror
    return OSError(error.errno, f"{' and '.join(map(str, files))} cannot be used: {reason}")


def _why(refusal: Exception, tls: Tls | None) -> str:
    """Why a server and we cannot go together, for whoever can set it right."""
    if isinstance(refusal, ssl.SSLCertVerificationError):
        return f"its certificate is not to be trusted: {refusal.verify_message}"
    if isinstance(refusal, ssl.SSLError) and "ALERT" in (refusal.reason or ""):
        shown = "our certificate" if tls and tls.certificate else "somebody without a certificate"
        return f"it does not let in {shown}: {refusal.reason}"
    return f"we cannot agree on how to talk: {refusal!r}"
