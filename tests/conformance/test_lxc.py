"""What LXC containers have besides what every driver promises: users of their own or the machine's, images, and that nothing of LXC is left.

What every driver promises is held against containers with users of their own where the other drivers are, and here in part against the others.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

import pytest
from conformance.test_isolation import (  # noqa: F401 - of these, the users of a container can get things wrong
    test_a_killed_worker_does_not_keep_its_control_groups,
    test_a_user_that_there_is_not_is_named,
    test_it_has_no_file_of_the_worker_and_no_signal_set,
    test_it_runs_as_the_user_that_it_is_told,
    test_nothing_is_left_of_a_limited_command,
    test_the_environment_is_exactly_what_is_given,
    test_the_signal_that_killed_it_is_told,
    test_the_workspace_and_tmp_can_be_written_to,
    test_what_is_typed_on_its_terminal_reaches_a_command_and_what_stands_there_is_output,
    test_who_goes_beyond_its_memory_is_told_from_who_is_killed,
    test_without_network_there_is_a_loopback_interface_alone,
)
from isolations import (
    LONG_S,
    MACHINES_USERS,
    OWN_USERS,
    SUBORDINATES,
    Runner,
    children,
    environment_of,
    lxc,
    runner_of,
    start_worker,
)
from program import Home
from services import shared
from waiting import wait_until

from distci.errors import Invalid, Unavailable
from distci.isolation.lxc import LxcIsolation
from distci.isolation.port import Cause, Confinement, Ended, Limits, Mount
from distci.isolation.seen import Seen
from distci.isolation.users import Subordinates, find_subordinates

IMAGE = "tools-1"
ROOT_OF_IMAGE = Confinement(image=IMAGE, user="root")
PROGRAMS = ("sh", "cat", "id", "ls", "touch", "chown", "mkdir", "sleep", "grep", "head", "stat")
PAGE = Path(__file__).parents[2] / "docs" / "lxc.rst"


@pytest.fixture(params=[OWN_USERS, MACHINES_USERS])
def container(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runner]:
    """With users of its own, and with the machine's."""
    yield from runner_of(request.param, tmp_path)


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    """With the machine's users."""
    yield from runner_of(MACHINES_USERS, tmp_path)


@pytest.fixture
def plain(runner: Runner) -> Runner:
    return runner


@pytest.fixture(scope="module")
def images() -> Iterator[Path]:
    """A folder with one image, of few programs and their libraries, some of whose links lead out of it for whoever follows them from outside."""
    with TemporaryDirectory() as folder:
        root = Path(folder, IMAGE)
        for name in ("usr/bin", "etc", "var", "root"):
            (root / name).mkdir(parents=True)
        for name in ("bin", "lib", "lib64"):
            (root / name).symlink_to(f"usr/{name}")
        for program in PROGRAMS:
            path = shutil.which(program)
            assert path
            shutil.copy(path, root / "usr" / "bin" / program)
            for library in re.findall(r"(/\S+) \(0x", subprocess.check_output(["ldd", path], text=True)):
                place = root / "usr" / Path(library).relative_to("/usr" if library.startswith("/usr") else "/")
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(library, place)
        (root / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\nbuilder:x:1000:1000::/:/bin/sh\n")
        (root / "etc" / "shadow").write_text("of the image\n")
        (root / "etc" / "shadow").chmod(0o600)
        (root / "etc" / "resolv.conf").symlink_to("../run/nobody/resolv.conf")
        (root / "var" / "tmp").symlink_to("/tmp")
        yield Path(folder)


@pytest.fixture(params=["its own users", "the machine's users"])
def imaged(request: pytest.FixtureRequest, tmp_path: Path, images: Path) -> Iterator[Runner]:
    """Where there is an image."""
    for runner in runner_of(OWN_USERS, tmp_path):
        runner.isolation = lxc(SUBORDINATES if request.param == "its own users" else None, images)
        yield runner


def has_own_users(runner: Runner) -> bool:
    assert isinstance(runner.isolation, LxcIsolation)
    return not runner.isolation.note()


def printed_by(runner: Runner, script: str, confinement: Confinement | None = None) -> str:
    ended, printed = runner.script(script, confinement=confinement or Confinement())
    assert ended.ok, (ended, printed)
    return printed.decode()


# Whom commands run as, and what they may


def test_a_command_is_nobody_and_of_its_own_users_none_is_one_of_this_machine(container: Runner) -> None:
    assert printed_by(container, "id -u; id -G; touch mine") == "65534\n65534\n"
    owner = (container.directory / "mine").stat().st_uid
    assert owner == (SUBORDINATES.uid + 65534 if has_own_users(container) else 65534)


def test_a_command_has_no_rights_of_root(container: Runner) -> None:
    printed = printed_by(container, "grep -E '^(CapEff|CapPrm|CapAmb|NoNewPrivs)' /proc/self/status")
    assert printed.split() == ["CapPrm:", "0" * 16, "CapEff:", "0" * 16, "CapAmb:", "0" * 16, "NoNewPrivs:", "1"]


def test_root_is_none_of_this_machine_or_nobody(container: Runner) -> None:
    root = Confinement(user="0:0")
    if not has_own_users(container):
        with pytest.raises(Invalid, match=r"root of this machine must not run commands; .*`distci check` tells how"):
            container.script("id", confinement=root)
        return
    printed = printed_by(
        container, "id -u; touch mine; cat /etc/shadow; mount -t tmpfs x /tmp; touch /usr/x /sys/x; exit 0", root
    )
    assert printed.startswith("0\n")
    assert printed.count("denied") >= 2
    assert "root:" not in printed
    assert (container.directory / "mine").stat().st_uid == SUBORDINATES.uid


def test_there_are_no_more_users_than_the_container_has(tmp_path: Path) -> None:
    for runner in runner_of(OWN_USERS, tmp_path):
        with pytest.raises(Invalid, match="there is no user 70000:70000 in there: they are 0 to 65535"):
            runner.script("id", confinement=Confinement(user="70000"))


def test_the_supervisor_is_out_of_the_commands_reach(container: Runner) -> None:
    ended, printed = container.script("kill -9 $PPID 1; exit 7")
    assert ended == Ended(Cause.ENDED, 7, None)
    assert printed.count(b"Operation not permitted") + printed.count(b"No such process") == 2


# What is seen


def test_other_processes_and_what_lies_beside_the_workspace_are_not_there(container: Runner) -> None:
    beside = container.directory.with_name("beside-a-container")
    beside.mkdir(exist_ok=True)
    printed = printed_by(
        container,
        f"ls -A {beside.parent}; ls -A /home /srv /mnt /var/lib /root /run/distci /etc/distci 2>/dev/null;"
        " for p in /proc/[0-9]*; do echo ${p#/proc/}; done",
    )
    folder, *processes = printed.split()
    assert folder == container.directory.name
    assert all(int(pid) < 20 for pid in processes)


def test_what_an_attempt_has_in_shared_memory_is_there(container: Runner) -> None:
    with TemporaryDirectory(dir="/dev/shm") as folder:
        (Path(folder) / "secret").write_text("sesame")
        command = container.command(["/bin/sh", "-c", f"cat {folder}/secret; ls -A /dev/shm"], container.environment)
        printed = bytearray()
        mounts = [*command.mounts, Mount(Path(folder), is_own=True)]
        assert container.isolation.run(replace(command, mounts=mounts), printed.extend, Event()).ok
    assert printed.decode() == f"sesame{Path(folder).name}\n"


def test_a_folder_that_the_worker_hides_looks_empty_and_what_is_mounted_below_it_does_not(container: Runner) -> None:
    data = container.directory / "data"
    work = data / "work"
    work.mkdir(parents=True)
    (data / "secret").write_text("sesame")
    container.directory.chmod(0o755)
    seen = Seen([str(container.directory)], [str(data)])
    users = SUBORDINATES if has_own_users(container) else None
    container.isolation = LxcIsolation(shared.kit_folder(), None, seen, None, users)
    above, container.directory = container.directory, work

    assert printed_by(container, f"ls {data}; touch here; touch {above}/no 2>&1 || true").startswith("work\n")

    assert (work / "here").exists()
    assert not (above / "no").exists()


# Images


def test_the_root_is_the_images_and_what_is_changed_there_is_gone_with_the_command(
    imaged: Runner, images: Path
) -> None:
    before = sorted(images.rglob("*"))
    confinement = ROOT_OF_IMAGE if has_own_users(imaged) else Confinement(image=IMAGE)
    script = "ls -A / /usr/bin; touch in-workspace; mkdir /tmp/a /var/tmp/b; ls -d /tmp/a /tmp/b"

    printed = printed_by(imaged, script, confinement)

    assert {"usr", "tmp", *PROGRAMS} <= {*printed.split()}
    assert not {"python3", "git", "home", "opt"} & {*printed.split()}
    assert printed.split()[-2:] == ["/tmp/a", "/tmp/b"], "a link of the image leads to somewhere in the container"
    assert (imaged.directory / "in-workspace").exists()
    assert sorted(images.rglob("*")) == before
    assert not Path("/tmp/a").exists()


def test_root_of_an_image_may_change_it_as_long_as_it_runs(imaged: Runner, images: Path) -> None:
    if not has_own_users(imaged):
        with pytest.raises(Invalid, match="root of this machine must not run commands"):
            imaged.script("id", confinement=ROOT_OF_IMAGE)
        return
    script = "cat /etc/shadow; echo changed > /etc/shadow; touch /usr/bin/new; chown builder /usr/bin/new; stat -c %U:%a /usr/bin/new /etc"
    assert printed_by(imaged, script, ROOT_OF_IMAGE).split() == ["of", "the", "image", "builder:644", "root:755"]
    assert (images / IMAGE / "etc" / "shadow").read_text() == "of the image\n"


def test_a_read_only_image_cannot_be_changed(imaged: Runner) -> None:
    confinement = replace(ROOT_OF_IMAGE if has_own_users(imaged) else Confinement(image=IMAGE), read_only=True)
    ended, printed = imaged.script("touch here /tmp/there; touch /usr/bin/new", confinement=confinement)
    assert ended.exit_status == 1
    assert printed.count(b"cannot touch") == 1
    assert b"Read-only file system" in printed or not has_own_users(imaged)


def test_a_user_is_looked_up_in_the_image(imaged: Runner) -> None:
    assert printed_by(imaged, "id -un; id -u", Confinement(image=IMAGE, user="builder")) == "builder\n1000\n"
    with pytest.raises(Invalid, match="the image has no user 'daemon'"):
        imaged.script("id", confinement=Confinement(image=IMAGE, user="daemon"))


def test_names_are_looked_up_where_the_machine_does_unless_there_is_no_network(imaged: Runner) -> None:
    look = "cat /etc/resolv.conf || true"
    with suppress(FileNotFoundError):
        assert printed_by(imaged, look, Confinement(image=IMAGE)) == Path("/etc/resolv.conf").read_text()
    assert "No such file" in printed_by(imaged, look, Confinement(image=IMAGE, network=False))


def test_an_image_holds_no_more_changes_than_the_disk_may(imaged: Runner) -> None:
    if not has_own_users(imaged):
        return
    wanted = replace(ROOT_OF_IMAGE, limits=Limits(disk_bytes=4 << 20))
    ended, printed = imaged.script("head -c 8M /dev/zero > /root/large", confinement=wanted)
    assert not ended.ok
    assert b"No space left on device" in printed


@pytest.mark.parametrize("name", ["none", "..", ".", f"../{IMAGE}", f"{IMAGE}/usr", f"{IMAGE}\n"])
def test_an_image_that_there_is_not_is_named(imaged: Runner, name: str) -> None:
    with pytest.raises(Invalid, match="there is no image '"):
        imaged.isolation.settle(Confinement(image=name), Event())


# What is left, and what cannot be had


def traces() -> list[str]:
    """What LXC leaves on a machine when nobody sees to that."""
    places = [*Path("/sys/fs/cgroup").glob("**/lxc*"), *Path("/run").glob("lxc/**/*"), *Path("/run").glob("distci*")]
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if "/run/distci" in line]
    return sorted(map(str, [*places, *mounts]))


def test_nothing_of_lxc_is_left_not_even_of_a_killed_worker(container: Runner) -> None:
    before = traces()
    container.script("true")
    ready = container.directory / "ready"
    worker = start_worker(container, f"touch {ready}; sleep {LONG_S}")
    wait_until(ready.exists)
    worker.kill()
    worker.wait()
    wait_until(lambda: not container.left())
    assert traces() == before


def test_when_lxc_itself_is_killed_nobody_is_left(container: Runner) -> None:
    ended, printed = container.script(
        f"setsid sleep {LONG_S} & echo ready; sleep {LONG_S}", output=lambda data: kill_lxc(container)
    )
    assert (ended, printed) == (Ended(Cause.ENDED, None, 9), b"ready\n")
    assert container.left() == []


def kill_lxc(container: Runner) -> None:
    """Kill the process of LXC that runs the runner's command."""
    [process] = [pid for pid in map(int, children()) if container.mark.encode() in environment_of(pid)]
    assert Path(f"/proc/{process}/comm").read_text() == "lxc-start\n"
    os.kill(process, signal.SIGKILL)


def test_a_container_that_cannot_be_made_is_nobodys_failure(container: Runner) -> None:
    # Given a folder that goes away between being chosen and being mounted
    command = container.command(["/bin/true"], {})
    gone = Mount(container.directory / "gone")
    heard = bytearray()
    with pytest.raises(Unavailable, match=r"no container can be made: .*gone: No such file"):
        container.isolation.run(replace(command, mounts=[*command.mounts, gone]), heard.extend, Event())
    assert heard == b""


def test_where_there_is_no_lxc_its_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert LxcIsolation(tmp_path).problem() == "there is no program lxc-start: install what Debian calls lxc"


@pytest.mark.parametrize(
    ("uids", "gids", "found"),
    [
        ("ada:100000:65536\nroot:200000:65536\n", "root:300000:131072\n", Subordinates(200_000, 300_000)),
        ("0:200000:65536\n", "0:300000:65536\n", Subordinates(200_000, 300_000)),
        ("root:200000:65536\n", "ada:300000:65536\n", None),
        ("root:200000:65535\n", "root:300000:65536\n", None),
        ("root:x:y\nroot\n", "root:300000:65536\n", None),
    ],
)
def test_users_of_containers_are_those_that_root_may_give(
    tmp_path: Path, uids: str, gids: str, found: Subordinates | None
) -> None:
    (tmp_path / "subuid").write_text(uids)
    (tmp_path / "subgid").write_text(gids)
    assert find_subordinates(tmp_path) == found


# As tasks have it


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A user who wants nothing else."""
    home = Home(tmp_path)
    home.environment["DISTCI_ISOLATION"] = "lxc"
    return home


def test_where_root_may_give_none_check_says_so(home: Home) -> None:
    found = {finding["subject"]: finding for finding in home.json("check")}["isolation lxc"]
    if find_subordinates():
        assert (found["state"], found["detail"]) == ("ok", "allowed")
    else:
        assert found["state"] == "note"
        assert "line root:100000:65536 in /etc/subuid" in found["remedy"]


def test_secret_files_and_caches_are_there_for_whoever_the_task_runs_as(home: Home) -> None:
    look = 'echo found $(stat -c "%a %u" "$KEY") $(id -u) $(wc -c < "$KEY")'
    # What the one has left in a cache, the other finds and may change.
    look += " $(cat ~/.cache/who || :); id -un > ~/.cache/who"
    shared = {"type": "shell", "script": look, "secret_files": ["KEY"], "caches": [{"name": "who", "path": "~/.cache"}]}
    tasks = [
        {"name": user, "isolation": {"type": "lxc", "user": user, "network": False}, **shared}
        for user in ("daemon", "games")
    ]
    home.environment["KEY"] = "hunter2-s3same"

    ran = home.run("run", home.file({"job": "team/look", "tasks": tasks}), "--secret", "KEY")

    assert ran.returncode == 0, f"{ran.stdout}{ran.stderr}"
    looks = [line.partition("found ")[2] for line in ran.stdout.splitlines() if "found 600" in line]
    assert looks == ["600 1 1 14", "600 5 5 14 daemon"]


def test_the_job_that_the_documentation_shows_runs(home: Home, images: Path) -> None:
    shown = re.search(r"code-block:: json\n\n((?:    .*\n|\n)+)", PAGE.read_text())
    assert shown
    document = json.loads(shown[1])
    folder = home.folder / "images"
    folder.mkdir()
    (folder / document["tasks"][1]["isolation"]["image"]).symlink_to(images / IMAGE)
    home.environment["DISTCI_LXC_IMAGES"] = str(folder)

    ran = home.run("run", home.file(document))

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "65534" in ran.stdout
