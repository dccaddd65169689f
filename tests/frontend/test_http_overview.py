"""Jobs beside their last builds."""

from __future__ import annotations

from typing import Any

from frontends import Stage, job


def test_jobs_are_listed_with_their_last_builds_the_newest_first(stage: Stage) -> None:
    api, _ = stage.front_end()
    stage.ci.jobs.put(job("team/hello"))
    stage.ci.jobs.put(job("team/lib"))
    builds = [stage.ci.builds.trigger("team/hello") for _ in range(3)]
    with stage.workers():
        for build in builds:
            stage.end(build)
    stage.ci.builds.trigger("team/hello")

    def states(**query: Any) -> Any:
        items = api.get("/overview", params=query).json()["items"]
        return {item["job"]: [(build["id"], build["state"]) for build in item["builds"]] for item in items}

    hello = [("team/hello#4", "planning")] + [(f"team/hello#{number}", "passed") for number in (3, 2, 1)]
    assert states() == {"team/hello": hello, "team/lib": []}
    assert states(builds=2, prefix="team/h") == {"team/hello": hello[:2]}

    # Those that are over are remembered, the one that is not is looked at again.
    with stage.workers():
        stage.end("team/hello#4")
    assert states(builds=1)["team/hello"] == [("team/hello#4", "passed")]


def test_jobs_are_found_by_any_part_of_their_ids_page_by_page(stage: Stage) -> None:
    api, _ = stage.front_end()
    for name in ("a/Hello", "b/other", "c/hello-page", "d/hello"):
        stage.ci.jobs.put(job(name))

    assert [item["job"] for item in api.all("/overview", text="HELLO", limit=1)] == [
        "a/Hello",
        "c/hello-page",
        "d/hello",
    ]


def test_who_has_the_overview_already_is_told_so(stage: Stage) -> None:
    api, _ = stage.front_end()
    stage.ci.jobs.put(job("team/hello"))
    etag = api.get("/overview").headers["ETag"]

    assert api.get("/overview", headers={"If-None-Match": etag}).status_code == 304
    stage.ci.builds.trigger("team/hello")
    assert api.get("/overview", headers={"If-None-Match": etag}).status_code == 200
