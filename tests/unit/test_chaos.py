"""The schedule and the checker of ``distci chaos``, which only compute."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import combinations
from math import inf
from typing import Any

import pytest

from distci.chaos.checker import Evidence, check
from distci.chaos.cost import Cost, Sort, Spread, Wait, costs, together
from distci.chaos.faults import Hit
from distci.chaos.findings import PROMISES, Violation, explain
from distci.chaos.gathering import steady
from distci.chaos.history import Commit, History, Put, read, settled
from distci.chaos.output_rules import Mark
from distci.chaos.schedule import LINK_KINDS, MEMBER_KINDS, STORE_KINDS, Fault, Kind, Theatre, schedule
from distci.coordination.port import Check, Create, Delete, Operation
from distci.protocol import Ticket, paths, transactions
from distci.protocol.records import Running
from distci.recording import COMMITTED, DONE, REFUSED, UNKNOWN

TICKET = Ticket("a", "work", posted_ms=1)
AGAIN = TICKET.again()
BUCKET = paths.queue_bucket(TICKET.pool, TICKET.id, 1)


def commit(at_s: float, *operations: Operation, process: str = "w", outcome: str = COMMITTED) -> Commit:
    return Commit(process, int(at_s), at_s, inf if outcome == "pending" else at_s + 0.5, outcome, tuple(operations))


def posted(at_s: float) -> Commit:
    return commit(at_s, transactions.post(TICKET, BUCKET), process="driver")


def claimed(at_s: float, ticket: Ticket = TICKET, **more: str) -> Commit:
    running = Running(ticket, "w", f"nonce {at_s}")
    return commit(at_s, *transactions.claim(running, f"{BUCKET}/{ticket.name()}", 0), **more)


def finished(at_s: float, ticket: Ticket = TICKET, **more: str) -> Commit:
    return commit(at_s, *transactions.end(Running(ticket, "w", "")), **more)


def taken_over(at_s: float, **more: str) -> Commit:
    end = transactions.end(Running(TICKET, "w", ""), has_owner=False)
    return commit(at_s, *end, transactions.post(AGAIN, BUCKET), **more)


def evidence(
    *commits: Commit, puts: Sequence[Put] = (), marks: Sequence[Mark] = (), left: Sequence[str] = ()
) -> Evidence:
    return Evidence(History(commits, puts), dict.fromkeys(left, b""), (), {}, {}, {}, marks)


def promises(found: Sequence[Violation]) -> list[str]:
    return sorted({violation.promise for violation in found})


class TestSchedule:
    THEATRE = Theatre(workers=3, session_s=2.0, has_links=True, has_store_links=True, members=3)

    def test_equal_seeds_give_equal_faults(self) -> None:
        assert schedule(7, 50, 60.0, self.THEATRE) == schedule(7, 50, 60.0, self.THEATRE)
        assert schedule(7, 50, 60.0, self.THEATRE) != schedule(8, 50, 60.0, self.THEATRE)

    @pytest.mark.parametrize("seed", range(20))
    def test_nobody_suffers_two_faults_at_once(self, seed: int) -> None:
        planned = schedule(seed, 50, 60.0, self.THEATRE)

        meeting = [(one, other) for one, other in combinations(planned, 2) if one.meets(other)]
        assert all(one.end_s <= other.at_s for one, other in meeting)
        assert len(meeting) > 50

    def test_only_what_is_there_is_broken(self) -> None:
        kinds = {fault.kind for fault in schedule(1, 200, 100.0, Theatre(workers=3, session_s=1.0))}

        assert kinds == {*Kind} - {*MEMBER_KINDS, *LINK_KINDS, *STORE_KINDS}

    def test_a_store_without_links_changes_no_fault(self) -> None:
        planned = schedule(7, 200, 100.0, Theatre(workers=3, session_s=2.0, has_links=True, members=3))

        assert not {fault.kind for fault in planned} & {*STORE_KINDS}
        assert {fault.kind for fault in planned} >= {*LINK_KINDS, *MEMBER_KINDS}

    def test_workers_are_killed_while_the_store_is_away_and_their_links_to_it_are_not_cut_twice(self) -> None:
        away, cut = Fault(1.0, Kind.STORE_AWAY, 0, 2.0), Fault(2.0, Kind.STORE_CUT, 1, 1.0)

        assert away.meets(cut)
        assert cut.meets(away)
        assert away.meets(away)
        assert cut.meets(Fault(2.0, Kind.KILL, 1, 1.0))
        assert not cut.meets(Fault(2.0, Kind.STORE_SILENCE, 2, 1.0))
        assert not any(away.meets(Fault(2.0, kind, 0, 1.0)) for kind in {*Kind} - {*STORE_KINDS})

    def test_every_kind_comes_up(self) -> None:
        assert {fault.kind for fault in schedule(1, 200, 100.0, self.THEATRE)} == {*Kind}


class TestHistory:
    def test_a_call_without_an_end_is_pending_and_a_line_that_was_cut_off_is_left_out(self) -> None:
        lines = [
            json.dumps({"n": 1, "t": 1.0, "commit": [["delete", "/a", -1]]}),
            json.dumps({"n": 2, "t": 2.0, "put": "k", "size": 1, "sha256": "d"}),
            json.dumps({"n": 1, "t": 3.0, "end": REFUSED}),
            '{"n": 3, "t":',
        ]

        history = read({"w": lines})

        assert [(call.outcome, call.ended_s) for call in history.commits] == [(REFUSED, 3.0)]
        assert [(put.key, put.outcome, put.ended_s) for put in history.puts] == [("k", "pending", inf)]

    @pytest.mark.parametrize("outcome", [UNKNOWN, "pending"])
    def test_what_others_built_on_took_effect(self, outcome: str) -> None:
        commits = [posted(1), claimed(2, outcome=outcome), finished(3, outcome=outcome)]

        assert [call.started_s for call in settled(commits, [])] == [1, 2, 3]
        assert [call.started_s for call in settled(commits, [paths.running("a.1")])] == [1, 2]
        assert [call.started_s for call in settled(commits, [f"{BUCKET}/{TICKET.name()}"])] == [1]

    def test_of_two_in_doubt_that_exclude_each_other_the_one_that_explains_more_counts(self) -> None:
        commits = [posted(1), claimed(2), finished(3, outcome="pending"), taken_over(4, outcome=UNKNOWN)]

        assert [call.started_s for call in settled(commits, [])] == [1, 2, 3]
        assert [call.started_s for call in settled(commits, [f"{BUCKET}/{AGAIN.name()}"])] == [1, 2, 4]


class TestChecker:
    def test_a_life_as_it_should_be(self) -> None:
        life = [posted(1), claimed(2), taken_over(3), claimed(4, AGAIN), finished(5, AGAIN)]
        marks = [Mark("start", "a.1"), Mark("start", "a.2"), Mark("end", "a.2")]

        assert check(evidence(*life, marks=marks)) == []

    def test_i1_a_ticket_that_is_posted_twice(self) -> None:
        assert "I1" in promises(check(evidence(posted(1), claimed(2), finished(3), posted(4), claimed(5), finished(6))))

    def test_i1_an_attempt_that_does_not_rise(self) -> None:
        same = commit(3, *transactions.end(Running(TICKET, "w", "")), transactions.post(TICKET, BUCKET))

        assert promises(check(evidence(posted(1), claimed(2), same, claimed(4), finished(5)))) == ["I1"]

    def test_i1_a_ticket_that_is_put_nowhere(self) -> None:
        assert promises(check(evidence(posted(1), commit(2, Delete(f"{BUCKET}/{TICKET.name()}"))))) == ["I1"]

    def test_i2_a_claim_without_a_heartbeat(self) -> None:
        claim = claimed(2)
        bare = commit(2, *(step for step in claim.operations if not isinstance(step, Create) or not step.ephemeral))

        assert promises(check(evidence(posted(1), bare, finished(3)))) == ["I2"]

    def test_i2_a_heartbeat_that_outlives_its_claim(self) -> None:
        bare = commit(3, Delete(paths.running("a.1")), Check(paths.CONTROL))

        assert promises(check(evidence(posted(1), claimed(2), bare))) == ["I2"]

    def test_i4_a_ticket_that_is_ended_twice(self) -> None:
        life = [posted(1), claimed(2), finished(3), posted(4), claimed(5), finished(6)]

        assert "I4" in promises(check(evidence(*life)))

    def test_rerun_a_script_that_ran_after_its_ticket_was_completed(self) -> None:
        marks = [Mark("start", "a.1"), Mark("end", "a.1"), Mark("start", "a.2")]

        assert promises(check(evidence(posted(1), claimed(2), finished(3), marks=marks))) == ["rerun"]

    def test_output_other_bytes_under_the_same_key_and_below_a_claim_of_somebody_else(self) -> None:
        key = "builds/j/000000001/tasks/t/a.1/log/0000000000000000"
        puts = [
            Put(process, 1, at_s, at_s, "done", key, 1, digest)
            for process, at_s, digest in (("w", 2.1, "x"), ("v", 2.2, "y"))
        ]

        found = check(evidence(posted(1), claimed(2), finished(3), puts=puts))

        assert [violation.what for violation in found] == [
            f"{key} was written twice with different bytes; a repeated write must be the same",
            "v wrote below a.1, which it never claimed",
        ]

    def test_left_a_node_that_nobody_needs_any_more(self) -> None:
        left = [paths.permit("p", 0), "/queue", "/queue/shell", "/queue/shell/0", "/permits/p"]

        (found,) = check(evidence(left=left))

        assert found.what == "1 nodes are left below /permits: /permits/p/0"


class TestCost:
    """The ticket is claimed at 2 and hit at 4, by default; sessions last for 2 seconds."""

    TAKEN_OVER = (posted(1), claimed(2), taken_over(7, process="v"), claimed(7.5, AGAIN), finished(9, AGAIN))

    def hit(self, kind: Kind, process: str = "w", began_s: float = 4.0, ended_s: float = 4.5) -> Hit:
        return Hit(Fault(0.0, kind, 0, 0.5), process, began_s, ended_s)

    def one(self, hits: Sequence[Hit], commits: Sequence[Commit], **more: Any) -> tuple[Sort, Cost]:
        """What the faults of the only sort that hit anything cost."""
        ((sort, cost),) = costs(hits, commits, 2.0, **more).by_sort.items()
        return sort, cost

    @pytest.mark.parametrize("kind", [Kind.KILL, Kind.KILL_IN_COMMIT, Kind.KILL_IN_WRITE])
    def test_the_wait_for_the_next_attempt_and_what_was_thrown_away_are_told_apart(self, kind: Kind) -> None:
        sort, cost = self.one([self.hit(kind)], self.TAKEN_OVER)

        assert sort is Sort.KILL
        assert (cost.hits, cost.wait, cost.thrown_away) == (1, Spread(3.5, 3.5), Spread(2.0, 2.0))
        assert (cost.limit_s, cost.over_limit, cost.taken_over) == (4.0, 0, Spread(3.0, 3.0))

    def test_waits_over_the_limit_are_named_with_all_that_went_wrong_meanwhile(self) -> None:
        life = [posted(1), claimed(2), taken_over(8, process="v"), claimed(9, AGAIN), finished(10, AGAIN)]
        others = [
            self.hit(Kind.KILL, "u", 3.0, 3.5),
            self.hit(Kind.SILENCE, "v", 5.0, 6.0),
            self.hit(Kind.KILL, "t", 9.5, 9.9),
            self.hit(Kind.KILL, "s", 0.5, 1.0),
        ]

        found = costs([self.hit(Kind.KILL), *others], life, 2.0)

        assert found.by_sort[Sort.KILL].over_limit == 1
        assert found.over_limit == [
            Wait(
                Kind.KILL,
                "w",
                "a.1",
                wait_s=5.0,
                thrown_away_s=2.0,
                taken_over_s=4.0,
                meanwhile=["kill of u at -1.0 s", "silence of v at +1.0 s"],
            )
        ]

    def test_what_several_performances_cost_is_told_as_that_of_one(self) -> None:
        longer = [posted(1), claimed(2), taken_over(8, process="v"), claimed(9, AGAIN), finished(10, AGAIN)]

        found = together([costs([self.hit(Kind.KILL)], life, 2.0) for life in (self.TAKEN_OVER, longer)])

        (cost,) = found.by_sort.values()
        assert (cost.hits, cost.wait, cost.over_limit) == (2, Spread(4.25, 5.0), 1)
        assert [wait.wait_s for wait in found.over_limit] == [5.0]

    def test_the_time_in_which_nobody_could_commit_is_not_that_of_the_kill(self) -> None:
        # Given a quorum that goes away at 4.5, and comes back at 6.5
        life = [posted(1), claimed(2), taken_over(8, process="v"), claimed(9, AGAIN), finished(10, AGAIN)]
        beats = [(3.0, 3.1), (4.2, 4.3), (6.2, 6.5), (6.6, 6.7)]
        hits = [self.hit(Kind.KILL), self.hit(Kind.QUORUM_PAUSE, "zookeeper0", 4.5, 6.0)]

        found = costs(hits, life, 2.0, beats=beats).by_sort

        assert (found[Sort.KILL].wait, found[Sort.KILL].outage) == (Spread(3.0, 3.0), Spread(2.0, 2.0))
        assert found[Sort.KILL].taken_over == Spread(2.0, 2.0)
        assert found[Sort.SERVER].wait == Spread(2.0, 2.0)

    def test_times_without_a_quorum_that_meet_are_counted_once(self) -> None:
        life = [posted(1), claimed(2), taken_over(8, process="v"), claimed(9, AGAIN), finished(10, AGAIN)]
        hits = [
            self.hit(Kind.KILL),
            self.hit(Kind.MEMBER_PAUSE, "zookeeper0", 4.5, 6.0),
            self.hit(Kind.LEADER_KILL, "zookeeper1", 5.0, 5.5),
        ]

        found = costs(hits, life, 2.0, beats=[(6.2, 6.5)]).by_sort

        assert found[Sort.KILL].outage == Spread(2.0, 2.0)

    def test_a_server_that_nobody_misses_takes_nothing_off_the_wait(self) -> None:
        hits = [self.hit(Kind.KILL), self.hit(Kind.MEMBER_KILL, "zookeeper0", 4.5, 6.0)]

        found = costs(hits, self.TAKEN_OVER, 2.0, beats=[(4.6, 4.7)]).by_sort

        assert (found[Sort.KILL].wait, found[Sort.KILL].outage) == (Spread(3.5, 3.5), Spread(0.0, 0.0))

    def test_a_pause_costs_its_length_unless_others_took_over(self) -> None:
        assert self.one([self.hit(Kind.PAUSE)], [posted(1), claimed(2), finished(5)])[1].wait == Spread(0.5, 0.5)
        sort, cost = self.one([self.hit(Kind.LONG_PAUSE)], self.TAKEN_OVER)
        assert (sort, cost.wait, cost.limit_s) == (Sort.PAUSE, Spread(3.5, 3.5), 4.0)

    def test_a_pause_that_nobody_could_end_a_session_in_is_told_with_what_kept_it_alive(self) -> None:
        hits = [
            self.hit(Kind.LONG_PAUSE, ended_s=10.0),
            self.hit(Kind.QUORUM_PAUSE, "zookeeper0", 4.5, 5.0),
        ]

        (found,) = costs(hits, [posted(1), claimed(2), finished(10.5)], 2.0, beats=[(5.2, 5.5)]).over_limit

        assert (found.wait_s, found.outage_s, found.taken_over_s) == (5.0, 1.0, None)
        assert found.meanwhile == ["quorum pause of zookeeper0 at +0.5 s"]

    def test_a_ticket_that_came_back_and_found_its_permit_taken_is_told_so(self) -> None:
        parked = f"{paths.PARKED}/p/{AGAIN.name()}"
        waits = commit(7.2, Delete(f"{BUCKET}/{AGAIN.name()}"), Create(parked))
        begins = commit(9, Delete(parked), *claimed(9, AGAIN).operations[1:])

        (found,) = costs([self.hit(Kind.KILL)], [*self.TAKEN_OVER[:3], waits, begins], 2.0).over_limit

        assert (found.taken_over_s, found.wait_s, found.found_permit_taken) == (3.0, 5.0, True)

    def test_a_claim_whose_own_worker_parked_its_ticket_was_not_taken_over(self) -> None:
        end = transactions.end(Running(TICKET, "w", ""))
        parked = Create(f"{paths.PARKED}/p/{AGAIN.name()}")
        life = [
            posted(1),
            claimed(2),
            commit(5, *end, parked),
            commit(9, Delete(parked.path), *claimed(9, AGAIN).operations[1:]),
        ]

        sort, cost = self.one([self.hit(Kind.PAUSE)], life)

        assert (sort, cost.wait, cost.taken_over) == (Sort.PAUSE, Spread(0.5, 0.5), None)

    def test_a_claim_that_its_worker_reclaimed_from_itself_was_lost(self) -> None:
        life = [posted(1), claimed(2), taken_over(8), claimed(9, AGAIN), finished(10, AGAIN)]

        _, cost = self.one([self.hit(Kind.LONG_PAUSE, ended_s=7.0)], life)

        assert (cost.wait, cost.taken_over) == (Spread(5.0, 5.0), Spread(4.0, 4.0))

    def test_a_cut_from_the_store_costs_what_the_first_write_had_to_wait_for(self) -> None:
        puts = [
            Put("w", number, started_s, ended_s, outcome, f"k{number}", 1, "d")
            for number, (started_s, ended_s, outcome) in enumerate([(4.2, 5.0, "StoreUnavailable"), (5.5, 7.0, DONE)])
        ]
        life = [posted(1), claimed(2), finished(8)]

        sort, cost = self.one([self.hit(Kind.STORE_CUT, ended_s=6.0)], life, puts=puts)

        assert (sort, cost.wait) == (Sort.LINK, Spread(2.8, 2.8))

    def test_a_fault_that_the_worker_survived_is_not_what_its_claim_was_lost_by(self) -> None:
        # Given a worker that was paused for a moment at 2.6, and killed at 4
        hits = [self.hit(Kind.PAUSE, began_s=2.6, ended_s=2.8), self.hit(Kind.KILL)]
        sign = commit(3.0, Check("/control"))

        survived = costs(hits, [posted(1), claimed(2), sign, *self.TAKEN_OVER[2:]], 2.0).by_sort
        unknown = costs(hits, self.TAKEN_OVER, 2.0).by_sort

        assert (survived[Sort.PAUSE].wait, survived[Sort.KILL].wait) == (Spread(0.2, 0.2), Spread(3.5, 3.5))
        assert (unknown[Sort.PAUSE].wait, Sort.KILL in unknown) == (Spread(4.9, 4.9), False)

    def test_a_cut_costs_what_the_end_had_to_wait_for_unless_others_took_over(self) -> None:
        cut = self.hit(Kind.CUT, ended_s=6.0)
        vain = finished(5, outcome="CoordinationUnavailable")
        life = [posted(1), claimed(2), finished(6.5)]

        assert self.one([cut], life, tried=[*life, vain]) == (
            Sort.LINK,
            Cost(1, Spread(2.0, 2.0), 4.0, 0, None, Spread(0.0, 0.0), Spread(0.0, 0.0)),
        )
        killed = [*life[:2], finished(6.5, outcome="pending")]
        assert self.one([cut], killed, tried=[*killed, vain])[1].wait == Spread(1.5, 1.5)
        assert self.one([cut], life, tried=life)[1].wait == Spread(0.0, 0.0)
        assert self.one([cut], self.TAKEN_OVER)[1].wait == Spread(3.5, 3.5)

    def test_who_held_nothing_costs_nothing(self) -> None:
        life = [posted(1), claimed(2), finished(3)]

        assert not costs([self.hit(Kind.KILL), self.hit(Kind.KILL, "other")], life, 2.0).by_sort

    def test_a_server_costs_the_time_in_which_nobody_could_commit(self) -> None:
        hits = [self.hit(kind, "zookeeper0") for kind in MEMBER_KINDS]

        sort, cost = self.one(hits, [posted(1), claimed(2), finished(6)])

        assert (sort, cost.hits, cost.wait, cost.limit_s) == (Sort.SERVER, len(hits), Spread(2.5, 2.5), None)

    def test_a_store_that_is_away_costs_the_time_in_which_no_worker_could_store(self) -> None:
        puts = [
            Put("w", number, started_s, ended_s, outcome, f"k{number}", 1, "d")
            for number, (started_s, ended_s, outcome) in enumerate(
                [(3.0, 3.5, DONE), (4.5, 5.0, "StoreUnavailable"), (5.5, 7.0, DONE), (6.0, 8.0, DONE)]
            )
        ]

        sort, cost = self.one([self.hit(Kind.STORE_AWAY, "store")], [posted(1), claimed(2)], puts=puts)

        assert (sort, cost.hits, cost.wait) == (Sort.STORE, 1, Spread(3.0, 3.0))


def test_an_explanation_has_the_calls_in_order_and_the_promise() -> None:
    violation = Violation("I4", "it was finished twice", [finished(3), claimed(2, process="w1")])

    lines = explain(violation, began_s=1.0)

    assert lines[0] == "I4: it was finished twice"
    assert [line.split()[0] for line in lines[1:3]] == ["1.000", "2.000"]
    assert lines[-1] == f"  promised: {PROMISES['I4']}"


def test_logs_of_one_fetch_have_in_common_what_two_processes_do_not_print_as_they_get_on() -> None:
    begun, total, received = (
        b"+ git fetch\n",
        b"remote: Total 3 (delta 0)        \n",
        b"Receiving objects: 100% (3/3), 2 KiB | ",
    )
    one = begun + total + received + b"36.61 MiB/s, done.\nHEAD is now at 9534c2b\n"
    other = begun + received.replace(b"100%", b" 33%") + b"1 KiB/s\r" + received + b"9 MiB/s, done.\n" + total

    assert steady(one) == steady(other + b"HEAD is now at 9534c2b\n") == b"+ git fetch\nHEAD is now at 9534c2b\n"
    assert steady(one) != steady(other + b"HEAD is now at 1111111\n")
