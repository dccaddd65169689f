"""``distci cluster``: the system as a whole."""

from __future__ import annotations

import json

import pytest
from program import Home

import distci
from distci.protocol import Ticket, depths


class TestPause:
    def test_a_kind_that_nobody_knows_is_paused_with_a_warning(self, busy: Home) -> None:
        ran = busy.run("cluster", "pause", "shel")
        paused = busy.json("cluster", "status")[0]["paused"]
        busy.ask("cluster", "resume")
        assert (ran.returncode, ran.stdout) == (0, "paused: shel\n")
        assert ran.stderr == (
            "distci: warning: shel is paused, but no live worker serves it and no ticket of it waits; did you mean 'shell'?\n"
        )
        assert paused == ["shel"]

    def test_kinds_that_are_named_no_more_are_claimed_again_and_it_is_said(self, busy: Home) -> None:
        busy.run("cluster", "pause", "shell", "git-checkout")

        ran = busy.run("cluster", "pause", "git-checkout")
        paused = busy.json("cluster", "status")[0]["paused"]
        busy.run("cluster", "resume")

        assert ran.stderr == "distci: claimed again, since only what is named is paused: shell\n"
        assert paused == ["git-checkout"]

    def test_kinds_that_are_served_or_wait_are_paused_without_a_warning(self, busy: Home) -> None:
        with distci.connect(busy.folder / ".local" / "share" / "distci") as system:
            system.tickets.post(Ticket("waits", "acme.robot"))
        ran = busy.run("cluster", "pause", "shell", "acme.robot", "*")
        busy.ask("cluster", "resume")
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "paused: * acme.robot shell\n", "")

    def test_some_kinds_are_resumed_and_it_is_said_what_is_still_paused(self, home: Home) -> None:
        home.ask("cluster", "pause", "shell", "status")

        assert home.ask("cluster", "resume", "shell").stdout == "paused: status\n"
        other = home.ask("cluster", "resume", "control")
        assert (other.stdout, other.stderr) == ("paused: status\n", "distci: warning: control was not paused\n")
        assert home.ask("cluster", "resume").stdout == "nothing is paused\n"

    def test_one_kind_of_all_that_are_paused_at_once_is_not_resumed(self, home: Home) -> None:
        home.ask("cluster", "pause", "*")

        refused = home.ask("cluster", "resume", "shell")

        assert (refused.exit_code, "`distci cluster resume` ends that" in refused.stderr) == (7, True)
        assert home.json("cluster", "resume", "*") == [{"paused": []}]

    def test_a_program_is_told_of_unknown_kinds_in_a_field(self, home: Home) -> None:
        ran = home.run("cluster", "pause", "*", "robot", "--json")
        assert json.loads(ran.stdout) == {"paused": ["*", "robot"], "unknown": ["robot"]}


class TestWeigh:
    def test_a_weight_is_shown_until_it_is_one_again(self, home: Home) -> None:
        told = home.ask("cluster", "weigh", "team/web", "3").stdout
        assert told == "team/web has 3 claims for each one of another project\n"
        assert home.json("cluster", "status")[0]["weights"] == {"team/web": 3.0}
        assert "team/web 3" in home.run("cluster", "status").stdout
        home.ask("cluster", "weigh", "team/web", "1")
        assert home.json("cluster", "status")[0]["weights"] == {}

    def test_a_quota_is_shown_until_it_is_lifted(self, home: Home) -> None:
        told = home.ask("cluster", "limit", "team/web", "3").stdout
        assert told == "team/web: at most 3 tasks run at once\n"
        assert home.json("cluster", "status")[0]["quotas"] == {"team/web": 3}

        assert home.ask("cluster", "limit", "team/web", "none").stdout == "team/web has no limit\n"
        assert home.json("cluster", "status")[0]["quotas"] == {}

    @pytest.mark.parametrize("wrong", ["0", "many", "1001", "1.5"])
    def test_a_quota_that_no_project_can_have_is_refused(self, home: Home, wrong: str) -> None:
        ran = home.run("cluster", "limit", "team/web", wrong)

        assert ran.returncode == 2
        assert wrong in ran.stderr

    @pytest.mark.parametrize("name", ["a//b", "../x", "a b", "/a", "a/b/c/d/e", "\N{SNOWMAN}"])
    def test_what_can_be_no_project_gets_neither_weight_nor_quota(self, home: Home, name: str) -> None:
        for command in ("limit", "weigh"):
            ran = home.run("cluster", command, name, "3")
            assert (ran.returncode, repr(name) in ran.stderr) == (2, True), ran.stderr
        assert home.json("cluster", "status")[0]["quotas"] == {}

    def test_a_weight_that_no_project_can_have_is_refused(self, home: Home) -> None:
        ran = home.run("cluster", "weigh", "team/web", "0")
        assert ran.returncode == 2
        assert "between 0.01 and 100" in ran.stderr


class TestHistory:
    def test_how_deep_the_queue_was_is_shown_by_kind(self, home: Home) -> None:
        home.ask("cluster", "resume")
        assert "nobody saw anything wait" in home.ask("cluster", "history").stdout
        with distci.connect(home.folder / ".local" / "share" / "distci") as system:
            now_ms = int(system.tickets.clock() * 1000)
            for minute, waiting in ((90, 3), (30, 8)):
                sample = depths.Sample(
                    now_ms - minute * depths.MINUTE_MS, {"shell": depths.Depth(waiting, minute * 10)}
                )
                assert depths.record(system.tickets.tree, sample)

        [titles, row] = home.ask("cluster", "history", "--hours", "2").stdout.splitlines()

        assert titles.split("  ")[0] == "KIND"
        assert (row.split()[:2], "15 min 0 s" in row) == (["shell", "8"], True)
        line = row.split()[-1]
        assert (len(line), {*line}, line.index("█") > line.index("▃")) == (48, {*"·▃█"}, True)
        assert [sample["kinds"]["shell"]["waiting"] for sample in home.json("cluster", "history")] == [3, 8]
        assert home.json("cluster", "history", "--hours", "1")[0]["kinds"]["shell"] == {"waiting": 8, "oldest_s": 300}
