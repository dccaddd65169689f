"""What receivers are told, turned into builds: which jobs it concerns, and why it starts nothing of the others.

A delivery may come any number of times, to any number of processes at once: its id is remembered in the transaction that makes
the build, for each job apart. So whoever is not sure whether it was taken sends it again.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from distci import receivers
from distci.builds import Builds
from distci.documents.stored import trigger_to_json
from distci.documents.strict_json import read_json
from distci.errors import (
    Invalid,
    InvalidDocument,
    InvalidJob,
    NoSuchChange,
    NoSuchObject,
    NotAuthenticated,
    StoreUnavailable,
)
from distci.filters import fits
from distci.jobs import Jobs, JobVersion
from distci.model import BuildId, Delivery, HookTrigger, Json, Trigger
from distci.protocol.records import to_bytes
from distci.receivers.commands import EVENT as COMMENT
from distci.receivers.port import BODY_BYTES_MAX, Change, Command, Ignored, Receiver
from distci.retention import Retention
from distci.settings import ReceiverSettings
from distci.store import keys
from distci.store.port import ObjectInfo, Store, objects

log = logging.getLogger(__name__)

FORMAT = 1
SWEPT_AT_ONCE = 20
"""How many held changes are removed when one more is held."""

SKIP = re.compile(r"\[(skip[ -]ci|ci[ -]skip|no ci|skip actions|actions skip)\]|^skip-checks: *true *$", re.I | re.M)
"""What people write into a commit's message that shall not be built, as GitHub and GitLab have it."""

TRIGGER_BYTES_MAX = 3 * 1024
"""What a trigger may take of its build's node, which it shares with the state of the build's tasks."""


class InvalidDelivery(InvalidDocument):
    """What was delivered makes no sense to its receiver; never something that is stored."""


@dataclass(frozen=True, slots=True)
class Started:
    """What a delivery means for one job that names its repository."""

    job: str
    build: BuildId | None
    """The build that it has started, now or when it came before; None when it starts none."""
    reason: str = ""
    """Why it starts none."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a delivery."""

    receiver: str
    delivery: str
    event: str
    reason: str = ""
    """Why it concerns no job at all; empty when ``jobs`` say what it does."""
    jobs: Sequence[Started] = ()
    held: str = ""
    """The id by which somebody may approve it; empty when it needs no approval."""


@dataclass(frozen=True, slots=True)
class Held:
    """A change by somebody without rights to the repository, which waits until somebody has looked at it."""

    id: str
    receiver: str
    change: Change
    jobs: Sequence[str] = ()
    """Those that it would start builds of, as they are now."""


Check = Callable[[Held], None]
"""Called with a held change before anything becomes of it; whoever it is not for raises."""


@dataclass(frozen=True, slots=True)
class ReceiverView:
    """An installed receiver, as people look at it."""

    name: str
    secrets: int
    """How many prove a sender; with none it takes nothing."""
    tells_status: bool


@dataclass(frozen=True, slots=True)
class _Concerned:
    """The jobs that name a change's repository."""

    fitting: Sequence[tuple[JobVersion, HookTrigger]]
    """Those that it starts, each with the trigger that fits."""
    others: Sequence[Started]
    """Those that it does not, each with the reason."""

    @property
    def jobs(self) -> Sequence[str]:
        """Those that it starts."""
        return sorted(version.job for version, _ in self.fitting)


class Hooks:
    """Takes deliveries in. Any thread may use it."""

    def __init__(
        self,
        builds: Builds,
        jobs: Jobs,
        store: Store,
        settings: Mapping[str, ReceiverSettings],
        *,
        holds_untrusted: bool = True,
        retention: Retention | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``retention`` says how many held changes wait, and for how long; all for ever where it is None."""
        self._retention = retention
        self._clock = clock
        self._builds = builds
        self._jobs = jobs
        self._store = store
        self._settings = settings
        self._holds_untrusted = holds_untrusted

    def deliver(
        self,
        receiver: str,
        headers: Mapping[str, str],
        body: bytes,
        proved: Callable[[], None] = lambda: None,
        is_told: Callable[[str], bool] = lambda job: True,
    ) -> Answer:
        """Take in what a sender says, once it has proved who it is; what became of it. ``proved`` is called then, and raises to refuse it.

        ``is_told`` says of a job that is not started whether the sender may know that it names the repository.

        Raises NoSuchReceiver, NotAuthenticated (no proof, or no secret is set: then nobody can have one), InvalidDelivery naming the
        place, and Unavailable, after which the same delivery is to be sent again.
        """
        found = receivers.load(receiver)
        _check_size(body)
        secrets = self._of(found).secrets
        if not secrets:
            raise NotAuthenticated(
                f"receiver {receiver} takes nothing: the setting receivers.{receiver}.secrets names no secret"
            )
        lower = _lower(headers)
        if not found.verify(lower, body, secrets):
            raise NotAuthenticated(
                f"the sender does not know a secret of receiver {receiver}; compare its webhook's secret with ours"
            )
        proved()
        return self._take(found, lower, body, is_told)

    def play(self, receiver: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Take in a delivery without a proof, for those who have access to tree and store anyway. Raises as :meth:`deliver` does."""
        found = receivers.load(receiver)
        _check_size(body)
        return self._take(found, _lower(headers), body)

    def list(self) -> Iterator[ReceiverView]:
        """The receivers that are installed."""
        for name in receivers.installed():
            found = receivers.load(name)
            yield ReceiverView(name, len(self._of(found).secrets), self._tells_status(found))

    def held(self, after: str = "") -> Iterator[Held]:
        """The changes that wait for an approval, by id, those behind ``after``."""
        for info in objects(self._store, keys.HELD, keys.held(after) if after else ""):
            if self._is_too_old(info):
                continue
            try:
                yield self._read_held(keys.held_of(info.key))[0]
            except NoSuchChange:
                continue  # approved meanwhile

    def approve(self, change: str, actor: str = "", check: Check | None = None) -> Answer:
        """Start what a change was held back from; its builds get no secrets all the same. NoSuchChange when none of that id waits."""
        held, concerned = self._read_held(change)
        if check:
            check(held)
        receiver = receivers.load(held.receiver)
        answer = self._start(receiver, held.change, concerned, f"approved by {actor}" if actor else "approved")
        self._store.delete(keys.held(change))
        return answer

    def refuse(self, change: str, check: Check | None = None) -> None:
        """Let a change wait no longer. NoSuchChange when none of that id waits."""
        held, _ = self._read_held(change)
        if check:
            check(held)
        self._store.delete(keys.held(change))

    def carry_out(self, receiver: Receiver, command: Command, seal: str, is_told: Callable[[str], bool]) -> Answer:
        """Do what a comment asks for. Nothing here, where nobody is known who may ask: see :mod:`distci.comments`."""
        return Answer(receiver.name, command.delivery, COMMENT, "nobody may ask for that here")

    def _take(
        self,
        receiver: Receiver,
        headers: Mapping[str, str],
        body: bytes,
        is_told: Callable[[str], bool] = lambda job: True,
    ) -> Answer:
        try:
            told = receiver.read(headers, body)
        except InvalidDocument as error:
            raise InvalidDelivery(f"{receiver.name}: {error}") from error
        if isinstance(told, Ignored):
            return Answer(receiver.name, told.delivery, told.event, told.reason)
        seal = hashlib.sha256(body).hexdigest()[:40] if receiver.has_sealed_bodies else ""
        if isinstance(told, Command):
            return self.carry_out(receiver, told, seal, is_told)
        if told.event != "tag" and (marker := SKIP.search(told.message)):
            return Answer(receiver.name, told.delivery, told.event, f"its message says {marker[0].strip()}")
        concerned = self._concerned(receiver.name, told)
        concerned = replace(concerned, others=[other for other in concerned.others if is_told(other.job)])
        if concerned.fitting and not told.is_trusted and self._holds_untrusted:
            return self._hold(receiver, told, concerned)
        return self._start(receiver, told, concerned, seal=seal)

    def _hold(self, receiver: Receiver, change: Change, concerned: _Concerned) -> Answer:
        """Keep a change until somebody has looked at it."""
        held = hashlib.sha256(f"{receiver.name} {change.delivery}".encode()).hexdigest()[:16]
        document = {"f": FORMAT, "receiver": receiver.name, "change": asdict(change)}
        self._store.put(keys.held(held), to_bytes(document))
        self._sweep_held()
        reason = f"it comes from a fork, and waits for an approval: distci hook approve {held}"
        waiting = [Started(job, None, reason) for job in concerned.jobs]
        return replace(self._answer(receiver, change, [*waiting, *concerned.others]), held=held)

    def _sweep_held(self) -> None:
        """Remove some of the changes that have waited for too long, and of those that are too many. What fails is done with the next one that is held."""
        if self._retention is None:
            return
        try:
            waiting = sorted(objects(self._store, keys.HELD), key=lambda info: info.modified_s)
            going = self._retention.beyond([info.modified_s for info in waiting], len(waiting), self._clock())
            for info in waiting[: min(going, SWEPT_AT_ONCE)]:
                log.warning(
                    "change %s waits for an approval no longer: others came, or it was too long", keys.held_of(info.key)
                )
                self._store.delete(info.key)
        except StoreUnavailable as error:
            log.warning("changes that have waited too long are not removed now: %s", error)

    def _is_too_old(self, info: ObjectInfo) -> bool:
        return self._retention is not None and self._retention.is_too_old(info.modified_s, self._clock())

    def _start(
        self, receiver: Receiver, change: Change, concerned: _Concerned, approval: str = "", *, seal: str = ""
    ) -> Answer:
        causes = causes_of(receiver, change.delivery, seal)
        jobs = [*concerned.others]
        if concerned.fitting and change.paths is not None:
            # Before any build is made for it: what is planned goes by it.
            self._store.put_if_absent(keys.changes(_changes(change)), _paths(change.paths))
        for version, hook in concerned.fitting:
            try:
                trigger = self._trigger(receiver, change, hook, approval)
                jobs.append(Started(version.job, self._builds.start(version, trigger, causes, change.paths)))
            except InvalidJob as error:
                # What is wrong with one job must not keep the others from it.
                log.warning("%s %s starts no build of %s: %s", receiver.name, change.delivery, version.job, error)
                jobs.append(Started(version.job, None, str(error)))
        return self._answer(receiver, change, jobs)

    def _answer(self, receiver: Receiver, change: Change, jobs: Sequence[Started]) -> Answer:
        reason = "" if jobs else f"no job has a trigger of type {receiver.name} that fits {change.repository}"
        in_order = sorted(jobs, key=lambda started: started.job)
        return Answer(receiver.name, change.delivery, change.event, reason, in_order)

    def _concerned(self, receiver: str, change: Change) -> _Concerned:
        """The jobs that name the repository, each once; of a job's triggers, the first that fits counts."""
        found: dict[str, tuple[JobVersion, list[HookTrigger]]] = {}
        others: dict[str, Started] = {}

        def note(job: str, error: Invalid) -> None:
            log.error("it is not known whether %s %s starts %s: %s", receiver, change.delivery, job, error)
            others[job] = Started(job, None, f"it cannot be read: {error}")

        for name in (change.repository, *change.addresses):
            for version, hooks in self._jobs.concerned(receiver, name, note):
                found.setdefault(version.job, (version, []))[1].extend(hooks)
        fitting = []
        for version, hooks in found.values():
            reasons = [why_not(hook, change) for hook in hooks]
            hook = next((hook for hook, reason in zip(hooks, reasons, strict=True) if not reason), None)
            if hook:
                fitting.append((version, hook))
            else:
                others[version.job] = Started(version.job, None, "; ".join(dict.fromkeys(reasons)))
        return _Concerned(fitting, [*others.values()])

    def _trigger(self, receiver: Receiver, change: Change, hook: HookTrigger, approval: str) -> Trigger:
        trigger = Trigger(
            kind=receiver.name,
            actor=f"{change.actor}, {approval}" if approval else change.actor,
            presets=hook.parameters,
            commit=change.commit,
            ref=change.ref,
            is_untrusted=not change.is_trusted,
            delivery=Delivery(
                id=change.delivery,
                receiver=receiver.name,
                event=change.event,
                repository=change.repository,
                addresses=change.addresses,
                branch=change.branch,
                pull_request=change.pull_request,
                wants_status=self._tells_status(receiver),
                changes=_changes(change),
            ),
        )
        size = len(to_bytes(trigger_to_json(trigger)))
        if size > TRIGGER_BYTES_MAX:
            raise InvalidJob(
                "the change:", [f"names and parameters take {size} bytes; at most {TRIGGER_BYTES_MAX} fit"]
            )
        return trigger

    def _of(self, receiver: Receiver) -> ReceiverSettings:
        return self._settings.get(receiver.name, ReceiverSettings())

    def _tells_status(self, receiver: Receiver) -> bool:
        settings = self._of(receiver)
        return bool(settings.token and (settings.api_url or receiver.api_url))

    def _read_held(self, id_: str) -> tuple[Held, _Concerned]:
        key = keys.held(id_)
        info = self._store.head(key)
        if info is None or self._is_too_old(info):
            raise no_such_change(id_)
        try:
            document = read_json(self._store.get(key), key)
        except NoSuchObject:
            raise no_such_change(id_) from None
        receiver, change = document["receiver"], _change(document["change"])
        concerned = self._concerned(receiver, change)
        return Held(id_, receiver, change, concerned.jobs), concerned


def causes_of(receiver: Receiver, delivery: str, seal: str) -> Sequence[str]:
    """What a delivery goes by, which is served once: its id, and its body where that is sealed."""
    return [f"{receiver.name} {delivery}", *([f"{receiver.name} body {seal}"] if seal else [])]


def no_such_change(change: str) -> NoSuchChange:
    """What somebody is told of a change that does not wait."""
    return NoSuchChange(f"no change {change!r} waits for an approval; `distci hook held` shows those that do")


def why_not(hook: HookTrigger, change: Change) -> str:
    """Why a trigger does not fit a change of its repository; empty when it does. Pure."""
    if not fits(hook.events, change.event):
        return f"it is for {' or '.join(hook.events)}, not for {change.event}"
    if change.event == "tag":
        if hook.tags and not fits(hook.tags, change.tag):
            return f"tag {change.tag} is none of: {', '.join(hook.tags)}"
    elif hook.branches and not fits(hook.branches, change.branch):
        return f"branch {change.branch} is none of: {', '.join(hook.branches)}"
    if hook.paths and change.paths is not None and not any(fits(hook.paths, path) for path in change.paths):
        return f"nothing has changed in: {', '.join(hook.paths)}"
    return ""


def _changes(change: Change) -> str:
    """By what the store knows the files that have changed; empty where the change does not tell all of them."""
    return "" if change.paths is None else hashlib.sha256(_paths(change.paths)).hexdigest()[:32]


def _paths(paths: Sequence[str]) -> bytes:
    """What the store has of them. By its digest nobody can put others in their place: names of files may hold line ends."""
    return to_bytes({"f": FORMAT, "paths": [*paths]})


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _check_size(body: bytes) -> None:
    if len(body) > BODY_BYTES_MAX:
        raise InvalidDelivery(f"the body: {len(body)} bytes are too many; at most {BODY_BYTES_MAX} are read")


def _change(document: Mapping[str, Json]) -> Change:
    paths = document["paths"]
    return Change(**{**document, "urls": tuple(document["urls"]), "paths": None if paths is None else tuple(paths)})
