"""Live logs: told as they come, byte for byte, whatever happens to who tells them."""

from __future__ import annotations

import hashlib
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

from frontends import BUILD, Stage, job, problem, shell
from streaming import BROKEN, PRINTING, Client, Crowd, Log, follow, resident_mib
from waiting import wait_until

from distci.chaos.relay import Relay
from distci.following.logs import bytes_of
from distci.frontend.serving import FrontEnd

LOGS = f"/api/v1{BUILD}/log/events"


def log_of(name: str) -> str:
    return f"/api/v1{BUILD}/tasks/{name}/log/events"


def begun(stage: Stage, *tasks: dict[str, object]) -> None:
    stage.ci.jobs.put(job("team/hello", *tasks))
    stage.ci.builds.trigger("team/hello")


GO_ON = "while [ ! -e {go} ]; do sleep 0.05; done"


def test_a_log_is_told_while_it_is_printed_and_ends_with_its_task(stage: Stage, tmp_path: Path) -> None:
    # Given a task that prints a line, waits, and prints bytes that are no text
    go = tmp_path / "go"
    stage.start_workers()
    begun(
        stage,
        shell(f"echo first; {GO_ON.format(go=go)}; printf 'last\\377\\000'"),
        shell("sleep 600", "long", needs=[]),
    )
    api, _ = stage.front_end()
    # When somebody follows it
    log = Log()
    for event in Client(log_of("say"), stage.shown).events(api.url):
        log.add(event)
        if log.of("say") == b"first\n":
            go.touch()
    # Then they are told the line before the task went on, and all of it, and that it is over though the build is not
    assert log.is_ended
    assert log.of("say") == b"first\nlast\xff\x00"
    stage.ci.builds.cancel("team/hello#1")


def test_a_build_is_followed_through_all_its_attempts(stage: Stage) -> None:
    # Given a build with tasks side by side, one of which fails twice
    stage.start_workers()
    begun(
        stage,
        shell("echo a; exit 1", "a", retries=1),
        shell("echo b", "b", needs=[]),
        shell("echo c", "c", needs=["b"]),
    )
    api, _ = stage.front_end()
    # When it is followed from before its end, and once more when it is over
    early = follow(Client(LOGS, stage.shown), lambda: api.url, Log())
    stage.end("team/hello#1")
    late = follow(Client(LOGS, stage.shown), lambda: api.url, Log())
    # Then both are told every byte of every attempt
    for log in early, late:
        assert [log.of(name) for name in ("a", "b", "c")] == [b"a\na\n", b"b\n", b"c\n"]


def test_c01_another_front_end_goes_on_where_one_was_killed(stage: Stage, tmp_path: Path) -> None:
    # Given a build that prints bytes on two sides until it is told to end, and front ends
    stage.start_workers()
    end = tmp_path / "end"
    script = f"while [ ! -e {end} ]; do date; head -c 1500 /dev/urandom; sleep 0.02; done"
    begun(stage, shell(script, "a"), shell(script, "b", needs=[]))
    front_ends = [stage.front_end() for _ in range(4)]
    # When each that serves the stream is killed once it has told something
    client, log = Client(LOGS, stage.shown), Log()
    for api, process in front_ends[:-1]:
        enough = log.size_bytes + 20_000
        with suppress(*BROKEN):
            for event in client.events(api.url):
                log.add(event)
                if log.size_bytes > enough:
                    process.kill()
        assert process.has_ended
    end.touch()
    follow(client, lambda: front_ends[-1][0].url, log)
    # Then all of it has been told, and nothing twice
    view = stage.end("team/hello#1")
    for task in view.tasks:
        assert log.of(task.name) == b"".join(stage.ci.builds.log(view.id, task.name))


def test_what_an_attempt_printed_that_was_lost_is_told_and_then_the_next_one(stage: Stage) -> None:
    # Given a task whose first attempt never ends, on a worker that is killed, so that its next one runs elsewhere
    api, _ = stage.front_end()
    stage.home.environment["DISTCI_SESSION_TIMEOUT"] = "2s"
    worker = partial(stage.home.running, "worker", "run", "control", "shell", *stage.flags, until="Serving")
    begun(stage, shell("echo attempt $DISTCI_ATTEMPT; [ $DISTCI_ATTEMPT -gt 1 ] || sleep 600"))
    client, log = Client(log_of("say"), stage.shown), Log()
    with ExitStack() as stack:
        first = stack.enter_context(worker("--name", "first"))
        # When it is followed from one attempt to the next, across a break in the first
        for event in client.events(api.url):
            log.add(event)
            if b"attempt 1\n" in log.of("say"):
                break
        first.kill()
        stack.enter_context(worker("--name", "second"))
        follow(client, lambda: api.url, log)
    # Then both have been told
    lines = log.of("say").decode().splitlines()
    assert [line for line in lines if not line.startswith("distci: ")] == ["attempt 1", "attempt 2"]


def test_o01_a_hundred_megabytes_are_told_in_flat_memory(local: Stage) -> None:
    # Given a task that has printed that much, and a front end that has told something before
    local.start_workers()
    begun(local, shell("head -c 100000000 /dev/urandom"))
    local.end("team/hello#1")
    api, process = local.front_end()
    next(iter(Client(LOGS, local.shown).events(api.url)))
    before_mib = resident_mib(process.pid)
    # When all of it is told
    digest, size_bytes = hashlib.sha256(), 0
    for event in Client(LOGS, local.shown).events(api.url):
        if event.name == "log":
            assert event.data["offset"] == size_bytes
            data = bytes_of(event.data)
            digest.update(data)
            size_bytes += len(data)
    # Then these are its bytes, and the front end never had many of them at a time
    stored = hashlib.sha256()
    for data in local.ci.builds.log("team/hello#1", "say"):
        stored.update(data)
    assert (size_bytes, digest.digest()) == (100_000_000, stored.digest())
    assert resident_mib(process.pid, "VmHWM") - before_mib < 40


def test_c11_a_stream_waits_while_the_store_is_away_and_misses_nothing(local: Stage, tmp_path: Path) -> None:
    # Given a task that prints on and on, and a follower
    local.start_workers()
    end = tmp_path / "end"
    begun(local, shell(PRINTING.format(end=end, pause_s=0.1)))
    api, _ = local.front_end()
    client, log = Client(log_of("say"), local.shown), Log()
    store, away = local.folder / "data" / "store", local.folder / "away"
    # When the store is away in the middle of it, until the follower has been told what is waited for
    putting_back: list[Thread] = []
    for event in client.events(api.url):
        log.add(event)
        if log.size_bytes and not putting_back:
            store.rename(away)
            putting_back.append(Thread(target=_put_back, args=(away, store, client, end)))
            putting_back[0].start()
    # Then the same connection has told all of it
    assert log.is_ended
    local.end("team/hello#1")
    assert log.of("say") == b"".join(local.ci.builds.log("team/hello#1", "say"))
    assert any("store" in comment for comment in client.comments)


def _put_back(away: Path, store: Path, client: Client, end: Path) -> None:
    try:
        wait_until(lambda: any("store" in comment for comment in client.comments))
    finally:
        # Whatever the client was told: without it the system cannot come to its end, and neither could the test.
        away.rename(store)
        end.touch()


def test_c10_a_stream_waits_while_the_tree_is_away_and_misses_nothing(
    zookeeper_hosts: str, zookeeper_url: str, start_stage: Callable[..., Stage]
) -> None:
    # Given a build on ZooKeeper, and a front end whose line to it can be cut
    stage = start_stage(coordination=zookeeper_url)
    stage.start_workers()
    host, _, port = zookeeper_hosts.rpartition(":")
    with Relay([(host, int(port))]) as relay:
        stage.flags[stage.flags.index("--coordination") + 1] = zookeeper_url.replace(zookeeper_hosts, relay.hosts)
        api, _ = stage.front_end()
        begun(stage, shell("echo a; sleep 1", "a"), shell("echo b; sleep 1", "b"), shell("echo c", "c"))
        client, log = Client(LOGS, stage.shown), Log()
        # When it is cut in the middle, and the build goes on to its end meanwhile
        for event in client.events(api.url):
            log.add(event)
            if event.name == "log" and not client.comments:
                relay.cut()
                stage.end("team/hello#1")
                relay.restore()
        # Then the same connection has told all of it
        assert log.is_ended
    assert [log.of(name) for name in "abc"] == [b"a\n", b"b\n", b"c\n"]


def test_a_client_that_takes_nothing_is_dropped_and_others_do_not_wait_for_it(local: Stage) -> None:
    # Given a log that is longer than what connections hold, and a front end of little patience
    local.start_workers()
    begun(local, shell("head -c 30000000 /dev/zero"))
    local.end("team/hello#1")
    with FrontEnd(local.ci, "127.0.0.1:0") as front_end:
        front_end.streams.slow_s = 1.0
        parts = urlsplit(front_end.address)
        # When somebody asks for it and takes nothing of it
        with socket.create_connection((str(parts.hostname), parts.port or 0), 30) as stuck:
            shown = f"Host: {parts.netloc}\r\nAuthorization: Bearer {local.token}"
            stuck.sendall(f"GET {LOGS} HTTP/1.1\r\n{shown}\r\n\r\n".encode())
            wait_until(lambda: len(front_end.streams) == 1)
            # Then somebody else is told all of it meanwhile, and they are dropped
            log = follow(Client(LOGS, local.shown), lambda: front_end.address, Log())
            assert log.size_bytes == 30_000_000
            wait_until(lambda: len(front_end.streams) == 0)
            received = 0
            with suppress(ConnectionError):
                while data := stuck.recv(1024 * 1024):
                    received += len(data)
            assert received < 30_000_000
    assert len(local.ci.following.sources.feeds) == 0


def test_o02_three_hundred_follow_within_a_second(local: Stage, tmp_path: Path) -> None:
    # Given a task that prints, and three hundred who follow it at one front end
    local.start_workers()
    end = tmp_path / "end"
    local.ci.jobs.put(job("team/hello", shell(PRINTING.format(end=end, pause_s=0.1))))
    api, _ = local.front_end()
    build = local.ci.builds.trigger("team/hello")
    wait_until(lambda: any(local.ci.builds.log(build, "say")) if local.ci.builds.get(build).tasks else False)
    with Crowd(api.url, [log_of("say")] * 150 + [LOGS] * 150, local.token) as crowd:
        crowd.wait_for_lines(60)
        end.touch()
        local.end(build)
        crowd.wait_for_end()
    # Then each is told all of it, and nearly every line within a second of when it was printed
    size_bytes = sum(map(len, local.ci.builds.log(build, "say")))
    assert {heard.bytes_heard for heard in crowd.heard} == {size_bytes}
    assert all(heard.is_ended for heard in crowd.heard)
    late = crowd.delays_s[int(len(crowd.delays_s) * 0.95)]
    assert late < 1, f"p50 {crowd.delays_s[len(crowd.delays_s) // 2]:.2f} p95 {late:.2f} max {crowd.delays_s[-1]:.2f}"


def test_streams_end_at_once_when_their_front_end_does(stage: Stage) -> None:
    # Given streams of every sort
    begun(stage)
    api, process = stage.front_end()
    paths = [LOGS, f"/api/v1{BUILD}/events", "/api/v1/events"]
    with Crowd(api.url, paths * 20, stage.token) as crowd:
        # When it shall end
        began_s = time.monotonic()
        process.signal(signal.SIGTERM)
        # Then within two seconds it has, and clients were told when to come again, not all at once
        assert process.wait() == 0
        assert time.monotonic() - began_s < 2
        crowd.wait_for_end(5)
    assert len({heard.retry_ms for heard in crowd.heard}) > 10


class TestWhatCannotBeFollowed:
    def test_is_not_there(self, stage: Stage) -> None:
        api, _ = stage.front_end()
        problem(api.get(f"{BUILD}/log/events"), 404, "NoSuchBuild")
        begun(stage)
        stage.start_workers()
        stage.end("team/hello#1")
        problem(api.get(f"{BUILD}/tasks/other/log/events"), 404, "NoSuchTask")

    def test_has_been_followed_to_its_end(self, local: Stage) -> None:
        local.start_workers()
        begun(local)
        local.end("team/hello#1")
        api, _ = local.front_end()
        client = Client(LOGS, local.shown)
        follow(client, lambda: api.url, Log())
        assert client.id == "over"
        assert api.get(f"{BUILD}/log/events", headers={"Last-Event-ID": client.id}).status_code == 204

    def test_is_behind_its_end(self, local: Stage) -> None:
        # Given a log of six bytes that somebody follows from its beginning, and a client that says it had a thousand
        local.start_workers()
        begun(local, shell("echo hello; sleep 600"))
        api, _ = local.front_end()
        client, log = Client(log_of("say"), local.shown), Log()
        for event in client.events(api.url):
            log.add(event)
            if log.size_bytes:
                break
        token = client.id.partition(":")[0]
        wrong = Client(f"{log_of('say')}?after={token}:1000", local.shown)
        # Then it is told so, and others hear of what comes all the same
        assert [(event.name, event.data["error"]) for event in wrong.events(api.url)] == [("problem", "Invalid")]
        local.ci.builds.cancel("team/hello#1")
        follow(client, lambda: api.url, log)
        assert log.of("say").startswith(b"hello\n")

    def test_is_no_position(self, local: Stage) -> None:
        begun(local)
        api, _ = local.front_end()
        problem(api.get(f"{BUILD}/log/events", headers={"Last-Event-ID": "nonsense"}), 422, "Invalid")
        problem(api.get(f"{BUILD}/log/events", params={"after": "0:x.1:-1"}), 422, "Invalid")
        problem(api.get("/events", params={"after": "-1"}), 422, "Invalid")
