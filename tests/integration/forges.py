"""Stand-ins for the status APIs of forges, on loopback: they keep what they are told as the real ones do, and fail as these may."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Any
from urllib.parse import parse_qs, unquote

from distci.model import Json

TOKEN = "the-token-of-the-forge"


@dataclass
class Forge:
    """What a stand-in has heard, and how it is to behave."""

    kind: str
    url: str = ""
    heard: list[dict[str, Any]] = field(default_factory=list)
    """Every status that took effect, in order: ``repository``, ``commit``, and the body's own fields."""
    requests: int = 0
    moods: deque[str] = field(default_factory=deque)
    """What becomes of the next statuses: ``fail`` (502), ``refuse`` (401), ``drop`` (takes effect, no answer), ``cut`` (neither),
    ``hang`` (takes effect when :attr:`let_go` is set, long after the caller has given up), ``drip`` and ``drip body`` (takes effect, and the
    answer or its body comes a byte now and then until that is set), ``redirect``."""
    looks: deque[str] = field(default_factory=deque)
    """What becomes of the next questions what it knows: ``fail``, ``refuse``, ``cut``, ``nonsense`` (an answer that is no JSON)."""
    let_go: Event = field(default_factory=Event)
    acted_late: int = 0
    """How many requests have taken effect since it was set."""
    is_down: bool = False
    elsewhere: str = ""
    lock: Lock = field(default_factory=Lock)

    def states(self, context: str) -> list[str]:
        """The states that a context has had, in order."""
        with self.lock:
            return [status["state"] for status in self.heard if status["context"] == context]

    def latest(self, context: str) -> str:
        return (self.states(context) or [""])[-1]

    def take(self, path: str, body: dict[str, Any]) -> tuple[int, Json]:
        """A status that arrives, and the answer to it."""
        repository, _, commit = self._below(path).rpartition("/statuses/")
        known = {"state", "description", "target_url", self._context}
        assert {*body} <= known, body
        with self.lock:
            before = self._known(unquote(repository), commit)
            is_repeated = any(
                (old["context"], old["state"]) == (body[self._context], body["state"]) for old in before[-1:]
            )
            if self.kind == "gitlab" and is_repeated and body["state"] == "pending":
                return 400, {"message": "Cannot transition status via :enqueue from :pending"}
            told = {**body, "context": body[self._context], "repository": unquote(repository), "commit": commit}
            self.heard.append(told | {"id": len(self.heard) + 1})
        return 201, {"state": body["state"]}

    def show(self, path: str) -> Json:
        """What it knows of a commit, as it shows it: the latest of each context, in no order that one could rely on."""
        place, _, query = self._below(path).partition("?")
        repository, _, rest = place.partition("/repository/commits/" if self.kind == "gitlab" else "/commits/")
        commit, _, what = rest.partition("/")
        assert what == ("statuses" if self.kind == "gitlab" else "status"), path
        with self.lock:
            known = self._known(unquote(repository), commit)
        latest = {status["context"]: status for status in known}
        state = "state" if self.kind == "github" else "status"
        shown = [
            {"id": status["id"], state: status["state"], self._context: context, "description": status["description"]}
            for context, status in reversed(latest.items())
            if self.kind != "gitlab" or parse_qs(query)["name"] == [context]
        ]
        return shown if self.kind == "gitlab" else {"sha": commit, "statuses": shown}

    @property
    def _context(self) -> str:
        return "name" if self.kind == "gitlab" else "context"

    def _known(self, repository: str, commit: str) -> list[dict[str, Any]]:
        return [status for status in self.heard if (status["repository"], status["commit"]) == (repository, commit)]

    def _below(self, path: str) -> str:
        start = {"gitlab": "/api/v4/projects/", "github": "/repos/", "gitea": "/api/v1/repos/"}[self.kind]
        assert path.startswith(start), path
        return path.removeprefix(start)


@contextmanager
def forge(kind: str) -> Iterator[Forge]:
    """A forge that takes statuses; ``url`` is that of its API."""
    made = Forge(kind)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            mood = self._mood(made.moods)
            if mood == "redirect":
                self._answer(307, {}, made.elsewhere)
            elif mood == "drop":
                made.take(self.path, body)
                self.close_connection = True
            elif mood in ("drip", "drip body"):
                made.take(self.path, body)
                self._drip(b"HTTP/1.1 201 " if mood == "drip" else b"HTTP/1.1 201 OK\r\nContent-Length: 10000\r\n\r\n")
            elif mood == "hang":
                made.let_go.wait(60)
                made.take(self.path, body)
                made.acted_late += 1
            elif not self._failed(mood):
                self._answer(*made.take(self.path, body))

        def do_GET(self) -> None:
            mood = self._mood(made.looks)
            if mood == "nonsense":
                self._answer(200, "<html>")
            elif not self._failed(mood):
                self._answer(200, made.show(self.path))

        def _drip(self, begin: bytes) -> None:
            with suppress(OSError):  # the caller has hung up
                self.wfile.write(begin)
                while not made.let_go.wait(0.05):
                    self.wfile.write(b"x")

        def _mood(self, moods: deque[str]) -> str:
            with made.lock:
                made.requests += 1
                return "cut" if made.is_down else moods.popleft() if moods else ""

        def _failed(self, mood: str) -> bool:
            expected = {"github": (f"Bearer {TOKEN}", None), "gitea": (f"token {TOKEN}", None)}.get(kind, (None, TOKEN))
            is_known = (self.headers["Authorization"], self.headers["PRIVATE-TOKEN"]) == expected
            if not is_known or mood == "refuse":
                self._answer(401, {"message": "Unauthorized"})
            elif mood == "fail":
                self._answer(502, {"message": "Bad gateway"})
            return mood in ("refuse", "fail", "cut") or not is_known

        def _answer(self, code: int, document: Json, location: str = "") -> None:
            data = document.encode() if isinstance(document, str) else json.dumps(document).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            if location:
                self.send_header("Location", location)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        made.url = f"http://127.0.0.1:{server.server_port}" + {"gitlab": "/api/v4", "gitea": "/api/v1"}.get(kind, "")
        try:
            yield made
        finally:
            made.let_go.set()
            server.shutdown()
            thread.join()
