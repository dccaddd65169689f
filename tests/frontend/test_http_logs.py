"""Logs over HTTP: any bytes as they were printed, last lines, lines by number, lines that hold some text."""

from __future__ import annotations

import random

import pytest
from frontends import BUILD, Stage, job, problem, shell
from waiting import wait_until

LOG = f"{BUILD}/tasks/say/log"
LINES = [f"line {number} of a log that goes on" for number in range(1, 12_346)]


def printed(stage: Stage, data: bytes) -> None:
    """Have a build whose task has printed these bytes, and ended."""
    (stage.folder / "printed").write_bytes(data)
    stage.start_workers()
    stage.ci.jobs.put(job("team/hello", shell(f"cat {stage.folder}/printed")))
    stage.end(stage.ci.builds.trigger("team/hello"))


class TestBytes:
    def test_o01_a_log_is_what_was_printed_in_whole_and_in_parts(self, stage: Stage) -> None:
        data = random.Random(7).randbytes(3_000_000)
        printed(stage, data)
        api, _ = stage.front_end()

        whole = api.get(LOG)
        assert (whole.status_code, whole.content) == (200, data)
        assert whole.headers["DistCI-Log-Complete"] == "true"
        assert whole.headers["Content-Type"] == "text/plain; charset=utf-8"
        for header, wanted in (
            ("bytes=0-0", data[:1]),
            ("bytes=1048575-1048576", data[1048575:1048577]),
            ("bytes=2999990-", data[-10:]),
            ("bytes=-7", data[-7:]),
            ("bytes=-9999999", data),
            ("bytes=5-99999999", data[5:]),
        ):
            part = api.get(LOG, headers={"Range": header})
            assert (part.status_code, part.content) == (206, wanted), header
            first = len(data) - len(wanted) if not header.startswith("bytes=1048575") else 1048575
            first = 0 if header == "bytes=0-0" else first
            assert part.headers["Content-Range"] == f"bytes {first}-{first + len(wanted) - 1}/{len(data)}"
        for header in ("bytes=3000000-", "bytes=-0"):
            beyond = api.get(LOG, headers={"Range": header})
            assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, "bytes */3000000")
        for header in ("lines=1-2", "bytes=2-1", "bytes=a-b", "bytes=0-1,5-6"):
            assert api.get(LOG, headers={"Range": header}).content == data

    def test_who_has_it_gets_nothing(self, local: Stage) -> None:
        printed(local, b"hello\n")
        api, _ = local.front_end()
        tag = api.get(LOG).headers["ETag"]
        again = api.get(LOG, headers={"If-None-Match": tag})
        assert (again.status_code, again.content) == (304, b"")
        assert api.get(LOG, headers={"Range": "bytes=1-1", "If-Range": tag}).content == b"e"
        assert api.get(LOG, headers={"Range": "bytes=1-1", "If-Range": '"x"'}).content == b"hello\n"
        assert api.call("HEAD", LOG).headers["Content-Length"] == "6"

    def test_a_task_that_has_not_begun_has_printed_nothing(self, local: Stage) -> None:
        local.start_workers()
        local.ci.jobs.put(job("team/hello", shell("sleep 60", "a"), shell("true", "say")))
        build = local.ci.builds.trigger("team/hello")
        wait_until(lambda: local.ci.builds.get(build).state == "running")
        api, _ = local.front_end()
        empty = api.get(LOG)
        assert (empty.status_code, empty.content, empty.headers["DistCI-Log-Complete"]) == (200, b"", "false")
        none: dict[str, object] = {"items": [], "next": None, "lines": 0, "is_complete": False, "attempt": ""}
        assert api.get(f"{LOG}/lines").json() == none
        problem(api.get(LOG, params={"attempt": "x.1"}), 404, "NoSuchTask")
        problem(api.get(f"{BUILD}/tasks/other/log"), 404, "NoSuchTask")
        local.ci.builds.cancel(build)
        local.end(build)


class TestLines:
    @pytest.mark.parametrize("end", ["\n", ""], ids=["ended", "open"])
    def test_lines_are_found_by_number_and_from_the_end(self, local: Stage, end: str) -> None:
        text = "\n".join(LINES) + end
        printed(local, text.encode())
        api, _ = local.front_end()

        some = api.get(f"{LOG}/lines", params={"first": 9_999, "limit": 3}).json()
        assert [(item["line"], item["text"]) for item in some["items"]] == [
            (number, LINES[number - 1]) for number in (9_999, 10_000, 10_001)
        ]
        assert some["lines"] == len(LINES)
        for item in some["items"]:
            assert text[item["offset"] :].startswith(f"{item['text']}\n")
        assert [item["text"] for item in api.all(f"{LOG}/lines", limit=1000)] == LINES
        assert api.get(f"{LOG}/lines", params={"first": 20_000}).json()["items"] == []
        for count in (1, 2, 500, 50_000):
            tail = api.get(LOG, params={"tail": count})
            assert tail.text == "\n".join(LINES[-count:]) + end, count
            assert int(tail.headers["DistCI-Log-Offset"]) == len(text) - len(tail.text)
        part = api.get(LOG, params={"tail": 2}, headers={"Range": "bytes=0-9"})
        assert part.text == LINES[-2][:10]

    def test_lines_that_hold_a_text_are_found_in_pages(self, local: Stage) -> None:
        printed(local, "".join(f"{line}\n" for line in LINES).encode())
        api, _ = local.front_end()
        found = api.all(f"{LOG}/search", text="e 12", limit=100)
        assert [item["text"] for item in found] == [line for line in LINES if "e 12" in line]
        assert [item["line"] for item in found][:3] == [12, 120, 121]
        assert api.all(f"{LOG}/search", text="LINE 77 ", ignore_case="true")[0]["line"] == 77
        assert api.all(f"{LOG}/search", text="LINE 77 ") == []
        begins = [number for number, line in enumerate(LINES, 1) if line.startswith("line 7")]
        assert [item["line"] for item in api.all(f"{LOG}/search", text="line 7", at_start="true", limit=100)] == begins
        assert api.all(f"{LOG}/search", text="ine 7", at_start="true") == []
        assert api.all(f"{LOG}/search", text="LINE 77 ", at_start="true", ignore_case="true")[0]["line"] == 77
        problem(api.get(f"{LOG}/search"), 400, "Invalid")
        problem(api.get(f"{LOG}/search", params={"text": "x", "cursor": "x"}), 400, "Invalid")

    def test_bytes_that_are_no_text_and_lines_without_an_end_do_no_harm(self, local: Stage) -> None:
        printed(local, b"\xff\xfe ok\r\n" + b"x" * 5_000_000 + b"needle" + b"\nlast\0line")
        api, _ = local.front_end()
        lines = api.get(f"{LOG}/lines").json()
        assert [item["line"] for item in lines["items"]] == [1, 2, 3]
        assert lines["items"][0]["text"] == "\N{REPLACEMENT CHARACTER}" * 2 + " ok"
        assert len(lines["items"][1]["text"]) == 16 * 1024
        assert lines["items"][2]["text"] == "last\0line"
        assert [item["line"] for item in api.all(f"{LOG}/search", text="needle")] == [2]
        assert [item["line"] for item in api.all(f"{LOG}/search", text="xx", at_start="true")] == [2]
        assert api.get(LOG, params={"tail": 1}).content == b"last\0line"


def test_o02_a_log_grows_while_its_task_runs(stage: Stage) -> None:
    stage.start_workers()
    api, _ = stage.front_end()
    go = stage.folder / "go"
    api.put(
        "/jobs/team/hello",
        json=job("team/hello", shell(f"echo one; until test -e {go}; do sleep 0.05; done; echo two")),
    )
    api.post("/jobs/team/hello/-/builds")
    wait_until(lambda: stage.ci.builds.get("team/hello#1").state == "running")
    wait_until(lambda: api.get(LOG).content == b"one\n")
    running = api.get(LOG)
    assert running.headers["DistCI-Log-Complete"] == "false"
    assert api.get(LOG, headers={"Range": "bytes=4-"}).status_code == 416
    assert api.get(f"{LOG}/lines").json()["lines"] == 1
    go.touch()
    stage.end("team/hello#1")
    rest = api.get(LOG, headers={"Range": "bytes=4-"})
    assert (rest.content, rest.headers["DistCI-Log-Complete"]) == (b"two\n", "true")
    assert api.get(LOG).headers["ETag"] != running.headers["ETag"]
    assert api.get(f"{LOG}/lines").json()["lines"] == 2
