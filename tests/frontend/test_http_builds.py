"""Builds over HTTP: started once for each cause, listed each once, cancelled, run again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from frontends import BUILD, Api, Stage, job, problem, shell

from distci.frontend.builds import LOOKED_THROUGH_MAX
from distci.model import BuildId, Trigger
from distci.store import keys
from distci.views import to_json

BUILDS = "/jobs/team/hello/-/builds"
AT_ONCE = 100


class TestStarting:
    def test_a_build_runs_to_its_end(self, stage: Stage) -> None:
        stage.start_workers()
        api, _ = stage.front_end()
        api.put("/jobs/team/hello", json=job(parameters={"NAME": {"default": "world"}}))

        started = api.post(
            BUILDS, json={"parameters": {"NAME": "reader"}, "commit": "4f2a9c1e", "ref": "refs/heads/main"}
        )
        assert started.headers["Location"] == f"/api/v1{BUILD}"
        assert started.json() == {"id": "team/hello#1"}
        view = stage.end("team/hello#1")

        shown = api.get(BUILD).json()
        assert shown == to_json(view)
        assert shown["trigger"]["parameters"] == {"NAME": "reader"}
        assert (shown["trigger"]["commit"], shown["trigger"]["ref"]) == ("4f2a9c1e", "refs/heads/main")
        assert shown["state"] == "passed"
        assert api.get(f"{BUILD}/tasks/say").json() == shown["tasks"][0]
        assert api.all(f"{BUILD}/tasks") == shown["tasks"]
        assert api.get(f"{BUILD}/why").json()["items"][0]["because"] == "all that had to passed"
        problem(api.get(f"{BUILD}/tasks/other"), 404, "NoSuchTask")
        problem(api.get("/jobs/team/hello/-/builds/2"), 404, "NoSuchBuild")

    def test_j03_a_hundred_at_once_are_a_hundred_builds(self, stage: Stage) -> None:
        apis = [stage.front_end()[0] for _ in range(2)]
        apis[0].put("/jobs/team/hello", json=job())

        def start(number: int) -> str:
            started = Api.post(apis[number % 2], BUILDS)
            assert started.status_code == 201, started.text
            return str(started.json()["id"])

        with ThreadPoolExecutor(AT_ONCE) as pool:
            numbers = sorted(BuildId.parse(text).number for text in pool.map(start, range(AT_ONCE)))

        assert numbers == list(range(1, AT_ONCE + 1))

    def test_a_hundred_at_once_with_one_key_are_one_build(self, stage: Stage) -> None:
        apis = [stage.front_end()[0] for _ in range(2)]
        apis[0].put("/jobs/team/hello", json=job())

        def start(number: int) -> tuple[int, str]:
            started = apis[number % 2].post(BUILDS, headers={"Idempotency-Key": "delivery 17"})
            return started.status_code, started.headers["Location"]

        with ThreadPoolExecutor(AT_ONCE) as pool:
            assert set(pool.map(start, range(AT_ONCE))) == {(201, f"/api/v1{BUILD}")}
        assert stage.ci.builds.last_number("team/hello") == 1

    def test_what_cannot_be_started_is_told_why(self, local: Stage) -> None:
        api, _ = local.front_end()
        problem(api.post(BUILDS), 404, "NoSuchJob")
        api.put("/jobs/team/hello", json=job(parameters={"LEVEL": {"default": "a", "choices": ["a", "b"]}}))
        told = problem(api.post(BUILDS, json={"parameters": {"LEVEL": "c"}}), 422, "InvalidJob")
        assert told["problems"]
        told = problem(api.post(BUILDS, json={"parameter": {}}), 422, "Invalid")
        assert "did you mean 'parameters'?" in told["problems"][0]
        problem(api.post(BUILDS, headers={"Idempotency-Key": "x" * 300}), 400, "Invalid")
        assert api.get(BUILDS).json() == {"items": [], "next": None}
        problem(api.get("/jobs/other/-/builds"), 404, "NoSuchJob")


class TestGoingOn:
    def test_a_build_is_cancelled(self, stage: Stage) -> None:
        api, _ = stage.front_end()
        api.put("/jobs/team/hello", json=job())
        api.post(BUILDS)
        shown = api.post(f"{BUILD}/cancel", json={"reason": "wrong branch"}).json()
        assert shown["state"] in ("cancelling", "cancelled")
        assert shown["reason"] == "wrong branch"
        stage.start_workers()
        assert stage.end("team/hello#1").state == "cancelled"
        assert "nothing to cancel" in problem(api.post(f"{BUILD}/cancel"), 422, "IllegalTransition")["detail"]

    def test_r11_a_build_runs_again_as_a_whole_or_where_it_failed(self, stage: Stage) -> None:
        stage.start_workers()
        api, _ = stage.front_end()
        api.put("/jobs/team/hello", json=job("team/hello", shell("true", "a"), shell("false", "b")))
        api.post(BUILDS)
        stage.end("team/hello#1")

        assert api.post(f"{BUILD}/retry").headers["Location"] == f"/api/v1{BUILDS}/2"
        failed = api.post(f"{BUILD}/retry", json={"only_failed": True}).json()
        assert failed == {"id": "team/hello#3"}
        stage.end("team/hello#3")
        shown = api.get(f"{BUILDS}/3").json()
        assert {task["name"]: task["state"] for task in shown["tasks"]} == {"a": "reused", "b": "failed"}
        assert shown["trigger"]["retry_of"] == "team/hello#1"


class TestListing:
    @pytest.mark.parametrize("limit", [50, 200])
    def test_s02_each_of_a_thousand_builds_is_on_one_page(self, local: Stage, limit: int) -> None:
        count = 1000
        local.ci.jobs.put(job())
        version = local.ci.jobs.get("team/hello")
        for _ in range(count):
            local.ci.lifecycle.create(version, Trigger())
        api, _ = local.front_end()

        found = [BuildId.parse(item["id"]).number for item in api.all(BUILDS, limit=limit)]

        assert found == list(range(count, 0, -1))

    def test_builds_that_come_meanwhile_are_on_no_later_page(self, local: Stage) -> None:
        api, _ = local.front_end()
        api.put("/jobs/team/hello", json=job())
        for _ in range(4):
            api.post(BUILDS)
        first = api.get(BUILDS, params={"limit": 2}).json()
        api.post(BUILDS)
        second = api.get(BUILDS, params={"limit": 2, "cursor": first["next"]}).json()
        assert [item["id"][-1] for item in first["items"] + second["items"]] == ["4", "3", "2", "1"]
        assert second["next"] is None


def test_a_record_that_cannot_be_read_is_no_fault_of_who_asks(local: Stage) -> None:
    api, _ = local.front_end()
    api.put("/jobs/team/hello", json=job())
    local.ci.store.put(keys.build_record(BuildId("team/hello", 7)), b"{")
    problem(api.get("/jobs/team/hello/-/builds/7"), 500, "InvalidDocument")


class TestSearching:
    def test_builds_are_found_by_what_is_known_of_them_page_by_page(self, local: Stage) -> None:
        api, _ = local.front_end()
        local.ci.jobs.put(job())
        for number in range(1, 8):
            ref = "refs/heads/main" if number % 2 else "refs/heads/Fix"
            local.ci.builds.trigger("team/hello", actor=f"ada-{number}", ref=ref, commit=f"{number}" * 40)

        def found(text: str) -> list[str]:
            return [item["id"].partition("#")[2] for item in api.all(BUILDS, text=text, limit=2)]

        assert found("heads/MAIN") == ["7", "5", "3", "1"]
        assert found("fix") == ["6", "4", "2"]
        assert found("ada-3") == ["3"]
        assert found("5555") == ["5"]
        assert found("#6") == ["6"]
        assert found("planning") == ["7", "6", "5", "4", "3", "2", "1"]
        assert found("nothing of it") == []

    def test_one_request_reads_so_many_builds_and_no_more(self, local: Stage) -> None:
        api, _ = local.front_end()
        local.ci.jobs.put(job())
        for number in range(LOOKED_THROUGH_MAX + 5):
            local.ci.builds.trigger("team/hello", ref="first" if number < 3 else "")
        page = api.get(BUILDS, params={"text": "first"}).json()
        assert (page["items"], page["next"]) == ([], "6")
        assert [item["id"] for item in api.all(BUILDS, text="first")] == [
            "team/hello#3",
            "team/hello#2",
            "team/hello#1",
        ]
