"""Which links of a system can be cut, as far as its addresses tell, and what a worker is told that takes a relay."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distci.chaos.links import Lines, Links, lines
from distci.settings import Settings

EMBEDDED = Settings(data="/nowhere")
BY_TLS = "it is reached by TLS, and its certificate is not good for the address of a relay"


def test_embedded_back_ends_have_no_links() -> None:
    assert lines(EMBEDDED) == Lines()
    assert lines(replace(EMBEDDED, store="file:///nowhere/store")) == Lines()


def test_every_server_of_a_zookeeper_has_a_line() -> None:
    found = lines(replace(EMBEDDED, coordination="zookeeper://zk1,[::1]:2182,[::2]/root"))

    assert found == Lines((("zk1", 2181), ("::1", 2182), ("::2", 2181)))


@pytest.mark.parametrize(
    ("store", "why"),
    [
        ("s3://bucket", BY_TLS),
        ("s3://bucket?endpoint_url=https://rgw", BY_TLS),
        ("rados://pool", "clients of RADOS are told by its monitors where to connect to"),
    ],
)
def test_where_no_relay_can_stand_in_for_the_store_it_is_said_why(store: str, why: str) -> None:
    assert lines(replace(EMBEDDED, store=store)) == Lines(left_out=(f"links to the store are not cut: {why}",))


def test_where_none_can_stand_in_for_zookeeper_it_is_said_why() -> None:
    guarded = replace(EMBEDDED, coordination="zookeeper://zk1/root", zookeeper_ca="/ca.pem")

    assert lines(guarded) == Lines(left_out=(f"links to ZooKeeper are not cut: {BY_TLS}",))


def test_of_the_addresses_a_relay_changes_hosts_alone() -> None:
    store = "s3://bucket/pre/fix?endpoint_url=http://rgw:8080/base&access_key=a%2Bb&secret_key=c%26d%3D"
    settings = replace(EMBEDDED, coordination="zookeeper://zk1,zk2/root", store=store)

    with Links(Lines([("zk1", 2181), ("zk2", 2181)], [("rgw", 8080)])) as links:
        told = links.through(settings)

        assert told.coordination == f"zookeeper://{links.coordination.hosts}/root"
        near, far = settings.store_address, told.store_address
        assert (far.scheme, far.host, far.path) == (near.scheme, near.host, near.path)
        assert far.options == {**near.options, "endpoint_url": f"http://{links.store.hosts}/base"}
