"""How a build stands, live: the states of its tasks, its end."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from frontends import BUILD, Stage, job, shell
from streaming import BROKEN, Client, Event

EVENTS = f"/api/v1{BUILD}/events"
GO_ON = "while [ ! -e {go} ]; do sleep 0.05; done"


class Page:
    """What a page that shows a build has of it."""

    def __init__(self) -> None:
        self.build: dict[str, Any] = {}
        self.events: list[Event] = []

    def add(self, event: Event) -> None:
        self.events.append(event)
        if event.name == "build":
            self.build = event.data
        elif event.name == "change":
            changed = {task["name"]: task for task in event.data["tasks"]}
            known = [task["name"] for task in self.build["tasks"]]
            tasks = [changed.pop(task["name"], task) for task in self.build["tasks"]] + [*changed.values()]
            self.build = {**self.build, **event.data, "tasks": tasks}
            assert [task["name"] for task in tasks][: len(known)] == known

    def states(self) -> dict[str, str]:
        return {task["name"]: task["state"] for task in self.build.get("tasks", ())}


def test_every_state_is_told_until_the_build_is_archived(stage: Stage, tmp_path: Path) -> None:
    # Given a build whose first task waits to be let on
    go = tmp_path / "go"
    stage.start_workers()
    stage.ci.jobs.put(job("team/hello", shell(GO_ON.format(go=go), "a"), shell("exit 3", "b")))
    api, _ = stage.front_end()
    stage.ci.builds.trigger("team/hello")
    # When it is followed
    page, seen = Page(), []
    for event in Client(EVENTS, stage.shown).events(api.url):
        page.add(event)
        seen.append((page.build["state"], page.states()))
        if page.states().get("a") == "running":
            go.touch()
    # Then what is known in the end is what is read in the end, and its mark is the entity tag of that
    assert ("running", {"a": "running", "b": "waiting"}) in seen
    read = api.get(BUILD)
    assert page.build == read.json()
    assert page.build["is_archived"]
    assert page.states() == {"a": "passed", "b": "failed"}
    *_, last, end = page.events
    assert f'"{last.id}"' == read.headers["ETag"]
    assert (end.name, end.data, end.id) == ("end", {"state": "failed"}, "over")


def test_who_knows_the_state_is_told_what_changes(local: Stage, tmp_path: Path) -> None:
    # Given somebody who has read a build that does not get on
    go = tmp_path / "go"
    local.start_workers()
    local.ci.jobs.put(job("team/hello", shell(GO_ON.format(go=go), "a")))
    api, _ = local.front_end()
    local.ci.builds.trigger("team/hello")
    page = Page()
    for event in Client(EVENTS, local.shown).events(api.url):
        page.add(event)
        if page.states() == {"a": "running"}:
            break
    read = api.get(BUILD)
    # When they follow it from there
    client = Client(EVENTS, local.shown)
    client.id = read.headers["ETag"].strip('"')
    page.build, page.events = read.json(), []
    go.touch()
    for event in client.events(api.url):
        page.add(event)
    # Then they are told no more than what changed
    assert {event.name for event in page.events} <= {"change", "end", "build"}
    assert page.build == api.get(BUILD).json()


def test_another_front_end_tells_the_end_of_a_build_whose_front_end_was_killed(stage: Stage, tmp_path: Path) -> None:
    # Given a follower whose front end is killed
    go = tmp_path / "go"
    stage.start_workers()
    stage.ci.jobs.put(job("team/hello", shell(GO_ON.format(go=go), "a")))
    (api, process), (other, _) = stage.front_end(), stage.front_end()
    stage.ci.builds.trigger("team/hello")
    client, page = Client(EVENTS, stage.shown), Page()
    with suppress(*BROKEN):
        for event in client.events(api.url):
            page.add(event)
            if page.states() == {"a": "running"}:
                process.kill()
    # When the build ends before they come to another one
    go.touch()
    stage.end("team/hello#1")
    for event in client.events(other.url):
        page.add(event)
    # Then they are told
    assert page.build == other.get(BUILD).json()
    assert page.events[-1].name == "end"
