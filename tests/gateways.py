"""A lab whose workers reach nothing but front ends, and the worker that tests play themselves."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import requests
from frontends import Api, Stage

from distci.brokers.direct import Direct
from distci.isolation.host import HostIsolation
from distci.isolation.port import Command
from distci.model import BuildId
from distci.process import Post, WorkerProcess


class Lab:
    """Front ends, and a process that serves ``control``; all other work is for who asks them."""

    def __init__(self, stage: Stage, project: str = "", fronts: int = 1) -> None:
        self.stage = stage
        self.token = self.new_token(project)
        self._fronts = [stage.front_end() for _ in range(fronts)]
        self.apis = [Api(api.url, self.token) for api, _ in self._fronts]
        self.url = self.apis[0].url if fronts else ""
        stage.enter(self.process("control"))

    def new_token(self, project: str = "") -> str:
        return self.stage.ci.access.create_worker_token("lab-7", ["shell"], ["os=linux"], project=project).text

    def process(self, *kinds: str) -> WorkerProcess:
        """Workers of this process, which reach tree and store."""
        ci, folder = self.stage.ci, self.stage.folder / kinds[0]
        posts = [Post(kinds, slots=2)]
        return WorkerProcess(
            Direct(ci.lifecycle, ci.store), HostIsolation(), folder, posts, search_path=os.defpath, name=kinds[0]
        )

    def start(self, *tasks: dict[str, Any], job: str = "team/hello") -> BuildId:
        self.stage.ci.jobs.put({"job": job, "tasks": [*tasks]})
        return self.stage.ci.builds.trigger(job)

    def claim(self, front: int = 0, key: str = "", wait_s: float = 20, **more: Any) -> requests.Response:
        headers = {"Idempotency-Key": key} if key else {}
        body = {"kinds": ["shell"], "wait_s": wait_s, **more}
        return self.apis[front].post("/claims", json=body, headers=headers)

    def claimed(self, front: int = 0, **more: Any) -> Hand:
        answer = self.claim(front, **more)
        assert answer.status_code == 201, answer.text
        return Hand(self, answer.json(), front)

    @contextmanager
    def worker(self, program: Path, front: int) -> Iterator[None]:
        """A program of its own that knows this front end; ended with all that it has started."""
        environment = {
            "PATH": os.environ["PATH"],
            "DISTCI_URL": self.apis[front].url,
            "DISTCI_TOKEN": self.token,
        }
        command = Command([str(program)], self.stage.folder, environment, "worker")
        stop = Event()
        with (self.stage.folder / f"worker-{front}.log").open("wb") as log, ThreadPoolExecutor(1) as thread:

            def note(data: bytes) -> None:
                log.write(data)

            ended = thread.submit(HostIsolation().run, command, note, stop)
            try:
                yield
            finally:
                stop.set()
            ended.result()

    def kill(self, front: int) -> None:
        """A front end, by SIGKILL."""
        self._fronts[front][1].kill()

    def end(self, front: int) -> int:
        """One that is told to end; its exit code."""
        self._fronts[front][1].signal(signal.SIGTERM)
        return self._fronts[front][1].wait()

    def start_again(self, front: int) -> None:
        """One that was killed, where it was."""
        self.stage.front_end("--listen", self.apis[front].url.removeprefix("http://"))

    def memory_bytes(self, front: int) -> int:
        """The most that a front end has had in memory so far."""
        status = Path(f"/proc/{self._fronts[front][1].pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024


class Hand:
    """The calls for one claim, each at the front end that it is said to be at."""

    def __init__(self, lab: Lab, told: dict[str, Any], front: int = 0) -> None:
        self.told = told
        self.token: str = told["token"]
        self.front = front
        self._lab = lab

    def call(self, method: str, what: str = "", **options: Any) -> requests.Response:
        return self._lab.apis[self.front].call(method, f"/{self.told['url']}{what}", **options)

    def heartbeat(self) -> requests.Response:
        return self.call("POST", "/heartbeat")

    def log(self, offset: int, data: bytes) -> requests.Response:
        return self.call("PUT", "/log", params={"offset": offset}, data=data)

    def complete(self, verdict: str = "passed", **more: Any) -> requests.Response:
        return self.call("PUT", "/outcome", json={"verdict": verdict, **more})

    def all_calls(self) -> dict[str, requests.Response]:
        """One of each that there is."""
        return {
            "heartbeat": self.heartbeat(),
            "log": self.log(0, b"late"),
            "script": self.call("GET", "/script"),
            "prelude": self.call("GET", "/prelude"),
            "workspace": self.call("GET", "/workspace"),
            "leave": self.call("PUT", "/workspace", data=b""),
            "publish": self.call("PUT", "/artifacts/a.txt", data=b"late"),
            "fetch": self.call("GET", "/artifacts/a.txt"),
            "list": self.call("GET", "/artifacts"),
            "assignment": self.call("GET", "/assignment"),
            "source": self.call("GET", "/source"),
            "secrets": self.call("GET", "/secrets"),
            "pin": self.call("POST", "/pins", json={"name": "main", "value": "late"}),
            "complete": self.complete(),
            "give back": self.call("DELETE"),
        }
