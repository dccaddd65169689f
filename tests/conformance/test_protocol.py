"""The life of a ticket on real trees: claims, chains, lost answers, lost sessions, late-comers, permits."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import islice
from typing import Any, Protocol

import pytest
from waiting import wait_until

from distci.coordination.port import NODE_BYTES_MAX, Coordination, Create, Delete, Node, Operation, Write
from distci.errors import ClaimLost, CoordinationUnavailable, Invalid, NoSuchTicket, VersionConflict
from distci.protocol import Claim, Member, Offer, Permit, Sweeper, Ticket, Tickets, claiming, paths, permits
from distci.protocol.members import workers
from distci.protocol.records import Running, from_bytes, to_bytes
from distci.protocol.sweeps import EMPTY_S, GRACE_S, LOOK_S, ONCE_DAYS, SWEEP_S, TURN_S, WATCHERS
from distci.protocol.tickets import DAY_S, Step
from distci.protocol.tree import Tree
from distci.testing import CutCoordination, LossyCoordination

WAIT_S = 10.0


class Cluster(Protocol):
    def connect(self) -> Coordination: ...
    def expire(self, coordination: Coordination) -> None: ...


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A tree with a poster and as many workers as a test asks for, all taken down at its end."""

    def __init__(self, cluster: Cluster, stack: ExitStack) -> None:
        self.cluster = cluster
        self._stack = stack
        self.boss = Tickets(self.connect())

    def connect(self) -> LossyCoordination:
        coordination = self.cluster.connect()
        self._stack.callback(coordination.close)
        return CutCoordination(coordination)

    def worker(self, *kinds: str, slots: int = 1, labels: Sequence[str] = (), only: Sequence[str] = ()) -> Member:
        coordination = self.connect()
        member = Member(Tickets(coordination), Offer(kinds, labels, only), f"w{id(coordination)}", slots)
        self._stack.callback(member.leave)
        return member.join()

    def places(self) -> list[tuple[str, str]]:
        return sorted((view.place, view.token) for view in self.boss.list())

    def sweeper(self, clock: Clock) -> Sweeper:
        return Sweeper(self.boss, "s", lambda: ["s"], monotonic=clock)

    def transactions(self) -> int:
        """How many the poster has tried so far."""
        return int(vars(vars(self.boss.tree.coordination)["real"])["transactions"])

    def lose(self, claim: Claim) -> None:
        """Let the claim's heartbeat vanish and its worker not notice until somebody has the ticket, as when it is stopped or cut off."""
        self._pending_of(claim).add(claim.token)
        assert self.boss.tree.coordination.commit(Delete(paths.owner(claim.token)))

    def reclaim(self, claim: Claim) -> None:
        clock = Clock()
        sweeper = self.sweeper(clock)
        sweeper.sweep()
        clock.now += 60
        sweeper.sweep()
        self._pending_of(claim).discard(claim.token)

    def _pending_of(self, claim: Claim) -> set[str]:
        """Claims whose heartbeat their worker leaves alone for now."""
        pending: set[str] = vars(vars(claim)["_member"])["_pending"]
        return pending


@pytest.fixture
def bench(cluster: Cluster) -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(cluster, stack)


def lossy(member: Member) -> CutCoordination:
    coordination = member.tickets.tree.coordination
    assert isinstance(coordination, CutCoordination)
    return coordination


def claims_path(operations: Sequence[Operation]) -> bool:
    return any(isinstance(step, Create) and step.path.startswith(paths.RUNNING) for step in operations)


def ends_claim(operations: Sequence[Operation]) -> bool:
    return isinstance(operations[0], Delete) and operations[0].path.startswith(paths.RUNNING)


def posts(operations: Sequence[Operation]) -> bool:
    return any(isinstance(step, Create) and step.path.startswith(paths.QUEUE) for step in operations)


def test_a_ticket_is_claimed_and_finished(bench: Bench) -> None:
    bench.boss.post(Ticket("a", "x", {"n": 1}))
    claim = next(bench.worker("x").claims())
    assert (claim.token, claim.ticket.body, bench.places()) == ("a.1", {"n": 1}, [("running", "a.1")])
    claim.finish()
    assert bench.places() == []


def test_who_posts_into_a_tree_that_takes_nothing_is_told_so(bench: Bench) -> None:
    line = bench.connect()
    tickets = Tickets(line)
    for _ in range(20):
        line.lose_answer(committed=False, when=posts)

    with pytest.raises(CoordinationUnavailable, match="the tree takes nothing"):
        tickets.post(Ticket("a", "x"))

    assert bench.places() == []
    assert line.lost < 20


def test_posting_a_ticket_twice_is_refused(bench: Bench) -> None:
    assert bench.boss.post(Ticket("a", "x"))
    next(bench.worker("x").claims()).finish()
    assert not bench.boss.post(Ticket("a", "x"))
    assert bench.places() == []


@pytest.mark.parametrize("committed", [True, False])
def test_a_post_whose_answer_is_lost_happens_once(bench: Bench, committed: bool) -> None:
    line = bench.connect()
    tickets = Tickets(line)
    line.lose_answer(committed=committed, when=posts)
    assert tickets.post(Ticket("a", "x"))
    assert line.lost == 1
    assert bench.places() == [("waiting", "a.1")]


@pytest.mark.parametrize("committed", [True, False])
def test_a_claim_whose_answer_is_lost_is_held_once(bench: Bench, committed: bool) -> None:
    member = bench.worker("x")
    lossy(member).lose_answer(committed=committed, when=claims_path)
    bench.boss.post(Ticket("a", "x"))
    claim = next(member.claims())
    assert lossy(member).lost == 1
    assert (claim.token, [held.token for held in member.held]) == ("a.1", ["a.1"])
    claim.finish()
    assert bench.places() == []


@pytest.mark.parametrize("committed", [True, False])
def test_a_finish_whose_answer_is_lost_chains_once(bench: Bench, committed: bool) -> None:
    member = bench.worker("x")
    bench.boss.post(Ticket("a", "x"))
    claim = next(member.claims())
    lossy(member).lose_answer(committed=committed, when=ends_claim)
    claim.finish(follow=[Ticket("b", "y")], proof=lambda: any(view.token == "b.1" for view in bench.boss.list()))
    assert lossy(member).lost == 1
    assert bench.places() == [("waiting", "b.1")]


@pytest.mark.parametrize("committed", [True, False])
def test_a_finish_that_keeps_the_next_ticket_survives_a_lost_answer(bench: Bench, committed: bool) -> None:
    member = bench.worker("x")
    bench.boss.post(Ticket("a", "x"))
    claim = next(member.claims())
    lossy(member).lose_answer(committed=committed, when=ends_claim)
    kept = claim.finish(follow=[Ticket("b", "x")], keep=True)
    assert kept is not None
    assert (kept.token, bench.places()) == ("b.1", [("running", "b.1")])
    kept.finish()
    assert bench.places() == []


def test_a_kept_ticket_needs_no_transaction_of_its_own(bench: Bench) -> None:
    member = bench.worker("x")
    bench.boss.post(Ticket("a", "x"))
    claim = next(member.claims())
    kept = claim.finish(follow=[Ticket("b", "x"), Ticket("c", "x")], keep=True)
    assert kept is not None
    assert kept.token == "b.1"
    assert bench.places() == [("running", "b.1"), ("waiting", "c.1")]
    kept.finish()


def test_a_worker_with_others_in_line_keeps_nothing(bench: Bench) -> None:
    member = bench.worker("x")
    for name in "abc":
        bench.boss.post(Ticket(name, "x", project=name))
    claim = next(member.claims())
    assert claim.finish(follow=[Ticket("next", "x", project="a")], keep=True) is None
    assert ("waiting", "next.1") in bench.places()


def test_an_operation_that_is_refused_refuses_the_finish(bench: Bench) -> None:
    member = bench.worker("x")
    coordination = bench.boss.tree.coordination
    coordination.commit(Create("/jobs/j", b"1"))
    bench.boss.post(Ticket("a", "x"))
    claim = next(member.claims())
    coordination.commit(Write("/jobs/j", b"2"))
    with pytest.raises(VersionConflict):
        claim.finish(Write("/jobs/j", b"mine", 0), follow=[Ticket("b", "y")])
    assert bench.places() == [("running", "a.1")]
    claim.finish(Write("/jobs/j", b"mine", 1))


def test_a_follow_on_ticket_that_stands_in_the_queue_refuses_the_finish(bench: Bench) -> None:
    bench.boss.post(Ticket("a", "x"))
    claim = next(bench.worker("x").claims())
    refusals: list[VersionConflict] = []

    def finish() -> None:
        try:
            claim.finish(follow=[Ticket("b", "y", posted_ms=1), Ticket("b", "y", posted_ms=1)])
        except VersionConflict as error:
            refusals.append(error)

    thread = threading.Thread(target=finish, daemon=True)
    thread.start()
    thread.join(WAIT_S)

    assert len(refusals) == 1
    assert bench.places() == [("running", "a.1")]


def test_a_lost_session_with_living_work_is_adopted_again(bench: Bench) -> None:
    member = bench.worker("x")
    bench.boss.post(Ticket("a", "x"))
    claim = next(member.claims())
    old = member.tickets.tree.coordination.session.id
    bench.cluster.expire(lossy(member).real)

    def is_adopted() -> bool:
        stat = bench.boss.tree.coordination.exists(paths.owner("a.1"))
        return stat is not None and stat.owner != old

    wait_until(is_adopted, WAIT_S)
    assert not claim.lost.is_set()
    claim.finish(follow=[Ticket("b", "y")])
    assert bench.places() == [("waiting", "b.1")]


def test_a_worker_stands_under_workers_again_after_a_lost_session(bench: Bench) -> None:
    member = bench.worker("x")
    bench.cluster.expire(lossy(member).real)
    session = member.tickets.tree.coordination.session

    def stands() -> bool:
        stat = bench.boss.tree.coordination.exists(paths.worker(member.name))
        return stat is not None and stat.owner == session.id

    wait_until(stands, WAIT_S)
    bench.boss.post(Ticket("a", "x"))
    next(member.claims()).finish()


def test_a_claim_may_finish_before_it_is_adopted_again(bench: Bench) -> None:
    member = bench.worker("x")
    bench.boss.post(Ticket("a", "x"))
    claim = next(member.claims())
    bench.lose(claim)
    claim.finish()
    assert bench.places() == []


def test_a_heartbeat_that_comes_back_while_its_claim_finishes_does_not_outlive_it(bench: Bench) -> None:
    bench.boss.post(Ticket("a", "x"))
    member = bench.worker("x")
    claim = next(member.claims())
    bench.lose(claim)

    def comes_back(operations: Sequence[Operation]) -> bool:
        if ends_claim(operations) and Delete(paths.owner("a.1")) not in operations[:2]:
            lossy(member).real.commit(Create(paths.owner("a.1"), ephemeral=True))
        return False

    lossy(member).lose_answer(committed=False, when=comes_back)
    claim.finish()

    assert bench.places() == []
    assert bench.boss.tree.coordination.exists(paths.owner("a.1")) is None


def test_d01_a_ticket_whose_worker_died_is_claimed_again(bench: Bench) -> None:
    bench.boss.post(Ticket("a", "x"))
    claim = next(bench.worker("x").claims())
    bench.lose(claim)
    bench.reclaim(claim)
    assert bench.places() == [("waiting", "a.2")]
    assert next(bench.worker("x").claims()).token == "a.2"


def test_a_claim_that_still_beats_is_not_taken_over(bench: Bench) -> None:
    bench.boss.post(Ticket("a", "x"))
    claim = next(bench.worker("x").claims())
    bench.reclaim(claim)
    assert bench.places() == [("running", "a.1")]


class TestClaimsWithoutHeartbeat:
    """Whose turn it is to take them over, and when."""

    def sweepers(self, bench: Bench, token: str, clock: Clock) -> list[Sweeper]:
        """As many as look at a claim and one more, in the order of their turns."""
        names = [f"s{number}" for number in range(WATCHERS + 1)]
        self.live = sorted(
            names, key=lambda name: paths.digest(f"claims {paths.claim_bucket(token)} {name}", 26), reverse=True
        )
        return [Sweeper(bench.boss, name, lambda: self.live, monotonic=clock) for name in self.live]

    def lost(self, bench: Bench) -> Claim:
        bench.boss.post(Ticket("a", "x"))
        claim = next(bench.worker("x").claims())
        bench.lose(claim)
        return claim

    def test_they_are_left_alone_for_the_grace(self, bench: Bench) -> None:
        clock = Clock()
        sweeper = bench.sweeper(clock)
        self.lost(bench)

        moved = [sweeper.sweep()]
        clock.now += GRACE_S - 0.1
        moved.append(sweeper.sweep())
        clock.now += 0.2
        moved.append(sweeper.sweep())

        assert moved == [0, 0, 1]

    def test_who_becomes_the_first_knows_how_long_they_have_been_missed(self, bench: Bench) -> None:
        clock = Clock()
        first, second, *_ = self.sweepers(bench, self.lost(bench).token, clock)
        assert [first.sweep(), second.sweep()] == [0, 0]

        # When the first one ends before it is time
        del self.live[0]
        clock.now += GRACE_S

        assert second.sweep() == 1

    def test_who_becomes_the_first_and_knows_nothing_of_them_holds_nobody_up(self, bench: Bench) -> None:
        clock = Clock()
        newcomer, first, *_ = self.sweepers(bench, self.lost(bench).token, clock)
        assert first.sweep() == 0

        clock.now += GRACE_S + TURN_S

        assert [newcomer.sweep(), first.sweep()] == [0, 1]

    def test_the_next_one_takes_them_over_a_moment_later_if_the_first_does_not(self, bench: Bench) -> None:
        # Given a first one that stands still
        clock = Clock()
        _, second, third, fourth = self.sweepers(bench, self.lost(bench).token, clock)
        assert [sweeper.sweep() for sweeper in (second, third, fourth)] == [0, 0, 0]

        clock.now += GRACE_S
        assert [sweeper.sweep() for sweeper in (second, third, fourth)] == [0, 0, 0]
        clock.now += TURN_S

        assert [sweeper.sweep() for sweeper in (fourth, third, second)] == [0, 0, 1]

    def test_claims_of_a_worker_that_has_gone_are_missed_at_once_and_taken_over_when_it_is_time(
        self, bench: Bench
    ) -> None:
        clock = Clock()
        sweeper = bench.sweeper(clock)
        bench.boss.post(Ticket("a", "x"))
        member = bench.worker("x")
        next(member.claims())
        assert sweeper.look() == 0

        # When its session ends just after all was swept
        member.tickets.tree.coordination.close()
        wait_until(lambda: bench.boss.tree.coordination.exists(paths.worker(member.name)) is None)

        # Then nobody waits for the next sweep, neither to notice nor to act
        moved = []
        for seconds in (SWEEP_S / 2, GRACE_S / 2, GRACE_S / 2):
            clock.now += seconds
            moved.append(sweeper.look())
        assert moved == [0, 0, 1]

    def test_a_look_between_sweeps_reads_one_list_as_long_as_nobody_has_gone(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = Clock()
        sweeper = bench.sweeper(clock)
        bench.worker("x")
        sweeper.look()
        asked: list[str] = []
        line = bench.boss.tree.coordination

        def ask(call: Callable[[str], Any], path: str) -> Any:
            asked.append(path)
            return call(path)

        for verb in ("read", "children", "exists", "commit"):
            monkeypatch.setattr(line, verb, partial(ask, getattr(line, verb)))

        clock.now += LOOK_S
        sweeper.look()

        assert asked == [paths.WORKERS]


def test_a_claim_whose_fate_nobody_knows_is_given_back_though_the_tree_goes_away_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = bench.worker("x")
    line = lossy(member)
    bench.boss.post(Ticket("a", "x"))
    outage = paths.running("a.1")

    def read(path: str) -> Node | None:
        nonlocal outage
        if path == outage:
            outage = ""
            raise CoordinationUnavailable("away on purpose")
        return line.real.read(path)

    def interrupts(operations: Sequence[Operation]) -> bool:
        if any(step.path == outage for step in operations):
            line.real.commit(*operations)
            raise KeyboardInterrupt
        return False

    monkeypatch.setattr(line, "read", read)
    line.lose_answer(committed=True, when=interrupts)
    with pytest.raises(KeyboardInterrupt):
        next(member.claims())

    wait_until(lambda: bench.places() == [("waiting", "a.2")], WAIT_S)


def test_c10_whatever_call_of_a_claim_comes_to_nothing_its_slot_is_free_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a worker with one slot and much to do, some of which it passes on with each claim
    monkeypatch.setattr(claiming, "BATON_S", 0.0)
    bench.boss.post(*(Ticket(f"{number}", "x") for number in range(50)))
    member = bench.worker("x")
    line = lossy(member)
    left, has_failed = 0, True

    def check() -> None:
        nonlocal left, has_failed
        if threading.current_thread() is threading.main_thread():
            left -= 1
            if left == 0:
                has_failed = True
                raise CoordinationUnavailable("away on purpose")

    monkeypatch.setattr(line, "_check", check)
    failed = 0
    done: list[str] = []
    while has_failed:
        # When each of its calls is the one that fails
        bench.boss.tree.commit(Create(paths.idle("x;;", "another")))
        failed += 1
        left, has_failed = failed, False
        # Then it goes on all the same
        done += map(_finished, islice(member.claims(), 2))

    assert failed > 5
    assert sorted(done + [token.partition(".")[0] for _, token in bench.places()], key=int) == list(map(str, range(50)))


def _finished(claim: Claim) -> str:
    claim.finish()
    return claim.ticket.id


def test_d26_a_worker_whose_own_node_is_spoilt_still_adopts_its_claims(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    member = bench.worker("x")
    bench.boss.post(Ticket("a", "x"))
    claim = next(member.claims())
    bench.boss.tree.commit(Write(paths.worker(member.name), b"spoilt"))
    keeper = f"keeper of {member.name}"
    wait_until(lambda: "came to nothing" in caplog.text or keeper not in [it.name for it in threading.enumerate()])

    bench.cluster.expire(lossy(member))

    session = lossy(member).session

    def is_adopted() -> bool:
        stat = bench.boss.tree.coordination.exists(paths.owner(claim.token))
        return stat is not None and stat.owner == session.id

    wait_until(is_adopted, 30)


class TestClaimsThatDoNotGetOn:
    """Their workers live, and are stuck."""

    LIMIT_S = 0.2

    def sweep_until_moved(self, bench: Bench) -> None:
        sweeper = Sweeper(bench.boss, "s", lambda: ["s"], overdue_grace_s=0)
        wait_until(lambda: sweeper.sweep() == 1)

    def test_c08_they_are_taken_over_and_their_worker_learns_of_it(self, bench: Bench) -> None:
        # Given a claim whose heart beats
        bench.boss.post(Ticket("a", "x", limit_s=self.LIMIT_S))
        member = bench.worker("x")
        claim = next(member.claims())
        changed = threading.Event()
        claim.watch(changed)

        # When nobody renews it for as long as its ticket says
        self.sweep_until_moved(bench)

        # Then others may have it, and nothing of it is left
        assert bench.places() == [("waiting", "a.2")]
        assert bench.boss.tree.coordination.exists(paths.owner("a.1")) is None
        assert changed.wait(10)
        claim.watch(changed)
        assert claim.lost.is_set()
        with pytest.raises(ClaimLost):
            claim.finish(follow=[Ticket("late", "x")])
        assert next(bench.worker("x").claims()).token == "a.2"

    def test_c08_they_are_left_alone_for_the_grace_and_if_they_get_on_after_all(self, bench: Bench) -> None:
        clock = Clock()
        sweeper = Sweeper(bench.boss, "s", lambda: ["s"], overdue_grace_s=30, monotonic=clock)
        bench.boss.post(Ticket("a", "x", limit_s=2))
        claim = next(bench.worker("x").claims())
        tree = bench.boss.tree
        made_ms = _modified_ms(bench, "a.1")
        wait_until(lambda: tree.now_ms() > made_ms + 2000)

        # When it is late for a moment, and renewed
        moved = [sweeper.sweep()]
        clock.now += 29
        moved.append(sweeper.sweep())
        claim.renew()
        clock.now += 2
        moved.append(sweeper.sweep())

        # Then it stands
        assert moved == [0, 0, 0]
        assert _modified_ms(bench, "a.1") > made_ms
        claim.finish()

    def test_those_that_get_on_write_seldom_and_those_without_a_limit_never(self, bench: Bench) -> None:
        bench.boss.post(Ticket("a", "x", limit_s=3600), Ticket("b", "x"))
        member = bench.worker("x", slots=2)
        stream = member.claims()
        claims = [next(stream), next(stream)]
        made_ms = {claim.token: _modified_ms(bench, claim.token) for claim in claims}

        for claim in claims:
            for _ in range(100):
                claim.renew()

        assert {claim.token: _modified_ms(bench, claim.token) for claim in claims} == made_ms
        assert Sweeper(bench.boss, "s", lambda: ["s"], overdue_grace_s=0).sweep() == 0

    def test_one_whose_heart_stops_meanwhile_is_taken_over_once(self, bench: Bench) -> None:
        bench.boss.post(Ticket("a", "x", limit_s=self.LIMIT_S))
        bench.lose(next(bench.worker("x").claims()))
        sweeper = Sweeper(bench.boss, "s", lambda: ["s"], grace_s=0, overdue_grace_s=0)

        wait_until(lambda: sweeper.sweep() == 1)

        assert (sweeper.sweep(), bench.places()) == (0, [("waiting", "a.2")])


def _modified_ms(bench: Bench, token: str) -> int:
    stat = bench.boss.tree.coordination.exists(paths.running(token))
    assert stat is not None
    return stat.modified_ms


def test_the_tree_tells_its_own_time_and_seldom_needs_a_write_for_it(bench: Bench) -> None:
    clock = Clock()
    tree = Tree(bench.boss.tree.coordination, monotonic=clock)
    first_ms = tree.now_ms()
    version = _version(tree, paths.RUNNING)

    # Our own clock counts on for a while, and no longer
    clock.now += 59
    assert tree.now_ms() == first_ms + 59_000
    assert _version(tree, paths.RUNNING) == version
    clock.now += 1
    assert tree.now_ms() < first_ms + 59_000
    assert _version(tree, paths.RUNNING) == version + 1


def _version(tree: Tree, path: str) -> int:
    stat = tree.coordination.exists(path)
    assert stat is not None
    return stat.version


def test_d15_a_late_comer_is_refused_at_the_fence(bench: Bench) -> None:
    bench.boss.post(Ticket("a", "x"))
    claim = next(bench.worker("x").claims())
    bench.lose(claim)
    bench.reclaim(claim)
    successor = next(bench.worker("x").claims())
    with pytest.raises(ClaimLost):
        claim.finish(Create("/jobs/late"), follow=[Ticket("late", "y")])
    assert claim.lost.is_set()
    successor.finish(follow=[Ticket("right", "y")])
    assert bench.places() == [("waiting", "right.1")]
    assert bench.boss.tree.coordination.read("/jobs/late") is None


def test_a_superseded_claim_is_not_adopted_again(bench: Bench) -> None:
    member = bench.worker("x")
    bench.boss.post(Ticket("a", "x"))
    claim = next(member.claims())
    bench.lose(claim)
    bench.reclaim(claim)
    bench.cluster.expire(lossy(member).real)
    assert claim.lost.wait(10)


def test_a_claim_that_is_just_ending_is_not_lost_to_whoever_looks_after_heartbeats(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = bench.worker("x")
    bench.boss.post(Ticket("a", "x"))
    claim = next(member.claims())
    line = lossy(member)
    commit = line.commit

    def then_look(*operations: Operation) -> Any:
        done = commit(*operations)
        if any(isinstance(step, Delete) and step.path == paths.running(claim.token) for step in operations):
            member._adopt(claim)
        return done

    monkeypatch.setattr(line, "commit", then_look)
    claim.finish()
    assert not claim.lost.is_set()
    assert bench.places() == []


def test_of_two_sweepers_one_takes_over(bench: Bench) -> None:
    bench.boss.post(Ticket("a", "x"))
    bench.lose(next(bench.worker("x").claims()))
    clock = Clock()
    sweepers = [bench.sweeper(clock), bench.sweeper(clock)]
    moved = [sweeper.sweep() for sweeper in sweepers]
    clock.now += 60
    threads = [threading.Thread(target=lambda s=sweeper: moved.append(s.sweep())) for sweeper in sweepers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sum(moved), bench.places()) == (1, [("waiting", "a.2")])


def test_o02_a_poison_ticket_is_set_aside_after_its_attempts(bench: Bench) -> None:
    bench.boss.post(Ticket("a", "x", attempts=2))
    for _ in range(2):
        claim = next(bench.worker("x").claims())
        bench.lose(claim)
        bench.reclaim(claim)
    [view] = bench.boss.list()
    assert (view.place, view.token) == ("dead", "a.2")
    assert "was lost" in view.reason


def test_a_ticket_that_was_set_aside_can_be_put_back(bench: Bench) -> None:
    member = bench.worker("x")
    bench.boss.post(Ticket("a", "x", attempts=1))
    with pytest.raises(RuntimeError), next(member.claims()):
        raise RuntimeError("boom")
    [view] = bench.boss.list()
    assert (view.place, view.reason) == ("dead", "RuntimeError: boom")
    assert bench.boss.requeue("a").token == "a.2"
    with next(member.claims()) as claim:
        claim.finish()
    with pytest.raises(NoSuchTicket):
        bench.boss.requeue("a")


def test_d26_nodes_that_cannot_be_read_are_set_aside_and_harm_nobody(bench: Bench) -> None:
    bench.boss.post(Ticket("first", "x"))
    member = bench.worker("x")
    next(member.claims()).finish()
    tree = bench.boss.tree.coordination
    tree.commit(Create(f"{paths.QUEUE}/x/0/garbage"), Create(f"{paths.QUEUE}/x/0/5-0000-0abcdefgh-q.1", b"\xff{"))
    bench.boss.post(Ticket("a", "x"))
    finished: list[str] = []

    def work() -> None:
        for claim in member.claims():
            claim.finish()
            finished.append(claim.token)

    thread = threading.Thread(target=work)
    thread.start()
    wait_until(lambda: [place for place, _ in bench.places()] == ["dead", "dead"], WAIT_S)
    member.drain()
    thread.join(10)
    assert finished == ["a.1"]
    assert all(view.reason for view in bench.boss.list())


def test_a_claimed_node_that_cannot_be_read_is_set_aside(bench: Bench) -> None:
    token = "broken.1"
    bench.boss.tree.commit(Create(paths.running(token), b"[]"))
    clock = Clock()
    sweeper = bench.sweeper(clock)
    sweeper.sweep()
    clock.now += 60
    sweeper.sweep()
    assert bench.places() == [("dead", token)]


def spoil(ticket: Ticket) -> bytes:
    """The bytes of a ticket whose guard and permit the tree cannot have."""
    return ticket.to_bytes().replace(b"/jobs/none", b"nonsense").replace(b'["db"', b'[""')


@pytest.mark.parametrize(
    "content",
    [
        spoil(Ticket("b", "x", guard="/jobs/none")),
        spoil(Ticket("b", "x", permits=[Permit("db", 1)])),
        b"\xff" * NODE_BYTES_MAX,
        b"\x00" * NODE_BYTES_MAX,
    ],
    ids=["guard", "permit", "long", "control characters"],
)
def test_d26_a_ticket_that_no_transaction_can_carry_is_set_aside_and_harms_nobody(bench: Bench, content: bytes) -> None:
    bench.boss.commit(post=[Ticket("a", "x", priority=9)])
    bad = Create(f"{paths.QUEUE}/x/0/{Ticket('b', 'x', posted_ms=1).name()}", content)
    assert bench.boss.tree.commit(bad).committed

    claim = next(bench.worker("x").claims())

    assert claim.token == "a.1"
    assert bench.places() == [("dead", "b.1"), ("running", "a.1")]


def test_d26_spoilt_names_that_are_the_same_in_two_pools_are_both_kept(bench: Bench) -> None:
    for kind in "xy":
        bench.boss.tree.commit(Create(f"{paths.QUEUE}/{kind}/0/garbage"))
    bench.boss.commit(post=[Ticket("a", "x")])
    next(bench.worker("x", "y").claims())
    assert [place for place, _ in bench.places()] == ["dead", "dead", "running"]


def test_d26_a_claim_on_record_that_no_transaction_can_carry_is_set_aside(bench: Bench) -> None:
    running = Running(Ticket("a", "x"), "w", "n", [("db", 0)]).to_bytes().replace(b"db", b"")
    bench.boss.tree.commit(Create(paths.running("a.1"), running))
    assert Sweeper(bench.boss, "s", lambda: ["s"], grace_s=0).sweep() == 1
    assert bench.places() == [("dead", "a.1")]


def test_d26_a_spoilt_name_in_the_queue_keeps_no_ticket_from_being_taken_back(bench: Bench) -> None:
    ticket = Ticket("a", "x")
    bench.boss.post(ticket)
    bench.boss.tree.commit(Create(f"{ticket.pool}/0/0-garbage"), Create(f"{ticket.pool}/0/zz"))
    withdrawal = bench.boss.withdrawal(ticket)
    assert withdrawal is not None
    assert bench.boss.tree.commit(withdrawal).committed


def test_d26_a_worker_that_cannot_be_read_hides_no_other(bench: Bench) -> None:
    member = bench.worker("x")
    for number, content in enumerate((b"", b'{"f": 1}', b'{"f": 99, "kinds": ["x"]}', b'{"f":1,"kinds":1}')):
        bench.boss.tree.commit(Create(paths.worker(f"bad-{number}"), content))
    assert [view.name for view in workers(bench.boss)] == [member.name]


def test_d26_a_spoilt_ticket_that_waits_for_a_permit_is_set_aside_by_a_sweep(bench: Bench) -> None:
    folder = paths.parked_for("db")
    good = Ticket("a", "x", permits=[Permit("db", 1)], posted_ms=1)
    bench.boss.tree.commit(Create(f"{folder}/0-bad", b"[]"), Create(f"{folder}/{good.name()}", good.to_bytes()))
    sweeper = bench.sweeper(Clock())

    moved = [sweeper.sweep(), sweeper.sweep()]

    assert moved == [0, 1]
    assert sorted(place for place, _ in bench.places()) == ["dead", "waiting"]


def test_a_control_node_that_cannot_be_read_holds_workers_up_until_it_is_mended(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.boss.post(Ticket("a", "x"))
    control = bench.boss.tree.coordination.read(paths.CONTROL)
    assert control is not None
    bench.boss.tree.commit(Write(paths.CONTROL, b"spoilt"))
    member = bench.worker("x")
    taken: list[Claim] = []
    thread = threading.Thread(target=lambda: taken.append(next(member.claims())), daemon=True)
    thread.start()
    wait_until(lambda: not thread.is_alive() or "claiming nothing" in caplog.text, WAIT_S)
    assert thread.is_alive()

    bench.boss.tree.commit(Write(paths.CONTROL, control.data))
    thread.join(WAIT_S)

    assert [claim.token for claim in taken] == ["a.1"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"guard": "nonsense"},
        {"permits": [Permit("", 1)]},
        {"permits": [Permit("..", 1)]},
        {"permits": [Permit("db", 0)]},
        {"permits": [Permit("db", 1001)]},
    ],
    ids=str,
)
def test_a_ticket_that_nobody_could_claim_is_refused(wrong: Mapping[str, Any]) -> None:
    with pytest.raises(Invalid):
        Ticket("a", "x", **wrong)


@pytest.mark.parametrize("reason", ["x" * 20_000, "file \udcff", "\x00" * 5000], ids=["long", "surrogate", "control"])
def test_a_ticket_is_set_aside_whatever_the_reason_says(bench: Bench, reason: str) -> None:
    bench.boss.post(Ticket("a", "x", attempts=1))
    member = bench.worker("x")
    next(member.claims()).give_back(reason)
    assert bench.places() == [("dead", "a.1")]
    assert member.held == []


def test_a_ticket_posted_anew_is_set_aside_in_place_of_its_namesake(bench: Bench) -> None:
    claims = bench.worker("x").claims()
    for reason in ("first", "second"):
        bench.boss.commit(post=[Ticket("a", "x", attempts=1)])
        ending = threading.Thread(target=next(claims).give_back, args=(reason,), daemon=True)
        ending.start()
        ending.join(WAIT_S)
        assert not ending.is_alive()
    assert [view.reason for view in bench.boss.list()] == ["second"]


def test_a_claim_that_cannot_be_swept_keeps_no_other_from_it(bench: Bench) -> None:
    def abandoned(ticket: Ticket, reason: str) -> Step | None:
        return Step([Write("nonsense", b"")]) if ticket.id == "a" else None

    bench.boss.abandoned = abandoned
    for ticket in (Ticket(name, "x") for name in "abcdef"):
        bench.boss.tree.commit(Create(paths.running(ticket.token), Running(ticket, "w", "n").to_bytes()))
    Sweeper(bench.boss, "s", lambda: ["s"], grace_s=0).sweep()
    assert bench.places() == [("running", "a.1"), *(("waiting", f"{name}.2") for name in "bcdef")]


def test_old_causes_are_forgotten_in_few_transactions(bench: Bench) -> None:
    tree, today = bench.boss.tree, int(bench.boss.clock() // DAY_S)
    for first in range(0, 1500, 500):
        old = [Create(paths.once(today - ONCE_DAYS - 1, f"cause {first + number}")) for number in range(500)]
        assert tree.commit(*old).committed
    kept = paths.once(today - ONCE_DAYS, "kept")
    tree.commit(Create(kept))
    before = bench.transactions()

    for _ in range(3):
        bench.sweeper(Clock()).sweep()

    assert bench.transactions() - before <= 3
    assert list(tree.coordination.children(paths.ONCE)) == [str(today - ONCE_DAYS)]
    assert tree.coordination.exists(kept)


def test_a_ticket_whose_guard_is_gone_is_void(bench: Bench) -> None:
    bench.boss.post(Ticket("void", "x", guard="/jobs/nothing"))
    bench.boss.post(Ticket("a", "x"))
    member = bench.worker("x")
    served: list[str] = []

    def serve() -> None:
        for claim in member.claims():
            served.append(claim.token)
            claim.finish()

    thread = threading.Thread(target=serve)
    thread.start()
    wait_until(lambda: bench.places() == [], WAIT_S)
    member.drain()
    thread.join()

    assert served == ["a.1"]


def test_labels_choose_who_may_claim(bench: Bench) -> None:
    bench.boss.post(Ticket("a", "x", labels=["os=lin*", "gpu"]))
    plain, able = bench.worker("x", labels=["os=linux"]), bench.worker("x", labels=["os=linux", "gpu"])
    bench.boss.post(Ticket("plain", "x"))
    assert next(plain.claims()).token == "plain.1"
    assert next(able.claims()).token == "a.1"


def test_a_worker_may_refuse_what_does_not_ask_for_its_labels(bench: Bench) -> None:
    bench.boss.post(Ticket("a", "x"))
    bench.boss.post(Ticket("b", "x", labels=["gpu"]))
    assert next(bench.worker("x", labels=["gpu"], only=["gpu"]).claims()).token == "b.1"


def test_slots_are_how_many_claims_a_worker_holds_at_once(bench: Bench) -> None:
    for name in "abcde":
        bench.boss.post(Ticket(name, "x"))
    member = bench.worker("x", slots=4)
    claims = member.claims()
    held = [next(claims) for _ in range(4)]
    taken: list[Claim] = []
    fifth = threading.Thread(target=lambda: taken.append(next(claims)))
    fifth.start()
    assert len(member.held) == 4
    assert [place for place, _ in bench.places()].count("running") == 4
    held[0].finish()
    fifth.join(10)
    assert len(taken) == 1


def test_an_idle_worker_is_woken_by_a_post(bench: Bench) -> None:
    member = bench.worker("x")
    taken: list[Claim] = []
    thread = threading.Thread(target=lambda: taken.append(next(member.claims())))
    thread.start()
    wait_until(lambda: bool(bench.boss.tree.coordination.children(f"{paths.IDLE}/{member.offer.name}")), WAIT_S)
    bench.boss.post(Ticket("a", "x"))
    thread.join(10)
    assert [claim.token for claim in taken] == ["a.1"]


@pytest.mark.parametrize("committed", [True, False])
def test_a_worker_that_goes_idle_during_a_post_is_woken_though_answers_are_lost(bench: Bench, committed: bool) -> None:
    member = bench.worker("x")
    idle = paths.idle(member.offer.name, member.name)
    boss = bench.boss.tree.coordination
    assert isinstance(boss, CutCoordination)
    bench.boss.tree.folder(idle.rpartition("/")[0])

    def goes_idle(operations: Sequence[Operation]) -> bool:
        if posts(operations):
            boss.real.commit(Create(idle))
        return posts(operations)

    boss.lose_answer(committed=True, when=goes_idle)
    boss.lose_answer(committed=committed, when=lambda operations: operations == (Delete(idle),))
    bench.boss.post(Ticket("a", "x"))

    assert boss.exists(idle) is None


def test_of_two_tickets_the_one_that_woke_nobody_wakes_who_goes_idle_meanwhile(bench: Bench) -> None:
    tree, boss = bench.boss.tree, bench.boss.tree.coordination
    assert isinstance(boss, CutCoordination)
    busy_too, late = paths.idle("x;;", "busy too"), paths.idle("y;;", "late")
    tree.commit(Create(paths.idle("x;;", "first")), Create(busy_too))
    tree.folder(late.rpartition("/")[0])

    def goes_idle(operations: Sequence[Operation]) -> bool:
        if posts(operations):
            boss.real.commit(Create(late))
        return False

    boss.lose_answer(committed=True, when=goes_idle)
    bench.boss.commit(post=[Ticket("a", "x"), Ticket("b", "y")])

    assert boss.exists(late) is None
    assert len(boss.children(f"{paths.IDLE}/x;;")) == 1


def test_a_hint_that_is_out_of_date_keeps_no_other_from_its_effect(bench: Bench) -> None:
    tree = bench.boss.tree
    own, another = Create(paths.idle("x;;", "own")), Delete(paths.idle("x;;", "another"))
    done = tree.commit(Create("/jobs/a"), hints=[another, own])
    assert (done.committed, list(done.hints)) == (True, [own])
    assert tree.coordination.exists(own.path)


def fill(bench: Bench, count: int, project: str, **keys: Any) -> None:
    """Post that many tickets of a project in few transactions."""
    names = [f"{project}{number}" for number in range(count)]
    for start in range(0, count, 100):
        bench.boss.post(*(Ticket(name, "x", project=project, **keys) for name in names[start : start + 100]))


def taken(claims: Iterator[Claim], count: int) -> list[Ticket]:
    """The next tickets that are claimed, each finished before the next."""
    tickets = []
    for claim in islice(claims, count):
        tickets.append(claim.ticket)
        claim.finish()
    return tickets


@pytest.mark.parametrize("served", [0, 5])
def test_c9_a_project_that_comes_to_a_thousand_tickets_of_another_starts_within_two_slots(
    bench: Bench, served: int
) -> None:
    fill(bench, 1000, "a")
    claims = bench.worker("x").claims()
    taken(claims, served)
    bench.boss.post(Ticket("first", "x", project="b"))
    assert "b" in [ticket.project for ticket in taken(claims, 2)]


def test_c9_what_is_urgent_is_claimed_before_all_that_waits(bench: Bench) -> None:
    fill(bench, 1000, "a")
    bench.boss.post(*(Ticket(f"urgent{number}", "x", project="a", priority=1) for number in range(10)))
    claims = bench.worker("x").claims()
    assert {ticket.priority for ticket in taken(claims, 10)} == {1}
    assert {ticket.priority for ticket in taken(claims, 5)} == {5}


def test_c9_what_waits_behind_a_long_queue_is_claimed_in_its_time_though_more_is_posted(bench: Bench) -> None:
    clock = Clock()
    bench.boss.clock = clock
    fill(bench, 300, "a", priority=6)
    member = bench.worker("x")
    member.tickets.clock = clock
    claims = member.claims()
    clock.now += 2 * 15 * 60
    old = 300
    # A round through the folders for each ticket of the fullest one, and each round takes one from every folder.
    for number in range(450):
        # As many are posted as are claimed, and each is as urgent by itself as what waits has become.
        bench.boss.post(Ticket(f"late{number}", "x", project="a", priority=5))
        [ticket] = taken(claims, 1)
        old -= not ticket.id.startswith("late")
    assert old == 0


def test_c9_a_project_that_is_weighed_has_that_many_turns(bench: Bench) -> None:
    fill(bench, 40, "a")
    fill(bench, 40, "b")
    claims = bench.worker("x").claims()
    taken(claims, 2)
    bench.boss.weigh("a", 3)
    taken(claims, 1)
    # Where in its turns the weight found the worker makes one more or less.
    assert Counter(ticket.project for ticket in taken(claims, 20))["a"] in (14, 15, 16)
    bench.boss.weigh("a", 1)
    assert bench.boss.control().weights == {}


@pytest.mark.parametrize("wrong", [0, -1, 1000, float("nan")])
def test_a_weight_that_no_project_can_have_is_refused(bench: Bench, wrong: float) -> None:
    with pytest.raises(Invalid):
        bench.boss.weigh("a", wrong)


def test_what_an_earlier_version_took_for_a_project_is_taken_back(bench: Bench) -> None:
    tree = bench.boss.tree
    node = tree.coordination.read(paths.CONTROL)
    assert node
    old = to_bytes(from_bytes(node.data, paths.CONTROL) | {"quotas": {"a//b": 3}, "weights": {"../x": 2}})
    assert tree.commit(Write(paths.CONTROL, old, node.version)).committed
    bench.boss.limit("a//b", None)
    bench.boss.weigh("../x", 1)
    assert (bench.boss.control().quotas, bench.boss.control().weights) == ({}, {})


def test_weighing_keeps_what_is_paused_and_pausing_keeps_the_weights(bench: Bench) -> None:
    bench.boss.pause("x")
    bench.boss.weigh("a", 2)
    bench.boss.pause("y")
    control = bench.boss.control()
    assert (control.paused, control.weights) == (("y",), {"a": 2.0})


def test_c9_a_chain_of_kept_tickets_makes_way_for_who_came_meanwhile(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distci.protocol.claiming.BACKLOG_AGE_S", 0.0)
    bench.boss.post(Ticket("a0", "x", project="a"))
    claims = bench.worker("x").claims()
    kept = next(claims).finish(follow=[Ticket("a1", "x", project="a")], keep=True)
    assert kept is not None
    bench.boss.post(Ticket("b", "x", project="b"))
    assert kept.finish(follow=[Ticket("a2", "x", project="a")], keep=True) is None
    assert [ticket.id for ticket in taken(claims, 2)] == ["b", "a2"]


@pytest.mark.parametrize(
    ("waits", "is_kept"),
    [
        ({"project": "a"}, True),
        ({"project": "b"}, False),
        ({"project": "a", "priority": 4}, False),
        ({"project": "a", "priority": 6}, True),
    ],
)
def test_c9_a_follow_on_passes_by_those_of_its_own_project_that_are_no_more_urgent(
    bench: Bench, waits: dict[str, Any], is_kept: bool
) -> None:
    bench.boss.post(Ticket("first", "x", project="a"))
    claims = bench.worker("x").claims()
    first = next(claims)
    bench.boss.post(Ticket("second", "x", project="a"), Ticket("other", "x", **waits))
    kept = first.finish(follow=[Ticket("first-1", "x", project="a")], keep=True)
    assert kept is not None
    # Those in line are known now.
    kept.finish()
    second = next(claims)
    assert (second.finish(follow=[Ticket("second-1", "x", project="a")], keep=True) is not None) == is_kept


def test_c9_a_chain_passes_by_its_own_project_for_a_moment_only(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distci.protocol.claiming.BACKLOG_AGE_S", 0.0)
    bench.boss.post(Ticket("a0", "x", project="a"), Ticket("b0", "x", project="a"))
    claims = bench.worker("x").claims()
    first = next(claims)
    assert first.finish(follow=[Ticket("next", "x", project="a")], keep=True) is None
    assert {ticket.id for ticket in taken(claims, 2)} == {"a0", "b0", "next"} - {first.ticket.id}


def test_a_long_queue_is_emptied_and_its_tickets_can_be_taken_back_from_it(bench: Bench) -> None:
    fill(bench, 400, "a")
    withdrawals = [bench.boss.withdrawal(Ticket(f"a{number}", "x", project="a")) for number in range(0, 400, 4)]
    assert bench.boss.tree.coordination.commit(*(step for step in withdrawals if step))
    claimed = taken(bench.worker("x").claims(), 300)
    assert sorted(ticket.id for ticket in claimed) == sorted(f"a{number}" for number in range(400) if number % 4)
    assert bench.places() == []


def test_folders_of_the_queue_that_stay_empty_are_removed_and_made_again(bench: Bench) -> None:
    fill(bench, 200, "a")
    member = bench.worker("x")
    claims = member.claims()
    taken(claims, 199)
    clock = Clock()
    sweeper = bench.sweeper(clock)
    for _ in range(3):
        sweeper.sweep()
        clock.now += EMPTY_S
    [pool] = bench.boss.tree.coordination.children(paths.QUEUE)
    assert len(bench.boss.tree.coordination.children(f"{paths.QUEUE}/{pool}")) == 1
    taken(claims, 1)
    for _ in range(4):
        sweeper.sweep()
        clock.now += EMPTY_S
    assert not bench.boss.tree.coordination.children(paths.QUEUE)
    bench.boss.post(Ticket("next", "x"))
    assert [ticket.id for ticket in taken(claims, 1)] == ["next"]


def test_who_is_woken_of_many_idle_workers_is_idle(bench: Bench) -> None:
    tree = bench.boss.tree
    idle = [paths.idle("x;;", f"w{number}") for number in range(50)]
    tree.commit(*map(Create, idle))
    bench.boss.post(Ticket("first", "x"))
    # Somebody else wakes all but one, while the poster still believes in all of them.
    others = list(tree.coordination.children(f"{paths.IDLE}/x;;"))[1:]
    tree.commit(*(Delete(paths.idle("x;;", other)) for other in others))
    bench.boss.post(Ticket("second", "x"))
    assert not tree.coordination.children(f"{paths.IDLE}/x;;")
    assert [view.place for view in bench.boss.list()] == ["waiting", "waiting"]


def test_each_of_many_posts_wakes_another_of_many_idle_workers(bench: Bench) -> None:
    tree = bench.boss.tree
    tree.commit(*(Create(paths.idle("x;;", f"w{number}")) for number in range(50)))
    for number in range(10):
        bench.boss.post(Ticket(f"t{number}", "x"))
    assert len(tree.coordination.children(f"{paths.IDLE}/x;;")) == 40


def test_an_idle_worker_looks_ever_more_seldom_at_tickets_that_others_were_woken_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distci.protocol.claiming.LEFT_TO_OTHERS_S", 0.5)
    tree, folder = bench.boss.tree, paths.front_row(paths.pool("x", ()))
    member = bench.worker("x")
    looks: list[str] = []
    children = lossy(member).children

    def counted(path: str) -> Sequence[str]:
        if path == folder:
            looks.append(path)
        return children(path)

    monkeypatch.setattr(lossy(member), "children", counted)
    woken = Create(f"{folder}/{Ticket('t0', 'x').name('other')}")
    tree.commit(woken)
    thread = threading.Thread(target=lambda: list(member.claims()))
    thread.start()
    number, end = 1, time.monotonic() + 4
    # There always is one, and never the same for long.
    while time.monotonic() < end:
        last, woken = woken, Create(f"{folder}/{Ticket(f't{number}', 'x').name('other')}")
        assert tree.commit(Delete(last.path), woken).committed
        number += 1
    member.drain()
    thread.join(10)
    assert len(looks) <= 5


def test_draining_ends_the_claims_and_leaves_what_is_held(bench: Bench) -> None:
    member = bench.worker("x", slots=2)
    bench.boss.post(Ticket("a", "x"))
    claims = member.claims()
    held = next(claims)
    rest: list[Claim] = []
    thread = threading.Thread(target=lambda: rest.extend(claims))
    thread.start()
    member.drain()
    thread.join(10)
    assert not thread.is_alive()
    assert rest == []
    held.finish()
    assert not member.held


def test_pausing_a_kind_is_exact_and_resuming_wakes(bench: Bench) -> None:
    member = bench.worker("x")
    bench.boss.post(Ticket("first", "x"))
    claims = member.claims()
    next(claims).finish()
    bench.boss.pause("x")
    bench.boss.post(Ticket("a", "x"))
    taken: list[Claim] = []
    thread = threading.Thread(target=lambda: taken.append(next(claims)))
    thread.start()
    wait_until(lambda: bool(bench.boss.tree.coordination.children(f"{paths.IDLE}/{member.offer.name}")), WAIT_S)
    assert bench.places() == [("waiting", "a.1")]
    bench.boss.pause()
    thread.join(10)
    assert [claim.token for claim in taken] == ["a.1"]


def test_a_parked_ticket_comes_back_when_it_is_due(bench: Bench) -> None:
    member = bench.worker("x")
    bench.boss.post(Ticket("a", "x"))
    next(member.claims()).park_until(int(bench.boss.clock() * 1000) - 1)
    assert bench.places() == [("parked", "a.2")]
    assert bench.sweeper(Clock()).sweep() == 1
    assert next(member.claims()).token == "a.2"


def test_a_ticket_parked_for_later_stays(bench: Bench) -> None:
    member = bench.worker("x")
    bench.boss.post(Ticket("a", "x"))
    next(member.claims()).park_until(int(bench.boss.clock() * 1000) + 3_600_000)
    assert bench.sweeper(Clock()).sweep() == 0
    assert bench.places() == [("parked", "a.2")]


def test_a_ticket_whose_woken_worker_died_goes_to_another_idle_one(bench: Bench) -> None:
    member = bench.worker("x")
    ghost = paths.idle(member.offer.name, "ghost")
    taken: list[str] = []

    def work() -> None:
        for claim in member.claims():
            claim.finish()
            taken.append(claim.ticket.id)

    thread = threading.Thread(target=work)
    thread.start()
    coordination = bench.boss.tree.coordination
    posted: list[str] = []
    while len(posted) == len(taken):
        # One of the two is chosen by chance; until it is the one that is not there.
        wait_until(lambda: member.name in coordination.children(f"{paths.IDLE}/{member.offer.name}"), WAIT_S)
        if coordination.exists(ghost) is None:
            bench.boss.tree.commit(Create(ghost))
        posted.append(f"t{len(posted)}")
        bench.boss.post(Ticket(posted[-1], "x"))
        wait_until(lambda: posted == taken or coordination.exists(ghost) is None, WAIT_S)

    sweeper = bench.sweeper(Clock())

    def is_swept_up() -> bool:
        sweeper.sweep()
        return posted == taken

    wait_until(is_swept_up, WAIT_S)
    member.drain()
    thread.join()


def test_nobody_wakes_a_worker_that_is_drained_while_it_holds_something(bench: Bench) -> None:
    # Given a worker that holds a claim, and is idle besides
    member = bench.worker("x", slots=2)
    bench.boss.post(Ticket("a", "x"))
    held: list[Claim] = []
    thread = threading.Thread(target=lambda: held.extend(member.claims()))
    thread.start()
    idle = paths.idle(member.offer.name, member.name)
    wait_until(lambda: bool(held) and bench.boss.tree.coordination.exists(idle) is not None)

    # When it is drained
    member.drain()
    thread.join()

    # Then it can be woken no more, and a ticket is left to nobody
    bench.boss.post(Ticket("b", "x"))
    assert [queued.name.reserved for queued in bench.boss.queue()] == [""]
    held[0].finish()


def test_a_ticket_that_comes_back_wakes_two_and_is_left_to_nobody(bench: Bench) -> None:
    # Given idle workers, of which some may be lost without anybody knowing
    bench.boss.post(Ticket("a", "x"))
    claim = next(bench.worker("x").claims())
    bench.lose(claim)
    ghosts = [paths.idle(Offer(["x"]).name, f"ghost{number}") for number in range(3)]
    bench.boss.tree.commit(*map(Create, ghosts))

    bench.reclaim(claim)

    [back] = bench.boss.queue()
    assert (back.name.attempt, back.name.reserved) == (2, "")
    assert sum(bench.boss.tree.coordination.exists(ghost) is not None for ghost in ghosts) == 1


def test_nobody_is_woken_again_for_what_is_paused(bench: Bench) -> None:
    bench.boss.pause("x")
    bench.boss.post(Ticket("a", "x"))
    idle = paths.idle(Offer(["x"]).name, "w")
    bench.boss.tree.commit(Create(idle))

    sweeper = bench.sweeper(Clock())
    for _ in range(3):
        sweeper.sweep()

    assert bench.boss.tree.coordination.exists(idle) is not None


def test_permits_are_never_exceeded_and_are_handed_on(bench: Bench) -> None:
    for number in range(12):
        bench.boss.post(Ticket(f"t{number}", "x", permits=[Permit("db", 2)]))
    done: list[str] = []
    holders: list[int] = []

    def work(member: Member) -> None:
        for claim in member.claims():
            holders.append(len(bench.boss.tree.coordination.children(paths.permit_folder("db"))))
            claim.finish()
            done.append(claim.token)

    members = [bench.worker("x") for _ in range(4)]
    threads = [threading.Thread(target=work, args=(member,)) for member in members]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(done) == 12, 30)
    for member in members:
        member.drain()
    for thread in threads:
        thread.join()
    assert len(set(done)) == 12
    assert max(holders) <= 2
    assert bench.boss.tree.coordination.children(paths.permit_folder("db")) in ((), [])


def taking(claims: Iterator[Claim], count: int) -> tuple[list[Claim], threading.Thread]:
    """What a worker has claimed so far, in a thread that ends with so many."""
    taken: list[Claim] = []
    thread = threading.Thread(target=lambda: taken.extend(islice(claims, count)), daemon=True)
    thread.start()
    return taken, thread


def parked(bench: Bench) -> Sequence[str]:
    return [token for place, token in bench.places() if place == "parked"]


def test_a6_a_project_has_no_more_claims_than_its_quota_and_others_go_on(bench: Bench) -> None:
    bench.boss.limit("team", 2)
    for number in range(4):
        bench.boss.post(Ticket(f"t{number}", "x", project="team/web"))
    bench.boss.post(Ticket("plan", "x", project="team/web", uses_quota=False), Ticket("other", "x", project="teams"))
    claims = bench.worker("x", slots=10).claims()

    first = [next(claims) for _ in range(4)]

    assert {"plan", "other"} < {claim.ticket.id for claim in first}
    later, thread = taking(claims, 2)
    wait_until(lambda: len(parked(bench)) == 2, WAIT_S)
    own = [claim for claim in first if claim.ticket.project == "team/web" and claim.ticket.uses_quota]
    own[0].finish()
    wait_until(lambda: len(later) == 1, WAIT_S)
    own[1].finish()
    thread.join(WAIT_S)
    assert len(later) == 2
    assert len(bench.boss.tree.coordination.children(paths.permit_folder("quota:team"))) == 2


@pytest.mark.parametrize("quota", [None, 3])
def test_a6_who_waits_for_a_quota_is_let_in_when_it_is_raised_or_lifted(bench: Bench, quota: int | None) -> None:
    bench.boss.limit("team", 1)
    for number in range(3):
        bench.boss.post(Ticket(f"t{number}", "x", project="team"))
    taken, thread = taking(bench.worker("x", slots=10).claims(), 3)
    wait_until(lambda: len(parked(bench)) == 2, WAIT_S)
    sweeper = bench.sweeper(Clock())

    bench.boss.limit("team", quota)

    def all_are_taken() -> bool:
        sweeper.sweep()
        return len(taken) == 3

    wait_until(all_are_taken, WAIT_S)
    thread.join(WAIT_S)


def test_a6_nobody_waits_for_a_quota_that_was_lifted_while_it_was_looked_at(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.boss.limit("team", 1)
    bench.boss.post(Ticket("a", "x", project="team"), Ticket("b", "x", project="team"))
    claims = bench.worker("x", slots=2).claims()
    next(claims)
    park = permits.park

    def late(*arguments: Any) -> Step:
        bench.boss.limit("team", None)
        monkeypatch.setattr(permits, "park", park)
        return park(*arguments)

    monkeypatch.setattr(permits, "park", late)

    assert next(claims).ticket.id in ("a", "b")


def test_a6_a_quota_bounds_what_is_kept_without_standing_in_line(bench: Bench) -> None:
    bench.boss.limit("team", 1)
    bench.boss.post(Ticket("a", "x", project="team/web"))
    claim = next(bench.worker("x").claims())

    assert claim.finish(follow=[Ticket("b", "x", project="team/web")], keep=True) is None


def test_a6_a_quota_of_a_project_and_one_around_it_both_hold(bench: Bench) -> None:
    bench.boss.limit("team", 2)
    bench.boss.limit("team/web", 1)
    for number in range(4):
        bench.boss.post(Ticket(f"t{number}", "x", project="team/docs" if number % 2 else "team/web"))
    claims = bench.worker("x", slots=10).claims()

    taken, thread = taking(claims, 4)
    wait_until(lambda: len(parked(bench)) == 2, WAIT_S)

    assert [claim.ticket.project for claim in taken].count("team/web") <= 1
    for number in range(2):
        taken[number].finish()
    thread.join(WAIT_S)
    assert len(taken) == 4


def test_a6_a_ticket_that_waits_for_a_quota_can_be_taken_back_even_when_it_is_lifted(bench: Bench) -> None:
    bench.boss.limit("team", 1)
    bench.boss.post(Ticket("a", "x", project="team"), Ticket("b", "x", project="team"))
    taking(bench.worker("x", slots=2).claims(), 2)
    wait_until(lambda: len(parked(bench)) == 1, WAIT_S)
    bench.boss.limit("team", None)
    [waiting] = parked(bench)

    withdrawal = bench.boss.withdrawal(Ticket(paths.ticket_of(waiting), "x", project="team"))

    assert withdrawal is not None
    assert bench.boss.tree.commit(withdrawal).committed


@pytest.mark.parametrize("wrong", [0, 1001, True, 1.5])
def test_a6_a_quota_that_no_project_can_have_is_refused(bench: Bench, wrong: Any) -> None:
    with pytest.raises(Invalid):
        bench.boss.limit("team", wrong)
    with pytest.raises(Invalid):
        bench.boss.limit("", 1)


def test_a_dead_holders_permit_is_freed_with_its_claim(bench: Bench) -> None:
    bench.boss.post(Ticket("a", "x", permits=[Permit("db", 1)], attempts=1))
    claim = next(bench.worker("x").claims())
    bench.boss.post(Ticket("b", "x", permits=[Permit("db", 1)]))
    waiting = bench.worker("x")
    taken: list[Claim] = []
    thread = threading.Thread(target=lambda: taken.append(next(waiting.claims())))
    thread.start()
    wait_until(lambda: ("parked", "b.1") in bench.places(), WAIT_S)
    bench.lose(claim)
    bench.reclaim(claim)
    thread.join(10)
    assert [item.token for item in taken] == ["b.1"]


def test_a_claim_that_waits_for_a_permit_comes_back_when_one_is_given_back(bench: Bench) -> None:
    bench.boss.post(Ticket("holder", "x", permits=[Permit("db", 1)]), Ticket("a", "y", attempts=1))
    holder = next(bench.worker("x").claims())
    claim = next(bench.worker("y").claims())
    full = permits.acquire(bench.boss.tree, [Permit("db", 1)])
    assert isinstance(full, permits.Full)

    claim.park_for(full)
    assert bench.places() == [("parked", "a.2"), ("running", "holder.1")]
    holder.finish()

    assert bench.places() == [("waiting", "a.2")]


def test_a_claim_does_not_wait_for_a_permit_that_has_been_given_back(bench: Bench) -> None:
    bench.boss.post(Ticket("holder", "x", permits=[Permit("db", 1)]), Ticket("a", "y"))
    holder = next(bench.worker("x").claims())
    claim = next(bench.worker("y").claims())
    full = permits.acquire(bench.boss.tree, [Permit("db", 1)])
    assert isinstance(full, permits.Full)
    holder.finish()

    with pytest.raises(VersionConflict):
        claim.park_for(full)

    assert bench.places() == [("running", "a.1")]


def test_waiting_for_a_permit_is_in_order_of_priority_and_age(bench: Bench) -> None:
    bench.boss.post(Ticket("holder", "x", permits=[Permit("db", 1)]))
    holder = next(bench.worker("x").claims())
    order = [("late", 5, 3), ("urgent", 1, 4), ("early", 5, 2)]
    full = permits.acquire(bench.boss.tree, [Permit("db", 1)])
    assert isinstance(full, permits.Full)
    for name, priority, posted_ms in order:
        ticket = Ticket(name, "y", priority=priority, posted_ms=posted_ms)
        bench.boss.post(ticket)
        next(bench.worker("y").claims()).park_for(full)
        full = permits.acquire(bench.boss.tree, [Permit("db", 1)])
        assert isinstance(full, permits.Full)

    assert [ticket.id for _, ticket in permits.waiting(bench.boss.tree, "db")] == ["urgent", "early", "late"]
    holder.finish()
    assert ("waiting", "urgent.2") in bench.places()


def test_a_ticket_that_waits_for_a_permit_that_nobody_holds_is_found_by_the_sweeper(bench: Bench) -> None:
    bench.boss.post(Ticket("holder", "x", permits=[Permit("db", 1)]), Ticket("a", "y"))
    holder = next(bench.worker("x").claims())
    full = permits.acquire(bench.boss.tree, [Permit("db", 1)])
    assert isinstance(full, permits.Full)
    next(bench.worker("y").claims()).park_for(full)
    assert bench.sweeper(Clock()).sweep() == 0

    [(name, slot)] = holder.running.slots
    bench.boss.tree.commit(Delete(paths.permit(name, slot)))

    assert bench.sweeper(Clock()).sweep() == 1
    assert ("waiting", "a.2") in bench.places()


def test_a_claim_waits_out_an_outage_before_it_finishes(bench: Bench) -> None:
    member = bench.worker("x")
    bench.boss.post(Ticket("a", "x"))
    claim = next(member.claims())
    lossy(member).is_cut = True
    thread = threading.Thread(target=claim.finish)
    thread.start()
    assert bench.places() == [("running", "a.1")]
    lossy(member).is_cut = False
    thread.join(10)
    assert bench.places() == []


def test_each_of_many_tickets_is_finished_once_by_many_workers(bench: Bench) -> None:
    total = 120
    finished: list[str] = []

    def work(member: Member) -> None:
        for claim in member.claims():
            with claim:
                claim.finish()
                finished.append(claim.token)

    members = [bench.worker("x", slots=2) for _ in range(5)]
    threads = [threading.Thread(target=work, args=(member,)) for member in members]
    for thread in threads:
        thread.start()
    for number in range(total):
        bench.boss.post(Ticket(f"t{number}", "x"))
    wait_until(lambda: len(finished) >= total, 60)
    for member in members:
        member.drain()
    for thread in threads:
        thread.join()
    assert sorted(finished) == sorted(f"t{number}.1" for number in range(total))
    assert bench.places() == []


@pytest.mark.parametrize("wrong", ["", "a/b", "x" * 101, "../up"])
def test_a_ticket_id_that_the_tree_cannot_carry_is_refused(wrong: str) -> None:
    with pytest.raises(Invalid):
        Ticket(wrong, "x")
