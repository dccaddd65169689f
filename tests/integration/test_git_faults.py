"""Checkouts that something happens to: the worker is killed, the connection breaks, the disk is full, others are in the way."""

from __future__ import annotations

import base64
import fcntl
import os
import re
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from integration.conftest import System
from integration.git_remotes import CuttingProxy, Remote, git_daemon, gossiping_server, http_backend
from integration.test_git_mirrors import checkout, look, mirrors, received
from program import PROGRAM, Home
from waiting import wait_until

import distci
from distci.model import Result, Trigger
from distci.settings import Settings
from distci_workers import git_mirrors

SECRET_KEYS = base64.b64encode(bytes(range(32))).decode()
PASSWORD = "t0p-secret"


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    made = Remote(tmp_path / "remotes" / "hello")
    for text in ("one", "two", "three"):
        made.commit(hello_txt=f"{text}\n")
    return made


class TestKills:
    """The whole worker process dies of SIGKILL when it has begun with a command of git's, with credentials in memory."""

    @pytest.fixture
    def home(self, tmp_path: Path, memory: Path) -> Home:
        programs = tmp_path / "bin"
        programs.mkdir()
        git = programs / "git"
        # Whoever begins with what is written in "fatal" kills the worker first.
        git.write_text(
            f"""#!/bin/sh
if [ "$1" = "$(cat {tmp_path}/fatal 2>/dev/null)" ]; then
    until [ -s {tmp_path}/pid ]; do sleep 0.05; done
    rm {tmp_path}/fatal; kill -9 "$(cat {tmp_path}/pid)"; sleep 60
fi
exec /usr/bin/git "$@"
"""
        )
        git.chmod(0o755)
        home = Home(tmp_path)
        home.environment |= {
            "DISTCI_DATA": str(tmp_path / "data"),
            "DISTCI_SECRET_FOLDER": str(memory),
            "DISTCI_SECRET_KEYS": SECRET_KEYS,
            "DISTCI_SEARCH_PATH": f"{programs}:{os.defpath}",
            "DISTCI_SESSION_TIMEOUT": "2s",
        }
        return home

    def test_cost_the_build_an_attempt_and_leave_no_secret(
        self, home: Home, memory: Path, remote: Remote, tmp_path: Path
    ) -> None:
        settings = Settings(data=str(tmp_path / "data"), secret_keys=SECRET_KEYS, secret_folder=str(memory))
        with (
            http_backend(remote.path.parent, f"robot:{PASSWORD}") as base,
            distci.connect(settings=settings) as ci,
        ):
            system = System(ci, tmp_path / "data" / "scratch")
            ci.secrets.set("TOKEN", f"robot:{PASSWORD}", "team")
            task = checkout(f"{base}/hello", credentials="TOKEN", attempts=9)
            ci.jobs.put({"job": "team/job", "tasks": [task, look()]})

            builds = [ci.builds.trigger("team/job")]

            def go_on() -> None:
                ci.builds.wait(builds[0], 60)
                builds.append(ci.builds.trigger("team/job"))

            # When the process dies at one command of a first checkout after another, and at one of the second, which has a mirror
            left = self.left_by_dying(home, memory, "fetch")
            left += self.left_by_dying(home, memory, "checkout")
            left += self.left_by_dying(home, memory, "for-each-ref", go_on)
            with home.running("up", "--no-frontend", until="Ctrl-C"):
                assert len(left) == 3
                assert not any(path.exists() for path in left)
                views = [ci.builds.wait(build, 60) for build in builds]

            # Then others go on, and both builds pass
            assert [view.result for view in views] == [Result.PASSED] * 2
            assert sum(view.task("source").attempts[-1]["attempt"] for view in views) == 3 + 2
            assert system.log(views[0], "look").split()[-1] == remote.git("rev-parse", "HEAD")

            # And the mirror is good, and no secret is anywhere
            assert received(system, views[1]) == 0
        assert with_password(memory) == []
        assert with_password(tmp_path) == []

    def left_by_dying(
        self, home: Home, memory: Path, command: str, go_on: Callable[[], object] = lambda: None
    ) -> list[Path]:
        """A life of the worker, up to that command; where it leaves secrets."""
        (home.folder / "fatal").write_text(command)
        (home.folder / "pid").unlink(missing_ok=True)
        with home.running("up", "--no-frontend", until="Ctrl-C") as up:
            (home.folder / "pid").write_text(str(up.pid))
            go_on()
            wait_until(lambda: up.has_ended)
        return with_password(memory)


def with_password(folder: Path) -> list[Path]:
    """The files that hold it; others may remove theirs meanwhile."""
    found = []
    for parent, _, names in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            with suppress(OSError):
                if path.is_file() and PASSWORD.encode() in path.read_bytes():
                    found.append(path)
    return found


class TestCredentials:
    def test_neither_arguments_nor_variables_nor_files_on_a_disk_hold_them_while_they_are_used(
        self, system: Any, tmp_path: Path
    ) -> None:
        found: list[str] = []
        logins: list[str] = []

        def hear(login: str) -> None:
            logins.append(login)
            for process in Path("/proc").glob("[0-9]*"):
                for name in ("cmdline", "environ"):
                    with suppress(OSError):
                        if PASSWORD.encode() in (process / name).read_bytes():
                            found.append(f"{process.name}: {name}")
            found.extend(map(str, with_password(tmp_path)))

        with gossiping_server(hear) as base:
            system.run_tasks(checkout(f"{base}/hello", credentials="TOKEN"))

        assert f"robot:{PASSWORD}" in logins
        assert found == []

    def test_a_build_of_what_strangers_wrote_gets_none(self, system: Any, remote: Remote) -> None:
        logins: list[str] = []
        with gossiping_server(logins.append) as base:
            job = system.ci.jobs.put({"job": "team/job", "tasks": [checkout(f"{base}/hello", credentials="TOKEN")]})
            build = system.ci.lifecycle.create(job, Trigger("github", is_untrusted=True))
            view = system.ci.builds.wait(build, 60)

        assert "secret 'TOKEN' is not given to a build of what somebody without rights" in system.failure(view)
        assert logins == []


class TestConnections:
    def test_one_that_breaks_fails_the_task_and_harms_no_mirror(self, system: Any, remote: Remote) -> None:
        with git_daemon(remote.path.parent) as base, CuttingProxy(int(base.rpartition(":")[2])) as proxy:
            # Given a mirror, and a change too large to come in one piece
            task = checkout(f"{proxy.url}/hello", ref="main")
            system.run_tasks(task)
            commit = remote.commit(noise_txt=os.urandom(200_000).hex())

            # When the connection breaks on the way
            proxy.bytes_max = 100_000
            broken = system.run_tasks(task)

            # Then the task says so, and the next one has the mirror still
            proxy.bytes_max = None
            view = system.run_tasks(task, look())

        assert re.search("early EOF|hung up unexpectedly|disconnect", system.failure(broken))
        assert system.log(view, "look").split()[-1] == commit
        assert received(system, view) == 3
        assert system.leftovers() == []


class TestMirrors:
    def test_one_that_others_hold_for_too_long_is_done_without(
        self, system: Any, remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(git_mirrors, "WAIT_S", 0.2)
        with git_daemon(remote.path.parent) as base:
            system.run_tasks(checkout(f"{base}/hello"))
            [mirror] = mirrors(tmp_path)
            with open(mirror / "lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                held = system.run_tasks(checkout(f"{base}/hello"), look())
            view = system.run_tasks(checkout(f"{base}/hello"))

        assert received(system, held) >= 9
        assert received(system, view) == 0

    def test_what_the_dead_left_in_one_is_not_in_the_way(self, system: Any, remote: Remote, tmp_path: Path) -> None:
        with git_daemon(remote.path.parent) as base:
            # Given a mirror with what somebody had begun with, and no file to lock
            system.run_tasks(checkout(f"{base}/hello"))
            [mirror] = mirrors(tmp_path)
            for name in ("manifest.new", "pack-0.pack", "pack-0.idx", "pack-0.pack.lock", "index.lock"):
                (mirror / name).write_text("half")
            (mirror / "lock").unlink()

            # When it is used, and added to
            second = system.run_tasks(checkout(f"{base}/hello"), look())
            remote.commit(hello_txt="four\n")
            third = system.run_tasks(checkout(f"{base}/hello"), look())

        # Then it serves, and is tidy again
        assert received(system, second) == 0
        assert received(system, third) == 3
        assert not [path for path in mirror.iterdir() if path.is_file() and path.read_bytes() == b"half"]

    def test_no_room_for_one_costs_time_alone(self, remote: Remote, tmp_path: Path) -> None:
        # Given a place for mirrors that a small repository fits into, and a larger one does not
        large = Remote(tmp_path / "remotes" / "large")
        large.commit(noise_txt=os.urandom(200_000).hex())
        data = tmp_path / "data"
        cache = data / "cache"
        cache.mkdir(parents=True)
        mount = f"mount -t tmpfs -o size=128k none {cache} && exec {PROGRAM} up --no-frontend --data {data}"
        with (
            git_daemon(remote.path.parent) as base,
            distci.connect(data) as ci,
            subprocess.Popen(
                ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount],
                env={"PATH": os.defpath, "HOME": str(tmp_path)},
                stdout=subprocess.DEVNULL,
            ) as up,
        ):
            try:
                system = System(ci, data / "scratch")
                seen = Path(f"/proc/{up.pid}/root/{cache}")

                # When both are checked out, in turns
                views = [system.run_tasks(checkout(f"{base}/{name}")) for name in ("large", "hello", "large", "hello")]
                fetched = [received(system, view) for view in views]
                packs = [*seen.rglob("*.pack")]
            finally:
                up.terminate()

        # Then each build passes, and what fits is kept
        assert fetched == [3, 9, 3, 0]
        assert len(packs) == 1
