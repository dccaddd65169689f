"""Work from a front end, by HTTPS, for machines that reach neither tree nor store: the calls of ``docs/gateway.rst``.

Whoever answers a call may be another front end than before: nothing depends on which, and each call may be repeated. Workspaces go back and forth
as tar files, and are kept here as snapshots in a store on the machine's own disk, as those in the system's store are.
"""

from __future__ import annotations

import logging
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from threading import Condition, Event, Thread
from time import monotonic
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar
from urllib.parse import quote

from distci import artifacts, attempts, tarballs
from distci.artifacts import Artifact, Publication, Upload
from distci.brokers.port import Chore
from distci.client.address import of_task, segment
from distci.client.download import Download
from distci.client.link import UPLOADED_S, Body, Content, Link
from distci.client.patience import Patience
from distci.console import LAST_LINE_BYTES_MAX, LOG_BYTES_MAX
from distci.errors import (
    ClaimLost,
    Conflict,
    Damaged,
    Denied,
    DistCIError,
    Forbidden,
    Invalid,
    InvalidDocument,
    NotAuthenticated,
    Unavailable,
)
from distci.holds import Drawer, unwritten, written
from distci.model import BuildId, Hold, Json, Outcome, Plan, Verdict
from distci.protocol import outcomes, paths
from distci.protocol.members import Rests
from distci.protocol.records import Offer, Ticket
from distci.published import chosen
from distci.quarantine import Quarantined
from distci.store import keys
from distci.store.attended import Checkpoint
from distci.store.port import Store
from distci.store.sources import stream_of
from distci.views import from_json, to_json
from distci.workspaces import Restored, Workspaces

WAIT_S = 20.0
"""How long a front end is to wait for a ticket before it says that there is none."""

PATIENCE_S = 10.0
"""How long a call is repeated before whoever made it is told that nobody answers; most of them then make it anew."""

REFUSED_PAUSE_S = 1.0
"""How long nothing is asked for after a ticket came to nothing before anybody was told of it."""

NAME_CHARS_MAX = 64

PAGE = 1000
REASON_CHARS_MAX = 10_000
GIVE_BACK_REASON_CHARS_MAX = 400

PIECE = "/hold/piece"

T = TypeVar("T")

log = logging.getLogger(__name__)


class Remote:
    """A broker for workers that reach front ends alone."""

    has_tree = False

    def __init__(self, link: Link, new_store: Callable[[Path], Store], elsewhere: str | None = None) -> None:
        """``new_store`` makes a store in a folder, for what an attempt keeps on this machine; ``elsewhere`` is what :func:`distci.attempts.heading` goes by."""
        self._link = link
        self._new_store = new_store
        self._elsewhere = elsewhere
        self._contact = Contact()

    @property
    def is_connected(self) -> bool:
        return self._contact.is_made

    def member(self, offer: Offer, name: str, slots: int) -> RemoteMember:
        return RemoteMember(self._link, self._contact, offer, name, slots)

    def take(self, claim: RemoteClaim) -> RemoteAssignment:
        told = outcomes.persist(lambda: claim.call("GET", "/assignment"), claim.lost)
        return RemoteAssignment(claim, told, self._new_store, self._elsewhere)

    def serve_ticket(self, worker: Any, claim: RemoteClaim) -> RemoteClaim | None:
        raise Invalid(f"{worker.kind} works on the back ends themselves, not through a front end")

    def chores(self, members: Sequence[object]) -> Sequence[Chore]:
        return ()


class Contact:
    """Whether front ends have answered lately."""

    def __init__(self) -> None:
        self.is_made = False

    def during(self, call: Callable[[], T]) -> T:
        """What a call returns, noting whether it was answered."""
        try:
            result = call()
        except Unavailable:
            self.is_made = False
            raise
        self.is_made = True
        return result


class RemoteMember:
    """One worker that front ends know by its name and its token. :meth:`claims` is for one thread."""

    def __init__(self, link: Link, contact: Contact, offer: Offer, name: str, slots: int) -> None:
        self.offer = offer
        # The end tells processes on a host apart.
        self.name = name[-NAME_CHARS_MAX:].lstrip("._-")
        self.slots = slots
        self.refused: DistCIError | None = None
        self._contact = contact
        self._drained = Event()
        self._link = link.with_patience(partial(Patience, PATIENCE_S, sleep=self._drained.wait))
        self._claim_link = link
        self._change = Condition()
        self._held = 0
        self._arrived: deque[RemoteClaim] = deque()
        self._is_asking = False
        self._is_known = False
        self._key = ""
        self._rests = Rests()
        self._asker = Thread(target=self._ask_on, name=f"asker of {name}", daemon=True)

    @property
    def is_draining(self) -> bool:
        return self._drained.is_set()

    def join(self) -> None:
        """Ask for the first time, and only for what waits now: who is not wanted learns it at once (:attr:`refused`)."""
        self._is_asking = True
        self._ask_once(0.0)

    def leave(self) -> None:
        """Ask no more. Front ends forget it by themselves."""
        self.drain()

    def drain(self) -> None:
        self._drained.set()
        with self._change:
            self._change.notify_all()

    def rest(self) -> None:
        with self._change:
            self._rests.begin()

    def recover(self) -> None:
        self._rests.recover()

    def claims(self) -> Iterator[RemoteClaim]:
        """Claims as they come. While others are at work, one that was asked for before it was drained is waited for, and served."""
        self._asker.start()
        while True:
            with self._change:
                self._change.wait_for(lambda: self._arrived or (self.is_draining and self._is_settled))
                if not self._arrived:
                    return
                claim = self._arrived.popleft()
            yield claim

    @property
    def _is_settled(self) -> bool:
        """Whether nobody need wait for what might still come."""
        return not self._is_asking or not self._held

    def forget(self) -> None:
        """A claim is over, and its slot free."""
        with self._change:
            self._held -= 1
            self._change.notify_all()

    def _ask_on(self) -> None:
        while self._wait_for_slot():
            self._ask_once(WAIT_S)

    def _ask_once(self, wait_s: float) -> None:
        self._key = self._key or uuid.uuid4().hex
        claim: RemoteClaim | None = None
        try:
            claim = self._contact.during(lambda: self._ask(self._key, wait_s))
            self._is_known, self._key = True, ""
        except Unavailable as error:
            # Asked again with the same key, it is the same claim if there was one.
            log.warning("no front end answers: %s", error)
            self._drained.wait(outcomes.PAUSE_S)
        except DistCIError as error:
            self._key = ""
            self._be_refused(error)
        self._note(claim)

    def _ask(self, key: str, wait_s: float) -> RemoteClaim | None:
        """What was claimed. InvalidDocument where that is no claim, as of a page that has taken the front end's place."""
        wanted = {
            "kinds": [*self.offer.kinds],
            "labels": [*self.offer.labels],
            "only": [*self.offer.only],
            "name": self.name,
            "slots": self.slots,
            "version": version("distci"),
            "wait_s": wait_s,
        }
        headers = {"Idempotency-Key": key}
        told: Mapping[str, Any] | None = self._link.change(
            "POST", "/claims", wanted, headers=headers, answer_s=wait_s + PATIENCE_S
        )
        try:
            return RemoteClaim(self._claim_link, self._contact, self, told) if told else None
        except (KeyError, TypeError) as error:
            raise InvalidDocument(f"a front end answers with no claim: {error!r}") from error

    def _be_refused(self, error: DistCIError) -> None:
        """End where somebody has drained this worker, or front ends do not want it; else it was one ticket that came to nothing."""
        is_drained = self._is_known and isinstance(error, Forbidden)
        if isinstance(error, NotAuthenticated) or not (self._is_known or isinstance(error, ClaimLost | Conflict)):
            # Whoever runs the process says so.
            self.refused = error
        else:
            log.warning("%s", error)
        if is_drained or self.refused:
            self.drain()
        else:
            self._drained.wait(REFUSED_PAUSE_S)

    def _note(self, claim: RemoteClaim | None) -> None:
        """The answer has come. One that nobody waits for any more goes back."""
        with self._change:
            self._is_asking = False
            is_late = self.is_draining and not self._held
            if claim:
                self._held += 1
                if not is_late:
                    self._arrived.append(claim)
            self._change.notify_all()
        if claim and is_late:
            with suppress(DistCIError), claim:
                log.info("%s came too late, and goes back", claim.token)

    def _wait_for_slot(self) -> bool:
        with self._change:
            while not self.is_draining:
                rest_s = self._rests.left_s
                if not rest_s and self._held < self.slots:
                    self._is_asking = True
                    return True
                self._change.wait(rest_s or None)
            return False


class RemoteClaim:
    """A claim that front ends speak for."""

    def __init__(self, link: Link, contact: Contact, member: RemoteMember, told: Mapping[str, Any]) -> None:
        self.told = told
        self.token = str(told["token"])
        self.build = BuildId.parse(told["build"])
        self.lost = Event()
        self.over = Event()
        """Set once nobody waits for an answer any more."""
        self.is_declined = False
        """Whether it is no fault of the task should this come to nothing."""
        body = {"build": told["build"], "task": told["task"]}
        id_ = self.token.rpartition(".")[0]
        trace = str(told.get("traceparent", ""))
        self.ticket = Ticket(id_, told["type"], body, attempt=paths.attempt_of(self.token), traceparent=trace)
        self.link = link.with_patience(partial(Patience, PATIENCE_S, sleep=self.over.wait))
        self.path = of_task(self.build, str(told["task"]), f"attempts/{segment(self.token)}")
        self._contact = contact
        self._member = member
        self._is_over = False

    def call(self, method: str, what: str, body: Any = None, **options: Any) -> Any:
        """One call for this claim. ClaimLost when it does not hold any more, or its worker's token does not."""

        def call() -> Any:
            if method == "GET":
                return self.link.get(f"{self.path}{what}", **options)
            return self.link.change(method, f"{self.path}{what}", body, **options)

        return self.fenced(call)

    def fenced(self, call: Callable[[], T]) -> T:
        """What a call returns that is made for this claim, noting whether it holds."""
        try:
            return self._contact.during(call)
        except ClaimLost:
            self.lose()
            raise
        except Denied as error:
            self.lose()
            raise ClaimLost(f"claim {self.token} is of no use any more: {error}") from error

    def lose(self) -> None:
        self.lost.set()
        self.over.set()

    def finish(self, outcome: Outcome, *, publishes: bool) -> None:
        """Put the outcome on record, and unless it ``publishes``, none of the files that were put; what is said again is the same."""
        reason = outcome.reason.encode(errors="surrogateescape").decode(errors="replace")[:REASON_CHARS_MAX]
        body: dict[str, Json] = {
            "verdict": outcome.verdict,
            "reason": reason,
            "exit_status": outcome.exit_status,
            "signal": outcome.signal,
            "details": dict(outcome.details),
            "publishes": publishes,
        }
        if outcome.usage:
            body["usage"] = to_json(outcome.usage)
        self.call("PUT", "/outcome", body)
        self._end()

    def _end(self) -> None:
        if not self._is_over:
            self._is_over = True
            self.over.set()
            self._member.forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the ticket back, unless it is over. Where no front end hears of it, the lease does that."""
        if not self._is_over and not self.lost.is_set():
            self.over.clear()
            reason = f"{kind.__name__}: {error}" if kind else "left unfinished"
            # What may have been begun is begun no more often than the task allows.
            uses_attempt = kind is not None and not self.is_declined
            with suppress(DistCIError):
                self.call("DELETE", "", reason=reason[:GIVE_BACK_REASON_CHARS_MAX], uses_attempt=uses_attempt)
        self._end()


class RemoteAssignment:
    """An attempt by somebody who reaches front ends alone."""

    def __init__(
        self,
        claim: RemoteClaim,
        told: Mapping[str, Any],
        new_store: Callable[[Path], Store],
        elsewhere: str | None = None,
    ) -> None:
        self.build = claim.build
        self.plan = from_json(Plan, told["plan"])
        self.task = self.plan.task(str(claim.told["task"]))
        self.token = claim.token
        self.lost = claim.lost
        self.changed = Event()
        self.is_called_off = bool(told["is_called_off"])
        self.silence_s = float(told["silence_s"])
        self.progress: int | None = None
        self.hold: Hold | None = None
        self.drawer: Drawer | None = RemoteDrawer(claim)
        self._told_hold: Hold | None = None
        self.heading = attempts.heading(elsewhere, self.build, self.task)
        self.elsewhere = elsewhere or ""
        self.log_bytes_max = LOG_BYTES_MAX - LAST_LINE_BYTES_MAX
        self._variables: Mapping[str, str] = told["variables"]
        self._claim = claim
        self._new_store = new_store
        self._store: Store | None = None
        self._restored = Restored()
        self._beat_at = 0.0
        self._stop: Verdict | None = None
        self._is_publishing = False
        """Whether publishing has begun, and has not ended well."""

    def variables(self) -> dict[str, str]:
        return dict(self._variables)

    def secrets(self) -> dict[str, str]:
        told = self._asked(lambda: self._claim.link.get(f"{self._claim.path}/secrets"))
        return {name: str(value) for name, value in told["values"].items()}

    def write_log(self, offset: int, data: bytes) -> None:
        self._upload("/log", lambda: data, offset=offset)

    def restore(self, directory: Path, checkpoint: Checkpoint) -> None:
        store = self._store = self._new_store(directory.parent / "packs")
        if not self.task.needs:
            self._restored = Workspaces(store, checkpoint).restore([], directory)
            return
        key = keys.workspace(self.build, self.task.name, "before")
        with self._opened("/workspace", checkpoint) as stream:
            self._restored = tarballs.restore(store, stream, key, self.task.name, directory, checkpoint)

    def save(self, directory: Path, checkpoint: Checkpoint) -> Sequence[str]:
        assert self._store is not None, "what is saved was restored"
        store, workspaces = self._store, Workspaces(self._store, checkpoint)
        key = keys.workspace(self.build, self.task.name, "after")
        saved = workspaces.save(directory, self._restored, self.task.name, key)
        snapshot, _ = workspaces.overlaid([key])

        def body() -> Body:
            tar = stream_of(tarballs.write(store, snapshot))
            return Sent(tar.read, tarballs.size_bytes(snapshot), checkpoint)

        self._upload("/workspace", body, answer_s=UPLOADED_S)
        return saved.left_out

    def publish(self, root: Path, patterns: Sequence[str], checkpoint: Checkpoint) -> Publication:
        def place(name: str) -> str:
            keys.artifact(self.build, self.task.name, self.token, name)  # Invalid where there can be none
            return f"/artifacts/{_quoted(name)}"

        def keep(where: str, file: Upload) -> None:
            def body() -> Body:
                file.rewind()
                return Sent(file.read, file.left_bytes, checkpoint)

            taken = from_json(Artifact, self._upload(where, body, answer_s=UPLOADED_S))
            if (taken.size_bytes, taken.sha256) != (file.read_bytes, file.sha256):
                raise Damaged(f"{taken.name!r} is not with the front end as it was sent")

        self._is_publishing = True
        published = artifacts.publish(root, patterns, place, keep)
        self._is_publishing = False
        return published

    def put_report(self, data: bytes) -> None:
        self._upload("/report", lambda: data, answer_s=UPLOADED_S)

    def quarantine(self) -> Sequence[Quarantined]:
        told = self._asked(lambda: self._claim.link.get(f"{self._claim.path}/quarantine"))
        return [from_json(Quarantined, each) for each in told["items"]]

    def pin(self, name: str, find: Callable[[], str]) -> str:
        found = self._claim.call("POST", "/pins", {"name": name})["value"] or find()
        return str(self._claim.call("POST", "/pins", {"name": name, "value": found})["value"])

    def source(self) -> BuildId:
        return BuildId.parse(self._asked(lambda: self._claim.link.get(f"{self._claim.path}/source"))["build"])

    def download(self, build: BuildId, directory: Path, names: Sequence[str], checkpoint: Checkpoint) -> Sequence[Path]:
        link, path = self._claim.link, f"{self._claim.path}/artifacts"
        listed = self._asked(lambda: [*link.items(path, build=str(build), limit=PAGE)])
        known = {artifact.name: artifact for artifact in (from_json(Artifact, item) for item in listed)}
        wanted = chosen(build, known, names) if names else known.values()
        return [self._fetched(build, artifact, directory, checkpoint) for artifact in wanted]

    def attend(self, is_well: bool) -> Verdict | None:
        self.changed.clear()
        if (
            is_well
            and self._stop is not Verdict.CANCELLED
            and (monotonic() - self._beat_at >= self._claim.told["heartbeat_s"] or self.hold != self._told_hold)
        ):
            hold = self.hold
            try:
                told: dict[str, Json] = {} if self.progress is None else {"progress": self.progress}
                told |= {"hold": to_json(hold)} if hold else {}
                stop = self._claim.call("POST", "/heartbeat", told or None)["stop"]
            except (ClaimLost, Unavailable):
                self.changed.set()
                raise
            except DistCIError as error:
                # A front end of another version, say, or somebody between. While the lease lasts, another one may know better.
                raise Unavailable(f"a heartbeat was refused: {error}") from error
            self._beat_at, self._told_hold = monotonic(), hold
            self._stop = Verdict(stop) if stop else None
        return self._stop

    def settle(self, outcome: Outcome, log_bytes: int) -> RemoteClaim | None:
        self._claim.finish(outcome, publishes=not self._is_publishing)
        return None

    def wait_for_room(self) -> None:
        """Let it go to another machine at once, without using up an attempt: to let it wait takes the tree."""
        self._claim.is_declined = True

    def close(self) -> None:
        self._claim.over.set()
        self.changed.set()

    def _fetched(self, build: BuildId, artifact: Artifact, directory: Path, checkpoint: Checkpoint) -> Path:
        with self._opened(f"/artifacts/{_quoted(artifact.name)}", checkpoint, build=str(build)) as stream:
            return artifacts.save(stream, artifact, directory)

    def _opened(self, what: str, checkpoint: Checkpoint, **query: Any) -> BinaryIO:
        pieces = self._asked(lambda: Download(self._claim.link, f"{self._claim.path}{what}", **query)).pieces()

        def attended() -> Iterator[bytes]:
            for piece in pieces:
                checkpoint()
                yield piece

        return stream_of(attended())

    def _upload(self, what: str, body: Callable[[], Content], **options: Any) -> Any:
        return self._claim.fenced(lambda: self._claim.link.upload(f"{self._claim.path}{what}", body, **options))

    def _asked(self, call: Callable[[], T]) -> T:
        """What a call returns that asks for something that the task may not have: then it is the task that is wrong."""
        try:
            return call()
        except Forbidden as error:
            raise Invalid(str(error)) from error
        except ClaimLost:
            self._claim.lose()
            raise


class RemoteDrawer:
    """As :class:`~distci.holds.Drawer`."""

    def __init__(self, claim: RemoteClaim) -> None:
        self._claim = claim

    def names(self) -> Sequence[str]:
        return [str(name) for name in self._claim.call("GET", "/hold")["names"]]

    def get(self, name: str) -> bytes | None:
        data = self._claim.call("GET", PIECE, name=name)["data"]
        return None if data is None else unwritten(data)

    def put(self, name: str, data: bytes) -> None:
        self._claim.call("PUT", PIECE, {"data": written(data)}, name=name)

    def remove(self, name: str) -> None:
        self._claim.call("DELETE", PIECE, name=name)


class Sent:
    """Bytes of a known number on their way, with a checkpoint before each piece."""

    def __init__(self, read: Callable[[int], bytes], size_bytes: int, checkpoint: Checkpoint) -> None:
        self._read = read
        self._size_bytes = size_bytes
        self._left_bytes = size_bytes
        self._checkpoint = checkpoint

    def __len__(self) -> int:
        return self._size_bytes

    def __iter__(self) -> Iterator[bytes]:
        return iter(partial(self.read, artifacts.CHUNK_BYTES), b"")

    def read(self, size: int = -1) -> bytes:
        self._checkpoint()
        data = self._read(self._left_bytes if size < 0 else min(size, self._left_bytes))
        self._left_bytes -= len(data)
        if not data and self._left_bytes:
            raise Invalid(f"what is sent became {self._left_bytes} bytes shorter meanwhile")
        return data


def _quoted(name: str) -> str:
    return quote(name, errors="surrogateescape")
