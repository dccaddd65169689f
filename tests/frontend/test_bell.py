"""A bell wakes whoever it is rung for, however many ring it at once."""

from __future__ import annotations

import asyncio
from threading import Thread

from coroutines import run_coroutine

from distci.frontend.bell import Bell, Wake

ROUNDS = 20


def test_nobody_sleeps_on_who_was_rung_for_from_several_threads() -> None:
    async def follow() -> None:
        bell = Bell()
        woken, asked = 0, list[Wake]()
        wakes = [Wake(bell) for _ in range(20)]

        async def count(wake: Wake) -> None:
            nonlocal woken
            for _ in range(ROUNDS):
                wake.begin()
                asked.append(wake)
                assert await wake.until_set(20)
                woken += 1

        def ring() -> None:
            while woken < ROUNDS * len(wakes):
                while asked:
                    try:
                        asked.pop().set()
                    except IndexError:
                        break

        ringers = [Thread(target=ring, daemon=True) for _ in range(3)]
        for ringer in ringers:
            ringer.start()
        await asyncio.gather(*map(count, wakes))
        assert woken == ROUNDS * len(wakes)

    run_coroutine(follow)
