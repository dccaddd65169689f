"""Bodies of senders who have proved nothing: so many at once, so many bytes, so long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from coroutines import run_coroutine
from starlette.requests import Request
from starlette.types import Message

from distci.errors import Unavailable
from distci.frontend import bodies
from distci.frontend.bodies import Intake
from distci.frontend.problems import BadRequest

MOST = 1000


def request(receive: Callable[[], Awaitable[Message]]) -> Request:
    return Request({"type": "http", "method": "POST", "path": "/", "headers": []}, receive)


def whole(size: int) -> Request:
    async def receive() -> Message:
        return {"type": "http.request", "body": b"x" * size, "more_body": False}

    return request(receive)


def slow() -> Request:
    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    return request(receive)


def test_bodies_are_bounded_in_number_for_each_sender_and_for_all() -> None:
    async def run() -> None:
        intake = Intake(bodies_max=8, bytes_max=MOST)
        held = [asyncio.ensure_future(_hold(intake, f"sender-{number // 2}")) for number in range(8)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="send it again"):
            async with intake.read(whole(1), "another", MOST):
                pass
        for each in held:
            each.cancel()

    async def _hold(intake: Intake, sender: str) -> None:
        async with intake.read(slow(), sender, MOST):
            pass

    run_coroutine(run)


def test_one_sender_leaves_room_for_others_and_what_has_ended_gives_its_room_back() -> None:
    async def run() -> None:
        intake = Intake(bodies_max=8, bytes_max=MOST)
        async with intake.read(whole(400), "one", MOST), intake.read(whole(400), "one", MOST):
            with pytest.raises(Unavailable):
                async with intake.read(whole(1), "one", MOST):
                    pass
            with pytest.raises(Unavailable, match="bytes"):
                async with intake.read(whole(300), "other", MOST):
                    pass
            async with intake.read(whole(200), "other", MOST) as body:
                assert len(body) == 200
        async with intake.read(whole(1000), "one", MOST) as body:
            assert len(body) == 1000

    run_coroutine(run)


def test_who_is_slow_is_told_so_and_holds_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "INTAKE_TIME_MAX_S", 0.05)

    async def run() -> None:
        intake = Intake(bodies_max=1, bytes_max=MOST)
        with pytest.raises(BadRequest) as error:
            async with intake.read(slow(), "one", MOST):
                pass
        assert error.value.status == 408
        async with intake.read(whole(1), "one", MOST) as body:
            assert body == b"x"

    run_coroutine(run)
