"""Threads that wait for others are bounded, and so is the wait for one of them."""

from __future__ import annotations

from threading import Event

import anyio
import pytest
from coroutines import run_coroutine

from distci.errors import Unavailable
from distci.frontend.threads import Threads


def test_when_all_threads_wait_whoever_comes_is_told_to_come_again() -> None:
    run_coroutine(_all_wait)


async def _all_wait() -> None:
    threads, store = Threads(2), Event()
    begun: list[int] = []

    def ask(number: int) -> None:
        begun.append(number)
        store.wait()

    async with anyio.create_task_group() as group:
        for number in range(2):
            group.start_soon(threads.run, ask, number)
        while len(begun) < 2:
            await anyio.sleep(0.01)
        with pytest.raises(Unavailable, match="all threads"):
            await threads.run(ask, 2, wait_max_s=0.1)
        store.set()
    assert sorted(begun) == [0, 1]
    assert await threads.run(lambda: "served") == "served"


def test_who_leaves_waits_no_longer_and_the_thread_counts_until_it_has_ended() -> None:
    run_coroutine(_one_leaves)


async def _one_leaves() -> None:
    threads, store = Threads(1), Event()
    with anyio.move_on_after(0.1) as left:
        await threads.run(store.wait)
    assert left.cancelled_caught
    with pytest.raises(Unavailable, match="all threads"):
        await threads.run(lambda: "served", wait_max_s=0.1)
    store.set()
    assert await threads.run(lambda: "served") == "served"
