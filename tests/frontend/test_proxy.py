"""nginx on ``deploy/nginx.conf`` before front ends: TLS, bodies and streams that are not kept, what is asked of another front end."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any, Self
from urllib.parse import urlsplit

import pytest
import requests
from frontends import CALL_TIME_MAX_S, Api, Stage, job, problem, shell
from services.daemon import free_ports
from services.nginx import NAME, Nginx
from waiting import wait_until

MIB = 1024 * 1024


@pytest.fixture
def proxied(local: Stage, start_nginx: Callable[..., Nginx]) -> tuple[Nginx, Api]:
    """nginx before one front end, and a client that asks by TLS."""
    api, _ = local.front_end(DISTCI_PUBLIC_URL=f"https://{NAME}")
    nginx = start_nginx(urlsplit(api.url).netloc)
    return nginx, Api(nginx.url, local.token, trusting=nginx.authority)


class TestTls:
    def test_no_request_goes_on_without_it(self, proxied: tuple[Nginx, Api]) -> None:
        nginx, _ = proxied
        plain = requests.get(
            f"http://{NAME}:{nginx.plain_port}/jobs?a=b", allow_redirects=False, timeout=CALL_TIME_MAX_S
        )
        assert (plain.status_code, plain.headers["Location"]) == (301, f"https://{NAME}/jobs?a=b")

    def test_old_versions_and_other_names_are_refused(self, proxied: tuple[Nginx, Api]) -> None:
        nginx, _ = proxied
        assert shake_hands(nginx, NAME, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
        assert shake_hands(nginx, NAME) == "TLSv1.3"
        for name, version in ((NAME, ssl.TLSVersion.TLSv1_1), ("other.example.org", None)):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                shake_hands(nginx, name, version)
        answer = requests.get(
            f"{nginx.url}/livez",
            headers={"Host": "other.example.org"},
            verify=str(nginx.authority),
            timeout=CALL_TIME_MAX_S,
        )
        assert answer.status_code == 421

    def test_many_streams_of_a_browser_share_one_connection(self, proxied: tuple[Nginx, Api]) -> None:
        """HTTP/2, without which a browser has six at once."""
        nginx, _ = proxied
        command = ["curl", "--silent", "--cacert", str(nginx.authority), "--http2", "-w", " %{http_version}"]
        ran = subprocess.run([*command, f"{nginx.url}/livez"], capture_output=True, text=True, check=False)
        assert ran.stdout == '{"status": "live"} 2', ran.stderr

    def test_browsers_are_told_to_stay_with_it(self, proxied: tuple[Nginx, Api]) -> None:
        _, api = proxied
        assert api.get("//livez").headers["Strict-Transport-Security"] == "max-age=31536000"

    def test_whoever_logs_in_gets_a_cookie_that_goes_by_tls_alone(
        self, local: Stage, proxied: tuple[Nginx, Api]
    ) -> None:
        nginx, _ = proxied
        link = local.home.ask("login", "--at", nginx.url, *local.flags).stdout.strip()
        with requests.Session() as browser:
            browser.trust_env, browser.verify = False, str(nginx.authority)
            page, _, code = link.partition("#")
            assert browser.get(link, timeout=CALL_TIME_MAX_S).status_code == 200
            entered = browser.post(page, json={"link": code}, timeout=CALL_TIME_MAX_S)
            assert entered.status_code == 200
            cookie = entered.headers["Set-Cookie"]
            assert cookie.startswith("__Host-distci-session=")
            assert {"Secure", "HttpOnly", "Path=/"} <= {part.strip() for part in cookie.split(";")}
            assert browser.get(f"{nginx.url}/api/v1/session", timeout=CALL_TIME_MAX_S).json()["kind"] == "person"
            told = {"Origin": nginx.url}
            put = browser.put(f"{nginx.url}/api/v1/jobs/team/hello", json=job(), headers=told, timeout=CALL_TIME_MAX_S)
            assert put.status_code == 201
            told = {"Origin": "https://other.example.org"}
            assert browser.delete(f"{nginx.url}/api/v1/jobs/team/hello", headers=told).status_code == 403
        # Requests are put down once their answers are out.
        wait_until(lambda: '"path": "/login/link"' in nginx.requests)
        assert code not in nginx.requests


def shake_hands(nginx: Nginx, name: str, version: ssl.TLSVersion | None = None) -> str | None:
    """The version of TLS that is agreed on."""
    context = ssl.create_default_context(cafile=str(nginx.authority))
    context.check_hostname = False
    if version:
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
    raw = socket.create_connection(("127.0.0.1", nginx.port), CALL_TIME_MAX_S)
    with context.wrap_socket(raw, server_hostname=name) as connection:
        return connection.version()


class TestBodies:
    def test_a_job_of_more_than_a_mebibyte_is_saved_and_one_that_is_too_large_is_told_so(
        self, proxied: tuple[Nginx, Api]
    ) -> None:
        _, api = proxied
        large = job("team/large", *(shell("#" * 100_000, f"t{number}") for number in range(30)))
        assert len(json.dumps(large)) > 2 * MIB
        assert api.put("/jobs/team/large", json=large).status_code == 201
        assert len(api.get("/jobs/team/large").content) > 2 * MIB
        larger = job("team/large", *(shell("#" * 100_000, f"t{number}") for number in range(60)))
        problem(api.put("/jobs/team/large", json=larger), 413, "Invalid")

    def test_an_artifact_comes_whole_and_by_range(self, local: Stage, start_nginx: Callable[..., Nginx]) -> None:
        keep = {"name": "publish", "type": "publish-artifacts", "paths": ["big"]}
        with local.workers():
            local.ci.jobs.put(job("team/hello", shell(f"head -c {32 * MIB} /dev/urandom > big"), keep))
            assert local.end(local.ci.builds.trigger("team/hello")).state == "passed"
        straight, _ = local.front_end()
        nginx = start_nginx(urlsplit(straight.url).netloc)
        api = Api(nginx.url, local.token, trusting=nginx.authority)
        big = "/jobs/team/hello/-/builds/1/artifacts/big"
        whole = straight.get(big)
        assert (api.get(big).content, api.get(big).headers["ETag"]) == (whole.content, whole.headers["ETag"])
        part = api.get(big, headers={"Range": f"bytes={31 * MIB}-"})
        assert (part.status_code, part.content) == (206, whole.content[31 * MIB :])
        # And up: what has a length, and what has none.
        for name, data in (("one", whole.content), ("two", (whole.content[:MIB] for _ in range(3)))):
            assert api.put(f"{big}-{name}", data=data).status_code == 201
        assert straight.get(f"{big}-one").headers["ETag"] == whole.headers["ETag"]
        assert straight.get(f"{big}-two").content == whole.content[:MIB] * 3
        problem(api.put(big, data=whole.content[:MIB] * 20), 409, "AlreadyExists")


class Behind:
    """What stands where a front end would: does with a request what a test wants of it. Of as many addresses as you like."""

    def __init__(self, serve: Callable[[BehindRequest], None], addresses: int = 1) -> None:
        behind = self
        self.seen: list[str] = []
        """The method and path of each request that has begun to arrive."""

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                if self.raw_requestline and self.parse_request():
                    behind.seen.append(f"{self.command} {self.path}")
                    serve(BehindRequest(self, len(behind.seen)))
                else:
                    self.close_connection = True

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(addresses)]
        self.addresses = [f"127.0.0.1:{server.server_port}" for server in self._servers]

    def __enter__(self) -> Self:
        for server in self._servers:
            Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *raised: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()


@dataclass
class BehindRequest:
    handler: BaseHTTPRequestHandler
    number: int
    """How many have come, this one included."""

    def body(self) -> bytes:
        return self.handler.rfile.read(int(self.handler.headers.get("Content-Length", 0)))

    def answer(self, data: bytes, status: int = 200) -> None:
        self.handler.send_response(status)
        self.handler.send_header("Content-Length", str(len(data)))
        self.handler.end_headers()
        if self.handler.command != "HEAD":
            self.handler.wfile.write(data)

    def hang_up(self) -> None:
        """As one that is killed."""
        self.handler.close_connection = True


class TestStreams:
    def test_what_is_streamed_down_is_there_at_once(self, start_nginx: Callable[..., Nginx]) -> None:
        """The second event is only sent when the first one has arrived."""
        arrived = Event()

        def serve(request: BehindRequest) -> None:
            request.handler.send_response(200)
            request.handler.send_header("Content-Type", "text/event-stream")
            request.handler.send_header("Connection", "close")
            request.handler.end_headers()
            request.handler.wfile.write(b"data: one\n\n")
            assert arrived.wait(CALL_TIME_MAX_S)
            request.handler.wfile.write(b"data: two\n\n")
            request.hang_up()

        with Behind(serve) as behind:
            nginx = start_nginx(*behind.addresses)
            with requests.get(
                f"{nginx.url}/api/v1/events", stream=True, verify=str(nginx.authority), timeout=CALL_TIME_MAX_S
            ) as answer:
                pieces = answer.iter_content(None)
                assert next(pieces) == b"data: one\n\n"
                arrived.set()
                assert b"".join(pieces) == b"data: two\n\n"

    def test_what_is_sent_up_goes_on_before_it_is_whole(self, start_nginx: Callable[..., Nginx]) -> None:
        """The second half is only sent when the first one has arrived; nothing of it is kept in a file."""
        arrived = Event()
        half = b"x" * (4 * MIB)

        def serve(request: BehindRequest) -> None:
            length = len(request.handler.rfile.read(len(half)))
            arrived.set()
            request.answer(str(length + len(request.handler.rfile.read(len(half)))).encode())

        def halves() -> Iterator[bytes]:
            yield half
            assert arrived.wait(CALL_TIME_MAX_S)
            yield half

        with Behind(serve) as behind:
            nginx = start_nginx(*behind.addresses)
            trusting = ssl.create_default_context(cafile=str(nginx.authority))
            with closing(HTTPSConnection(NAME, nginx.port, timeout=CALL_TIME_MAX_S, context=trusting)) as connection:
                connection.request("PUT", "/api/v1/anything", halves(), {"Content-Length": str(2 * len(half))})
                assert connection.getresponse().read() == str(2 * len(half)).encode()
            assert "temporary file" not in (nginx.folder / "errors.log").read_text()


TRIGGER = "/api/v1/jobs/team/hello/-/builds"
KEY = {"Idempotency-Key": "delivery-17"}
LARGE = b"x" * MIB

REPEATED: Mapping[str, tuple[str, str, dict[str, str], bytes]] = {
    "a look": ("GET", f"{TRIGGER}/1", {}, b""),
    "a look at the head": ("HEAD", f"{TRIGGER}/1", {}, b""),
    "a job that is deleted": ("DELETE", "/api/v1/jobs/team/hello", {}, b""),
    "a trigger with a key": ("POST", TRIGGER, KEY, b""),
    "a large trigger with a key": ("POST", TRIGGER, KEY, LARGE),
    "a retry with a key": ("POST", f"{TRIGGER}/1/retry", KEY, b""),
    "a trigger of a job whose slashes are escaped": ("POST", TRIGGER.replace("team/", "team%2F"), KEY, b"{}"),
}
NOT_REPEATED: Mapping[str, tuple[str, str, dict[str, str], bytes]] = {
    "a trigger": ("POST", TRIGGER, {}, b""),
    "a trigger with a key that is empty": ("POST", TRIGGER, {"Idempotency-Key": ""}, b"{}"),
    "a retry": ("POST", f"{TRIGGER}/1/retry", {}, b""),
    "what takes no key": ("POST", f"{TRIGGER}/1/cancel", KEY, b""),
    "another POST": ("POST", "/logout", {}, b""),
    "a large body": ("PUT", "/api/v1/jobs/team/hello", KEY, LARGE),
}


def ask(nginx: Nginx, method: str, path: str, headers: Mapping[str, str], body: bytes) -> requests.Response:
    return requests.request(
        method, nginx.url + path, headers=headers, data=body, verify=str(nginx.authority), timeout=CALL_TIME_MAX_S
    )


class TestAway:
    """Three front ends."""

    @pytest.mark.parametrize("what", REPEATED)
    def test_what_may_be_repeated_is_asked_of_another_one(self, what: str, start_nginx: Callable[..., Nginx]) -> None:
        """The first one that is asked dies once the request has arrived."""
        with Behind(dies_at_first, 3) as behind:
            answer = ask(start_nginx(*behind.addresses), *REPEATED[what])
            assert answer.status_code == 200
            assert answer.headers["Content-Length"] == str(len(REPEATED[what][3]))
            assert len(behind.seen) == 2

    @pytest.mark.parametrize("what", NOT_REPEATED)
    def test_what_may_not_be_repeated_is_not(self, what: str, start_nginx: Callable[..., Nginx]) -> None:
        with Behind(dies_at_first, 3) as behind:
            answer = ask(start_nginx(*behind.addresses), *NOT_REPEATED[what])
            problem(answer, 503, "Unavailable")
            assert int(answer.headers["Retry-After"]) > 0
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert len(behind.seen) == 1

    @pytest.mark.parametrize("what", [*REPEATED, *NOT_REPEATED])
    def test_what_has_not_arrived_is_asked_of_another_one(self, what: str, start_nginx: Callable[..., Nginx]) -> None:
        """Two of them are not there at all, and nginx does not know."""
        with Behind(echoes) as behind:
            nowhere = [f"127.0.0.1:{port}" for port in free_ports(2)]
            nginx = start_nginx(*nowhere, *behind.addresses)
            answer = ask(nginx, *{**REPEATED, **NOT_REPEATED}[what])
            assert answer.status_code == 200
            assert len(behind.seen) == 1

    def test_when_nobody_is_there_clients_are_told_to_come_again(self, start_nginx: Callable[..., Nginx]) -> None:
        nginx = start_nginx(*(f"127.0.0.1:{port}" for port in free_ports(3)))
        for request in (*REPEATED.values(), *NOT_REPEATED.values()):
            answer = ask(nginx, *request)
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) > 0

    def test_who_says_that_it_cannot_now_is_not_believed_for_all(self, start_nginx: Callable[..., Nginx]) -> None:
        """One that is cut off from the tree answers with 503; another one may not be."""

        def serve(request: BehindRequest) -> None:
            request.body()
            request.answer(b"", 503 if request.number == 1 else 200)

        with Behind(serve, 3) as behind:
            assert ask(start_nginx(*behind.addresses), *REPEATED["a trigger with a key"]).status_code == 200
            assert len(behind.seen) == 2


def dies_at_first(request: BehindRequest) -> None:
    request.hang_up() if request.number == 1 and request.body() is not None else echoes(request)


def echoes(request: BehindRequest) -> None:
    request.answer(request.body())


def test_clients_are_put_down_by_their_own_address_and_requests_by_one_id(
    local: Stage, proxied: tuple[Nginx, Api]
) -> None:
    nginx, api = proxied
    forged = {"X-Forwarded-For": "192.0.2.1", "X-Request-ID": "mine"}
    api.put("/jobs/team/hello", json=job(), headers=forged)
    answer = api.get("/jobs/team/hello", headers=forged)
    # It is put down once the answer is out.
    wait_until(lambda: answer.headers["X-Request-ID"] in nginx.requests)
    logged = json.loads(nginx.requests.splitlines()[-1])
    assert logged["request"] == answer.headers["X-Request-ID"] != "mine"
    assert (logged["method"], logged["path"], logged["status"]) == ("GET", "/api/v1/jobs/team/hello", "200")
    [entry] = [entry for entry in local.ci.audit.list() if entry.what == "job.put"]
    assert entry.origin == "127.0.0.1 for 127.0.0.1"
