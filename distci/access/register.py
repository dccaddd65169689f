"""The register of who may do what: a log of changes in the store, and what it comes to, in the memory of everybody who asks.

Changes are numbered, and each is an object that is written only if there is none of that number; so of two who change at once one decides
anew on what the other did, and whoever dies in the middle leaves a whole change or none. Every 64th has the state after it, to begin from.

What is remembered counts for a second (:data:`FRESH_S`). Then it must be confirmed, by either of two witnesses:

* the *store*, by listing what came after. This is the truth, and needs no tree: a revocation that is in the store is
  known to everybody who reaches the store within that second, whatever the tree does.
* the *tree*, when the store does not answer: ``/access/news`` has the number of the last change, and one that it knows is told there
  before its maker goes on. Only for ten minutes (:data:`WITNESS_S`), since a maker who cannot reach the tree can tell nobody there.

With neither, nobody is let in: :class:`~distci.errors.StoreUnavailable`. News also wakes whoever watches, so that in calm times a change is known
everywhere within milliseconds. A tree that was lost knows nothing and so confirms nothing; it loses no token and brings none back.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf
from threading import Event, Lock, Thread
from time import monotonic as monotonic_clock
from time import time as wall_clock

from distci.access.state import Change, State, apply, from_json, pruned, to_json
from distci.coordination.port import Committed, Create, Refused, Write
from distci.documents.strict_json import read_json
from distci.errors import (
    DistCIError,
    Invalid,
    InvalidDocument,
    NoSuchObject,
    StoreUnavailable,
    Unavailable,
    VersionConflict,
)
from distci.protocol import paths
from distci.protocol.outcomes import Deadline, persist
from distci.protocol.records import FORMAT as NODE_FORMAT
from distci.protocol.records import from_bytes, to_bytes
from distci.protocol.tree import Tree
from distci.store import keys
from distci.store.port import Store

log = logging.getLogger(__name__)

FORMAT = 1
FRESH_S = 1.0
"""How long what is known counts without being confirmed, by our own clock."""
STORE_WAIT_S = 1.0
"""How long an answer of the store is waited for before the tree is asked instead."""
PATIENCE_S = 5.0
"""How long it is waited for when the tree does not help."""
WITNESS_S = 600.0
"""How long after the store last answered the tree may stand in for it."""
STATE_BYTES_MAX = 3 * 1024 * 1024
"""How large the state may grow; a document of 4 MiB could be read by nobody. Some 7,000 tokens."""
CHECKPOINT = 64
"""Of so many changes one has the whole state."""
TRIES = 50
SETTLE_S = 10.0
"""How long a change whose answer was lost is looked for."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A change that is in force."""

    state: State
    is_told: bool
    """Whether the tree was told. If not, a front end that reaches the tree but neither the store nor we may go by what was before, for ten minutes at most."""


class Register:
    """What is in force, and how it is changed. Any thread may use it."""

    def __init__(
        self,
        store: Store,
        tree: Tree,
        clock: Callable[[], float] = wall_clock,
        monotonic: Callable[[], float] = monotonic_clock,
    ) -> None:
        self._store = store
        self._tree = tree
        self._clock = clock
        self._monotonic = monotonic
        self._lock = Lock()
        self._state = State()
        self._confirmed = -inf
        """When what is known was last confirmed, by our own clock."""
        self._read = -inf
        """When the store last answered."""
        self._outdated = -inf
        """When there was news: what was confirmed before counts no more."""
        self._reading: _Reading | None = None
        self._news = Event()
        self._is_watched = False
        self._seen = -1
        """The version of the news that was last seen."""
        self._attending = Lock()
        self._told = (0, -1)
        """The epoch of the tree that has been told, and the number it knows."""

    def current(self, age_s: float = FRESH_S) -> State:
        """What is in force, as of less than a second ago, or as of no more than ``age_s`` before now. StoreUnavailable when nobody can be asked whether that is still so."""
        asked = self._monotonic()
        patience = asked + STORE_WAIT_S
        while True:
            with self._lock:
                if self._is_known(asked - age_s):
                    return self._state
                reading = self._begin_reading()
            reading.done.wait(max(0.0, patience - self._monotonic()))
            if reading.done.is_set() and reading.error is None:
                # It may have begun too long ago to count; then another look is taken.
                continue
            if reading.error is not None and not isinstance(reading.error, Unavailable):
                raise reading.error
            if self._is_confirmed_by_tree():
                continue
            if reading.error is not None or self._monotonic() - asked >= PATIENCE_S:
                raise StoreUnavailable("the store does not say who may do what; try again") from reading.error
            patience = asked + PATIENCE_S

    def latest(self) -> State:
        """What is in force now: the store is asked in any case. StoreUnavailable when it does not answer."""
        begun = self._monotonic()
        with self._lock:
            state = self._state
        return self._learn(_follow(self._store, state), begun)

    def change(self, decide: Callable[[State], Change | None], *, actor: str = "", reason: str = "") -> Recorded:
        """Put the change in force that ``decide`` makes of what is; None: nothing needs to be changed. It may be called several times.

        Raises what ``decide`` raises; VersionConflict when others are always faster; StoreUnavailable, after which asking again is safe.
        """
        nonce = secrets.token_hex(8)
        for _ in range(TRIES):
            state = self.latest()
            change = decide(state)
            if change is None:
                # Somebody may have died before the tree was told.
                return Recorded(state, self._tell(state.number))
            after = apply(state, state.number + 1, change)
            _check_size(state, after)
            document = {
                "format": FORMAT,
                "number": after.number,
                "nonce": nonce,
                "at_s": self._clock(),
                "actor": actor,
                "reason": reason,
                "change": change,
            }
            if after.number % CHECKPOINT == 0:
                after = pruned(after, self._clock())
                document["state"] = to_json(after)
            if self._write(after.number, document):
                return Recorded(self._learn(after, None), self._tell(after.number))
        raise VersionConflict("who may do what is being changed by many at once; try again")

    def _is_known(self, since: float) -> bool:
        """Whether what is known was in force at that time or later. Called under the lock."""
        if self._news.is_set():
            self._news.clear()
            self._is_watched = False
            self._outdated = self._monotonic()
        return self._confirmed >= max(since, self._outdated)

    def _begin_reading(self) -> _Reading:
        """The look into the store that is under way, or a new one. Called under the lock."""
        if self._reading is None or self._reading.done.is_set():
            self._reading = _Reading(self._monotonic())
            Thread(target=self._look, args=(self._reading, self._state), name="access", daemon=True).start()
        return self._reading

    def _look(self, reading: _Reading, known: State) -> None:
        try:
            self._learn(_follow(self._store, known), reading.begun)
        except DistCIError as error:
            reading.error = error
        except Exception as error:  # whoever asks must hear of it, in whatever thread it was met
            log.exception("who may do what cannot be read")
            reading.error = InvalidDocument(f"access: {error!r}")
        finally:
            reading.done.set()
        # The tree may keep us waiting; nobody waits for this.
        if self._attending.acquire(blocking=False):
            try:
                self._attend_tree()
            finally:
                self._attending.release()

    def _attend_tree(self) -> None:
        self._tell(self._state.number)
        if self._is_watched:
            return
        try:
            stat = self._tree.coordination.watch(paths.ACCESS_NEWS, self._news)
        except DistCIError as error:
            log.debug("no news of changes while the tree is away; the store is looked into instead: %s", error)
            return
        self._is_watched = True
        if stat is not None and stat.version != self._seen:
            # It came between the look and the watch.
            self._seen = stat.version
            self._news.set()

    def _learn(self, state: State, begun: float | None) -> State:
        """Remember a state if it is newer; ``begun``: the store told that it was the newest at that time."""
        with self._lock:
            if state.number >= self._state.number:
                self._state = state
            if begun is not None:
                self._confirmed = max(begun, self._confirmed)
                self._read = max(begun, self._read)
            return self._state

    def _is_confirmed_by_tree(self) -> bool:
        """Whether the tree says that there has been no change since the store last answered."""
        begun = self._monotonic()
        with self._lock:
            known, read = self._state.number, self._read
        if begun - read > WITNESS_S:
            return False
        try:
            self._tree.coordination.sync()
            node = self._tree.coordination.read(paths.ACCESS_NEWS)
        except Unavailable:
            return False
        # The epoch: what a tree says that was made anew, by somebody who knows little, is no proof.
        if node is None or _news(node.data) != (self._tree.epoch, known):
            return False
        with self._lock:
            if self._state.number == known:
                self._confirmed = max(begun, self._confirmed)
        return True

    def _tell(self, number: int) -> bool:
        """Let the tree know that there have been so many changes; whether it does."""
        if self._told == (self._tree.epoch, number):
            return True
        try:
            for _ in range(TRIES):
                epoch = self._tree.epoch
                node = self._tree.coordination.read(paths.ACCESS_NEWS)
                if node is not None and _news(node.data)[0] == epoch and _news(node.data)[1] >= number:
                    self._told = epoch, number
                    return True
                data = to_bytes({"f": NODE_FORMAT, "epoch": epoch, "changes": number})
                write = Write(paths.ACCESS_NEWS, data, node.version) if node else Create(paths.ACCESS_NEWS, data)
                done = self._tree.commit(write, epoch=epoch)
                if isinstance(done.result, Committed):
                    self._told = epoch, number
                    return True
                if not isinstance(done.result, Refused):
                    self._tree.coordination.sync()
        except (Unavailable, InvalidDocument) as error:
            log.warning("the tree was not told of change %s of access: %s", number, error)
        return False

    def _write(self, number: int, document: dict[str, object]) -> bool:
        """Whether the change became that number. A lost answer is settled: written again, the same bytes can do no harm."""
        key = keys.access_change(number)
        data = json.dumps(document, ensure_ascii=False).encode()

        def write() -> bool:
            return self._store.put_if_absent(key, data) or self._store.get(key) == data

        return persist(write, Deadline(SETTLE_S))


class _Reading:
    """A look into the store, by a thread of its own: it may hang for longer than anybody wants to wait."""

    def __init__(self, begun: float) -> None:
        self.begun = begun
        self.done = Event()
        self.error: DistCIError | None = None


def _follow(store: Store, state: State) -> State:
    """The state after all changes that the store has, from what is known on."""
    numbers = list(_numbers(store, state.number))
    if not numbers:
        return state
    checkpoint = numbers[-1] - numbers[-1] % CHECKPOINT
    if checkpoint > state.number:
        document = _document(store, checkpoint)
        state = from_json(checkpoint, _state(document, checkpoint))
    for number in range(state.number + 1, numbers[-1] + 1):
        state = apply(state, number, _change(_document(store, number), number))
    return state


def _check_size(before: State, after: State) -> None:
    """Refuse what would grow beyond measure; never a revocation."""
    if len(after.tokens) > len(before.tokens) and len(json.dumps(to_json(after))) > STATE_BYTES_MAX:
        raise Invalid(f"there are {len(before.tokens)} tokens, which is as many as fit; revoke those that nobody needs")


def _numbers(store: Store, after: int) -> Iterator[int]:
    position = keys.access_change(after)
    while page := store.list(keys.ACCESS_CHANGES, position):
        yield from (keys.access_change_of(info.key) for info in page)
        position = page[-1].key


def _document(store: Store, number: int) -> dict[str, object]:
    key = keys.access_change(number)
    try:
        return dict(read_json(store.get(key), key))
    except NoSuchObject as error:
        raise InvalidDocument(
            f"{key} is missing, and those after it are there: nobody is let in; restore it"
        ) from error


def _change(document: dict[str, object], number: int) -> Change:
    change = document.get("change")
    if document.get("format") != FORMAT or not isinstance(change, dict):
        raise InvalidDocument(
            f"access: change {number} has format {document.get('format')!r}; this version reads {FORMAT}"
        )
    return change


def _state(document: dict[str, object], number: int) -> dict[str, object]:
    """The state that a checkpoint has."""
    _change(document, number)
    state = document.get("state")
    if not isinstance(state, dict):
        raise InvalidDocument(f"access: change {number} has no state")
    return state


def _news(data: bytes) -> tuple[int, int]:
    """Epoch and number of changes."""
    document = from_bytes(data, paths.ACCESS_NEWS)
    return int(document.get("epoch", 0)), int(document.get("changes", -1))
