"""Jobs, and every version that they had."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from integration.builds.playing import job_of, shell

from distci.app import DistCI
from distci.errors import NoSuchJob, VersionConflict


class TestJobVersions:
    @pytest.fixture
    def coordination_url(self) -> str | None:
        """Jobs are in the store; the tree has no part in them."""
        return None

    def say(self, text: str) -> dict[str, Any]:
        return job_of(shell("say", f"echo {text}"))

    def test_each_change_is_kept_with_who_made_it_and_why(self, ci: DistCI) -> None:
        ci.jobs.put(self.say("one"), actor="ann", reason="a start")
        ci.jobs.put(self.say("two"), actor="bob", reason="better")

        changes = list(ci.jobs.history("team/job"))

        assert [(change.version, change.actor, change.reason) for change in changes] == [
            (2, "bob", "better"),
            (1, "ann", "a start"),
        ]
        assert changes[1].document == self.say("one")

    def test_saving_what_is_in_force_changes_nothing(self, ci: DistCI) -> None:
        assert [ci.jobs.put(self.say("one")).version for _ in range(2)] == [1, 1]

    def test_a_change_made_on_an_old_version_is_refused(self, ci: DistCI) -> None:
        for text in ("one", "two"):
            ci.jobs.put(self.say(text))

        for expected in (0, 1, 3):
            with pytest.raises(VersionConflict, match=f"at version 2 now, not {expected}"):
                ci.jobs.put(self.say("three"), expected=expected)
        with pytest.raises(VersionConflict):
            ci.jobs.delete("team/job", expected=1)

        assert ci.jobs.get("team/job").document == self.say("two")
        assert ci.jobs.put(self.say("three"), expected=2).version == 3

    def test_of_many_changes_made_on_one_version_one_wins(self, ci: DistCI) -> None:
        ci.jobs.put(self.say("zero"))

        def change(text: str) -> str:
            try:
                ci.jobs.put(self.say(text), expected=1, actor=text)
            except VersionConflict:
                return ""
            return text

        with ThreadPoolExecutor(8) as people:
            winners = [text for text in people.map(change, "abcdefgh") if text]

        assert [change.actor for change in ci.jobs.history("team/job")] == [*winners, ""]
        assert len(winners) == 1

    def test_the_difference_of_two_versions_shows_what_was_changed(self, ci: DistCI) -> None:
        for text in ("one", "two"):
            ci.jobs.put(self.say(text))

        lines = ci.jobs.diff("team/job", 1, 2).splitlines()

        assert lines[:2] == ["--- team/job version 1", "+++ team/job version 2"]
        assert [line.split() for line in lines[2:] if line[0] in "+-"] == [
            ["-", '"script":', '"echo', 'one"'],
            ["+", '"script":', '"echo', 'two"'],
        ]

    def test_going_back_makes_a_new_version_of_an_old_document(self, ci: DistCI) -> None:
        for text in ("one", "two"):
            ci.jobs.put(self.say(text))

        back = ci.jobs.rollback("team/job", 1, actor="ann")

        assert (back.version, back.document, back.reason) == (3, self.say("one"), "back to version 1")
        with pytest.raises(NoSuchJob, match="version 9"):
            ci.jobs.rollback("team/job", 9)

    def test_a_deleted_job_keeps_its_history_and_can_come_back(self, ci: DistCI) -> None:
        ci.jobs.put(self.say("one"))
        ci.jobs.delete("team/job", actor="ann", reason="old")

        with pytest.raises(NoSuchJob):
            ci.jobs.get("team/job")
        assert list(ci.jobs.list()) == []
        assert [change.is_deleted for change in ci.jobs.history("team/job")] == [True, False]
        with pytest.raises(NoSuchJob, match="is its deletion"):
            ci.jobs.rollback("team/job", 2)
        assert ci.jobs.rollback("team/job", 1).version == 3
        assert list(ci.jobs.list()) == ["team/job"]

    def test_jobs_are_listed_by_prefix_and_from_where_one_left_off(self, ci: DistCI) -> None:
        for name in ("a/x", "team/b", "team/a", "teams/c"):
            ci.jobs.put(job_of(shell("x"), job=name))

        assert list(ci.jobs.list()) == ["a/x", "team/a", "team/b", "teams/c"]
        assert list(ci.jobs.list("team/")) == ["team/a", "team/b"]
        assert list(ci.jobs.list("team/", after="team/a")) == ["team/b"]
        assert list(ci.jobs.list("team", after="a/x", limit=2)) == ["team/a", "team/b"]
        assert list(ci.jobs.list(limit=0)) == []
