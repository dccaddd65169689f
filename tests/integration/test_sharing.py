"""Which jobs' builds the builds of another job may use: copy what they published, and follow on their end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distci.access import Action, Role, Visibility
from distci.app import DistCI, connect
from distci.errors import InvalidJob, NoSuchJob, StoreUnavailable
from distci.model import TaskState

USER, USED = "app/web/build", "ops/tools/lib"
SAID: Mapping[str, Any] = {"name": "say", "type": "shell", "script": "true"}


def job(name: str, *tasks: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"job": name, "tasks": [*tasks] or [SAID], **more}


@pytest.fixture
def ci(tmp_path: Path) -> Any:
    with connect(tmp_path / "data") as system:
        yield system


def may(ci: DistCI, user: str, used: str) -> bool:
    try:
        ci.lifecycle.check_use(user, used)
    except NoSuchJob:
        return False
    return True


@pytest.mark.parametrize(
    ("user", "used", "expected"),
    [
        ("app/web", "app/lib", True),
        ("app/web", "app/deep/er/lib", True),
        ("app/web/build", "app/lib", False),
        ("app/web", "apple/lib", False),
        ("app/web", "lib", False),
        ("web", "lib", True),
        ("web", "ops/lib", False),
        ("web", "web/lib", True),
        ("app/web", "app/web", True),
    ],
)
def test_of_another_project_nothing_and_of_ones_own_all(ci: DistCI, user: str, used: str, expected: bool) -> None:
    ci.jobs.put(job(used))
    assert may(ci, user, used) is expected


@pytest.mark.parametrize(
    ("shared_with", "expected"),
    [
        (["app"], True),
        (["app/web"], True),
        ([USER], True),
        (["other", "app/web"], True),
        (["app/we"], False),
        (["other"], False),
        ([], False),
    ],
)
def test_a_job_says_with_which_projects_it_is_shared(ci: DistCI, shared_with: list[str], expected: bool) -> None:
    ci.jobs.put(job(USED, shared_with=shared_with))
    assert may(ci, USER, USED) is expected


def test_what_a_version_that_is_not_in_force_shared_is_shared_no_more(ci: DistCI) -> None:
    ci.jobs.put(job(USED, shared_with=["app"]))
    assert may(ci, USER, USED)
    ci.jobs.put(job(USED))
    assert not may(ci, USER, USED)
    ci.jobs.rollback(USED, 1)
    ci.jobs.delete(USED)
    assert not may(ci, USER, USED)


@pytest.mark.parametrize(
    ("visibility", "expected"),
    [(Visibility.PRIVATE, False), (Visibility.INTERNAL, True), (Visibility.PUBLIC, True)],
)
def test_what_all_who_log_in_see_may_be_used(ci: DistCI, visibility: Visibility, expected: bool) -> None:
    ci.jobs.put(job(USED))
    ci.access.set_visibility("ops", Visibility.PUBLIC)
    ci.access.set_visibility("ops/tools", visibility)
    assert may(ci, USER, USED) is expected


@pytest.mark.parametrize(("role", "expected"), [(Role.RUNNER, True), (Role.EDITOR, False), (Role.OWNER, False)])
def test_who_may_change_one_job_alone_gets_nothing_else_of_its_project(ci: DistCI, role: Role, expected: bool) -> None:
    ci.access.grant("bob@example.org", role, "app/web")
    assert may(ci, "app/web", "app/lib") is expected
    assert may(ci, "app/web", "app/web/lib")


def test_so_does_a_token_and_a_role_that_the_settings_give(ci: DistCI) -> None:
    ci.access.create_token("look", [Action.READ], project="app/web")
    assert may(ci, "app/web", "app/lib")
    ci.access.create_token("change", [Action.WRITE], project="app/web")
    assert not may(ci, "app/web", "app/lib")
    assert may(ci, "app/api", "app/lib")
    told = replace(ci.settings, oidc_roles="bob@example.org=editor@app/api")
    with connect(settings=told) as same:
        assert not may(same, "app/api", "app/lib")


def test_nobody_is_told_whether_there_is_what_they_may_not_use(ci: DistCI) -> None:
    ci.jobs.put(job("ops/there"))
    told = []
    for name in ("ops/there", "ops/never"):
        with pytest.raises(NoSuchJob) as raised:
            ci.lifecycle.check_use(USER, name)
        told.append(str(raised.value).replace(name, "NAME"))
    assert told[0] == told[1]
    assert USER in told[0]
    assert '"shared_with": ["app/web"]' in told[0]


def test_shared_with_takes_ids_of_projects_alone(ci: DistCI) -> None:
    with pytest.raises(InvalidJob, match="shared_with"):
        ci.jobs.put(job(USED, shared_with=["*"]))


def copy(name: str, **more: Any) -> dict[str, Any]:
    return {"name": "copy", "type": "copy-artifacts", "job": name, **more}


PUBLISHED = (
    {"name": "make", "type": "shell", "script": "echo made > file"},
    {"name": "publish", "type": "publish-artifacts", "needs": ["make"], "paths": ["file"]},
)


@pytest.mark.parametrize("which", [1, "last-passed", "upstream"])
def test_a_copy_of_what_may_not_be_used_fails_as_of_what_is_not_there(system: Any, which: int | str) -> None:
    # Given a build of another project, whose job a build names by a parameter
    system.run(job(USED, *PUBLISHED))
    user = job(USER, copy("{FROM}", build=which, matrix={"FROM": [USED, "ops/tools/never"]}))

    # When a build copies from it, and from a job that is not there
    view = system.run(user)

    # Then each fails in the same words, in its log and as the reason
    reasons = [system.failure(view, f"copy[{name}]") for name in (USED, "ops/tools/never")]
    assert reasons[0].replace(USED, "NAME") == reasons[1].replace("ops/tools/never", "NAME")
    assert f"builds of {USER} may not use those of {USED}, or there is no such job" in reasons[0]
    assert reasons[0] in system.log(view, f"copy[{USED}]")
    assert reasons[0] in [reason.because for reason in system.ci.why.build(view.id)]


def test_a_copy_of_what_is_shared_is_one(system: Any) -> None:
    system.run(job(USED, *PUBLISHED, shared_with=["app"]))
    assert system.run(job(USER, copy(USED))).task("copy").state is TaskState.PASSED


def test_a_build_that_may_not_follow_is_not_started_and_why_says_so(system: Any) -> None:
    # Given two jobs of other projects that would follow on a job, which is shared with one of them
    for name in (USER, "other/next"):
        system.ci.jobs.put(job(name, triggers=[{"type": "job", "job": USED}]))

    view = system.run(job(USED, shared_with=["app/web"]))

    assert view.downstream == (f"{USER}#1",)
    assert list(view.refused_downstream) == ["other/next"]
    [told] = [reason for reason in system.ci.why.build(view.id) if reason.subject == "other/next"]
    assert told.state == "not started"
    assert f"builds of other/next may not use those of {USED}" in told.because
    assert not system.ci.builds.last_number("other/next")


def test_while_nobody_knows_who_may_it_is_neither_refused_nor_done(
    system: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    grants, failures = system.ci.access.grants, iter(range(3))

    def away_at_first() -> Any:
        if next(failures, None) is not None:
            raise StoreUnavailable("broken on purpose")
        return grants()

    system.ci.jobs.put(job(USER, copy(USED, build="upstream"), triggers=[{"type": "job", "job": USED}]))
    monkeypatch.setattr(system.ci.access, "grants", away_at_first)

    view = system.run(job(USED, *PUBLISHED, shared_with=["app"]))

    assert (view.downstream, view.refused_downstream) == ((f"{USER}#1",), {})
    assert system.ci.builds.wait(view.downstream[0], 60).state == "passed"
    assert next(failures, None) is None
