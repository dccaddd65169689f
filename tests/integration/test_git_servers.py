"""Checking out from servers that want to know who asks, that have to prove who they are, or that fall silent."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from integration.git_remotes import (
    Remote,
    SshServer,
    git_daemon,
    gossiping_server,
    http_backend,
    silent_server,
    stalled_daemon,
)
from isolations import DRIVERS

from distci.model import Result, TaskState
from distci_workers import git_checkout


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    made = Remote(tmp_path / "remotes" / "hello")
    made.commit(hello_txt="one\n")
    made.commit(hello_txt="two\n")
    return made


def checkout(repository: str, **arguments: Any) -> dict[str, Any]:
    return {"name": "source", "type": "git-checkout", "repository": repository, "directory": "src", **arguments}


def look(script: str) -> dict[str, Any]:
    return {"name": "look", "type": "shell", "script": script, "directory": "src"}


class TestSsh:
    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[SshServer]:
        made = SshServer(tmp_path / "ssh")
        yield made
        made.stop()

    @pytest.fixture
    def system(self, start_system: Callable[..., Any], server: SshServer) -> Any:
        return start_system(secrets={"KEY": server.key, "STRANGER": server.strange_key})

    def test_a_key_opens_what_its_host_proves_to_be(
        self, system: Any, server: SshServer, remote: Remote, tmp_path: Path
    ) -> None:
        library = Remote(tmp_path / "remotes" / "library")
        library.commit(library_txt="library\n")
        commit = remote.add_submodule("../library", "../library")
        task = checkout(
            f"{server.url}{remote.path}", credentials="KEY", host_keys=[server.host_key], submodules=True, depth=1
        )

        first = system.run_tasks(task, look("git log -1 --format=%H; cat lib/library.txt; cat .git/config; env"))
        second = system.run_tasks(task)

        assert (first.result, second.result) == (Result.PASSED, Result.PASSED)
        assert system.log(first, "look").split()[:2] == [commit, "library"]
        body = server.key.splitlines()[1]
        assert body not in system.log(first, "source") + system.log(first, "look")
        kept = [path for path in tmp_path.rglob("*") if path.is_file() and path.parent.name != "ssh"]
        assert not [path for path in kept if body.encode() in path.read_bytes()]
        assert system.leftovers() == []

    @pytest.mark.parametrize("keys", ["none", "another"])
    def test_a_host_that_does_not_prove_who_it_is_gets_nothing(
        self, system: Any, server: SshServer, remote: Remote, keys: str
    ) -> None:
        pinned = {"none": [], "another": [server.another_key]}[keys]

        view = system.run_tasks(checkout(f"{server.url}{remote.path}", credentials="KEY", host_keys=pinned))

        assert "(name the right key of that host in `host_keys`, as `ssh-keyscan HOST` prints it" in system.failure(
            view
        )

    @pytest.mark.parametrize("credentials", [{}, {"credentials": "STRANGER"}, {"credentials": {"example.org": "KEY"}}])
    def test_no_key_and_a_strange_one_open_nothing(
        self, system: Any, server: SshServer, remote: Remote, credentials: Mapping[str, Any]
    ) -> None:
        view = system.run_tasks(
            checkout(f"{server.url}{remote.path}", host_keys=[server.host_key], timeout="1m", **credentials)
        )

        assert system.failure(view).endswith(
            "Permission denied (publickey). (does `credentials` name the right secret?)"
        )

    def test_no_repository_there_is_told(self, system: Any, server: SshServer) -> None:
        view = system.run_tasks(checkout(f"{server.url}/nowhere", credentials="KEY", host_keys=[server.host_key]))

        assert system.failure(view) == "fatal: '/nowhere' does not appear to be a git repository (no such repository)"

    def test_the_example_of_the_documentation_does_what_it_says(
        self, start_system: Callable[..., Any], server: SshServer, remote: Remote, tmp_path: Path
    ) -> None:
        # Given a fork that lacks a commit of what it was forked from
        document = documented("docs/fork")
        (remote.path / "source").mkdir()
        (remote.path / "source" / "code").write_text("code\n")
        (remote.path / "other").mkdir()
        (remote.path / "other" / "text").write_text("text\n")
        remote.commit()
        forks = tmp_path / "forks"
        remote.git("clone", "--quiet", "--bare", str(remote.path), str(forks / "ada" / "hello.git"))
        remote.git("--git-dir", str(forks / "ada" / "hello.git"), "branch", "release", "main")
        remote.commit(hello_txt="three\n")
        system = start_system(secrets={"DEPLOY_KEY": server.key})

        # When the job is run with servers that are there
        with git_daemon(remote.path.parent) as base:
            text = json.dumps(document)
            for theirs, ours in (
                (document["tasks"][0]["host_keys"][0], server.host_key),
                ("ssh://git@git.example.org", f"{server.url}{forks}"),
                ("https://forge.example.com/hello.git", f"{base}/hello"),
                ("git.example.org", f"127.0.0.1:{server.port}"),
            ):
                assert theirs in text
                text = text.replace(theirs, ours)
            look_on = {"name": "look", "type": "shell", "directory": "hello", "script": "cat hello.txt; find * -type f"}
            view = system.run(json.loads(text) | {"tasks": [*json.loads(text)["tasks"], look_on]})

        # Then the sources of both are there
        assert system.log(view, "look").split() == ["three", "hello.txt", "source/code"]


def documented(job: str) -> dict[str, Any]:
    """A job that the documentation shows."""
    text = (Path(__file__).parents[2] / "docs" / "jobs.rst").read_text()
    blocks = re.findall(r"^\.\. code-block:: json\n\n((?:    .*\n|\n)+)", text, re.MULTILINE)
    documents: list[dict[str, Any]] = [json.loads(block) for block in blocks]
    return next(document for document in documents if document.get("job") == job)


class TestCredentialsByHost:
    def test_each_host_gets_its_own(self, system: Any, remote: Remote, tmp_path: Path) -> None:
        library = Remote(tmp_path / "elsewhere" / "library")
        library.commit(library_txt="library\n")
        with ExitStack() as stack:
            here = stack.enter_context(http_backend(remote.path.parent, "robot:t0p-secret"))
            there = stack.enter_context(http_backend(library.path.parent, "x-access-token:sesame-0pen"))
            hosts = [url.removeprefix("http://") for url in (here, there)]
            remote.add_submodule(str(library.path), f"{there}/library")
            view = system.run_tasks(
                checkout(
                    f"{here}/hello",
                    submodules=[hosts[1]],
                    credentials=dict(zip(hosts, ("TOKEN", "DEPLOY"), strict=True)),
                    remotes={"library": {"repository": f"{there}/library"}},
                ),
                look("cat lib/library.txt; git show library/HEAD:library.txt; cat .git/config .git/modules/lib/config"),
            )

        assert system.log(view, "look").splitlines()[:2] == ["library", "library"]
        printed = system.log(view, "source") + system.log(view, "look")
        assert "t0p-secret" not in printed
        assert "sesame-0pen" not in printed

    def test_git_in_a_sandbox_gets_them_too(
        self, start_system: Callable[..., Any], remote: Remote, tmp_path: Path
    ) -> None:
        system = start_system(isolation=DRIVERS["sandboxed"](), kinds=("control", "git-checkout", "shell"))
        with http_backend(remote.path.parent, "robot:t0p-secret") as base:
            task = checkout(f"{base}/hello", credentials="TOKEN", isolation={"type": "sandbox"})
            views = [system.run_tasks(task, look("cat hello.txt")) for _ in range(2)]

        assert [system.log(view, "look") for view in views] == ["two\n", "two\n"]
        assert "Receiving objects" in system.log(views[0], "source")
        assert "Receiving objects" not in system.log(views[1], "source")

    @pytest.mark.parametrize("way", ["submodule", "remote"])
    def test_no_other_host_gets_any(self, system: Any, remote: Remote, way: str) -> None:
        heard: list[str] = []
        with http_backend(remote.path.parent, "robot:t0p-secret") as base, gossiping_server(heard.append) as gossip:
            remote.add_submodule(str(remote.path), f"{gossip}/library")
            more = (
                {"submodules": [gossip.removeprefix("http://")]}
                if way == "submodule"
                else {"remotes": {"gossip": {"repository": f"{gossip}/hello"}}}
            )
            view = system.run_tasks(checkout(f"{base}/hello", credentials="TOKEN", **more))

        assert view.task("source").state is TaskState.FAILED
        assert heard
        assert set(heard) == {""}


def test_large_files_come_from_a_server_that_wants_the_same_credentials(system: Any, tmp_path: Path) -> None:
    content = b"large\n" * 1000
    digest = hashlib.sha256(content).hexdigest()
    remote = Remote(tmp_path / "remotes" / "large")
    remote.commit(
        _gitattributes="*.bin filter=lfs diff=lfs merge=lfs -text\n",
        data_bin=f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(content)}\n",
    )
    with http_backend(remote.path.parent, "robot:t0p-secret", large={digest: content}) as base:
        view = system.run_tasks(checkout(f"{base}/large", lfs=True, credentials="TOKEN"), look("sha256sum data.bin"))

    assert system.log(view, "look").split()[0] == digest
    assert "t0p-secret" not in system.log(view, "source")


class TestSilence:
    """A server that hangs is left after a while, whatever it has promised before."""

    @pytest.fixture(autouse=True)
    def impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(git_checkout, "SILENCE_S", 1.0)

    def test_before_it_has_said_anything(self, system: Any) -> None:
        with silent_server() as base:
            view = system.run_tasks(checkout(f"{base}/hello"))

        assert system.failure(view) == f"{base}/hello said nothing for 1 s"
        assert system.leftovers() == []

    def test_while_objects_should_come(self, system: Any, remote: Remote) -> None:
        with stalled_daemon(remote.path.parent) as base:
            view = system.run_tasks(checkout(f"{base}/hello"))

        assert system.failure(view) == f"{base}/hello said nothing for 1 s"
        assert system.leftovers() == []
