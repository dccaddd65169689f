"""From the wish for a build to its record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from integration.builds.playing import PASSED, end, ids, job_of, live_tickets, shell, states
from integration.conftest import tree
from waiting import wait_until

from distci.app import DistCI
from distci.coordination.port import Delete
from distci.errors import Invalid, InvalidJob, NoSuchJob
from distci.model import BuildId, Result, Trigger
from distci.process import WorkerProcess
from distci.protocol import paths
from distci.store import keys


class TestTriggering:
    def test_a_job_of_four_tasks_goes_from_the_trigger_to_the_archived_record(self, system: Any) -> None:
        view = system.run_tasks(
            shell("source", "echo one > file"),
            shell("test", "test -s file", needs=["source"]),
            shell("package", "tar cf file.tar file", needs=["source"]),
            {"name": "publish", "type": "publish-artifacts", "paths": ["*.tar"], "needs": ["test", "package"]},
        )

        assert (str(view.id), view.state, view.result, view.config) == ("team/job#1", "passed", Result.PASSED, 1)
        assert set(states(view).values()) == {PASSED}
        assert (view.trigger.kind, view.trigger.actor) == ("manual", "tester")
        assert 0 < view.created_ms <= view.task("source").attempts[-1]["started_ms"] <= view.finished_ms
        assert [artifact.name for artifact in system.ci.artifacts.list(view.id)] == ["file.tar"]

    def test_what_is_no_text_no_document_and_no_build_is_told_as_what_it_is(self, ci: DistCI) -> None:
        ci.jobs.put(job_of(shell("a"), parameters={"LAST": {}}))

        with pytest.raises(InvalidJob, match="LAST: 4 is not a text"):
            ci.builds.trigger("team/job", {"LAST": 4})  # type: ignore[dict-item]
        for given, told in (
            ((None,), "None is not a job; write its id, for example team/hello"),
            (("team/job", ["LAST=4"]), r"parameters: \['LAST=4'\] is not of type object"),
        ):
            with pytest.raises(Invalid, match=told):
                ci.builds.trigger(*given)
        with pytest.raises(Invalid, match="commit: 3 is not of type string"):
            ci.builds.trigger("team/job", commit=3)  # type: ignore[arg-type]
        with pytest.raises(Invalid, match="timeout_s: '1m' is not of type number; it is in seconds"):
            ci.builds.wait("team/job#1", timeout_s="1m")  # type: ignore[arg-type]
        with pytest.raises(InvalidJob, match="is not of type object"):
            ci.jobs.put("team/job")  # type: ignore[arg-type]
        with pytest.raises(Invalid, match="7 is not a build; write JOB#NUMBER"):
            ci.builds.get(7)  # type: ignore[arg-type]

    def test_an_ended_build_leaves_only_its_number_in_the_tree(self, system: Any) -> None:
        system.run_tasks(shell("a"), shell("b"))

        wait_until(lambda: not live_tickets(system.ci))
        assert system.ci.coordination.children(paths.build_shard(BuildId("team/job", 1))) == ()
        assert [path for path in tree(system.ci) if path.startswith(paths.JOBS)] == ["/jobs/team:job"]

    def test_d06_j10_numbers_are_dense_though_many_trigger_at_once(
        self, ci: DistCI, another: Callable[[], DistCI]
    ) -> None:
        ci.jobs.put(job_of(shell("a")))
        sessions = [ci, another()]

        with ThreadPoolExecutor(16) as people:
            asked = [people.submit(sessions[person % 2].builds.trigger, "team/job") for person in range(16)]

        assert sorted(build.result().number for build in asked) == [*range(1, 17)]

    def test_d16_deleting_a_job_does_not_give_its_numbers_away_again(self, system: Any) -> None:
        for _ in range(2):
            system.run_tasks(shell("a"))

        system.ci.jobs.delete("team/job")
        view = system.run_tasks(shell("a"))

        assert str(view.id) == "team/job#3"
        assert ids(system.ci.builds.list("team/job")) == ["team/job#3", "team/job#2", "team/job#1"]

    def test_d16_a_tree_that_forgot_the_last_number_finds_it_in_the_store(self, system: Any) -> None:
        for _ in range(3):
            system.run_tasks(shell("a"))

        system.ci.coordination.commit(Delete(paths.job("team/job")))

        assert str(system.ci.builds.trigger("team/job")) == "team/job#4"

    def test_d19_a_build_runs_the_version_that_was_in_force_when_it_was_triggered(
        self, ci: DistCI, employ: Callable[..., WorkerProcess]
    ) -> None:
        ci.jobs.put(job_of(shell("say", "echo old")))
        build = ci.builds.trigger("team/job")
        ci.jobs.put(job_of(shell("say", "echo new")))

        with employ(ci.lifecycle):
            view = end(ci, build)

        assert view.config == 1
        assert b"".join(ci.builds.log(build, "say")) == b"old\n"

    def test_d07_a_job_that_there_is_not_leaves_nothing_behind(self, ci: DistCI) -> None:
        def stored() -> Sequence[str]:
            return [info.key for info in ci.store.list("") if not info.key.startswith(keys.AUDIT)]

        tree_before, stored_before = tree(ci), stored()

        with pytest.raises(NoSuchJob, match="there is no job 'team/none'"):
            ci.builds.trigger("team/none")

        assert tree(ci) == tree_before
        assert stored() == stored_before

    def test_wrong_parameters_are_all_named_and_leave_nothing_behind(self, ci: DistCI) -> None:
        ci.jobs.put(job_of(shell("a"), parameters={"LEVEL": {"choices": ["fast", "full"]}, "NAME": {"required": True}}))
        before = tree(ci)

        with pytest.raises(InvalidJob) as refused:
            ci.builds.trigger("team/job", {"LEVEL": "ful", "OTHER": "x"})

        assert [problem.partition(":")[0] for problem in refused.value.problems] == [
            "parameters.LEVEL",
            "parameters.OTHER",
            "parameters.NAME",
        ]
        assert tree(ci) == before

    def test_asking_with_the_same_cause_gives_the_same_build(self, ci: DistCI, another: Callable[[], DistCI]) -> None:
        ci.jobs.put(job_of(shell("a")))
        sessions = [ci, another()]

        with ThreadPoolExecutor(8) as hooks:
            asked = [
                hooks.submit(sessions[hook % 2].builds.trigger, "team/job", cause="delivery 7") for hook in range(8)
            ]

        assert {str(build.result()) for build in asked} == {"team/job#1"}
        assert ids(ci.builds.list("team/job")) == ["team/job#1"]

    def test_what_made_somebody_ask_is_on_record(self, system: Any) -> None:
        system.ci.jobs.put(job_of(shell("a", 'echo "$DISTCI_COMMIT $DISTCI_REF"')))
        build = system.ci.builds.trigger("team/job", actor="ann", commit="c0ffee", ref="refs/heads/x")

        trigger = end(system.ci, build).trigger

        assert (trigger.actor, trigger.commit, trigger.ref) == ("ann", "c0ffee", "refs/heads/x")
        assert system.log(system.ci.builds.get(build), "a") == "c0ffee refs/heads/x\n"

    def test_a_cause_that_was_served_is_told_whatever_became_of_the_job_since(self, ci: DistCI) -> None:
        given = {"A": "b"}
        ci.jobs.put(job_of(shell("a")) | {"parameters": {"A": {"default": ""}}})
        build = ci.builds.trigger("team/job", given, cause="delivery 7")

        ci.jobs.put(job_of(shell("a")))
        assert ci.builds.trigger("team/job", given, cause="delivery 7") == build
        ci.jobs.delete("team/job")
        assert ci.builds.trigger("team/job", given, cause="delivery 7") == build
        with pytest.raises(NoSuchJob):
            ci.builds.trigger("team/job", cause="delivery 8")

    def test_a_cause_that_somebody_chose_never_stands_for_what_a_service_tells(self, ci: DistCI) -> None:
        """Whoever may start builds could swallow a delivery to come otherwise, by a key that reads like it."""
        version = ci.jobs.put(job_of(shell("a")))
        delivery = "github 7d3f"
        by_key = [ci.builds.trigger("team/job", cause=cause) for cause in (delivery, f"Idempotency-Key {delivery}")]
        told = ci.builds.start(version, Trigger("github"), [delivery])
        assert len({*by_key, told}) == 3
        assert ci.builds.start(version, Trigger("github"), [delivery]) == told
        assert ci.builds.trigger("team/job", cause=delivery) == by_key[0]

    @pytest.mark.parametrize("key", ["9b2e6f0c-8a6c-4b4e-9d54-0a8b6c1f2e3d", "Release 7", "r7"])
    def test_a_key_that_reads_like_no_services_is_remembered_as_it_always_was(self, ci: DistCI, key: str) -> None:
        """A request that a front end of the version before has served is the same one here."""
        version = ci.jobs.put(job_of(shell("a")))
        served = ci.builds.start(version, Trigger("manual"), [key])
        assert ci.builds.trigger("team/job", cause=key) == served

    def test_a_cause_starts_a_build_of_each_job_that_it_is_given_for(self, ci: DistCI) -> None:
        for job in ("team/a", "team/b"):
            ci.jobs.put(job_of(shell("a"), job=job))
        started = [str(ci.builds.trigger(job, cause="delivery 7")) for job in ("team/a", "team/b", "team/a")]
        assert started == ["team/a#1", "team/b#1", "team/a#1"]
