"""Front ends as processes of their own, on a real tree and a real store, and clients that believe no answer which is not described."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import requests
from jsonschema import Draft202012Validator
from program import Home, Process

from distci.access import Action
from distci.app import DistCI, connect
from distci.brokers.direct import Direct
from distci.builds import BuildView
from distci.errors import IllegalTransition
from distci.isolation.host import HostIsolation
from distci.model import BuildId
from distci.process import Post, WorkerProcess
from distci.settings import Settings

CALL_TIME_MAX_S = 30
BUILD_TIME_MAX_S = 60.0
IN_PATH = {"job": r"[^/]+(/(?!-(/|\Z))[^/]+)*", "task": r"[^/\[]+(\[[^\]]*\])?", "artifact": ".+"}
"""Parameters of paths that may hold slashes."""

SECRET_KEY = base64.b64encode(bytes(range(32))).decode()
"""What secrets are kept under."""
SCOPES = tuple(action for action in Action if action is not Action.WORK)
KINDS = ("control", "shell", "publish-artifacts")


class Api:
    """A client of one front end. Each answer is held to the API's own description: its status, its type, its schema."""

    def __init__(self, url: str, token: str = "", trusting: Path | None = None) -> None:
        """``trusting`` is the file of the authority that has signed what is shown by TLS."""
        self.url = url
        self.authorization = {"Authorization": f"Bearer {token}"} if token else {}
        """The header that says who asks."""
        self._session = requests.Session()
        self._session.headers.update(self.authorization)
        # Nothing that the environment names: neither whom to trust nor a proxy.
        self._session.trust_env = False
        self._session.verify = str(trusting) if trusting else True
        self.description = self._session.get(f"{url}/api/v1/openapi.json", timeout=CALL_TIME_MAX_S).json()
        self._operations = [
            (method.upper(), _expression(path, operation), operation)
            for path, methods in self.description["paths"].items()
            for method, operation in methods.items()
        ]

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.call("GET", path, **options)

    def put(self, path: str, **options: Any) -> requests.Response:
        return self.call("PUT", path, **options)

    def post(self, path: str, **options: Any) -> requests.Response:
        return self.call("POST", path, **options)

    def delete(self, path: str, **options: Any) -> requests.Response:
        return self.call("DELETE", path, **options)

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        """Any call, below ``/api/v1`` unless the path begins with two slashes."""
        address = path[1:] if path.startswith("//") else f"/api/v1{path}"
        answer = self._session.request(
            method, self.url + address, timeout=CALL_TIME_MAX_S, allow_redirects=False, **options
        )
        # Who wants to be somebody's browser keeps the cookies.
        self._session.cookies.clear()
        self.check(method, unquote(address.partition("?")[0]), answer)
        return answer

    def all(self, path: str, **query: Any) -> list[Any]:
        """The items of all pages."""
        items, page = [], self.get(path, params=query).json()
        while True:
            items += page["items"]
            if page["next"] is None:
                return items
            page = self.get(path, params=query | {"cursor": page["next"]}).json()

    def check(self, method: str, address: str, answer: requests.Response) -> None:
        """Hold an answer to the description."""
        for known, expression, operation in self._operations:
            if known == ("GET" if method == "HEAD" else method) and expression.fullmatch(address):
                told = operation["responses"].get(str(answer.status_code), operation["responses"]["default"])
                break
        else:
            assert answer.status_code in (403, 404, 405, 421), answer.text
            told = {"$ref": "#/components/responses/problem"}
        if "$ref" in told:
            told = self.description["components"]["responses"][told["$ref"].rpartition("/")[2]]
            assert answer.status_code >= 400, f"{answer.status_code} is not described for {method} {address}"
            assert answer.status_code != 503 or int(answer.headers["Retry-After"]) > 0
        for header in told.get("headers", {}):
            assert header in answer.headers or header == "Link", f"{header} is missing"
        if "content" in told:
            [(media_type, content)] = told["content"].items()
            assert answer.headers["Content-Type"].split(";")[0] == media_type.split(";")[0]
            if "schema" in content and method != "HEAD":
                self.check_schema(answer.json(), content["schema"])
        assert answer.headers["X-Content-Type-Options"] == "nosniff"

    def check_schema(self, value: Any, schema: Mapping[str, Any]) -> None:
        rebased = json.loads(json.dumps(schema).replace("#/components/schemas/", "#/$defs/"))
        parts = json.loads(
            json.dumps(self.description["components"]["schemas"]).replace("#/components/schemas/", "#/$defs/")
        )
        Draft202012Validator({**rebased, "$defs": parts}).validate(value)


def _expression(path: str, operation: Mapping[str, Any]) -> re.Pattern[str]:
    parameters = {item["name"]: item["schema"] for item in operation["parameters"] if item["in"] == "path"}
    text = re.escape(path)
    for name in parameters:
        text = text.replace(re.escape(f"{{{name}}}"), IN_PATH.get(name, "[^/]+"))
    return re.compile(text)


def problem(answer: requests.Response, status: int, error: str) -> dict[str, Any]:
    """What an answer says is wrong, which must be that."""
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    assert (found["status"], found["error"]) == (status, error), found
    return found


class Stage:
    """A system: the library to look at it with, workers if need be, and front ends."""

    def __init__(self, stack: ExitStack, folder: Path, coordination: str | None, store: str | None) -> None:
        self.folder = folder
        self.home = Home(folder)
        self.home.environment["DISTCI_SECRET_KEYS"] = SECRET_KEY
        self.flags = ["--data", str(folder / "data")]
        self.flags += ["--coordination", coordination] if coordination else []
        self.flags += ["--store", store] if store else []
        self._stack = stack
        self._token = ""
        self.ci: DistCI = stack.enter_context(
            connect(
                settings=Settings(
                    data=str(folder / "data"),
                    coordination=coordination or "",
                    store=store or "",
                    actor="tester",
                    secret_keys=SECRET_KEY,
                )
            )
        )

    @property
    def token(self) -> str:
        """One that is good for everything."""
        self._token = self._token or self.ci.access.create_token("tests", SCOPES).text
        return self._token

    @property
    def shown(self) -> dict[str, str]:
        """The header that says so."""
        return {"Authorization": f"Bearer {self.token}"}

    def front_end(self, *flags: str, **environment: str) -> tuple[Api, Process]:
        """A front end of its own process, and a client of it."""
        self.home.environment |= environment
        running = self.home.running("frontend", *self.flags, *flags, until="Ctrl-C")
        process = self._stack.enter_context(running)
        return Api(address_of(process), self.token), process

    def workers(self, name: str = "worker", **options: Any) -> WorkerProcess:
        """Workers of this process; a context manager."""
        return WorkerProcess(
            Direct(self.ci.lifecycle, self.ci.store, secrets=self.ci.secrets),
            HostIsolation(),
            self.folder / "scratch",
            [Post(KINDS, slots=4)],
            search_path=os.defpath,
            name=name,
            **options,
        )

    def start_workers(self, **options: Any) -> None:
        """Have workers until the end of the test; what they do then is called off."""
        self.enter(self.workers(**options))

    def enter(self, workers: WorkerProcess) -> None:
        """The same for workers of another sort."""
        self._stack.enter_context(workers)
        self._stack.callback(self._call_off)

    def _call_off(self) -> None:
        for build in self.ci.lifecycle.live_builds():
            with suppress(IllegalTransition):
                self.ci.builds.cancel(build)

    def end(self, build: BuildId | str) -> BuildView:
        view = self.ci.builds.wait(build, BUILD_TIME_MAX_S)
        assert view.is_archived, f"{build} is still {view.state}"
        return view


def address_of(process: Process) -> str:
    found = re.search(r"http://\S+:\d+", process.stdout)
    assert found, process.stdout
    return found[0]


def job(name: str = "team/hello", *tasks: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"job": name, "tasks": [*tasks] or [shell("echo hello")], **more}


def shell(script: str, name: str = "say", **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "shell", "script": script, **more}


BUILD = "/jobs/team/hello/-/builds/1"


def raw(url: str, data: bytes, *, hang_up: bool = False) -> bytes:
    """All that is answered to these bytes, until the connection ends in whatever way; nothing where we hang up ourselves."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    answer = b""
    with socket.create_connection((parts.hostname, parts.port), 10) as connection, suppress(ConnectionError):
        connection.sendall(data)
        while not hang_up and (more := connection.recv(65536)):
            answer += more
    return answer
