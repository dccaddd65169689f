"""Three front ends behind nginx on a real ZooKeeper, killed in turn under load: clients that try again see nothing fail."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Event, Thread
from typing import Any

import pytest
import requests
from frontends import BUILD, Stage, job, shell
from program import Process
from services.daemon import free_ports
from services.nginx import NAME, Nginx
from waiting import wait_until

log = logging.getLogger(__name__)

LOAD_S = float(os.environ.get("DISTCI_TESTS_KILLS_S", "10"))
"""How long front ends are killed under load; the default keeps the suite short."""

EVERY_S = 2.0
CLIENTS = 8
TRIGGERS = 100
ANSWER_MAX_S = 90.0
"""How long a client tries again: far longer than it takes to start a front end on a busy machine."""

ARTIFACT_BYTES = 3 * 1024 * 1024


class FrontEnds:
    """Three front ends, of which one after the other is killed and started again while this context manager is open."""

    def __init__(self, stage: Stage) -> None:
        self.addresses = [f"127.0.0.1:{port}" for port in free_ports(3)]
        self.killed = 0
        self._stage = stage
        self._starting = ThreadPoolExecutor(3)
        self._running = [self._starting.submit(self._start, address) for address in self.addresses]
        wait(self._running)
        self._stop = Event()
        self._error: BaseException | None = None
        self._thread = Thread(target=self._kill_in_turn)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *raised: object) -> None:
        self._stop.set()
        self._thread.join()
        self._starting.shutdown()
        if self._error:
            raise self._error

    def _start(self, address: str) -> Process:
        return self._stage.front_end("--listen", address, DISTCI_PUBLIC_URL=f"https://{NAME}")[1]

    def _kill_in_turn(self) -> None:
        try:
            while not self._stop.wait(EVERY_S):
                index = self.killed % len(self.addresses)
                others = [address for address in self.addresses if address != self.addresses[index]]
                process = self._running[index].result()
                # One is killed, not all of them, however slowly they start on this machine.
                wait_until(lambda others=others: any(map(is_ready, others)))  # type: ignore[misc]
                process.kill()
                self.killed += 1
                self._running[index] = self._starting.submit(self._start, self.addresses[index])
        except BaseException as error:
            self._error = error


def is_ready(address: str) -> bool:
    try:
        return requests.get(f"http://{address}/readyz", timeout=30).status_code == 200
    except requests.ConnectionError:
        return False


class Client:
    """Asks through nginx, and again after what says that it may: 503, or an answer that was cut off."""

    def __init__(self, nginx: Nginx, token: str) -> None:
        self._url = nginx.url
        self._session = requests.Session()
        self._session.trust_env, self._session.verify = False, str(nginx.authority)
        self._session.headers["Authorization"] = f"Bearer {token}"
        self.tried_again = 0

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        """The answer, once it is there; one that says that something is wrong is a failure."""
        until = time.monotonic() + ANSWER_MAX_S
        while True:
            try:
                answer = self._session.request(method, f"{self._url}/api/v1{path}", timeout=30, **options)
            except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
                failed = str(error)
            else:
                if answer.status_code != 503:
                    assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
                    return answer
                failed = answer.text
            assert time.monotonic() < until, f"{method} {path}: {failed}"
            self.tried_again += 1
            Event().wait(0.1)


class Load:
    """What clients do all the while, each operation checked; of a build that is over, so that all of its answers are known."""

    def __init__(self, nginx: Nginx, token: str) -> None:
        self.done: Counter[str] = Counter()
        """How many operations were done, by what they are."""
        self.tried_again = 0
        self._nginx = nginx
        self._token = token

    def run(self, number: int, end: float) -> None:
        """One client, until the end by the monotonic clock."""
        client = Client(self._nginx, self._token)
        operations = (self._look, self._save, self._read_log, self._fetch, self._list)
        turn = number
        while time.monotonic() < end:
            operation = operations[turn % len(operations)]
            operation(client, number, turn)
            self.done[operation.__name__] += 1
            turn += 1
        self.tried_again += client.tried_again

    def _look(self, client: Client, number: int, turn: int) -> None:
        assert client.ask("GET", BUILD).json()["state"] == "passed"

    def _save(self, client: Client, number: int, turn: int) -> None:
        """Each client has a job of its own, and so knows what must be in force."""
        saved = job(f"team/of-{number}", description=f"in turn {turn}")
        client.ask("PUT", f"/jobs/team/of-{number}", json=saved)
        assert client.ask("GET", f"/jobs/team/of-{number}").json()["document"] == saved

    def _read_log(self, client: Client, number: int, turn: int) -> None:
        assert client.ask("GET", f"{BUILD}/tasks/say/log").text == "hello\n"

    def _fetch(self, client: Client, number: int, turn: int) -> None:
        assert len(client.ask("GET", f"{BUILD}/artifacts/big").content) == ARTIFACT_BYTES

    def _list(self, client: Client, number: int, turn: int) -> None:
        jobs = {item["job"] for item in client.ask("GET", "/jobs?prefix=team/").json()["items"]}
        assert jobs >= {"team/hello", "team/many"}


@pytest.fixture
def stage(start_stage: Callable[..., Stage], zookeeper_url: str) -> Stage:
    return start_stage(coordination=zookeeper_url)


@pytest.mark.timeout(max(300, LOAD_S * 4))
def test_c01_j03_no_client_sees_anything_fail_while_front_ends_are_killed_in_turn(
    stage: Stage, start_nginx: Callable[..., Nginx]
) -> None:
    """And of a hundred who trigger one job at once, each gets a build of its own, whose numbers have no gap."""
    keep = {"name": "publish", "type": "publish-artifacts", "paths": ["big"]}
    with stage.workers():
        stage.ci.jobs.put(job("team/hello", shell(f"head -c {ARTIFACT_BYTES} /dev/zero > big; echo hello"), keep))
        assert stage.end(stage.ci.builds.trigger("team/hello")).state == "passed"
    stage.ci.jobs.put(job("team/many"))
    front_ends = FrontEnds(stage)
    nginx = start_nginx(*front_ends.addresses)
    load = Load(nginx, stage.token)

    def trigger(key: int) -> str:
        """Asks until it is answered, with the same key."""
        told = {"Idempotency-Key": f"delivery-{key}"}
        answer = Client(nginx, stage.token).ask("POST", "/jobs/team/many/-/builds", headers=told)
        assert answer.status_code == 201
        return str(answer.json()["id"])

    end = time.monotonic() + LOAD_S
    with front_ends, ThreadPoolExecutor(CLIENTS) as clients, ThreadPoolExecutor(TRIGGERS) as crowd:
        running = [clients.submit(load.run, number, end) for number in range(CLIENTS)]
        wait_until(lambda: front_ends.killed > 0)
        started = list(crowd.map(trigger, range(TRIGGERS)))
        for each in running:
            each.result()

    assert sorted(started, key=number_of) == [f"team/many#{number}" for number in range(1, TRIGGERS + 1)]
    assert [view.id.number for view in stage.ci.builds.list("team/many")] == [*range(TRIGGERS, 0, -1)]
    log.info("%d kills; tried again %d times in all of %s", front_ends.killed, load.tried_again, load.done)
    assert front_ends.killed >= 2
    assert len(load.done) == 5


def number_of(build: str) -> int:
    return int(build.rpartition("#")[2])
