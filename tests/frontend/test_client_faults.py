"""A client whose front end dies, is away, or is hard to reach: nothing is done twice, nothing that was done is told as failed, nobody else gets the token."""

from __future__ import annotations

import hashlib
import io
import logging
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from queue import Queue
from threading import Event, Thread
from time import monotonic, time
from urllib.parse import urlsplit

import deliveries
import pytest
from between import Between, cut_after, lost, passed, refused
from frontends import BUILD, Stage, job, shell
from services.certificates import Authority
from unit.test_receivers import BUILT
from waiting import wait_until

from distci.access import Action
from distci.client import Client, connect, news
from distci.client import events as remote_events
from distci.client.download import PIECE_BYTES
from distci.client.news import LISTENING_S, PAUSE_MAX_S
from distci.errors import (
    AlreadyExists,
    Conflict,
    DistCIError,
    Invalid,
    InvalidDocument,
    InvalidSettings,
    NoSuchChange,
    NoSuchJob,
    Unavailable,
    VersionConflict,
)
from distci.model import BuildId

FORK = "gitea/pull-request-event"
SIZE_BYTES = 20_000_000
MEMORY_MAX_MB = 120
LARGE_BYTES = 200 * 1024 * 1024
KEEP = {"name": "keep", "type": "publish-artifacts", "paths": ["big"]}


@pytest.fixture
def between(local: Stage) -> Iterator[Between]:
    api, _ = local.front_end()
    with Between(api.url) as between:
        yield between


@pytest.fixture
def client(local: Stage, between: Between) -> Iterator[Client]:
    with connect(between.url, token=local.token) as client:
        yield client


def impatient(local: Stage, between: Between) -> Client:
    return connect(between.url, token=local.token, patience_s=0.5)


class TestLostAnswers:
    def test_a_trigger_whose_front_end_is_killed_is_one_build(self, local: Stage, between: Between) -> None:
        # Given a front end that has accepted a build, and dies before it says so
        local.ci.jobs.put(job())
        api, process = local.front_end()
        between.target = api.url

        def killed() -> None:
            process.kill()
            assert local.ci.builds.last_number("team/hello") == 1
            between.target = local.front_end()[0].url

        between.fates.append(lost(then=killed))

        # When one starts it through that
        with connect(between.url, token=local.token) as client:
            build = client.builds.trigger("team/hello")

        # Then it was asked for twice, and is one
        assert str(build) == "team/hello#1"
        assert local.ci.builds.last_number("team/hello") == 1
        assert len({seen.headers["Idempotency-Key"] for seen in between.seen}) == 1
        assert len(between.seen) == 2

    def test_two_calls_are_two_builds(self, local: Stage, client: Client) -> None:
        local.ci.jobs.put(job())

        assert [client.builds.trigger("team/hello").number for _ in range(2)] == [1, 2]

    def test_a_repetition_is_one_build(self, local: Stage, between: Between, client: Client) -> None:
        local.start_workers()
        local.ci.jobs.put(job())
        local.end(local.ci.builds.trigger("team/hello"))
        between.fates.append(lost())

        assert str(client.builds.retry("team/hello#1")) == "team/hello#2"
        assert local.ci.builds.last_number("team/hello") == 2

    @pytest.mark.parametrize("expected", [None, 1])
    def test_a_job_is_saved_once(self, local: Stage, between: Between, client: Client, expected: int | None) -> None:
        local.ci.jobs.put(job())
        between.fates.append(lost())

        saved = client.jobs.put(job(description="changed"), expected=expected)

        assert saved.version == 2
        assert saved == local.ci.jobs.get("team/hello")

    def test_a_job_that_somebody_else_changed_after_us_is_not_changed_again(
        self, local: Stage, between: Between, client: Client
    ) -> None:
        local.ci.jobs.put(job())

        def overtaken() -> None:
            local.ci.jobs.put(job(description="theirs"))

        between.fates.append(lost(then=overtaken))
        with pytest.raises(VersionConflict):
            client.jobs.put(job(description="ours"), expected=1)
        between.fates.append(lost(then=overtaken))
        with pytest.raises(Unavailable, match="not known whether it was done"):
            client.jobs.put(job(description="ours again"))

        assert local.ci.jobs.get("team/hello").document["description"] == "theirs"

    def test_a_job_is_rolled_back_once(self, local: Stage, between: Between, client: Client) -> None:
        for text in ("first", "second"):
            local.ci.jobs.put(job(description=text))
        between.fates.append(lost())

        assert client.jobs.rollback("team/hello", 1).version == 3

    @pytest.mark.parametrize("expected", [None, 1])
    def test_a_deletion_is_no_error_the_second_time(
        self, local: Stage, between: Between, client: Client, expected: int | None
    ) -> None:
        local.ci.jobs.put(job())
        between.fates.append(lost())

        client.jobs.delete("team/hello", expected=expected)

        assert next(local.ci.jobs.history("team/hello")).version == 2
        with pytest.raises(NoSuchJob):
            client.jobs.delete("team/hello")

    def test_a_cancellation_is_no_error_the_second_time(self, local: Stage, between: Between, client: Client) -> None:
        local.ci.jobs.put(job())
        build = local.ci.builds.trigger("team/hello")
        local.start_workers()
        local.end(build)
        ended = local.ci.builds.trigger(held(local))
        between.fates.append(lost(then=lambda: local.end(ended)))

        client.builds.cancel(ended)

        assert local.ci.builds.get(ended).state == "cancelled"
        between.fates.append(lost())
        with pytest.raises(DistCIError, match="has ended as passed"):
            client.builds.cancel(build)

    def test_a_change_is_approved_once_and_who_did_not_hear_is_told_so(
        self, local: Stage, between: Between, client: Client
    ) -> None:
        change = held_change(local)
        between.fates.append(lost())

        with pytest.raises(Unavailable, match="not known whether it was done"):
            client.hooks.approve(change)

        wait_until(lambda: [*local.ci.hooks.held()] == [])
        assert local.ci.builds.last_number("team/hello") == 1

    def test_a_refusal_is_no_error_the_second_time(self, local: Stage, between: Between, client: Client) -> None:
        change = held_change(local)
        between.fates.append(lost())

        client.hooks.refuse(change)

        assert [*local.ci.hooks.held()] == []
        with pytest.raises(NoSuchChange):
            client.hooks.refuse(change)

    def test_what_cannot_be_repeated_is_told_as_unknown(self, local: Stage, between: Between, client: Client) -> None:
        between.fates.append(lost())

        with pytest.raises(Unavailable, match="not known whether it was done"):
            client.access.create_token("once", [Action.READ])

        assert [record.label for record in local.ci.access.tokens()].count("once") == 1


def held(local: Stage) -> str:
    local.ci.jobs.put(job("team/held", shell("true", labels=["gpu=*"])))
    return "team/held"


def held_change(local: Stage) -> str:
    """A change that would start a build of ``team/hello``, and waits for an approval."""
    trigger = {"type": "gitea", "repository": BUILT[FORK][1], "events": ["pull_request"]}
    local.ci.jobs.put(job(triggers=[trigger]))
    body = deliveries.recorded(FORK)
    return local.ci.hooks.play("gitea", deliveries.headers(FORK, body), body).held


class TestAway:
    def test_who_never_heard_of_it_did_nothing(self) -> None:
        with (
            connect("http://127.0.0.1:1", token="t", patience_s=0.5) as client,
            pytest.raises(Unavailable, match=r"^http://127.0.0.1:1 does not answer \(Connection refused\)$"),
        ):
            client.builds.trigger("team/hello")

    def test_who_has_to_wait_is_told_what_for(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("distci.client.link.SILENCE_S", 0.0)
        with connect("http://127.0.0.1:1", token="t", patience_s=0.5) as client, pytest.raises(Unavailable):
            client.jobs.get("team/hello")

        told = "http://127.0.0.1:1 does not answer (Connection refused); asking again for 0 s at most"
        assert [record.message for record in caplog.records] == [told]

    def test_when_patience_ends_it_is_not_told_as_failed(self, local: Stage, between: Between) -> None:
        local.ci.jobs.put(job())
        between.fates.extend([lost()] * 100)

        with impatient(local, between) as client, pytest.raises(Unavailable, match="not known whether it was done"):
            client.builds.trigger("team/hello")

        wait_until(lambda: local.ci.builds.last_number("team/hello") == 1)

    @pytest.mark.parametrize("status", [502, 503, 504, 429])
    def test_it_is_asked_again(self, local: Stage, between: Between, client: Client, status: int) -> None:
        local.ci.jobs.put(job())
        between.fates.extend([refused(status), refused(status, b"<html>", Content_Type="text/html")])

        assert client.jobs.get("team/hello").version == 1
        assert len(between.seen) == 3

    @pytest.mark.parametrize("status", [503, 429])
    @pytest.mark.parametrize("date", [False, True])
    def test_not_before_it_wants_to_be(
        self, local: Stage, between: Between, client: Client, status: int, date: bool
    ) -> None:
        local.ci.jobs.put(job())
        # Of a date, the second that has begun does not count.
        between.fates.append(refused(status, Retry_After=formatdate(time() + 3, usegmt=True) if date else "2"))

        assert str(client.builds.trigger("team/hello")) == "team/hello#1"

        first, second = (seen.at_s for seen in between.seen)
        assert second - first >= 2

    def test_who_wants_to_be_left_alone_for_longer_than_patience_is_given_up_at_once(
        self, local: Stage, between: Between
    ) -> None:
        between.fates.append(refused(503, Retry_After="3600"))

        with impatient(local, between) as client, pytest.raises(Unavailable):
            client.jobs.get("team/hello")

        assert len(between.seen) == 1

    def test_what_was_refused_for_now_may_be_repeated_whatever_it_is(
        self, local: Stage, between: Between, client: Client
    ) -> None:
        between.fates.append(refused(429))

        assert client.access.create_token("once", [Action.READ]).text

    def test_what_may_have_been_done_is_not(self, local: Stage, between: Between, client: Client) -> None:
        between.fates.append(refused(502))

        with pytest.raises(Unavailable, match=r"502 .*not known whether it was done"):
            client.access.create_token("once", [Action.READ])

    def test_what_is_no_front_end_is_told(self, local: Stage, between: Between, client: Client) -> None:
        between.fates.append(refused(200, b"<html>", Content_Type="text/html"))

        with pytest.raises(InvalidDocument, match="is it a front end of DistCI"):
            client.jobs.get("team/hello")


@pytest.fixture
def big(local: Stage) -> str:
    """The digest of the artifact ``big`` of a build whose log is long, too."""
    script = f"head -c {SIZE_BYTES} /dev/urandom > big; base64 big"
    local.ci.jobs.put(job("team/hello", shell(script), KEEP))
    with local.workers():
        build = local.end(local.ci.builds.trigger("team/hello")).id
    return local.ci.artifacts.list(build)[0].sha256


class TestUploads:
    def test_one_whose_front_end_was_killed_or_whose_answer_was_lost_is_sent_once_more(
        self, local: Stage, between: Between, client: Client
    ) -> None:
        local.ci.jobs.put(job())
        local.ci.builds.trigger("team/hello")
        data = bytes(range(256)) * 4096
        between.fates.extend([refused(503), lost(), lost()])

        told = client.artifacts.put("team/hello#1", "a", io.BytesIO(data))

        assert [*local.ci.artifacts.list("team/hello#1")] == [told]
        assert local.ci.artifacts.open("team/hello#1", "a").read() == data
        assert [seen.method for seen in between.seen] == ["PUT"] * 4

    def test_who_was_second_is_told_so_after_a_lost_answer_too(
        self, local: Stage, between: Between, client: Client
    ) -> None:
        local.ci.jobs.put(job())
        local.ci.builds.trigger("team/hello")
        local.ci.artifacts.put("team/hello#1", "a", io.BytesIO(b"first"))
        between.fates.append(lost())

        with pytest.raises(AlreadyExists, match="take another name"):
            client.artifacts.put("team/hello#1", "a", io.BytesIO(b"second"))
        assert local.ci.artifacts.open("team/hello#1", "a").read() == b"first"

    def test_one_goes_to_another_front_end_when_its_own_dies_in_the_middle(self, local: Stage) -> None:
        local.ci.jobs.put(job())
        local.ci.builds.trigger("team/hello")
        api, process = local.front_end()

        class Killing(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                if self.tell() > SIZE_BYTES // 2 and not process.has_ended:
                    process.kill()
                    local.front_end("--listen", urlsplit(api.url).netloc)
                return super().read(size)

        data = bytes(SIZE_BYTES)
        with connect(api.url, token=local.token) as client:
            client.artifacts.put("team/hello#1", "a", Killing(data))
        assert local.ci.artifacts.open("team/hello#1", "a").read() == data


class TestDownloads:
    def test_one_goes_on_where_its_front_end_was_killed(self, local: Stage, big: str) -> None:
        # Given a client that has read some of it
        api, process = local.front_end()
        with connect(api.url, token=local.token) as client, client.artifacts.open("team/hello#1", "big") as stream:
            digest = hashlib.sha256(stream.read(1_000_000))

            # When its front end is killed, and another begins in its place
            process.kill()
            local.front_end("--listen", urlsplit(api.url).netloc)
            while piece := stream.read(1_000_000):
                digest.update(piece)

        # Then the rest comes from that
        assert digest.hexdigest() == big

    def test_so_does_a_log(self, local: Stage, big: str) -> None:
        api, process = local.front_end()
        with connect(api.url, token=local.token) as client:
            pieces = client.builds.log("team/hello#1", "say")
            read = next(pieces)
            process.kill()
            local.front_end("--listen", urlsplit(api.url).netloc)
            read += b"".join(pieces)

        assert read == b"".join(local.ci.builds.log("team/hello#1", "say"))

    def test_only_what_is_missing_is_asked_for(
        self, local: Stage, between: Between, client: Client, big: str, tmp_path: Path
    ) -> None:
        client.jobs.get("team/hello")
        between.fates.extend([passed, cut_after(12 * PIECE_BYTES + 5), cut_after(4 * PIECE_BYTES + 5)])

        [path] = client.artifacts.download("team/hello#1", tmp_path / "fetched")

        assert hashlib.sha256(path.read_bytes()).hexdigest() == big
        fetched = [seen for seen in between.seen if seen.path.endswith("/artifacts/big")]
        # Part of a piece is asked for again.
        wanted = [None, f"bytes={12 * PIECE_BYTES}-", f"bytes={16 * PIECE_BYTES}-"]
        assert [seen.headers.get("Range") for seen in fetched] == wanted

    def test_one_that_became_another_meanwhile_is_not_sewn_together(
        self, between: Between, client: Client, big: str
    ) -> None:
        whole = f"bytes {PIECE_BYTES}-{PIECE_BYTES + 4}/{PIECE_BYTES + 5}"
        other = refused(206, b"other", ETag='"other"', Content_Range=whole)
        between.fates.extend([cut_after(PIECE_BYTES + 5), other])

        with client.artifacts.open("team/hello#1", "big") as stream, pytest.raises(Conflict, match="begin again"):
            stream.read()

    def test_one_that_never_goes_on_is_given_up(self, local: Stage, between: Between, big: str) -> None:
        between.fates.extend([cut_after(0)] * 100)
        with (
            impatient(local, between) as client,
            client.artifacts.open("team/hello#1", "big") as stream,
            pytest.raises(Unavailable, match="broke off"),
        ):
            stream.read()

    def test_memory_stays_flat(self, local: Stage) -> None:
        local.ci.jobs.put(job("team/hello", shell(f"truncate -s {LARGE_BYTES} big; head -c 50000000 big"), KEEP))
        with local.workers():
            local.end(local.ci.builds.trigger("team/hello"))
        api, _ = local.front_end()
        script = """\
import re, sys
from pathlib import Path
from distci.client import connect
with connect(sys.argv[1]) as client:
    count = sum(map(len, client.builds.log("team/hello#1", "say")))
    client.artifacts.download("team/hello#1", Path("fetched"))
most = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())
print(count, int(most[1]) // 1024)
"""
        environment = local.home.environment | {"DISTCI_TOKEN": local.token}
        ran = subprocess.run(
            [sys.executable, "-c", script, api.url],
            cwd=local.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
        )

        assert ran.stderr == ""
        count, most_mb = map(int, ran.stdout.split())
        assert count == 50_000_000
        assert (local.folder / "fetched/big").stat().st_size == LARGE_BYTES
        assert most_mb < MEMORY_MAX_MB


class TestSafety:
    @pytest.fixture(scope="class")
    @classmethod
    def authority(cls, tmp_path_factory: pytest.TempPathFactory) -> Authority:
        return Authority(tmp_path_factory.mktemp("authority"))

    @pytest.fixture
    def secured(self, local: Stage, authority: Authority) -> Iterator[Callable[..., Between]]:
        api, _ = local.front_end()
        opened = []

        def start(*hosts: str) -> Between:
            made = authority.sign("front", *hosts)
            between = Between(api.url, (str(made.certificate), str(made.key)))
            opened.append(between.__enter__())
            return between

        yield start
        for between in opened:
            between.__exit__()

    def test_a_private_authority_is_named(
        self, local: Stage, authority: Authority, secured: Callable[..., Between]
    ) -> None:
        between = secured("DNS:localhost")
        with connect(between.url, token=local.token, ca=authority.certificate) as client:
            client.jobs.put(job())

            assert [*client.jobs.list()] == ["team/hello"]

    def test_a_stranger_gets_no_request(
        self, local: Stage, authority: Authority, secured: Callable[..., Between]
    ) -> None:
        unknown, other = secured("DNS:localhost"), secured("DNS:ci.example.org")
        for between, ca in ((unknown, ""), (other, str(authority.certificate))):
            with (
                connect(between.url, token=local.token, ca=ca) as client,
                pytest.raises(InvalidSettings, match=r"certificate: .*DISTCI_CA"),
            ):
                client.jobs.get("team/hello")
            assert between.seen == []

    @pytest.mark.parametrize(("text", "said"), [(None, "No such file"), ("hello", "no certificate in PEM")])
    def test_a_file_that_is_no_authority_is_named(self, tmp_path: Path, text: str | None, said: str) -> None:
        file = tmp_path / "ca.pem"
        if text is not None:
            file.write_text(text)

        with pytest.raises(InvalidSettings, match=f"{file}: {said}"):
            connect("https://ci.example.org", token="t", ca=file)

    def test_nobody_is_sent_elsewhere(self, local: Stage, between: Between, client: Client) -> None:
        with Between(between.target) as elsewhere:
            between.fates.append(refused(307, Location=f"{elsewhere.url}/api/v1/jobs/team/hello"))
            with pytest.raises(Invalid, match=f"sends us on to {elsewhere.url}"):
                client.jobs.get("team/hello")
            assert elsewhere.seen == []

    def test_by_http_only_this_machine_is_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(InvalidSettings, match="allow_http"):
            connect("http://ci.example.org", token="t")

        connect("http://ci.example.org", token="t", allow_http=True).close()
        monkeypatch.setenv("DISTCI_ALLOW_HTTP", "yes")
        connect("http://ci.example.org", token="t").close()

    def test_neither_a_proxy_nor_a_password_file_comes_between(
        self, local: Stage, between: Between, client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login ada password sesame\n")
        monkeypatch.setenv("NETRC", str(netrc))
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")

        assert [*client.jobs.list()] == []
        assert between.seen[0].headers["Authorization"] == f"Bearer {local.token}"

    def test_the_token_is_nowhere_to_be_read(
        self, local: Stage, between: Between, client: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        between.fates.extend([refused(503), refused(401)])
        told = []
        for ask in (lambda: client.jobs.get("none"), lambda: connect("http://127.0.0.1:9", token="a b")):
            with pytest.raises(DistCIError) as caught:
                ask()
            told += traceback.format_exception(caught.value)
        told += [repr(client), repr(client.settings), repr(vars(client)), caplog.text]

        assert local.token not in "".join(told)
        assert "a b" not in "".join(told).replace('token="a b"', "")


def test_what_is_followed_goes_on_through_another_front_end(local: Stage, between: Between, client: Client) -> None:
    go = local.folder / "go"
    local.start_workers()
    script = f"echo begun; until test -e {go}; do sleep 0.05; done; echo went"
    local.ci.jobs.put(job("team/hello", shell(script)))
    build = client.builds.trigger("team/hello")
    printed = b""
    for piece in client.builds.follow(build):
        printed += piece.data
        if printed == b"begun\n" and not go.exists():
            between.target = local.front_end()[0].url
            between.fates.append(lost())
            go.touch()

    assert printed == b"begun\nwent\n"
    assert client.builds.wait(build).state == "passed"
    assert f"/api/v1{BUILD}" in {seen.path for seen in between.seen}


class TestListening:
    @pytest.fixture
    def resting(self, local: Stage) -> BuildId:
        """A build that says that it has begun, and goes on once there is a file ``go``."""
        local.start_workers()
        script = f"echo begun; until test -e {local.folder / 'go'}; do sleep 0.05; done; echo went"
        local.ci.jobs.put(job("team/hello", shell(script)))
        return local.ci.builds.trigger("team/hello")

    def test_who_waits_looks_when_the_stream_tells_of_something(
        self, local: Stage, between: Between, client: Client, resting: BuildId
    ) -> None:
        # Given somebody who waits, and a stream that is there
        between.is_streaming = True
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(client.builds.wait, resting, 60)
            # When nothing happens, they do not look for longer than anybody without a stream would do without
            wait_until(lambda: rests_s(between) > 3 * PAUSE_MAX_S)
            # Then they are there soon after it is over all the same
            (local.folder / "go").touch()
            assert waiting.result(LISTENING_S / 2).state == "passed"

    @pytest.mark.parametrize("is_streaming", [True, False])
    def test_nothing_is_lost_or_doubled_when_the_front_end_of_a_follower_is_killed(
        self, local: Stage, between: Between, client: Client, resting: BuildId, is_streaming: bool
    ) -> None:
        # Given somebody who follows through a front end, with its stream or with one that something holds back
        between.is_streaming = is_streaming
        api, process = local.front_end()
        between.target = api.url
        printed: list[bytes] = []
        with ThreadPoolExecutor(1) as pool:
            following = pool.submit(lambda: printed.extend(each.data for each in client.builds.follow(resting)))
            wait_until(lambda: b"".join(printed) == b"begun\n")
            wait_until(lambda: any(seen.path.endswith("/events") for seen in between.seen))
            # When that is killed, and another one is there
            process.kill()
            between.target = local.front_end()[0].url
            (local.folder / "go").touch()
            following.result(60)
        # Then they were told all, once
        assert b"".join(printed) == b"begun\nwent\n"
        assert client.builds.wait(resting).state == "passed"


def rests_s(between: Between) -> float:
    """For how long nobody has looked, where a stream has been asked for."""
    looks = [seen for seen in between.seen if not seen.path.endswith("/events")]
    return monotonic() - looks[-1].at_s if len(between.seen) > len(looks) > 0 else 0.0


def test_who_follows_events_through_a_front_end_is_woken_by_its_stream(
    local: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given somebody who never looks by themselves
    for module, name in ((news, "PAUSE_MIN_S"), (news, "PAUSE_MAX_S"), (remote_events, "LISTENING_S")):
        monkeypatch.setattr(module, name, 3600.0)
    api, _ = local.front_end()
    stop, told = Event(), Queue[str]()
    with connect(api.url, token=local.token) as system:

        def follow() -> None:
            for event in system.events.follow(0, stop):
                told.put(f"{event.build} {event.kind}")

        thread = Thread(target=follow, daemon=True)
        thread.start()
        # When a build begins and ends
        local.ci.jobs.put(job("team/hello", shell("echo hello")))
        with local.workers():
            local.ci.builds.trigger("team/hello")
            # Then they are told
            assert told.get(timeout=30) == "team/hello#1 build-begun"
            assert told.get(timeout=30) == "team/hello#1 build-ended"
        stop.set()
        thread.join()
