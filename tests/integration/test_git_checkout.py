"""Checking out of real repositories, by a worker of a real system."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from integration.git_remotes import Remote, git_daemon, gossiping_server, http_backend, plain_files, silent_server
from services.daemon import free_port
from waiting import wait_until

from distci.builds import BuildView
from distci.errors import Invalid, InvalidJob
from distci.model import BuildId, Plan, TaskState, Trigger
from distci.store import keys
from distci_workers.git_checkout import Source
from distci_workers.git_names import check_ref, transport_of

SHOW = "git -C src log -1 --format=%H && git -C src status --porcelain && ls -A src"


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    """Three commits on main; a light and an annotated tag, another branch and a pull request beside it."""
    made = Remote(tmp_path / "remotes" / "hello")
    made.commit(hello_txt="one\n")
    made.git("tag", "light")
    made.commit(hello_txt="two\n")
    made.git("tag", "--annotate", "--message=Two", "v2")
    made.git("checkout", "--quiet", "-b", "feature/ä", "HEAD~1")
    made.commit(hello_txt="feature\n")
    made.git("checkout", "--quiet", "--detach")
    pull = made.commit(hello_txt="pull\n")
    made.git("update-ref", "refs/pull/7/head", pull)
    made.git("checkout", "--quiet", "main")
    made.commit(hello_txt="three\n")
    return made


@pytest.fixture(params=["path", "file", "git"])
def url(request: pytest.FixtureRequest, remote: Remote) -> Iterator[str]:
    """The remote, reached in different ways."""
    if request.param == "git":
        with git_daemon(remote.path.parent) as base:
            yield f"{base}/hello"
    else:
        yield str(remote.path) if request.param == "path" else f"file://{remote.path}"


def checkout(repository: str | Remote, **arguments: Any) -> dict[str, Any]:
    """A task that checks a repository out into ``src``."""
    where = repository if isinstance(repository, str) else str(repository.path)
    return {"name": "source", "type": "git-checkout", "repository": where, "directory": "src", **arguments}


def shell(script: str, **arguments: Any) -> dict[str, Any]:
    return {"name": "look", "type": "shell", "script": script, **arguments}


def commit_of(view: BuildView, task: str = "source") -> str:
    return str(view.task(task).attempts[-1]["details"]["commit"])


@pytest.mark.parametrize(
    ("ref", "revision"),
    [
        ("main", "main"),
        ("feature/ä", "feature/ä"),
        ("refs/heads/main", "main"),
        ("light", "light"),
        ("v2", "v2^{commit}"),
        ("refs/tags/v2", "v2^{commit}"),
        ("refs/pull/7/head", "refs/pull/7/head"),
        (None, "HEAD"),
        ("HEAD", "HEAD"),
    ],
)
def test_a_ref_gives_its_very_commit(system: Any, remote: Remote, url: str, ref: str | None, revision: str) -> None:
    view = system.run_tasks(checkout(url, **({"ref": ref} if ref else {})), shell(SHOW))

    commit = remote.git("rev-parse", revision)
    assert commit_of(view) == commit
    assert system.log(view, "look").split() == [commit, ".git", "hello.txt"]
    assert view.task("source").attempts[-1]["details"] == {"repository": url, "ref": ref or "HEAD", "commit": commit}


@pytest.mark.parametrize("revision", ["main", "main~1", "main~2", "refs/pull/7/head"])
def test_a_commit_is_fetched_by_its_id_wherever_it_is(system: Any, remote: Remote, url: str, revision: str) -> None:
    commit = remote.git("rev-parse", revision)

    view = system.run_tasks(checkout(url, ref=commit, depth=1), shell(SHOW))

    assert system.log(view, "look").split()[0] == commit


def test_a_commit_below_the_tip_is_found_by_its_ref_where_servers_give_nothing_else(
    system: Any, remote: Remote
) -> None:
    remote.git("update-server-info")
    commit = remote.git("rev-parse", "main~1")
    with plain_files(remote.path.parent) as base:
        view = system.run_tasks(checkout(f"{base}/hello/.git", ref=commit), shell(SHOW))

    assert system.log(view, "look").split()[0] == commit


def test_all_history_and_its_tags_come_along_unless_a_depth_is_given(system: Any, remote: Remote, url: str) -> None:
    count = "git rev-list --count HEAD; git describe --tags --always"
    view = system.run_tasks(
        checkout(url),
        shell(count, directory="src"),
        checkout(url, name="shallow", directory="shallow", depth=2),
        shell(count, name="count", directory="shallow"),
    )

    short = remote.git("rev-parse", "--short", "HEAD")
    assert system.log(view, "look").split() == ["3", f"v2-1-g{short}"]
    assert system.log(view, "count").split()[0] == "2"


def test_a_script_finds_the_remote_under_origin(system: Any, remote: Remote) -> None:
    view = system.run_tasks(checkout(remote), shell("git -C src remote get-url origin"))

    assert system.log(view, "look").strip() == str(remote.path)


def test_the_workspace_itself_may_be_the_repository(system: Any, remote: Remote) -> None:
    view = system.run_tasks(checkout(remote, directory="."), shell("cat hello.txt"))

    assert system.log(view, "look") == "three\n"


def test_repositories_with_long_ids_work_alike(system: Any, tmp_path: Path) -> None:
    remote = Remote(tmp_path / "long", "--object-format=sha256")
    commit = remote.commit(hello_txt="long\n")

    view = system.run_tasks(checkout(remote), shell(SHOW))

    assert len(commit) == 64
    assert system.log(view, "look").split()[0] == commit


class TestPins:
    """One build, one commit."""

    def test_all_checkouts_of_a_build_take_the_commit_that_the_first_found(self, system: Any, remote: Remote) -> None:
        before = remote.git("rev-parse", "main")
        move = f"git -C {remote.path} -c user.name=a -c user.email=a@b.c commit --quiet --allow-empty -m moved"

        view = system.run_tasks(
            checkout(remote, ref="main"), shell(move), checkout(remote, ref="main", name="again", directory="again")
        )

        assert remote.git("rev-parse", "main") != before
        assert commit_of(view) == commit_of(view, "again") == before

    def test_another_build_looks_again(self, system: Any, remote: Remote) -> None:
        system.run_tasks(checkout(remote, ref="main"))
        commit = remote.commit(hello_txt="four\n")

        view = system.run_tasks(checkout(remote, ref="main"))

        assert commit_of(view) == commit

    def test_running_a_build_again_takes_the_commit_that_it_had(self, system: Any, remote: Remote) -> None:
        first = system.run_tasks(checkout(remote, ref="main"))
        remote.commit(hello_txt="four\n")

        again = system.ci.builds.wait(system.ci.builds.retry(first.id), 60)

        assert commit_of(again) == commit_of(first)

    @pytest.mark.parametrize("ref", [None, "main", "refs/heads/main"])
    def test_d19_the_commit_of_the_trigger_is_built_and_not_the_tip(
        self, system: Any, remote: Remote, ref: str | None
    ) -> None:
        pushed = remote.git("rev-parse", "main~1")

        view = system.run_tasks(checkout(remote, **({"ref": ref} if ref else {})), commit=pushed, ref="refs/heads/main")

        assert commit_of(view) == pushed

    def test_d20_a_trigger_for_another_branch_than_the_default_one_is_built(self, system: Any, remote: Remote) -> None:
        pushed = remote.git("rev-parse", "feature/ä")

        view = system.run_tasks(checkout(remote), commit=pushed, ref="refs/heads/feature/ä")

        assert commit_of(view) == pushed

    def test_a_ref_that_the_trigger_did_not_see_is_looked_up(self, system: Any, remote: Remote) -> None:
        view = system.run_tasks(
            checkout(remote, ref="v2"), commit=remote.git("rev-parse", "main"), ref="refs/heads/main"
        )

        assert commit_of(view) == remote.git("rev-parse", "v2^{commit}")

    def test_a_trigger_that_names_no_commit_still_names_the_ref(self, system: Any, remote: Remote) -> None:
        view = system.run_tasks(checkout(remote), ref="refs/heads/feature/ä")

        assert commit_of(view) == remote.git("rev-parse", "feature/ä")


class TestSubmodules:
    @pytest.fixture
    def library(self, tmp_path: Path) -> Remote:
        made = Remote(tmp_path / "remotes" / "library")
        made.commit(library_txt="library\n")
        return made

    def add(self, remote: Remote, url: str) -> None:
        """Make the library a submodule, whatever its URL is worth."""
        remote.add_submodule("../library", url)

    def test_come_only_when_asked_for(self, system: Any, remote: Remote, library: Remote) -> None:
        self.add(remote, "../library")
        look = "ls src/lib"

        view = system.run_tasks(
            checkout(remote),
            shell(look),
            checkout(remote, name="all", directory="all", submodules=True, depth=1),
            shell("ls all/lib", name="look at all"),
        )

        assert system.log(view, "look") == ""
        assert system.log(view, "look at all") == "library.txt\n"

    def test_come_by_the_transport_of_their_parent(self, system: Any, remote: Remote, library: Remote) -> None:
        self.add(remote, "../library")
        with git_daemon(remote.path.parent) as base:
            view = system.run_tasks(checkout(f"{base}/hello", submodules=True), shell("ls src/lib"))

        assert system.log(view, "look") == "library.txt\n"

    def test_do_not_lead_from_a_server_to_this_machine(self, system: Any, remote: Remote, library: Remote) -> None:
        self.add(remote, str(library.path))
        with git_daemon(remote.path.parent) as base:
            view = system.run_tasks(checkout(f"{base}/hello", submodules=True))

        assert system.failure(view) == "submodule 'lib' leads to this machine, where it may not"

    def test_lead_to_other_hosts_where_the_job_says_so_and_nowhere_else(
        self, system: Any, remote: Remote, library: Remote
    ) -> None:
        with git_daemon(remote.path.parent) as base, git_daemon(remote.path.parent) as elsewhere:
            host = elsewhere.removeprefix("git://")
            self.add(remote, f"{elsewhere}/library")
            view = system.run_tasks(
                checkout(f"{base}/hello", submodules=True),
                checkout(f"{base}/hello", submodules=[host], name="allowed", directory="a", needs=[]),
                shell("ls a/lib", needs=["allowed"]),
            )

        assert system.failure(view) == (
            f"submodule 'lib' leads to host '{host}', where it may not; `\"submodules\": [\"{host}\"]` allows that"
        )
        assert system.log(view, "look") == "library.txt\n"

    def test_have_submodules_of_their_own_and_lie_where_git_has_them(
        self, system: Any, remote: Remote, library: Remote, tmp_path: Path
    ) -> None:
        Remote(tmp_path / "remotes" / "inner").commit(inner_txt="inner\n")
        library.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", "../inner", "deep/in ner")
        library.commit()
        self.add(remote, "../library")
        with git_daemon(remote.path.parent) as base:
            view = system.run_tasks(
                checkout(f"{base}/hello", submodules=True),
                shell(
                    "cat 'lib/deep/in ner/inner.txt'; git submodule status --recursive; cat lib/.git", directory="src"
                ),
            )

        text, outer, inner, place = system.log(view, "look").splitlines()
        assert text == "inner"
        assert outer.startswith(f" {library.git('rev-parse', 'HEAD')} lib")
        assert inner.startswith(" ")
        assert place == "gitdir: ../.git/modules/lib"

    def test_run_no_programs(self, system: Any, remote: Remote, library: Remote, tmp_path: Path) -> None:
        self.add(remote, f"ext::touch {tmp_path}/canary")

        view = system.run_tasks(checkout(remote, submodules=True))

        assert system.failure(view).startswith("submodule 'lib': repository 'ext::touch ")
        assert not (tmp_path / "canary").exists()


class TestParts:
    """What of a repository comes, where not all of it is wanted."""

    @pytest.fixture
    def wide(self, remote: Remote) -> Remote:
        for folder in ("docs/api", "docs/guide", "source"):
            (remote.path / folder).mkdir(parents=True)
            (remote.path / folder / "text").write_text(f"{folder}\n")
        remote.commit()
        remote.git("config", "uploadpack.allowFilter", "true")
        return remote

    def test_folders_alone_and_what_is_at_the_top(self, system: Any, wide: Remote) -> None:
        view = system.run_tasks(
            checkout(wide, sparse=["docs/guide/", "source"]),
            shell("git status --porcelain; find * -type f", directory="src"),
        )

        assert sorted(system.log(view, "look").split()) == ["docs/guide/text", "hello.txt", "source/text"]

    @pytest.mark.parametrize("path", ["/etc", "../up", "-x", "a/../b", ""])
    def test_d31_no_other_folders_than_those_of_the_repository(self, system: Any, wide: Remote, path: str) -> None:
        with pytest.raises(InvalidJob, match=r"sparse\[0\]"):
            system.run_tasks(checkout(wide, sparse=[path]))

    def test_contents_only_when_they_are_asked_for(self, system: Any, wide: Remote) -> None:
        missing = "git rev-list --objects --all --missing=print | grep -c '^?'"
        with git_daemon(wide.path.parent) as base:
            view = system.run_tasks(
                checkout(f"{base}/hello", filter="blob:none", sparse=["source"]),
                shell(f"{missing}; cat docs/api/text 2>&1 || true; git show HEAD:docs/api/text", directory="src"),
            )

        # What the file at the top was in earlier commits, and what lies in folders that nobody wanted.
        count, *_, asked = system.log(view, "look").splitlines()
        assert (int(count), asked) == (4, "docs/api")

    @pytest.mark.parametrize("wanted", ["--upload-pack=x", "blob:all", "sparse:path=x", "blob:none,tree:0"])
    def test_d31_no_filter_is_anything_else(self, system: Any, wide: Remote, wanted: str) -> None:
        with pytest.raises(InvalidJob, match="filter"):
            system.run_tasks(checkout(wide, filter=wanted))


class TestRemotes:
    """Several in one repository."""

    @pytest.fixture
    def fork(self, remote: Remote, tmp_path: Path) -> Remote:
        remote.git("clone", "--quiet", str(remote.path), str(tmp_path / "remotes" / "fork"))
        made = Remote.__new__(Remote)
        made.path = tmp_path / "remotes" / "fork"
        made.commit(fork_txt="fork\n")
        return made

    def test_each_comes_with_one_ref_that_scripts_can_merge(self, system: Any, remote: Remote, fork: Remote) -> None:
        remote.commit(hello_txt="four\n")
        merge = (
            "git -c user.name=a -c user.email=a@b.c merge -q upstream/main; cat hello.txt; git remote get-url upstream"
        )
        with git_daemon(remote.path.parent) as base:
            view = system.run_tasks(
                checkout(f"{base}/fork", remotes={"upstream": {"repository": f"{base}/hello", "ref": "main"}}),
                shell(merge, directory="src"),
            )

        assert system.log(view, "look").split() == ["four", f"{base}/hello"]
        details = view.task("source").attempts[-1]["details"]
        assert details["commit"] == fork.git("rev-parse", "HEAD")
        assert details["remotes"] == {"upstream": remote.git("rev-parse", "main")}

    def test_d19_all_checkouts_of_a_build_have_the_same_of_each(
        self, system: Any, remote: Remote, fork: Remote
    ) -> None:
        move = f"git -C {remote.path} -c user.name=a -c user.email=a@b.c commit --quiet --allow-empty -m moved"
        remotes = {"upstream": {"repository": str(remote.path)}}

        view = system.run_tasks(
            checkout(fork, remotes=remotes), shell(move), checkout(fork, remotes=remotes, name="again", directory="b")
        )

        first, again = (view.task(name).attempts[-1]["details"]["remotes"] for name in ("source", "again"))
        assert first == again != {"upstream": remote.git("rev-parse", "main")}

    @pytest.mark.parametrize("name", ["origin", "-x", "a/b", "..", ""])
    def test_d31_none_has_a_name_that_is_an_option_or_a_path(self, system: Any, remote: Remote, name: str) -> None:
        with pytest.raises(InvalidJob, match="remotes"):
            system.run_tasks(checkout(remote, remotes={name: {"repository": str(remote.path)}}))

    @pytest.mark.parametrize(
        "other", [{"repository": "--upload-pack=x"}, {"repository": "ext::x"}, {"repository": "/a", "ref": "a..b"}]
    )
    def test_d31_none_leads_git_astray(self, system: Any, remote: Remote, other: Mapping[str, str]) -> None:
        try:
            view = system.run_tasks(checkout(remote, remotes={"other": other}))
        except InvalidJob as error:
            assert "remotes.other" in str(error)
        else:
            assert "is neither" in system.failure(view)


class TestLargeFiles:
    @pytest.fixture
    def large(self, tmp_path: Path) -> Remote:
        made = Remote(tmp_path / "remotes" / "large")
        made.git("lfs", "install", "--local", "--skip-repo")
        made.commit(_gitattributes="*.bin filter=lfs diff=lfs merge=lfs -text\n", data_bin="large\n")
        return made

    def test_come_when_asked_for(self, system: Any, large: Remote) -> None:
        view = system.run_tasks(checkout(f"file://{large.path}", lfs=True), shell("cat src/data.bin"))

        assert system.log(view, "look") == "large\n"

    def test_stay_away_when_not(self, system: Any, large: Remote) -> None:
        view = system.run_tasks(checkout(large), shell("head -1 src/data.bin"))

        assert system.log(view, "look") == "version https://git-lfs.github.com/spec/v1\n"

    def test_need_git_lfs_on_the_worker(self, start_system: Callable[..., Any], remote: Remote, tmp_path: Path) -> None:
        programs = tmp_path / "bin"
        programs.mkdir()
        (programs / "git").symlink_to("/usr/bin/git")

        system = start_system(search_path=str(programs))
        view = system.run_tasks(checkout(remote, lfs=True))

        assert "git-lfs is not installed on this worker" in system.failure(view)


class TestCredentials:
    """They are used for the one thing, and leave no trace."""

    @pytest.fixture
    def private(self, remote: Remote) -> Iterator[str]:
        with http_backend(remote.path.parent, "robot:t0p-secret") as base:
            yield f"{base}/hello"

    def test_a_login_opens_a_private_repository(self, system: Any, remote: Remote, private: str) -> None:
        view = system.run_tasks(checkout(private, credentials="TOKEN", depth=1), shell(SHOW))

        assert system.log(view, "look").split()[0] == remote.git("rev-parse", "HEAD")

    def test_a_bare_token_is_the_password(self, system: Any, remote: Remote) -> None:
        with http_backend(remote.path.parent, "x-access-token:sesame-0pen") as base:
            view = system.run_tasks(checkout(f"{base}/hello", credentials="DEPLOY"))

        assert view.task("source").state is TaskState.PASSED

    @pytest.mark.parametrize("credentials", [{}, {"credentials": "DEPLOY"}])
    def test_without_the_right_ones_it_fails_and_says_why(
        self, system: Any, private: str, credentials: Mapping[str, str]
    ) -> None:
        view = system.run_tasks(checkout(private, **credentials))

        assert "does `credentials` name the right secret?" in system.failure(view)

    def test_one_that_is_not_set_is_named(self, system: Any, private: str) -> None:
        failure = system.failure(system.run_tasks(checkout(private, credentials="NOBODY")))

        assert failure.startswith("task source: no secret 'NOBODY' is set for team/job or what it lies within; ")
        assert "`distci secret set NOBODY --project PROJECT`" in failure

    def test_nothing_of_them_is_left(self, system: Any, private: str, tmp_path: Path) -> None:
        view = system.run_tasks(
            checkout(private, credentials="TOKEN"), shell("cat src/.git/config; env; cat ~/.git-credentials || true")
        )

        assert "t0p-secret" not in system.log(view, "source") + system.log(view, "look")
        assert not _files_with(b"t0p-secret", tmp_path)
        assert system.leftovers() == []

    def test_r17_neither_log_nor_reason_repeat_what_a_server_says_of_them(self, system: Any) -> None:
        with gossiping_server() as base:
            view = system.run_tasks(checkout(f"{base}/hello", credentials="TOKEN"))

        assert "Repository of *** not found, says ***" in system.failure(view)
        assert "t0p-secret" not in system.log(view, "source") + view.task("source").reason

    def test_a_private_key_is_used_for_ssh_and_gone_afterwards(
        self, start_system: Callable[..., Any], remote: Remote, tmp_path: Path
    ) -> None:
        # Given a stand-in for ssh, which notes what it was given and runs here what it was to run there
        programs = tmp_path / "bin"
        programs.mkdir()
        ssh = programs / "ssh"
        ssh.write_text(
            f"""#!/bin/sh
printf '%s\\n' "$@" > {tmp_path}/arguments
while [ "$1" != -i ]; do shift; done
stat -c %a "$2" > {tmp_path}/mode; cat "$2" > {tmp_path}/used
for last; do :; done; exec sh -c "$last"
"""
        )
        ssh.chmod(0o755)
        key = "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VzYW1l\n-----END OPENSSH PRIVATE KEY-----"
        system = start_system(search_path=f"{programs}:{os.defpath}", secrets={"KEY": key})

        # When a repository is reached by ssh with a key
        view = system.run_tasks(checkout(f"git@example.org:{remote.path}", credentials="KEY"), shell(SHOW))

        # Then it was used from a file of its own, with no other key, and that file is gone
        arguments = (tmp_path / "arguments").read_text().splitlines()
        assert system.log(view, "look").split()[0] == remote.git("rev-parse", "HEAD")
        assert (tmp_path / "used").read_text() == f"{key}\n"
        assert (tmp_path / "mode").read_text() == "600\n"
        assert {"IdentitiesOnly=yes", "BatchMode=yes", "git@example.org"} <= set(arguments)
        assert not Path(arguments[arguments.index("-i") + 1]).exists()
        assert system.leftovers() == []

    @pytest.mark.parametrize(
        ("repository", "problem"),
        [
            ("git@example.org:a.git", "secret TOKEN is no private key, which git@example.org:a.git asks for"),
            ("git://example.org/a.git", "git://example.org/a.git takes no credentials; name none"),
            ("/srv/a.git", "/srv/a.git takes no credentials; name none"),
        ],
    )
    def test_that_do_not_fit_the_repository_are_refused(self, system: Any, repository: str, problem: str) -> None:
        assert system.failure(system.run_tasks(checkout(repository, credentials="TOKEN"))) == problem


class TestFailures:
    """Each says what is wrong, in git's words where git knows best."""

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            ({"ref": "nope"}, "has no ref 'nope'"),
            ({"ref": "refs/pull/8/head"}, "has no ref 'refs/pull/8/head'"),
            ({"ref": "abc1234"}, "has no ref 'abc1234'; a commit is named by all of its digits"),
            ({"ref": "1" * 40}, "(the repository has no such commit)"),
            ({"directory": "taken"}, "there is a repository in 'taken' already"),
            ({"directory": "blocked"}, "(check out into a `directory` of its own)"),
        ],
    )
    def test_of_what_is_asked_for(
        self, system: Any, remote: Remote, url: str, arguments: Mapping[str, str], expected: str
    ) -> None:
        prepare = shell("mkdir -p taken/.git blocked; echo mine > blocked/hello.txt")

        assert expected in system.failure(system.run_tasks(prepare, checkout(url, **arguments)))

    def test_an_ambiguous_name_is_not_guessed_at(self, system: Any, remote: Remote) -> None:
        remote.git("branch", "v2", "main")

        view = system.run_tasks(checkout(remote, ref="v2"))

        assert system.failure(view).endswith("; write refs/heads/v2 or refs/tags/v2")

    def test_of_a_repository_that_is_not_there(self, system: Any, remote: Remote) -> None:
        with git_daemon(remote.path.parent) as base:
            view = system.run_tasks(
                checkout(f"{base}/nope"), checkout("/nowhere", name="local", needs=[]), job="team/nope"
            )

        assert system.failure(view) == "fatal: remote error: no such repository: /nope (no such repository)"
        assert system.failure(view, "local") == (
            "fatal: '/nowhere' does not appear to be a git repository (no such repository)"
        )

    def test_of_a_server_that_is_not_there(self, system: Any) -> None:
        port = free_port()

        view = system.run_tasks(checkout(f"git://127.0.0.1:{port}/hello"))

        assert "Connection refused" in system.failure(view)

    def test_of_a_repository_without_commits(self, system: Any, tmp_path: Path) -> None:
        assert system.failure(system.run_tasks(checkout(Remote(tmp_path / "empty")))).endswith("has no ref 'HEAD'")

    def test_b09_a_silent_server_is_left_when_the_time_is_up(self, system: Any) -> None:
        with silent_server() as base:
            view = system.run_tasks(checkout(f"{base}/hello", timeout="300ms"))

        assert view.task("source").state is TaskState.TIMED_OUT
        assert system.leftovers() == []

    def test_b09_a_silent_server_is_left_when_the_build_is_cancelled(self, system: Any) -> None:
        with silent_server() as base:
            system.ci.jobs.put({"job": "team/job", "tasks": [checkout(f"{base}/hello")]})
            build = system.ci.builds.trigger("team/job")
            wait_until(lambda: any(task.state is TaskState.RUNNING for task in system.ci.builds.get(build).tasks))
            system.ci.builds.cancel(build)
            view = system.ci.builds.wait(build, 30)

        assert view.task("source").state is TaskState.CANCELLED
        assert system.leftovers() == []


class TestHostility:
    """Whoever writes the job, the trigger, the remote or the scripts gets git to do nothing else."""

    @pytest.mark.parametrize(
        "repository",
        [
            "",
            "--upload-pack=touch /tmp/canary",
            "-u touch /tmp/canary",
            "ext::sh -c touch% /tmp/canary",
            "fd::17",
            "fd::17,18/a",
            "file::/srv/a.git",
            "http::https://example.org/a.git",
            "testgit::/srv/a",
            "gopher://example.org/a",
            "ftp://example.org/a.git",
            "git+ssh://example.org/a.git",
            "ssh://-oProxyCommand=touch%20canary/a",
            "ssh://user@-oProxyCommand=touch/a",
            "-oProxyCommand=touch:a",
            "user@-oProxyCommand=x:a",
            "host:-oProxyCommand=x",
            "ssh://[::1]-oProxyCommand=x/a",
            "https://user:password@example.org/a.git",
            "https://evil\n.example.org/a.git",
            "https://example.org\\@evil.example/a.git",
            "/srv/a\n[core]\n\tsshCommand = touch canary",
            "/srv/a\0b",
            "../outside",
            "./here",
            "a.git",
            "https:///a.git",
            "https://example.org",
            "file://example.org/srv/a",
            "\ud800/a",
            "C:\\repository\x1b[2J",
        ],
    )
    def test_d31_what_is_no_repository_is_refused_before_git_sees_it(self, repository: str) -> None:
        with pytest.raises(Invalid, match="repository"):
            transport_of(repository)

    @pytest.mark.parametrize(
        ("repository", "transport"),
        [
            ("/srv/a b:c.git", "file"),
            ("file:///srv/a.git", "file"),
            ("git://example.org/a", "git"),
            ("http://127.0.0.1:8080/a", "http"),
            ("https://user@example.org/a.git", "https"),
            ("https://[::1]:8080/a", "https"),
            ("ssh://git@example.org:2222/~/a.git", "ssh"),
            ("git@example.org:team/a.git", "ssh"),
            ("example.org:/srv/a.git", "ssh"),
        ],
    )
    def test_what_is_a_repository_is_known_by_its_transport(self, repository: str, transport: str) -> None:
        assert transport_of(repository) == transport

    @pytest.mark.parametrize(
        "ref",
        [
            "--upload-pack=touch canary", "-main", "a b", "a..b", "a~1", "a^", "a:b", ":a", "a*", "refs/heads/*", "a?",
            "a[b", "a\\b", "a@{1}", "@", "a//b", "/a", "a/", ".a", "a/.b", "a.lock", "a.lock/b", "a.", "a\nb", "a\0b",
            "a\x7f", "\udce4", "+refs/heads/a:refs/heads/b",
        ],
    )  # fmt: skip
    def test_d31_what_is_no_ref_is_refused_before_git_sees_it(self, ref: str) -> None:
        with pytest.raises(Invalid, match="ref "):
            check_ref(ref)

    @pytest.mark.parametrize("commit", ["HEAD", "abc1234", "--all", "1" * 41, "G" * 40, "1" * 40 + "\n", "a..b"])
    def test_a_trigger_names_a_whole_commit_or_is_refused(self, commit: str) -> None:
        with pytest.raises(Invalid, match="not a commit with all of its digits"):
            Source.of({"repository": "/srv/a"}, Plan(BuildId("a", 1), 1, Trigger(commit=commit), {}, ()))

    def test_d31_what_another_worker_of_the_build_says_the_commit_is_is_no_option(
        self, system: Any, remote: Remote, tmp_path: Path
    ) -> None:
        first = system.run_tasks(checkout(remote))
        pin = keys.pin(replace(first.id, number=2), f"{remote.path} HEAD")
        system.ci.store.put(pin, f"--upload-pack=touch {tmp_path}/canary;".encode())

        view = system.run_tasks(checkout(remote))

        assert "not a commit with all of its digits" in system.failure(view)
        assert not (tmp_path / "canary").exists()

    def test_d31_directories_outside_of_the_workspace_are_refused(
        self, system: Any, remote: Remote, tmp_path: Path
    ) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        prepare = shell(f"ln -s {outside} link; echo > file")
        directories = ["link", "link/inner", "file", "a//b", "./a", "a/."]
        hostile = checkout(remote, directory="{where}", matrix={"where": directories})

        view = system.run_tasks(prepare, hostile)

        states = [task.state for task in view.tasks if task.type == "git-checkout"]
        assert states == [TaskState.FAILED] * len(directories)
        assert list(outside.iterdir()) == []

    @pytest.mark.parametrize("directory", ["..", "a/../../b", "/tmp/canary", "-d", "--git-dir=/tmp"])
    def test_d31_a_job_cannot_ask_for_other_directories(self, system: Any, remote: Remote, directory: str) -> None:
        with pytest.raises(InvalidJob, match="directory"):
            system.run_tasks(checkout(remote, directory="{where}", matrix={"where": [directory]}))

    def test_no_script_leaves_configuration_for_the_next_checkout(
        self, system: Any, remote: Remote, tmp_path: Path
    ) -> None:
        trap = (
            f'git init -q src; git -C src config core.fsmonitor "touch {tmp_path}/canary; false"; rm -f src/.git/HEAD'
        )

        view = system.run_tasks(shell(trap), checkout(remote))

        assert "already" in system.failure(view)
        assert not (tmp_path / "canary").exists()

    def test_neither_hooks_nor_configuration_of_the_machine_or_the_job_are_used(
        self, system: Any, remote: Remote, tmp_path: Path
    ) -> None:
        # Given templates, a configuration and an ssh command that would leave a mark
        hooks = tmp_path / "template" / "hooks"
        hooks.mkdir(parents=True)
        hook = hooks / "post-checkout"
        hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/canary\n")
        hook.chmod(0o755)
        configuration = tmp_path / "gitconfig"
        configuration.write_text(f"[init]\n\ttemplateDir = {hooks.parent}\n[core]\n\thooksPath = {hooks}\n")

        # When the job makes git look there
        environment = {
            "GIT_TEMPLATE_DIR": str(hooks.parent),
            "GIT_CONFIG_GLOBAL": str(configuration),
            "GIT_CONFIG_SYSTEM": str(configuration),
        }
        view = system.run_tasks(checkout(remote, environment=environment), shell("ls src/.git/hooks || true"))

        # Then git does not
        assert view.task("source").state is TaskState.PASSED
        assert not (tmp_path / "canary").exists()
        assert "post-checkout" not in system.log(view, "look")

    @pytest.mark.parametrize(
        "environment",
        [
            {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.fsmonitor", "GIT_CONFIG_VALUE_0": "{trap}"},
            {"GIT_CONFIG_PARAMETERS": "'core.fsmonitor={trap}'"},
            {"GIT_EXEC_PATH": "{folder}"},
            {"GIT_TRACE": "{folder}/canary"},
            {"PATH": "{folder}:/usr/bin:/bin"},
        ],
    )
    def test_d31_no_variable_of_the_job_is_a_program_or_an_option_to_git(
        self, system: Any, remote: Remote, tmp_path: Path, environment: Mapping[str, str]
    ) -> None:
        # Given programs that would leave a mark
        folder = tmp_path / "programs"
        folder.mkdir()
        for name in ("git", "git-upload-pack", "trap"):
            (folder / name).write_text(f"#!/bin/sh\ntouch {folder}/canary\n")
            (folder / name).chmod(0o755)
        filled = {
            name: value.replace("{trap}", f"{folder}/trap").replace("{folder}", str(folder))
            for name, value in environment.items()
        }

        # When the job names them
        view = system.run_tasks(checkout(remote, environment=filled))

        # Then git does without
        assert view.task("source").state is TaskState.PASSED
        assert not (folder / "canary").exists()

    def test_a_proxy_is_the_jobs_to_name(self, system: Any) -> None:
        port = free_port()

        view = system.run_tasks(
            checkout("http://git.invalid/hello", environment={"http_proxy": f"http://127.0.0.1:{port}"})
        )

        assert f"127.0.0.1 port {port}" in system.failure(view)

    def test_what_a_remote_says_is_for_reading_only(self, system: Any, remote: Remote) -> None:
        remote.git("config", "uploadpack.packObjectsHook", "printf '\\033[2J' >&2; exit 1 #")

        view = system.run_tasks(checkout(f"file://{remote.path}", ref=remote.git("rev-parse", "main")))

        assert "\x1b" not in view.task("source").reason


def test_d33_nothing_of_an_attempt_is_left_on_disk(system: Any, remote: Remote) -> None:
    system.run_tasks(checkout(remote), shell("chmod -R 0 src; exit 3"))

    assert system.leftovers() == []


def _files_with(data: bytes, folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if stat.S_ISREG(path.lstat().st_mode) and data in path.read_bytes()]
