"""Remotes for the tests of git-checkout: repositories in folders, and servers for them on loopback."""

from __future__ import annotations

import base64
import getpass
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Self

from services.daemon import Daemon, accepts, free_port
from waiting import wait_until

ENVIRONMENT = {
    "PATH": os.defpath,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ALLOW_PROTOCOL": "file:ext",
    **dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "Tester"),
    **dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "tester@example.org"),
}


class Remote:
    """A repository in a folder, with a working copy to commit from."""

    def __init__(self, path: Path, *options: str) -> None:
        self.path = path
        path.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main", *options)

    def git(self, *arguments: str, **environment: str) -> str:
        ran = subprocess.run(
            ["git", *arguments],
            cwd=self.path,
            env=ENVIRONMENT | environment,
            capture_output=True,
            check=True,
            text=True,
        )
        return ran.stdout.strip()

    def commit(self, **files: str) -> str:
        """Commit files of these names (``_`` for ``.``) and contents; the commit's id."""
        for name, content in files.items():
            (self.path / name.replace("_", ".")).write_text(content)
        self.git("add", ".")
        self.git("commit", "--quiet", "--allow-empty", "--message", "A change")
        return self.git("rev-parse", "HEAD")

    def add_submodule(self, source: str, url: str) -> str:
        """Make the repository at ``source`` the submodule ``lib``, which others shall find at ``url``; the commit's id."""
        self.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", source, "lib")
        self.git("config", "--file=.gitmodules", "submodule.lib.url", url)
        return self.commit()


@contextmanager
def git_daemon(folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """Serve the repositories of a folder by git's own protocol; what their URLs start with."""
    port = free_port()
    daemon = subprocess.Popen(
        [
            *("git", "daemon", "--reuseaddr", "--listen=127.0.0.1", f"--port={port}", f"--base-path={folder}"),
            *("--export-all", "--informative-errors", str(folder)),
        ],
        env=ENVIRONMENT | dict(environment or {}),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(lambda: accepts(port))
        yield f"git://127.0.0.1:{port}"
    finally:
        # Whom it serves is served by a child of its.
        os.killpg(daemon.pid, signal.SIGTERM)
        daemon.wait()


@contextmanager
def http_backend(folder: Path, login: str, port: int = 0, large: Mapping[str, bytes] | None = None) -> Iterator[str]:
    """Serve the repositories of a folder by HTTP to who knows ``user:password``; what their URLs start with.

    Port 0 takes one that is free. ``large`` are files kept by git-lfs, by their digests.
    """
    expected = f"Basic {base64.b64encode(login.encode()).decode()}"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Authorization") != expected:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="repositories"')
                self.end_headers()
                return
            path, _, query = self.path.partition("?")
            length = int(self.headers.get("Content-Length", "0"))
            asked = self.rfile.read(length)
            if path.endswith("/info/lfs/objects/batch"):
                self._offer_large(json.loads(asked))
                return
            if path.startswith("/large-files/"):
                self._answer("application/octet-stream", (large or {})[path.rpartition("/")[2]])
                return
            ran = subprocess.run(
                ["git", "http-backend"],
                input=asked,
                env=ENVIRONMENT
                | {
                    "GIT_PROJECT_ROOT": str(folder),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                    "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                    "PATH_INFO": path,
                    "QUERY_STRING": query,
                    "REQUEST_METHOD": self.command,
                    "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                    "CONTENT_LENGTH": str(length),
                },
                capture_output=True,
                check=True,
            )
            head, _, body = ran.stdout.partition(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
            self.send_response(int(headers.pop("Status", "200").split()[0]))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def _offer_large(self, asked: dict[str, Any]) -> None:
            place = f"http://{self.headers['Host']}/large-files"
            offered = [
                {**item, "actions": {"download": {"href": f"{place}/{item['oid']}"}}} for item in asked["objects"]
            ]
            answer = {"transfer": "basic", "objects": offered}
            self._answer("application/vnd.git-lfs+json", json.dumps(answer).encode())

        def _answer(self, kind: str, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with _serving(Handler, port) as url:
        yield url


@contextmanager
def plain_files(folder: Path) -> Iterator[str]:
    """Serve a folder as mere files, which git can fetch from too; what URLs start with."""

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, directory=str(folder), **options)  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    with _serving(Handler) as url:
        yield url


@contextmanager
def gossiping_server(hear: Callable[[str], object] | None = None) -> Iterator[str]:
    """An HTTP server that has no repository and tells whose it would be, login and all; what URLs start with. ``hear`` gets each login before it is answered."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            login = base64.b64decode(self.headers.get("Authorization", "").removeprefix("Basic "))
            if hear is not None:
                hear(login.decode())
            self.send_response(404 if login else 401)
            self.send_header("WWW-Authenticate", 'Basic realm="repositories"')
            self.send_header("Content-Type", "text/plain")
            self.end_headers()
            user, _, password = login.decode().partition(":")
            self.wfile.write(f"Repository of {user}:{password} not found, says {password}\n".encode())

        def log_message(self, *_: object) -> None:
            pass

    with _serving(Handler) as url:
        yield url


@contextmanager
def silent_server() -> Iterator[str]:
    """A server that takes connections and never answers; what URLs start with."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"git://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler], port: int = 0) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class SshServer:
    """A server that lets one key in, as whoever runs the tests."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        if os.geteuid() == 0:
            # Where a server that belongs to root locks up what it does not trust.
            Path("/run/sshd").mkdir(exist_ok=True)
        self.port = free_port()
        self._folder = folder
        self.host_key = self._pinned(self._make_key("host"))
        """The line that pins its key."""
        self.another_key = self._pinned(self._make_key("another"))
        """What it would be if it were somebody else."""
        (folder / "authorized_keys").write_text(self._make_key("client"))
        self.key = (folder / "client").read_text()
        """The private key that opens it."""
        self._make_key("stranger")
        self.strange_key = (folder / "stranger").read_text()
        """One that does not."""
        (folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile {folder}/pid\n"
            f"AuthorizedKeysFile {folder}/authorized_keys\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        )
        self.url = f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}"
        self._daemon = Daemon("sshd", ["/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "sshd_config")], folder)
        self._daemon.wait_until_ready(lambda: accepts(self.port))

    def stop(self) -> None:
        self._daemon.stop()

    def _make_key(self, name: str) -> str:
        """Make a pair of keys; the public one."""
        path = self._folder / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
        return path.with_suffix(".pub").read_text()

    def _pinned(self, key: str) -> str:
        return f"[127.0.0.1]:{self.port} {' '.join(key.split()[:2])}"


@contextmanager
def stalled_daemon(folder: Path) -> Iterator[str]:
    """Git's own protocol up to where objects should come; what URLs start with."""
    with git_daemon(folder, {"GIT_CONFIG_PARAMETERS": "'uploadpack.packObjectsHook'='sleep 600 #'"}) as url:
        yield url


class CuttingProxy:
    """Stands before another server, and hangs up on who has been told too much."""

    def __init__(self, port: int) -> None:
        self.bytes_max: int | None = None
        """How much whoever connects from now on is told; None for all."""
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"git://127.0.0.1:{self._listener.getsockname()[1]}"
        Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Closing alone wakes nobody who waits for connections.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                Thread(target=self._serve, args=(self._listener.accept()[0],), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._port)) as server:
            Thread(target=_pass_on, args=(client, server, None), daemon=True).start()
            _pass_on(server, client, self.bytes_max)


def _pass_on(source: socket.socket, target: socket.socket, left: int | None) -> None:
    """Hand on what comes, or so many bytes of it, and then hang up."""
    with suppress(OSError):
        while data := source.recv(65536 if left is None else min(left, 65536)):
            target.sendall(data)
            left = None if left is None else left - len(data)
        target.shutdown(socket.SHUT_RDWR)
