"""``distci cluster``: the system as a whole."""

from __future__ import annotations

from program import Home


class TestWeigh:
    def test_a_weight_is_shown_until_it_is_one_again(self, home: Home) -> None:
        home.ask("cluster", "weigh", "team/web", "3")
        assert home.json("cluster", "status")[0]["weights"] == {"team/web": 3.0}
        assert "team/web 3" in home.run("cluster", "status").stdout
        home.ask("cluster", "weigh", "team/web", "1")
        assert home.json("cluster", "status")[0]["weights"] == {}

    def test_a_weight_that_no_project_can_have_is_refused(self, home: Home) -> None:
        ran = home.run("cluster", "weigh", "team/web", "0")
        assert ran.returncode == 2
        assert "between 0.01 and 100" in ran.stderr
