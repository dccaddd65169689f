"""Stand-ins for the status APIs of forges, on loopback: they keep what they are told as the real ones do, and fail as these may."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Any
from urllib.parse import unquote

TOKEN = "the-token-of-the-forge"
FINAL = ("success", "failure", "failed", "error", "canceled")


@dataclass
class Forge:
    """What a stand-in has heard, and how it is to behave."""

    kind: str
    url: str = ""
    heard: list[dict[str, Any]] = field(default_factory=list)
    """Every status that took effect, in order: ``repository``, ``commit``, and the body's own fields."""
    requests: int = 0
    moods: deque[str] = field(default_factory=deque)
    """What becomes of the next requests: ``fail`` (502), ``refuse`` (401), ``drop`` (takes effect, no answer), ``cut`` (neither),
    ``hang`` (takes effect when :attr:`let_go` is set, long after the caller has given up), ``redirect``."""
    let_go: Event = field(default_factory=Event)
    is_down: bool = False
    elsewhere: str = ""
    lock: Lock = field(default_factory=Lock)

    def states(self, context: str) -> list[str]:
        """The states that a context has had, in order."""
        with self.lock:
            return [status["state"] for status in self.heard if status["context"] == context]

    def latest(self, context: str) -> str:
        return (self.states(context) or [""])[-1]

    def take(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """A status that arrives, and the answer to it."""
        start = (
            "/api/v4/projects/" if self.kind == "gitlab" else "/repos/" if self.kind == "github" else "/api/v1/repos/"
        )
        assert path.startswith(start), path
        repository, _, commit = path.removeprefix(start).rpartition("/statuses/")
        known = {"state", "description", "target_url", "name" if self.kind == "gitlab" else "context"}
        assert {*body} <= known, body
        context = body.get("name") or body["context"]
        with self.lock:
            before = [
                status["state"] for status in self.heard if status["context"] == context and status["commit"] == commit
            ]
            if self.kind == "gitlab" and before and before[-1] == body["state"]:
                return 400, {"message": f"Cannot transition status via :enqueue from :{body['state']}"}
            self.heard.append({**body, "context": context, "repository": unquote(repository), "commit": commit})
        return 201, {"state": body["state"]}


@contextmanager
def forge(kind: str) -> Iterator[Forge]:
    """A forge that takes statuses; ``url`` is that of its API."""
    made = Forge(kind)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with made.lock:
                made.requests += 1
                mood = "cut" if made.is_down else made.moods.popleft() if made.moods else ""
            expected = {"github": f"Bearer {TOKEN}", "gitea": f"token {TOKEN}"}.get(kind)
            proof = self.headers["PRIVATE-TOKEN"] if expected is None else self.headers["Authorization"]
            if proof != (expected or TOKEN) or mood == "refuse":
                self._answer(401, {"message": "Unauthorized"})
            elif mood == "fail":
                self._answer(502, {"message": "Bad gateway"})
            elif mood == "redirect":
                self._answer(307, {}, made.elsewhere)
            elif mood == "drop":
                made.take(self.path, body)
                self.close_connection = True
            elif mood == "hang":
                made.let_go.wait(60)
                made.take(self.path, body)
            elif mood != "cut":
                self._answer(*made.take(self.path, body))

        def _answer(self, code: int, document: dict[str, Any], location: str = "") -> None:
            data = json.dumps(document).encode()
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
