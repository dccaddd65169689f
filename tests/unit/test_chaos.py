"""The schedule and the checker of ``distci chaos``, which only compute."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import combinations
from math import inf

import pytest

from distci.chaos.checker import Evidence, check
from distci.chaos.cost import Cost, cost
from distci.chaos.faults import Hit
from distci.chaos.findings import PROMISES, Violation, explain
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
    """The ticket is claimed at 2 and hit at 4."""

    def hit(self, kind: Kind, process: str = "w", ended_s: float = 4.5) -> Hit:
        return Hit(Fault(0.0, kind, 0, 0.5), process, 4.0, ended_s)

    def test_a_kill_costs_what_was_done_and_the_wait_for_the_next_attempt(self) -> None:
        life = [posted(1), claimed(2), taken_over(8), claimed(9, AGAIN), finished(10, AGAIN)]

        assert cost([self.hit(Kind.KILL)], life) == Cost(1, 7.0, 7.0)

    def test_a_pause_costs_its_length_unless_others_took_over(self) -> None:
        assert cost([self.hit(Kind.PAUSE)], [posted(1), claimed(2), finished(5)]) == Cost(1, 0.5, 0.5)

    def test_who_held_nothing_costs_nothing(self) -> None:
        life = [posted(1), claimed(2), finished(3)]

        assert cost([self.hit(Kind.KILL), self.hit(Kind.KILL, "other")], life) == Cost(0, 0.0, 0.0)

    def test_a_server_costs_the_time_in_which_nobody_could_commit(self) -> None:
        hits = [self.hit(kind, "zookeeper0") for kind in MEMBER_KINDS]

        assert cost(hits, [posted(1), claimed(2), finished(6)]) == Cost(len(hits), 2.5, 2.5)

    def test_a_store_that_is_away_costs_the_time_in_which_no_worker_could_store(self) -> None:
        puts = [
            Put("w", number, started_s, ended_s, outcome, f"k{number}", 1, "d")
            for number, (started_s, ended_s, outcome) in enumerate(
                [(3.0, 3.5, DONE), (4.5, 5.0, "StoreUnavailable"), (5.5, 7.0, DONE), (6.0, 8.0, DONE)]
            )
        ]

        assert cost([self.hit(Kind.STORE_AWAY, "store")], [posted(1), claimed(2)], puts) == Cost(1, 3.0, 3.0)


def test_an_explanation_has_the_calls_in_order_and_the_promise() -> None:
    violation = Violation("I4", "it was finished twice", [finished(3), claimed(2, process="w1")])

    lines = explain(violation, began_s=1.0)

    assert lines[0] == "I4: it was finished twice"
    assert [line.split()[0] for line in lines[1:3]] == ["1.000", "2.000"]
    assert lines[-1] == f"  promised: {PROMISES['I4']}"
