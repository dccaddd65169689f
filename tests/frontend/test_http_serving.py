"""A front end as a process: where it listens, how it ends, what becomes of its clients when it is killed."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from frontends import BUILD, KINDS, SCOPES, Api, Stage, address_of, job, problem, shell
from program import Home
from waiting import wait_until

DRAIN_MAX_S = 2.0
MEMORY_MAX_MB = 200
SIZE_BYTES = 300 * 1024 * 1024


def resident_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1000


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


class TestListening:
    def test_a_port_that_is_taken_is_told(self, home: Home) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            for command in ("frontend", "up"):
                ran = home.run(command, "--listen", address)
                assert ran.returncode == 2
                assert f"cannot listen on {address}: Address already in use" in ran.stderr
                assert "--listen 127.0.0.1:PORT" in ran.stderr
                assert "Traceback" not in ran.stderr

    def test_one_that_others_can_reach_lets_nobody_in_and_prints_no_link_that_would(self, local: Stage) -> None:
        api, process = local.front_end("--listen", "0.0.0.0:0")
        assert "/login/" not in process.stdout
        assert "distci login" in process.stdout
        port = urlsplit(api.url).port
        for host in (f"127.0.0.1:{port}", "ci.example.org"):
            answer = requests.get(f"http://127.0.0.1:{port}/api/v1/jobs", headers={"Host": host}, timeout=30)
            assert answer.status_code == 401
        assert api.get("/jobs", headers={"Host": "ci.example.org"}).status_code == 200

    @pytest.mark.parametrize("listen", ["80", "localhost", ":80", "127.0.0.1:x", "127.0.0.1:70000"])
    def test_what_is_no_address_is_told(self, home: Home, listen: str) -> None:
        ran = home.run("frontend", "--listen", listen)
        assert ran.returncode == 2
        assert "write HOST:PORT" in ran.stderr

    def test_a_whole_system_has_one_and_says_where(self, home: Home) -> None:
        with home.running("up", until="Ctrl-C") as up:
            scopes = [word for scope in SCOPES for word in ("--scope", scope.value)]
            api = Api(address_of(up), home.ask("token", "create", "tests", *scopes).stdout.strip())
            api.put("/jobs/team/hello", json=job())
            api.post("/jobs/team/hello/-/builds")
            wait_until(lambda: api.get(BUILD).json()["is_archived"])
            assert api.get(f"{BUILD}/tasks/say/log").text.splitlines()[1:] == ["hello"]
            assert api.all("/workers")[0]["name"]
            assert resident_mb(up.pid) < MEMORY_MAX_MB
            up.signal(signal.SIGTERM)
            assert up.wait() == 0

    def test_a_whole_system_may_have_none(self, home: Home) -> None:
        with home.running("up", "--no-frontend", until="Ctrl-C") as up:
            assert "http://" not in up.stdout


class TestEnding:
    def test_an_idle_one_ends_at_once_and_says_that_it_is_not_ready(self, stage: Stage) -> None:
        api, process = stage.front_end()
        assert api.get("//readyz").json() == {"status": "ready"}
        began = time.monotonic()
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
        assert time.monotonic() - began < DRAIN_MAX_S

    def test_one_with_clients_that_hold_on_ends_too(self, local: Stage) -> None:
        publish(local, SIZE_BYTES // 10)
        api, process = local.front_end()
        parts = urlsplit(api.url)
        assert parts.port
        slow = []
        head = f"Host: localhost\r\nAuthorization: Bearer {local.token}\r\n".encode()
        for request in (
            b"GET /api/v1" + BUILD.encode() + b"/artifacts/big HTTP/1.1\r\n" + head + b"\r\n",
            b"PUT /api/v1/jobs/a HTTP/1.1\r\n"
            + head
            + b"Content-Type: application/json\r\nContent-Length: 10\r\n\r\n{",
            b"GET",
        ):
            connection = socket.create_connection(("127.0.0.1", parts.port))
            connection.sendall(request)
            slow.append(connection)
        assert slow[0].recv(10)
        began = time.monotonic()
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
        assert time.monotonic() - began < DRAIN_MAX_S
        for connection in slow:
            connection.close()

    def test_c01_where_one_is_killed_another_goes_on(self, stage: Stage) -> None:
        stage.start_workers()
        fronts = [stage.front_end() for _ in range(3)]
        fronts[0][0].put("/jobs/team/hello", json=job("team/hello", shell("true")))

        def start(key: int) -> str:
            """As a client does: the same request to another one, until it is answered."""
            attempt = key
            while True:
                api, _ = fronts[attempt % len(fronts)]
                attempt += 1
                try:
                    answer = requests.post(
                        f"{api.url}/api/v1/jobs/team/hello/-/builds",
                        headers={"Idempotency-Key": str(key), **api.authorization},
                        timeout=30,
                    )
                except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
                    # Nobody there, or killed before the answer or in the middle of it.
                    continue
                assert answer.status_code in (201, 503), answer.text
                if answer.status_code == 201:
                    return str(answer.json()["id"])

        with ThreadPoolExecutor(8) as pool:
            started = [pool.submit(start, key) for key in range(60)]
            wait_until(lambda: sum(each.done() for each in started) > 10)
            fronts[1][1].kill()
            wait_until(lambda: sum(each.done() for each in started) > 30)
            fronts[2][1].kill()
            ids = {each.result() for each in started}

        assert ids == {f"team/hello#{number}" for number in range(1, 61)}
        assert len(fronts[0][0].all("/jobs/team/hello/-/builds")) == 60


class TestMemory:
    def test_a_large_artifact_and_slow_clients_take_little(self, local: Stage) -> None:
        publish(local, SIZE_BYTES)
        api, process = local.front_end()
        parts = urlsplit(api.url)
        assert parts.port
        slow = []
        head = f"Host: localhost\r\nAuthorization: Bearer {local.token}\r\n".encode()
        for _ in range(20):
            connection = socket.create_connection(("127.0.0.1", parts.port))
            connection.sendall(b"GET /api/v1" + BUILD.encode() + b"/artifacts/big HTTP/1.1\r\n" + head + b"\r\n")
            assert connection.recv(10)
            slow.append(connection)
        received = 0
        with requests.get(
            f"{api.url}/api/v1{BUILD}/artifacts/big", stream=True, timeout=60, headers=api.authorization
        ) as answer:
            for piece in answer.iter_content(1024 * 1024):
                received += len(piece)
        assert received == SIZE_BYTES
        assert resident_mb(process.pid) < MEMORY_MAX_MB
        for connection in slow:
            connection.close()
        assert api.get("/jobs").status_code == 200
        # D34, D38: nothing of those that left stays.
        wait_until(lambda: open_files(process.pid, "artifacts") == 0)


def open_files(pid: int, part: str) -> int:
    names = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            names.append(str(link.readlink()))
        except FileNotFoundError:
            continue
    return sum(part in name for name in names)


def publish(stage: Stage, size_bytes: int) -> None:
    """Have a build with an artifact ``big`` of that size."""
    keep = {"name": "publish", "type": "publish-artifacts", "paths": ["big"]}
    with stage.workers():
        stage.ci.jobs.put(job("team/hello", shell(f"truncate -s {size_bytes} big"), keep))
        assert stage.end(stage.ci.builds.trigger("team/hello")).state == "passed"


def test_what_a_front_end_tells_of_tickets_and_builds(start_stage: Callable[..., Stage]) -> None:
    stage = start_stage()
    api, _ = stage.front_end()
    api.put("/jobs/team/hello", json=job("team/hello", shell("true")))
    api.put("/jobs/team/bad", json=job("team/bad", shell("false")))
    api.post("/jobs/team/hello/-/builds")
    api.post("/jobs/team/bad/-/builds")

    waiting = figures(api)
    assert waiting['distci_tickets_waiting{kind="control"}'] == 2
    assert waiting['distci_tickets_oldest_seconds{kind="control"}'] >= 0
    assert waiting["distci_slots"] == 0
    with stage.workers():
        for build in ("team/hello#1", "team/bad#1", stage.ci.builds.trigger("team/hello")):
            stage.end(build)
        assert figures(api)["distci_slots"] == 4
        # Nothing waits and nothing runs, which is not the same as that nobody knows.
        for kind in KINDS:
            assert figures(api)[f'distci_tickets_waiting{{kind="{kind}"}}'] == 0
            assert figures(api)[f'distci_tickets_running{{kind="{kind}"}}'] == 0
        api.put("/jobs/team/long", json=job("team/long", shell("sleep 100")))
        api.post("/jobs/team/long/-/builds")
        wait_until(lambda: figures(api)['distci_tickets_running{kind="shell"}'] == 1)
        api.post("/jobs/team/long/-/builds/1/cancel")
        stage.end("team/long#1")
    seen = figures(api)
    assert seen['distci_build_seconds_count{result="passed"}'] == 2
    assert seen['distci_build_seconds_count{result="failed"}'] == 1
    assert figures(api)['distci_build_seconds_count{result="passed"}'] == 2
    assert seen['distci_coordination_seconds_count{call="commit",outcome="ok"}'] >= 2
    assert seen['distci_store_seconds_count{call="put_if_absent",outcome="ok"}'] >= 2
    assert seen['distci_request_seconds_count{endpoint="trigger_build",status="201"}'] == 3
    assert "distci_tickets_waiting" not in " ".join(name for name, value in seen.items() if value)


def figures(api: Api) -> dict[str, float]:
    lines = api.get("//metrics").text.splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}


def test_a_worker_is_drained_and_a_ticket_put_back(stage: Stage) -> None:
    api, _ = stage.front_end()
    with stage.workers() as process:
        [worker] = api.all("/workers")
        assert worker["offer"]["kinds"] == ["control", "shell", "publish-artifacts"]
        assert api.get(f"/workers/{worker['name']}").json() == worker
        assert api.get("/cluster").json()["workers"]["shell"] == 1
        assert api.post(f"/workers/{worker['name']}/drain").json()["is_draining"]
        wait_until(lambda: process.is_draining)
    problem(api.get("/workers/worker"), 404, "NoSuchWorker")
    problem(api.post("/workers/worker/drain"), 404, "NoSuchWorker")
    api.put("/jobs/team/hello", json=job())
    api.post("/jobs/team/hello/-/builds")
    [ticket] = api.all("/tickets", place="waiting")
    assert api.get(f"/tickets/{ticket['token']}").json() == ticket
    assert "no live worker serves control" in api.get(f"/tickets/{ticket['token']}/why").json()["because"]
    [waiting] = api.all("/queue")
    assert waiting["ticket"] == ticket
    assert api.all("/tickets", build="team/hello#1", kind="control") == [ticket]
    assert api.all("/tickets", build="team/hello#2") == []
    problem(api.post(f"/tickets/{ticket['token']}/requeue"), 404, "NoSuchTicket")


def test_each_of_many_tickets_is_on_one_page(local: Stage) -> None:
    api, _ = local.front_end()
    api.put("/jobs/team/hello", json=job())
    ids = {local.ci.builds.trigger("team/hello") for _ in range(150)}
    found = [item["ticket"]["body"]["build"] for item in api.all("/tickets", limit=20)]
    assert len(found) == 150
    assert set(found) == {str(build) for build in ids}
    queued = [item["ticket"]["ticket"]["body"]["build"] for item in api.all("/queue", limit=40)]
    assert sorted(queued) == sorted(found)
