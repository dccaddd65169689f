"""The image of deploy/Containerfile, built by podman, and a system of its containers. Needs root: ``tests/run containers``."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import urlsplit

import pytest
import requests
import yaml
from services import s3
from services.containers import Podman
from services.daemon import free_port
from services.zookeeper import ZooKeeperServers
from waiting import wait_until

from distci.app import DistCI, connect
from distci.model import Result, TaskState
from distci.protocol.members import workers

ROOT = Path(__file__).parents[2]
BASE, IMAGE = "localhost/base:1", "localhost/distci:1"
KINDS = ("control", "git-checkout", "shell", "publish-artifacts", "copy-artifacts", "status")
USER = 10001
BUILD_TIME_MAX_S = 120.0
BLOB_BYTES = 3_000_000
HARDENED = ("--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--pids-limit=256", "--memory=1g")

# Whoever comes first makes the image.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """Podman with the image."""
    # Podman takes no long paths.
    podman = Podman(Path(mkdtemp(prefix="podman-")))
    try:
        podman.import_base(BASE)
        wheels = tmp_path_factory.mktemp("wheels")
        source = copy_of_checkout(tmp_path_factory.mktemp("source"))
        # What the image needs comes the way that pip is set up here; building it asks for nothing more.
        wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(wheels), "setuptools>=77", "."]
        subprocess.run(wheel, cwd=source, check=True)
        options = ("--format=docker", "--network=none", f"--volume={wheels}:/wheels:ro")
        given = {"BASE": BASE, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels"}
        arguments = [f"--build-arg={name}={value}" for name, value in given.items()]
        podman("build", *options, *arguments, "--file=deploy/Containerfile", f"--tag={IMAGE}", ".", cwd=source)
        yield podman
    finally:
        podman.close()


def copy_of_checkout(folder: Path) -> Path:
    """The files that are, or may be, under version control."""
    listed = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout
    packed = subprocess.run(["tar", "--null", "-T", "-", "-c"], cwd=ROOT, input=files, capture_output=True, check=True)
    subprocess.run(["tar", "-x"], cwd=folder, input=packed.stdout, check=True)
    return folder


class System:
    """Containers of the image, one for each kind, and a client of the same system."""

    def __init__(self, podman: Podman, ci: DistCI, shared: Path) -> None:
        self.podman = podman
        self.ci = ci
        self.shared = shared
        """A folder that the containers see under ``/shared``."""
        self.names: list[str] = []

    def start(self, kind: str, *options: str, **environment: str) -> str:
        """A container that serves a kind; its name."""
        name = f"{kind}-{uuid.uuid4().hex[:8]}"
        return self.run(name, options, ("worker", "run", kind, "--name", name), environment)

    def run(self, name: str, options: Sequence[str], command: Sequence[str], environment: Mapping[str, str]) -> str:
        """A container of that name, which may do little, with the settings of the system."""
        settings = self.ci.settings
        told = {"DISTCI_COORDINATION": settings.coordination, "DISTCI_STORE": settings.store, **environment}
        self.podman(
            *("run", "--detach", f"--name={name}", "--network=host", f"--volume={self.shared}:/shared:ro"),
            *(f"--env={name}={value}" for name, value in told.items()),
            *(*HARDENED, *options, IMAGE, *command),
        )
        self.names.append(name)
        return name

    def wait_for(self, *names: str) -> None:
        """Wait until the workers of these containers are live."""

        def are_live() -> bool:
            live = [view.name for view in workers(self.ci.tickets)]
            return all(any(worker.startswith(name) for worker in live) for name in names)

        wait_until(are_live, BUILD_TIME_MAX_S)

    def exit_code(self, name: str) -> int:
        return int(self.podman("inspect", "--format={{.State.ExitCode}}", name))

    def state(self, name: str) -> str:
        return self.podman("inspect", "--format={{.State.Status}}", name)

    def logs(self, name: str) -> str:
        ran = self.podman.run("logs", name)
        return ran.stdout + ran.stderr


@pytest.fixture
def system(podman: Podman, zookeeper_url: str, s3_endpoint: str, tmp_path: Path) -> Iterator[System]:
    bucket = s3.new_bucket(s3_endpoint)
    store = f"s3://{bucket}?endpoint_url={s3_endpoint}&access_key=tests&secret_key=tests&region=us-east-1"
    shared = tmp_path / "shared"
    shared.mkdir()
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    with connect(tmp_path / "data", coordination=zookeeper_url, store=store) as ci:
        system = System(podman, ci, shared)
        try:
            yield system
        finally:
            for name in system.names:
                # Shown where the test fails: containers are gone then.
                sys.stdout.write(f"{name}:\n{system.logs(name)}\n")
            if system.names:
                podman.run("rm", "--force", "--time=0", "--volumes", *system.names)


def make_repository(folder: Path) -> None:
    """A git repository with one commit, which belongs to the image's user."""
    work = folder.with_suffix(".work")
    git = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-C", str(work)]
    work.mkdir()
    for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "--allow-empty", "-m", "first"]):
        (work / "hello.txt").write_text("hello\n")
        subprocess.run([*git, *command], check=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(folder)], check=True)
    subprocess.run(["chown", "-R", f"{USER}:{USER}", str(folder)], check=True)


def test_the_image_is_small_to_attack(podman: Podman) -> None:
    [image] = json.loads(podman("image", "inspect", IMAGE))
    [base] = json.loads(podman("image", "inspect", BASE))

    inside = podman(
        *("run", "--rm", "--network=none", "--entrypoint=sh", IMAGE, "-c"),
        "id -u; test -w /opt/distci && echo writable; ls /opt/distci/bin | grep -w pip; distci --version",
    )

    assert image["Config"]["User"] == f"{USER}:{USER}"
    assert image["Healthcheck"]["Test"] == ["CMD", "distci", "worker", "check"]
    assert inside.splitlines()[0] == str(USER)
    assert len(inside.splitlines()) == 2, inside
    assert image["Size"] - base["Size"] < 120_000_000


def test_a_container_is_a_front_end_by_its_arguments_as_the_files_for_compose_have_it(system: System) -> None:
    port = free_port()
    service = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]["front-end"]
    command, health = (
        [word.replace("8420", str(port)) for word in words]
        for words in (service["command"], service["healthcheck"]["test"][1:])
    )
    told = {"DISTCI_PUBLIC_URL": "https://ci.example.org"}

    name = system.run("front-end", (), command, told)
    wait_until(lambda: system.podman.run("exec", name, *health).returncode == 0)

    ready = requests.get(f"http://127.0.0.1:{port}/readyz", timeout=30)
    assert (ready.status_code, ready.json()) == (200, {"status": "ready"})
    link = system.podman("exec", name, "distci", "login")
    page, _, code = link.partition("#")
    entered = requests.post(f"http://127.0.0.1:{port}{urlsplit(page).path}", json={"link": code}, timeout=30)
    assert page == "https://ci.example.org/login/link"
    assert "Secure" in entered.headers["Set-Cookie"]
    assert code not in system.logs(name)
    system.podman("stop", "--time=10", name)
    assert system.exit_code(name) == 0


def test_a_build_goes_through_containers_of_every_kind(system: System) -> None:
    # Given one container of each kind, none of which may do more than it must
    make_repository(system.shared / "hello.git")
    names = {kind: system.start(kind) for kind in KINDS}
    system.wait_for(*names.values())

    # When a build carries a workspace that no node of the tree could hold
    system.ci.jobs.put(
        {
            "job": "first",
            "tasks": [
                {
                    "name": "source",
                    "type": "git-checkout",
                    "repository": "file:///shared/hello.git",
                    "directory": "hello",
                },
                {
                    "name": "make",
                    "type": "shell",
                    "script": f"head -c {BLOB_BYTES} /dev/urandom > blob; sha256sum blob > sum; id -u",
                },
                {"name": "compare", "type": "shell", "script": "sha256sum -c sum; cat hello/hello.txt"},
                {"name": "publish", "type": "publish-artifacts", "paths": ["blob"]},
            ],
        }
    )
    first = system.ci.builds.trigger("first")
    view = system.ci.builds.wait(first, BUILD_TIME_MAX_S)

    # Then it passes, and another build takes over what it published
    assert view.result is Result.PASSED, [(task.name, task.reason) for task in view.tasks]
    assert f"{USER}\n" in b"".join(system.ci.builds.log(first, "make")).decode()
    system.ci.jobs.put(
        {
            "job": "second",
            "tasks": [
                {"name": "fetch", "type": "copy-artifacts", "job": "first"},
                {"name": "measure", "type": "shell", "script": "wc -c < blob"},
            ],
        }
    )
    second = system.ci.builds.trigger("second")
    assert system.ci.builds.wait(second, BUILD_TIME_MAX_S).result is Result.PASSED
    assert f"{BLOB_BYTES}\n" in b"".join(system.ci.builds.log(second, "measure")).decode()

    # And the first process of a container, which inherits whoever is left over there, leaves nobody unburied
    dead = system.podman.run("exec", names["shell"], "grep", "-l", "State:.Z", "-r", "/proc", "--include=status", "-s")
    assert dead.stdout == ""


def test_a_container_that_is_stopped_finishes_what_runs(system: System) -> None:
    # Given a task that runs, and one that comes after it
    names = {kind: system.start(kind) for kind in ("control", "shell")}
    system.wait_for(*names.values())
    script = "until test -e /shared/go; do sleep 0.1; done; echo went"
    system.ci.jobs.put(
        {
            "job": "slow",
            "tasks": [
                {"name": "wait", "type": "shell", "script": script},
                {"name": "after", "type": "shell", "script": "true"},
            ],
        }
    )
    build = system.ci.builds.trigger("slow")
    # Before it is planned there are no tasks.
    wait_until(
        lambda: [task.state for task in system.ci.builds.get(build).tasks][:1] == [TaskState.RUNNING], BUILD_TIME_MAX_S
    )

    # When the container is told to stop
    with ThreadPoolExecutor(1) as beside:
        stopping = beside.submit(system.podman, "stop", "--time=200", names["shell"])
        wait_until(lambda: "finishing what runs" in system.logs(names["shell"]), BUILD_TIME_MAX_S)

        # Then it goes on until the task is done, ends in order, and has taken nothing more
        assert system.state(names["shell"]) in ("running", "stopping")
        (system.shared / "go").touch()
        stopping.result()
    wait = system.ci.builds.get(build).task("wait")
    assert system.exit_code(names["shell"]) == 0
    assert wait.state is TaskState.PASSED
    assert len(wait.attempts) == 1
    assert system.ci.builds.get(build).task("after").state is TaskState.READY

    # And whoever comes next goes on from there
    system.wait_for(system.start("shell"))
    assert system.ci.builds.wait(build, BUILD_TIME_MAX_S).result is Result.PASSED


def test_a_container_without_a_session_for_long_is_unhealthy(system: System, tmp_path: Path) -> None:
    folder = tmp_path / "zookeeper"
    folder.mkdir()
    servers = ZooKeeperServers(folder)

    def is_healthy(name: str) -> bool:
        return system.podman.run("healthcheck", "run", name).returncode == 0

    try:
        name = system.start(
            "control",
            "--health-cmd=distci worker check --within 4",
            DISTCI_COORDINATION=f"zookeeper://{servers.hosts}/ci",
            DISTCI_SESSION_TIMEOUT="3s",
        )
        wait_until(lambda: is_healthy(name), BUILD_TIME_MAX_S)

        servers.pause(0)
        wait_until(lambda: not is_healthy(name), BUILD_TIME_MAX_S)

        servers.resume(0)
        wait_until(lambda: is_healthy(name), BUILD_TIME_MAX_S)
        assert system.state(name) == "running"
    finally:
        servers.stop()


def test_a_container_that_cannot_reach_its_tree_says_so_and_ends(system: System) -> None:
    name = system.start("shell", DISTCI_COORDINATION="zookeeper://127.0.0.1:1/ci")

    wait_until(lambda: system.state(name) == "exited", BUILD_TIME_MAX_S)

    assert system.exit_code(name) == 4
    assert "no ZooKeeper answers at 127.0.0.1:1" in system.logs(name)
