"""Events: one order, no gaps, each thing once, whoever appends and whatever becomes of the answer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from distci.errors import StoreUnavailable
from distci.events import BEGUN, ENDED, UNREADABLE, Events
from distci.model import BuildId
from distci.store import keys
from distci.store.directory import DirectoryStore
from distci.store.numbers import last_number
from distci.store.passing import PassingStore

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


@pytest.mark.parametrize("last", [0, 1, 2, 3, 999, 1000, 1001, 123_456])
@pytest.mark.parametrize("known", [0, 1, 900])
def test_the_last_number_is_found_from_wherever(last: int, known: int) -> None:
    asked: list[int] = []

    def is_beyond(number: int) -> bool:
        asked.append(number)
        return number < last

    assert last_number(is_beyond, min(known, last)) == last
    assert len(asked) < 40
