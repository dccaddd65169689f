"""Events: one order, no gaps, each thing once, whoever appends and whatever becomes of the answer."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event as Stop

import pytest

from distci import events as events_module
from distci.errors import StoreUnavailable
from distci.events import BEGUN, ENDED, GAP, LOOKED_BACK, SWEPT_AT_ONCE, SWEPT_EVERY, UNREADABLE, Event, Events
from distci.model import BuildId
from distci.retention import Retention
from distci.store import keys
from distci.store.directory import DirectoryStore
from distci.store.numbers import last_number
from distci.store.passing import PassingStore
from distci.store.port import ObjectInfo, objects
from distci.views import to_bytes

BUILD = BuildId("team/hello", 1)


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path, durable=False)


def told(events: Events) -> list[tuple[str, str]]:
    return [(event.kind, event.build) for event in events.after(0, 10_000)]


def test_many_who_append_at_once_get_dense_numbers(store: DirectoryStore) -> None:
    # Given many that know of nothing of each other
    many = [Events(store) for _ in range(8)]
    builds = [BuildId("team/hello", number) for number in range(1, 161)]
    # When they append at once
    with ThreadPoolExecutor(8) as pool:
        numbers = [*pool.map(lambda build: many[build.number % 8].append(BEGUN, build), builds)]
    # Then each event has a number of its own, and none is left out
    assert sorted(numbers) == [*range(1, 161)]
    assert sorted(build for _, build in told(Events(store))) == sorted(map(str, builds))


def test_an_event_says_what_it_was_given(store: DirectoryStore) -> None:
    events = Events(store, clock=lambda: 12.5)
    assert events.append(ENDED, BUILD, result="passed") == 1
    (event,) = events.after(0, 10)
    assert (event.number, event.kind, event.build, event.at_ms) == (1, ENDED, "team/hello#1", 12500)
    assert event.more == {"result": "passed"}
    assert events.after(1, 10) == []


def test_what_may_have_been_appended_is_found(store: DirectoryStore) -> None:
    # Given the events of two builds
    events, other = Events(store), BuildId("team/hello", 2)
    events.append(BEGUN, BUILD)
    events.append(BEGUN, other)
    # When each is appended again, by somebody else
    again = Events(store)
    assert again.append_again(BEGUN, BUILD) == 1
    assert again.append_again(ENDED, BUILD) == 3
    assert again.append_again(ENDED, BUILD) == 3
    # Then it is there once; and one that has ended has begun
    assert again.append_again(BEGUN, BUILD) == 3
    assert told(events) == [(BEGUN, str(BUILD)), (BEGUN, str(other)), (ENDED, str(BUILD))]


class LosingAnswers(PassingStore):
    """A store whose answers to appending are lost."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        super().put_if_absent(key, data)
        raise StoreUnavailable("the answer was lost")


def test_an_answer_that_was_lost_is_found_out(store: DirectoryStore) -> None:
    Events(store).append(BEGUN, BUILD)
    assert Events(LosingAnswers(store)).append(ENDED, BUILD) == 2
    assert told(Events(store)) == [(BEGUN, str(BUILD)), (ENDED, str(BUILD))]


def test_one_that_cannot_be_read_stops_nobody(store: DirectoryStore) -> None:
    events = Events(store)
    events.append(BEGUN, BUILD)
    store.put(keys.event(2), b"nonsense")
    store.put(keys.event(3), b"{}")
    events.append(ENDED, BUILD)
    assert [event.kind for event in events.after(0, 10)] == [BEGUN, UNREADABLE, UNREADABLE, ENDED]


def test_numbers_go_on_behind_those_that_were_swept(store: DirectoryStore) -> None:
    events = Events(store)
    for number in range(1, 1201):
        store.put(keys.event(number), b"{}")
    for number in range(1, 1100):
        store.delete(keys.event(number))
    assert Events(store).last() == 1200
    assert events.append(BEGUN, BUILD) == 1201
    assert keys.event_of(keys.event(1201)) == 1201


def fill(store: DirectoryStore, numbers: range) -> None:
    for number in numbers:
        store.put(keys.event(number), to_bytes({"f": 1, "kind": BEGUN, "build": str(BUILD), "at_ms": 0}))


def numbers(found: Iterable[Event]) -> list[tuple[str, int]]:
    return [(event.kind, event.number) for event in found]


def test_who_was_behind_what_was_removed_is_told_from_where_it_goes_on(store: DirectoryStore) -> None:
    # Given events of which the first six are gone, also from where they were read before
    events = Events(store)
    fill(store, range(1, 10))
    events.after(0, 100)
    for number in range(1, 7):
        store.delete(keys.event(number))
    for reader in (events, Events(store)):
        # When somebody goes on from among those
        for number in (0, 3, 5):
            gap, *behind = reader.after(number, 100)
            # Then they are told that there is a gap, and all behind it
            assert (gap.kind, gap.number, gap.build, gap.more) == (GAP, 6, "", {"after": number})
            assert numbers(behind) == [(BEGUN, 7), (BEGUN, 8), (BEGUN, 9)]
        # And who has seen the last that is gone, or any later one, misses nothing
        assert numbers(reader.after(6, 2)) == [(BEGUN, 7), (BEGUN, 8)]
        assert numbers(reader.after(8, 100)) == [(BEGUN, 9)]
        assert reader.after(9, 100) == []
        assert numbers(reader.after(3, 1)) == [(GAP, 6)]
        assert reader.after(3, 0) == []
    assert [event.number for event in Events(store).before()] == [9, 8, 7]
    assert [event.number for event in Events(store).before(10**9)] == [9, 8, 7]
    assert [*Events(store).before(7)] == []


def test_who_knows_a_number_that_is_not_given_out_yet_is_told_that_numbers_have_begun_anew(
    store: DirectoryStore,
) -> None:
    assert Events(store).after(0, 5) == []
    [gap] = Events(store).after(500, 5)
    assert (gap.kind, gap.number, gap.more) == (GAP, 0, {"after": 500})
    fill(store, range(1, 4))
    assert numbers(Events(store).after(500, 3)) == [(GAP, 0), (BEGUN, 1), (BEGUN, 2)]


def test_who_remembers_events_of_a_store_that_was_wiped_is_told_those_that_are_there(store: DirectoryStore) -> None:
    # Given a process that has read events, a store that was wiped, and another process that appended since
    events, other = Events(store), BuildId("team/other", 1)
    fill(store, range(1, 4))
    assert len(events.after(0, 10)) == 3
    for number in range(1, 4):
        store.delete(keys.event(number))
    assert Events(store).append(BEGUN, other) == 1
    # When the first goes on
    gap, *behind = events.after(3, 10)
    # Then it is told of what is there now
    assert (gap.kind, gap.number, gap.more) == (GAP, 0, {"after": 3})
    assert [event.build for event in behind] == [str(other)]
    assert events.last() == 1


def test_what_is_kept_is_bounded_in_number_and_in_age_and_the_last_ones_stay(store: DirectoryStore) -> None:
    # Given more events than are kept, and readers that look on
    fill(store, range(1, LOOKED_BACK + 200))
    keeping = Events(store, retention=Retention(LOOKED_BACK + 100, 3600.0))

    def kept() -> int:
        return sum(1 for _ in objects(store, keys.EVENTS))

    # When others are appended
    for _ in range(SWEPT_EVERY * 8):
        keeping.append(BEGUN, BUILD)
    # Then so many are kept as are to be, and numbers go on
    assert LOOKED_BACK + 100 <= kept() < LOOKED_BACK + 100 + SWEPT_EVERY
    last = keeping.last()
    assert last == LOOKED_BACK + 199 + SWEPT_EVERY * 8
    # And of those that are too old none is, but those that one is looked for among
    later = Events(store, clock=lambda: time.time() + 7200, retention=Retention(10**6, 3600.0))
    for _ in range(SWEPT_EVERY * 6):
        later.append(BEGUN, BUILD)
    assert LOOKED_BACK <= kept() < LOOKED_BACK + SWEPT_EVERY
    assert later.append_again(BEGUN, BUILD) == later.last()
    assert numbers(Events(store).after(0, 1)) == [(GAP, later.last() - kept())]
    # And without a retention all are
    before = kept()
    for _ in range(SWEPT_EVERY):
        Events(store).append(BEGUN, BUILD)
    assert kept() == before + SWEPT_EVERY


class DyingAmongDeletions(PassingStore):
    """A store that is away from the third deletion on."""

    deletions = 0

    def delete(self, key: str) -> None:
        self.deletions += 1
        if self.deletions == 3:
            raise StoreUnavailable("away")
        super().delete(key)


def test_what_fails_while_old_ones_are_removed_is_no_failure_to_append_and_leaves_no_hole(
    store: DirectoryStore,
) -> None:
    # Given many events too many, and a store that fails in the middle of their removal
    count = LOOKED_BACK + SWEPT_AT_ONCE * 2 - SWEPT_EVERY - 1
    count -= count % SWEPT_EVERY + 1
    fill(store, range(1, count + 1))
    failing = DyingAmongDeletions(store)
    # When one is appended
    assert Events(failing, retention=Retention(LOOKED_BACK, 3600.0)).append(BEGUN, BUILD) == count + 1
    # Then what is gone are the first, and whoever appends next goes on there
    assert keys.event_of(store.list(keys.EVENTS)[0].key) == 3
    for _ in range(SWEPT_EVERY):
        Events(store, retention=Retention(LOOKED_BACK, 3600.0)).append(BEGUN, BUILD)
    found = [keys.event_of(info.key) for info in objects(store, keys.EVENTS)]
    assert found == [*range(found[0], count + SWEPT_EVERY + 2)]
    assert found[0] > 3


class Late(PassingStore):
    """A store of which a listing lacks the first of what there is: it was put there while the listing was made."""

    def list(self, prefix: str, after: str = "", limit: int = 1000) -> Sequence[ObjectInfo]:
        return super().list(prefix, after, limit)[1:]


def test_what_a_listing_has_missed_is_no_gap(store: DirectoryStore) -> None:
    fill(store, range(1, 4))
    assert numbers(Events(Late(store)).after(0, 10))[0] == (BEGUN, 1)
    assert GAP not in {event.kind for event in Events(Late(store)).after(1, 10)}


def test_who_follows_is_told_of_a_gap_too_and_stops_when_told_to(store: DirectoryStore) -> None:
    fill(store, range(1, 6))
    store.delete(keys.event(1))
    stop = Stop()
    told = []
    for event in Events(store).follow(0, stop):
        told.append((event.kind, event.number))
        if event.number == 5:
            stop.set()
    assert told == [(GAP, 1), (BEGUN, 2), (BEGUN, 3), (BEGUN, 4), (BEGUN, 5)]


def test_who_is_woken_by_nobody_looks_by_themselves(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given somebody who follows, where whoever appends dies before it wakes anybody
    monkeypatch.setattr(events_module, "LOOK_S", 0.05)
    monkeypatch.setattr(events_module, "SLICE_S", 0.01)
    following = Events(store).follow(0)
    with ThreadPoolExecutor(1) as pool:
        heard = pool.submit(next, following)
        # When something happens
        Events(store).append(BEGUN, BUILD)
        # Then they hear of it all the same
        assert heard.result(timeout=30).build == str(BUILD)


@pytest.mark.parametrize("last", [0, 1, 2, 3, 999, 1000, 1001, 123_456])
@pytest.mark.parametrize("known", [0, 1, 900])
def test_the_last_number_is_found_from_wherever(last: int, known: int) -> None:
    asked: list[int] = []

    def is_beyond(number: int) -> bool:
        asked.append(number)
        return number < last

    assert last_number(is_beyond, min(known, last)) == last
    assert len(asked) < 40
