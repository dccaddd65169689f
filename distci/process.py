"""A worker process: the kinds that it serves, each with slots of its own, from its start until it has been drained.

Kinds are found by the entry-point group ``distci.workers``. Who gives them their work is said by :mod:`distci.brokers`.
"""

from __future__ import annotations

import fcntl
import logging
import os
import platform
import re
import struct
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any, Self

from distci.brokers.port import Broker, Chore, Member
from distci.documents.schema import NO_TASKS
from distci.errors import AlreadyExists, DistCIError, Invalid, Unavailable
from distci.holding import Holder
from distci.isolation.port import Isolation
from distci.memory import folder_in, make, name_for
from distci.model import check_project, is_isolation_label, isolation_label
from distci.protocol.records import Offer
from distci.secrets import check_value
from distci.settings import SECRET_FOLDER
from distci.work import DIAGNOSE_AFTER_S, Cache, Site, tidy_up
from distci.worker_loop import Tasks, serve

GROUP = "distci.workers"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LABEL = re.compile(r"(?=.{1,128}\Z)[^\s=,~]+(=[^\s,~]*)?")
"""What tasks can ask for, as the schema of jobs has it."""
BEAT_S = 1.0
"""How often a process notes that it is well."""
CHORE_PAUSE_S = 1.0
"""How long a chore that came to nothing is left, and how long one is waited for in the end."""

GET_FLAGS, SET_FLAGS, UNRELATED = 0x80086601, 0x40086602, 0x00020000
"""FS_IOC_GETFLAGS, FS_IOC_SETFLAGS and FS_TOPDIR_FL of linux/fs.h, as nearly all 64-bit machines have them."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Post:
    """Some kinds served under one name, sharing their slots."""

    kinds: Sequence[str]
    slots: int = 1


class WorkerProcess:
    """Serves tickets in threads of this process; a context manager.

    Leaving it drains: nothing new is claimed, and what is held goes on to its end.
    """

    def __init__(
        self,
        broker: Broker[Any],
        isolation: Isolation,
        scratch: Path,
        posts: Sequence[Post],
        *,
        search_path: str,
        name: str = "",
        labels: Sequence[str] = (),
        only: Sequence[str] = (),
        secrets: Mapping[str, Mapping[str, str]] | None = None,
        memory: Path = Path(SECRET_FOLDER),
        cache: Cache | None = None,
        diagnose_after_s: float = DIAGNOSE_AFTER_S,
        hold_max_s: float | None = 0.0,
    ) -> None:
        """``name`` begins the names of the process's workers; by default the host and some letters that tell processes apart.
        ``secrets`` are this machine's own, by project and name; ``memory`` is the folder below which tasks get secrets as files.
        ``hold_max_s`` is how long failed tasks that ask for it are held, at most; None under `distci run`, which ends with its build.

        Raises Invalid for a name that no worker can have, a label that no task can ask for, a secret that cannot be masked,
        and a kind that is not installed, or that the broker has no work for.
        """
        if name and not NAME.fullmatch(name):
            raise Invalid(
                f"worker name {name!r} must be a letter or digit, then up to 63 letters, digits, '.', '_', '-'"
            )
        for label in (*labels, *only):
            if not LABEL.fullmatch(label):
                raise Invalid(f"label {label!r} must be a word or key=value, without spaces, commas and '~'")
            if is_isolation_label(label):
                raise Invalid(
                    f"label {label!r} is not for anybody to say: workers offer what their setting isolation allows"
                )
        for project, own in (secrets or {}).items():
            check_project(project)
            for secret, value in own.items():
                check_value(secret, value)
        offered = tuple(map(isolation_label, isolation.types))
        self._kinds = {kind: load_kind(kind) for post in posts for kind in post.kinds}
        for kind, worker in self._kinds.items():
            if hasattr(worker, "serve") and not broker.has_tree:
                raise Invalid(
                    f"{kind} works on the back ends themselves, not through a front end; serve it where these are named"
                )
        self._broker = broker
        self._hold_max_s = hold_max_s
        self._isolation = isolation
        self._name = name or f"{re.sub('[^A-Za-z0-9.-]', '-', platform.node())}-{uuid.uuid4().hex[:8]}"
        self._scratch = Scratch(scratch, self._name)
        self._memory = Memory(folder_in(memory), name_for(self._name, scratch))
        self._site = Site(
            isolation, self._scratch.folder, search_path, secrets or {}, self._memory.folder, cache, diagnose_after_s
        )
        self._members = [
            broker.member(
                Offer(tuple(post.kinds), (*labels, *(() if NO_TASKS.issuperset(post.kinds) else offered)), tuple(only)),
                self._name_of(post, posts),
                post.slots,
            )
            for post in posts
        ]
        self._servers = [Thread(target=self._serve, args=(member,), name=member.name) for member in self._members]
        self._closing = Event()
        self._chores = {
            chore: Thread(target=self._repeat, args=(chore,), name=chore.name, daemon=True)
            for chore in broker.chores(self._members)
        }
        self._pulse = Thread(target=self._beat, name="pulse", daemon=True)

    @property
    def names(self) -> Sequence[str]:
        """The names of the process's workers."""
        return [member.name for member in self._members]

    def start(self) -> None:
        """Remove what dead workers left on this machine, join, and begin to serve."""
        removed = self._isolation.sweep() + self._scratch.open() + self._memory.sweep()
        if removed:
            log.info("removed %d leftovers of workers that were killed", removed)
        for member in self._members:
            member.join()
        for server in self._servers:
            server.start()
        self._pulse.start()
        for thread in self._chores.values():
            thread.start()

    def drain(self) -> None:
        """Claim nothing more. From any thread or signal handler."""
        for member in self._members:
            member.drain()

    @property
    def is_draining(self) -> bool:
        """Whether its workers know that they shall take nothing more."""
        return all(member.is_draining for member in self._members)

    @property
    def refused(self) -> DistCIError | None:
        """Why its workers drained themselves: they do not speak the format of the tree (any more), or a front end refuses them."""
        return next((member.refused for member in self._members if member.refused), None)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until all workers are drained and have ended what they held; False when the time ran out first."""
        for server in self._servers:
            server.join(timeout_s)
        return not any(server.is_alive() for server in self._servers)

    def close(self) -> None:
        """Drain, wait for what is held, leave."""
        self.drain()
        self.wait()
        self._closing.set()
        if self._pulse.is_alive():
            self._pulse.join()
        for chore, thread in self._chores.items():
            if thread.is_alive():
                # With the store away it may take very long.
                thread.join(CHORE_PAUSE_S if chore.may_be_left else None)
        for member in self._members:
            member.leave()
        self._memory.close()
        self._scratch.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _name_of(self, post: Post, posts: Sequence[Post]) -> str:
        """Short, since people read it everywhere: a kind, and nothing for the one post that has many."""
        if len(post.kinds) > 1 and sum(len(other.kinds) > 1 for other in posts) == 1:
            return self._name
        return f"{self._name}-{'+'.join(post.kinds)}"

    def _serve(self, member: Member[Any]) -> None:
        servers = {kind: self._server_of(self._kinds[kind], member) for kind in member.offer.kinds}
        serve(member, lambda claim: servers[claim.ticket.kind](claim))

    def _server_of(self, kind: type[Any], member: Member[Any]) -> Any:
        worker = kind()
        if hasattr(worker, "serve"):
            return lambda claim: self._broker.serve_ticket(worker, claim)
        holder = Holder(self._hold_max_s, lambda: member.is_draining)
        return Tasks(worker, self._site, self._broker, holder).serve

    def _beat(self) -> None:
        while not self._closing.wait(BEAT_S):
            if self._broker.is_connected:
                # Where it cannot be noted any more, nobody should believe that all is well.
                with suppress(OSError):
                    self._scratch.beat()

    def _repeat(self, chore: Chore) -> None:
        wait_s, is_away = chore.pause_s, False
        while not self._closing.wait(wait_s):
            wait_s = chore.pause_s
            try:
                chore.step()
                is_away = False
            except Unavailable as error:
                if not is_away:
                    log.info("cannot %s yet: %s", chore.name, error)
                is_away = True
            except Exception:
                # One node that cannot be swept must not keep all others from it.
                log.exception("a %s came to nothing", chore.name)
                wait_s = CHORE_PAUSE_S


class Scratch:
    """A folder for a process's attempts, told apart from those of dead processes by a lock that dies with its holder.

    The file of the lock is as old as the last moment when its process was well.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.folder = root / name
        self._root = root
        self._stack = ExitStack()

    def open(self) -> int:
        """Make the folder ours, and remove those whose process is gone; how many these were.

        AlreadyExists when a live process has the folder.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(self._root):
            removed = sum(self._remove_if_dead(other) for other in self._root.iterdir() if other.is_dir())
            self.folder.mkdir(exist_ok=True)
            _spread(self.folder)
            lock = self._stack.enter_context((self.folder / "lock").open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyExists(
                    f"a worker process named {self.folder.name!r} runs on this machine already"
                ) from None
        return removed

    def beat(self) -> None:
        """Note that the process is well."""
        os.utime(self.folder / "lock")

    def close(self) -> None:
        """Remove the folder while it still is ours: the next process of this name may be about to begin."""
        with _one_at_a_time(self._root), self._stack:
            tidy_up(self.folder)

    def _remove_if_dead(self, folder: Path) -> bool:
        return not _is_live(folder) and tidy_up(folder)


class Memory:
    """A folder in memory for the secrets that a process's attempts get as files; there once one does. Any thread may use it."""

    def __init__(self, root: Path, name: str) -> None:
        self._root = root
        self._name = name
        self._lock = Lock()
        self._scratch: Scratch | None = None

    def sweep(self) -> int:
        """Remove what dead processes have left, if any was here before; how many these were."""
        return self._open()[1] if self._root.exists() else 0

    def folder(self) -> Path:
        """The folder. Invalid where nothing that is secret can be put."""
        return self._open()[0].folder

    def close(self) -> None:
        if self._scratch is not None:
            with suppress(FileNotFoundError):
                self._scratch.close()

    def _open(self) -> tuple[Scratch, int]:
        with self._lock:
            # What is in memory is removed when its user logs out, by systemd for one.
            if self._scratch is not None and self._scratch.folder.exists():
                return self._scratch, 0
            make(self._root)
            scratch = Scratch(self._root, self._name)
            removed = scratch.open()
            self._scratch = scratch
            return scratch, removed


def beats(root: Path) -> dict[str, float]:
    """When each live process that has its folder there was last well, in seconds since 1970, by its name.

    A process is well while its session with the tree is beyond doubt.
    """
    try:
        with _one_at_a_time(root):
            live = [folder for folder in root.iterdir() if folder.is_dir() and _is_live(folder)]
            return {folder.name: (folder / "lock").stat().st_mtime for folder in live}
    except FileNotFoundError:
        return {}


def _spread(folder: Path) -> None:
    """Have the file system keep the folders in a folder far from each other, as ``chattr +T`` does; where it cannot, nothing happens.

    For minutes ext4 gives no inode away again whose file was removed, and for each new file it looks through all of these next to it: to make
    10,000 files where an attempt has just removed as many takes its processor 4 s instead of 0.3 s.
    """
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            [flags] = struct.unpack("i", fcntl.ioctl(descriptor, GET_FLAGS, struct.pack("i", 0)))
            fcntl.ioctl(descriptor, SET_FLAGS, struct.pack("i", flags | UNRELATED))
        finally:
            os.close(descriptor)


@contextmanager
def _one_at_a_time(root: Path) -> Iterator[None]:
    # No worker can have a name that begins so.
    with open(root / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_live(folder: Path) -> bool:
    """Whether the process of a folder lives. One at a time, since it takes that process's lock for a moment."""
    try:
        with open(folder / "lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def installed_kinds() -> list[str]:
    """The names of all kinds that are installed."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def load_kind(kind: str) -> type[Any]:
    """The class that serves a kind; Invalid when none is installed."""
    found = {point.name: point for point in entry_points(group=GROUP)}
    if kind not in found:
        raise Invalid(f"no worker of kind {kind!r} is installed; there are: {', '.join(sorted(found))}")
    loaded: type[Any] = found[kind].load()
    return loaded
