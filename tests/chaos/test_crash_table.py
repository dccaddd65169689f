"""A worker is killed, or stopped for longer than its session lives, at each point of a ticket's life; others go on.

The rows are those of the crash table in ``docs/protocol.rst``.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from itertools import product

import pytest
from chaos.conftest import Processes, is_stopped, wait_until_hit, wake_up
from chaos.serving import FINISHED, KIND, Fault, connect
from waiting import wait_until

from distci.protocol import Ticket, Tickets

FAULTS = [
    Fault(sort, is_after, number)
    for sort, is_after, number in product(("claim", "finish"), (False, True), (signal.SIGKILL, signal.SIGSTOP))
]


@pytest.fixture
def tickets(processes: Processes) -> Iterator[Tickets]:
    made = connect(processes.serving("test"))
    yield made
    made.tree.coordination.close()


def finished(tickets: Tickets) -> list[str]:
    return sorted(tickets.tree.coordination.children(FINISHED))


def finished_by(tickets: Tickets, ticket: str) -> str:
    node = tickets.tree.coordination.read(f"{FINISHED}/{ticket}")
    assert node is not None
    return node.data.decode()


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_ticket_and_its_follow_on_are_finished_once_whatever_hits_their_worker(
    processes: Processes, tickets: Tickets, fault: Fault
) -> None:
    """Rows 3 to 11: before and after the claim, before and after the finish."""
    # Given a worker that is hit
    tickets.post(Ticket("a", KIND, {"next": "b"}))
    victim = processes.start("victim", fault=fault, sweeps=False)
    wait_until_hit(victim, fault.number)

    # When there is another one
    processes.start("heir")
    wait_until(lambda: finished(tickets) == ["a", "b"])

    # Then each has been finished once, by the attempt that the fault left them
    took_effect = fault.sort == "finish" and fault.is_after
    was_claimed = fault.sort == "finish" or fault.is_after
    assert finished_by(tickets, "a") == ("a.1" if took_effect or not was_claimed else "a.2")
    assert list(tickets.list()) == []

    # And one that comes back after all changes nothing
    if fault.number == signal.SIGSTOP:
        wake_up(victim)
        victim.terminate()
        victim.join(60)
        assert (victim.exitcode, finished(tickets), list(tickets.list())) == (0, ["a", "b"], [])
        lost = ["lost a.1"] if was_claimed and not took_effect else []
        assert [line for line in processes.journal("victim") if line.startswith(("lost", "DOUBLE"))] == lost


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
def test_a_poster_that_dies_has_posted_once_or_not_at_all(
    processes: Processes, tickets: Tickets, is_after: bool
) -> None:
    """Rows 1 and 2."""
    poster = processes.post(Ticket("a", KIND), fault=Fault("post", is_after))
    wait_until_hit(poster, signal.SIGKILL)

    assert [view.token for view in tickets.list()] == (["a.1"] if is_after else [])
    assert tickets.post(Ticket("a", KIND)) is not is_after
    assert [view.token for view in tickets.list()] == ["a.1"]


def test_a_worker_stopped_for_a_shorter_time_than_its_session_lives_goes_on(
    processes: Processes, tickets: Tickets
) -> None:
    """Row 6."""
    tickets.post(Ticket("a", KIND))
    victim = processes.start("victim", fault=Fault("finish", False, signal.SIGSTOP), session_timeout="20s")
    wait_until(lambda: is_stopped(victim))
    wake_up(victim)
    wait_until(lambda: finished(tickets) == ["a"])

    assert finished_by(tickets, "a") == "a.1"


def test_c05_a_worker_back_before_anybody_took_over_keeps_its_claim(processes: Processes, tickets: Tickets) -> None:
    """Row 7: its session is over, its claim is not; nobody sweeps here."""
    tickets.post(Ticket("a", KIND, {"next": "b"}))
    victim = processes.start("victim", fault=Fault("finish", False, signal.SIGSTOP), sweeps=False)
    wait_until(lambda: is_stopped(victim))
    wait_until(lambda: [view.place for view in tickets.list()] == ["running"] and not _has_owner(tickets, "a.1"))
    wake_up(victim)
    wait_until(lambda: finished(tickets) == ["a", "b"])

    assert finished_by(tickets, "a") == "a.1"


def test_o02_a_ticket_that_kills_its_workers_is_set_aside_and_harms_no_other(
    processes: Processes, tickets: Tickets
) -> None:
    """Row 20."""
    tickets.post(Ticket("bad", KIND, {"poison": True}, attempts=3), Ticket("good", KIND))
    for number in range(3):
        wait_until_hit(processes.start(f"victim{number}"), signal.SIGKILL)
    processes.start("heir")
    wait_until(lambda: [(view.place, view.token) for view in tickets.list()] == [("dead", "bad.3")])

    assert finished(tickets) == ["good"]


def _has_owner(tickets: Tickets, token: str) -> bool:
    from distci.protocol import paths

    return tickets.tree.coordination.exists(paths.owner(token)) is not None
