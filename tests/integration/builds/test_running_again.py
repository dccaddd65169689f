"""Builds that are run once more, wholly or in part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from integration.builds.playing import FAILED, PASSED, REUSED, SKIPPED, Gate, end, ids, is_task, job_of, shell, states
from waiting import wait_until

from distci.builds import BuildView
from distci.errors import IllegalTransition
from distci.model import Result, TaskState
from distci.store import keys


class TestRunningAgain:
    @pytest.fixture
    def old(self, system: Any, tmp_path: Path) -> BuildView:
        """A build that failed, and would fail once more before it is well again."""
        view: BuildView = system.run_tasks(
            shell("make", "echo made > file; echo making"),
            {"name": "publish", "type": "publish-artifacts", "paths": ["file"]},
            shell("flaky", f"echo >> {tmp_path}/tries; test $(wc -l < {tmp_path}/tries) = 3; cat file"),
            shell("last"),
            shell("tell", when="failure"),
        )
        assert states(view) == {"make": PASSED, "publish": PASSED, "flaky": FAILED, "last": SKIPPED, "tell": PASSED}
        return view

    def test_only_what_failed_runs_and_what_hangs_on_it(self, system: Any, old: BuildView) -> None:
        second = end(system.ci, system.ci.builds.retry(old.id, only_failed=True))
        third = end(system.ci, system.ci.builds.retry(second.id, only_failed=True))

        assert states(second) == {"make": REUSED, "publish": REUSED, "flaky": FAILED, "last": SKIPPED, "tell": PASSED}
        assert states(third) == {"make": REUSED, "publish": REUSED, "flaky": PASSED, "last": PASSED, "tell": SKIPPED}
        assert (third.result, third.trigger.retry_of) == (Result.PASSED, second.id)
        assert system.log(third, "flaky") == "made\n"

    def test_what_is_taken_over_keeps_its_outcome_its_log_and_its_artifacts(self, system: Any, old: BuildView) -> None:
        view = old
        for _ in range(2):
            view = end(system.ci, system.ci.builds.retry(view.id, only_failed=True))

        made, before = view.task("make"), old.task("make")
        assert (made.token, made.attempts, made.origin) == (before.token, before.attempts, str(old.id))
        assert system.log(view, "make") == "making\n"
        assert len(system.ci.artifacts.list(view.id)) == 1
        assert system.ci.artifacts.list(view.id) == system.ci.artifacts.list(old.id)

    def test_all_of_it_runs_as_it_did_whatever_has_become_of_the_job(self, system: Any) -> None:
        job = job_of(shell("say", 'echo "$LEVEL"'), parameters={"LEVEL": {"default": "fast"}})
        old = system.run(job, parameters={"LEVEL": "full"}, commit="c0ffee")
        system.ci.jobs.put(job_of(shell("say", "echo new")))
        system.ci.jobs.delete("team/job")

        view = end(system.ci, system.ci.builds.retry(old.id, actor="ann"))

        assert (str(view.id), view.config, view.trigger.commit) == ("team/job#2", old.config, "c0ffee")
        assert (view.trigger.kind, view.trigger.actor, view.trigger.retry_of) == ("retry", "ann", old.id)
        assert system.log(view, "say") == "full\n"

    def test_the_old_record_stays_as_it_is(self, system: Any, old: BuildView) -> None:
        record = system.ci.store.get(keys.build_record(old.id))

        end(system.ci, system.ci.builds.retry(old.id, only_failed=True))

        assert system.ci.store.get(keys.build_record(old.id)) == record

    def test_b07_not_while_it_runs(self, system: Any, gate: Gate) -> None:
        system.ci.jobs.put(job_of(shell("long", gate.script)))
        build = system.ci.builds.trigger("team/job")

        with pytest.raises(IllegalTransition, match=f"{build} is still"):
            system.ci.builds.retry(build)

        assert ids(system.ci.builds.list("team/job")) == [str(build)]

    def test_not_only_what_failed_where_nothing_did(self, system: Any) -> None:
        view = system.run_tasks(shell("a"))

        with pytest.raises(IllegalTransition, match="no task of team/job#1 failed"):
            system.ci.builds.retry(view.id, only_failed=True)

    def test_a_cancelled_build_goes_on_where_it_was(self, system: Any, gate: Gate) -> None:
        system.ci.jobs.put(job_of(shell("a", "echo > file"), shell("long", f"{gate.script}; ls"), shell("b")))
        build = system.ci.builds.trigger("team/job")
        wait_until(lambda: is_task(system.ci, build, "long", TaskState.RUNNING))
        system.ci.builds.cancel(build)
        end(system.ci, build)
        gate.open()

        view = end(system.ci, system.ci.builds.retry(build, only_failed=True))

        assert states(view) == {"a": REUSED, "long": PASSED, "b": PASSED}
        assert system.log(view, "long") == "file\n"
