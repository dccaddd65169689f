"""What is particular to commands on the host: whom a supervisor that was killed leaves, and whom a sweep finds."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from time import monotonic

import pytest
from isolations import LONG_S, TREES, Runner, groups_of, runner_of
from waiting import wait_until

from distci.isolation import host, processes, supervisor
from distci.isolation.cgroups import ControlGroups, find_cgroups
from distci.isolation.host import HostIsolation
from distci.isolation.port import Cause, Command, Ended
from distci.isolation.supervised import FENCE


@pytest.fixture(params=["supervised", "grouped"])
def runner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runner]:
    """One after the other."""
    yield from runner_of(request.param, tmp_path)


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Runner]:
    """Commands that nothing but their supervisor holds together."""
    yield from runner_of("supervised", tmp_path)


@pytest.fixture
def grouped(cgroups: ControlGroups, tmp_path: Path) -> Iterator[Runner]:
    """Commands in a control group each."""
    yield from runner_of("grouped", tmp_path)


@pytest.fixture
def cgroups() -> ControlGroups:
    found = find_cgroups()
    if found is None or found.unified is None:
        pytest.skip("no control groups can be made here")
    return found


# When somebody is killed


@pytest.mark.parametrize("tree", [tree for tree in TREES if "empty environment" not in tree])
def test_a_killed_supervisor_leaves_nobody(runner: Runner, tree: str) -> None:
    ended, printed = runner.script(f"{TREES[tree]}\necho ready; kill -KILL $PPID; sleep {LONG_S}")
    assert ended == Ended(Cause.ENDED, None, signal.SIGKILL)
    assert printed == b"ready\n"
    assert runner.left() == []


def test_a_killed_supervisor_leaves_nobody_of_a_control_group_however_hidden(grouped: Runner) -> None:
    hidden = TREES["a child with an empty environment"]
    ended, _ = grouped.script(f"{hidden}; kill -KILL $PPID; sleep {LONG_S}")
    assert ended.signal == signal.SIGKILL
    assert grouped.left() == []


@pytest.mark.parametrize("how", ["timeout", "cancel"])
def test_c08_a_supervisor_that_its_command_has_stopped_is_ended_with_it(
    runner: Runner, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distci.isolation.supervised.SUPERVISOR_GRACE_S", 0.5)
    stop = Event()
    ended, _ = runner.script(
        f"kill -STOP $PPID; echo ready; sleep {LONG_S}",
        timeout_s=1 if how == "timeout" else None,
        output=lambda data: stop.set() if how == "cancel" else None,
        stop=stop,
    )
    assert ended == Ended(Cause.TIMED_OUT if how == "timeout" else Cause.STOPPED, None, signal.SIGKILL)
    assert runner.left() == []


def test_a_supervisor_killed_by_a_silent_command_leaves_nobody(runner: Runner) -> None:
    ended, _ = runner.script(f"exec >&- 2>&-; kill -KILL $PPID; sleep {LONG_S}")
    assert ended.signal == signal.SIGKILL
    assert runner.left() == []


def test_who_escapes_a_killed_supervisor_and_hides_does_not_hold_the_worker(supervised: Runner) -> None:
    # Given a child that holds the output, prints all the time, and is not told from any other process
    hidden = "( setsid env -i TEST_MARK=$TEST_MARK /bin/sh -c 'while echo still here; do sleep 0.01; done' & )"
    started_s = monotonic()
    ended, _ = supervised.script(f"{hidden}; kill -KILL $PPID; sleep {LONG_S}")
    assert ended.signal == signal.SIGKILL
    assert monotonic() - started_s < 30


def test_no_control_group_is_left_after_the_end(tmp_path: Path, cgroups: ControlGroups) -> None:
    before = groups_of(os.getpid())
    # Given a command that makes groups below its own, and puts a child into one of them
    script = (
        "own=$(ls -d $CGROUPS/*-nested-*); mkdir -p $own/a/b; ls -d $own/a/b >&2;"
        f"sh -c 'echo 0 > '$own'/a/b/cgroup.procs; echo inside; exec sleep {LONG_S}' & read line < $own/a/b/cgroup.procs"
    )
    command = Command(
        ["/bin/sh", "-c", script], tmp_path, {"PATH": os.defpath, "CGROUPS": str(cgroups.unified)}, "nested"
    )
    printed = bytearray()
    assert HostIsolation(cgroups).run(command, printed.extend, Event()).cause is Cause.ENDED
    assert b"/a/b\n" in printed
    assert groups_of(os.getpid()) == before


# Sweeping


@pytest.fixture
def orphan(supervised: Runner) -> Iterator[subprocess.Popen[bytes]]:
    """What is left of a command whose worker and supervisor were both killed."""
    process = subprocess.Popen(["/bin/sleep", str(LONG_S)], env=supervised.environment)
    yield process
    process.kill()
    process.wait()


def test_a_sweep_removes_who_has_no_supervisor_any_more(supervised: Runner, orphan: subprocess.Popen[bytes]) -> None:
    wait_until(lambda: orphan.pid in supervised.left())
    assert supervised.isolation.sweep() >= 1
    assert orphan.wait() == -signal.SIGKILL


def test_a_sweep_spares_the_script_of_a_worker_that_has_no_supervisors(supervised: Runner) -> None:
    environment = {**supervised.environment, "DISTCI_GATEWAY": "true"}
    script = subprocess.Popen(["/bin/sleep", str(LONG_S)], env=environment)
    try:
        wait_until(lambda: script.pid in supervised.left())
        supervised.isolation.sweep()
        assert script.poll() is None
    finally:
        script.kill()
        script.wait()


def test_a_sweep_spares_who_is_supervised(runner: Runner) -> None:
    # Given a command that runs while another worker on this machine starts
    ended, _ = runner.script("echo ready; sleep 0.2; exit 5", output=lambda data: HostIsolation(find_cgroups()).sweep())
    assert ended == Ended(Cause.ENDED, 5, None)


def test_a_sweep_spares_who_loses_a_parent_meanwhile(supervised: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a process of a command, and a parent that dies right after it has been named as such
    stop, printed, stat = Event(), bytearray(), processes.stat
    is_spared = False

    def stat_and_kill(pid: int) -> list[bytes]:
        found = stat(pid)
        child, parent = map(int, printed.split())
        if pid == child and int(found[1]) == parent:
            os.kill(parent, signal.SIGKILL)
            wait_until(lambda: not Path(f"/proc/{parent}").exists())
        return found

    def sweep(data: bytes) -> None:
        nonlocal is_spared
        printed.extend(data)
        if len(printed.split()) == 2:
            monkeypatch.setattr(host, "stat", stat_and_kill)
            # When another worker on this machine starts
            HostIsolation().sweep()
            is_spared = int(printed.split()[0]) in supervised.left()
            stop.set()

    family = f"(sleep {LONG_S} & echo $! $(exec sh -c 'echo $PPID'); exec sleep {LONG_S}) & sleep {LONG_S}"
    supervised.script(family, output=sweep, stop=stop)

    # Then the process is left alone
    assert is_spared


def test_a_sweep_spares_who_is_supervised_by_another_installation(supervised: Runner) -> None:
    # Given a command of a DistCI that is installed elsewhere on this machine
    copy = supervised.directory / "distci" / "isolation" / "supervisor.py"
    copy.parent.mkdir(parents=True)
    shutil.copy(supervisor.__file__, copy)
    go = supervised.directory / "go"
    os.mkfifo(go)
    status_out, status_in = os.pipe()
    control_out, control_in = os.pipe()
    environment = os.memfd_create("environment")
    os.write(environment, f"{FENCE}={supervised.mark}\0".encode())
    other = subprocess.Popen(
        [
            sys.executable,
            "-I",
            "-S",
            str(copy),
            str(status_in),
            str(control_out),
            str(environment),
            "",
            "",
            "/",
            "1",
            "",
            "/bin/sh",
            "-c",
            f"read line < {go}",
        ],
        env=supervised.environment,
        pass_fds=(status_in, control_out, environment),
    )
    for descriptor in (status_in, control_out, environment):
        os.close(descriptor)
    with ExitStack() as stack:
        stack.callback(os.close, control_in)
        said = stack.enter_context(os.fdopen(status_out, "rb"))
        wait_until(lambda: len(supervised.left()) == 2)
        # When a worker of ours starts
        supervised.isolation.sweep()
        # Then that command goes on to its own end
        gone_on = stack.enter_context(go.open("r+b", buffering=0))
        gone_on.write(b"\n")
        assert said.read().startswith(b".0 ")
        assert other.wait() == 0
