"""Claims without a session on real trees: kept by renewals, given up without, and given again to who asks with the same key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from threading import Event

import pytest
from waiting import wait_until

from distci.coordination.port import Check, Coordination, Operation
from distci.errors import ClaimLost, CoordinationUnavailable
from distci.protocol import Offer, Permit, Sweeper, Ticket, Tickets, claims, leases, paths, sweeps
from distci.protocol.claiming import Claimer
from distci.protocol.claims import Claim
from distci.protocol.leases import Request, Standing, standing
from distci.protocol.members import workers
from distci.protocol.outcomes import Deadline
from distci.testing import CutCoordination

Connect = Callable[[], CutCoordination]


@pytest.fixture
def connect(cluster: object) -> Iterator[Connect]:
    """Connections to one empty tree."""
    with ExitStack() as stack:

        def connect() -> CutCoordination:
            coordination: Coordination = cluster.connect()  # type: ignore[attr-defined]
            stack.callback(coordination.close)
            return CutCoordination(coordination)

        yield connect


@pytest.fixture(autouse=True)
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that a test can wait for."""
    monkeypatch.setattr(leases, "LEASE_S", 1.0)
    monkeypatch.setattr(leases, "RENEW_AFTER_S", 0.1)


class Front:
    """A process that speaks for workers: dead, as far as the tree knows, as soon as it is left."""

    def __init__(self, coordination: CutCoordination) -> None:
        self.line = coordination
        self.tickets = Tickets(coordination)

    def claimer(self, key: str, worker: str = "lab@1") -> tuple[Request, Claimer]:
        request = Request(self.tickets, worker, Offer(("x",)), key)
        return request, Claimer(request, Event(), patience=Deadline(0))

    def claim(self, key: str, worker: str = "lab@1") -> Claim | None:
        return self.claimer(key, worker)[1].look()[0]

    def standing(self, token: str) -> Standing:
        found = standing(self.tickets, token)
        assert found
        return found


def sweep(front: Front) -> int:
    return Sweeper(front.tickets, "s", lambda: ["s"], grace_s=0, overdue_grace_s=0).sweep()


def places(front: Front) -> Sequence[tuple[str, str]]:
    return sorted((view.place, view.token) for view in front.tickets.list())


def is_claim(operations: Sequence[Operation]) -> bool:
    return isinstance(operations[0], Check) and operations[0].path == paths.CONTROL


def test_a_claim_outlives_who_spoke_for_its_worker_and_is_finished_by_another(connect: Connect) -> None:
    one, other = Front(connect()), Front(connect())
    one.tickets.post(Ticket("a", "x"))
    assert one.claim("k")
    one.line.close()
    assert sweep(other) == 0
    assert other.standing("a.1").renew(other.tickets)
    other.standing("a.1").claim(other.tickets).finish(follow=[Ticket("b", "y")])
    assert places(other) == [("waiting", "b.1")]


def test_a_claim_that_nobody_renews_is_given_up_after_its_lease(connect: Connect) -> None:
    front = Front(connect())
    front.tickets.post(Ticket("a", "x", permits=(Permit("p"),), limit_s=1000))
    assert front.claim("k")
    late = front.standing("a.1")
    wait_until(lambda: sweep(front) > 0)
    assert places(front) == [("waiting", "a.2")]
    assert list(front.tickets.tree.coordination.children(paths.permit_folder("p"))) == []
    assert not late.renew(front.tickets)
    with pytest.raises(ClaimLost):
        late.claim(front.tickets).finish()


def test_a_claim_that_is_renewed_stands(connect: Connect) -> None:
    front = Front(connect())
    front.tickets.post(Ticket("a", "x"))
    assert front.claim("k")

    def is_old() -> bool:
        found = front.standing("a.1")
        assert found.renew(front.tickets)
        assert sweep(front) == 0
        return found.age_s(front.tickets) > 3

    wait_until(is_old)


def test_a_request_that_was_served_is_served_the_same(connect: Connect) -> None:
    one, other = Front(connect()), Front(connect())
    one.tickets.post(Ticket("a", "x"), Ticket("b", "x"))
    first = one.claim("k")
    assert first
    request, claimer = other.claimer("k")
    assert claimer.look() == (None, 0.0)
    assert (request.served(), request.is_willing) == (first.token, False)
    assert other.claimer("k", "lab@2")[0].served() is None
    assert len(places(one)) == 2


@pytest.mark.parametrize("committed", [True, False])
def test_a_claim_whose_answer_was_lost_is_found_by_its_key(connect: Connect, committed: bool) -> None:
    """The process that claims loses the answer, and cannot find out: whoever is asked next can."""
    one, other = Front(connect()), Front(connect())
    one.tickets.post(Ticket("a", "x"))

    def cut(operations: Sequence[Operation]) -> bool:
        one.line.is_cut = is_claim(operations)
        return one.line.is_cut

    one.line.lose_answer(committed=committed, when=cut)
    with pytest.raises(CoordinationUnavailable):
        one.claim("k")
    request, claimer = other.claimer("k")
    if committed:
        assert request.served() == "a.1"
    else:
        claim, _ = claimer.look()
        assert claim
        assert claim.token == "a.1"


def test_a_finish_that_cannot_be_found_out_about_is_an_outage_and_can_be_said_again(connect: Connect) -> None:
    one, other = Front(connect()), Front(connect())
    one.tickets.post(Ticket("a", "x"))
    assert one.claim("k")
    ending = Claim(leases.Spokesman(one.tickets), one.standing("a.1").running, Deadline(0))
    one.line.is_cut = True
    with pytest.raises(CoordinationUnavailable):
        ending.finish()
    other.standing("a.1").claim(other.tickets).finish()
    assert places(other) == []


def test_a_worker_that_is_silent_for_its_lease_is_live_no_more(connect: Connect) -> None:
    front = Front(connect())
    front.claimer("k")[0].join()
    front.claimer("k", "lab@2")[0].join()
    assert [worker.name for worker in workers(front.tickets)] == ["lab@1", "lab@2"]

    def left() -> list[str]:
        front.claimer("k", "lab@2")[0].join()
        sweep(front)
        return [worker.name for worker in workers(front.tickets)]

    wait_until(lambda: left() == ["lab@2"])


def test_who_may_not_have_a_ticket_leaves_it_to_others(connect: Connect) -> None:
    front = Front(connect())
    front.tickets.post(Ticket("a", "x", {"n": 1}), Ticket("b", "x", {"n": 2}))
    choosy = Request(
        front.tickets, "lab@1", Offer(("x",)), "k", takes=lambda ticket: ticket.body["n"] == 2, is_choosy=True
    )
    claim, _ = Claimer(choosy, Event(), patience=Deadline(0)).look()
    assert claim
    assert claim.token == "b.1"
    nothing = Request(front.tickets, "lab@1", Offer(("x",)), "l", takes=lambda ticket: False, is_choosy=True)
    assert Claimer(nothing, Event(), patience=Deadline(0)).look()[0] is None
    assert front.tickets.waking.offers() == []


def test_a_late_duplicate_of_a_request_costs_the_ticket_that_it_is_given_no_attempt(connect: Connect) -> None:
    """Its claim is over, and so nobody knows of its key; nobody is told of the second claim, and no heartbeat follows."""
    front = Front(connect())
    front.tickets.post(Ticket("a", "x"))
    first = front.claim("k")
    assert first
    first.finish()
    front.tickets.post(Ticket("b", "x", attempts=1))
    assert front.claim("k")
    wait_until(lambda: sweep(front) > 0)
    assert places(front) == [("waiting", "b.2")]
    again = front.claim("l")
    assert again
    again.finish()
    assert places(front) == []


def test_a_claim_that_was_renewed_once_uses_up_its_attempt(connect: Connect) -> None:
    front = Front(connect())
    front.tickets.post(Ticket("a", "x", attempts=1))
    assert front.claim("k")

    def is_renewed() -> bool:
        assert front.standing("a.1").renew(front.tickets)
        return front.standing("a.1").stat.version > 0

    wait_until(is_renewed)
    wait_until(lambda: sweep(front) > 0)
    assert places(front) == [("dead", "a.1")]


def test_a_ticket_whose_workers_are_never_heard_of_is_set_aside_in_the_end(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps, "UNHEARD_MAX", 2)
    front = Front(connect())
    front.tickets.post(Ticket("a", "x", attempts=1))
    for number in (1, 2):
        assert front.claim(f"k{number}")
        wait_until(lambda: sweep(front) > 0)
    assert places(front) == [("dead", "a.2")]


def test_a_ticket_that_is_declined_uses_up_no_attempt_and_is_for_others_first(connect: Connect) -> None:
    front = Front(connect())
    front.tickets.post(Ticket("a", "x", attempts=1))
    declined = front.claim("k")
    assert declined
    declined.give_back("no room", is_declined=True)
    assert front.claim("l") is None
    other = front.claim("m", "lab@2")
    assert other
    assert other.token == "a.2"
    other.finish()
    assert places(front) == []


def test_who_is_alone_is_given_what_it_declined_after_a_moment(connect: Connect) -> None:
    front = Front(connect())
    front.tickets.post(Ticket("a", "x", attempts=1))
    declined = front.claim("k")
    assert declined
    declined.give_back("no room", is_declined=True)
    _, claimer = front.claimer("l")
    assert claimer.look()[0] is None
    wait_until(lambda: claimer.look()[0] is not None)
    assert places(front) == [("running", "a.2")]


def test_who_declined_a_ticket_is_not_woken_for_it(connect: Connect) -> None:
    front = Front(connect())
    for worker in ("lab@1", "lab@2"):
        assert front.claimer("k", worker)[1].look()[0] is None
    declined = Ticket("a", "x", declined_by="lab@1")
    woken = {front.tickets.waking.choose([declined], afresh=True)["a"].rpartition("/")[2] for _ in range(30)}
    assert [name.partition("~")[0] for name in woken] == ["lab@2"]


def test_a_ticket_that_all_decline_is_set_aside_in_the_end(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "DECLINED_MAX", 3)
    front = Front(connect())
    front.tickets.post(Ticket("a", "x", attempts=1))
    for number in range(1, 4):
        assert front.tickets.show("a").token == f"a.{number}"
        claim = front.claim(f"k{number}", f"lab@{number}")
        assert claim
        claim.give_back("no room", is_declined=True)
    assert places(front) == [("dead", "a.3")]
