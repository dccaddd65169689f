"""The promises of the coordination port, held against every adapter: nodes, and who reads what."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from conformance.coordination import data_of, version_of

from distci.coordination.port import NODE_BYTES_MAX, Committed, Coordination, Create, Delete, Reason, Refused, Write


def test_a_node_is_read_as_it_was_created(tree: Coordination) -> None:
    assert tree.commit(Create("/a", b"bytes \x00\xff")) == Committed()

    node = tree.read("/a")

    assert node is not None
    assert node.data == b"bytes \x00\xff"
    assert (node.version, node.stat.owner, node.stat.children) == (0, 0, 0)
    assert node.stat.created_ms == node.stat.modified_ms
    assert abs(node.stat.created_ms / 1000 - time.time()) < 60
    assert tree.exists("/a") == node.stat


def test_a_node_may_hold_nothing_and_as_much_as_the_port_says(tree: Coordination) -> None:
    tree.commit(Create("/empty"), Create("/full", b"x" * NODE_BYTES_MAX))

    assert data_of(tree, "/empty") == b""
    assert data_of(tree, "/full") == b"x" * NODE_BYTES_MAX


def test_where_there_is_no_node_reading_gives_nothing(tree: Coordination) -> None:
    assert tree.read("/none") is None
    assert tree.exists("/none") is None
    assert tree.read("/none/below") is None
    assert not tree.children("/none")


def test_each_write_counts_the_version_up(tree: Coordination) -> None:
    tree.commit(Create("/a", b"0"))

    assert tree.commit(Write("/a", b"1")) == Committed()
    assert tree.commit(Write("/a", b"2", version=1)) == Committed()

    node = tree.read("/a")
    assert node is not None
    assert (node.data, node.version) == (b"2", 2)
    assert node.stat.modified_ms >= node.stat.created_ms


def test_a_node_made_again_starts_at_version_0(tree: Coordination) -> None:
    tree.commit(Create("/a"))
    tree.commit(Write("/a", b"1"))
    tree.commit(Delete("/a", version=1))

    tree.commit(Create("/a"))

    assert version_of(tree, "/a") == 0


def test_the_children_of_a_node_are_the_names_right_below_it(tree: Coordination) -> None:
    names = ["b", "é", "with space", "a%2Fb", "'; --", "_", "%"]
    tree.commit(Create("/a"), *(Create(f"/a/{name}") for name in names), Create("/a/b/deeper"), Create("/aa"))

    assert sorted(tree.children("/a")) == sorted(names)
    assert not tree.children("/aa")
    stat = tree.exists("/a")
    assert stat is not None
    assert stat.children == len(names)


def test_a_deleted_node_is_gone(tree: Coordination) -> None:
    tree.commit(Create("/a"), Create("/a/b"))

    assert tree.commit(Delete("/a/b")) == Committed()

    assert tree.read("/a/b") is None
    assert not tree.children("/a")


def test_what_one_connection_commits_another_reads_after_sync(tree: Coordination, other: Coordination) -> None:
    tree.commit(Create("/a"))

    for number in range(20):
        tree.commit(Write("/a", b"%d" % number))
        other.sync()
        assert data_of(other, "/a") == b"%d" % number


def test_every_increment_counts_whoever_makes_it(tree: Coordination, other: Coordination) -> None:
    tree.commit(Create("/count", b"0"))

    def count_up(coordination: Coordination) -> None:
        done = 0
        while done < 10:
            node = coordination.read("/count")
            assert node is not None
            result = coordination.commit(Write("/count", b"%d" % (int(node.data) + 1), node.version))
            assert result in (Committed(), Refused(0, Reason.VERSION))
            done += result == Committed()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count_up, [tree, other, tree, other]))

    tree.sync()
    node = tree.read("/count")
    assert node is not None
    assert (node.data, node.version) == (b"40", 40)
