"""Commands in a container each, of an engine that speaks Docker's API: Docker itself, or podman.

The supervisor is the first process in there, so that the kernel kills all others when it ends. It comes from a kit
(:mod:`distci.isolation.kit`), and an image needs nothing in it. What is told and heard goes through named pipes in a folder of ours that is
mounted: an engine would keep output and variables, and could not tell a command that was killed from one that ended with 137.
The engine has to be on this machine, since it mounts the folders of an attempt.
"""

from __future__ import annotations

import fcntl
import io
import os
import re
import select
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from threading import Event, Thread
from typing import IO, Any

import docker
from docker.errors import APIError, DockerException, NotFound

from distci.errors import Invalid, Unavailable
from distci.isolation import kit
from distci.isolation.cgroups import Group
from distci.isolation.port import CONTAINER, Command, Confinement, Ended, Mount
from distci.isolation.processes import is_there, own_name
from distci.isolation.supervised import TOO_MUCH, Supervised, check
from distci.isolation.users import User, find_user_in, give

WORKER, NAMESPACE, ATTEMPT = "distci.worker", "distci.pid-namespace", "distci.attempt"
"""Labels of containers: the process that made it, where that has its number, and what it was made for."""

KIT, PIPES = "/.distci/kit", "/.distci/pipes"
"""Where these are in a container."""

ROOT_RIGHTS = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SYS_CHROOT")
"""Capabilities of who is root in a container: what installing packages takes, and nothing that concerns the machine."""

IN_MEMORY = {"/tmp": "mode=1777", "/var/tmp": "mode=1777", "/run": "mode=755"}
"""What can be written to where the root cannot."""

MADE_HERE, BY_ID = "localhost/", "sha256:"
"""How the names of images begin that no registry has."""

OWN_PROCESSES = 1
"""The supervisor is counted with the command."""

CALL_TIME_MAX_S = 120
REFUSED = re.compile("not found|unknown|denied|unauthorized|invalid|does not exist", re.IGNORECASE)
"""What engines say of images that cannot be had however often they are asked for."""


class ContainerIsolation:
    """Runs commands in a container each."""

    types: Sequence[str] = (CONTAINER,)

    def __init__(self, url: str, folder: Path, network: str = "") -> None:
        """``url`` is the engine's; ``folder`` is for what containers are given of ours; ``network`` is the one of commands that may have any, by default the engine's own default."""
        self._url = url
        self._folder = folder
        self._network = network
        self._version = "auto"
        self._users: dict[tuple[str, str], User] = {}

    def run(self, command: Command, output: Callable[[bytes], None], stop: Event) -> Ended:
        check(command)
        wanted = command.confinement or Confinement()
        if problems := [*_problems(wanted)]:
            raise Invalid(f"isolation {CONTAINER}: {'; '.join(problems)}")
        with self._engine() as engine, ExitStack() as kept:
            with mapped_errors(self._url):
                image = _image(engine, wanted.image, stop)
                user = self._user(engine, image, wanted.user)
            if os.geteuid() == 0:
                give(command.mounts, user)
            pipes = self._new_pipes()
            kept.callback(shutil.rmtree, pipes, ignore_errors=True)
            ours = {kit.make_kit(self._folder): KIT, pipes: PIPES}
            made_of = _made_of(engine, command, wanted, image["Id"], user, self._network, ours)
            variables = dict(text.split("=", 1) for text in image["Config"].get("Env") or ())
            told = replace(command, environment=variables | dict(command.environment))
            return _Contained(told, engine, made_of, pipes).run(output, stop)

    def settle(self, wanted: Confinement, stop: Event) -> Confinement:
        if problems := [*_problems(wanted)]:
            raise Invalid(f"isolation {CONTAINER}: {'; '.join(problems)}")
        with self._engine() as engine, mapped_errors(self._url):
            image = _image(engine, wanted.image, stop)
        # One that was made here has an id, by which nobody else knows it.
        known = () if wanted.image.startswith(MADE_HERE) else image.get("RepoDigests") or ()
        digests = [digest for digest in known if _repository(digest) in _names(wanted.image)]
        return replace(wanted, type=CONTAINER, image=min(digests, default=image["Id"]))

    def sweep(self) -> int:
        removed = 0
        for path in [*self._folder.glob("pipes-*"), *self._folder.glob("making-*")]:
            if not is_there(path.name.partition("-")[2]):
                shutil.rmtree(path, ignore_errors=True)
                removed += 1
        with self._engine() as engine, mapped_errors(self._url):
            for found in engine.containers(all=True, filters={"label": [f"{NAMESPACE}={_namespace()}"]}):
                if not is_there(found["Labels"].get(WORKER, "")):
                    removed += _remove(engine, found["Id"])
        return removed

    def problem(self) -> str:
        """Why no container can be had here, and what to do; empty when one can."""
        try:
            with self._engine():
                return ""
        except (Invalid, Unavailable) as error:
            said = str(error).replace(": ", ", ")
            return f"{said}: see that it runs and that this user may use its socket, or name another one in the setting container_engine"

    @contextmanager
    def _engine(self) -> Iterator[docker.APIClient]:
        """Connections of its own for each command: no file stays open for one that is over."""
        with mapped_errors(self._url):
            engine = docker.APIClient(base_url=self._url, version=self._version, timeout=CALL_TIME_MAX_S)
        self._version = engine.api_version
        with closing(engine):
            yield engine

    def _user(self, engine: docker.APIClient, image: Mapping[str, Any], wanted: str) -> User:
        """Whom a command runs as: who is named, else whom the image names, else its root."""
        key = image["Id"], wanted or image["Config"].get("User") or "0:0"
        if key not in self._users:
            self._users[key] = find_user_in(lambda path: _file(engine, image["Id"], path), key[1])
        return self._users[key]

    def _new_pipes(self) -> Path:
        try:
            self._folder.mkdir(0o700, parents=True, exist_ok=True)
            return Path(mkdtemp(prefix=f"pipes-{own_name()}-", dir=self._folder))
        except OSError as error:
            raise Unavailable(f"no folder can be made in {self._folder}: {error.strerror}") from error


@contextmanager
def mapped_errors(url: str) -> Iterator[None]:
    """What the engine, and the way to it, make of a call, as DistCI's own errors."""
    try:
        yield
    except APIError as error:
        said = f"the container engine at {url} says: {error.explanation or error}"
        raise (Invalid(said) if error.is_client_error() else Unavailable(said)) from error
    except (DockerException, OSError) as error:
        raise Unavailable(f"the container engine at {url} does not answer: {error}") from error


class _Contained(Supervised):
    """A supervisor that is the first process of a container."""

    def __init__(self, command: Command, engine: docker.APIClient, made_of: Mapping[str, Any], pipes: Path) -> None:
        """``made_of`` is what the engine is told of the container, ``pipes`` the folder for those to the supervisor."""
        self._engine = engine
        self._made_of = made_of
        self._pipes = pipes
        self._kept = ExitStack()
        self._container: _Container | None = None
        super().__init__(command, Group(None, {}))

    def connect(self, ours: ExitStack) -> tuple[int, int, Sequence[int]]:
        with _mapped_pipes():
            self._pipes.chmod(0o755)
            for name in ("status", "control", "output", "told"):
                os.mkfifo(self._pipes / name)
                # For whoever the command runs as. Of this machine's users, none comes to the folder but we.
                (self._pipes / name).chmod(0o666)
            self._status_out = self._open("status", os.O_RDONLY | os.O_NONBLOCK)
            os.set_blocking(self._status_out, True)
            return self._status_out, self._open("control", os.O_RDWR), ()

    def start(self, told: Sequence[int], ours: ExitStack) -> _Container:
        with _mapped_pipes():
            self._tell()
            printed = os.fdopen(self._open("output", os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0)
            self._kept.callback(printed.close)
            last = self._open("status", os.O_WRONLY)
        with mapped_errors(self._engine.base_url):
            self._container = _Container(self._engine, self._made_of, printed, last)
        self._kept.callback(self._container.remove)
        return self._container

    def kill(self) -> None:
        if self._container:
            self._container.kill()

    def kill_leftovers(self) -> None:
        self.kill()

    def close(self) -> None:
        super().close()
        self._kept.close()

    def memory(self, told: Sequence[bytes]) -> tuple[bool, int | None]:
        kills, peak_bytes = map(int, told or (b"0", b"0"))
        return kills > 0, peak_bytes if self._limits.memory_bytes is not None else None

    def disk_taken(self) -> int:
        return super().disk_taken() + (self._container.layer_bytes() if self._container else 0)

    def _tell(self) -> None:
        """Put what the supervisor is told where it finds it."""
        command = self._command
        arguments = ["", "", os.fspath(command.directory), str(command.grace_s), "", *command.argv]
        variables = [f"{name}={value}" for name, value in command.environment.items()]
        data = b"".join(os.fsencode(text) + b"\0" for text in (str(len(arguments)), *arguments, *variables))
        pipe = self._open("told", os.O_RDWR | os.O_NONBLOCK)
        self._kept.callback(os.close, pipe)
        if len(data) > select.PIPE_BUF:
            try:
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, len(data))
            except OSError as error:
                raise Invalid(TOO_MUCH) from error
        os.write(pipe, data)

    def _open(self, name: str, flags: int) -> int:
        return os.open(self._pipes / name, flags | os.O_CLOEXEC)


@contextmanager
def _mapped_pipes() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(f"no pipe can be made to a container: {error.strerror}") from error


class _Container:
    """A container that is made to run once."""

    def __init__(self, engine: docker.APIClient, made_of: Mapping[str, Any], printed: IO[bytes], last: int) -> None:
        """``printed`` is where its output comes; ``last`` is closed once it has ended, whatever it has opened by then."""
        self.stdout: IO[bytes] | None = printed
        self._engine = engine
        self._last = last
        self._stream: Any = None
        self._waiter = Thread(target=self._wait_for_end, daemon=True)
        self._has_ended = False
        self._id = ""
        try:
            self._id = engine.create_container(**made_of)["Id"]
            # Nothing comes here but the end. To be told of that in another way, an engine may look only now and then.
            self._stream = engine.attach_socket(self._id, {"stdout": 1, "stream": 1})
            self._stream._sock.settimeout(None)
            engine.start(self._id)
            self._waiter.start()
        except BaseException:
            os.close(last)
            self.remove()
            raise

    def wait(self) -> int:
        self._waiter.join()
        return 0

    def kill(self) -> None:
        # One that has ended is as good as killed, and of an engine that is away nothing can be had.
        with suppress(DockerException, OSError):
            self._engine.kill(self._id)

    def remove(self) -> None:
        """Remove it, unless it has ended: then the engine does that by itself."""
        if self._waiter.is_alive():
            self.kill()
            self._waiter.join()
        if self._stream:
            # Two that have each other are closed by neither.
            self._stream._response.close()
            self._stream.close()
        if self._id and not self._has_ended:
            with suppress(DockerException, OSError):
                self._engine.remove_container(self._id, force=True, v=True)

    def layer_bytes(self) -> int:
        """How much it has written besides its mounts."""
        with suppress(DockerException, OSError):
            found = self._engine.containers(filters={"id": self._id}, size=True)
            return sum(container.get("SizeRw") or 0 for container in found)
        return 0

    def _wait_for_end(self) -> None:
        try:
            while self._stream.read(4096):
                pass
            self._has_ended = True
        except OSError:
            """Nobody knows. The supervisor tells by itself when it ends."""
        os.close(self._last)


def _problems(wanted: Confinement) -> Iterator[str]:
    """What this driver cannot do by its nature."""
    if wanted.type not in ("", CONTAINER):
        yield f"it is not {wanted.type}"
    elif not wanted.image:
        yield "the task has to say of which image, such as debian:12"


def _made_of(
    engine: docker.APIClient,
    command: Command,
    wanted: Confinement,
    image: str,
    user: User,
    network: str,
    ours: Mapping[Path, str],
) -> Mapping[str, Any]:
    """What the engine is told of a container."""
    entrypoint = kit.argv(KIT)
    mounts = [*command.mounts]
    if not any(command.directory.is_relative_to(mount.path) for mount in mounts):
        mounts.append(Mount(command.directory, is_writable=True))
    bound = {str(mount.path): (str(mount.path), mount.is_writable) for mount in mounts}
    bound |= {place: (str(path), False) for path, place in ours.items()}
    limits = wanted.limits
    settings: dict[str, Any] = {
        "auto_remove": True,
        "cap_add": ROOT_RIGHTS if user.uid == 0 else (),
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "mounts": [
            docker.types.Mount(place, path, type="bind", read_only=not is_writable)
            for place, (path, is_writable) in bound.items()
        ],
        "network_mode": (network or "default") if wanted.network else "none",
        "read_only": wanted.read_only,
        "tmpfs": IN_MEMORY if wanted.read_only else None,
        "log_config": docker.types.LogConfig(type="none"),
        "mem_limit": limits.memory_bytes,
        "memswap_limit": limits.memory_bytes,
        "pids_limit": limits.processes + OWN_PROCESSES if limits.processes else None,
        "nano_cpus": round(limits.cpus * 1e9) if limits.cpus else None,
    }
    labels = {WORKER: own_name(), NAMESPACE: _namespace(), ATTEMPT: command.tag}
    return {
        "image": image,
        "entrypoint": [*entrypoint],
        "command": [PIPES],
        "user": f"{user.uid}:{user.gid}",
        "working_dir": "/",
        "labels": labels,
        "healthcheck": {"test": ["NONE"]},
        "host_config": engine.create_host_config(**{name: value for name, value in settings.items() if value}),
    }


def _image(engine: docker.APIClient, name: str, stop: Event) -> Mapping[str, Any]:
    """What is known of an image, which is fetched where it is not there. Invalid for one that cannot be had."""
    with suppress(NotFound):
        found: Mapping[str, Any] = engine.inspect_image(name)
        return found
    if name.startswith(MADE_HERE):
        raise Invalid(f"image {name} cannot be had: it is not on this machine, and no registry has such a name")
    if name.startswith(BY_ID):
        raise Unavailable(f"image {name} cannot be had: it was made on another machine")
    try:
        for step in engine.pull(name, **({} if _has_tag(name) else {"tag": "latest"}), stream=True, decode=True):
            if stop.is_set():
                break
            if "error" in step:
                refuses = REFUSED.search(step["error"])
                raise (Invalid if refuses else Unavailable)(f"image {name} cannot be had: {step['error']}")
        fetched: Mapping[str, Any] = engine.inspect_image(name)
        return fetched
    except APIError as error:
        said = f"image {name} cannot be had: {error.explanation or error}"
        raise (Invalid if REFUSED.search(said) else Unavailable)(said) from error


def _remove(engine: docker.APIClient, container: str) -> bool:
    """Remove a container, whatever it does; False when its engine was about to do that."""
    try:
        engine.remove_container(container, force=True, v=True)
    except APIError as error:
        if error.status_code in (404, 409):
            return False
        raise
    return True


def _has_tag(name: str) -> bool:
    return bool(re.search("(:[^:/]*|@.*)$", name))


def _repository(name: str) -> str:
    return re.sub("(:[^:/@]*)?(@.*)?$", "", name)


def _names(image: str) -> Sequence[str]:
    """The repository of an image as engines may call it."""
    repository = _repository(image)
    return [repository, f"docker.io/{repository}", f"docker.io/library/{repository}", f"localhost/{repository}"]


def _file(engine: docker.APIClient, image: str, path: str) -> str:
    """The text of a file of an image; empty where it has none."""
    made = engine.create_container(image, command=["none"], labels={WORKER: own_name(), NAMESPACE: _namespace()})["Id"]
    try:
        pieces, _ = engine.get_archive(made, path)
        with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
            files = [file for file in map(archive.extractfile, archive) if file]
            return files[0].read().decode(errors="replace") if files else ""
    except NotFound:
        return ""
    finally:
        engine.remove_container(made, force=True)


def _namespace() -> str:
    """Where process numbers of this process mean something."""
    return os.readlink("/proc/self/ns/pid")
