"""The system, live: builds that begin and end, by numbers; workers and queue as they stand."""

from __future__ import annotations

from contextlib import suppress

from frontends import Stage, job, shell
from streaming import BROKEN, Client, Event
from waiting import wait_until

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
        wait_until(lambda: heard("queue").data == {"waiting": {}, "running": 0})
    assert heard("workers-changed").data == {"joined": [], "left": ["worker"]}
