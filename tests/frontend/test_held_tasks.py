"""Failed tasks that are held, and the terminals that people open in them."""

from __future__ import annotations

import base64
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from frontend.test_remote_workers import Crew
from frontends import BUILD, Api, Stage, problem, shell
from gateways import Lab
from terminals import typing
from waiting import wait_until

from distci import holding
from distci.access import Action
from distci.brokers.direct import Direct
from distci.client import connect
from distci.console import CHUNK_BYTES
from distci.errors import AlreadyExists, IllegalTransition, Invalid, StoreUnavailable
from distci.holds import GUEST, Over, Shown, StoreDrawer, Typed, Visit, typed_name
from distci.isolation.host import HostIsolation
from distci.model import BuildId, Trigger
from distci.process import Post, WorkerProcess
from distci.store import keys
from distci.store.passing import PassingStore
from distci.store.port import objects

JOB = "team/hello"
FAILING = "mkdir -p sub; echo made > sub/file; exit 7"
HOLD_MAX_S = 60.0


class Guest:
    """Somebody in a held task, without a terminal of their own."""

    def __init__(self, holds: Any, build: BuildId, task: str = "say", **options: Any) -> None:
        self._holds = holds
        self.visit: Visit = holds.open(build, task, **options)
        self.number = 0
        self._shown = b""
        self.over: Over | None = None

    @property
    def shown(self) -> str:
        return self._shown.decode(errors="replace")

    def type(self, text: str, **more: Any) -> None:
        self._holds.type(self.visit, self.number, Typed(text.encode(), seen=len(self._shown), **more))
        self.number += 1

    def look(self) -> None:
        found: Shown | None = self._holds.shown(self.visit, len(self._shown))
        if found is not None:
            self._shown += found.bytes
            self.over = found.over

    def see(self, text: str) -> None:
        def is_there() -> bool:
            self.look()
            return text in self.shown or self.over is not None

        wait_until(is_there)
        assert text in self.shown, (self.shown, self.over)

    def end(self) -> Over:
        def is_over() -> bool:
            self.look()
            return self.over is not None

        wait_until(is_over)
        assert self.over
        self.type("", is_gone=True)
        return self.over


@dataclass
class Scene:
    """A system whose workers hold failed tasks, and what those have who go into them."""

    stage: Stage
    holds: Any
    """By the back ends, or through a front end."""
    process: WorkerProcess


@pytest.fixture(params=["beside it", "through a front end"])
def scene(request: pytest.FixtureRequest, stage: Stage) -> Scene:
    """Workers and people beside the back ends, or behind a front end."""
    stage.ci.secrets.set("TOKEN", "s3same-0pen", "team")
    if request.param == "beside it":
        process = stage.workers(hold_max_s=HOLD_MAX_S)
        stage.enter(process)
        return Scene(stage, stage.ci.holds, process)
    crew = Crew(stage, hold_max_s=HOLD_MAX_S)
    return Scene(stage, connect(crew.lab.apis[0].url, token=stage.token).holds, crew.process)


def come_in(holds: Any, build: BuildId, **options: Any) -> Guest:
    """A guest, once whoever was there before has left."""
    found: list[Guest] = []

    def is_in() -> bool:
        with suppress(AlreadyExists):
            found.append(Guest(holds, build, **options))
        return bool(found)

    wait_until(is_in)
    return found[0]


def held(stage: Stage, build: BuildId, task: str = "say") -> None:
    """Wait until the task is held."""
    wait_until(lambda: any(view.name == task and view.hold for view in stage.ci.builds.get(build).tasks))


def start(stage: Stage, *tasks: Mapping[str, Any], **more: Any) -> BuildId:
    stage.ci.jobs.put({"job": JOB, "tasks": [*tasks], **more})
    return stage.ci.builds.trigger(JOB)


def left(stage: Stage, build: BuildId) -> list[str]:
    """What is in the store of holds."""
    return [info.key for info in objects(stage.ci.store, keys.build(build)) if "/hold/" in info.key]


def test_somebody_goes_into_a_task_that_has_failed_and_is_held(scene: Scene) -> None:
    stage = scene.stage
    more: dict[str, Any] = {"hold": "30m", "secrets": ["TOKEN"], "environment": {"MODE": "strict"}, "directory": "deep"}
    build = start(stage, shell(FAILING, **more), shell("true", "next"))
    held(stage, build)

    view = stage.ci.builds.get(build).task("say")
    assert (view.state, view.reason) == ("running", "exit status 7")
    guest = Guest(scene.holds, build, lines=31, columns=97, kind="xterm")
    guest.type("cat sub/file; stty size </dev/tty; echo $MODE-$TERM ${PWD##*/} $TOKEN | tr a-z A-Z\r")
    guest.see("made")
    guest.see("31 97")
    guest.see("STRICT-XTERM DEEP")
    guest.type("echo $TOKEN; echo ${#TOKEN}\r")
    guest.see("***\r\n11")
    guest.type("exit 5\r")
    assert guest.end() == Over(len(guest.shown.encode()), 5, "")
    assert "s3same-0pen" not in guest.shown

    scene.holds.release(build, "say")
    ended = stage.end(build)
    assert [(task.name, task.state, task.reason) for task in ended.tasks] == [
        ("say", "failed", "exit status 7"),
        ("next", "skipped", ""),
    ]
    assert left(stage, build) == []
    log = b"".join(stage.ci.builds.log(build, "say")).decode()
    assert f"distci build shell '{build}' say" in log
    assert " has opened a terminal" in log
    assert " has left the terminal: exit status 5" in log
    assert "the hold is over: it was released" in log


def test_one_after_the_other_goes_in_and_a_second_at_once_is_told_who_is_there(scene: Scene) -> None:
    build = start(scene.stage, shell(FAILING, hold="30m"))
    held(scene.stage, build)

    first = Guest(scene.holds, build)
    first.type("echo left > behind\r")
    with pytest.raises(AlreadyExists, match=r"test(er|s\)) is in task say of team/hello#1 already"):
        Guest(scene.holds, build)
    again = scene.holds.open(build, "say", terminal=first.visit.terminal)
    assert again == first.visit
    first.type("exit\r")
    assert first.end().exit_status == 0

    second = come_in(scene.holds, build)
    second.type("cat behind\r")
    second.see("\nleft")
    second.type("", is_gone=True)
    third = come_in(scene.holds, build)
    third.see("say> ")
    scene.holds.release(build, "say", "seen enough")
    over = third.end()
    assert (over.exit_status, over.reason) == (None, "it was released")
    assert scene.stage.end(build).state == "failed"
    assert left(scene.stage, build) == []
    with pytest.raises(IllegalTransition, match="it is not held"):
        Guest(scene.holds, build)


@pytest.mark.parametrize(
    ("task", "allowed_s", "said"),
    [
        (
            shell("exit 7", hold="30m"),
            0.0,
            "its worker's operator does not allow it: the setting hold_max says how long",
        ),
        (shell("exit 7"), HOLD_MAX_S, ""),
        (shell("exit 0", hold="30m"), HOLD_MAX_S, ""),
        (shell("exit 7", hold="100ms"), HOLD_MAX_S, "the hold is over: the time is up"),
        (shell("exit 7", hold="30m"), 0.1, " UTC (30m asked, hold_max is 0.1 s): distci build shell"),
    ],
    ids=["not allowed", "not asked for", "not failed", "its own time", "the operator's time"],
)
def test_a_task_is_held_only_as_long_as_it_says_and_its_operator_allows(
    local: Stage, task: Mapping[str, Any], allowed_s: float, said: str
) -> None:
    local.start_workers(hold_max_s=allowed_s)

    view = local.end(start(local, task))
    log = b"".join(local.ci.builds.log(view.id, "say")).decode()
    assert said in log
    assert ("held" in log) is bool(said)
    assert ("asked" in log) is ("asked" in said)
    assert view.task("say").reason == ("" if task["script"] == "exit 0" else "exit status 7")


def test_what_strangers_have_written_is_never_held(local: Stage) -> None:
    local.start_workers(hold_max_s=HOLD_MAX_S)
    local.ci.jobs.put({"job": JOB, "tasks": [shell("exit 7", hold="30m")]})
    stranger = Trigger("github", "eve", is_untrusted=True)

    build = local.ci.builds.start(local.ci.jobs.get(JOB), stranger)
    local.end(build)
    assert "not held, since somebody without rights" in b"".join(local.ci.builds.log(build, "say")).decode()


@pytest.mark.parametrize("way", ["cancel", "drain", "time"])
def test_a_hold_ends_at_once_whoever_is_in_there(scene: Scene, way: str) -> None:
    stage = scene.stage
    build = start(stage, shell(FAILING, hold="15s" if way == "time" else "30m"), shell("true", "next"))
    held(stage, build)
    guest = Guest(scene.holds, build)
    guest.type("trap '' TERM HUP; echo on; sleep 1000\r")
    guest.see("\non")

    if way == "cancel":
        stage.ci.builds.cancel(build)
    elif way == "drain":
        scene.process.drain()
    over = guest.end()
    expected = {"cancel": "its build was cancelled", "drain": "its worker is being drained", "time": "the time is up"}[
        way
    ]
    assert (over.exit_status, over.reason, over.ends_hold) == (None, expected, True)
    if way == "drain":
        assert scene.process.wait(60)
        stage.start_workers(name="other")
    ended = stage.end(build)
    assert ended.task("say").state == "failed"
    assert ended.state == ("cancelled" if way == "cancel" else "failed")
    assert left(stage, build) == []


def test_who_is_not_heard_of_is_hung_up_and_the_hold_goes_on(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "IDLE_S", 1.0)
    build = start(scene.stage, shell(FAILING, hold="30m"))
    held(scene.stage, build)
    silent = Guest(scene.holds, build)
    assert re.fullmatch("nothing was heard of .*test(er|s\\)) for 1 s", silent.end().reason)

    monkeypatch.setattr(holding, "IDLE_S", 60.0)
    other = come_in(scene.holds, build)
    other.type("exit 3\r")
    assert other.end().exit_status == 3


def test_much_is_shown_whole_and_what_is_sent_twice_is_typed_once(scene: Scene) -> None:
    build = start(scene.stage, shell(FAILING, hold="30m"))
    held(scene.stage, build)
    guest = Guest(scene.holds, build)
    piece = Typed(b"echo once >> typed; stty -echo; PS1=; seq 1 400000; exit\r")
    for _ in range(3):
        scene.holds.type(guest.visit, 0, piece)
    guest.number = 1

    def is_over() -> bool:
        guest.look()
        guest.type("")
        return guest.over is not None

    wait_until(is_over)
    numbers = "".join(f"{number}\r\n" for number in range(1, 400001))
    assert numbers in guest.shown
    guest.end()
    after = come_in(scene.holds, build)
    after.type("cat typed; exit\r")
    after.end()
    assert after.shown.count("\nonce") == 1


@pytest.mark.parametrize(
    "piece", [b"", b"{", b'{"format":1,"data":"!"}', b'{"format":1,"data":"","lines":-1}', b"[]" * 9]
)
def test_what_is_no_piece_ends_the_terminal_and_nothing_else(local: Stage, piece: bytes) -> None:
    local.start_workers(hold_max_s=HOLD_MAX_S)
    build = start(local, shell(FAILING, hold="30m"))
    held(local, build)
    drawer = StoreDrawer(local.ci.store, build, "say", local.ci.builds.get(build).task("say").token)
    drawer.put(GUEST, piece)
    wait_until(lambda: drawer.get(GUEST) is None)

    guest = come_in(local.ci.holds, build)
    drawer.put(typed_name(guest.visit.terminal, 0), piece)
    assert "what was typed cannot be read" in guest.end().reason
    local.ci.holds.release(build, "say")
    assert local.end(build).task("say").reason == "exit status 7"
    assert left(local, build) == []


def test_a_worker_that_is_killed_while_it_holds_a_task_leaves_it_to_the_next_attempt(
    local: Stage, tmp_path: Path
) -> None:
    home = local.home
    home.environment["DISTCI_HOLD_MAX"] = "1h"
    kinds = ("worker", "run", "control", "shell", *local.flags)
    build = start(local, shell(f"echo ran >> {tmp_path}/ran; exit 7", hold="30m"))
    with home.running(*kinds, until="Ctrl-C") as worker:
        held(local, build)
        guest = Guest(local.ci.holds, build)
        guest.type("echo here\r")
        guest.see("\nhere")
        worker.kill()
    with home.running(*kinds, until="Ctrl-C"):
        wait_until(lambda: (tmp_path / "ran").read_text().count("ran") == 2)
        with pytest.raises(IllegalTransition, match="is over"):
            guest.end()
        held(local, build)
        local.ci.holds.release(build, "say")
        assert local.end(build).task("say").reason == "exit status 7"
    assert left(local, build) == []


def test_it_is_said_what_is_held_and_how_to_get_in(scene: Scene) -> None:
    stage = scene.stage
    build = start(stage, shell(FAILING, hold="30m"))
    held(stage, build)

    shown = stage.home.ask("build", "show", str(build), *stage.flags)
    assert "held until" in shown.stdout
    assert "exit status 7" in shown.stdout
    assert "say has failed and is held; to go in: distci" in shown.stderr
    assert shown.stderr.splitlines()[0].endswith(f"build shell '{build}' say")
    with pytest.raises(Invalid, match="names no kind of terminal"):
        stage.ci.holds.open(build, "say", kind="no such; thing")
    assert f"build shell {build} say" in stage.home.ask("why", str(build), *stage.flags).stdout.replace("'", "")
    [view] = [json.loads(stage.home.ask("build", "show", str(build), "--json", *stage.flags).stdout)["tasks"][0]]
    assert view["hold"]["reason"] == "exit status 7"
    released = stage.home.ask("build", "shell", str(build), "say", "--release", "--reason", "enough", *stage.flags)
    assert released.stdout == f"{build} say is released; it failed: exit status 7\n"
    stage.end(build)
    audited = [(entry.what, entry.target, entry.reason) for entry in stage.ci.audit.list()]
    assert ("build.release", str(build), "enough") in audited


def test_who_waits_for_slots_of_held_tasks_is_told_so_and_no_time(local: Stage, tmp_path: Path) -> None:
    local.start_workers(hold_max_s=HOLD_MAX_S)
    gate = tmp_path / "open"
    gate.touch()
    names = [f"t{number}" for number in range(5)]  # the worker has four slots
    tasks = [shell(f"test -e {gate}", name, needs=[], hold="30m") for name in names]
    assert local.end(start(local, *tasks)).state == "passed"
    gate.unlink()
    build = start(local, *tasks)
    wait_until(lambda: sum(task.hold is not None for task in local.ci.builds.get(build).tasks) == 4)
    [waiting] = [task.name for task in local.ci.builds.get(build).tasks if task.hold is None]

    reason = local.ci.why.task(build, waiting)

    assert (
        reason.because == f"worker can take it, but all 4 slots are busy, 4 with failed tasks that are held, of {build}"
    )
    assert reason.remedy.startswith("release one: distci build shell BUILD TASK --release; ")
    assert (reason.place, reason.starts_in_s) == (1, None)
    gate.touch()
    local.ci.holds.release(build, next(name for name in names if name != waiting))
    wait_until(lambda: local.ci.builds.get(build).task(waiting).state == "passed")


@pytest.mark.parametrize("way", ["--data", "--url"])
def test_a_terminal_is_opened_from_the_command_line(local: Stage, way: str) -> None:
    local.start_workers(hold_max_s=HOLD_MAX_S)
    build = start(local, shell(FAILING, hold="30m"))
    held(local, build)
    flags = local.flags
    if way == "--url":
        api, _ = local.front_end(*local.flags)
        local.home.environment["DISTCI_TOKEN"] = local.token
        flags = ["--url", api.url]

    with typing(local.home, "build", "shell", str(build), "say", *flags) as typist:
        typist.see("say> ")
        typist.resize(33, 101)
        typist.type("stty size; sleep 1000\r")
        typist.see("33 101")
        typist.type("\x03")
        typist.type("cat sub/file; exit 5\r")
        typist.see("\nmade")
        assert typist.wait() == 5
    assert f"build shell '{build}' say" in typist.shown
    refused = local.home.run("build", "shell", str(build), "say", *flags)
    assert (refused.returncode, "a terminal is needed" in refused.stderr) == (2, True)
    released = local.home.run("build", "shell", str(build), "say", "--release", *flags)
    assert released.returncode == 0, released.stderr
    local.end(build)
    [entry] = [entry for entry in local.ci.audit.list() if entry.what == "build.shell"]
    assert (entry.target, entry.details["task"], entry.outcome) == (str(build), "say", "done")


@pytest.mark.parametrize("way", ["cancel", "drain"])
def test_who_is_in_there_is_told_why_the_hold_is_over_and_not_to_come_back(local: Stage, way: str) -> None:
    process = local.workers(hold_max_s=HOLD_MAX_S)
    local.enter(process)
    build = start(local, shell(FAILING, hold="30m"))
    held(local, build)
    with typing(local.home, "build", "shell", str(build), "say", *local.flags) as typist:
        typist.see("say> ")
        if way == "cancel":
            local.ci.builds.cancel(build)
        else:
            process.drain()
        assert typist.wait() == 3
    told = "its build was cancelled" if way == "cancel" else "its worker is being drained"
    assert f"distci: the hold is over: {told}" in typist.shown
    assert "it is held on" not in typist.shown


@pytest.mark.parametrize("store_url", ["rados", "gateway"], indirect=True)
def test_a_terminal_goes_by_any_store(start_stage: Callable[..., Stage], zookeeper_url: str, store_url: str) -> None:
    stage = start_stage(coordination=zookeeper_url, store=store_url)
    stage.start_workers(hold_max_s=HOLD_MAX_S)
    build = start(stage, shell(FAILING, hold="30m"))
    held(stage, build)
    guest = Guest(stage.ci.holds, build)
    guest.type("cat sub/file; seq 1 50000; exit 4\r")
    assert guest.end().exit_status == 4
    assert "made\r\n1\r\n2\r\n" in guest.shown
    assert "\n49999\r\n50000\r\n" in guest.shown
    stage.ci.holds.release(build, "say")
    stage.end(build)
    assert left(stage, build) == []


class Line(PassingStore):
    """A store over a line that is cut, or that loses every other answer."""

    is_cut = False
    loses = False
    _calls = 0

    def _ask(self, call: Callable[[], Any]) -> Any:
        if self.is_cut:
            raise StoreUnavailable("cut off on purpose")
        answer = call()
        self._calls += 1
        if self.loses and self._calls % 2:
            raise StoreUnavailable("the answer was lost on purpose")
        return answer

    def put(self, key: str, data: Any) -> None:
        self._ask(lambda: super(Line, self).put(key, data))

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        return bytes(self._ask(lambda: super(Line, self).get(key, start, length)))

    def list(self, prefix: str, after: str = "", limit: int = 1000) -> Any:
        return self._ask(lambda: super(Line, self).list(prefix, after, limit))

    def delete(self, key: str) -> None:
        self._ask(lambda: super(Line, self).delete(key))


@pytest.fixture
def line(local: Stage) -> Line:
    """That of workers which hold failed tasks, to their store."""
    line = Line(local.ci.store)
    local.enter(
        WorkerProcess(
            Direct(local.ci.lifecycle, line),
            HostIsolation(),
            local.folder / "scratch",
            [Post(("control", "shell"), slots=2)],
            search_path=os.defpath,
            hold_max_s=HOLD_MAX_S,
        )
    )
    return line


def test_while_the_store_is_away_nothing_is_typed_and_then_all_of_it(
    local: Stage, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = start(local, shell(FAILING, hold="30m"))
    held(local, build)
    guest = Guest(local.ci.holds, build)
    guest.type("")
    guest.see("say> ")
    line.is_cut = True
    monkeypatch.setattr(holding, "IDLE_S", 1.0)
    guest.type("echo while it was away > late")
    line_was_cut_until = time.monotonic() + 3  # longer than somebody may be silent
    wait_until(lambda: time.monotonic() > line_was_cut_until)
    monkeypatch.setattr(holding, "IDLE_S", 60.0)
    line.is_cut = False
    guest.type("; cat late; exit 6\r")
    assert guest.end().exit_status == 6
    assert "\nwhile it was away" in guest.shown


def test_where_every_other_answer_is_lost_all_is_typed_and_shown_once(local: Stage, line: Line) -> None:
    build = start(local, shell(FAILING, hold="30m"))
    held(local, build)
    line.loses = True
    guest = come_in(local.ci.holds, build)
    for number in range(10):
        guest.type(f"echo {number} >> typed\r")
    guest.type("tr -d '\\n' < typed; exit\r")
    guest.end()
    assert guest.shown.count("0123456789") == 1
    line.loses = False
    local.ci.holds.release(build, "say")
    assert local.end(build).state == "failed"
    assert left(local, build) == []


def test_who_reads_nothing_fills_no_store_and_keeps_nothing_up(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "WINDOW_BYTES", 256 * 1024)
    build = start(scene.stage, shell(FAILING, hold="30m"))
    held(scene.stage, build)
    guest = Guest(scene.holds, build)
    guest.type("yes | head -c 100000000\r")

    def stored() -> int:
        found = objects(scene.stage.ci.store, keys.build(build))
        return sum(info.size_bytes for info in found if "/hold/shown/" in info.key)

    wait_until(lambda: stored() > 0)
    for _ in range(20):
        guest.type("")
        assert stored() <= 256 * 1024 + CHUNK_BYTES
    scene.holds.release(build, "say")
    assert scene.stage.end(build).state == "failed"
    assert left(scene.stage, build) == []


def test_the_time_of_a_task_is_not_that_of_its_hold(scene: Scene) -> None:
    build = start(scene.stage, shell(FAILING, hold="30m", timeout="1s"))
    held(scene.stage, build)
    guest = Guest(scene.holds, build)
    guest.type("sleep 8; echo went on; exit\r")  # longer than a worker is silent
    guest.see("\nwent on")
    assert guest.end().exit_status == 0
    scene.holds.release(build, "say")
    assert scene.stage.end(build).task("say").state == "failed"


def test_in_a_sandbox_a_terminal_is_opened_as_well(local: Stage) -> None:
    local.home.environment["DISTCI_HOLD_MAX"] = "1m"
    build = start(local, shell(FAILING, hold="30m", isolation={"type": "sandbox", "network": False}))
    with local.home.running("worker", "run", "control", "shell", *local.flags, until="Ctrl-C"):
        held(local, build)
        guest = Guest(local.ci.holds, build)
        guest.type("cat sub/file; grep -c : /proc/net/dev; exit 8\r")
        assert guest.end().exit_status == 8
        assert "\nmade\r\n1\r\n" in guest.shown
        local.ci.holds.release(build, "say")
        local.end(build)
    log = b"".join(local.ci.builds.log(build, "say")).decode()
    assert f": distci build shell '{build}' say --data {local.folder / 'data'}\n" in log


def test_another_front_end_goes_on_with_a_terminal_where_one_is_killed(local: Stage) -> None:
    local.start_workers(hold_max_s=HOLD_MAX_S)
    build = start(local, shell(FAILING, hold="30m"))
    held(local, build)
    (first, process), (second, _) = local.front_end(*local.flags), local.front_end(*local.flags)
    with connect(f"{first.url} {second.url}", token=local.token) as client:
        guest = Guest(client.holds, build)
        guest.type("echo one\r")
        guest.see("\none")
        process.kill()
        guest.type("echo two; exit\r")
        assert guest.end().exit_status == 0
        assert guest.shown.count("\ntwo") == 1


def test_the_right_to_open_terminals_is_enough_by_itself(local: Stage) -> None:
    local.start_workers(hold_max_s=HOLD_MAX_S)
    build = start(local, shell(FAILING, hold="30m"))
    held(local, build)
    api, _ = local.front_end(*local.flags)
    local.home.environment["DISTCI_TOKEN"] = local.ci.access.create_token("guest", [Action.SHELL]).text
    called = ("build", "shell", str(build), "say")
    with typing(local.home, *called, "--url", api.url) as typist:
        typist.see("say> ")
        typist.type("cat sub/file; exit 5\r")
        typist.see("\nmade")
        assert typist.wait() == 5
    released = local.home.run(*called, "--release", "--url", api.url)
    assert (released.returncode, "it failed: exit status 7" in released.stdout) == (0, True), released.stderr
    assert local.end(build).state == "failed"


class TestHttp:
    @pytest.fixture
    def api(self, local: Stage) -> Api:
        local.start_workers(hold_max_s=HOLD_MAX_S)
        held(local, start(local, shell(FAILING, hold="30m")))
        return local.front_end(*local.flags)[0]

    def test_what_is_wrong_with_what_is_typed_is_told_and_changes_nothing(self, local: Stage, api: Api) -> None:
        terminal = "a" * 32
        visit = api.put(f"{BUILD}/tasks/say/terminals/{terminal}", json={"lines": 30}).json()
        at = f"{BUILD}/tasks/say/attempts/{visit['token']}/terminals"
        problem(api.put(f"{BUILD}/tasks/say/terminals/{'b' * 32}"), 409, "AlreadyExists")
        wrong = [
            (400, 0, {"data": "\N{SNOWMAN}"}),
            (422, 0, {"data": "A" * 30000}),
            (422, 0, {"lines": -1}),
            (400, -1, {}),
        ]
        for status, number, typed in wrong:
            problem(api.put(f"{at}/{terminal}/typed", params={"number": number}, json=typed), status, "Invalid")
        problem(api.put(f"{at}/{'b' * 32}/typed", params={"number": 0}, json={}), 422, "IllegalTransition")
        problem(api.get(f"{at}/{'b' * 32}/shown", params={"offset": 0, "wait_s": 20}), 422, "IllegalTransition")
        shown = api.get(f"{at}/{terminal}/shown", params={"offset": 0, "wait_s": 20}).json()
        assert base64.b64decode(shown["data"]).startswith(b"say> "[:1])
        assert (
            api.delete(f"{BUILD}/tasks/say/hold", params={"reason": "seen"}).json()["hold"]["reason"] == "exit status 7"
        )
        local.end("team/hello#1")
        problem(api.delete(f"{BUILD}/tasks/say/hold"), 422, "IllegalTransition")

    def test_a_worker_writes_to_no_drawer_of_a_task_that_is_not_to_be_held(self, local: Stage) -> None:
        lab = Lab(local)
        lab.start(shell("true"))
        claim = lab.claim().json()
        at = claim["url"].removeprefix("/api/v1")
        api = lab.apis[0]
        told = {"hold": {"until_ms": 1, "reason": "x"}}
        assert api.post(f"{at}/heartbeat", json=told).status_code in (400, 422)
        assert api.put(f"{at}/hold/piece", params={"name": "guest"}, json={"data": ""}).status_code in (400, 422)
        problem(api.put(f"{at}/hold/piece", params={"name": "../log/0"}, json={"data": ""}), 400, "Invalid")
