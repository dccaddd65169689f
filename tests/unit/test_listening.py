"""Percents in what is printed, and silences."""

from __future__ import annotations

from threading import Event
from time import monotonic

import pytest

from distci.documents.jobs import job_from_json
from distci.errors import Invalid, InvalidJob
from distci.listening import Ear, Progress


@pytest.mark.parametrize(
    ("pattern", "printed", "percents"),
    [
        ("([0-9]+)%", [b"10% 20%\n", b"30%\n"], [20, 30]),
        ("([0-9]+)/([0-9]+)", [b"1/3\n"], [33]),
        ("([0-9]+)/([0-9]+)", [b"1/0\n"], []),
        ("([0-9.]+)%", [b"1.2.3%\n", b"250%"], [100]),
        (r"(\S+)%", [b"nan%\n", b"-inf%\n", b"1e999%"], [0, 100]),
        ("([0-9]+)%", [b"\xff 40", b"%\n"], [40]),
        ("([0-9]+)%", [b"40%\n", b"40%\n"], [40]),
    ],
)
def test_the_last_match_counts(pattern: str, printed: list[bytes], percents: list[int]) -> None:
    told: list[int] = []
    progress = Progress(pattern, told.append)
    for data in printed:
        progress.hear(data)
        progress.look()
    assert told == percents


def test_no_pattern_and_no_text_can_take_long() -> None:
    progress = Progress("(([0-9]+)*)*%".replace("(([0-9]+)*)*", "((?:[0-9]+)*)"), lambda percent: None)
    began = monotonic()
    for _ in range(100):
        progress.hear(b"1" * 1_000_000)
        progress.look()
    assert monotonic() - began < 10


@pytest.mark.parametrize(
    ("pattern", "said"), [("([0-9]%", "missing"), ("[0-9]+%", "needs one group"), (r"(a)\1", "escape")]
)
def test_a_pattern_that_is_none_is_refused_with_the_job(pattern: str, said: str) -> None:
    task = {"name": "a", "type": "shell", "script": "true", "progress": pattern}
    with pytest.raises(InvalidJob, match="progress") as refused:
        job_from_json({"job": "a", "tasks": [task]})
    assert said in str(refused.value)
    assert issubclass(InvalidJob, Invalid)


def test_each_silence_is_told_once() -> None:
    told, called = [], Event()

    def call(silence_s: float) -> None:
        told.append(silence_s)
        called.set()

    with Ear(0.05, call) as ear:
        for _ in range(3):
            assert called.wait(30)
            called.clear()
            # Nothing more is said of this one
            assert not called.wait(0.2)
            ear.hear()
        assert called.wait(30)
    assert len(told) == 4
