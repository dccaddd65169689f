"""Tokens and roles on every tree and store, and what becomes of them when one of these is away, lost, or answers late."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest
from conformance.store_server import Address, new_bucket, new_namespace
from services import STORES
from waiting import wait_until
from wiping import wipe

from distci import backup
from distci.access import (
    Access,
    Acting,
    Action,
    Allowed,
    Audit,
    Denied,
    Grant,
    Hidden,
    Person,
    Role,
    Token,
    Visibility,
    Worker,
    register,
    used,
)
from distci.access import state as states
from distci.access.register import CHECKPOINT, WITNESS_S
from distci.access.state import State
from distci.access.texts import digest_of
from distci.coordination.port import Coordination, Operation
from distci.errors import (
    AlreadyExists,
    Conflict,
    Invalid,
    InvalidDocument,
    NoSuchToken,
    NotAuthenticated,
    StoreUnavailable,
)
from distci.protocol import paths
from distci.protocol.tree import Tree
from distci.rebuild import new_epoch
from distci.store import keys
from distci.store.passing import PassingStore
from distci.store.port import ObjectInfo, Store
from distci.testing import CutCoordination

ADA = "ada@example.org"
READ = [Action.READ]
MOMENT_S = 3.0
"""A second of freshness, and what a machine with more to do takes besides."""


class Cluster(Protocol):
    def connect(self) -> Coordination: ...


class Clock:
    """The time, ahead by as much as a test wants."""

    def __init__(self, real: Callable[[], float]) -> None:
        self._real = real
        self.ahead = 0.0

    def __call__(self) -> float:
        return self._real() + self.ahead


class FaultyStore(PassingStore):
    """A real store over a line that is cut, hangs, or loses answers."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.is_cut = False
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.loses_answers: list[bool] = []
        """To writes of changes, in turn: whether they took effect."""
        self.lists = 0

    def _check(self) -> None:
        self.goes_on.wait()
        if self.is_cut:
            raise StoreUnavailable("cut off on purpose")

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self._check()
        if not self.loses_answers or not key.startswith(keys.ACCESS_CHANGES):
            return super().put_if_absent(key, data)
        if self.loses_answers.pop(0):
            super().put_if_absent(key, data)
        raise StoreUnavailable("the answer was lost on purpose")

    def put(self, key: str, data: object) -> None:
        self._check()
        super().put(key, data)  # type: ignore[arg-type]

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self._check()
        return super().get(key, start, length)

    def list(self, prefix: str, after: str = "", limit: int = 1000) -> Sequence[ObjectInfo]:
        self._check()
        self.lists += prefix == keys.ACCESS_CHANGES
        return super().list(prefix, after, limit)


class FrontEnd:
    """A process that asks who may do what, with lines of its own to tree and store."""

    def __init__(self, store: Store, coordination: Coordination) -> None:
        self.store = FaultyStore(store)
        self.line = CutCoordination(coordination)
        self.clock = Clock(time.time)
        self.monotonic = Clock(time.monotonic)
        self.tree = Tree(self.line, lambda: new_epoch(self.store))
        self.audit = Audit(self.store, Acting("tester"), self.clock)
        self.access = Access(self.store, self.tree, self.audit, (), self.clock, self.monotonic)

    def takes(self, text: str) -> bool:
        try:
            self.access.authenticate(text)
        except NotAuthenticated:
            return False
        return True

    def refuses_within_a_moment(self, text: str) -> bool:
        begun = time.monotonic()
        wait_until(lambda: not self.takes(text))
        return time.monotonic() - begun < MOMENT_S


class Site:
    """One system with as many front ends as a test asks for."""

    def __init__(self, cluster: Cluster, store: Callable[[], Store], stack: ExitStack) -> None:
        self._cluster = cluster
        self._store = store
        self._stack = stack

    def front_end(self) -> FrontEnd:
        coordination = self._cluster.connect()
        self._stack.callback(coordination.close)
        front_end = FrontEnd(self._store(), coordination)
        self._stack.callback(front_end.store.goes_on.set)
        return front_end


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path) -> Iterator[Site]:
    """On each tree, with a directory."""
    with ExitStack() as stack:
        yield Site(cluster, Address(str(tmp_path / "store")).open, stack)


@pytest.fixture(params=STORES)
def any_store_site(cluster: Cluster, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """On each tree and each store."""
    if request.param == "directory":
        address = Address(str(tmp_path / "store"))
    elif request.param == "rados":
        address = new_namespace(request.getfixturevalue("ceph_configuration"))
    else:
        address = new_bucket(request.getfixturevalue(f"{request.param}_endpoint"))
    with ExitStack() as stack:
        yield Site(cluster, address.open, stack)


# The thread from end to end


def test_a2_a_token_is_made_taken_by_every_front_end_and_once_revoked_by_none(any_store_site: Site) -> None:
    one, other = any_store_site.front_end(), any_store_site.front_end()
    made = one.access.create_token("nightly", [Action.TRIGGER], project="team", actor="ada")
    assert other.access.authenticate(made.text) == Token(made.record.id, "nightly", frozenset({Action.TRIGGER}), "team")
    assert isinstance(other.access.decide(other.access.authenticate(made.text), Action.TRIGGER, "team/web"), Allowed)

    assert one.access.revoke_token(made.record.id, actor="ada", reason="leaked").is_told

    assert not one.takes(made.text)
    assert other.refuses_within_a_moment(made.text)
    [record] = other.access.tokens()
    assert (record.state(time.time()), record.revoked_by, record.reason) == ("revoked", "ada", "leaked")


def test_only_a_digest_is_kept_of_a_token(site: Site) -> None:
    front_end = site.front_end()
    made = front_end.access.create_token("a", READ)
    front_end.access.revoke_token(made.text)
    stored = [front_end.store.get(info.key) for info in front_end.store.list("")]
    assert any(digest_of(made.text).encode() in data for data in stored)
    assert not any(made.text.encode() in data or made.text[7:50].encode() in data for data in stored)
    assert made.text not in repr(front_end.access.tokens())


def test_a_token_ends_when_it_said(site: Site) -> None:
    front_end = site.front_end()
    made = front_end.access.create_token("short", READ, expires_s=60)
    assert front_end.takes(made.text)
    front_end.clock.ahead = 60
    with pytest.raises(NotAuthenticated, match="is expired"):
        front_end.access.authenticate(made.text)


def test_a_workers_token_is_for_work_and_no_token_is_a_workers(site: Site) -> None:
    access = site.front_end().access
    made = access.create_worker_token("lab", ["shell"], ["os=linux"], project="team")
    worker = access.authenticate(made.text)
    assert worker == Worker(made.record.id, "lab", frozenset({"shell"}), ("os=linux",), "team")
    assert isinstance(access.decide(worker, Action.WORK, "team/a"), Allowed)
    assert isinstance(access.decide(worker, Action.READ, "team/a"), Denied)
    with pytest.raises(Invalid):
        access.create_token("work", [Action.WORK])


def test_a_token_that_acts_for_somebody_loses_what_they_lose(site: Site) -> None:
    one, other = site.front_end(), site.front_end()
    one.access.grant(ADA, Role.EDITOR, "team")
    made = one.access.create_token("laptop", [Action.READ, Action.WRITE], person=Person(ADA))
    token = other.access.authenticate(made.text)
    assert isinstance(other.access.decide(token, Action.WRITE, "team/a"), Allowed)
    one.access.revoke_role(ADA, "team")
    wait_until(lambda: isinstance(other.access.decide(token, Action.WRITE, "team/a"), Hidden))


@pytest.mark.parametrize("text", ["", "distci_x", "distci_" + "0" * 49])
def test_what_is_no_token_is_refused(site: Site, text: str) -> None:
    with pytest.raises(NotAuthenticated):
        site.front_end().access.authenticate(text)


def test_a_token_of_another_system_is_unknown(site: Site, tmp_path: Path) -> None:
    elsewhere = FrontEnd(Address(str(tmp_path / "elsewhere")).open(), site.front_end().line)
    made = elsewhere.access.create_token("a", READ)
    assert not site.front_end().takes(made.text)


def test_tokens_are_named_by_the_beginning_of_their_id_and_never_by_nothing(site: Site) -> None:
    access = site.front_end().access
    made = [access.create_token(str(number), READ).record for number in range(20)]
    access.revoke_token(made[7].id[:8])
    assert [record.label for record in access.tokens() if record.revoked_s] == ["7"]
    for nobody in ("", "zzz", "distci_"):
        with pytest.raises(NoSuchToken):
            access.revoke_token(nobody)
    with pytest.raises(Conflict):
        # Twenty ids have sixteen first digits among them.
        access.revoke_token(next(digit for digit in "0123456789abcdef" if _are_many(made, digit)))


def _are_many(records: Sequence[states.TokenRecord], digit: str) -> bool:
    return sum(record.id.startswith(digit) for record in records) > 1


def test_the_last_use_is_noted_once_an_hour(site: Site) -> None:
    front_end = site.front_end()
    made = front_end.access.create_token("a", READ)
    assert front_end.access.last_uses() == {}
    for _ in range(50):
        front_end.takes(made.text)
    wait_until(lambda: made.record.id in front_end.access.last_uses())
    first = front_end.access.last_uses()[made.record.id]
    front_end.takes(made.text)
    front_end.clock.ahead = used.HOUR_S
    front_end.takes(made.text)
    wait_until(lambda: front_end.access.last_uses()[made.record.id] >= first + used.HOUR_S)


# Outages


def test_a_revocation_is_known_everywhere_though_the_tree_is_away(site: Site) -> None:
    one, other = site.front_end(), site.front_end()
    made = one.access.create_token("a", READ)
    assert other.takes(made.text)
    one.line.is_cut = other.line.is_cut = True

    assert not one.access.revoke_token(made.record.id).is_told

    assert other.refuses_within_a_moment(made.text)


def test_news_in_the_tree_wake_front_ends_at_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = site.front_end(), site.front_end()
    made = one.access.create_token("a", READ)
    assert other.takes(made.text)
    wait_until(lambda: vars(vars(other.access)["_register"])["_is_watched"] and other.takes(made.text))
    monkeypatch.setattr(register, "FRESH_S", 1000.0)
    one.access.revoke_token(made.record.id)
    assert other.refuses_within_a_moment(made.text)


def test_in_calm_times_the_store_is_asked_once_a_second_whatever_is_asked_of_us(site: Site) -> None:
    front_end = site.front_end()
    made = front_end.access.create_token("a", READ)
    wait_until(lambda: front_end.takes(made.text) and vars(vars(front_end.access)["_register"])["_is_watched"])
    before, begun = front_end.store.lists, time.monotonic()
    for _ in range(2000):
        assert front_end.takes(made.text)
    assert front_end.store.lists - before <= time.monotonic() - begun + 2


def test_tokens_are_good_though_the_store_is_away_as_long_as_the_tree_knows_of_no_change(site: Site) -> None:
    one, other = site.front_end(), site.front_end()
    made = one.access.create_token("a", READ)
    assert other.takes(made.text)
    other.store.is_cut = True
    other.monotonic.ahead += 30
    assert other.takes(made.text)

    # Somebody who still reaches the store revokes it.
    one.access.revoke_token(made.record.id)

    other.monotonic.ahead += 2
    with pytest.raises(StoreUnavailable):
        other.access.authenticate(made.text)
    other.store.is_cut = False
    wait_until(lambda: not other.takes(made.text))


def test_the_tree_stands_in_for_the_store_for_a_while_only(site: Site) -> None:
    front_end = site.front_end()
    made = front_end.access.create_token("a", READ)
    assert front_end.takes(made.text)
    front_end.store.is_cut = True
    front_end.monotonic.ahead += WITNESS_S + 1
    with pytest.raises(StoreUnavailable):
        front_end.access.authenticate(made.text)


def test_with_neither_store_nor_tree_nobody_is_let_in_and_nobody_is_told_that_they_are_unknown(site: Site) -> None:
    front_end = site.front_end()
    made = front_end.access.create_token("a", READ)
    assert front_end.takes(made.text)
    front_end.store.is_cut = front_end.line.is_cut = True
    front_end.monotonic.ahead += 2
    with pytest.raises(StoreUnavailable):
        front_end.access.authenticate(made.text)
    with pytest.raises(StoreUnavailable):
        front_end.access.decide(Person(ADA), Action.READ, "team")


def test_a_front_end_that_starts_without_the_store_lets_nobody_in(site: Site) -> None:
    made = site.front_end().access.create_token("a", READ)
    late = site.front_end()
    late.store.is_cut = True
    with pytest.raises(StoreUnavailable):
        late.access.authenticate(made.text)


def test_a_store_that_hangs_keeps_nobody_waiting_for_long(site: Site) -> None:
    front_end = site.front_end()
    made = front_end.access.create_token("a", READ)
    assert front_end.takes(made.text)
    front_end.store.goes_on.clear()
    for _ in range(3):
        front_end.monotonic.ahead += 2
        begun = time.monotonic()
        assert front_end.takes(made.text)
        assert time.monotonic() - begun < MOMENT_S


def test_c17_a_lost_tree_loses_no_token_and_brings_none_back(site: Site) -> None:
    one, other = site.front_end(), site.front_end()
    kept, gone = one.access.create_token("kept", READ), one.access.create_token("gone", READ)
    one.access.grant(ADA, Role.VIEWER, "team")
    assert other.takes(gone.text)
    one.access.revoke_token(gone.record.id)

    wipe(one.line.real)

    late = site.front_end()
    for front_end in (one, other, late):
        wait_until(lambda front_end=front_end: not front_end.takes(gone.text))  # type: ignore[misc]
        assert front_end.takes(kept.text)
        assert isinstance(front_end.access.decide(Person(ADA), Action.READ, "team"), Allowed)


def test_a_tree_that_was_made_anew_says_nothing_of_what_it_has_not_been_told(site: Site) -> None:
    one, other = site.front_end(), site.front_end()
    made = one.access.create_token("a", READ)
    assert other.takes(made.text)
    wait_until(lambda: other.line.read(paths.ACCESS_NEWS) is not None)
    other.store.is_cut = True
    wipe(one.line.real)
    Tree(one.line, lambda: new_epoch(one.store))
    one.line.is_cut = True
    assert not one.access.revoke_token(made.record.id).is_told

    other.monotonic.ahead += 2
    with pytest.raises(StoreUnavailable):
        other.access.authenticate(made.text)


# Lost answers, two writers, deaths


@pytest.mark.parametrize("took_effect", [True, False])
def test_a_lost_answer_makes_one_change(site: Site, took_effect: bool) -> None:
    front_end = site.front_end()
    made = front_end.access.create_token("a", READ)
    front_end.store.loses_answers = [took_effect]
    front_end.access.revoke_token(made.record.id)
    assert not front_end.takes(made.text)
    assert len(front_end.store.list(keys.ACCESS_CHANGES)) == 2


def test_revoking_again_does_nothing_and_tells_the_tree_what_somebody_who_died_did_not(site: Site) -> None:
    one, other = site.front_end(), site.front_end()
    made = one.access.create_token("a", READ)
    one.line.is_cut = True
    assert not one.access.revoke_token(made.record.id, actor="first").is_told
    assert other.access.revoke_token(made.record.id, actor="second").is_told
    [record] = other.access.tokens()
    assert record.revoked_by == "first"
    assert len(one.store.list(keys.ACCESS_CHANGES)) == 2


def test_a_maker_that_dies_before_the_tree_is_told_has_revoked_all_the_same(site: Site) -> None:
    one, other = site.front_end(), site.front_end()
    made = one.access.create_token("a", READ)
    assert other.takes(made.text)

    def dies(*operations: Operation) -> object:
        raise SystemExit

    one.line.commit = dies  # type: ignore[method-assign,assignment]
    with pytest.raises(SystemExit):
        one.access.revoke_token(made.record.id)

    assert other.refuses_within_a_moment(made.text)


@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", range(3))
def test_whoever_dies_at_any_write_of_a_revocation_leaves_a_whole_state(
    site: Site, step: int, is_done: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = site.front_end(), site.front_end()
    made = one.access.create_token("a", READ)
    one.audit.close()
    steps = _dying(one, step, is_done, monkeypatch)
    with pytest.raises(SystemExit):
        one.access.revoke_token(made.record.id)
    # The audit, the change, the tree.
    is_revoked = (step, is_done) >= (1, True)
    late = site.front_end()
    for front_end in (other, late):
        if is_revoked:
            wait_until(lambda front_end=front_end: not front_end.takes(made.text))  # type: ignore[misc]
        else:
            assert front_end.takes(made.text)
    assert len(steps) == step + 1
    assert other.access.revoke_token(made.record.id).is_told
    assert late.refuses_within_a_moment(made.text)
    assert len(late.store.list(keys.ACCESS_CHANGES)) == 2
    assert [entry.what for entry in late.audit.list()][:2] == ["token.create", "token.revoke"]


def _dying(front_end: FrontEnd, at: int, is_done: bool, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have a front end die at a write of its, before or after that takes effect; the writes that it came to."""
    steps: list[str] = []
    writer = threading.get_ident()

    def dying(name: str, write: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            if threading.get_ident() != writer:
                return write(*arguments)
            steps.append(name)
            is_last = len(steps) == at + 1
            if is_last and not is_done:
                raise SystemExit
            answer = write(*arguments)
            if is_last:
                raise SystemExit
            return answer

        return call

    for name in ("put", "put_if_absent"):
        monkeypatch.setattr(front_end.store, name, dying(name, getattr(front_end.store, name)))
    monkeypatch.setattr(front_end.line, "commit", dying("commit", front_end.line.commit))
    return steps


def test_of_many_who_change_at_once_everybody_gets_through_and_nothing_is_lost(site: Site) -> None:
    front_ends = [site.front_end() for _ in range(4)]
    failed: list[BaseException] = []

    def change(index: int) -> None:
        try:
            access = front_ends[index].access
            for number in range(8):
                access.grant(f"p{index}.{number}@example.org", Role.VIEWER)
                made = access.create_token(f"{index}.{number}", READ)
                access.revoke_token(made.record.id)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=change, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    late = site.front_end().access
    assert {grant.subject for grant in late.roles()} == {f"p{i}.{n}@example.org" for i in range(4) for n in range(8)}
    assert {record.state(time.time()) for record in late.tokens()} == {"revoked"}
    assert len(late.tokens()) == 32


def test_who_begins_from_a_checkpoint_knows_what_those_know_who_saw_every_change(site: Site) -> None:
    one = site.front_end()
    texts = []
    for number in range(CHECKPOINT + 3):
        one.access.grant(f"p{number}@example.org", Role.VIEWER, "team")
        if number % 10 == 0:
            texts.append(one.access.create_token(str(number), READ))
        if number % 20 == 0:
            one.access.revoke_token(texts[-1].record.id)
    one.access.set_visibility("team", Visibility.INTERNAL)
    late = site.front_end()
    assert late.access.tokens() == one.access.tokens()
    assert late.access.grants() == one.access.grants()
    assert [late.takes(made.text) for made in texts] == [index % 2 == 1 for index in range(len(texts))]


def test_what_a_later_version_wrote_lets_nobody_in(site: Site) -> None:
    front_end = site.front_end()
    made = front_end.access.create_token("a", READ)
    change = {"format": 1, "number": 2, "change": {"type": "token-suspended", "id": made.record.id}}
    front_end.store.put(keys.access_change(2), json.dumps(change).encode())
    front_end.monotonic.ahead += 2
    with pytest.raises(InvalidDocument, match="token-suspended"):
        front_end.access.authenticate(made.text)


def test_a_hole_in_the_changes_lets_nobody_in(site: Site) -> None:
    front_end = site.front_end()
    made = front_end.access.create_token("a", READ)
    front_end.access.revoke_token(made.record.id)
    front_end.access.grant(ADA, Role.VIEWER)
    front_end.store.delete(keys.access_change(2))
    with pytest.raises(InvalidDocument, match="is missing"):
        site.front_end().access.authenticate(made.text)


def test_s9_a_copy_of_the_store_lets_in_whom_the_original_lets_in(site: Site, tmp_path: Path) -> None:
    one = site.front_end()
    kept, gone = one.access.create_token("kept", READ), one.access.create_token("gone", READ)
    one.access.grant(ADA, Role.VIEWER, "team")
    one.access.revoke_token(gone.record.id)
    one.audit.close()
    copied = Address(str(tmp_path / "copy")).open()
    backup.copy(one.store, copied)
    there = FrontEnd(copied, site.front_end().line)
    assert there.takes(kept.text)
    assert not there.takes(gone.text)
    assert there.access.roles() == one.access.roles()
    assert [*there.audit.list()] == [*one.audit.list()]
    with pytest.raises(AlreadyExists):
        backup.check_empty(copied)


# The state


def test_a_revoked_token_stays_so_whatever_comes_after() -> None:
    record = states.TokenRecord("ab" * 32, "a", 1.0, "ada", 2.0, scopes=(Action.READ,))
    state = states.apply(State(), 1, states.token_created(record))
    revoked = replace(record, revoked_s=1.5, revoked_by="bob")
    state = states.apply(state, 2, states.token_revoked(revoked))
    state = states.apply(state, 3, states.token_created(record))
    assert state.tokens[record.digest].state(1.6) == "revoked"


def test_tokens_that_ended_long_ago_are_forgotten_and_so_refused() -> None:
    record = states.TokenRecord("ab" * 32, "a", 1.0, "ada", 2.0, scopes=(Action.READ,))
    state = states.apply(State(), 1, states.token_created(record))
    assert states.pruned(state, 2.0 + states.KEPT_S - 1).tokens
    assert not states.pruned(state, 2.0 + states.KEPT_S).tokens


def test_a_state_is_what_its_json_says() -> None:
    record = states.TokenRecord("ab" * 32, "a", 1.0, "ada", 2.0, scopes=(Action.READ,), groups=("g",), person=ADA)
    state = states.apply(State(), 1, states.token_created(record))
    state = states.apply(state, 2, states.role_granted(Grant("group:g", Role.OWNER, "team")))
    state = states.apply(state, 3, states.visibility_set("team", Visibility.PUBLIC))
    document = json.loads(json.dumps(states.to_json(state)))
    assert states.from_json(3, document) == state
