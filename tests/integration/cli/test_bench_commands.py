"""``distci bench``: what a system does a second."""

from __future__ import annotations

from program import Home


class TestBench:
    def test_a_short_run_measures_and_leaves_no_tickets(self, home: Home) -> None:
        [figures] = home.json("bench", "tickets", "--tickets", "10", "--workers", "2")

        rates = [figures["cycle"][name] for name in ("tickets_per_s", "raw_per_s", "ratio", "commits_per_ticket")]
        assert all(rate > 0 for rate in rates)
        assert figures["crowd"]["tickets"] == 10
        assert home.json("ticket", "list") == []

    def test_builds_that_do_nothing_are_measured_and_leave_nothing(self, home: Home) -> None:
        [figures] = home.json("bench", "builds", "--builds", "2", "--tasks", "2", "--workers", "1")

        assert (figures["builds"], figures["tasks"]) == (2, 2)
        assert all(figures[name] > 0 for name in ("p50_s", "p99_s", "tasks_per_s", "raw_pairs_per_s", "ratio"))
        assert "there is no system in" in home.ask("job", "list").stderr
        assert not list(home.folder.rglob("*bench*"))

    def test_the_store_is_measured_beside_its_bare_client(self, home: Home) -> None:
        figures = home.json("bench", "store", "--count", "2")

        assert [(figure["operation"], figure["size_bytes"]) for figure in figures] == [
            ("put", 4096),
            ("get", 4096),
            ("put", 8 * 1024 * 1024),
            ("get", 8 * 1024 * 1024),
        ]
        assert all(figure["p50_ms"] > 0 and figure["ratio"] > 0 for figure in figures)

    def test_long_queues_and_idle_crowds_are_measured_and_leave_nothing(self, home: Home) -> None:
        options = ["--workers", "6", "--tickets", "12", "--few", "10", "--many", "100"]
        [figures] = home.json("bench", "scale", *options)

        assert figures["backlog"]["ratio"] > 0
        assert (figures["idle_crowd"]["workers"], figures["idle_crowd"]["tickets"]) == (6, 12)
        assert figures["idle_crowd"]["claims_tried_per_ticket"] >= 1
        assert "there is no system in" in home.ask("ticket", "list").stderr
        assert not list(home.folder.rglob("*bench*"))
