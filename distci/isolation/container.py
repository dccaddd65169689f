"""Commands in a container each, of an engine that speaks Docker's API: Docker itself, or podman.

The supervisor is the first process in there, so that the kernel kills all others when it ends. It comes from a kit
(:mod:`distci.isolation.kit`), and an image needs nothing in it. What is told and heard goes through named pipes in a folder of ours that is
mounted: an engine would keep output and variables, and could not tell a command that was killed from one that ended with 137.
The engine has to be on this machine, since it mounts the folders of an attempt.
"""

from __future__ import annotations

import fcntl
import io
import logging
import os
import select
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from threading import Event, Thread
from time import monotonic
from typing import IO, Any

import docker
from docker.errors import APIError, DockerException, NotFound

from distci.errors import Invalid, Unavailable
from distci.isolation import kit
from distci.isolation.cgroups import Group
from distci.isolation.images import Images
from distci.isolation.port import CONTAINER, Command, Confinement, Ended, Mount, Service
from distci.isolation.processes import is_there, own_name
from distci.isolation.services import Beside, Running
from distci.isolation.supervised import TOO_MUCH, Supervised, check
from distci.isolation.users import ROOT_RIGHTS, User, find_user_in, give

WORKER, NAMESPACE, ATTEMPT, PLACE = "distci.worker", "distci.pid-namespace", "distci.attempt", "distci.place"
"""Labels of containers: the process that made it, where that has its number, what it was made for, and when among others of that."""

FIRST, NEXT, LAST = "1-first", "2-next", "3-last"
"""Places: the service whose network it is, other services, the command."""

KIT, PIPES = "/.distci/kit", "/.distci/pipes"
"""Where these are in a container."""

IN_MEMORY = {"/tmp": "mode=1777", "/var/tmp": "mode=1777", "/run": "mode=755"}
"""What can be written to where the root cannot."""

OWN_PROCESSES = 1
"""The supervisor is counted with the command."""

FILE_BYTES_MAX = 1 << 20
"""Of a file of an image that is read as a whole."""

CALL_TIME_MAX_S = 120

log = logging.getLogger(__name__)
SERVICE_RIGHTS = (*ROOT_RIGHTS, "NET_BIND_SERVICE")
"""The network of services is their task's own."""

SERVICE_GRACE_S = 1.0
USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

MACHINES_NETWORK = "host"

HOSTS = "/etc/hosts"
"""Mounted from our own where there are services: what engines make of it in a network of several differs."""


class ContainerIsolation:
    """Runs commands in a container each."""

    types: Sequence[str] = (CONTAINER,)

    def __init__(self, url: str, folder: Path, network: str = "", paths: Sequence[str] = ()) -> None:
        """``url`` is the engine's; ``folder`` is for what containers are given of ours; ``network`` is the one of commands that may have any,
        by default the engine's own default; ``paths`` are seen where they are, read-only.
        """
        self._url = url
        self._folder = folder
        self._network = network
        self._paths = paths
        self._images = Images(folder / "private")
        self._version = "auto"
        self._users: dict[tuple[str, str], User] = {}

    def run(self, command: Command, output: Callable[[bytes], None], stop: Event) -> Ended:
        check(command)
        wanted = command.confinement or Confinement()
        if problems := [*_problems(wanted, self._network)]:
            raise Invalid(f"isolation {CONTAINER}: {'; '.join(problems)}")
        with self._engine() as engine, ExitStack() as kept:
            start = partial(self._start_service, engine, kept.enter_context(ExitStack()), command)
            beside = Beside(wanted.services, start, self._network_of(wanted))
            # Whatever becomes of the command, they end, and what they said is told.
            kept.callback(beside.end, output)
            began_s = monotonic()
            network = beside.begin(engine, stop, command.timeout_s)
            command = _shortened(command, monotonic() - began_s)
            found = self._found(engine, wanted.image, wanted, stop)
            user = self._user(engine, found, wanted.user)
            if os.geteuid() == 0:
                give(command.mounts, user)
            mounts = [*command.mounts, *(Mount(Path(path)) for path in self._paths if os.path.exists(path))]
            if not any(command.directory.is_relative_to(mount.path) for mount in mounts):
                mounts.append(Mount(command.directory, is_writable=True))
            told = replace(command, environment=_variables(found) | dict(command.environment))
            parts = _Parts(found["Id"], user, network, mounts, wanted, names=[each.name for each in wanted.services])
            with beside.needed():
                contained = self._contained(engine, kept, told, parts)
            return contained.run(output, stop)

    def settle(self, wanted: Confinement, stop: Event) -> Confinement:
        if problems := [*_problems(wanted, self._network)]:
            raise Invalid(f"isolation {CONTAINER}: {'; '.join(problems)}")
        with self._engine() as engine:
            image = self._found(engine, wanted.image, wanted, stop)
            with mapped_errors(self._url):
                digest = self._images.digest(engine, wanted.image, image, wanted.logins, stop)
        return replace(wanted, type=CONTAINER, image=digest)

    def sweep(self) -> int:
        removed = kit.sweep(self._folder)
        for path in self._folder.glob("pipes-*"):
            if not is_there(path.name.partition("-")[2]):
                shutil.rmtree(path, ignore_errors=True)
                removed += 1
        with self._engine() as engine, mapped_errors(self._url):
            ours = engine.containers(all=True, filters={"label": [f"{NAMESPACE}={_namespace()}"]})
            # Who is in the network of another is removed before that one.
            for found in sorted(ours, key=lambda found: found["Labels"].get(PLACE, ""), reverse=True):
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

    def _network_of(self, wanted: Confinement) -> str:
        return (self._network or "default") if wanted.network else "none"

    def _found(self, engine: docker.APIClient, image: str, wanted: Confinement, stop: Event) -> Mapping[str, Any]:
        with mapped_errors(self._url):
            return self._images.find(engine, image, wanted.logins, stop)

    def _start_service(
        self,
        engine: docker.APIClient,
        kept: ExitStack,
        command: Command,
        service: Service,
        network: str,
        stop: Event,
    ) -> Running:
        """A service of a command, in that network."""
        wanted = command.confinement or Confinement()
        names = [each.name for each in wanted.services]
        found = self._found(engine, service.image, wanted, stop)
        user = self._user(engine, found, "")
        made = found["Config"]
        argv = [*(made.get("Entrypoint") or ()), *(service.arguments or made.get("Cmd") or ())]
        if not argv:
            raise Invalid(f"service {service.name}: its image says no command; name one in its arguments")
        usual = {"PATH": USUAL_PATH, "HOME": "/root" if user.uid == 0 else "/"}
        environment = usual | _variables(found) | dict(service.environment)
        directory = Path(made.get("WorkingDir") or "/")
        told = Command(
            argv, directory, environment, command.tag, None, SERVICE_GRACE_S, (), replace(wanted, limits=service.limits)
        )
        confined = Confinement(limits=service.limits)
        place = FIRST if service == wanted.services[0] else NEXT
        parts = _Parts(found["Id"], user, network, (), confined, SERVICE_RIGHTS, names, place)
        contained = self._contained(engine, kept, told, parts)
        health = service.health or _health_of(made)
        return Running(service, health, environment, contained.id, contained.run)

    def _contained(self, engine: docker.APIClient, kept: ExitStack, told: Command, parts: _Parts) -> _Contained:
        pipes = self._new_pipes()
        kept.callback(shutil.rmtree, pipes, ignore_errors=True)
        ours = {kit.make_kit(self._folder): KIT, pipes: PIPES}
        if parts.names:
            ours[_hosts_file(pipes, parts.names)] = HOSTS
        return _Contained(told, engine, _made_of(engine, told.tag, parts, ours), pipes)

    def _user(self, engine: docker.APIClient, image: Mapping[str, Any], wanted: str) -> User:
        """Whom a command runs as: who is named, else whom the image names, else its root."""
        key = image["Id"], wanted or image["Config"].get("User") or "0:0"
        if key not in self._users:
            with mapped_errors(self._url):
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

    @property
    def id(self) -> str:
        """The engine's name for the container."""
        assert self._container
        return self._container.id

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
        self._made_of = made_of
        self._last = last
        self._stream: Any = None
        self._waiter = Thread(target=self._wait_for_end, daemon=True)
        self._has_ended = False
        self.id = ""
        try:
            self.id = engine.create_container(**made_of)["Id"]
            # Nothing comes here but the end. To be told of that in another way, an engine may look only now and then.
            self._stream = engine.attach_socket(self.id, {"stdout": 1, "stream": 1})
            self._stream._sock.settimeout(None)
            engine.start(self.id)
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
            self._engine.kill(self.id)

    def remove(self) -> None:
        """Remove it, unless it has ended and the engine does that by itself."""
        if self._waiter.is_alive():
            self.kill()
            self._waiter.join()
        if self._stream:
            # Two that have each other are closed by neither.
            self._stream._response.close()
            self._stream.close()
        if self.id and not (self._has_ended and self._made_of["host_config"].get("AutoRemove")):
            with suppress(DockerException, OSError):
                self._engine.remove_container(self.id, force=True, v=True)

    def layer_bytes(self) -> int:
        """How much it has written besides its mounts."""
        with suppress(DockerException, OSError):
            found = self._engine.containers(filters={"id": self.id}, size=True)
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


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a container is made of."""

    image: str
    """By its id."""
    user: User
    network: str
    mounts: Sequence[Mount]
    wanted: Confinement
    rights: Sequence[str] = ROOT_RIGHTS
    """Of root in there."""
    names: Sequence[str] = ()
    """Of services, by which they are known in there."""
    place: str = LAST


def _hosts_file(folder: Path, names: Sequence[str]) -> Path:
    """A file that says where these services are."""
    file = folder / "hosts"
    try:
        file.write_text(f"127.0.0.1 localhost {' '.join(names)}\n::1 localhost\n")
        file.chmod(0o644)
    except OSError as error:
        raise Unavailable(f"{file} cannot be written: {error.strerror}") from error
    return file


def _problems(wanted: Confinement, network: str) -> Iterator[str]:
    """What this driver cannot do by its nature."""
    if wanted.type not in ("", CONTAINER):
        yield f"it is not {wanted.type}"
    elif not wanted.image:
        yield "the task has to say of which image, such as debian:12"
    if wanted.services and wanted.network and network == MACHINES_NETWORK:
        yield (
            "the setting container_network has containers on the machine's own network, where services of several tasks would meet: "
            'say "network": false, or have another network set'
        )


def _made_of(engine: docker.APIClient, tag: str, parts: _Parts, ours: Mapping[Path, str]) -> Mapping[str, Any]:
    """What the engine is told of a container."""
    wanted, user = parts.wanted, parts.user
    entrypoint = kit.argv(KIT)
    bound = {str(mount.path): (str(mount.path), mount.is_writable) for mount in parts.mounts}
    bound |= {place: (str(path), False) for path, place in ours.items()}
    limits = wanted.limits
    settings: dict[str, Any] = {
        # One whose network others are in cannot be removed before them, so then we do it.
        "auto_remove": not parts.names,
        "cap_add": parts.rights if user.uid == 0 else (),
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "mounts": [
            docker.types.Mount(place, path, type="bind", read_only=not is_writable)
            for place, (path, is_writable) in bound.items()
        ],
        "network_mode": parts.network,
        "read_only": wanted.read_only,
        "tmpfs": IN_MEMORY if wanted.read_only else None,
        "log_config": docker.types.LogConfig(type="none"),
        "mem_limit": limits.memory_bytes,
        "memswap_limit": limits.memory_bytes,
        "pids_limit": limits.processes + OWN_PROCESSES if limits.processes else None,
        "nano_cpus": round(limits.cpus * 1e9) if limits.cpus else None,
    }
    labels = {WORKER: own_name(), NAMESPACE: _namespace(), ATTEMPT: tag, PLACE: parts.place}
    return {
        "image": parts.image,
        "entrypoint": [*entrypoint],
        "command": [PIPES],
        "user": f"{user.uid}:{user.gid}",
        "working_dir": "/",
        "labels": labels,
        "healthcheck": {"test": ["NONE"]},
        "host_config": engine.create_host_config(**{name: value for name, value in settings.items() if value}),
    }


def _variables(image: Mapping[str, Any]) -> dict[str, str]:
    return dict(text.split("=", 1) for text in image["Config"].get("Env") or ())


def _health_of(made: Mapping[str, Any]) -> Sequence[str]:
    """The command by which an image says whether what runs in it is well; empty where it has none."""
    kind, *words = (made.get("Healthcheck") or {}).get("Test") or ["NONE"]
    if kind == "CMD-SHELL":
        return ["/bin/sh", "-c", *words]
    return words if kind == "CMD" else ()


def _shortened(command: Command, taken_s: float) -> Command:
    """The same, of whose time a part is over."""
    if command.timeout_s is None:
        return command
    return replace(command, timeout_s=max(0.1, command.timeout_s - taken_s))


def _remove(engine: docker.APIClient, container: str) -> bool:
    """Remove a container, whatever it does; False when somebody else was about to do that, and what resists is left to the next start."""
    try:
        engine.remove_container(container, force=True, v=True)
    except APIError as error:
        if error.status_code not in (404, 409):
            log.warning("container %s cannot be removed: %s", container, error.explanation or error)
        return False
    return True


def _file(engine: docker.APIClient, image: str, path: str) -> str:
    """The text of a file of an image; empty where it has none."""
    made = engine.create_container(image, command=["none"], labels={WORKER: own_name(), NAMESPACE: _namespace()})["Id"]
    try:
        pieces, _ = engine.get_archive(made, path)
        with tarfile.open(fileobj=whole(pieces, path)) as archive:
            files = [file for file in map(archive.extractfile, archive) if file]
            return files[0].read().decode(errors="replace") if files else ""
    except NotFound:
        return ""
    finally:
        engine.remove_container(made, force=True)


def whole(pieces: Iterable[bytes], path: str) -> io.BytesIO:
    """A file of an image of which an engine sends pieces; Invalid where it is too large to be what it is said to be."""
    read = io.BytesIO()
    for piece in pieces:
        read.write(piece)
        if read.tell() > FILE_BYTES_MAX:
            raise Invalid(f"the image's {path} has more than {FILE_BYTES_MAX} bytes")
    read.seek(0)
    return read


def _namespace() -> str:
    """Where process numbers of this process mean something."""
    return os.readlink("/proc/self/ns/pid")
