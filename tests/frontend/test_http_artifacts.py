"""Artifacts over HTTP: files to keep, whatever is in them or in their names."""

from __future__ import annotations

import hashlib
from urllib.parse import quote

import pytest
from frontends import BUILD, Stage, job, problem, raw, shell

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
    def test_a_name_that_is_none_leads_nowhere(self, local: Stage, name: str) -> None:
        published(local, {"a/b": b"x"})
        api, _ = local.front_end()
        # As it is: a client would tidy the path up before it asks.
        answer = raw(
            api.url,
            f"GET /api/v1{BUILD}/artifacts/{name} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            f"Authorization: Bearer {local.token}\r\n\r\n".encode(),
        )
        assert answer.split(b"\r\n")[0].split()[1] in (b"404", b"422"), answer

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
