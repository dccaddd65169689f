"""How a job's last build ended, as a picture."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest
import requests
from frontends import Api, Stage, job, problem, shell

from distci.access import Visibility
from distci.frontend.badges import GREEN, GREY, RED

TIME_MAX_S = 30


def seen(api: Api, name: str = "team/hello", **query: Any) -> tuple[list[str], str]:
    """The texts of a badge, and the colour of the last."""
    answer = api.get(f"/jobs/{name}/-/badge.svg", params=query)
    assert answer.status_code == 200
    root = ElementTree.fromstring(answer.content)
    texts = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    [_, _, coloured] = root.iter("{http://www.w3.org/2000/svg}rect")
    assert root.attrib["aria-label"] == ": ".join(texts)
    return texts, coloured.attrib["fill"]


def test_it_has_the_colour_of_the_last_result(stage: Stage) -> None:
    api, _ = stage.front_end()
    stage.ci.jobs.put(job("team/hello", shell("exit $CODE"), parameters={"CODE": {"default": "0"}}))
    assert seen(api) == (["team/hello", "not built"], GREY)
    with stage.workers():
        stage.end(stage.ci.builds.trigger("team/hello"))
        assert seen(api) == (["team/hello", "passed"], GREEN)
        stage.end(stage.ci.builds.trigger("team/hello", {"CODE": "1"}))
        assert seen(api) == (["team/hello", "failed"], RED)
    # One that runs has none yet: the last that there was counts.
    waiting = stage.ci.builds.trigger("team/hello")
    assert seen(api) == (["team/hello", "failed"], RED)
    stage.ci.builds.cancel(waiting)
    with stage.workers():
        stage.end(waiting)
    assert seen(api) == (["team/hello", "cancelled"], GREY)


def test_who_has_it_already_is_told_so_and_caches_must_ask(local: Stage) -> None:
    api, _ = local.front_end()
    local.ci.jobs.put(job())
    first = api.get("/jobs/team/hello/-/badge.svg")
    assert first.headers["Cache-Control"] == "no-cache"
    again = api.get("/jobs/team/hello/-/badge.svg", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    with local.workers():
        local.end(local.ci.builds.trigger("team/hello"))
    assert api.get("/jobs/team/hello/-/badge.svg", headers={"If-None-Match": first.headers["ETag"]}).status_code == 200


@pytest.fixture(scope="module")
def built_never(common: Stage) -> Api:
    """A front end of a system with a job."""
    common.ci.jobs.put(job())
    api, _ = common.front_end()
    return api


@pytest.mark.parametrize(
    "label", ["<script>alert(1)</script>", "\"' onload='alert(1)", "]]>&amp;<!--", "\x00\x1b[31m\u202e", "Ünï ✓"]
)
def test_whatever_it_shall_say_is_text(built_never: Api, label: str) -> None:
    api = built_never
    [says, _], _ = seen(api, label=label)
    assert says == "".join(letter if letter.isprintable() else "\ufffd" for letter in label)
    answer = api.get("/jobs/team/hello/-/badge.svg", params={"label": label})
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_one_of_a_job_that_somebody_may_not_see_is_as_of_none(local: Stage) -> None:
    api, _ = local.front_end()
    local.ci.access.set_visibility("open", Visibility.PUBLIC)
    local.ci.access.set_visibility("open/secret", Visibility.PRIVATE)
    for name in ("open/hello", "open/secret/hello", "team/hello"):
        local.ci.jobs.put(job(name))

    def told(name: str) -> tuple[int, str]:
        answer = requests.get(f"{api.url}/api/v1/jobs/{name}/-/badge.svg", timeout=TIME_MAX_S)
        return answer.status_code, answer.text.replace(name, "JOB")

    assert told("open/hello")[0] == 200
    assert told("open/secret/hello") == told("open/nobody/hello")
    assert told("team/hello") == told("team/nobody")
    assert told("team/hello")[0] == 401
    problem(api.get("/jobs/team/nobody/-/badge.svg"), 404, "NoSuchJob")


def test_it_may_be_of_one_branch_alone(local: Stage) -> None:
    api, _ = local.front_end()
    local.ci.jobs.put(job("team/hello", shell("exit $CODE"), parameters={"CODE": {"default": "0"}}))
    with local.workers():
        local.end(local.ci.builds.trigger("team/hello", ref="refs/heads/main"))
        local.end(local.ci.builds.trigger("team/hello", {"CODE": "1"}, ref="refs/heads/next"))
    assert seen(api) == (["team/hello", "failed"], RED)
    assert seen(api, ref="main") == seen(api, ref="refs/heads/main") == (["team/hello", "passed"], GREEN)
    assert seen(api, ref="other") == (["team/hello", "not built"], GREY)
