"""Every error is one shape; nothing that is sent makes anything else of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests
from frontends import BUILD, Api, Stage, job, problem, raw

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def api(common: Stage) -> Api:
    front_end, _ = common.front_end()
    return front_end


class TestNobodysPaths:
    def test_what_is_not_there(self, api: Api) -> None:
        for path in (
            "//api/v1",
            "//api/v1/nonsense",
            "/jobs/a/-/nonsense",
            "/jobs/",
            "//favicon.ico",
            "/jobs/a/-/",
        ):
            problem(api.get(path), 404, "Missing")
        problem(api.get("/jobs/a/-/builds/0"), 404, "Missing")
        problem(api.get("/jobs/a/-/builds/1x"), 404, "Missing")

    def test_bytes_that_are_no_utf_8_are_no_name_and_so_no_two_names_are_one(self, api: Api) -> None:
        for path in (f"{BUILD}/artifacts/a%ff", "/jobs/a%FF", "/jobs/%C3"):
            for method in ("GET", "PUT"):
                assert "not UTF-8" in problem(api.call(method, path, data=b"x"), 400, "Invalid")["detail"]
        problem(api.get(f"{BUILD}/artifacts/%EF%BF%BD"), 404, "NoSuchBuild")

    def test_people_are_told_by_the_page(self, api: Api) -> None:
        html = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
        for path, is_page in (("/nonsense", True), ("/login/cut", True), ("/api/v1/nonsense", False)):
            answer = requests.get(api.url + path, headers=html, timeout=10)
            assert answer.status_code == 404
            assert answer.headers["Content-Type"].startswith("text/html") == is_page
            assert ("default-src 'none'" in answer.headers.get("Content-Security-Policy", "")) == is_page

    def test_a_method_that_a_path_does_not_take_is_told_which_it_takes(self, api: Api) -> None:
        answer = api.call("PATCH", "/jobs/team/hello")
        assert "takes no PATCH, but " in problem(answer, 405, "Invalid")["detail"]
        assert sorted(answer.headers["Allow"].split(", ")) == ["DELETE", "GET", "HEAD", "PUT"]
        problem(api.post(f"{BUILD}"), 405, "Invalid")


class TestQueries:
    @pytest.mark.parametrize(
        ("query", "told"),
        [
            ("limti=3", "did you mean 'limit'?"),
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("limit=x", "limit"),
            ("limit=1&limit=2", "is there twice"),
            ("limit=%C2%B2", "limit"),
            ("cursor=", "cursor"),
            ("prefix=" + "x" * 200, "prefix"),
        ],
    )
    def test_all_that_is_wrong_is_named(self, api: Api, query: str, told: str) -> None:
        assert any(told in text for text in problem(api.get(f"/jobs?{query}"), 400, "Invalid")["problems"])


class TestBodies:
    def test_what_is_no_json_or_not_described(self, local: Stage) -> None:
        api, _ = local.front_end()
        put = "/jobs/team/hello"
        text = json.dumps(job()).encode()
        problem(api.put(put, data=b"{", headers=JSON), 400, "Invalid")
        problem(api.put(put, data=b'{"job": "a", "job": "b"}', headers=JSON), 400, "Invalid")
        problem(api.put(put, data=b"\xff\xfe", headers=JSON), 400, "Invalid")
        problem(api.put(put, data=b"[" * 100_000, headers=JSON), 400, "Invalid")
        problem(api.put(put, data=b'{"job": NaN}', headers=JSON), 400, "Invalid")
        problem(api.put(put, data=b"", headers=JSON), 400, "Invalid")
        problem(api.put(put, data=b"[]", headers=JSON), 422, "Invalid")
        problem(api.put(put, data=text, headers={"Content-Type": "text/plain"}), 415, "Invalid")
        problem(api.put(put, data=text), 415, "Invalid")
        assert api.put(put, data=text, headers={"Content-Type": "Application/JSON; charset=utf-8"}).status_code == 201

    def test_what_is_too_large_is_refused_whether_or_not_it_says_so(self, api: Api) -> None:
        large = b" " * (4 * 1024 * 1024 + 1)

        def pieces() -> Any:
            for _ in range(80):
                yield b" " * 65536

        problem(api.put("/jobs/team/hello", data=large, headers=JSON), 413, "Invalid")
        problem(api.put("/jobs/team/hello", data=pieces(), headers=JSON), 413, "Invalid")
        problem(api.call("GET", "/jobs", data=b"x"), 413, "Invalid")
        assert api.get("/jobs").status_code == 200

    def test_a_body_that_is_cut_off_changes_nothing(self, common: Stage, api: Api) -> None:
        head = b"PUT /api/v1/jobs/team/hello HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        head += f"Authorization: Bearer {common.token}\r\n".encode()
        raw(api.url, head + b"Content-Length: 1000\r\n\r\n" + json.dumps(job()).encode(), hang_up=True)
        assert list(common.ci.jobs.list()) == []
        assert api.get("/jobs").status_code == 200

    @pytest.mark.parametrize(
        "data",
        [b"\0\0\0\0\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 200_000 + b"\r\n\r\n"],
        ids=["zeros", "no request", "huge header"],
    )
    def test_what_is_no_http_harms_nobody_else(self, api: Api, data: bytes) -> None:
        assert b" 200 " not in raw(api.url, data).split(b"\r\n")[0]
        assert api.get("/jobs").status_code == 200


class TestPagesOfOthers:
    def test_a_name_of_others_that_points_here_is_not_answered(self, api: Api) -> None:
        for host in (
            "evil.example.org",
            "127.0.0.1.evil.example.org",
            "localhost.evil.example.org",
            "",
            "127.0.0.1@evil.org",
        ):
            answer = api.get("/jobs", headers={"Host": host})
            problem(answer, 421, "Invalid")
        assert api.get("/jobs", headers={"Host": "localhost:1"}).status_code == 200
        assert api.get("/jobs", headers={"Host": "[::1]:80"}).status_code == 200

    def test_a_page_from_elsewhere_may_change_nothing(self, local: Stage) -> None:
        api, _ = local.front_end()
        api.put("/jobs/team/hello", json=job())
        for origin in ("https://evil.example.org", "null", "http://127.0.0.1:1"):
            problem(api.post("/jobs/team/hello/-/builds", headers={"Origin": origin}), 403, "Forbidden")
        assert local.ci.builds.last_number("team/hello") == 0
        assert api.post("/jobs/team/hello/-/builds", headers={"Origin": api.url}).status_code == 201
