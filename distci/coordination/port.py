"""The coordination port: what :mod:`distci.protocol` may rely on, whichever adapter carries it.

Promises that hold for every adapter:

* Any thread may call any method at any time; calls of one thread take effect in order.
* Reads see all that this object has committed before. They may be older than what another process has
  committed; :meth:`Coordination.sync` closes that gap.
* Every call ends within the adapter's time limit (``call_timeout_s``): reads by raising
  :class:`distci.errors.CoordinationUnavailable`, :meth:`Coordination.commit` by returning :class:`Unknown`.
* Absent and unreachable are never confused: ``None`` and ``()`` mean that the tree was read.
* Where a tree knows who may do what, :class:`distci.errors.Forbidden` says that we may not.

Paths are absolute within the root that the adapter was opened on, ``/``-separated, without a trailing
slash; :class:`distci.errors.Invalid` is raised for any other. A node's parent must exist before it; ephemeral nodes
have no children.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from threading import Event
from typing import Protocol

from distci.errors import Invalid

NODE_BYTES_MAX = 16 * 1024
"""Most bytes that one node may hold. ZooKeeper cuts the connection at 1 MiB a request; we stay far below,
since a transaction carries several nodes and every reader of a node pays for its size."""

TRANSACTION_BYTES_MAX = 1_000_000
"""Most bytes that one transaction may carry, with ``OPERATION_BYTES`` for each operation besides its path and data."""

OPERATION_BYTES = 256
"""More than an operation's header, access list and the root of the tree take on the wire."""

_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[^/\x00-\x1f\x7f-\x9f\ud800-\uf8ff\ufff0-\U0010ffff]+)+")
"""Names without the characters that ZooKeeper does not take: control characters, and what UTF-16 writes as surrogates."""


@dataclass(frozen=True, slots=True)
class Stat:
    """What is known of a node besides its bytes. Times are the tree's own, in milliseconds since 1970."""

    version: int
    created_ms: int
    modified_ms: int
    owner: int
    """Id of the session that an ephemeral node lives and dies with; 0 for a persistent node."""
    children: int


@dataclass(frozen=True, slots=True)
class Node:
    """One node as it was read."""

    data: bytes
    stat: Stat

    @property
    def version(self) -> int:
        return self.stat.version


@dataclass(frozen=True, slots=True)
class Create:
    """Create a node. Refused when it exists or its parent does not."""

    path: str
    data: bytes = b""
    ephemeral: bool = False


@dataclass(frozen=True, slots=True)
class Write:
    """Replace a node's bytes. ``version`` -1 takes any version."""

    path: str
    data: bytes
    version: int = -1


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a node that has no children. ``version`` -1 takes any version."""

    path: str
    version: int = -1


@dataclass(frozen=True, slots=True)
class Check:
    """Hold the transaction to a node that exists (``version`` -1) or has just this version."""

    path: str
    version: int = -1


Operation = Create | Write | Delete | Check


def check_path(path: str) -> None:
    """For adapters: refuse a path that names no node (:class:`~distci.errors.Invalid`)."""
    if not _PATH.fullmatch(path):
        raise Invalid(f"{path!r} is not the path of a node")


def check_operations(operations: Sequence[Operation]) -> None:
    """For adapters: refuse what no tree may hold before anything is sent (:class:`~distci.errors.Invalid`)."""
    carried = 0
    for operation in operations:
        check_path(operation.path)
        data = operation.data if isinstance(operation, Create | Write) else b""
        if len(data) > NODE_BYTES_MAX:
            raise Invalid(f"{operation.path}: {len(data)} bytes are too many for a node; at most {NODE_BYTES_MAX} fit")
        carried += OPERATION_BYTES + len(operation.path.encode()) + len(data)
    if carried > TRANSACTION_BYTES_MAX:
        raise Invalid(f"{carried} bytes are too many for a transaction; at most {TRANSACTION_BYTES_MAX} fit")


class Reason(StrEnum):
    """Why an operation was refused."""

    EXISTS = "exists"
    MISSING = "missing"
    """The node is not there; for a Create: its parent is not."""
    VERSION = "version"
    NOT_EMPTY = "not empty"


@dataclass(frozen=True, slots=True)
class Committed:
    """All operations took effect, at once."""


@dataclass(frozen=True, slots=True)
class Refused:
    """No operation took effect, because the one at ``index`` could not."""

    index: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Unknown:
    """The answer was lost: all operations took effect, or none. Read after ``sync`` to find out; never repeat blindly."""

    cause: str = field(default="", compare=False)


CommitResult = Committed | Refused | Unknown


class SessionState(StrEnum):
    """What this process may believe of its session."""

    CONNECTED = "connected"
    DOUBT = "doubt"
    """Cut off for a third of the session timeout by our own clock: claim nothing new, keep working."""
    LOST = "lost"
    """The session has ended and its ephemeral nodes are gone, or this object was closed."""


class Session(Protocol):
    """The lease that ephemeral nodes live on. When one is lost, the adapter opens another by itself."""

    @property
    def id(self) -> int:
        """Id of the session in force; what ``Stat.owner`` shows for ephemeral nodes made now."""

    @property
    def state(self) -> SessionState: ...

    @property
    def timeout_s(self) -> float:
        """Seconds after which a silent session is ended, as granted."""

    def notify(self, changed: Event) -> None:
        """Have ``changed`` set whenever state or id changes, until this object is closed."""


class Coordination(Protocol):
    """The tree. See the module for what holds for all methods."""

    @property
    def session(self) -> Session: ...

    def read(self, path: str) -> Node | None:
        """The node, or None where there is none."""

    def children(self, path: str) -> Sequence[str]:
        """Names below a node, in no order; empty where there is no such node."""

    def exists(self, path: str) -> Stat | None:
        """The node's stat without its bytes, or None where there is none."""

    def commit(self, *operations: Operation) -> CommitResult:
        """Do all of the operations or none of them, in order.

        Creating and deleting one path in a transaction is legal: it proves that nothing was there.
        Raises :class:`distci.errors.CoordinationUnavailable` only when it is certain that nothing took effect.
        """

    def watch(self, path: str, changed: Event) -> Stat | None:
        """Like ``exists``, and have ``changed`` set once at the node's next creation, change or deletion.

        A hint to look again, nothing more: it may be set early or for no reason (a reconnect sets all).
        One call arms one hint; a watch that nobody waits for any more costs little and needs no undoing.
        """

    def sync(self) -> None:
        """Let later reads of this object see all that any process had committed before the call."""

    def close(self) -> None:
        """End the session, so that its ephemeral nodes go at once. Later calls raise."""


def leaves_first(coordination: Coordination, path: str) -> Iterator[str]:
    """The paths of all nodes below one, each after those below it, and last its own, whether or not it is there."""
    for name in coordination.children(path):
        yield from leaves_first(coordination, f"{path}/{name}")
    yield path
