"""``distci chaos`` finds nothing wrong with what is shipped, and everything that is wrong with what is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from chaos import planted

from distci import build_tickets
from distci.app import open_coordination
from distci.chaos import reference, stage
from distci.chaos.run import Options, run
from distci.settings import Settings

PROGRAM = Path(sys.executable).with_name("distci")
TIME_MAX_S = 250
PATIENCE_S = 25.0
"""How long a system that may be stuck for good is waited for; a busy machine takes some seconds to start its workers."""

CAUGHT = {
    "no_fence": ("I4", "without the fence"),
    "no_offsets": ("output", "log"),
    "two_transactions": ("I3", "does not move its build on"),
    "no_heartbeat": ("I2", "without a heartbeat"),
    "leaking_permit": ("I7", "kept permit"),
}
"""The promise that each planted bug breaks, and what is said of it."""


def chaos(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, "chaos", "--session", "1s", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIME_MAX_S,
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("back_ends", [[], ["--ensemble"]], ids=["embedded", "ensemble"])
def test_every_promise_is_kept_while_workers_and_servers_are_killed(back_ends: Sequence[str]) -> None:
    """C1 to C7, C10, C18."""
    ended = chaos("--workers", "3", "--faults", "8", "--duration", "8", "--json", *back_ends)

    report: dict[str, Any] = json.loads(ended.stdout)
    assert (report["violations"], ended.returncode) == ([], 0), ended.stderr
    assert sum(report["faults"].values()) == len(report["schedule"]) == 8
    assert report["builds"] == 12
    # And what it cost is told beside its limit
    told = {sort: cost["limit_s"] for sort, cost in report["added"].items()}
    limits = dict.fromkeys(("kills", "pauses", "links"), 1.0 + 2.0)
    assert told == {sort: limits.get(sort) for sort in told}
    assert ("servers" in told) is bool(back_ends)
    assert all(wait["wait_s"] > 3.0 for wait in report["over_limit"])


@pytest.mark.timeout(300)
def test_a_corner_of_the_configured_back_ends_is_used_and_removed(zookeeper_url: str, tmp_path: Path) -> None:
    told = ["--coordination", zookeeper_url, "--store", f"file://{tmp_path}/store", "--data", str(tmp_path / "data")]

    ended = chaos("--configured", *told, "--workers", "2", "--faults", "1", "--duration", "2", "--seed", "3..3")

    assert ended.returncode == 0, ended.stderr
    assert [line.split()[0] for line in ended.stdout.splitlines()[:2]] == ["SEED", "3"]
    assert "1 of 1: seed 3 clean, 1 faults in " in ended.stderr
    above, _, root = zookeeper_url.rpartition("/")
    tree = open_coordination(Settings(coordination=above, session_timeout="2s"))
    assert not tree.children(f"/{root}")
    tree.close()
    assert [*(tmp_path / "store").iterdir()] == []


@pytest.mark.timeout(300)
def test_workers_show_a_guarded_zookeeper_who_they_are(zookeeper_tls: tuple[str, Path], tmp_path: Path) -> None:
    hosts, folder = zookeeper_tls
    files = {"ca": "ca.pem", "certificate": "client.crt", "key": "client.key"}
    told = [f"zookeeper_{name} = {json.dumps(str(folder / file))}" for name, file in files.items()]
    told += ['zookeeper_user = "ci"', 'zookeeper_password = "sesame"', f"data = {json.dumps(str(tmp_path / 'data'))}"]
    told += [f'coordination = "zookeeper://{hosts}/tests/{uuid.uuid4().hex}"']
    (tmp_path / "distci.toml").write_text("\n".join(told))

    ended = chaos(
        *("--config", str(tmp_path / "distci.toml"), "--configured", "--json"),
        *("--workers", "2", "--faults", "1", "--duration", "1"),
    )

    assert ended.returncode == 0, ended.stderr
    assert "links to ZooKeeper are not cut: it is reached by TLS" in ended.stderr


@pytest.mark.timeout(300)
@pytest.mark.parametrize("bug", planted.BUGS)
def test_a_worker_that_breaks_a_promise_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    monkeypatch.setattr(stage, "PATIENCE_S", PATIENCE_S)
    if bug == "no_fence":
        # Its claims are taken over again and again, for as long as there are attempts.
        monkeypatch.setattr(reference, "ATTEMPTS", 3)
        monkeypatch.setattr(build_tickets, "CONTROL_ATTEMPTS", 3)
    settings = Settings(data=str(tmp_path), session_timeout="1s")
    launcher = [sys.executable, planted.__file__, bug]

    options = Options(settings, tmp_path / "chaos", launcher, os.environ, workers=2, faults=1, duration_s=3.0)
    (report,) = run(options, [1], lambda seed, progress: None)

    promise, words = CAUGHT[bug]
    caught = [violation for violation in report.violations if violation.promise == promise and words in violation.what]
    assert caught, report
