"""What every driver promises, by containers of podman and of Docker, and what only containers have. Needs root: ``tests/run containers``."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from threading import Event

import docker
import pytest
from conformance.test_isolation import *  # noqa: F403 - the same tests, with other drivers
from isolations import ENGINES, LONG_S, Runner, runner_of, start_worker, variable
from program import Home
from services import engines
from waiting import wait_until

from distci.errors import Invalid
from distci.isolation.host import HostIsolation
from distci.isolation.port import Cause, Confinement, Ended, Limits

del test_an_image_is_refused_where_there_are_none  # noqa: F821
del test_a_killed_worker_does_not_keep_its_control_groups  # noqa: F821
del test_tools_of_the_machine_are_there  # noqa: F821


REGISTRY = "TEST_REGISTRY"


@pytest.fixture(scope="module", autouse=True)
def _engines() -> Iterator[None]:
    """Both engines; variables tell where they are, to other processes, too."""
    # Podman takes no long paths.
    folder = Path(mkdtemp(prefix="engines-"))
    folder.chmod(0o755)
    with (
        engines.registry(folder / "registry") as registry,
        engines.podman(folder / "podman", registry) as (podman, archive),
        engines.docker(folder / "docker", archive) as dockerd,
    ):
        os.environ[REGISTRY] = registry
        for engine, url in zip(ENGINES, (podman, dockerd), strict=True):
            os.environ[variable(engine)] = f"{url} {folder / 'ours'}"
        yield
    subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.fixture(params=ENGINES)  # type: ignore[no-redef]
def runner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runner]:
    """Each engine."""
    yield from runner_of(request.param, tmp_path)


@pytest.fixture(params=ENGINES)  # type: ignore[no-redef]
def plain(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runner]:
    """The same: both suites of arguments are one here."""
    yield from runner_of(request.param, tmp_path)


def containers(runner: Runner) -> Sequence[str]:
    """All that the engine has."""
    url, _ = os.environ[variable(runner.driver)].split()
    client = docker.APIClient(url)
    found = [container["Id"] for container in client.containers(all=True)]
    client.close()
    return found


def folders(runner: Runner) -> Sequence[str]:
    """What there is for containers that run."""
    _, folder = os.environ[variable(runner.driver)].split()
    return [path.name for path in Path(folder).iterdir() if not path.name.startswith("kit-")]


def test_the_engine_has_no_container_any_more(runner: Runner) -> None:
    runner.isolation.sweep()
    assert runner.script("exit 3")[0] == Ended(Cause.ENDED, 3, None)
    runner.script(f"sleep {LONG_S}", timeout_s=0.1)
    wait_until(lambda: not containers(runner))
    assert folders(runner) == []


def test_what_a_killed_worker_left_is_removed_at_the_next_start(runner: Runner) -> None:
    # Given a worker that was killed
    ready = runner.directory / "ready"
    worker = start_worker(runner, f"touch {ready}; sleep {LONG_S}")
    wait_until(ready.exists)
    assert containers(runner)
    worker.kill()
    worker.wait()
    # When the next one starts
    runner.isolation.sweep()
    # Then nothing is left, and what others run is
    wait_until(lambda: not containers(runner))
    assert folders(runner) == []
    assert runner.left() == []


def test_a_worker_that_starts_takes_no_command_in_a_container_for_an_orphan(runner: Runner) -> None:
    ended, _ = runner.script("echo; sleep 0.3", output=lambda data: HostIsolation().sweep() and None)
    assert ended.ok


def test_containers_of_those_who_live_are_spared(runner: Runner) -> None:
    ready = runner.directory / "ready"
    worker = start_worker(runner, f"touch {ready}; sleep {LONG_S}")
    wait_until(ready.exists)
    runner.isolation.sweep()
    assert len(containers(runner)) == 1
    worker.kill()
    worker.wait()
    wait_until(lambda: not containers(runner))


def test_an_image_has_to_be_named(runner: Runner) -> None:
    with pytest.raises(Invalid, match="of which image"):
        runner.isolation.settle(Confinement(type="container"), Event())


def test_an_image_that_is_nowhere_is_named(runner: Runner) -> None:
    with pytest.raises(Exception, match="image localhost/nowhere:1 cannot be had"):
        runner.script("true", confinement=Confinement(image="localhost/nowhere:1"))


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
    url, _ = os.environ[variable(runner.driver)].split()
    seen: list[str] = []
    looked = runner.directory / "looked"

    def look(data: bytes) -> None:
        client = docker.APIClient(url)
        for container in client.containers(all=True):
            with suppress(docker.errors.NotFound):
                seen.append(str(client.inspect_container(container["Id"])))
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


# As tasks have it


@pytest.fixture(params=ENGINES)
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    """A user whose setting names an engine."""
    home = Home(tmp_path)
    url, _ = os.environ[variable(request.param)].split()
    home.environment |= {"DISTCI_ISOLATION": "container", "DISTCI_CONTAINER_ENGINE": url}
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
        assert said in home.run("build", "trigger", "team/say", "--follow").stdout

        # When the tag comes to mean another image
        make_image(home, name, "two")

        # Then the build that is run again has the one that it had, and a new build has the other
        assert home.run("build", "retry", "team/say#1", "--follow").returncode == 0
        assert home.run("build", "trigger", "team/say", "--follow").returncode == 0
        logs = [home.run("build", "log", f"team/say#{number}", "say").stdout for number in (1, 2, 3)]
    assert logs[0] == logs[1]
    assert logs[0].startswith(f"distci: {name} is sha256:")
    assert logs[2].endswith(said.replace("one", "two"))


def test_an_image_that_is_not_there_is_fetched_and_known_by_the_registrys_digest(home: Home) -> None:
    # Given an image that a registry has, and the engine has not
    client = docker.APIClient(home.environment["DISTCI_CONTAINER_ENGINE"])
    name = f"{os.environ[REGISTRY]}/team/tools"
    client.tag(engines.IMAGE, name, "1")
    pushed = client.push(name, "1")
    client.remove_image(f"{name}:1")
    client.close()
    # When a task names it
    isolation = {"type": "container", "image": f"{name}:1"}
    task = {"type": "shell", "name": "say", "script": "echo fetched", "isolation": isolation}
    ran = home.run("run", home.file({"job": "team/say", "tasks": [task]}))
    # Then it is there
    assert ran.returncode == 0, f"{ran.stdout}{ran.stderr}{pushed}"
    assert f"{name}:1 is {name}@sha256:" in ran.stdout
    assert "fetched" in ran.stdout
    # And one that the registry has not is told from a registry that is away
    task["isolation"] = isolation | {"image": f"{name}:none"}
    refused = home.run("run", home.file({"job": "team/say", "tasks": [task]}))
    assert f"image {name}:none cannot be had" in refused.stdout


def test_an_image_that_cannot_be_had_fails_the_task_and_is_named(home: Home) -> None:
    isolation = {"type": "container", "image": "localhost/nowhere:1"}
    task = {"type": "shell", "name": "say", "script": "true", "isolation": isolation, "attempts": 1}
    ran = home.run("run", home.file({"job": "team/say", "tasks": [task]}))
    assert ran.returncode == 1
    assert "localhost/nowhere:1" in ran.stdout


@pytest.mark.parametrize("user", ["0", "daemon"])
def test_a_file_of_a_secret_is_there_for_whoever_the_task_runs_as_and_no_other_tasks_is(home: Home, user: str) -> None:
    look = 'stat -c "%a %u" "$KEY"; id -u; wc -c < "$KEY"; find /dev/shm -name "secret-*"; echo "$KEY"'
    isolation = {"type": "container", "image": engines.IMAGE, "user": user}
    tasks = [
        {"type": "shell", "name": "one", "script": look, "secret_files": ["KEY"], "isolation": isolation},
        {"type": "shell", "name": "two", "script": 'find /dev/shm -name "secret-*"', "isolation": isolation},
    ]
    home.environment["KEY"] = "hunter2-s3same"

    ran = home.run("run", home.file({"job": "team/look", "tasks": tasks}), "--secret", "KEY", "--keep")

    assert ran.returncode == 0, f"{ran.stdout}{ran.stderr}"
    mode, uid, who, size, found, named = home.run("build", "log", "team/look#1", "one").stdout.split()[-6:]
    assert (mode, uid, size, found) == ("600", who, "14", named)
    assert "secret-" not in home.run("build", "log", "team/look#1", "two").stdout


def test_check_tells_of_the_engine_or_why_there_is_none(home: Home) -> None:
    there = {found["subject"]: found for found in home.json("check")}
    home.environment["DISTCI_CONTAINER_ENGINE"] = f"unix://{home.folder}/none.sock"
    away = home.ask("check")

    assert there["isolation container"]["detail"] == "allowed"
    assert away.exit_code == 2
    assert "isolation container: see that it runs" in away.stdout
