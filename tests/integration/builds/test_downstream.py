"""Builds that follow on the end of others."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from integration.builds.playing import (
    after,
    before,
    break_writes,
    by_hand,
    end,
    ids,
    job_of,
    makes_build_of,
    over_a_lossy_line,
    shell,
    supersede,
)

from distci.app import DistCI
from distci.errors import ClaimLost, Damaged, InvalidJob, NoSuchBuild
from distci.model import BuildId, Result
from distci.process import WorkerProcess
from distci.store import keys

UNKNOWN_TYPE = job_of({"name": "a", "type": "unheard-of"}, job="team/next", triggers=after("team/job"))
VERSION = {"format": 1, "document": UNKNOWN_TYPE, "actor": "", "reason": "", "changed_s": 0.0, "deleted": False}
UNREADABLE = {
    "of a type that is not installed": (json.dumps(VERSION).encode(), "there is no type of task 'unheard-of'"),
    "no JSON": (b"{", "line 1"),
    "no version of a job": (b"[]", "not a version of a job"),
}
"""What may stand where a job is kept, and what is said of it."""


class TestDownstream:
    @pytest.mark.parametrize(("stored", "error"), UNREADABLE.values(), ids=UNREADABLE)
    def test_i9_a_downstream_job_that_cannot_be_read_keeps_no_build_from_its_end_and_is_on_its_record(
        self, system: Any, stored: bytes, error: str
    ) -> None:
        system.ci.store.put(keys.downstream("team/job", "team/next"), b"")
        system.ci.store.put(keys.job_version("team/next", 1), stored)
        system.ci.jobs.put(job_of(shell("b"), job="team/other", triggers=after("team/job")))

        view = system.run_tasks(shell("a"))

        assert (view.result, view.downstream) == (Result.PASSED, ("team/other#1",))
        assert list(view.unreadable_downstream) == ["team/next"]
        assert error in view.unreadable_downstream["team/next"]
        told = {reason.subject: reason for reason in system.ci.why.build(view.id)}["team/next"]
        assert (told.state, error in told.because) == ("not started", True)
        assert told.remedy.endswith("then distci build trigger team/next")

    def test_what_can_be_read_leaves_nothing_of_the_sort(self, system: Any) -> None:
        system.ci.jobs.put(job_of(shell("b"), job="team/other", triggers=after("team/job")))
        assert system.run_tasks(shell("a")).unreadable_downstream == {}

    def test_what_follows_on_a_build_is_started_once_and_knows_it(self, system: Any) -> None:
        for job in ("team/x", "team/y"):
            system.ci.jobs.put(job_of(shell("a"), job=job, triggers=after("team/job")))

        view = system.run_tasks(shell("a"))

        assert view.downstream == ("team/x#1", "team/y#1")
        for started in view.downstream:
            trigger = end(system.ci, started).trigger
            assert (trigger.kind, trigger.actor, trigger.upstream) == ("job", "team/job#1", view.id)

    @pytest.mark.parametrize(
        ("script", "started"),
        [("true", ["team/always#1", "team/passed#1"]), ("false", ["team/always#1", "team/failed#1"])],
    )
    def test_how_it_ended_decides_what_follows(self, system: Any, script: str, started: Sequence[str]) -> None:
        for on in ("passed", "failed", "always"):
            system.ci.jobs.put(job_of(shell("a"), job=f"team/{on}", triggers=after("team/job", on=on)))

        assert list(system.run_tasks(shell("a", script)).downstream) == started

    def test_after_a_cancelled_build_only_what_always_follows(self, ci: DistCI, employ: Any) -> None:
        for on in ("passed", "failed", "always"):
            ci.jobs.put(job_of(shell("a"), job=f"team/{on}", triggers=after("team/job", on=on)))
        ci.jobs.put(job_of(shell("a")))
        build = ci.builds.trigger("team/job")
        ci.builds.cancel(build)

        with employ(ci.lifecycle):
            assert end(ci, build).downstream == ("team/always#1",)

    def test_d08_once_though_archiving_is_broken_off_and_begun_again(
        self, system: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        system.ci.jobs.put(job_of(shell("a"), job="team/next", triggers=after("team/job")))
        record = keys.build_record(BuildId("team/job", 1))
        broken = break_writes(monkeypatch, record, 3, Damaged("broken on purpose"))

        view = system.run_tasks(shell("a"))
        end(system.ci, "team/next#1")

        assert next(broken, None) is None
        assert view.downstream == ("team/next#1",)
        assert ids(system.ci.builds.list("team/next")) == ["team/next#1"]

    @pytest.mark.parametrize("committed", [True, False])
    def test_d08_once_though_the_answer_is_lost(
        self, ci: DistCI, employ: Callable[..., WorkerProcess], committed: bool
    ) -> None:
        line, lifecycle = over_a_lossy_line(ci)
        ci.jobs.put(job_of(shell("a")))
        ci.jobs.put(job_of(shell("a"), job="team/next", triggers=after("team/job")))
        line.lose_answer(committed=committed, when=makes_build_of("team/next"))

        with employ(lifecycle):
            view = end(ci, ci.builds.trigger("team/job"))
            end(ci, "team/next#1")

        assert (line.lost, view.downstream) == (1, ("team/next#1",))
        assert ids(ci.builds.list("team/next")) == ["team/next#1"]

    @pytest.mark.parametrize("successor_is", ["later", "in between"])
    def test_d08_once_though_a_worker_goes_on_archiving_that_was_given_up(
        self, ci: DistCI, another: Callable[[], DistCI], successor_is: str
    ) -> None:
        ci.jobs.put(job_of(shell("a")))
        ci.jobs.put(job_of(shell("a"), job="team/next", triggers=after("team/job", on="always")))
        late = another()
        line, lifecycle = over_a_lossy_line(late)
        build = ci.builds.trigger("team/job")
        ci.builds.cancel(build)
        with by_hand(late.tickets, "control") as claim:
            zombie = late.lifecycle.plan(claim())
            assert zombie is not None
            supersede(ci, zombie)

        with by_hand(ci.tickets, "control") as claim:
            successor = claim()
            archive = partial(ci.lifecycle.archive, successor)
            if successor_is == "in between":
                before(line, makes_build_of("team/next"), archive)
            with pytest.raises((ClaimLost, NoSuchBuild)):
                lifecycle.archive(zombie)
            if successor_is == "later":
                archive()

        assert ci.builds.get(build).downstream == ("team/next#1",)
        assert ids(ci.builds.list("team/next")) == ["team/next#1"]

    def test_o04_each_takes_the_artifacts_of_the_build_that_it_follows_on(self, system: Any) -> None:
        library = job_of(
            shell("make", 'echo "$DISTCI_BUILD" > number'),
            {"name": "publish", "type": "publish-artifacts", "paths": ["number"]},
            job="team/library",
        )
        copy = {"name": "copy", "type": "copy-artifacts", "job": "team/library", "build": "upstream"}
        system.ci.jobs.put(job_of(copy, shell("say", "cat number"), triggers=after("team/library")))
        system.ci.jobs.put(library)

        libraries = [system.ci.builds.trigger("team/library") for _ in range(3)]
        followers = [end(system.ci, end(system.ci, build).downstream[0]) for build in libraries]

        assert [follower.trigger.upstream for follower in followers] == libraries
        assert [system.log(follower, "say") for follower in followers] == ["1\n", "2\n", "3\n"]

    def test_parameters_that_do_not_fit_fail_what_follows_and_say_so(self, system: Any) -> None:
        system.ci.jobs.put(job_of(shell("a"), job="team/next", triggers=after("team/job")))
        system.ci.jobs.put(
            job_of(
                shell("a"),
                job="team/next",
                parameters={"MUST": {"required": True}},
                triggers=after("team/job"),
            )
        )

        view = end(system.ci, system.run_tasks(shell("a")).downstream[0])

        assert view.result is Result.FAILED
        assert "parameters.MUST: a value is required" in view.reason

    @pytest.mark.parametrize(
        ("job", "upstream", "reason"),
        [
            ("team/a", "team/c", "in a circle: team/a -> team/b -> team/c -> team/a"),
            ("team/d", "team/d", "the job would start itself for ever"),
        ],
    )
    def test_d08_jobs_that_would_start_each_other_for_ever_are_refused(
        self, ci: DistCI, job: str, upstream: str, reason: str
    ) -> None:
        for name, earlier in (("team/a", None), ("team/b", "team/a"), ("team/c", "team/b")):
            ci.jobs.put(job_of(shell("x"), job=name, triggers=after(earlier) if earlier else []))

        with pytest.raises(InvalidJob, match=reason):
            ci.jobs.put(job_of(shell("x"), job=job, triggers=after(upstream)))
