"""What is particular to the sandbox: what of the machine can be seen there, who may make one, and what is said where none can be made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

import pytest
from isolations import Runner, runner_of

import distci
from distci.errors import Unavailable
from distci.isolation.port import Command, Confinement, Mount
from distci.isolation.sandbox import SandboxIsolation


@pytest.fixture
def sandboxed(tmp_path: Path) -> Iterator[Runner]:
    yield from runner_of("sandboxed", tmp_path)


def printed_by(runner: Runner, script: str) -> str:
    ended, printed = runner.script(script)
    assert ended.ok, printed
    return printed.decode()


def test_homes_and_what_lies_beside_the_workspace_are_not_there(sandboxed: Runner) -> None:
    beside = sandboxed.directory.with_name("beside")
    beside.mkdir()
    (beside / "secret").write_text("sesame")

    printed = printed_by(
        sandboxed, f"ls -A {beside.parent}; ls -A /home /srv /mnt /var/lib 2>/dev/null; ls /root 2>/dev/null || true"
    )

    assert sandboxed.directory.name in printed
    assert "beside" not in printed
    assert len(printed.split()) <= 2, "the way to the tests' folder at most"


def test_the_workers_settings_are_hidden(sandboxed: Runner) -> None:
    assert printed_by(sandboxed, "ls -A /etc/distci 2>/dev/null; test -e /etc/passwd && echo seen") == "seen\n"


def test_other_processes_are_not_there(sandboxed: Runner) -> None:
    found = printed_by(sandboxed, "for p in /proc/[0-9]*; do echo ${p#/proc/}; done")
    assert all(int(pid) < 20 for pid in found.split())
    ended, _ = sandboxed.script(f"kill -0 {os.getpid()}")
    assert not ended.ok


def test_the_supervisor_is_out_of_the_commands_reach(sandboxed: Runner) -> None:
    if os.geteuid() != 0:
        pytest.skip("it runs as the same user where root runs nothing")
    ended, printed = sandboxed.script("kill -9 $PPID 1; exit 7")
    assert ended.exit_status == 7
    assert printed.count(b"Operation not permitted") == 2


def test_commands_have_no_rights_of_root(sandboxed: Runner) -> None:
    printed = printed_by(sandboxed, "grep -E '^(CapEff|CapPrm|CapAmb|NoNewPrivs)' /proc/self/status")
    assert printed.split() == ["CapPrm:", "0" * 16, "CapEff:", "0" * 16, "CapAmb:", "0" * 16, "NoNewPrivs:", "1"]


def test_folders_that_the_operator_names_are_seen_and_cannot_be_written_to(tmp_path: Path) -> None:
    tools, work = tmp_path / "tools", tmp_path / "work"
    for folder in (tools, work):
        folder.mkdir()
    (tools / "tool").write_text("hello\n")
    printed = bytearray()
    command = Command(["/bin/cat", str(tools / "tool")], work, {}, "tag", mounts=[Mount(work, True, True)])
    assert SandboxIsolation(paths=[str(tools)]).run(command, printed.extend, Event()).ok
    assert printed == b"hello\n"
    touch = Command(["/usr/bin/touch", str(tools / "tool")], work, {}, "tag", mounts=[Mount(work, True, True)])
    assert not SandboxIsolation(paths=[str(tools)]).run(touch, lambda data: None, Event()).ok


def test_a_hidden_folder_among_them_looks_empty_and_what_is_mounted_below_it_does_not(tmp_path: Path) -> None:
    data = tmp_path / "tools" / "data"
    work = data / "scratch" / "work"
    work.mkdir(parents=True)
    (data / "secret").write_text("sesame")
    printed = bytearray()
    isolation = SandboxIsolation(paths=[str(tmp_path / "tools")], hidden=[str(data)])
    command = Command(
        ["/bin/sh", "-c", f"ls {data}; touch here"], work, {"PATH": os.defpath}, "tag", mounts=[Mount(work, True, True)]
    )
    assert isolation.run(command, printed.extend, Event()).ok
    assert printed == b"scratch\n"
    assert (work / "here").exists()


def test_modes_and_links_survive_that_a_workspace_is_given_away(sandboxed: Runner) -> None:
    # Given a workspace with what a change of owner could spoil
    outside = sandboxed.directory.with_name("outside")
    outside.touch()
    before = outside.stat()
    program = sandboxed.directory / "program"
    program.touch()
    program.chmod(0o4755)
    os.link(program, sandboxed.directory / "twice")
    (sandboxed.directory / "link").symlink_to(outside)

    printed = printed_by(sandboxed, "stat -c '%a %h' program; test -O program; test -L link")

    assert printed == "4755 2\n"
    assert (outside.stat().st_uid, outside.stat().st_ctime_ns) == (before.st_uid, before.st_ctime_ns)


def test_what_is_mounted_read_only_can_be_read_by_the_command_alone(tmp_path: Path) -> None:
    script, work = tmp_path / "script", tmp_path / "work"
    work.mkdir()
    script.write_text("echo run; echo more >> $0")
    script.chmod(0o600)
    printed = bytearray()
    mounts = [Mount(work, True, True), Mount(script, is_own=True)]
    command = Command(["/bin/sh", str(script)], work, {}, "tag", mounts=mounts)
    assert not SandboxIsolation().run(command, printed.extend, Event()).ok
    assert printed.startswith(b"run\n")
    assert b"Read-only file system" in printed


def test_where_there_is_no_bubblewrap_its_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert SandboxIsolation().problem() == "there is no program bwrap: install what Debian calls bubblewrap"


def test_a_sandbox_that_cannot_be_made_is_nobodys_failure(tmp_path: Path) -> None:
    # Given a folder that goes away between being chosen and being mounted
    mounts = [Mount(tmp_path, True), Mount(tmp_path / "gone")]
    heard = bytearray()
    with pytest.raises(Unavailable, match=r"no sandbox can be made: bwrap: .*gone"):
        SandboxIsolation().run(Command(["/bin/true"], tmp_path, {}, "tag", mounts=mounts), heard.extend, Event())
    assert heard == b""


ORDINARY = """
import json, os, sys
from pathlib import Path
from threading import Event
from distci.errors import Invalid
from distci.isolation.cgroups import find_cgroups
from distci.isolation.port import Command, Confinement, Limits, Mount
from distci.isolation.sandbox import SandboxIsolation
work = Path(sys.argv[1], "work")
work.mkdir()
isolation = SandboxIsolation(find_cgroups())
def run(script, **wanted):
    printed = bytearray()
    command = Command(["/bin/sh", "-c", script], work, {"PATH": os.defpath}, "tag",
                      mounts=[Mount(work, True, True)], confinement=Confinement(**wanted))
    try:
        ended = isolation.run(command, printed.extend, Event())
    except Invalid as error:
        return str(error)
    return [ended.exit_status, ended.signal, printed.decode()]
print(json.dumps({
    "problem": isolation.problem(),
    "id": run("id -u"),
    "status": run("exit 7"),
    "signal": run("kill -SEGV $$"),
    "write": run("echo x > file; cat file; touch /usr/x"),
    "network": run("grep -c : /proc/net/dev", network=False),
    "root": run("id -u", user="0:0"),
    "daemon": run("setsid sleep 600 & echo ready"),
    "limit": run("true", limits=Limits(memory_bytes=1 << 26)),
    "owner": (work / "file").stat().st_uid,
}))
"""


@pytest.fixture(scope="module")
def ordinary() -> Iterator[Mapping[str, object]]:
    """What somebody without any rights sees of sandboxes that they make."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        source = Path(distci.__file__).parent
        copy = Path(folder, "distci")
        shutil.copytree(source / "isolation", copy / "isolation", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("__init__.py", "errors.py", "model.py"):
            shutil.copy(source / name, copy)
        own = Path(folder, "own")
        own.mkdir()
        become = []
        if os.geteuid() == 0:
            os.chown(own, 4321, 4321)
            become = ["setpriv", "--reuid=4321", "--regid=4321", "--clear-groups", "--"]
        ran = subprocess.run(
            [*become, "/usr/bin/python3", "-c", ORDINARY, str(own)],
            cwd=folder,
            env={"PYTHONPATH": folder, "PATH": os.defpath},
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert ran.returncode == 0, ran.stderr.decode()
        yield json.loads(ran.stdout)


@pytest.mark.parametrize(
    ("what", "found"),
    [
        ("problem", ""),
        ("status", [7, None, ""]),
        ("signal", [None, 11, ""]),
        ("network", [0, None, "1\n"]),
        ("root", [0, None, "0\n"]),
        ("daemon", [0, None, "ready\n"]),
    ],
)
def test_an_ordinary_user_has_sandboxes_too(ordinary: Mapping[str, object], what: str, found: object) -> None:
    assert ordinary[what] == found


def test_an_ordinary_users_command_runs_as_that_user(ordinary: Mapping[str, object]) -> None:
    user = os.geteuid() or 4321
    assert (ordinary["id"], ordinary["owner"]) == ([0, None, f"{user}\n"], user)


def test_an_ordinary_users_command_writes_to_its_workspace_alone(ordinary: Mapping[str, object]) -> None:
    written = ordinary["write"]
    assert isinstance(written, list)
    assert written[0] == 1
    assert written[2].startswith("x\n")
    assert "Read-only file system" in written[2]


def test_a_limit_that_an_ordinary_user_cannot_set_is_refused(ordinary: Mapping[str, object]) -> None:
    refusal = "isolation sandbox: no memory control group can be made by this worker: run it as root"
    assert str(ordinary["limit"]).startswith(refusal) or ordinary["limit"] == [0, None, ""]


def test_no_program_runs_as_root_of_the_machine(sandboxed: Runner) -> None:
    if os.geteuid() != 0:
        pytest.skip("nobody but root could have it run so")
    from distci.errors import Invalid

    with pytest.raises(Invalid, match="root of this machine must not run commands"):
        sandboxed.script("id", confinement=Confinement(user="root"))
