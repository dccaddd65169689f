"""The promises of the coordination port, held against every adapter: whoever watches hears of each change."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from conformance.coordination import WAIT_S, Cluster, data_of

from distci.coordination.port import Coordination, Create, Delete, Operation, Reason, Refused, Write

CHANGES: dict[str, tuple[Sequence[Operation], Operation]] = {
    "created": ([], Create("/a")),
    "changed": ([Create("/a")], Write("/a", b"1")),
    "deleted": ([Create("/a")], Delete("/a")),
}


@pytest.mark.parametrize("who", ["own", "other"])
@pytest.mark.parametrize(("before", "change"), CHANGES.values(), ids=CHANGES.keys())
def test_a_watch_fires_when_a_node_is(
    tree: Coordination, other: Coordination, who: str, before: Sequence[Operation], change: Operation
) -> None:
    tree.commit(*before)
    changed = Event()

    stat = tree.watch("/a", changed)
    assert stat == tree.exists("/a")
    assert not changed.is_set()
    (tree if who == "own" else other).commit(change)

    assert changed.wait(WAIT_S)


def test_a_watch_fires_for_a_node_that_came_and_went(tree: Coordination, other: Coordination) -> None:
    changed = Event()
    assert tree.watch("/a", changed) is None

    other.commit(Create("/a"), Delete("/a"))

    assert changed.wait(WAIT_S)


def test_a_watch_fires_for_a_node_that_was_made_anew(tree: Coordination, other: Coordination) -> None:
    tree.commit(Create("/a"))
    changed = Event()
    tree.watch("/a", changed)

    other.commit(Delete("/a"), Create("/a"))

    assert changed.wait(WAIT_S)


def test_a_watch_fires_when_the_session_of_an_ephemeral_node_ends(
    cluster: Cluster, tree: Coordination, other: Coordination
) -> None:
    other.commit(Create("/a", ephemeral=True))
    changed = Event()
    tree.watch("/a", changed)

    cluster.expire(other)

    assert changed.wait(WAIT_S)
    assert tree.exists("/a") is None


def test_a_watch_that_fired_can_be_armed_again_and_again(tree: Coordination, other: Coordination) -> None:
    tree.commit(Create("/a"))
    changed = Event()

    for number in range(10):
        changed.clear()
        tree.watch("/a", changed)
        other.commit(Write("/a", b"%d" % number))
        assert changed.wait(WAIT_S)


def test_all_who_watch_a_node_are_told(tree: Coordination, other: Coordination) -> None:
    events = [Event() for _ in range(5)]
    for changed in events:
        tree.watch("/a", changed)

    other.commit(Create("/a"))

    assert all(changed.wait(WAIT_S) for changed in events)


def test_one_event_may_watch_many_nodes(tree: Coordination, other: Coordination) -> None:
    changed = Event()
    for path in ("/a", "/b", "/c"):
        tree.watch(path, changed)

    other.commit(Create("/b"))
    assert changed.wait(WAIT_S)

    changed.clear()
    other.commit(Create("/c"))
    assert changed.wait(WAIT_S)


def test_a_transaction_that_was_refused_sets_no_watch_off(tree: Coordination, other: Coordination) -> None:
    refused, committed = Event(), Event()
    tree.watch("/a", refused)
    tree.watch("/b", committed)

    assert other.commit(Create("/a"), Delete("/none")) == Refused(1, Reason.MISSING)
    other.commit(Create("/b"))

    assert committed.wait(WAIT_S)
    assert not refused.is_set()


def test_no_change_is_missed_by_one_who_looks_at_every_hint(tree: Coordination, other: Coordination) -> None:
    """The loop that everything waits with: arm, look, wait."""
    last = b"49"
    other.commit(Create("/a", b"-"))

    def follow() -> None:
        changed = Event()
        while True:
            changed.clear()
            tree.watch("/a", changed)
            if data_of(tree, "/a") == last:
                return
            assert changed.wait(WAIT_S)

    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(follow)
        for number in range(50):
            other.commit(Write("/a", b"%d" % number))
        following.result(WAIT_S)
