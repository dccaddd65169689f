"""Which tasks a build has, and which of them follow on what."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from integration.builds.playing import FAILED, PASSED, SKIPPED, after, end, job_of, shell, states
from waiting import wait_until

from distci.app import connect
from distci.model import Result
from distci.process import WorkerProcess
from distci.store import keys


class TestPlanning:
    def test_a_matrix_runs_each_combination_with_its_values(self, system: Any) -> None:
        matrix = {
            "python": ["3.11", "3.12"],
            "libc": ["gnu", "musl"],
            "exclude": [{"python": "3.11", "libc": "musl"}],
            "include": [{"python": "3.14", "libc": "uclibc"}],
        }

        view = system.run_tasks(shell("test", "echo $python {libc}", matrix=matrix), shell("after"))

        logs = {task.name: system.log(view, task.name) for task in view.tasks}
        assert view.result is Result.PASSED
        assert logs == {
            "test[3.11,gnu]": "3.11 gnu\n",
            "test[3.12,gnu]": "3.12 gnu\n",
            "test[3.12,musl]": "3.12 musl\n",
            "test[3.14,uclibc]": "3.14 uclibc\n",
            "after": "",
        }

    def test_a_person_wins_over_a_matrix_and_that_over_the_job(self, system: Any) -> None:
        job = job_of(
            shell("say", "echo $JOB $MATRIX $PERSON", matrix={"MATRIX": ["matrix"], "PERSON": ["matrix"]}),
            parameters={name: {"default": "job"} for name in ("JOB", "MATRIX", "PERSON")},
        )

        view = system.run(job, parameters={"PERSON": "person"})

        assert system.log(view, "say[matrix,matrix]") == "job matrix person\n"

    def test_a_matrix_wins_over_the_jobs_own_trigger_and_that_over_the_job(self, system: Any) -> None:
        system.ci.jobs.put(
            job_of(
                shell("say", "echo $JOB $TRIGGER $MATRIX", matrix={"MATRIX": ["matrix"]}),
                job="team/next",
                parameters={name: {"default": "job"} for name in ("JOB", "TRIGGER", "MATRIX")},
                triggers=after("team/job", parameters={"TRIGGER": "trigger", "MATRIX": "trigger"}),
            )
        )

        view = end(system.ci, system.run_tasks(shell("a")).downstream[0])

        assert system.log(view, "say[matrix]") == "job trigger matrix\n"

    def test_r15_a_plan_is_the_same_bytes_on_every_tree(
        self, tmp_path: Path, zookeeper_url: str, employ: Callable[..., WorkerProcess]
    ) -> None:
        job = job_of(
            shell("test", "run $LEVEL {v}", matrix={"v": ["1", "2"], "label": ["os=linux"]}, timeout="90s", retries=1),
            shell("tell", when="failure", environment={"A": "größer"}),
            parameters={"LEVEL": {"default": "fast"}},
        )

        def plan(url: str | None, name: str) -> bytes:
            with connect(tmp_path / name, coordination=url) as ci:
                ci.jobs.put(job)
                build = ci.builds.trigger("team/job", {"LEVEL": "full"}, actor="ann", ref="refs/heads/main")
                with employ(ci.lifecycle, kinds=["control"], name=name):
                    wait_until(lambda: ci.builds.get(build).state == "running")
                return ci.store.get(keys.build_plan(build))

        assert plan(None, "embedded") == plan(zookeeper_url, "served")


class TestReactions:
    def test_a_failure_is_told_of_and_skips_the_rest(self, system: Any) -> None:
        view = system.run_tasks(
            shell("fails", "exit 7"),
            shell("rest"),
            shell("tell", "echo it broke", when="failure"),
            shell("tidy", "echo tidied", when="always"),
            shell("tell of the tidying", when="failure", needs=["tidy"]),
        )

        assert (view.result, view.task("fails").reason) == (Result.FAILED, "exit status 7")
        assert states(view) == {
            "fails": FAILED,
            "rest": SKIPPED,
            "tell": PASSED,
            "tidy": PASSED,
            "tell of the tidying": SKIPPED,
        }

    def test_where_nothing_failed_only_what_always_runs_reacts(self, system: Any) -> None:
        view = system.run_tasks(shell("works"), shell("tell", when="failure"), shell("tidy", when="always"))

        assert view.result is Result.PASSED
        assert states(view) == {"works": PASSED, "tell": SKIPPED, "tidy": PASSED}

    def test_a_reaction_that_fails_fails_the_build(self, system: Any) -> None:
        assert system.run_tasks(shell("works"), shell("tidy", "exit 1", when="always")).result is Result.FAILED

    def test_what_may_fail_stops_nothing(self, system: Any) -> None:
        view = system.run_tasks(
            shell("lint", "exit 1", allow_failure=True), shell("rest"), shell("tell", when="failure")
        )

        assert view.result is Result.PASSED
        assert states(view) == {"lint": FAILED, "rest": PASSED, "tell": SKIPPED}

    def test_a_task_is_tried_again_as_often_as_it_says(self, system: Any, tmp_path: Path) -> None:
        script = f"echo >> {tmp_path}/tries; test $(wc -l < {tmp_path}/tries) = 3"

        view = system.run_tasks(shell("flaky", script, retries=2), shell("rest"))

        assert states(view) == {"flaky": PASSED, "rest": PASSED}
        assert [attempt["verdict"] for attempt in view.task("flaky").attempts] == ["failed", "failed", "passed"]

    def test_and_no_more_often(self, system: Any) -> None:
        view = system.run_tasks(shell("fails", "exit 1", retries=1), shell("rest"))

        assert states(view) == {"fails": FAILED, "rest": SKIPPED}
        assert len({attempt["token"] for attempt in view.task("fails").attempts}) == 2
