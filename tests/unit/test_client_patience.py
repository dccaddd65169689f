"""When a client asks again, and for how long."""

from __future__ import annotations

from threading import Event

from distci.client.patience import PAUSE_MAX_S, PAUSE_MIN_S, Patience


class Clock:
    """Stands still but for who sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.slept_s: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.now_s += seconds


def pauses(patience_s: float, share: float, at_least_s: float = 0.0) -> list[float]:
    """How long somebody waits between tries until patience ends, with that share of the jitter."""
    clock = Clock()
    patience = Patience(patience_s, clock, clock.sleep, lambda least, most: least + share * (most - least))
    while patience.again(at_least_s):
        pass
    return clock.slept_s


class TestPatience:
    def test_who_sleeps_may_say_that_nobody_waits_any_more(self) -> None:
        over = Event()
        patience = Patience(60, sleep=over.wait, random=lambda least, most: 0.0)

        assert patience.again()
        over.set()
        assert not patience.again()

    def test_pauses_grow_to_a_bound_and_end_in_time(self) -> None:
        slept = pauses(60, share=1)

        assert slept[:4] == [PAUSE_MIN_S, 2 * PAUSE_MIN_S, 4 * PAUSE_MIN_S, 8 * PAUSE_MIN_S]
        assert max(slept) == PAUSE_MAX_S
        assert 60 - PAUSE_MAX_S < sum(slept) <= 60

    def test_anything_down_to_nothing_is_added_by_chance(self) -> None:
        clock = Clock()
        asked: list[tuple[float, float]] = []
        patience = Patience(60, clock, clock.sleep, lambda least, most: asked.append((least, most)) or 0.0)  # type: ignore[func-returns-value]

        assert all(patience.again() for _ in range(3))
        assert asked == [(0.0, PAUSE_MIN_S), (0.0, 2 * PAUSE_MIN_S), (0.0, 4 * PAUSE_MIN_S)]

    def test_who_wants_to_be_left_alone_is_and_chance_comes_on_top(self) -> None:
        assert pauses(10, share=1, at_least_s=3) == [3.2, 3.4]

    def test_more_than_patience_is_not_begun(self) -> None:
        assert pauses(10, share=0, at_least_s=11) == []
