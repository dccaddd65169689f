"""Fixtures of all tests: the real services, each with a corner of its own for every test."""

from __future__ import annotations

import signal
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from services import ceph, s3, shared


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--pictures", action="store_true", help="have the browser tests make the pictures in docs/images anew"
    )


def pytest_configure(config: pytest.Config) -> None:
    # Shells have what they start in the background ignore it, and so would whatever tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):
        shared.begin()


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shared.end()


@pytest.fixture(scope="session")
def zookeeper_hosts() -> str:
    """A ZooKeeper server that all tests share."""
    return shared.zookeeper_hosts()


@pytest.fixture(scope="session")
def zookeeper_ensemble_hosts() -> str:
    """Three ZooKeeper servers that all tests share."""
    return shared.zookeeper_ensemble_hosts()


@pytest.fixture(scope="session")
def zookeeper_tls() -> tuple[str, Path]:
    """A ZooKeeper server that all tests share and that talks TLS, and the folder with what to show to it."""
    return shared.zookeeper_tls()


@pytest.fixture
def zookeeper_url(zookeeper_hosts: str) -> str:
    """A root of its own in the shared ZooKeeper."""
    return f"zookeeper://{zookeeper_hosts}/tests/{uuid.uuid4().hex}"


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory for one test alone."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="tests-") as folder:
        # Tasks of other users have theirs below it.
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(params=["sqlite", "zookeeper"])
def tree_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty tree, of each kind."""
    if request.param == "sqlite":
        return f"sqlite://{tmp_path}/tree.sqlite"
    return str(request.getfixturevalue("zookeeper_url"))


@pytest.fixture(scope="session")
def s3_endpoint() -> str:
    """An S3 server that all tests share."""
    return shared.s3_endpoint()


@pytest.fixture(scope="session")
def gateway_endpoint() -> str:
    """The S3 service of a Ceph cluster that all tests share."""
    return shared.gateway_endpoint()


@pytest.fixture(scope="session")
def ceph_configuration() -> Path:
    """The configuration file of that cluster."""
    return shared.ceph_configuration()


@pytest.fixture
def store_url(request: pytest.FixtureRequest) -> str | None:
    """An empty object store of the kind that a test is parametrised with; None for the embedded one."""
    kind = getattr(request, "param", "directory")
    if kind == "rados":
        configuration = request.getfixturevalue("ceph_configuration")
        return f"rados://{ceph.POOL}/{uuid.uuid4().hex}?conf={configuration}&name=client.admin"
    if kind in ("s3", "gateway"):
        endpoint = request.getfixturevalue(f"{kind}_endpoint")
        options = f"endpoint_url={endpoint}&access_key=tests&secret_key=tests&region=us-east-1"
        return f"s3://{s3.new_bucket(endpoint)}/prefix?{options}"
    return None
