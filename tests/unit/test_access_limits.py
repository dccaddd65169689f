"""How often somebody may ask."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distci.access.limits import Bucket, Limits, Rate, take
from distci.errors import Invalid


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("text", "rate"),
    [("20/s", Rate(20, 20)), ("600/m", Rate(10, 600)), ("36/h", Rate(0.01, 36)), ("1/d", Rate(1 / 86400, 1))],
)
def test_a_rate_is_read(text: str, rate: Rate) -> None:
    assert Rate.parse(text) == rate


@pytest.mark.parametrize("text", ["", "0/s", "-1/s", "1", "1/y", "1.5/s", "1/s ", "9999999999/s"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        Rate.parse(text)


def test_a6_who_asks_too_often_waits_and_others_do_not() -> None:
    clock = Clock()
    limits = Limits(Rate.parse("3/s"), clock)
    assert [limits.take("ada") for _ in range(3)] == [0, 0, 0]
    assert limits.take("ada") == pytest.approx(1 / 3)
    assert limits.take("bob") == 0
    clock.now += 1 / 3
    assert limits.take("ada") == pytest.approx(0)


def test_a_cost_that_never_fits_is_refused_at_once() -> None:
    with pytest.raises(Invalid):
        Limits(Rate.parse("3/s")).take("ada", 4)


def test_only_so_many_names_are_remembered() -> None:
    limits = Limits(Rate.parse("1/d"), Clock(), names_max=100)
    for number in range(1000):
        limits.take(str(number))
    assert len(vars(limits)["_buckets"]) == 100
    assert limits.take("999") > 0


@given(
    st.floats(0.01, 100),
    st.integers(1, 50),
    st.lists(st.tuples(st.floats(0, 10), st.integers(1, 50)), max_size=50),
)
def test_never_more_than_burst_and_rate_allow_and_who_waits_as_told_is_let_through(
    per_s: float, burst: int, asked: list[tuple[float, int]]
) -> None:
    rate, bucket, now_s, taken = Rate(per_s, burst), None, 0.0, 0.0
    for pause_s, cost in asked:
        now_s += pause_s
        cost = min(cost, burst)
        bucket, wait_s = take(rate, bucket, now_s, cost)
        assert 0 <= bucket.level <= burst
        if wait_s:
            _, again_s = take(rate, bucket, now_s + wait_s * 1.0001 + 1e-6, cost)
            assert again_s == 0
        else:
            taken += cost
        assert taken <= burst + per_s * now_s + 1e-6


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    rate = Rate(1, 10)
    bucket, _ = take(rate, Bucket(0, 100.0), 50.0)
    assert bucket == Bucket(0, 100.0)
