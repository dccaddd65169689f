"""``distci ticket``: work that waits, runs or was set aside."""

from __future__ import annotations

import pytest
from integration.cli.homes import HELLO
from program import Home

import distci
from distci.protocol import Member, Offer, Ticket


class TestTickets:
    @pytest.fixture
    def dead(self, home: Home) -> str:
        """A ticket whose only attempt came to nothing."""
        with distci.connect(home.folder / ".local" / "share" / "distci") as system:
            system.tickets.post(Ticket("resize-1", "resize", {"picture": "cat.png"}, attempts=1))
            with Member(system.tickets, Offer(["resize"]), "worker") as member:
                for claim in member.claims():
                    with claim:
                        member.drain()
        return "resize-1"

    def test_one_that_was_set_aside_is_found_and_put_back(self, home: Home, dead: str) -> None:
        found = home.json("ticket", "list", "--place", "dead")
        shown = home.ask("ticket", "show", dead).stdout
        requeued = home.ask("ticket", "requeue", dead)
        [waiting] = home.json("ticket", "list", "--place", "waiting")

        assert [view["token"] for view in found] == ["resize-1.1"]
        assert "body: picture  cat.png" in shown
        assert requeued.stdout == "resize-1.2 waits again\n"
        assert waiting["ticket"]["id"] == dead

    def test_the_list_may_be_of_a_build_or_a_kind(self, home: Home) -> None:
        home.ask("job", "put", home.file(HELLO))
        for _ in range(2):
            home.ask("build", "trigger", "team/hello")
        with distci.connect(home.folder / ".local" / "share" / "distci") as system:
            system.tickets.post(Ticket("resize-1", "resize"))

        of_kind = home.json("ticket", "list", "--kind", "resize")
        of_build = home.json("ticket", "list", "--build", "team/hello#2")

        assert [view["ticket"]["id"] for view in of_kind] == ["resize-1"]
        assert [view["ticket"]["body"] for view in of_build] == [{"build": "team/hello#2", "action": "plan"}]

    @pytest.mark.parametrize("command", ["show", "requeue"])
    def test_one_that_is_nowhere_is_missing(self, busy: Home, command: str) -> None:
        assert busy.ask("ticket", command, "none").exit_code == 5
