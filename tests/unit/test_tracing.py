"""What something is done for, and the traces that it is part of."""

from __future__ import annotations

import pytest

from distci import tracing
from distci.protocol.records import Ticket

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def test_what_a_block_is_done_for_is_known_in_it_and_not_beyond() -> None:
    with tracing.doing(TRACEPARENT, request="r1", build=""):
        assert tracing.ids() == {"request": "r1", "trace_id": TRACE}
        assert tracing.traceparent() == TRACEPARENT
        with tracing.doing(ticket="t.1"):
            assert tracing.ids() == {"request": "r1", "trace_id": TRACE, "ticket": "t.1"}
            assert tracing.traceparent() == TRACEPARENT
        assert "ticket" not in tracing.ids()
    assert (tracing.ids(), tracing.traceparent()) == ({}, "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        TRACEPARENT.upper(),
        TRACEPARENT.replace("00-4", "ff-4"),
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"{TRACEPARENT}1",
        f" {TRACEPARENT}",
    ],
)
def test_what_is_no_traceparent_counts_as_none(text: str) -> None:
    with tracing.doing(text):
        assert (tracing.ids(), tracing.traceparent()) == ({}, "")


def test_one_of_a_later_version_is_taken_as_far_as_it_is_known() -> None:
    with tracing.doing(f"cc{TRACEPARENT[2:]}-more"):
        assert tracing.traceparent() == f"cc{TRACEPARENT[2:]}"


def test_a_ticket_keeps_its_trace_in_the_tree_and_for_its_next_attempt() -> None:
    ticket = Ticket("t", "shell", posted_ms=1, traceparent=TRACEPARENT)
    assert Ticket.from_bytes(ticket.again().to_bytes(), "here").traceparent == TRACEPARENT
    assert b"traceparent" not in Ticket("t", "shell", posted_ms=1).to_bytes()
