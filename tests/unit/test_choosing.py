"""Which waiting ticket is tried first: turns between projects, priorities, ageing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest

from distci.protocol import paths
from distci.protocol.choosing import AGEING_MS, WINDOW, Turns, choose, place, urgency

NOW_MS = 100 * AGEING_MS


def name(ticket: str, project: str = "a", priority: int = 5, classes_waited: float = 0) -> paths.Name:
    return paths.Name(priority, project, NOW_MS - int(classes_waited * AGEING_MS), ticket, 1)


def many(count: int, project: str, priority: int = 5, classes_waited: float = 0) -> list[paths.Name]:
    return [name(f"{project}{number}", project, priority, classes_waited) for number in range(count)]


class Claimer:
    """Claims from a queue in memory, one after the other."""

    def __init__(self, queue: Sequence[paths.Name], seed: int = 0, **weights: float) -> None:
        self.queue = list(queue)
        self._weights = weights
        self._turns = Turns()
        self._random = Random(seed)

    def claim(self, now_ms: int = NOW_MS) -> paths.Name:
        [first] = choose(self.queue, now_ms, self._random, 1, self._turns)
        self.queue.remove(first)
        self._turns.took(first.project, self._weights.get(first.project, 1.0))
        return first

    def claim_many(self, count: int) -> list[paths.Name]:
        return [self.claim() for _ in range(count)]


def test_nothing_is_chosen_where_nothing_waits() -> None:
    assert choose([], NOW_MS, Random(0), 3, Turns()) == ()


@pytest.mark.parametrize("first", [1, paths.attempts_before(2) + 1])
def test_what_comes_back_from_a_lost_worker_goes_before_the_rest_of_its_project(first: int) -> None:
    waiting = [paths.Name(5, "a", NOW_MS - 2 * WINDOW + number, f"a{number}", first) for number in range(2 * WINDOW)]
    back = paths.Name(5, "a", NOW_MS, "back", first + 1)
    urgent = paths.Name(4, "a", NOW_MS, "urgent", first)
    claimer = Claimer([*waiting, back, urgent])

    assert claimer.claim_many(2) == [urgent, back]
    assert place(back, [*waiting, urgent], NOW_MS, {}) == 2


@pytest.mark.parametrize("hours", [0, 1, 5])
@pytest.mark.parametrize("served", [0, 7])
@pytest.mark.parametrize("seed", range(5))
def test_c9_a_project_that_comes_to_a_long_queue_starts_within_two_claims(seed: int, served: int, hours: int) -> None:
    claimer = Claimer(many(1000, "a", classes_waited=4 * hours), seed)
    claimer.claim_many(served)
    claimer.queue.append(name("first of b", "b"))
    assert "first of b" in [claimed.ticket for claimed in claimer.claim_many(2)]


def test_c9_projects_take_turns_however_many_tickets_they_have() -> None:
    claimer = Claimer([*many(900, "a"), *many(90, "b"), *many(60, "c")])
    assert Counter(claimed.project for claimed in claimer.claim_many(150)) == {"a": 50, "b": 50, "c": 50}


def test_a_project_of_weight_three_has_three_claims_for_one_of_another() -> None:
    claimer = Claimer([*many(200, "a"), *many(200, "b")], a=3)
    assert Counter(claimed.project for claimed in claimer.claim_many(80)) == {"a": 60, "b": 20}


def test_a_project_that_was_away_has_nothing_to_catch_up_with() -> None:
    claimer = Claimer([*many(200, "a"), name("b", "b")])
    claimer.claim_many(100)
    claimer.queue += many(50, "b")
    assert Counter(claimed.project for claimed in claimer.claim_many(20)) == {"a": 10, "b": 10}


def test_claimers_that_know_nothing_begin_with_different_projects() -> None:
    queue = [*many(5, "a"), *many(5, "b")]
    assert {Claimer(queue, seed).claim().project for seed in range(20)} == {"a", "b"}


def test_c9_the_most_urgent_goes_first_whatever_its_project() -> None:
    urgent = many(3, "a", priority=1)
    claimer = Claimer([*many(50, "a"), *many(50, "b", priority=2), *urgent])
    assert set(claimer.claim_many(3)) == set(urgent)


def test_c9_a_ticket_is_as_urgent_as_any_once_it_has_waited_fifteen_minutes_a_class() -> None:
    patient = name("patient", "a", priority=9, classes_waited=7)
    claimer = Claimer([*many(100, "b", priority=2), patient])
    assert patient in claimer.claim_many(2)


def test_c9_a_ticket_that_has_waited_less_is_not() -> None:
    patient = name("patient", "a", priority=9, classes_waited=6.99)
    claimer = Claimer([*many(100, "b", priority=2), patient])
    assert patient not in claimer.claim_many(100)


@pytest.mark.parametrize("seed", range(5))
def test_c9_nothing_overtakes_that_is_posted_a_class_later_than_the_ticket_needs_to_rise(seed: int) -> None:
    # A ticket of priority 9, and each minute two of priority 0 are posted and one is claimed, so that the queue never ends.
    patient = name("patient", priority=9)
    claimer = Claimer([patient], seed)
    minute_ms = AGEING_MS // 15
    claimed: list[paths.Name] = []
    for minute in range(15 * 60):
        now_ms = NOW_MS + minute * minute_ms
        claimer.queue += [paths.Name(0, "a", now_ms, f"{minute}-{number}", 1) for number in range(2)]
        claimed.append(claimer.claim(now_ms))
        if claimed[-1] is patient:
            break
    assert claimed[-1] is patient
    overtook_ms = max(other.time_ms for other in claimed) - patient.time_ms
    assert overtook_ms <= (patient.priority + 1) * AGEING_MS


def test_one_of_the_oldest_of_a_project_goes_first() -> None:
    queue = [paths.Name(5, "a", NOW_MS - number, f"t{number}", 1) for number in range(200)]
    firsts = {choose(queue, NOW_MS, Random(seed), 1, Turns())[0].time_ms for seed in range(200)}
    assert min(firsts) == NOW_MS - 199
    assert max(firsts) == NOW_MS - 200 + WINDOW


def test_who_finds_the_only_ticket_of_a_project_taken_has_others_to_try() -> None:
    tried = choose([name("b", "b"), *many(10, "a")], NOW_MS, Random(0), 3, Turns())
    assert len(set(tried)) == 3
    assert {other.project for other in tried} == {"a", "b"}


def test_a_ticket_from_the_future_has_waited_for_nothing() -> None:
    assert urgency(name("t", classes_waited=-3), NOW_MS) == 5


@pytest.mark.parametrize(
    ("others", "weights", "expected"),
    [
        ([], {}, 1),
        (many(1000, "b"), {}, 1),
        (many(3, "a", classes_waited=0.5), {}, 4),
        ([*many(3, "a", classes_waited=0.5), *many(1000, "b")], {}, 7),
        ([*many(3, "a", classes_waited=0.5), *many(2, "b")], {}, 6),
        ([*many(3, "a", classes_waited=0.5), *many(1000, "b")], {"b": 2.0}, 10),
        (many(4, "b", priority=1), {}, 5),
        (many(4, "b", priority=6, classes_waited=0.5), {}, 1),
    ],
)
def test_the_place_of_a_ticket_counts_the_turns_of_others(
    others: Sequence[paths.Name], weights: dict[str, float], expected: int
) -> None:
    assert place(name("mine"), others, NOW_MS, weights) == expected
