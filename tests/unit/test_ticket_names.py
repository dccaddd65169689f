"""The names that waiting tickets have in the tree: what they say comes back, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distci.errors import Invalid
from distci.protocol.paths import Name


@given(st.integers(0, 9), st.integers(0, 32**9 - 1), st.integers(1, 99), st.sampled_from(["", "abc123", "!abc123"]))
def test_a_name_comes_back_and_sorts_by_time(priority: int, time_ms: int, attempt: int, reserved: str) -> None:
    name = Name(priority, "0000", time_ms, "team-job-1.build", attempt, reserved)
    assert Name.parse(str(name)) == name
    assert str(Name(priority, "0000", 0, "a", 1)) <= str(name)


@pytest.mark.parametrize(
    "time", ["01p00000i", "01p00000l", "01p0000_1", "+1p000001", " 1p000001", "01P000001", "01p00000é", "01p00"]
)
def test_a_time_that_is_none_is_refused(time: str) -> None:
    with pytest.raises(Invalid, match="is not the name of a waiting ticket"):
        Name.parse(f"5-0000-{time}-ticket.1")
