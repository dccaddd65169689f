"""``distci events``: what happened, and what happens."""

from __future__ import annotations

import json
import signal

from integration.cli.homes import HELLO
from program import Home
from waiting import wait_until

import distci
from distci.events import BEGUN, ENDED
from distci.model import BuildId
from distci.store import keys


def append(home: Home, kind: str, number: int, **more: str) -> None:
    with distci.connect(home.folder / ".local" / "share" / "distci") as system:
        system.events.append(kind, BuildId("team/hello", number), trigger="manual", actor="ada", **more)


def test_the_last_are_listed_and_all_behind_a_number(home: Home) -> None:
    for number in range(1, 4):
        append(home, BEGUN, number)
        append(home, ENDED, number, result="passed")

    last = home.ask("events", "--limit", "2").stdout.splitlines()
    behind = home.json("events", "--after", "3")

    assert [line.partition("team")[2] for line in last] == [
        "/hello#3 begun, manual by ada",
        "/hello#3 ended passed, manual by ada",
    ]
    assert [(event["number"], event["kind"], event["build"]) for event in behind] == [
        (4, "build-ended", "team/hello#2"),
        (5, "build-begun", "team/hello#3"),
        (6, "build-ended", "team/hello#3"),
    ]
    assert home.ask("events", "--after", "6").stdout == ""


def test_those_that_come_are_told_also_when_the_store_was_away(home: Home) -> None:
    # Given somebody who follows
    home.ask("job", "put", home.file(HELLO))
    append(home, BEGUN, 1)
    store = home.folder / ".local" / "share" / "distci" / "store"
    with home.running("events", "--follow", "--json", until="team/hello#1") as process:
        # When the store is away for a while, and something happens afterwards
        store.rename(store.with_name("away"))
        wait_until(lambda: "waiting for it" in process.stderr)
        store.with_name("away").rename(store)
        append(home, ENDED, 1, result="failed")
        # Then it is told, once
        wait_until(lambda: "build-ended" in process.stdout)
        process.signal(signal.SIGINT)
        assert process.wait() == 130
        told = [json.loads(line) for line in process.stdout.splitlines()]
    assert [(event["number"], event["kind"]) for event in told] == [(1, "build-begun"), (2, "build-ended")]


def test_events_that_are_not_kept_any_more_are_told(home: Home) -> None:
    # Given events of which the first are gone
    for number in range(1, 5):
        append(home, BEGUN, number)
    with distci.connect(home.folder / ".local" / "share" / "distci") as system:
        for number in (1, 2):
            system.store.delete(keys.event(number))

    # Then who asks for those behind one of them is told so, and from where it goes on
    first, *others = home.ask("events", "--after", "0").stdout.splitlines()
    assert first == "2  events 1 to 2 are not kept any more; it goes on with 3"
    assert [line.partition(" ")[0] for line in others] == ["3", "4"]
    assert home.json("events", "--after", "1")[0] == {"number": 2, "kind": "gap", "build": "", "at_ms": 0, "after": 1}
    anew = home.ask("events", "--after", "500").stdout.splitlines()
    assert anew[0] == "2  there is no event 500 any more: numbers have begun anew; it goes on with 3"
    assert len(anew) == 3
    # And so is who follows, who hears of what comes then
    with home.running("events", "--follow", "--after", "1", until="team/hello#4 begun") as process:
        assert "events 2 to 2 are not kept any more; it goes on with 3" in process.stdout
        append(home, ENDED, 4, result="passed")
        wait_until(lambda: "team/hello#4 ended passed" in process.stdout)
        process.signal(signal.SIGINT)
        assert process.wait() == 130
