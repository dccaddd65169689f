"""Artifacts over HTTP: files to keep, whatever is in them or in their names."""

from __future__ import annotations

import base64
import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest
import requests
from frontends import BUILD, Api, Stage, job, problem, raw, shell
from waiting import wait_until

from distci.access import Action
from distci.frontend.artifacts import told_sha256
from distci.frontend.problems import BadRequest
from distci.model import BuildId
from distci.store import keys

HOSTILE = (
    'a"b;c.txt',
    "a b/c#d?e%2F.html",
    "ä/日本/\u202egpj.exe",
    "<script>alert(1)</script>.html",
    "-/builds/2/cancel",
    "x/-/log",
    "back\\slash",
    "semi;filename=evil.exe",
    "new~tilde'quote",
    "%0d%0aSet-Cookie: a=b",
    "..hidden",
    "a/...",
)


def published(stage: Stage, files: dict[str, bytes]) -> None:
    """Have a build that has published these files."""
    for name, data in files.items():
        path = stage.folder / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    stage.start_workers()
    publish = {"name": "publish", "type": "publish-artifacts", "paths": ["**"]}
    stage.ci.jobs.put(job("team/hello", shell(f"cp -r {stage.folder}/files/. ."), publish))
    assert stage.end(stage.ci.builds.trigger("team/hello")).state == "passed"


@pytest.fixture(scope="module")
def front(common: Stage) -> Api:
    """A front end of a system with a build that has published ``a/b``, for what changes nothing."""
    published(common, {"a/b": b"x"})
    return common.front_end()[0]


class TestFetching:
    def test_a_file_comes_in_whole_and_in_parts(self, stage: Stage) -> None:
        data = bytes(range(256)) * 5000
        published(stage, {"dist/data.bin": data, "empty": b""})
        api, _ = stage.front_end()

        listed = api.all(f"{BUILD}/artifacts", limit=1)
        assert [(item["name"], item["size_bytes"]) for item in listed] == [("dist/data.bin", len(data)), ("empty", 0)]
        whole = api.get(f"{BUILD}/artifacts/dist/data.bin")
        assert whole.content == data
        assert whole.headers["DistCI-SHA-256"] == hashlib.sha256(data).hexdigest() == listed[0]["sha256"]
        part = api.get(f"{BUILD}/artifacts/dist%2Fdata.bin", headers={"Range": "bytes=1000000-1000009"})
        assert (part.status_code, part.content) == (206, data[1000000:1000010])
        again = api.get(f"{BUILD}/artifacts/dist/data.bin", headers={"If-None-Match": whole.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert api.get(f"{BUILD}/artifacts/empty").content == b""
        assert api.get(f"{BUILD}/artifacts/empty", headers={"Range": "bytes=0-"}).status_code == 416
        assert "dist/data.bin" in problem(api.get(f"{BUILD}/artifacts/dist"), 404, "NoSuchArtifact")["detail"]

    def test_d35_no_name_and_no_content_becomes_part_of_a_page(self, local: Stage) -> None:
        published(local, dict.fromkeys(HOSTILE, b"<script>alert(1)</script>"))
        api, _ = local.front_end()
        assert sorted(item["name"] for item in api.all(f"{BUILD}/artifacts", limit=5)) == sorted(HOSTILE)
        for name in HOSTILE:
            answer = api.get(f"{BUILD}/artifacts/{quote(name, safe='/')}")
            assert answer.content == b"<script>alert(1)</script>", name
            assert answer.headers["Content-Type"] == "application/octet-stream"
            assert answer.headers["Content-Disposition"].startswith('attachment; filename="')
            last = name.rpartition("/")[2]
            assert answer.headers["Content-Disposition"].endswith(f"\"; filename*=UTF-8''{quote(last, safe='')}")
            assert answer.headers["Content-Disposition"].count('"') == 2
            assert "sandbox" in answer.headers["Content-Security-Policy"]
            assert "Set-Cookie" not in answer.headers

    @pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "a/../../b", "%00", "a%00b", "%ff"])
    def test_a_name_that_is_none_leads_nowhere(self, common: Stage, front: Api, name: str) -> None:
        # As it is: a client would tidy the path up before it asks.
        answer = raw(
            front.url,
            f"GET /api/v1{BUILD}/artifacts/{name} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            f"Authorization: Bearer {common.token}\r\n\r\n".encode(),
        )
        assert answer.split(b"\r\n")[0].split()[1] in (b"400", b"404", b"422"), answer

    def test_bytes_that_are_gone_from_the_store_are_not_made_up(self, local: Stage) -> None:
        published(local, {"a": b"x" * 100})
        api, _ = local.front_end()
        source = local.ci.artifacts.find("team/hello#1", "a")
        key = keys.artifact(BuildId("team/hello", 1), source.task, source.token, "a")
        local.ci.store.delete(key)
        problem(api.get(f"{BUILD}/artifacts/a"), 404, "NoSuchArtifact")
        local.ci.store.put(key, b"x" * 50)
        with pytest.raises(Exception, match=r"IncompleteRead|Connection"):
            api.get(f"{BUILD}/artifacts/a")


MIB = 1024 * 1024
LARGE_BYTES = 256 * MIB


def ended(stage: Stage) -> Api:
    """A front end of a system with a build that has published ``report`` and is archived."""
    published(stage, {"report": b"of the build"})
    return stage.front_end()[0]


def begun(stage: Stage, **environment: str) -> Api:
    """A front end of a system with a build that waits for workers."""
    stage.ci.jobs.put(job())
    stage.ci.builds.trigger("team/hello")
    return stage.front_end(**environment)[0]


def peak_bytes(pid: int) -> int:
    """The most memory that a process ever had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def digest_of(data: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


class TestPutting:
    def test_a_file_is_an_artifact_of_a_build_that_is_over(self, stage: Stage) -> None:
        api = ended(stage)
        data = b"signed" * 1000
        told = {"name": "dist/a.sig", "size_bytes": 6000, "sha256": hashlib.sha256(data).hexdigest()}

        put = api.put(f"{BUILD}/artifacts/dist/a.sig", data=data, headers={"Content-Digest": digest_of(data)})

        assert (put.status_code, put.json()) == (201, told)
        assert api.get(f"//{put.headers['Location'].lstrip('/')}").content == data
        fetched = api.get(f"{BUILD}/artifacts/dist/a.sig")
        assert (fetched.content, fetched.headers["ETag"]) == (data, put.headers["ETag"])
        assert [item["name"] for item in api.all(f"{BUILD}/artifacts", limit=1)] == ["dist/a.sig", "report"]
        assert stage.ci.builds.get("team/hello#1").state == "passed"

    def test_the_same_bytes_again_change_nothing_and_others_are_refused(self, local: Stage) -> None:
        api = ended(local)
        assert api.put(f"{BUILD}/artifacts/a", data=b"one").status_code == 201
        for name, data, other in (("a", b"one", b"two"), ("report", b"of the build", b"by somebody")):
            address = f"{BUILD}/artifacts/{name}"
            assert api.put(address, data=data).status_code == 200
            assert api.put(address, data=data, headers={"Repr-Digest": digest_of(data)}).status_code == 200
            assert name in problem(api.put(address, data=other), 409, "AlreadyExists")["detail"]
            # Told before the body is read, and whoever sends a long one hears of it.
            long = bytes(8 * MIB)
            problem(api.put(address, data=long, headers={"Content-Digest": digest_of(long)}), 409, "AlreadyExists")
            problem(api.put(address, data=data, headers={"If-None-Match": "*"}), 412, "VersionConflict")
            assert api.get(address).content == data
        assert api.put(f"{BUILD}/artifacts/b", data=b"", headers={"If-None-Match": "*"}).status_code == 201
        assert api.get(f"{BUILD}/artifacts/b").content == b""
        problem(api.put(f"{BUILD}/artifacts/c", data=b"", headers={"If-None-Match": '"1"'}), 400, "Invalid")

    def test_a_build_that_runs_takes_files_and_what_a_task_publishes_comes_first(self, local: Stage) -> None:
        keep = {"name": "keep", "type": "publish-artifacts", "paths": ["report"]}
        local.ci.jobs.put(job("team/hello", shell("echo built > report"), keep))
        build = local.ci.builds.trigger("team/hello")
        api, _ = local.front_end()
        for name in ("early", "report"):
            assert api.put(f"{BUILD}/artifacts/{name}", data=b"put").status_code == 201
            assert api.get(f"{BUILD}/artifacts/{name}").content == b"put"
        local.start_workers()
        assert local.end(build).state == "passed"
        assert api.get(f"{BUILD}/artifacts/early").content == b"put"
        assert api.get(f"{BUILD}/artifacts/report").content == b"built\n"
        assert [item["name"] for item in api.all(f"{BUILD}/artifacts")] == ["early", "report"]
        paths = local.ci.artifacts.download(build, local.folder / "fetched")
        assert [path.read_bytes() for path in paths] == [b"put", b"built\n"]

    def test_bytes_that_are_not_those_of_the_digest_are_not_kept(self, local: Stage) -> None:
        api = begun(local)
        wrong = {"Content-Digest": digest_of(b"other")}
        detail = problem(api.put(f"{BUILD}/artifacts/a", data=b"one", headers=wrong), 422, "Invalid")["detail"]
        assert hashlib.sha256(b"one").hexdigest() in detail
        problem(api.put(f"{BUILD}/artifacts/a", data=b"one", headers={"Content-Digest": "sha-256=abc"}), 400, "Invalid")
        head = f"PUT /api/v1{BUILD}/artifacts/a HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {local.token}\r\n"
        raw(api.url, f"{head}Content-Length: 100\r\n\r\nhalf".encode(), hang_up=True)
        problem(api.get(f"{BUILD}/artifacts/a"), 404, "NoSuchArtifact")
        # The front end may not have seen yet that we have hung up.
        wait_until(lambda: local.ci.store.list(keys.uploads(BuildId("team/hello", 1))) == ())

    def test_of_two_at_once_one_wins_at_whichever_front_end(self, local: Stage) -> None:
        apis = [begun(local), local.front_end()[0]]
        offers = [(apis[number % 2], bytes([number]) * 100_000) for number in range(6)]

        def put(api: Api, data: bytes) -> int:
            # A session of its own for each.
            address = f"{api.url}/api/v1{BUILD}/artifacts/a"
            return requests.put(address, data=data, headers=api.authorization, timeout=30).status_code

        with ThreadPoolExecutor(len(offers)) as pool:
            statuses = [*pool.map(lambda offer: put(*offer), offers)]
        assert sorted(statuses) == [201] + [409] * 5
        assert apis[0].get(f"{BUILD}/artifacts/a").content == offers[statuses.index(201)][1]

    @pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "a/../../b", "%00", "a//b", "n" * 300])
    def test_a_name_that_no_file_can_have_is_refused_before_the_body_is_read(
        self, common: Stage, front: Api, name: str
    ) -> None:
        answer = raw(
            front.url,
            f"PUT /api/v1{BUILD}/artifacts/{name} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            f"Content-Length: 0\r\nAuthorization: Bearer {common.token}\r\n\r\n".encode(),
        )
        assert answer.split(b"\r\n")[0].split()[1] == b"422", answer
        assert b"path" in answer or b"name" in answer
        assert [artifact.name for artifact in common.ci.artifacts.list("team/hello#1")] == ["a/b"]

    def test_hostile_names_that_files_can_have_come_back_as_they_are(self, local: Stage) -> None:
        api = begun(local)
        names = [name for name in HOSTILE if "%0d" not in name]
        for name in names:
            answer = api.put(f"{BUILD}/artifacts/{quote(name, safe='/')}", data=name.encode())
            assert (answer.status_code, answer.json()["name"]) == (201, name)
        for name in names:
            assert api.get(f"{BUILD}/artifacts/{quote(name, safe='/')}").content == name.encode()

    def test_what_is_too_large_is_refused_whether_it_says_so_or_not(self, local: Stage) -> None:
        api = begun(local, DISTCI_ARTIFACT_SIZE_MAX="1MiB")
        address = f"{BUILD}/artifacts/a"
        pieces = (bytes(MIB // 2) for _ in range(3))
        for data in (bytes(MIB + 1), pieces):
            assert str(MIB) in problem(api.put(address, data=data), 413, "Invalid")["detail"]
        assert api.put(address, data=bytes(MIB)).status_code == 201

    def test_who_may_not_write_may_not_and_who_did_is_put_down(self, local: Stage) -> None:
        api = begun(local)
        made = local.ci.access.create_token("looks", [Action.READ, Action.TRIGGER]).text
        shown = {"Authorization": f"Bearer {made}"}
        problem(api.put(f"{BUILD}/artifacts/a", data=b"x", headers=shown), 403, "Forbidden")
        api.put(f"{BUILD}/artifacts/a", data=b"x")
        wait_until(lambda: [entry.what for entry in local.ci.audit.list()].count("artifact.put") == 1)
        [entry] = [entry for entry in local.ci.audit.list() if entry.what == "artifact.put"]
        assert (entry.target, entry.details["name"], entry.origin) == ("team/hello#1", "a", "127.0.0.1")
        assert entry.who.endswith("(tests)")

    def test_there_is_no_build_to_put_it_to(self, local: Stage) -> None:
        api = begun(local)
        problem(api.put("/jobs/team/hello/-/builds/9/artifacts/a", data=b"x"), 404, "NoSuchBuild")
        assert local.ci.store.list(keys.build(BuildId("team/hello", 9))) == ()

    @pytest.mark.timeout(240)
    def test_a_large_one_takes_little_memory_at_both_ends(self, local: Stage, tmp_path: Path) -> None:
        local.ci.jobs.put(job())
        local.ci.builds.trigger("team/hello")
        api, process = local.front_end()
        before = peak_bytes(process.pid)
        path = tmp_path / "large"
        with path.open("wb") as file:
            file.truncate(LARGE_BYTES)
        local.home.environment |= {"DISTCI_TOKEN": local.token}
        local.home.ask("artifact", "put", "--url", api.url, "team/hello#1", str(path))
        assert peak_bytes(process.pid) - before < LARGE_BYTES / 4
        [artifact] = local.ci.artifacts.list("team/hello#1")
        assert artifact.size_bytes == LARGE_BYTES


class TestDigests:
    def test_one_is_taken_from_either_header(self) -> None:
        wanted = hashlib.sha256(b"x").hexdigest()
        for name in ("content-digest", "repr-digest"):
            for value in (digest_of(b"x"), f"sha-512=:AAAA:, {digest_of(b'x')}", f"{digest_of(b'x')},sha-512=:AA==:"):
                assert told_sha256({name: value}) == wanted
        assert told_sha256({"content-digest": digest_of(b"x"), "repr-digest": digest_of(b"x")}) == wanted
        assert told_sha256({}) == told_sha256({"content-digest": "sha-512=:AAAA:"}) == ""

    @pytest.mark.parametrize(
        "value",
        ["x", "sha-256", "sha-256=AAAA", "sha-256=:AAAA:", "sha-256=:A:", "SHA-256=:AAAA:", f"{digest_of(b'x')};"],
    )
    def test_what_is_none_is_refused(self, value: str) -> None:
        with pytest.raises(BadRequest, match="write sha-256"):
            told_sha256({"content-digest": value})

    def test_two_of_the_same_bytes_are_refused(self) -> None:
        with pytest.raises(BadRequest, match="several"):
            told_sha256({"content-digest": digest_of(b"x"), "repr-digest": digest_of(b"y")})
