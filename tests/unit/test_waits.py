"""Why a ticket waits, told from a picture of the tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from distci.protocol import Offer, Permit, Ticket, WorkerView, paths
from distci.protocol.records import Control
from distci.protocol.tickets import Queued
from distci.protocol.waits import Line, Situation, explain, without_heartbeat

NOW_MS = 10_000_000
MINUTE_MS = 60_000


def worker(name: str = "w", slots: int = 1, is_draining: bool = False, **offer: Sequence[str]) -> WorkerView:
    return WorkerView(name, Offer(**{"kinds": ["shell"], **offer}), slots, "host", "1", is_draining, 0)


def situation(*workers: WorkerView, **keys: Any) -> Situation:
    known: dict[str, Any] = {
        "queue": (),
        "running": {},
        "running_kinds": (),
        "heartbeats": frozenset(),
        "control": Control(0, (), {}, {}),
        "lines": {},
    }
    return Situation(now_ms=NOW_MS, workers=workers, **{**known, **keys})


def ticket(name: str = "mine", **keys: Any) -> Ticket:
    return Ticket(name, "shell", **{"posted_ms": NOW_MS - MINUTE_MS, **keys})


def queued(name: str, minutes: float = 1, priority: int = 5, kind: str = "shell", **keys: Any) -> Queued:
    text = paths.Name(priority, "0000", NOW_MS - int(minutes * MINUTE_MS), name, 1)
    return Queued(kind, keys.get("labels", ()), text, "")


@pytest.mark.parametrize(
    ("wanted", "seen", "because", "remedy"),
    [
        (ticket(), situation(), "no live worker serves shell", "start one: distci worker run shell"),
        (
            ticket(labels=["gpu=*"]),
            situation(worker()),
            "no live worker of shell offers gpu=*",
            "start one: distci worker run shell --label 'gpu=*'",
        ),
        (
            ticket(labels=["a", "b"]),
            situation(worker("v", labels=["a"]), worker("w", labels=["b"])),
            "no live worker of shell offers all of a, b at once",
            "start one: distci worker run shell --label a --label b",
        ),
        (
            ticket(),
            situation(worker(labels=["gpu"], only=["gpu"])),
            "the workers that could do it are kept for other tickets: w for gpu",
            "start one: distci worker run shell",
        ),
        (
            ticket(),
            situation(worker(is_draining=True)),
            "every worker that could do it is draining: w",
            "start one: distci worker run shell",
        ),
        (
            ticket(),
            situation(worker(), control=Control(0, ["shell"], {}, {})),
            "claims of shell are paused",
            "resume them: distci cluster resume",
        ),
        (
            ticket(),
            situation(worker(), control=Control(0, ["*"], {}, {})),
            "claims of all are paused",
            "resume them: distci cluster resume",
        ),
        (ticket(), situation(worker()), "w can take it at any moment", ""),
        (
            ticket(),
            situation(worker(slots=2), running={"a.1": "w", "b.1": "w"}),
            "w can take it, but all 2 slots are busy",
            "add workers or slots, or wait",
        ),
        (
            ticket(),
            situation(
                worker(slots=2),
                running={"a.1": "w", "b.1": "w", "c.1": "v"},
                failed={
                    "b.1": ticket("b", body={"build": "team/hello#1"}),
                    "c.1": ticket("c", body={"build": "team/hello#2"}),
                },
            ),
            "w can take it, but all 2 slots are busy, 1 with failed tasks that are held, of team/hello#1",
            "release one: distci build shell BUILD TASK --release; add workers or slots, or wait",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_c16_what_a_ticket_waits_for_and_what_would_start_it(
    wanted: Ticket, seen: Situation, because: str, remedy: str
) -> None:
    wait = explain(wanted, seen)
    assert (wait.because, wait.remedy) == (because, remedy)


def test_c16_its_place_counts_what_is_claimed_before_it_by_the_same_workers() -> None:
    queue = [
        queued("older", minutes=2),
        queued("younger", minutes=0.5),
        queued("urgent", minutes=0.5, priority=1),
        queued("aged", minutes=16, priority=6),
        queued("later", minutes=2, priority=6),
        queued("mine"),
        queued("elsewhere", minutes=9, kind="control"),
        queued("labelled", minutes=9, labels=["gpu"]),
    ]
    wait = explain(ticket(), situation(worker(), running={"busy.1": "w"}, queue=queue))
    assert wait.place == 1 + len(["older", "urgent", "aged"])


def test_c16_a_ticket_that_waits_for_a_permit_says_who_has_it_and_which_turn_it_has() -> None:
    mine = ticket(permits=[Permit("db", 2)])
    line = Line(["one.1", "two.1"], [ticket("first"), mine])
    wait = explain(mine, situation(worker(), lines={"db": line}))
    assert (wait.because, wait.place) == ("db is held by one.1, two.1 (at most 2 at once)", 2)


def test_who_waits_for_a_quota_is_told_whose_and_how_to_raise_it() -> None:
    mine = ticket(project="team/web")
    lines = {"quota:team": Line(["one.1", "two.1"], [ticket("before"), mine])}

    wait = explain(mine, situation(worker(), control=Control(0, (), {}, {"team": 2}), lines=lines))

    assert wait.because == "the quota of project team is full: 2 of at most 2 tickets are claimed"
    assert (wait.remedy, wait.place) == ("wait, or raise it: distci cluster limit team N", 2)


def test_a_claim_whose_heartbeat_is_gone_is_told_from_one_that_lives() -> None:
    seen = situation(running={"gone.1": "w", "lives.1": "w"}, heartbeats=frozenset({"lives.1"}))
    assert [token for token in ("gone.1", "lives.1", "none.1") if without_heartbeat(token, seen)] == ["gone.1"]
