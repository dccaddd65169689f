"""Numbers that are given out in the store, and no index of them."""

from __future__ import annotations

from collections.abc import Callable


def last_number(is_beyond: Callable[[int], bool], known: int = 0) -> int:
    """The highest number in use, found by doubling and halving: some 2 log2(n) questions, ``n`` being how far it is from the ``known`` one.

    ``is_beyond`` tells whether any is in use behind a number.
    """
    if not is_beyond(known):
        return known
    low, step = known, 1
    while is_beyond(low + step):
        low, step = low + step, step * 2
    high = low + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_beyond(middle) else (low, middle)
    return high
