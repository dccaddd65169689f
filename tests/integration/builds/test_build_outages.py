"""Builds while the tree or its answers are away."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import pytest
from integration.builds.playing import (
    PASSED,
    after,
    break_writes,
    cut_at,
    end,
    ids,
    job_of,
    live_tickets,
    makes_build_of,
    over_a_lossy_line,
    shell,
    states,
    writes,
)
from integration.conftest import tree
from waiting import wait_until

from distci.app import DistCI
from distci.builds import Builds
from distci.errors import Damaged, StoreUnavailable, Unavailable
from distci.lifecycle import Lifecycle
from distci.model import TaskState
from distci.process import WorkerProcess
from distci.protocol import Tickets
from distci.testing import CutCoordination


class TestOutages:
    def test_a_tree_that_is_away_is_said_to_be_and_nothing_is_begun(self, ci: DistCI) -> None:
        line = CutCoordination(ci.coordination)
        builds = Builds(Lifecycle(Tickets(line), ci.store, ci.jobs), ci.jobs)
        ci.jobs.put(job_of(shell("a")))
        before = tree(ci)

        line.is_cut = True
        with pytest.raises(Unavailable):
            builds.trigger("team/job")
        line.is_cut = False

        assert tree(ci) == before
        assert str(builds.trigger("team/job")) == "team/job#1"

    @pytest.mark.parametrize("committed", [True, False])
    @pytest.mark.parametrize("cause", ["", "delivery 7"])
    def test_a_lost_answer_doubles_no_build(self, ci: DistCI, committed: bool, cause: str) -> None:
        line, lifecycle = over_a_lossy_line(ci)
        ci.jobs.put(job_of(shell("a")))
        line.lose_answer(committed=committed, when=makes_build_of("team/job"))

        build = Builds(lifecycle, ci.jobs).trigger("team/job", cause=cause)

        assert (line.lost, str(build)) == (1, "team/job#1")
        assert ids(ci.builds.list("team/job")) == ["team/job#1"]
        assert [place for place, _ in live_tickets(ci)] == ["waiting"]

    @pytest.mark.parametrize("committed", [True, False])
    def test_a_tree_that_goes_away_with_the_answer_is_waited_for(self, ci: DistCI, committed: bool) -> None:
        line = CutCoordination(ci.coordination)
        builds = Builds(Lifecycle(Tickets(line), ci.store, ci.jobs), ci.jobs)
        ci.jobs.put(job_of(shell("a")))

        cut_at(line, makes_build_of("team/job"), committed=committed)
        with ThreadPoolExecutor(1) as person:
            asked = person.submit(builds.trigger, "team/job")
            wait_until(lambda: line.is_cut)
            line.is_cut = False
            build = asked.result(30)

        assert str(build) == "team/job#1"
        assert ids(ci.builds.list("team/job")) == ["team/job#1"]

    @pytest.mark.parametrize("committed", [True, False])
    @pytest.mark.parametrize("cause", ["", "delivery 7"])
    def test_a_person_is_told_that_the_tree_stays_away_and_may_ask_again(
        self, ci: DistCI, committed: bool, cause: str
    ) -> None:
        line = CutCoordination(ci.coordination)
        builds = Builds(Lifecycle(Tickets(line), ci.store, ci.jobs, patience_s=0.3), ci.jobs)
        ci.jobs.put(job_of(shell("a")))

        cut_at(line, makes_build_of("team/job"), committed=committed)
        with ThreadPoolExecutor(1) as person:
            asked = person.submit(builds.trigger, "team/job", cause=cause)
            try:
                with pytest.raises(Unavailable):
                    asked.result(10)
            finally:
                line.is_cut = False

        again = builds.trigger("team/job", cause=cause)
        assert str(again) == ("team/job#2" if committed and not cause else "team/job#1")
        assert ids(ci.builds.list("team/job"))[0] == str(again)

    def test_a_cancel_whose_answer_is_lost_with_the_tree_may_be_asked_for_again(self, ci: DistCI) -> None:
        line = CutCoordination(ci.coordination)
        builds = Builds(Lifecycle(Tickets(line), ci.store, ci.jobs, patience_s=0.3), ci.jobs)
        ci.jobs.put(job_of(shell("a")))
        build = ci.builds.trigger("team/job")

        cut_at(line, writes(build), committed=True)
        with ThreadPoolExecutor(1) as person:
            asked = person.submit(builds.cancel, build)
            try:
                with pytest.raises(Unavailable):
                    asked.result(10)
            finally:
                line.is_cut = False

        builds.cancel(build)
        assert ci.builds.get(build).state == "cancelling"

    @pytest.mark.parametrize("seed", [1, 2])
    def test_builds_over_a_line_that_loses_many_answers_end_as_over_any_other(
        self, ci: DistCI, employ: Callable[..., WorkerProcess], seed: int
    ) -> None:
        line, lifecycle = over_a_lossy_line(ci)
        ci.jobs.put(job_of(shell("a"), shell("b", needs=[]), shell("c", needs=["a", "b"])))
        ci.jobs.put(job_of(shell("d"), job="team/next", triggers=after("team/job")))
        chance = Random(seed)
        for _ in range(20):
            line.lose_answer(committed=chance.random() < 0.5, when=lambda operations: chance.random() < 0.3)

        with employ(lifecycle):
            view = end(ci, Builds(lifecycle, ci.jobs).trigger("team/job"))
            following = end(ci, view.downstream[0])

        assert line.lost > 5
        assert set((states(view) | states(following)).values()) == {PASSED}
        assert ids(ci.builds.list("team/job")) == ["team/job#1"]
        assert ids(ci.builds.list("team/next")) == ["team/next#1"]

    def test_c11_an_attempt_that_came_to_nothing_while_the_store_was_away_is_settled_when_it_is_back(
        self, system: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        outages = break_writes(monkeypatch, "/publish/*/outcome.json", 3, StoreUnavailable("away on purpose"))
        break_writes(monkeypatch, "/publish/*/artifacts/", 1, Damaged("broken on purpose"))

        view = system.run_tasks(
            shell("make", "echo > file"),
            {"name": "publish", "type": "publish-artifacts", "paths": ["file"], "attempts": 1},
        )

        assert states(view) == {"make": PASSED, "publish": TaskState.LOST}
        assert next(outages, None) is None
