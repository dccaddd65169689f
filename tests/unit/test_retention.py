"""How many things are kept, and for how long."""

from __future__ import annotations

import pytest

from distci.retention import Retention

DAY_S = 86400.0


def test_a_text_says_how_many_and_for_how_long() -> None:
    assert Retention.parse("1000/30d") == Retention(1000, 30 * DAY_S)
    assert Retention.parse("1/36h") == Retention(1, 1.5 * DAY_S)


@pytest.mark.parametrize(
    "text", ["", "1000", "30d", "0/30d", "1000/0d", "1000/30", "1000/30m", "-1/1d", "1.5/1d", " 1/1d", "٣/1d"]
)
def test_any_other_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write for example 1000/30d"):
        Retention.parse(text)


@pytest.mark.parametrize(
    ("written_s", "count", "going"),
    [
        ([], 0, 0),
        ([90.0, 95.0, 100.0], 3, 0),
        ([90.0, 95.0, 100.0], 5, 2),
        ([90.0, 95.0], 9, 2),
        ([10.0, 20.0, 100.0], 3, 2),
        ([49.9, 50.0], 2, 1),
    ],
)
def test_the_oldest_go_that_are_too_many_or_too_old(written_s: list[float], count: int, going: int) -> None:
    assert Retention(3, 50.0).beyond(written_s, count, now_s=100.0) == going
