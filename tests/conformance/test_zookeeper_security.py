"""Who gets into a tree in ZooKeeper that is guarded by an account, by TLS, or by both; the others learn at once why they do not."""

from __future__ import annotations

import logging
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from kazoo.client import KazooClient
from kazoo.security import make_acl, make_digest_acl
from services.certificates import Authority
from services.daemon import free_port
from services.zookeeper import Tls as ServerTls
from services.zookeeper import ZooKeeperServers
from waiting import wait_until

from distci.coordination.port import Committed, Create, Delete, SessionState, Write
from distci.coordination.zookeeper import Account, Tls, ZooKeeperCoordination, kazoo_log
from distci.errors import CoordinationUnavailable, Forbidden, Invalid, NotAuthenticated
from distci.protocol import Member, Offer, Ticket, Tickets

OURS = Account("ci", "sesame:0pen")
PATIENCE_S = 60.0
"""Time limit of connections that are to be refused: who waits for it has not been told at once."""


def refused(error: type[Exception], *arguments: Any, **options: Any) -> str:
    """What a connection says that must fail, and long before its time is up."""
    began = monotonic()
    with pytest.raises(error) as caught:
        ZooKeeperCoordination(*arguments, connect_timeout_s=PATIENCE_S, **options)
    assert monotonic() - began < PATIENCE_S / 2
    return str(caught.value)


# Accounts


@pytest.fixture
def root() -> str:
    return f"/security/{uuid.uuid4().hex}"


@pytest.fixture
def guarded(zookeeper_hosts: str, root: str, stack: ExitStack) -> ZooKeeperCoordination:
    """A tree of an account, below a root of its own, in which a worker serves and tickets wait."""
    # The folder above belongs to all, as it does where several systems share a ZooKeeper.
    stack.enter_context(closing(ZooKeeperCoordination(zookeeper_hosts, "/security")))
    tree = stack.enter_context(closing(ZooKeeperCoordination(zookeeper_hosts, root, account=OURS)))
    tickets = Tickets(tree)
    tickets.post(Ticket("first", "work"))
    tickets.post(Ticket("second", "work"))
    member = stack.enter_context(Member(tickets, Offer(["work", "other"]), name="worker"))
    next(member.claims())
    return tree


@pytest.fixture
def outside(zookeeper_hosts: str, stack: ExitStack) -> KazooClient:
    """ZooKeeper itself, as seen by the account's user."""
    client = KazooClient(zookeeper_hosts, auth_data=[("digest", f"{OURS.user}:{OURS.password}")])
    client.start()
    stack.callback(client.close)
    stack.callback(client.stop)
    return client


def below(client: KazooClient, path: str) -> Iterator[str]:
    yield path
    for name in client.get_children(path):
        yield from below(client, f"{path}/{name}")


def test_every_node_is_the_accounts_alone(guarded: ZooKeeperCoordination, outside: KazooClient, root: str) -> None:
    guarded.commit(Create("/short-lived", ephemeral=True))

    paths = list(below(outside, root))

    assert len(paths) > 12
    for path in paths:
        assert outside.get_acls(path)[0] == [make_digest_acl(OURS.user, OURS.password, all=True)], path


@pytest.mark.usefixtures("guarded")
def test_who_has_no_account_can_neither_read_list_nor_write_anything(
    zookeeper_hosts: str, root: str, outside: KazooClient, stack: ExitStack
) -> None:
    folder, _, name = root.rpartition("/")
    stranger = stack.enter_context(closing(ZooKeeperCoordination(zookeeper_hosts, folder)))

    for path in [path.removeprefix(folder) for path in below(outside, root)]:
        calls: list[Callable[[str], object]] = [
            stranger.read,
            stranger.children,
            lambda path: stranger.commit(Write(path, b"")),
            lambda path: stranger.commit(Create(f"{path}/x")),
        ]
        if path != f"/{name}":
            calls.append(lambda path: stranger.commit(Delete(path)))
        for call in calls:
            with pytest.raises(Forbidden, match="does not let somebody without a user"):
                call(path)


@pytest.mark.usefixtures("guarded")
@pytest.mark.parametrize(
    ("account", "who"),
    [
        (None, "somebody without a user"),
        (Account("ci", "wrong-password"), "user 'ci'"),
        (Account("other", OURS.password), "user 'other'"),
    ],
)
def test_who_is_not_the_account_is_told_so_at_once(
    zookeeper_hosts: str, root: str, account: Account | None, who: str
) -> None:
    said = refused(Forbidden, zookeeper_hosts, root, account=account)

    assert f"does not let {who} at {root}" in said
    assert "password" not in said or "wrong-password" not in said


def test_a_root_that_is_there_needs_no_rights_on_what_is_above_it(
    zookeeper_hosts: str, outside: KazooClient, root: str, stack: ExitStack
) -> None:
    # Given what an administrator makes for us: a root of ours, below a folder that is not
    outside.ensure_path("/security")
    outside.create(root, acl=[make_acl("digest", "admin:x", all=True)])
    outside.create(f"{root}-above", acl=[make_digest_acl(OURS.user, OURS.password, all=True)])
    outside.create(f"{root}-above/ours", acl=[make_digest_acl(OURS.user, OURS.password, all=True)])
    outside.set_acls(f"{root}-above", [make_acl("digest", "admin:x", all=True)])

    tree = stack.enter_context(closing(ZooKeeperCoordination(zookeeper_hosts, f"{root}-above/ours", account=OURS)))

    assert tree.commit(Create("/a")) == Committed()


def test_what_was_made_before_there_was_an_account_is_found(
    zookeeper_hosts: str, root: str, guarded: ZooKeeperCoordination, outside: KazooClient
) -> None:
    assert list(guarded.probe()) == []

    outside.create(f"{root}/before", acl=[make_acl("world", "anyone", all=True)])

    assert list(guarded.probe()) == [f"{root}/before can be reached by others than user 'ci'"]


def test_the_password_is_in_no_log(
    zookeeper_hosts: str, root: str, caplog: pytest.LogCaptureFixture, stack: ExitStack
) -> None:
    with caplog.at_level(logging.DEBUG, kazoo_log.name):
        stack.enter_context(closing(ZooKeeperCoordination(zookeeper_hosts, root, account=OURS)))

    assert "digest" in caplog.text
    assert OURS.password not in caplog.text
    assert OURS.password not in repr(OURS)


# TLS


@pytest.fixture
def hosts(zookeeper_tls: tuple[str, Path]) -> str:
    return zookeeper_tls[0]


@pytest.fixture
def files(zookeeper_tls: tuple[str, Path]) -> Tls:
    """What gets in."""
    folder = zookeeper_tls[1]
    return Tls(folder / "ca.pem", folder / "client.crt", folder / "client.key")


@pytest.fixture
def others(tmp_path: Path) -> Authority:
    """Whom the server does not know."""
    return Authority(tmp_path / "others")


def test_a_client_with_a_certificate_is_served(hosts: str, files: Tls, root: str, stack: ExitStack) -> None:
    tree = stack.enter_context(closing(ZooKeeperCoordination(hosts, root, tls=files)))

    assert tree.commit(Create("/a", b"x")) == Committed()
    node = tree.read("/a")
    assert node is not None
    assert node.data == b"x"


def test_a_client_without_a_certificate_is_refused_at_once(hosts: str, files: Tls, root: str) -> None:
    said = refused(NotAuthenticated, hosts, root, tls=Tls(files.authority))

    assert "does not let in somebody without a certificate" in said


def test_a_certificate_of_another_authority_is_refused_at_once(
    hosts: str, files: Tls, root: str, others: Authority
) -> None:
    stranger = others.sign("client")

    said = refused(NotAuthenticated, hosts, root, tls=Tls(files.authority, stranger.certificate, stranger.key))

    assert "does not let in our certificate" in said


def test_a_server_of_another_name_is_refused_at_once(hosts: str, files: Tls, root: str) -> None:
    said = refused(NotAuthenticated, hosts.replace("localhost", "127.0.0.1"), root, tls=files)

    assert "IP address mismatch, certificate is not valid for '127.0.0.1'" in said


def test_one_authority_is_trusted_and_no_other(
    hosts: str, files: Tls, root: str, others: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a machine that trusts who signed the server's certificate
    monkeypatch.setenv("SSL_CERT_FILE", str(files.authority))

    said = refused(NotAuthenticated, hosts, root, tls=Tls(others.certificate, files.certificate, files.key))

    assert "its certificate is not to be trusted" in said


def test_a_client_that_talks_no_tls_gets_nowhere(hosts: str) -> None:
    with pytest.raises(CoordinationUnavailable, match="no ZooKeeper answers"):
        ZooKeeperCoordination(hosts, "/security", connect_timeout_s=1)


def test_a_server_that_is_away_is_unavailable(files: Tls) -> None:
    with pytest.raises(CoordinationUnavailable, match="Connection refused"):
        ZooKeeperCoordination(f"localhost:{free_port()}", "/security", tls=files, connect_timeout_s=1)


def test_files_that_cannot_be_used_are_named(hosts: str, files: Tls, root: str, tmp_path: Path) -> None:
    assert files.certificate is not None
    assert files.key is not None
    none, locked = tmp_path / "none.pem", tmp_path / "locked.key"
    lock = ["openssl", "pkey", "-in", str(files.key), "-aes128", "-passout", "pass:sesame", "-out", str(locked)]
    subprocess.run(lock, check=True)
    wrong = {
        Tls(none): f"{none} cannot be used: No such file or directory",
        Tls(files.key): f"{files.key} cannot be used: NO_CERTIFICATE_OR_CRL_FOUND",
        Tls(files.authority, files.certificate, none): f"{files.certificate} and {none} cannot be used",
        Tls(files.authority, files.authority, files.key): "KEY_VALUES_MISMATCH",
        # Without asking anybody for its passphrase.
        Tls(files.authority, files.certificate, locked): f"{locked} cannot be used",
    }

    for tls, said in wrong.items():
        assert said in refused(Invalid, hosts, root, tls=tls)


# Both


def test_who_comes_back_shows_all_of_it_again(tmp_path: Path, stack: ExitStack) -> None:
    """And what has been renewed meanwhile: certificates do not last."""
    folder = tmp_path / "servers"
    authority = Authority(folder)
    client = authority.sign("client")
    servers = ZooKeeperServers(folder, tls=ServerTls(authority, authority.sign("server", "DNS:localhost")))
    stack.callback(servers.stop)
    tls = Tls(authority.certificate, client.certificate, client.key)
    tree = stack.enter_context(
        closing(ZooKeeperCoordination(f"localhost:{servers.tls_ports[0]}", "/ci", account=OURS, tls=tls))
    )
    tree.commit(Create("/a", b"x"))

    # When the server comes back and takes no certificates of the old authority
    servers.kill(0)
    wait_until(lambda: tree.session.state is not SessionState.CONNECTED)
    renewed = Authority(folder)
    renewed.sign("client")
    renewed.sign("server", "DNS:localhost")
    servers.start(0)
    wait_until(lambda: tree.session.state is SessionState.CONNECTED)

    node = tree.read("/a")
    assert node is not None
    assert node.data == b"x"
