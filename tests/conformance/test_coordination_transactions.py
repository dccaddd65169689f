"""The promises of the coordination port, held against every adapter: all of a transaction or nothing, and requests that are wrong."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from conformance.coordination import data_of, version_of

from distci.coordination.port import (
    NODE_BYTES_MAX,
    Check,
    Committed,
    Coordination,
    Create,
    Delete,
    Operation,
    Reason,
    Refused,
    SessionState,
    Write,
)
from distci.errors import Invalid

REFUSALS = {
    "create what is there": (Create("/a"), Reason.EXISTS),
    "create below nothing": (Create("/none/x"), Reason.MISSING),
    "create below an ephemeral node": (Create("/ephemeral/x"), Reason.MISSING),
    "write nothing": (Write("/none", b""), Reason.MISSING),
    "write nothing of a version": (Write("/none", b"", version=0), Reason.MISSING),
    "write an older version": (Write("/a", b"", version=0), Reason.VERSION),
    "write a newer version": (Write("/a", b"", version=2), Reason.VERSION),
    "delete nothing": (Delete("/none"), Reason.MISSING),
    "delete another version": (Delete("/a", version=0), Reason.VERSION),
    "delete what has children": (Delete("/a"), Reason.NOT_EMPTY),
    "delete another version of what has children": (Delete("/a", version=5), Reason.VERSION),
    "check nothing": (Check("/none"), Reason.MISSING),
    "check nothing for a version": (Check("/none", version=0), Reason.MISSING),
    "check another version": (Check("/a", version=0), Reason.VERSION),
}
"""What cannot be done on a tree with ``/a`` of version 1, ``/a/child`` and the ephemeral ``/ephemeral``."""


@pytest.fixture
def grown(tree: Coordination) -> Coordination:
    """The tree that ``REFUSALS`` speaks of."""
    tree.commit(Create("/a", b"0"), Create("/a/child"), Create("/ephemeral", ephemeral=True), Write("/a", b"1"))
    return tree


@pytest.mark.parametrize(("operation", "reason"), REFUSALS.values(), ids=REFUSALS.keys())
def test_a_refusal_says_why(grown: Coordination, operation: Operation, reason: Reason) -> None:
    assert grown.commit(operation) == Refused(0, reason)


@pytest.mark.parametrize(("operation", "reason"), REFUSALS.values(), ids=REFUSALS.keys())
def test_one_refused_operation_undoes_all_and_is_named(
    grown: Coordination, operation: Operation, reason: Reason
) -> None:
    before = grown.read("/a")

    result = grown.commit(
        Create("/new"),
        Write("/a", b"2", version=1),
        Write("/a", b"1"),
        Delete("/a/child"),
        Create("/a/child"),
        Check("/a", version=3),
        operation,
        Create("/newer"),
        Check("/none"),
    )

    assert result == Refused(6, reason)
    assert grown.read("/a") == before
    assert grown.exists("/new") is None
    assert grown.exists("/newer") is None
    assert list(grown.children("/a")) == ["child"]


def test_every_reason_is_met_by_a_refusal() -> None:
    assert {reason for _, reason in REFUSALS.values()} == set(Reason)


def test_of_two_that_cannot_be_done_the_first_is_named(tree: Coordination) -> None:
    tree.commit(Create("/a"))

    assert tree.commit(Check("/a"), Delete("/none"), Create("/a")) == Refused(1, Reason.MISSING)


def test_operations_of_a_transaction_see_those_before_them(tree: Coordination) -> None:
    result = tree.commit(
        Create("/a", b"0"),
        Create("/a/b"),
        Write("/a", b"1", version=0),
        Check("/a", version=1),
        Delete("/a/b"),
        Delete("/a", version=1),
        Create("/a", b"again"),
    )

    assert result == Committed()
    assert (data_of(tree, "/a"), version_of(tree, "/a")) == (b"again", 0)
    assert not tree.children("/a")


def test_creating_and_deleting_one_path_proves_that_nothing_was_there(tree: Coordination) -> None:
    assert tree.commit(Create("/a"), Delete("/a")) == Committed()
    assert tree.exists("/a") is None

    tree.commit(Create("/a"))
    assert tree.commit(Create("/a"), Delete("/a")) == Refused(0, Reason.EXISTS)
    assert tree.exists("/a") is not None


def test_a_check_changes_nothing(tree: Coordination) -> None:
    tree.commit(Create("/a", b"0"))
    before = tree.read("/a")

    assert tree.commit(Check("/a"), Check("/a", version=0)) == Committed()

    assert tree.read("/a") == before


def test_nothing_to_do_is_done(tree: Coordination) -> None:
    assert tree.commit() == Committed()


def test_a_transaction_is_seen_whole_by_others(tree: Coordination, other: Coordination) -> None:
    stop = Event()

    def see() -> set[bool]:
        seen = set()
        while not stop.is_set():
            names = other.children("/pairs")
            seen.add(len(names) % 2 == 0)
        return seen

    tree.commit(Create("/pairs"))
    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(see)
        for number in range(20):
            tree.commit(Create(f"/pairs/{number}-left"), Create(f"/pairs/{number}-right"))
        stop.set()

    assert watching.result() == {True}


BAD_PATHS = [
    "",
    "/",
    "a",
    "a/b",
    "/a/",
    "//a",
    "/a//b",
    "/.",
    "/..",
    "/a/./b",
    "/a/../b",
    "/nul\0",
    "/line\n",
    "/\x9f",
    "/\ud800",
    "/\ue000",
    "/\uffff",
    "/\U0001f600",
]
"""Not absolute, not plain, or with characters that ZooKeeper does not take."""


@pytest.mark.parametrize("path", BAD_PATHS, ids=ascii)
def test_a_path_that_names_no_place_is_invalid_everywhere(tree: Coordination, path: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: tree.read(path),
        lambda: tree.children(path),
        lambda: tree.exists(path),
        lambda: tree.watch(path, Event()),
        lambda: tree.commit(Create("/innocent"), Create(path)),
        lambda: tree.commit(Create("/innocent"), Write(path, b"")),
        lambda: tree.commit(Create("/innocent"), Delete(path)),
        lambda: tree.commit(Create("/innocent"), Check(path)),
    ]
    for call in calls:
        with pytest.raises(Invalid):
            call()

    assert tree.exists("/innocent") is None


@pytest.mark.parametrize(
    "operation", [Create("/big", b"x" * (NODE_BYTES_MAX + 1)), Write("/a", b"x" * (NODE_BYTES_MAX + 1))]
)
def test_more_bytes_than_a_node_may_hold_are_invalid_and_nothing_takes_effect(
    tree: Coordination, operation: Operation
) -> None:
    tree.commit(Create("/a", b"small"))

    with pytest.raises(Invalid, match=f"{operation.path}: {NODE_BYTES_MAX + 1} bytes"):
        tree.commit(Create("/innocent"), operation)

    assert tree.exists("/innocent") is None
    assert data_of(tree, "/a") == b"small"


def test_more_than_a_transaction_may_carry_is_invalid_and_the_session_lives_on(tree: Coordination) -> None:
    """ZooKeeper would cut the connection, and the answer would be lost each time that it is tried."""
    session = tree.session.id

    with pytest.raises(Invalid):
        tree.commit(*(Create(f"/{number}", b"x" * NODE_BYTES_MAX) for number in range(64)))

    assert tree.exists("/0") is None
    assert (tree.session.id, tree.session.state) == (session, SessionState.CONNECTED)
