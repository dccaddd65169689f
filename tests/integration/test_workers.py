"""Scripts and artifacts, by a worker of a real system."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from integration.git_remotes import Remote
from services import STORES
from waiting import wait_until

from distci import work
from distci.artifacts import Artifact
from distci.builds import BuildView
from distci.errors import Damaged, Invalid, NoSuchArtifact, NoSuchBuild, StoreUnavailable
from distci.model import Result, TaskState
from distci.store import keys
from distci.store.directory import DirectoryStore


def shell(script: str, name: str = "make", **arguments: Any) -> dict[str, Any]:
    return {"name": name, "type": "shell", "script": script, **arguments}


def publish(*paths: str, name: str = "publish", **arguments: Any) -> dict[str, Any]:
    return {"name": name, "type": "publish-artifacts", "paths": [*paths], **arguments}


def copy(job: str, name: str = "copy", **arguments: Any) -> dict[str, Any]:
    return {"name": name, "type": "copy-artifacts", "job": job, **arguments}


def names(system: Any, view: BuildView) -> list[str]:
    return [artifact.name for artifact in system.ci.artifacts.list(view.id)]


class TestShell:
    @pytest.mark.parametrize(
        ("script", "state", "exit_status", "signal"),
        [
            ("exit 0", TaskState.PASSED, 0, None),
            ("exit 7", TaskState.FAILED, 7, None),
            ("false; true", TaskState.FAILED, 1, None),
            ("no-such-program", TaskState.FAILED, 127, None),
            ("kill -SEGV $$", TaskState.FAILED, None, 11),
        ],
    )
    def test_the_end_of_the_script_is_the_outcome(
        self, system: Any, script: str, state: TaskState, exit_status: int | None, signal: int | None
    ) -> None:
        task = system.run_tasks(shell(script)).task("make")

        assert task.state is state
        assert (task.attempts[-1]["exit_status"], task.attempts[-1]["signal"]) == (exit_status, signal)

    @pytest.mark.parametrize(
        ("arguments", "printed"),
        [
            ({"script": "echo $0 | grep -c /script"}, "1\n"),
            ({"script": "#!/usr/bin/env -S awk -f\nBEGIN { print 6 * 7 }"}, "42\n"),
            ({"script": "#! /bin/cat\nas it is"}, "#! /bin/cat\nas it is"),
            ({"script": "#!/bin/sh -e\nfalse; true || echo unreached"}, ""),
            ({"script": "print(6 * 7)", "shell": "python3 -I"}, "42\n"),
            ({"script": "case $- in *u*) echo strict;; esac", "shell": "sh -eu"}, "strict\n"),
        ],
    )
    def test_its_first_line_or_the_task_names_the_interpreter(
        self, system: Any, arguments: Mapping[str, str], printed: str
    ) -> None:
        view = system.run_tasks({"name": "make", "type": "shell", **arguments})

        assert system.log(view, "make") == printed

    def test_an_interpreter_that_is_not_there_is_named(self, system: Any) -> None:
        view = system.run_tasks(shell("#!/no/such/interpreter\n"))

        assert view.task("make").attempts[-1]["exit_status"] == 127
        assert "/no/such/interpreter" in system.log(view, "make")

    def test_d28_a_script_in_any_language_is_carried_as_it_is(self, system: Any) -> None:
        view = system.run_tasks(shell("echo 'Grüße, 世界 🎉' | tee größe; ls"))

        assert system.log(view, "make") == "Grüße, 世界 🎉\ngröße\n"

    @pytest.mark.parametrize("value", ["a\0b", "\ud800"])
    def test_what_no_process_can_be_given_breaks_no_worker(self, system: Any, value: str) -> None:
        job = {"job": "team/job", "parameters": {"P": {"default": ""}}, "tasks": [shell("echo")]}
        try:
            view = system.run(job, parameters={"P": value})
        except Invalid:
            return  # refused before there was a build

        assert view.result is Result.FAILED

    def test_the_script_itself_is_not_in_the_workspace(self, system: Any) -> None:
        view = system.run_tasks(shell("ls -A"))

        assert system.log(view, "make") == ""

    def test_it_runs_in_the_directory_that_the_task_names(self, system: Any) -> None:
        view = system.run_tasks(shell('test "$PWD" = "$DISTCI_WORKSPACE/a/b"', directory="a/b"))

        assert view.result is Result.PASSED

    def test_d31_a_directory_that_is_a_link_is_refused(self, system: Any, tmp_path: Path) -> None:
        view = system.run_tasks(shell(f"ln -s {tmp_path} out"), shell("touch canary", name="try", directory="out"))

        assert "'out'" in system.failure(view, "try")
        assert not (tmp_path / "canary").exists()

    def test_a_workspace_that_cannot_be_carried_on_fails_the_task_that_made_it(self, system: Any) -> None:
        deep = "i=0; while [ $i -lt 1200 ]; do mkdir d; cd d; i=$((i + 1)); done"
        view = system.run_tasks(shell(deep), shell("true", name="next"))

        assert "the workspace cannot be kept" in system.failure(view, "make")
        assert view.task("next").state is TaskState.SKIPPED

    def test_the_commit_is_known_to_all_tasks_after_its_checkout(self, system: Any, tmp_path: Path) -> None:
        remote = Remote(tmp_path / "remotes" / "hello")
        commit = remote.commit(file="text")
        source = {"name": "source", "type": "git-checkout", "repository": f"file://{remote.path}"}
        tell = "echo $DISTCI_COMMIT"
        view = system.run_tasks(source, shell(tell), shell(tell, name="later"), shell(tell, name="apart", needs=[]))

        assert [system.log(view, name) for name in ("make", "later", "apart")] == [f"{commit}\n", f"{commit}\n", "\n"]


class TestPublishing:
    MAKE = "mkdir -p dist/deep; echo one > dist/a.txt; echo two > dist/deep/b.txt; echo three > c.log"

    @pytest.mark.parametrize("store_url", STORES, indirect=True)
    def test_files_are_kept_under_their_paths(self, system: Any, tmp_path: Path) -> None:
        remote = Remote(tmp_path / "remotes" / "hello")
        remote.commit(hello_txt="hello")
        source = {"name": "source", "type": "git-checkout", "repository": f"file://{remote.path}"}
        view = system.run_tasks(source, shell(self.MAKE), publish("dist/**", "c.log", "hello.txt"))

        one = Artifact("dist/a.txt", 4, hashlib.sha256(b"one\n").hexdigest())
        assert names(system, view) == ["c.log", "dist/a.txt", "dist/deep/b.txt", "hello.txt"]
        assert one in system.ci.artifacts.list(str(view.id))
        assert view.task("publish").attempts[-1]["details"] == {"files": 4, "bytes": 19}
        assert f"published dist/a.txt, 4 bytes, sha256 {one.sha256}" in system.log(view, "publish")
        with system.ci.artifacts.open(view.id, "dist/a.txt", start=1) as stream:
            assert stream.read() == b"ne\n"

    def test_they_are_downloaded_by_name_by_pattern_or_all(self, system: Any, tmp_path: Path) -> None:
        view = system.run_tasks(shell(self.MAKE), publish("**"))
        artifacts = system.ci.artifacts

        assert len(artifacts.download(view.id, tmp_path / "all")) == 3
        some = artifacts.download(view.id, tmp_path / "some", ["c.log", "dist/*.txt"])
        assert sorted(some) == [tmp_path / "some" / "c.log", tmp_path / "some" / "dist" / "a.txt"]
        assert (tmp_path / "some" / "c.log").read_text() == "three\n"

    def test_a_name_that_there_is_not_is_answered_with_those_there_are(self, system: Any, tmp_path: Path) -> None:
        view = system.run_tasks(shell(self.MAKE), publish("dist/*"))

        with pytest.raises(NoSuchArtifact, match=r"team/job#1 published no artifact 'b'; there are: dist/a\.txt"):
            system.ci.artifacts.open(view.id, "b")
        with pytest.raises(NoSuchArtifact, match=r"no artifact 'dist/\*\.whl'; there are: dist/a\.txt"):
            system.ci.artifacts.download(view.id, tmp_path, ["dist/*", "dist/*.whl"])
        with pytest.raises(NoSuchBuild):
            system.ci.artifacts.list("team/job#2")

    def test_a_build_without_any_says_so(self, system: Any) -> None:
        view = system.run_tasks(shell("true"))

        assert names(system, view) == []
        with pytest.raises(NoSuchArtifact, match="published no artifact 'x'; it published none at all"):
            system.ci.artifacts.open(view.id, "x")

    def test_d21_a_pattern_without_files_fails_the_task_and_what_comes_after_it_does_not_run(self, system: Any) -> None:
        view = system.run_tasks(shell(self.MAKE), publish("dist/*", "*.whl", "*.rpm"), shell("true", name="after"))

        assert view.result is Result.FAILED
        assert system.failure(view, "publish") == "no file matches '*.whl', '*.rpm'"
        assert view.task("after").state is TaskState.SKIPPED
        assert names(system, view) == ["dist/a.txt"]

    def test_unless_it_is_optional(self, system: Any) -> None:
        view = system.run_tasks(shell(self.MAKE), publish("*.whl", optional=True))

        assert view.result is Result.PASSED
        assert names(system, view) == []

    def test_d21_what_could_not_be_stored_was_not_published(self, system: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        _break_uploads(monkeypatch, Damaged("broken on purpose"), times=1000)

        view = system.run_tasks(shell(self.MAKE), publish("dist/*", attempts=2), shell("true", name="after"))

        assert view.result is Result.FAILED
        assert view.task("publish").state is TaskState.LOST
        assert view.task("after").state is TaskState.SKIPPED
        assert names(system, view) == []

    def test_a_store_that_is_away_is_waited_for(self, system: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        _break_uploads(monkeypatch, StoreUnavailable("away on purpose"), times=3)

        view = system.run_tasks(shell(self.MAKE), publish("dist/*", attempts=1))

        assert view.result is Result.PASSED
        assert names(system, view) == ["dist/a.txt"]

    def test_d31_a_link_out_of_the_workspace_is_not_followed(self, system: Any, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("sesame")

        view = system.run_tasks(
            shell(f"ln -s {tmp_path}/secret file; ln -s {tmp_path} folder; ln -s / root"),
            publish("file", "folder/*", "root/etc/host*"),
        )

        assert view.task("publish").state is TaskState.FAILED
        assert names(system, view) == []

    @pytest.mark.parametrize(
        ("script", "arguments", "state"),
        [("exit 1", {}, TaskState.FAILED), ("sleep 60", {"timeout": "300ms"}, TaskState.TIMED_OUT)],
    )
    def test_b09_what_a_task_left_that_went_wrong_can_be_kept(
        self, system: Any, script: str, arguments: Mapping[str, str], state: TaskState
    ) -> None:
        view = system.run_tasks(shell(f"{self.MAKE}; {script}", **arguments), publish("c.log", when="failure"))

        assert view.result is Result.FAILED
        assert view.task("make").state is state
        assert names(system, view) == ["c.log"]

    def test_what_was_kept_before_the_build_was_cancelled_stays(self, system: Any) -> None:
        system.ci.jobs.put(
            {"job": "team/job", "tasks": [shell(self.MAKE), publish("c.log"), shell("sleep 60", "slow")]}
        )
        build = system.ci.builds.trigger("team/job")
        wait_until(lambda: _state(system, build, "slow") is TaskState.RUNNING)

        while_it_runs = [artifact.name for artifact in system.ci.artifacts.list(build)]
        system.ci.builds.cancel(build)
        view = system.ci.builds.wait(build, 30)

        assert view.result is Result.CANCELLED
        assert while_it_runs == names(system, view) == ["c.log"]

    def test_running_only_what_failed_keeps_the_artifacts_of_the_rest(self, system: Any, tmp_path: Path) -> None:
        once = f"test -e {tmp_path}/again || {{ touch {tmp_path}/again; exit 1; }}"
        old = system.run_tasks(shell(self.MAKE), publish("c.log"), shell(once, name="flaky"))

        view = system.ci.builds.wait(system.ci.builds.retry(old.id, only_failed=True), 60)

        assert view.task("publish").state is TaskState.REUSED
        assert names(system, view) == ["c.log"]
        with system.ci.artifacts.open(view.id, "c.log") as stream:
            assert stream.read() == b"three\n"

    def test_of_one_name_that_two_tasks_published_the_later_one_counts(self, system: Any) -> None:
        view = system.run_tasks(
            shell("echo first > f", name="make first"),
            publish("f", name="first"),
            shell("echo second > f"),
            publish("f"),
        )

        assert names(system, view) == ["f"]
        with system.ci.artifacts.open(view.id, "f") as stream:
            assert stream.read() == b"second\n"


class TestCopying:
    @pytest.fixture
    def source(self, system: Any) -> BuildView:
        """A build of team/lib that published two files."""
        view: BuildView = _library(system)
        return view

    def test_the_last_build_that_passed_is_the_usual_source(self, system: Any, source: BuildView) -> None:
        _library(system, "two")
        _library(system, "three; false")

        view = system.run_tasks(copy("team/lib"), shell("cat lib/name"))

        assert system.log(view, "make") == "two\n"
        assert view.task("copy").attempts[-1]["details"] == {"build": "team/lib#2", "files": 2}

    def test_a_number_names_the_build(self, system: Any, source: BuildView) -> None:
        _library(system, "two")

        view = system.run_tasks(copy("team/lib", build=1), shell("cat lib/name"))

        assert system.log(view, "make") == "one\n"

    def test_some_of_them_are_put_where_they_are_wanted(self, system: Any, source: BuildView) -> None:
        view = system.run_tasks(copy("team/lib", paths=["lib/n*"], directory="in/here"), shell("find in -type f"))

        assert system.log(view, "make") == "in/here/lib/name\n"
        assert "copied lib/name of team/lib#1" in system.log(view, "copy")

    def test_upstream_is_the_build_that_this_one_follows_on_over_however_many(
        self, system: Any, source: BuildView
    ) -> None:
        middle = {"job": "team/middle", "triggers": [{"type": "job", "job": "team/lib"}], "tasks": [shell("true")]}
        last = {
            "job": "team/last",
            "triggers": [{"type": "job", "job": "team/middle"}],
            "tasks": [copy("team/lib", build="upstream"), shell("cat lib/name")],
        }
        system.ci.jobs.put(middle)
        system.ci.jobs.put(last)
        upstream = _library(system, "upstream")
        system.ci.builds.wait("team/middle#1", 60)

        view = system.ci.builds.wait("team/last#1", 60)

        assert system.log(view, "make") == "upstream\n"
        assert view.task("copy").attempts[-1]["details"]["build"] == str(upstream.id)

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            ({"job": "team/lib", "build": 2}, "there is no build team/lib#2"),
            ({"job": "team/lib", "build": "upstream"}, "team/job#1 does not follow on a build of team/lib"),
            ({"job": "team/other"}, "no build of team/other has passed"),
            ({"job": "team/lib", "paths": ["*.whl"]}, "team/lib#1 published no artifact '*.whl'; there are: lib/name"),
            ({"job": "team/job", "build": 1}, "team/job#1 published no artifacts"),
        ],
    )
    def test_what_is_not_there_is_named(
        self, system: Any, source: BuildView, arguments: Mapping[str, Any], expected: str
    ) -> None:
        view = system.run_tasks(copy(**arguments))

        assert system.failure(view, "copy").startswith(expected)

    def test_what_is_not_as_it_was_published_is_refused(self, system: Any, source: BuildView) -> None:
        task = source.task("publish")
        system.ci.store.put(keys.artifact(source.id, "publish", task.token, "lib/name"), b"two\n")

        view = system.run_tasks(copy("team/lib"), shell("ls lib", when="always"))

        assert system.failure(view, "copy") == "team/lib#1: artifact 'lib/name' is not as it was published"
        assert "name" not in system.log(view, "make").split()

    def test_d31_nothing_is_written_through_a_link(self, system: Any, source: BuildView, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()

        view = system.run_tasks(
            shell(f"ln -s {outside} out; mkdir inner; ln -s {outside} inner/lib"),
            copy("team/lib", directory="out"),
            copy("team/lib", name="deep", directory="inner", needs=["make"]),
        )

        assert "'out'" in system.failure(view, "copy")
        assert "'lib'" in system.failure(view, "deep")
        assert list(outside.iterdir()) == []


def test_d33_nothing_of_any_attempt_is_left_on_disk(system: Any) -> None:
    system.run_tasks(
        shell("mkdir -p locked/in; echo > locked/in/f; chmod 0 locked"),
        shell("exit 1", name="fails", needs=[]),
        shell("sleep 60", name="hangs", needs=[], timeout="200ms"),
        publish("nothing", needs=[]),
    )

    assert system.leftovers() == []


def test_an_attempt_whose_leftovers_cannot_be_removed_holds_up_nothing(
    system: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given files that stay where they are, such as those that a script made as another user
    def refuse(directory: Path) -> None:
        raise PermissionError(errno.EPERM, "refused on purpose", str(directory))

    monkeypatch.setattr(work, "remove", refuse)

    # When one task follows on another
    view = system.run_tasks(shell("true"), shell("true", name="next"))

    # Then the worker went on with it
    assert view.result is Result.PASSED


def test_r17_a_secret_that_cannot_be_masked_is_refused_before_anything_runs(start_system: Callable[..., Any]) -> None:
    with pytest.raises(Invalid, match=r"'SHORT'.* of 3 characters cannot be masked") as refused:
        start_system(secrets={"SHORT": "abc"})

    assert "abc" not in str(refused.value)


def _library(system: Any, content: str = "one") -> BuildView:
    view: BuildView = system.run(
        {
            "job": "team/lib",
            "tasks": [
                shell(f"mkdir lib; echo x > lib/other; (echo {content}) > lib/name"),
                publish("lib/*", when="always"),
            ],
        }
    )
    return view


def _state(system: Any, build: Any, task: str) -> TaskState | None:
    states: dict[str, TaskState] = {found.name: found.state for found in system.ci.builds.get(build).tasks}
    return states.get(task)


def _break_uploads(monkeypatch: pytest.MonkeyPatch, error: Exception, times: int) -> None:
    """Let the store refuse the first few writes of artifacts."""
    put: Callable[..., None] = DirectoryStore.put
    left = iter(range(times))

    def broken(store: DirectoryStore, key: str, data: Any) -> None:
        if "/artifacts/" in key and next(left, None) is not None:
            raise error
        put(store, key, data)

    monkeypatch.setattr(DirectoryStore, "put", broken)
