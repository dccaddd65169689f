"""What forges tell, and the builds that follow: the right commit, once, or why none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import deliveries
import pytest
from integration.conftest import System
from integration.git_remotes import Remote, git_daemon

from distci.builds import BuildView
from distci.hooks import Answer
from distci.settings import ReceiverSettings

SETTINGS = {name: ReceiverSettings((deliveries.SECRET,)) for name in ("github", "gitlab", "gitea", "directory")}


@pytest.fixture(params=["sqlite", "zookeeper"])
def coordination_url(request: pytest.FixtureRequest) -> str | None:
    return str(request.getfixturevalue("zookeeper_url")) if request.param == "zookeeper" else None


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote(tmp_path / "remotes" / "hello")


@pytest.fixture
def url(remote: Remote) -> Iterator[str]:
    with git_daemon(remote.path.parent) as base:
        yield f"{base}/hello"


def job(url: str, *triggers: dict[str, Any], job: str = "team/hello", **checkout: Any) -> dict[str, Any]:
    """A job that checks the repository out and shows the commit."""
    return {
        "job": job,
        "triggers": [*triggers],
        "tasks": [
            {"name": "source", "type": "git-checkout", "repository": url, "directory": "src", **checkout},
            {
                "name": "look",
                "type": "shell",
                "script": 'git -C src log -1 --format=%H; echo "$DISTCI_COMMIT $DISTCI_REF"',
            },
        ],
    }


def pushed(url: str, before: str, after: str, ref: str = "refs/heads/main") -> Callable[[dict[str, Any]], None]:
    """Makes a recorded push one of these commits."""

    def change(body: dict[str, Any]) -> None:
        body.update(
            ref=ref, before=before, after=after, deleted=False, head_commit={"id": after, "message": "A change"}
        )
        body["repository"].update(clone_url=url, full_name="org/hello", ssh_url="git@forge:org/hello.git", git_url=url)

    return change


def deliver(system: System, name: str, body: bytes, delivery: str = "delivery-1") -> Answer:
    return system.ci.hooks.deliver(name.partition("/")[0], deliveries.headers(name, body, delivery), body)


def built(system: System, answer: Answer) -> BuildView:
    """The one build that a delivery started, once it is over."""
    [started] = [job for job in answer.jobs if job.build]
    assert started.build is not None
    view = system.ci.builds.wait(started.build, 60)
    assert view.is_archived
    return view


@pytest.fixture
def hooked(start_system: Callable[..., System], coordination_url: str | None) -> System:
    return start_system(coordination=coordination_url, receivers=SETTINGS)


GITHUB = {"type": "github", "repository": "org/hello"}


def test_a_push_builds_the_commit_that_was_pushed_also_when_the_branch_has_moved_on(
    hooked: System, remote: Remote, url: str
) -> None:
    first, second = remote.commit(hello_txt="one\n"), remote.commit(hello_txt="two\n")
    remote.commit(hello_txt="three\n")
    hooked.ci.jobs.put(job(url, GITHUB, ref="refs/heads/main"))

    view = built(hooked, deliver(hooked, "github/push", deliveries.recorded("github/push", pushed(url, first, second))))

    assert view.state == "passed"
    assert hooked.log(view, "look").split() == [second, second, "refs/heads/main"]
    assert view.trigger.kind == "github"
    assert view.trigger.actor == "Codertocat"
