"""What jobs have in repositories: their tasks, as they are at the commit that is built, and scripts, at a pinned one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from integration.conftest import SECRETS
from integration.git_remotes import Remote, http_backend

from distci.model import Result, TaskState

FILE = """\
stages: [build, test]
tasks:
  - {name: source, stage: build, type: git-checkout, repository: REPOSITORY}
  - name: look
    stage: test
    type: shell
    script: cat version; echo $LEVEL $EDITION
    matrix:
      EDITION: ["1", "2"]
"""


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote(tmp_path / "remotes" / "hello")


def defined(remote: Remote, **keys: Any) -> dict[str, Any]:
    definition = {"path": "distci.yaml", "repository": str(remote.path), "ref": "main", **keys}
    return {"job": "team/hello", "parameters": {"LEVEL": {"default": "fast"}}, "definition": definition}


def test_j11_the_file_at_the_commit_that_is_built_says_the_tasks(system: Any, remote: Remote) -> None:
    # Given a file that changes
    text = FILE.replace("REPOSITORY", str(remote.path))
    first = remote.commit(distci_yaml=text, version="first\n")
    remote.commit(distci_yaml=text.replace('"2"', '"3"'), version="second\n")

    # When a build is of the commit before it did, and one of the newest
    old = system.run(defined(remote), commit=first, ref="refs/heads/main")
    new = system.run(defined(remote))

    # Then each runs what its commit says, on that commit
    for view, edition, version in ((old, "2", "first"), (new, "3", "second")):
        assert view.result is Result.PASSED
        assert [task.name for task in view.tasks] == ["definition", "source", "look[1]", f"look[{edition}]"]
        assert system.log(view, f"look[{edition}]") == f"{version}\nfast {edition}\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("tasks:\n  - {name: a, type: shell, script: no}\n", "line 2, column 36: no is true or false to some readers"),
        ("tasks:\n  - name: a\n    type: shell\n", "line 2, column 5: tasks[0].script: is missing"),
        ("tasks:\n  - &a {name: a, type: shell, script: x}\n  - *a\n", "line 2, column 5: &a: anchors are not read"),
        (
            "tasks: [{name: a, type: shell, script: x, secrets: [TOKEN]}]\n",
            "a names the secret 'TOKEN', which definition does not name itself",
        ),
        ("triggers: []\ntasks: []\n", "line 1, column 1: triggers: cannot be said here"),
        (None, "distci.yaml cannot be read: No such file or directory"),
    ],
)
def test_j11_what_is_wrong_with_the_file_fails_the_build_and_says_where(
    system: Any, remote: Remote, text: str | None, problem: str
) -> None:
    remote.commit(**({"other": "x"} if text is None else {"distci_yaml": text}))
    view = system.run(defined(remote))
    assert (view.result, view.task("definition").state) == (Result.FAILED, TaskState.FAILED)
    assert problem in view.task("definition").reason


def test_the_stored_job_says_which_secrets_the_file_may_name(system: Any, remote: Remote) -> None:
    task = """[{"name": "a", "type": "shell", "script": "test -n \\"$TOKEN\\"", "secrets": ["TOKEN"]}]"""
    remote.commit(distci_yaml=task)
    assert system.run(defined(remote, secrets=["TOKEN"])).result is Result.PASSED


def test_a_script_of_another_repository_is_that_of_its_commit(system: Any, remote: Remote) -> None:
    pinned = remote.commit(run_sh="#!/bin/sh\necho pinned $1 $LEVEL; ls -A\n")
    remote.commit(run_sh="echo changed\n")
    where = {"repository": str(remote.path), "commit": pinned, "path": "run.sh"}
    job = {"job": "team/hello", "parameters": {"LEVEL": {"default": "fast"}}}

    view = system.run({**job, "tasks": [{"name": "a", "type": "shell", "script_from": where}]})

    assert view.result is Result.PASSED
    assert system.log(view, "a").endswith("pinned fast\n")
    assert system.leftovers() == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [({"path": "none.sh"}, "none.sh cannot be read"), ({"commit": "1" * 40}, "the repository has no such commit")],
)
def test_a_script_that_is_not_there_fails_the_task(
    system: Any, remote: Remote, change: dict[str, str], problem: str
) -> None:
    where = {"repository": str(remote.path), "commit": remote.commit(x="y"), "path": "run.sh", **change}
    view = system.run_tasks({"name": "a", "type": "shell", "script_from": where})
    assert problem in system.failure(view, "a")


def test_a_repository_that_a_script_has_left_is_not_used_to_read_one(system: Any, remote: Remote) -> None:
    # Given a task that leaves a repository where the next one reads one, with a configuration that has a command run
    where = {"repository": str(remote.path), "commit": remote.commit(run_sh="true"), "path": "run.sh"}
    trap = "git init -q .distci-reading; git -C .distci-reading config core.fsmonitor 'echo sprung >&2; false'"

    view = system.run_tasks(
        {"name": "trap", "type": "shell", "script": trap}, {"name": "a", "type": "shell", "script_from": where}
    )

    assert system.failure(view, "a") == "there is a .distci-reading in the workspace already"
    assert "sprung" not in system.log(view, "a")


def test_a_script_does_not_see_what_it_was_fetched_with(system: Any, remote: Remote) -> None:
    pinned = remote.commit(run_sh='ls "$(dirname "$TOKEN")"\n')
    with http_backend(remote.path.parent, SECRETS["TOKEN"]) as base:
        where = {"repository": f"{base}/hello", "commit": pinned, "path": "run.sh"}
        task = {"name": "a", "type": "shell", "script_from": where, "credentials": "TOKEN", "secret_files": ["TOKEN"]}

        view = system.run_tasks(task)

    assert view.result is Result.PASSED
    printed = system.log(view, "a").splitlines()
    assert printed[-1] == "secret-TOKEN"
    assert "git-credentials" not in printed
