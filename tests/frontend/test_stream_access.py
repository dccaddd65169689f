"""Streams tell nobody what they may not read, and end when they may read it no more."""

from __future__ import annotations

from contextlib import suppress
from threading import Thread
from urllib.parse import urlsplit

import pytest
import requests
from frontends import BUILD, Api, Stage, job, problem, shell
from streaming import BROKEN, Client, Event
from waiting import wait_until

from distci.access import Action, Person, Role, Visibility

EVENTS = "/api/v1/events"
LOGS = f"/api/v1{BUILD}/log/events"
END_MAX_S = 10.0
"""A stream shall end within some three seconds; a busy machine is slower."""


class Listener:
    """Somebody who hears what comes, in a thread, until the stream ends."""

    def __init__(self, api: Api, path: str, headers: dict[str, str]) -> None:
        self.events: list[Event] = []
        self.has_ended = False
        self._stream = Client(path, headers).events(api.url)
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        # At the end of a test the front end is killed.
        with suppress(*BROKEN):
            for event in self._stream:
                self.events.append(event)
            self.has_ended = True

    def builds(self) -> set[str]:
        return {event.data["build"] for event in self.events if event.name.startswith("build-")}

    def names(self) -> set[str]:
        return {event.name for event in self.events}


def token_of(stage: Stage, project: str = "") -> tuple[str, dict[str, str]]:
    """The id of a new token that may read, and how it is shown."""
    made = stage.ci.access.create_token("reader", [Action.READ], project=project)
    return made.record.id, {"Authorization": f"Bearer {made.text}"}


def session_of(stage: Stage, api: Api, name: str) -> dict[str, str]:
    return {"Cookie": f"distci-session-{urlsplit(api.url).port}={stage.ci.sessions.begin(Person(name))}"}


@pytest.fixture
def resting(local: Stage) -> Api:
    """A front end of a system with a build that prints a line and rests."""
    local.start_workers()
    local.ci.jobs.put(job("team/hello", shell("echo here; sleep 600")))
    local.ci.builds.trigger("team/hello")
    api, _ = local.front_end()
    return api


def heard_something(listener: Listener) -> None:
    wait_until(lambda: bool(listener.events), 30)
    assert not listener.has_ended


def test_of_the_whole_system_each_is_told_what_they_may_read(local: Stage) -> None:
    # Given somebody who may read all, somebody who may read a project, and nobody, where one project is public
    local.ci.access.set_visibility("open", Visibility.PUBLIC)
    api, _ = local.front_end()
    _, team = token_of(local, "team")
    every, some, none = (Listener(api, EVENTS, headers) for headers in (token_of(local)[1], team, {}))
    wait_until(lambda: "queue" in every.names(), 30)
    # When builds of several projects begin and end
    local.start_workers()
    for name in ("team/hello", "secret/hello", "open/hello"):
        local.ci.jobs.put(job(name))
        local.end(local.ci.builds.trigger(name))
    # Then each hears of those that they may read, and no more
    wait_until(lambda: len(every.builds()) == 3, 30)
    wait_until(lambda: len(some.builds()) == 2, 30)
    wait_until(lambda: len(none.builds()) == 1, 30)
    wait_until(lambda: all("build-ended" in each.names() for each in (every, some, none)), 30)
    assert some.builds() == {"team/hello#1", "open/hello#1"}
    assert none.builds() == {"open/hello#1"}
    # Workers and queue are for who may read the whole system
    assert {"workers", "queue"} <= every.names()
    assert some.names() == none.names() == {"build-begun", "build-ended"}
    # And so are lists of what has happened
    listed = requests.get(f"{api.url}{EVENTS}/recent", headers=team, timeout=30).json()["items"]
    assert [event["build"] for event in listed] == ["open/hello#1"] * 2 + ["team/hello#1"] * 2
    assert [event["number"] for event in api.get("/events/recent").json()["items"]] == [6, 5, 4, 3, 2, 1]
    assert [event["number"] for event in api.all("/events/recent", limit=2)] == [6, 5, 4, 3, 2, 1]
    assert [event["number"] for event in api.all("/events/recent", after=2, limit=2)] == [3, 4, 5, 6]
    behind = requests.get(f"{api.url}{EVENTS}/recent?after=1", headers=team, timeout=30).json()
    assert [(event["number"], event["build"]) for event in behind["items"]] == [
        *((2, "team/hello#1"), (5, "open/hello#1"), (6, "open/hello#1"))
    ]


def test_where_nothing_is_public_nobody_follows_anything(local: Stage) -> None:
    api, _ = local.front_end()
    for path in ("/events", "/events/recent", f"{BUILD}/events", f"{BUILD}/log/events"):
        problem(requests.get(f"{api.url}/api/v1{path}", timeout=30), 401, "NotAuthenticated")


@pytest.mark.parametrize("path", [EVENTS, f"/api/v1{BUILD}/events", LOGS])
def test_a_token_that_is_revoked_takes_its_streams_with_it(local: Stage, resting: Api, path: str) -> None:
    # Given two who follow the same
    token, headers = token_of(local)
    one, other = Listener(resting, path, headers), Listener(resting, path, resting.authorization)
    heard_something(one)
    heard_something(other)
    # When the token of one is revoked
    local.ci.access.revoke_token(token)
    # Then their stream ends and does not come again, and the other goes on
    wait_until(lambda: one.has_ended, END_MAX_S)
    problem(requests.get(resting.url + path, headers=headers, timeout=30), 401, "NotAuthenticated")
    assert not other.has_ended


def test_who_logs_out_hears_nothing_more(local: Stage, resting: Api) -> None:
    local.ci.access.grant("ada@example.org", Role.VIEWER)
    ada = session_of(local, resting, "ada@example.org")
    listener = Listener(resting, LOGS, ada)
    heard_something(listener)
    local.ci.sessions.end(ada["Cookie"].partition("=")[2])
    wait_until(lambda: listener.has_ended, END_MAX_S)


def test_who_loses_a_role_loses_the_streams_of_what_it_showed(local: Stage, resting: Api) -> None:
    # Given somebody with a role in a project who follows a log in it, and the system
    local.ci.access.set_visibility("open", Visibility.PUBLIC)
    local.ci.access.grant("ada@example.org", Role.VIEWER, "team")
    ada = session_of(local, resting, "ada@example.org")
    log, system = Listener(resting, LOGS, ada), Listener(resting, f"{EVENTS}?after=0", ada)
    heard_something(log)
    heard_something(system)
    # When it is taken from them
    local.ci.access.revoke_role("ada@example.org", "team")
    # Then the log ends, and of the system they hear no more of that project
    wait_until(lambda: log.has_ended, END_MAX_S)
    before = len(system.events)
    for name in ("team/more", "open/more"):
        local.ci.jobs.put(job(name))
        local.end(local.ci.builds.trigger(name))
    wait_until(lambda: "open/more#1" in system.builds(), 30)
    assert {event.data["build"] for event in system.events[before:]} == {"open/more#1"}
    assert not system.has_ended
