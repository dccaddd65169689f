"""The system, live: builds that begin and end, by numbers; workers and queue as they stand."""

from __future__ import annotations

from contextlib import suppress

from frontends import Stage, job, shell
from streaming import BROKEN, Client, Event
from waiting import wait_until

from distci.access import Action
from distci.events import BEGUN, ENDED, GAP
from distci.model import BuildId
from distci.store import keys

EVENTS = "/api/v1/events"


def told(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.name, event.data["build"]) for event in events if event.name.startswith("build-")]


def test_o11_builds_begin_and_end_in_one_order_that_outlives_front_ends(stage: Stage) -> None:
    # Given a follower, and builds that come to their ends
    stage.start_workers()
    stage.ci.jobs.put(job("team/hello", shell("echo hello")))
    (api, process), (other, _) = stage.front_end(), stage.front_end()
    client, events = Client(EVENTS, stage.shown), []
    builds = [str(stage.ci.builds.trigger("team/hello")) for _ in range(3)]
    for build in builds:
        stage.end(build)
    first = stage.ci.events.last()
    with suppress(*BROKEN):
        for event in client.events(api.url):
            events.append(event)
            if len(told(events)) == 1:
                # When their front end is killed after the first that they hear of, and more comes while nobody tells them
                process.kill()
            elif not told(events):
                builds.append(str(stage.ci.builds.trigger("team/hello")))
    for _ in range(3):
        builds.append(str(stage.ci.builds.trigger("team/hello")))
        stage.end(builds[-1])
    for build in builds:
        stage.end(build)
    last = stage.ci.events.last()
    for event in client.events(other.url):
        events.append(event)
        if event.id == str(last):
            break
    # Then they have heard of each begin and each end once, in the order of the numbers, none of which is missing
    numbers = [event.data["number"] for event in events if event.name.startswith("build-")]
    assert numbers == [*range(first + 1, last + 1)]
    recorded = stage.ci.events.after(0, 1000)
    assert told(events) == [(event.kind, event.build) for event in recorded[first:]]
    assert sorted((event.kind, event.build) for event in recorded) == sorted(
        (kind, build) for build in builds for kind in ("build-begun", "build-ended")
    )
    ends = [event.data["result"] for event in events if event.name == "build-ended"]
    assert {*ends} == {"passed"}


def test_who_comes_late_is_told_all_from_where_they_were(local: Stage) -> None:
    # Given builds that have ended
    local.start_workers()
    local.ci.jobs.put(job("team/hello", shell("echo hello")))
    for _ in range(3):
        local.end(local.ci.builds.trigger("team/hello"))
    api, _ = local.front_end()
    # When somebody follows from the first event on
    client, events = Client(f"{EVENTS}?after=1", local.shown), []
    for event in client.events(api.url):
        events.append(event)
        if len(told(events)) == 5:
            break
    # Then they are told all that came after it
    assert [event.data["number"] for event in events if event.name.startswith("build-")] == [2, 3, 4, 5, 6]


def test_workers_and_queue_are_told_as_they_stand_and_change(stage: Stage) -> None:
    # Given a system with a ticket that waits
    stage.ci.jobs.put(job("team/hello", shell("echo hello")))
    stage.ci.builds.trigger("team/hello")
    api, _ = stage.front_end()
    # When somebody follows it while a worker comes and goes
    events: list[Event] = []
    stream = Client(EVENTS, stage.shown).events(api.url)

    def heard(name: str) -> Event:
        for event in stream:
            events.append(event)
            if event.name == name:
                return event
        raise AssertionError(name)

    # Then they are told
    assert heard("workers").data == {"workers": []}
    assert heard("queue").data == {"waiting": {"control": 1}, "running": 0}
    with stage.workers("worker"):
        assert heard("workers-changed").data == {"joined": ["worker"], "left": []}
        stage.end("team/hello#1")
        # Of the queue they may have heard before.
        while [event.data for event in events if event.name == "queue"][-1] != {"waiting": {}, "running": 0}:
            heard("queue")
    assert heard("workers-changed").data == {"joined": [], "left": ["worker"]}


def test_who_comes_back_to_where_events_are_gone_is_told_of_the_gap_and_from_where_it_goes_on(local: Stage) -> None:
    # Given events of which the first are not kept any more, somebody who may read all, and somebody who may read another project
    for number in range(1, 6):
        local.ci.events.append(BEGUN, BuildId("team/hello", number), trigger="manual", actor="ada", created_ms=1)
    for number in (1, 2, 3):
        local.ci.store.delete(keys.event(number))
    api, _ = local.front_end()
    other = local.ci.access.create_token("other", [Action.READ], project="other").text
    shown = {"all": local.shown, "other": {"Authorization": f"Bearer {other}"}}

    def heard(who: str, after: int, count: int) -> list[tuple[str, str, int]]:
        """The first that somebody is told of builds who goes on there: kind, id, and number."""
        found: list[tuple[str, str, int]] = []
        for event in Client(f"{EVENTS}?after={after}", shown[who]).events(api.url):
            if event.name in (GAP, BEGUN):
                found.append((event.name, str(event.id), event.data["number"]))
            if len(found) == count:
                return found
        raise AssertionError(found)

    behind = [(BEGUN, "4", 4), (BEGUN, "5", 5)]
    # When they go on from one that is gone, or from a number that was of another store
    for after in (1, 500):
        # Then they are told of the gap, once, and all behind it that is theirs
        assert heard("all", after, 3) == [(GAP, "3", 3), *behind]
        assert heard("other", after, 1) == [(GAP, "3", 3)]
        listed = api.get("/events/recent", params={"after": after, "limit": 2}).json()
        assert listed["items"][0] == {"number": 3, "kind": "gap", "build": "", "at_ms": 0, "after": after}
        assert (listed["items"][1]["number"], listed["next"]) == (4, "4")
    # And who goes on from the gap, or knows all that is gone, hears of none
    assert heard("all", 3, 2) == behind
    assert [event["number"] for event in api.all("/events/recent", after=3)] == [4, 5]


def test_who_has_seen_more_than_this_front_end_yet_is_told_nothing_twice(local: Stage) -> None:
    # Given a front end that somebody follows, and so knows of the last event
    for number in (1, 2):
        local.ci.events.append(BEGUN, BuildId("team/hello", number), trigger="manual")
    api, _ = local.front_end()
    first = Client(f"{EVENTS}?after=1", local.shown).events(api.url)
    wait_until(lambda: next(first).name == BEGUN)
    # When somebody comes who has heard of a later one elsewhere, before this one has looked
    local.ci.events.append(ENDED, BuildId("team/hello", 1), result="passed")
    late = Client(f"{EVENTS}?after=3", local.shown).events(api.url)
    next(late)
    local.ci.events.append(ENDED, BuildId("team/hello", 2), result="passed")
    # Then they hear of what comes next, and of no gap
    assert next(event.data["number"] for event in late if event.name in (GAP, BEGUN, ENDED)) == 4
