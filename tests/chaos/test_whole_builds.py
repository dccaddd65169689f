"""Whole builds by worker processes that are killed, or stopped for longer than their session lives, at every stage; others go on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from integration.conftest import tree
from integration.git_remotes import Remote
from program import Home, Process
from waiting import wait_until

from distci.app import DistCI, connect
from distci.build_tickets import control_ticket, task_ticket
from distci.builds import BuildView
from distci.chaos.gathering import steady
from distci.coordination.port import Check, Committed
from distci.errors import CoordinationUnavailable
from distci.model import BuildId, Result
from distci.protocol import paths
from distci.store import keys

APP, DEPLOY = "team/app", "team/deploy"
SESSION_TIMEOUT = "1s"
BUILD_TIME_MAX_S = 60.0


class Crew:
    """Worker processes of the command line on one system, each serving one kind."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._members: dict[str, Process] = {}

    def hire(self, *kinds: str) -> None:
        """Start a worker of each kind, and wait until all of them serve."""
        hired = []
        for kind in kinds:
            name = f"w{len(self._members)}"
            self._members[name] = Process(self._home, ["worker", "run", kind, "--name", name])
            hired.append(self._members[name])
        for process in hired:
            wait_until(lambda process=process: "Serving as" in process.stdout or process.has_ended)  # type: ignore[misc]
            assert not process.has_ended, process.stderr

    def dismiss(self) -> list[int]:
        """End all that still work as an operator does; their exit codes."""
        left = [process for process in self._members.values() if not process.has_ended]
        for process in left:
            process.signal(signal.SIGTERM)
        return [process.wait() for process in left]

    def kill_all(self) -> None:
        for process in self._members.values():
            process.kill()

    def named(self, worker: str) -> Process:
        """The process of a worker by the name that the tree has."""
        return self._members[worker.partition("-")[0]]


class Site:
    """A system, its crew and what its scripts work with."""

    def __init__(self, ci: DistCI, crew: Crew, folder: Path) -> None:
        self.ci = ci
        self.crew = crew
        self.remote = Remote(folder / "remote")
        self._ledger = folder / "ledger"
        self._gate = folder / "gate"
        self._store = ci.settings.data_folder / "store"
        self.scratch = ci.settings.data_folder / "scratch"

    def script(self, *lines: str) -> str:
        """A script that enters its attempt into a ledger beside the workspace."""
        return "\n".join(
            ["set -e", f'echo "$DISTCI_JOB#$DISTCI_BUILD $DISTCI_TASK.$DISTCI_ATTEMPT" >>{self._ledger}', *lines]
        )

    @property
    def wait_at_gate(self) -> str:
        return f"until test -e {self._gate}; do sleep 0.02; done"

    def open_gate(self) -> None:
        self._gate.touch()

    def entries(self, build: BuildId) -> list[str]:
        """The attempts at a build's scripts that were begun."""
        lines = self._ledger.read_text().splitlines() if self._ledger.exists() else []
        return sorted(line.split()[1] for line in lines if line.split()[0] == str(build))

    def token(self, build: BuildId, task: str) -> str:
        """The attempt at a task that is waited for or runs; only while the build runs."""
        live = self.ci.lifecycle.read(build)
        assert live is not None
        assert live.state is not None
        ticket = task_ticket(self.ci.lifecycle.stored.plan_of(live), task, live.state.tasks[task])
        running = [token for token in self.ci.tickets.running_tokens() if paths.ticket_of(token) == ticket.id]
        return running[0] if running else ticket.token

    def is_running(self, token: str) -> bool:
        return token in self.ci.tickets.running_tokens()

    def holder(self, token: str) -> Process:
        wait_until(lambda: self.is_running(token))
        return self.crew.named(self.ci.tickets.view_running(token).worker)

    def kill_holder(self, token: str) -> None:
        """Kill the worker that holds a claim; what it had started ends by itself."""
        self.holder(token).kill()
        assert self.is_running(token), "it was not hit in the middle of its work"
        wait_until(lambda: not processes_of(token))

    def stop_holder(self, token: str) -> Process:
        """Stop the worker that holds a claim, where it holds nothing else: a file's lock sleeps with its holder."""
        holder = self.holder(token)
        while True:
            holder.pause()
            try:
                if isinstance(self.ci.coordination.commit(Check(paths.CONTROL)), Committed):
                    return holder
            except CoordinationUnavailable:
                pass
            holder.signal(signal.SIGCONT)

    @contextmanager
    def refusing(self, key: str) -> Iterator[None]:
        """Nobody can store that object: a folder is where its file would be."""
        *folders, name = key.split("/")
        path = self._store.joinpath(*(f"{folder}+" for folder in folders), f"{name}=")
        path.mkdir(parents=True)
        yield
        path.rmdir()

    def end(self, build: BuildId) -> BuildView:
        view = self.ci.builds.wait(build, BUILD_TIME_MAX_S)
        assert view.is_archived, f"{build} is still {view.state}: {[(task.name, task.state) for task in view.tasks]}"
        return view

    def log(self, view: BuildView, task: str) -> bytes:
        return steady(b"".join(self.ci.builds.log(view.id, task)))

    def digests(self, view: BuildView) -> list[tuple[str, str]]:
        return [(artifact.name, artifact.sha256) for artifact in self.ci.artifacts.list(view.id)]


def processes_of(token: str) -> list[int]:
    """All processes that descend from the commands of an attempt."""
    mark = f"DISTCI_FENCE={token}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@contextmanager
def holding_up_readers(path: Path) -> Iterator[Callable[[], bool]]:
    """Whoever reads that file waits for the end of the block; what is given tells whether somebody does."""
    aside = path.with_name(f"{path.name}.aside")
    path.rename(aside)
    os.mkfifo(path)
    ends: list[int] = []

    def is_read() -> bool:
        try:
            # Refused while nobody is about to read. From then on the reader waits for what is written, and that is nothing.
            ends.append(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            return False
        return True

    yield is_read
    aside.replace(path)
    for end in ends:
        os.close(end)


def record(view: BuildView) -> Mapping[str, Any]:
    """What is on record of a build, without what differs between any two."""
    own = {"token", "worker", "attempt", "started_ms", "ended_ms", "after", "usage"}
    # Git tells how fast it was.
    own_of = {"git-checkout": own | {"log_bytes"}}
    tasks = {
        task.name: (
            task.type,
            task.needs,
            task.state,
            task.allow_failure,
            [
                {key: value for key, value in ended.items() if key not in own_of.get(task.type, own)}
                for ended in task.attempts
            ],
        )
        for task in view.tasks
    }
    return {"result": view.result, "reason": view.reason, "config": view.config, "state": view.state, "tasks": tasks}


def attempts(view: BuildView) -> Mapping[str, Sequence[int]]:
    return {task.name: [ended["attempt"] for ended in task.attempts] for task in view.tasks}


@pytest.fixture
def site(tree_url: str, tmp_path: Path) -> Iterator[Site]:
    home = Home(tmp_path)
    data = tmp_path / "data"
    home.environment |= {
        "DISTCI_DATA": str(data),
        "DISTCI_COORDINATION": tree_url,
        "DISTCI_SESSION_TIMEOUT": SESSION_TIMEOUT,
    }
    with ExitStack() as stack:
        ci = stack.enter_context(connect(data, coordination=tree_url, actor="tester"))
        crew = Crew(home)
        stack.callback(crew.kill_all)
        yield Site(ci, crew, tmp_path)


def put_jobs(site: Site) -> None:
    noisy = ("seq 30000", site.wait_at_gate, "seq 30000 60000")
    tasks = [
        {"name": "source", "type": "git-checkout", "repository": str(site.remote.path), "needs": []},
        {
            "name": "unit",
            "type": "shell",
            "script": site.script("setsid sleep 1000 &", *noisy, "sha256sum source.txt >unit.txt"),
            "needs": ["source"],
        },
        {
            "name": "lint",
            "type": "shell",
            "script": site.script(*noisy, "wc source.txt >lint.txt"),
            "needs": ["source"],
        },
        {
            "name": "package",
            "type": "shell",
            "script": site.script("cat source.txt unit.txt lint.txt | tee app.txt"),
            "needs": ["unit", "lint"],
        },
        {"name": "keep", "type": "publish-artifacts", "paths": ["app.txt", "unit.txt"], "needs": ["package"]},
    ]
    site.ci.jobs.put({"job": APP, "tasks": tasks})
    tasks = [
        {"name": "copy", "type": "copy-artifacts", "job": APP, "build": "upstream"},
        {"name": "install", "type": "shell", "script": site.script("cat app.txt unit.txt")},
    ]
    site.ci.jobs.put({"job": DEPLOY, "triggers": [{"type": "job", "job": APP}], "tasks": tasks})


def test_a_build_whose_workers_are_killed_and_stopped_at_every_stage_is_the_build_of_a_calm_day(site: Site) -> None:
    # Given a repository, a job with one that follows on it, and nobody yet who plans
    ci, crew = site.ci, site.crew
    commit = site.remote.commit(source_txt="one\n")
    put_jobs(site)
    crew.hire("git-checkout", "git-checkout", "shell", "shell", "publish-artifacts", "copy-artifacts")
    app, deploy = BuildId(APP, 1), BuildId(DEPLOY, 1)

    # When a worker is killed while it plans
    assert ci.builds.trigger(APP, commit=commit) == app
    with holding_up_readers(site.remote.path / ".git" / "HEAD") as is_read:
        with site.refusing(keys.build_plan(app)):
            crew.hire("control", "control")
            site.kill_holder(control_ticket(app, "plan").token)
        # And one while git fetches
        wait_until(is_read)
        source = site.token(app, "source")
        site.kill_holder(source)
    # And one in the middle of its script, while another one is stopped until long after its session
    wait_until(lambda: site.entries(app) == ["lint.1", "unit.1"])
    unit, lint = site.token(app, "unit"), site.token(app, "lint")
    assert len(processes_of(unit)) >= 3
    zombie = site.stop_holder(lint)
    site.kill_holder(unit)
    crew.hire("shell", "shell")
    wait_until(lambda: site.entries(app) == ["lint.1", "lint.2", "unit.1", "unit.2"])
    zombie.signal(signal.SIGCONT)
    wait_until(lambda: not processes_of(lint))
    # And one while it publishes, when all files are there and what they are is not yet said
    keep = site.token(app, "keep")
    with site.refusing(keys.artifact_index(app, "keep", keep)):
        site.open_gate()
        published = keys.artifact(app, "keep", keep, "app.txt"), keys.artifact(app, "keep", keep, "unit.txt")
        wait_until(lambda: all(ci.store.head(key) for key in published))
        site.kill_holder(keep)
    # And one while it archives, when the build that follows has been started
    with site.refusing(keys.build_record(app)):
        crew.hire("publish-artifacts")
        wait_until(lambda: bool((live := ci.lifecycle.read(app)) and live.downstream))
        site.kill_holder(control_ticket(app, "archive").token)
    crew.hire("control")
    stormy, after_it = site.end(app), site.end(deploy)

    # Then it is like one that nobody disturbed
    assert ci.builds.trigger(APP, commit=commit) == BuildId(APP, 2)
    calm, after_calm = site.end(BuildId(APP, 2)), site.end(BuildId(DEPLOY, 2))
    assert stormy.result is Result.PASSED
    assert record(stormy) == record(calm)
    assert {task.name: site.log(stormy, task.name) for task in stormy.tasks} == {
        task.name: site.log(calm, task.name) for task in calm.tasks
    }
    assert site.digests(stormy) == site.digests(calm) != []
    assert stormy.task("keep").attempts[-1]["commit"] == commit
    # And each attempt that was lost is counted, and what had been done was not done again
    assert attempts(stormy) == {"source": [2], "unit": [2], "lint": [2], "package": [1], "keep": [2]}
    assert site.entries(app) == ["lint.1", "lint.2", "package.1", "unit.1", "unit.2"]
    assert attempts(calm) == {task.name: [1] for task in calm.tasks}
    # And what follows was built once
    assert [view.downstream for view in (stormy, calm)] == [(f"{DEPLOY}#1",), (f"{DEPLOY}#2",)]
    assert [str(view.id) for view in ci.builds.list(APP)] == [f"{APP}#2", f"{APP}#1"]
    assert [str(view.id) for view in ci.builds.list(DEPLOY)] == [f"{DEPLOY}#2", f"{DEPLOY}#1"]
    assert [str(view.trigger.upstream) for view in (after_it, after_calm)] == [f"{APP}#1", f"{APP}#2"]
    assert (after_it.result, site.entries(deploy)) == (Result.PASSED, ["install.1"])
    assert site.log(after_it, "install") == site.log(after_calm, "install")
    # And nothing is left
    assert set(crew.dismiss()) == {0}
    assert tree(ci) == [paths.job(APP), paths.job(DEPLOY)]
    wait_until(lambda: not ci.coordination.children(paths.WORKERS))
    assert not [path for path in site.scratch.iterdir() if path.is_dir()]
    assert not [token for token in (source, unit, lint, keep) if processes_of(token)]
