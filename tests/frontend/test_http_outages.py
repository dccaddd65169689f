"""A tree or a store that is away is answered with 503, never with "empty" or "not found"; and it passes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import deliveries
import pytest
import requests
from frontends import BUILD, Api, Stage, job, problem
from services import s3
from services.zookeeper import ZooKeeperServers
from unit.test_receivers import BUILT
from waiting import wait_until

from distci.chaos.relay import Relay

OF_TREE = (
    "/jobs/team/hello/-/builds",
    "/jobs/team/hello/-/builds/9",
    "/jobs/team/hello/-/badge.svg",
    BUILD,
    f"{BUILD}/tasks",
    f"{BUILD}/artifacts",
    f"{BUILD}/why",
    "/tickets",
    "/tickets/none",
    "/workers",
    "/workers/none",
    "/queue",
    "/cluster",
)
OF_STORE = (
    "/jobs",
    "/jobs/team/hello",
    "/jobs/other",
    "/jobs/team/hello/-/history",
    "/jobs/team/hello/-/diff",
    "/tokens",
    "/cluster",
)
ANSWER_MAX_S = 15
PUSH = "github/push-new-branch"


@pytest.fixture
def tree(zookeeper_hosts: str) -> Iterator[Relay]:
    host, _, port = zookeeper_hosts.rpartition(":")
    with Relay([(host, int(port))]) as relay:
        yield relay


@pytest.fixture
def store(s3_endpoint: str) -> Iterator[Relay]:
    parts = urlsplit(s3_endpoint)
    with Relay([(str(parts.hostname), int(parts.port or 0))]) as relay:
        yield relay


@pytest.fixture
def behind(
    tree: Relay, store: Relay, s3_endpoint: str, zookeeper_url: str, start_stage: Callable[..., Stage]
) -> Iterator[Api]:
    """A front end whose lines to tree and store can be cut; others have lines of their own."""
    options = "access_key=tests&secret_key=tests&region=us-east-1"
    bucket = s3.new_bucket(s3_endpoint)
    root = zookeeper_url.rpartition("/tests/")[2]
    stage = start_stage(coordination=zookeeper_url, store=f"s3://{bucket}/prefix?endpoint_url={s3_endpoint}&{options}")
    stage.ci.jobs.put(job(triggers=[{"type": "github", "repository": BUILT[PUSH][1]}]))
    stage.ci.builds.trigger("team/hello")
    stage.flags = [
        *("--data", str(stage.folder / "data")),
        *("--coordination", f"zookeeper://{tree.hosts}/tests/{root}"),
        *("--store", f"s3://{bucket}/prefix?endpoint_url=http://{store.hosts}&{options}"),
    ]
    api, _ = stage.front_end(DISTCI_SESSION_TIMEOUT="4s", DISTCI_RECEIVERS_GITHUB_SECRETS=deliveries.SECRET)
    wait_until(lambda: api.get("//readyz").status_code == 200)
    for path in ("/jobs", BUILD):
        assert api.get(path).status_code == 200
    yield api
    tree.restore()
    store.restore()


def delivered(api: Api) -> requests.Response:
    """The answer to a push that a forge tells, and tells again when it was refused."""
    body = deliveries.recorded(PUSH)
    return api.post("/hooks/github", data=body, headers=deliveries.headers(PUSH, body))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("silently", [False, True], ids=["cut", "silent"])
class TestAway:
    def test_d10_a_tree_that_is_away_is_not_empty(self, behind: Api, tree: Relay, silently: bool) -> None:
        tree.silence() if silently else tree.cut()
        wait_until(lambda: behind.get("//readyz").status_code == 503)
        for path in OF_TREE:
            began = time.monotonic()
            problem(behind.get(path), 503, "CoordinationUnavailable")
            assert time.monotonic() - began < ANSWER_MAX_S, path
        problem(behind.post("/jobs/team/hello/-/builds"), 503, "CoordinationUnavailable")
        problem(behind.post(f"{BUILD}/cancel"), 503, "CoordinationUnavailable")
        problem(delivered(behind), 503, "CoordinationUnavailable")
        assert behind.get("//livez").status_code == 200
        assert "distci_up 0" in behind.get("//metrics").text
        # What has nothing to do with it goes on
        assert behind.get("/jobs/team/hello").status_code == 200

        tree.restore()
        wait_until(lambda: behind.get("//readyz").status_code == 200)
        assert behind.get(BUILD).json()["id"] == "team/hello#1"
        assert "distci_up 1" in behind.get("//metrics").text
        assert delivered(behind).json()["jobs"][0]["build"] == "team/hello#2"

    def test_d10_a_store_that_is_away_is_not_empty(self, behind: Api, store: Relay, silently: bool) -> None:
        if silently:
            store.silence()
            wait_until(lambda: behind.get("//readyz").status_code == 503)
            assert behind.get("//livez").status_code == 200
        else:
            store.cut()
            wait_until(lambda: behind.get("//readyz").status_code == 503)
            for path in OF_STORE:
                problem(behind.get(path), 503, "StoreUnavailable")
            problem(behind.put("/jobs/team/hello", json=job(description="changed")), 503, "StoreUnavailable")
            problem(behind.delete("/jobs/team/hello"), 503, "StoreUnavailable")
            problem(behind.get("/jobs/team/hello/-/builds/9"), 503, "StoreUnavailable")
            problem(delivered(behind), 503, "StoreUnavailable")
        store.restore()
        wait_until(lambda: behind.get("//readyz").status_code == 200)
        assert behind.get("/jobs").json()["items"] == [{"job": "team/hello"}]
        assert delivered(behind).json()["jobs"][0]["build"] == "team/hello#2"


@pytest.fixture
def own_zookeeper(tmp_path: Path) -> Iterator[ZooKeeperServers]:
    """A server that nobody else writes to."""
    servers = ZooKeeperServers(tmp_path / "zookeeper")
    yield servers
    servers.stop()


def test_pages_that_have_not_changed_cost_the_quorum_nothing(
    start_stage: Callable[..., Stage], own_zookeeper: ZooKeeperServers
) -> None:
    stage = start_stage(coordination=f"zookeeper://{own_zookeeper.hosts}/ci")
    api, _ = stage.front_end()
    api.put("/jobs/team/hello", json=job())
    api.post("/jobs/team/hello/-/builds")
    with stage.workers():
        stage.end("team/hello#1")
    pages = [BUILD, f"{BUILD}/tasks/say/log", f"{BUILD}/tasks/say/log/lines", "/jobs/team/hello", *OF_TREE, *OF_STORE]
    pages = [path for path in dict.fromkeys(pages) if path.rpartition("/")[2] not in ("none", "other", "9")]
    tags = {path: api.get(path).headers["ETag"] for path in pages}
    written = last_write(own_zookeeper)

    for path, tag in tags.items():
        again = api.get(path, headers={"If-None-Match": tag})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag), path
    assert api.get("//readyz").status_code == 200
    assert api.get("//metrics").status_code == 200

    assert last_write(own_zookeeper) == written


def last_write(servers: ZooKeeperServers) -> int:
    """The number of the last write that a server saw."""
    found = re.search(r"Zxid: 0x([0-9a-f]+)", servers.ask(0, "srvr"))
    assert found
    return int(found[1], 16)
