"""What containers of podman and of Docker have besides what every driver promises, and of that what engines can get wrong.

The whole of what every driver promises is held against both by ``tests/run containers``, which takes minutes.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from threading import Event
from time import monotonic

import docker
import pytest
from conformance.test_isolation import (  # noqa: F401 - of these, engines can get things wrong
    test_a_command_that_nobody_wants_any_more_ends_at_once,
    test_a_script_that_lost_a_child_for_lack_of_memory_says_so,
    test_an_output_that_cannot_be_taken_ends_the_command_and_passes_on,
    test_every_process_of_a_cancelled_command_is_asked_the_stopped_ones_too,
    test_it_has_no_file_of_the_worker_and_no_signal_set,
    test_limits_are_seen_where_programs_look_for_them,
    test_no_library_of_the_environment_gets_into_what_starts_the_command,
    test_no_more_processes_can_be_started_than_allowed,
    test_nothing_is_left_of_a_limited_command,
    test_output_and_errors_arrive_in_the_order_in_which_they_were_printed,
    test_the_workspace_and_tmp_can_be_written_to,
    test_what_was_printed_right_before_being_killed_arrives,
    test_who_goes_beyond_its_memory_is_told_from_who_is_killed,
    test_without_network_there_is_a_loopback_interface_alone,
)
from isolations import ENGINES, LONG_S, Runner, runner_of, start_worker
from program import Home
from services import engines, shared
from waiting import wait_until

from distci.errors import Invalid
from distci.isolation.container import ContainerIsolation
from distci.isolation.host import HostIsolation
from distci.isolation.port import Cause, Confinement, Ended, Limits, Service


@pytest.fixture(params=ENGINES)
def runner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runner]:
    """Each engine."""
    yield from runner_of(request.param, tmp_path)


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Runner]:
    """One engine, for what the other cannot do differently."""
    yield from runner_of("podman", tmp_path)


def engine_of(runner: Runner) -> docker.APIClient:
    return docker.APIClient(shared.engine(runner.driver))


def containers(runner: Runner) -> Sequence[str]:
    """All that the engine has of what was run here."""
    client = engine_of(runner)
    found = client.containers(all=True, filters={"label": [f"distci.attempt={runner.mark}"]})
    client.close()
    return [container["Id"] for container in found]


def folders(runner: Runner, worker: int) -> Sequence[str]:
    """What there is for containers of this process, which shares the engine with others."""
    return [path.name for path in shared.engine_folder(runner.driver).glob(f"pipes-{worker}-*")]


def test_the_engine_has_no_container_any_more(runner: Runner) -> None:
    runner.isolation.sweep()
    assert runner.script("exit 3")[0] == Ended(Cause.ENDED, 3, None)
    runner.script(f"sleep {LONG_S}", timeout_s=0.1)
    wait_until(lambda: not containers(runner))
    assert folders(runner, os.getpid()) == []


def test_what_a_killed_worker_left_is_removed_at_the_next_start(runner: Runner) -> None:
    # Given a worker that was killed
    ready = runner.directory / "ready"
    worker = start_worker(runner, f"touch {ready}; sleep {LONG_S}")
    wait_until(ready.exists)
    assert containers(runner)
    assert folders(runner, worker.pid)
    worker.kill()
    worker.wait()
    # When the next one starts
    runner.isolation.sweep()
    # Then nothing is left, and what others run is
    wait_until(lambda: not containers(runner))
    assert folders(runner, worker.pid) == []
    assert runner.left() == []


def test_a_worker_that_starts_takes_no_command_in_a_container_for_an_orphan(plain: Runner) -> None:
    ended, _ = plain.script("echo; sleep 0.3", output=lambda data: HostIsolation().sweep() and None)
    assert ended.ok


def test_containers_of_those_who_live_are_spared(plain: Runner) -> None:
    ready = plain.directory / "ready"
    worker = start_worker(plain, f"touch {ready}; sleep {LONG_S}")
    wait_until(ready.exists)
    plain.isolation.sweep()
    assert len(containers(plain)) == 1
    worker.kill()
    worker.wait()
    wait_until(lambda: not containers(plain))


def test_an_image_has_to_be_named(plain: Runner) -> None:
    with pytest.raises(Invalid, match="of which image"):
        plain.isolation.settle(Confinement(type="container"), Event())


def test_an_image_that_is_nowhere_is_named(plain: Runner) -> None:
    with pytest.raises(Exception, match="image localhost/nowhere:1 cannot be had"):
        plain.script("true", confinement=Confinement(image="localhost/nowhere:1"))


def test_a_container_has_no_right_that_concerns_the_machine(runner: Runner) -> None:
    _, printed = runner.script("grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; mknod /disk b 8 0")
    values = dict(line.split(":\t") for line in printed.decode().splitlines() if ":\t" in line)
    chroot, setuid, setgid, kill, fsetid, fowner, dac_override, chown = (1 << n for n in (18, 7, 6, 5, 4, 3, 1, 0))
    allowed = chroot | setuid | setgid | kill | fsetid | fowner | dac_override | chown
    assert int(values["CapEff"], 16) == int(values["CapBnd"], 16) == allowed
    assert (values["NoNewPrivs"], values["Seccomp"]) == ("1", "2")
    assert b"not permitted" in printed


def test_what_is_written_into_the_image_counts_as_disk(runner: Runner) -> None:
    wanted = Confinement(limits=Limits(disk_bytes=4 << 20))
    ended, _ = runner.script(f"head -c 8M /dev/zero > /root.file; sleep {LONG_S}", confinement=wanted)
    assert ended.cause is Cause.OUT_OF_DISK


def test_the_engine_keeps_neither_variables_nor_output(runner: Runner) -> None:
    seen: list[str] = []
    looked = runner.directory / "looked"

    def look(data: bytes) -> None:
        client = engine_of(runner)
        for container in containers(runner):
            with suppress(docker.errors.NotFound):
                seen.append(str(client.inspect_container(container)))
        client.close()
        looked.touch()

    environment = {**runner.environment, "PHRASE": "correct horse"}
    runner.run(
        "/bin/sh",
        "-c",
        f"echo battery staple; until [ -e {looked} ]; do sleep 0.01; done",
        environment=environment,
        output=look,
    )
    assert seen
    assert not any("correct horse" in text or "battery staple" in text for text in seen)


def test_what_the_operator_shares_is_seen_where_it_is_and_cannot_be_written_to(plain: Runner, tmp_path: Path) -> None:
    shares = tmp_path / "shares"
    shares.mkdir(mode=0o777)
    (shares / "tools").write_text("of the operator")
    paths = [str(shares), "/no/such/folder"]
    plain.isolation = ContainerIsolation(shared.engine("podman"), shared.engine_folder("podman"), "host", paths)
    plain.directory = tmp_path / "work"
    plain.directory.mkdir()
    ended, printed = plain.script(f"cat {shares}/tools; touch {shares}/mine")
    assert not ended.ok
    assert b"of the operator" in printed
    assert b"Read-only file system" in printed


# Services

PYTHON = "/usr/bin/python3"
SERVER = ("python3", "-S", "-m", "http.server", "8000")
IS_UP = "python3 -S -c 'import socket; socket.create_connection((\"127.0.0.1\", 8000), 1)'"
"""Succeeds once that listens."""
FETCH = "python3 -S -c 'import urllib.request as u; print(u.urlopen(\"http://web:8000/\").status)'"
SHELL = "/bin/sh", "-c"


def service(name: str, *arguments: str, health: str = "", within_s: float = 30.0) -> Service:
    words = (*SHELL, health) if health else ()
    return Service(name, engines.IMAGE, arguments, health=words, health_time_max_s=within_s)


def test_services_are_ready_reached_by_name_and_gone_with_their_command(runner: Runner) -> None:
    # Given a command without network, and services of which one has a variable of its own
    named = replace(service("named", *SHELL, f"echo $WORD; exec sleep {LONG_S}"), environment={"WORD": "hello"})
    wanted = Confinement(network=False, services=[service("web", *SERVER, health=IS_UP), named])
    # When it asks one of them
    ended, printed = runner.script(FETCH, confinement=wanted)
    # Then it is answered, what they said comes at the end, and nothing is left
    assert ended == Ended(Cause.ENDED, 0, None), printed
    answer, told, *_, last = printed.decode().splitlines()
    assert (answer, told, last) == ("200", "distci: service web said:", "hello")
    assert '"GET / HTTP/1.1" 200' in printed.decode()
    wait_until(lambda: not containers(runner))
    assert folders(runner, os.getpid()) == []
    assert runner.left() == []


def test_a_service_that_is_never_ready_is_told_with_its_last_lines(runner: Runner) -> None:
    lines = f"seq 40; exec sleep {LONG_S}"
    wanted = Confinement(services=[service("slow", *SHELL, lines, health="false", within_s=0.5)], network=False)
    said: list[bytes] = []
    with pytest.raises(Invalid, match=r"^service slow was not ready within 0\.5 s$"):
        runner.script(f"touch {runner.directory}/canary", confinement=wanted, output=said.append)
    *_, last = said
    assert last.decode().split("\n") == [
        "distci: service slow said, of 111 bytes the last 60:",
        *map(str, range(21, 41)),
        "",
    ]
    assert not (runner.directory / "canary").exists()
    wait_until(lambda: not containers(runner))


def test_a_service_that_ends_before_it_is_ready_is_told_with_how_it_ended(plain: Runner) -> None:
    wanted = Confinement(services=[service("gone", *SHELL, "echo no; exit 3", health="false")], network=False)
    with pytest.raises(Invalid, match=r"^service gone ended before it was needed: exit status 3$"):
        plain.script("true", confinement=wanted)


def test_a_service_that_ends_meanwhile_is_told(plain: Runner) -> None:
    web = service("brief", *SHELL, "sleep 0.5; exit 4")
    waits = f"{PYTHON} -S -c 'import time; time.sleep(2)'"
    ended, printed = plain.script(waits, confinement=Confinement(services=[web], network=False))
    assert ended.ok
    assert b"distci: service brief had ended by itself: exit status 4\n" in printed


def test_who_is_told_to_end_does_not_wait_for_services(plain: Runner) -> None:
    stop, began_s = Event(), monotonic()
    never = service("never", *SHELL, f"sleep {LONG_S}", health=f"sleep {LONG_S}", within_s=LONG_S)
    wanted = Confinement(services=[never], network=False)
    in_time, _ = plain.script("sleep 600", confinement=wanted, timeout_s=1.0)
    stop.set()
    stopped, _ = plain.script("sleep 600", confinement=wanted, stop=stop)
    assert (in_time.cause, stopped.cause) == (Cause.TIMED_OUT, Cause.STOPPED)
    assert monotonic() - began_s < 60


def test_services_of_a_killed_worker_end_with_it(runner: Runner) -> None:
    # Given a worker that is killed while a service runs beside its command
    ready = runner.directory / "ready"
    worker = start_worker(runner, f"touch {ready}; sleep {LONG_S}", services=["beside"])
    wait_until(ready.exists)
    assert len(containers(runner)) == 2
    worker.kill()
    worker.wait()
    # Then both are ended at once, and removed at the latest when the next one starts
    wait_until(lambda: not runner.left())
    runner.isolation.sweep()
    wait_until(lambda: not containers(runner))
    assert folders(runner, worker.pid) == []


def test_services_do_not_meet_on_the_machines_network(plain: Runner) -> None:
    with pytest.raises(Invalid, match="container_network has containers on the machine's own network"):
        plain.script("true", confinement=Confinement(services=[service("web", *SERVER)]))


# Images


def pushed(engine: str, name: str, *, is_tiny: bool = True, **options: object) -> None:
    """Have a registry have an image like no other, and the engine not."""
    client = docker.APIClient(shared.engine(engine))
    repository, _, tag = name.rpartition(":")
    if is_tiny:
        packed = BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            file = tarfile.TarInfo("name")
            file.size = len(name)
            archive.addfile(file, BytesIO(name.encode()))
        # Engines differ in what they make of a name here.
        made = json.loads(client.import_image_from_data(packed.getvalue()).splitlines()[-1])["status"]
        client.tag(made, repository, tag)
    else:
        made = client.create_container(engines.IMAGE, ["true"])["Id"]
        client.commit(made, repository=repository, tag=tag, changes=f"ENV NAME={name}")
        client.remove_container(made)
    said = client.push(repository, tag, **options)
    client.remove_image(name)
    client.close()
    assert "error" not in said, said


def test_an_image_that_is_not_there_is_fetched_and_known_by_the_registrys_digest(runner: Runner) -> None:
    name = f"{shared.registry()}/{runner.driver}/tools"
    pushed(runner.driver, f"{name}:1")
    settled = runner.isolation.settle(Confinement(image=f"{name}:1"), Event())
    assert settled.image.startswith(f"{name}@sha256:")
    with pytest.raises(Invalid, match=f"image {name}:none cannot be had"):
        runner.isolation.settle(Confinement(image=f"{name}:none"), Event())


def test_an_image_of_a_private_registry_is_for_those_alone_who_may_log_in(runner: Runner) -> None:
    # Given an image that one user may have, and that was fetched for them
    registry = shared.private_registry()
    name = f"{registry}/{runner.driver}/tools:1"
    pushed(runner.driver, name, auth_config={"username": engines.USER, "password": engines.PASSWORD})
    login = Confinement(image=name, logins={registry: f"{engines.USER}:{engines.PASSWORD}"})
    settled = runner.isolation.settle(login, Event())
    # When others name it, be it by its digest or by its id, now that the engine has it
    client = engine_of(runner)
    by_id = client.inspect_image(name)["Id"]
    client.close()
    wrong = {registry: f"{engines.USER}:wrong horse"}
    # Then they get nothing, and no message has a password in it
    for image, logins in ((name, {}), (settled.image, wrong), (by_id, {})):
        with pytest.raises(Invalid, match="cannot be had") as refused:
            runner.isolation.settle(Confinement(image=image, logins=logins), Event())
        assert "horse" not in str(refused.value)
    # And who may have it still does
    assert runner.isolation.settle(replace(settled, image=by_id), Event()).image == by_id


def test_what_was_asked_for_by_a_login_is_not_printed() -> None:
    assert "sesame" not in repr(Confinement(logins={"registry.example.org": "ada:sesame"}))


# As tasks have it


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A user whose setting names an engine."""
    home = Home(tmp_path)
    home.environment |= {"DISTCI_ISOLATION": "container", "DISTCI_CONTAINER_ENGINE": shared.engine("podman")}
    home.environment |= {"DISTCI_CONTAINER_NETWORK": "host"}
    return home


def make_image(home: Home, name: str, text: str) -> None:
    """An image whose file ``/which`` has that text, and whose variables say so, too."""
    client = docker.APIClient(home.environment["DISTCI_CONTAINER_ENGINE"])
    # With a network, the engine would change the machine's.
    alone = client.create_host_config(network_mode="none")
    made = client.create_container(engines.IMAGE, ["sh", "-c", f"echo {text} > /which"], host_config=alone)["Id"]
    client.start(made)
    client.wait(made)
    repository, _, tag = name.rpartition(":")
    client.commit(made, repository=repository, tag=tag, changes=f"ENV PATH=/opt/{text}:/usr/bin:/bin")
    client.remove_container(made)
    client.close()


def test_a_build_goes_by_the_image_that_its_first_task_found_and_so_does_its_retry(home: Home) -> None:
    # Given a system, and a job whose image is known by a tag
    name = "localhost/moving:1"
    make_image(home, name, "one")
    isolation = {"type": "container", "image": name, "user": "daemon"}
    task = {"type": "shell", "name": "say", "script": "cat /which; echo $PATH; id -un", "isolation": isolation}
    home.ask("job", "put", home.file({"job": "team/say", "tasks": [task]}))
    said = "\none\n/opt/one:/usr/bin:/bin\ndaemon\n"
    with home.running("up", until="Ctrl-C") as up:
        assert "tasks run in  container" in up.stdout
        assert said in home.ask("build", "trigger", "team/say", "--follow").stdout

        # When the tag comes to mean another image
        make_image(home, name, "two")

        # Then the build that is run again has the one that it had, and a new build has the other
        assert home.ask("build", "retry", "team/say#1", "--follow").exit_code == 0
        assert home.ask("build", "trigger", "team/say", "--follow").exit_code == 0
        # But for the line that each begins with, which names the build
        logs = [home.ask("build", "log", f"team/say#{n}", "say").stdout.partition("\n")[2] for n in (1, 2, 3)]
    assert logs[0] == logs[1]
    assert logs[0].startswith(f"distci: {name} is sha256:")
    assert logs[2].endswith(said.replace("one", "two"))


def test_an_image_that_cannot_be_had_fails_the_task_and_is_named(home: Home) -> None:
    isolation = {"type": "container", "image": "localhost/nowhere:1"}
    task = {"type": "shell", "name": "say", "script": "true", "isolation": isolation, "attempts": 1}
    ran = home.run("run", home.file({"job": "team/say", "tasks": [task]}))
    assert ran.returncode == 1
    assert "localhost/nowhere:1" in ran.stdout


def test_secret_files_and_caches_are_there_for_whoever_the_task_runs_as_and_no_other_tasks_are(home: Home) -> None:
    look = 'echo $(stat -c "%a %u" "$KEY") $(id -u) $(wc -c < "$KEY") $(find /dev/shm -name "secret-*") "$KEY"'
    # What the one has left in a cache, the other finds and may change.
    look += "; echo who was here: $(cat ~/.cache/who || :); id -un > ~/.cache/who"
    caches = [{"name": "who", "path": "~/.cache"}]
    tasks: list[dict[str, object]] = [
        {
            "type": "shell",
            "name": user,
            "script": look,
            "secret_files": ["KEY"],
            "isolation": isolation_as(user),
            "caches": caches,
        }
        for user in ("root", "daemon")
    ]
    none = 'echo none: $(find /dev/shm -name "secret-*").'
    tasks.append({"type": "shell", "name": "two", "script": none, "isolation": isolation_as("root")})
    home.environment["KEY"] = "hunter2-s3same"

    ran = home.run("run", home.file({"job": "team/look", "tasks": tasks}), "--secret", "KEY")

    assert ran.returncode == 0, f"{ran.stdout}{ran.stderr}"
    looks = [line.split()[-6:] for line in ran.stdout.splitlines() if "/secret-KEY" in line]
    assert [(mode, uid, who, size) for mode, uid, who, size, _, _ in looks] == [
        ("600", "0", "0", "14"),
        ("600", "1", "1", "14"),
    ]
    assert all(found == named for *_, found, named in looks)
    assert "none: .\n" in ran.stdout
    assert "who was here: root\n" in ran.stdout


def isolation_as(user: str) -> dict[str, str]:
    return {"type": "container", "image": engines.IMAGE, "user": user}


def test_a_task_has_services_and_one_that_is_not_ready_is_its_reason(home: Home) -> None:
    # Given a task with a service that answers, and one with a service that does not
    web: dict[str, object] = {"name": "web", "image": engines.IMAGE, "arguments": [*SERVER]}
    web["health"] = {"command": IS_UP}
    never: dict[str, object] = {
        "name": "never",
        "image": engines.IMAGE,
        "arguments": [*SHELL, "echo sorry; exec sleep 600"],
    }
    never |= {"health": {"command": "false", "within": "1s"}}
    apart: dict[str, object] = {"type": "container", "image": engines.IMAGE, "network": False}
    tasks = [
        {"type": "shell", "name": "asks", "script": FETCH, "isolation": {**apart, "services": [web]}},
        {"type": "shell", "name": "waits", "script": "true", "isolation": {**apart, "services": [never]}},
    ]
    # When they run
    ran = home.run("run", home.file({"job": "team/web", "tasks": tasks}))
    # Then the one has its answer, and the other failed for what its service was not
    assert ran.returncode == 1
    assert "200\n" in ran.stdout
    assert "service never was not ready within 1 s" in ran.stdout
    assert "service never said:\n" in ran.stdout
    assert "sorry\n" in ran.stdout


def test_a_private_image_takes_a_secret_that_is_nowhere_to_be_read(home: Home) -> None:
    # Given a project with the login to a registry as a secret
    registry = shared.private_registry()
    name = f"{registry}/home/tools:1"
    pushed("podman", name, is_tiny=False, auth_config={"username": engines.USER, "password": engines.PASSWORD})
    isolation = {"type": "container", "image": name, "credentials": "LOGIN"}
    task = {"type": "shell", "name": "say", "script": "echo ran", "isolation": isolation}
    home.environment["LOGIN"] = f"{engines.USER}:{engines.PASSWORD}"
    # When a task has an image of it
    data = home.folder / "data"
    ran = home.run("run", home.file({"job": "team/say", "tasks": [task]}), "--secret", "LOGIN", "--data", str(data))
    del home.environment["LOGIN"], isolation["credentials"]
    others = home.run("run", home.file({"job": "other/say", "tasks": [task]}), "--data", str(data))
    # Then it runs, who has no such secret has no such image, and the password is in no file and no log
    assert ran.returncode == 0, f"{ran.stdout}{ran.stderr}"
    assert f"{name} is {name.rpartition(':')[0]}@sha256:" in ran.stdout
    assert others.returncode == 1
    assert f"image {name} cannot be had" in others.stdout
    files = [path for path in data.rglob("*") if path.is_file()]
    assert files
    assert not any(engines.PASSWORD.encode() in path.read_bytes() for path in files)
    assert engines.PASSWORD not in ran.stdout


def test_check_tells_of_the_engine_or_why_there_is_none(home: Home) -> None:
    there = {found["subject"]: found for found in home.json("check")}
    home.environment["DISTCI_CONTAINER_ENGINE"] = f"unix://{home.folder}/none.sock"
    away = home.ask("check")

    assert there["isolation container"]["detail"] == "allowed"
    assert away.exit_code == 2
    assert "isolation container: see that it runs" in away.stdout
