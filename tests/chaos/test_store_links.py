"""``distci chaos`` cuts links to the store where a relay can stand in, and says so where none can."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from conformance.store_server import bad_network
from waiting import wait_until

from distci.app import open_store
from distci.chaos.links import Links, lines
from distci.chaos.schedule import STORE_KINDS
from distci.errors import StoreUnavailable
from distci.settings import Settings

PROGRAM = Path(sys.executable).with_name("distci")
TIME_MAX_S = 250
SEED, FAULTS = "71", "8"
"""Have one of each fault of the store, and workers that are killed while it is away."""
PART = bytes(range(256)) * 40_000
"""More than is sent at once."""


def chaos(settings: Settings, *arguments: str) -> tuple[dict[str, Any], str]:
    """The report of a run on the configured back ends in which nothing was violated, and what was noted."""
    told = ("--coordination", settings.coordination, "--store", settings.store, "--data", settings.data)
    ended = subprocess.run(
        [PROGRAM, "chaos", "--configured", *told, "--session", "1s", "--json", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIME_MAX_S,
    )
    assert ended.stdout, ended.stderr
    report: dict[str, Any] = json.loads(ended.stdout)
    assert (report["violations"], ended.returncode) == ([], 0), ended.stderr
    return report, "".join(line for line in ended.stderr.splitlines(keepends=True) if line.startswith("note: "))


@pytest.fixture
def settings(zookeeper_url: str, store_url: str, tmp_path: Path) -> Settings:
    return Settings(coordination=zookeeper_url, store=store_url, data=str(tmp_path / "data"))


@pytest.fixture
def links(settings: Settings) -> Iterator[Links]:
    found = lines(settings)
    assert found.store, found.left_out
    with Links(found) as links:
        yield links


@pytest.mark.timeout(300)
@pytest.mark.parametrize("store_url", ["gateway"], indirect=True)
def test_every_promise_is_kept_while_links_to_the_store_are_cut_and_it_goes_away(settings: Settings) -> None:
    report, notes = chaos(settings, "--workers", "3", "--faults", FAULTS, "--duration", FAULTS, "--seed", SEED)

    assert {*STORE_KINDS} <= report["faults"].keys()
    assert (report["left_out"], notes) == ([], "")
    assert [*open_store(settings).list("")] == []


@pytest.mark.parametrize("store_url", ["gateway", "s3"], indirect=True)
def test_a_store_answers_through_a_relay_as_without_one(settings: Settings, links: Links, tmp_path: Path) -> None:
    near, far = open_store(settings), open_store(links.through(settings))
    (tmp_path / "part").write_bytes(PART)

    # What is signed: conditions, streams in parts, ranges, listings, names that have to be quoted
    assert far.put_if_absent("jobs/a b:c@1", b"one")
    assert not far.put_if_absent("jobs/a b:c@1", b"two")
    with (tmp_path / "part").open("rb") as stream:
        far.put("packs/part", stream)

    assert near.get("packs/part") == far.get("packs/part") == PART
    assert far.get("packs/part", 5, 10) == PART[5:15]
    assert [info.key for info in near.list("")] == [info.key for info in far.list("")] == ["jobs/a b:c@1", "packs/part"]
    assert far.head("packs/none") is None
    far.delete("packs/part")
    assert near.head("packs/part") is None


@pytest.mark.parametrize("store_url", ["gateway"], indirect=True)
def test_one_worker_is_cut_off_from_the_store_and_others_are_not(settings: Settings, links: Links) -> None:
    far = open_store(links.through(settings))
    far.put("a", b"1")
    with Links(lines(settings)) as others:
        links.store.cut()

        with pytest.raises(StoreUnavailable):
            far.put("a", b"2")
        assert open_store(others.through(settings)).get("a") == b"1"

        links.store.restore()
        far.put("a", b"3")
        assert open_store(others.through(settings)).get("a") == b"3"


@pytest.mark.parametrize("store_url", ["gateway"], indirect=True)
def test_what_is_written_into_silence_arrives_when_it_ends(settings: Settings, links: Links) -> None:
    near, far = open_store(settings), open_store(links.through(settings))
    far.put("a", b"1")
    links.store.silence()
    writer = Thread(target=far.put, args=("a", b"2"))
    writer.start()
    writer.join(0.5)
    assert writer.is_alive()
    assert near.get("a") == b"1"

    links.store.restore()

    writer.join()
    wait_until(lambda: near.get("a") == b"2")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("store_url", ["gateway"], indirect=True)
def test_a_store_that_goes_by_the_name_that_it_is_asked_under_is_left_alone(
    settings: Settings, gateway_endpoint: str
) -> None:
    with bad_network(gateway_endpoint) as network:
        network.hosts = {network.endpoint.removeprefix("http://")}
        hosted = replace(settings, store=settings.store.replace(gateway_endpoint, network.endpoint))
        assert not lines(hosted).store

        report, notes = chaos(hosted, "--workers", "2", "--faults", "1", "--duration", "1")

    assert "links to the store are not cut: the store does not answer under the address of a relay" in notes
    assert notes == f"note: {report['left_out'][0]}\n"
