"""Jobs over HTTP: saved by compare-and-swap, read with their version, listed in pages."""

from __future__ import annotations

from pathlib import Path

import pytest
from frontends import Stage, job, problem, shell

from distci.access import Action
from distci.frontend.jobs import LOOKED_THROUGH_MAX
from distci.store import keys
from distci.store.directory import DirectoryStore


class TestChanging:
    def test_j01_a_job_is_saved_read_changed_and_deleted(self, stage: Stage) -> None:
        api, _ = stage.front_end()

        made = api.put("/jobs/team/hello", json=job(), params={"reason": "to say hello"})
        assert (made.status_code, made.headers["ETag"]) == (201, '"1"')
        changed = api.put("/jobs/team/hello", json=job(description="It says hello."), headers={"If-Match": '"1"'})
        assert (changed.status_code, changed.headers["ETag"]) == (200, '"2"')
        found = api.get("/jobs/team/hello")
        assert found.json() == changed.json() | {"reason": ""}
        assert stage.ci.jobs.get("team/hello").document["description"] == "It says hello."
        assert api.get("/jobs/team/hello", params={"version": 1}).json()["reason"] == "to say hello"
        assert [item["version"] for item in api.all("/jobs/team/hello/-/history", limit=1)] == [2, 1]
        assert "It says hello." in api.get("/jobs/team/hello/-/diff").json()["diff"]
        back = api.post("/jobs/team/hello/-/rollback", json={"version": 1})
        assert (back.json()["version"], back.json()["document"]) == (3, job())
        gone = api.delete("/jobs/team/hello", headers={"If-Match": '"3"'})
        assert gone.json() == {"job": "team/hello", "is_deleted": True}
        problem(api.get("/jobs/team/hello"), 404, "NoSuchJob")
        assert api.get("/jobs").json() == {"items": [], "next": None}

    def test_j01_a_change_of_what_is_not_in_force_any_more_is_refused(self, local: Stage) -> None:
        api, _ = local.front_end()
        for text in ("one", "two"):
            api.put("/jobs/team/hello", json=job(description=text))
        for tag in ('"1"', '"1", "7"', 'W/"2"', '"x"'):
            stale = api.put("/jobs/team/hello", json=job(description="three"), headers={"If-Match": tag})
            problem(stale, 412, "VersionConflict")
            problem(api.delete("/jobs/team/hello", headers={"If-Match": tag}), 412, "VersionConflict")
        problem(api.put("/jobs/team/hello", json=job(), headers={"If-None-Match": "*"}), 412, "VersionConflict")
        problem(api.put("/jobs/other", json=job("other"), headers={"If-Match": "*"}), 412, "VersionConflict")
        problem(api.put("/jobs/team/hello", json=job(), headers={"If-Match": "2"}), 400, "Invalid")
        assert local.ci.jobs.get("team/hello").version == 2

        assert api.put("/jobs/other", json=job("other"), headers={"If-None-Match": "*"}).status_code == 201
        assert api.put("/jobs/team/hello", json=job(), headers={"If-Match": '"1", "2"'}).status_code == 200

    def test_a_job_that_cannot_be_run_is_refused_with_all_that_is_wrong(self, local: Stage) -> None:
        api, _ = local.front_end()
        wrong = job("team/hello", {"name": "say", "type": "shell", "scirpt": "true"}, {"name": "say", "type": "shel"})
        for answer in (api.put("/jobs/team/hello", json=wrong), api.post("/lint", json=wrong)):
            told = problem(answer, 422, "InvalidJob")
            assert any("did you mean 'script'?" in text for text in told["problems"]), told
            assert any("did you mean 'shell'?" in text for text in told["problems"]), told
        assert problem(api.put("/jobs/team/other", json=job()), 422, "Invalid")["problems"]
        assert api.post("/lint", json=job()).json() == {"job": "team/hello", "warnings": []}
        assert list(local.ci.jobs.list()) == []

    def test_an_id_that_no_job_can_have_is_told_what_is_wrong_with_it(self, local: Stage) -> None:
        api, _ = local.front_end()
        assert "segment '.x'" in problem(api.get("/jobs/team/.x"), 422, "Invalid")["detail"]
        assert "5 segments" in problem(api.get("/jobs/a/b/c/d/e"), 422, "Invalid")["detail"]

    def test_slashes_of_an_id_may_be_escaped(self, local: Stage) -> None:
        api, _ = local.front_end()
        api.put("/jobs/team%2Fhello", json=job())
        assert api.get("/jobs/team/hello").json()["job"] == "team/hello"
        assert api.get("/jobs/team%2Fhello/-/builds").json()["items"] == []


class TestListing:
    def test_each_job_is_on_one_page_and_links_lead_on(self, local: Stage) -> None:
        names = [*sorted(f"team/job-{number}" for number in range(25)), "teams"]
        for name in names:
            local.ci.jobs.put(job(name, shell("true")))
        api, _ = local.front_end()
        assert [item["job"] for item in api.all("/jobs", limit=10)] == names
        assert [item["job"] for item in api.all("/jobs", limit=7, prefix="team/")] == names[:-1]

        first = api.get("/jobs", params={"limit": 10, "prefix": "team/"})
        second = api.get(f"/jobs{first.links['next']['url']}")
        assert [item["job"] for item in second.json()["items"]] == names[10:20]
        assert "Link" not in api.get("/jobs", params={"limit": 26}).headers


def test_jobs_are_listed_by_tag_and_by_any_part_of_their_ids(local: Stage) -> None:
    api, _ = local.front_end()
    for name, tags in (("a/one", ["nightly", "web"]), ("b/two", ["web"]), ("c/one", [])):
        local.ci.jobs.put(job(name, tags=tags))
    local.ci.jobs.put(job("b/two", tags=["slow"]))
    local.ci.jobs.put(job("d/gone", tags=["web"]))
    local.ci.jobs.delete("d/gone")

    def named(**query: str) -> list[str]:
        return [item["job"] for item in api.all("/jobs", **query)]

    assert (named(tag="web"), named(tag="slow"), named(tag="none")) == (["a/one"], ["b/two"], [])
    assert (named(text="ONE", limit="1"), named(text="one", tag="nightly", prefix="a/")) == (
        ["a/one", "c/one"],
        ["a/one"],
    )
    assert [item["job"] for item in api.all("/overview", tag="web")] == ["a/one"]
    problem(api.get("/jobs", params={"tag": "a b"}), 400, "Invalid")


@pytest.mark.parametrize("path", ["/jobs", "/overview"])
def test_one_request_looks_through_so_many_jobs_and_says_where_it_got_to(local: Stage, path: str) -> None:
    # Given more jobs than one request looks through, the one that is wanted behind them all, and some that who asks may not read
    names = [f"team/job-{number:05}" for number in range(LOOKED_THROUGH_MAX + 2)]
    store = DirectoryStore(Path(local.ci.settings.store_address.path), durable=False)
    for name in ("hidden/one", *names, "team/wanted", "zzz/wanted"):
        store.put(keys.job_marker(name), b"")
    api, _ = local.front_end()
    team = {"Authorization": f"Bearer {local.ci.access.create_token('team', [Action.READ], project='team').text}"}
    # When it is looked for
    first = api.get(path, params={"text": "WANTED"}, headers=team).json()
    second = api.get(path, params={"text": "WANTED", "cursor": first["next"]}, headers=team).json()
    # Then the first page ends after so many of those that may be read, and the next one goes on there
    assert (first["items"], first["next"]) == ([], names[LOOKED_THROUGH_MAX - 1])
    assert ([item["job"] for item in second["items"]], second["next"]) == (["team/wanted"], None)


@pytest.mark.parametrize(
    ("method", "path", "meant"),
    [
        ("GET", "/jobs/team/hello/builds/1", "/api/v1/jobs/team/hello/-/builds/1"),
        ("GET", "/jobs/x/builds/1/tasks/test/log", "/api/v1/jobs/x/-/builds/1/tasks/test/log"),
        ("POST", "/jobs/team/hello/builds", "/api/v1/jobs/team/hello/-/builds"),
    ],
)
def test_a_path_without_what_ends_the_job_is_told_with_it(local: Stage, method: str, path: str, meant: str) -> None:
    api, _ = local.front_end()
    answer = api.call(method, path)
    assert answer.status_code in (400, 404, 405, 422)
    assert f"did you mean {meant}?" in answer.json()["detail"]
