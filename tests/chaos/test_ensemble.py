"""Builds go on whatever happens to the servers of a ZooKeeper of three: no quorum for longer than sessions last, no leader, each killed in turn.

``tests/chaos/outages`` has the same outages last for minutes, under more builds.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from threading import Event
from time import monotonic

import pytest
from services.zookeeper import ZooKeeperServers
from waiting import wait_until

from distci.app import DistCI, connect
from distci.brokers.direct import Direct
from distci.chaos.pulse import BEAT_S, Pulse
from distci.isolation.host import HostIsolation
from distci.model import BuildId, Result, TaskState
from distci.process import Post, WorkerProcess
from distci.protocol import outcomes, paths
from distci.settings import Settings

SESSION_S = 4
OUTAGE_S = float(os.environ.get("DISTCI_TESTS_OUTAGE_S", "6"))
"""Longer than sessions last."""
BUILDS = int(os.environ.get("DISTCI_TESTS_OUTAGE_BUILDS", "10"))
TASKS = 20
RECOVERY_MAX_S = 30.0


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeperServers]:
    servers = ZooKeeperServers(tmp_path_factory.mktemp("three"), 3)
    yield servers
    servers.stop()


@pytest.fixture
def ci(ensemble: ZooKeeperServers, tmp_path: Path) -> Iterator[DistCI]:
    """A system with two worker processes."""
    url = f"zookeeper://{ensemble.hosts}/tests/{uuid.uuid4().hex}"
    settings = Settings(coordination=url, data=str(tmp_path / "data"), session_timeout=f"{SESSION_S}s")
    with ExitStack() as stack:
        asked, *workers = [stack.enter_context(connect(settings=settings)) for _ in range(3)]
        for number, worker in enumerate(workers):
            process = WorkerProcess(
                Direct(worker.lifecycle, worker.store),
                HostIsolation(),
                tmp_path / "scratch",
                [Post(["control"]), Post(["shell"], slots=TASKS // 2)],
                search_path=os.defpath,
                name=f"worker{number}",
            )
            stack.enter_context(process)
        yield asked


def start(ci: DistCI, job: str, scripts: Sequence[str]) -> BuildId:
    tasks = [
        {"name": f"t{number}", "type": "shell", "needs": [], "script": script} for number, script in enumerate(scripts)
    ]
    ci.jobs.put({"job": job, "tasks": tasks})
    return ci.builds.trigger(job)


@pytest.mark.timeout(300 + 2 * OUTAGE_S)
def test_c10_running_tasks_go_on_without_a_quorum_and_end_when_there_is_one(
    ci: DistCI, ensemble: ZooKeeperServers, tmp_path: Path
) -> None:
    # Given twenty tasks under way
    script = f"echo begun; until test -e {tmp_path}/go; do sleep 0.1; done; echo $DISTCI_TASK"
    build = start(ci, "team/job", [script] * TASKS)

    def all_run() -> bool:
        states = [task.state for task in ci.builds.get(build).tasks]
        return states == [TaskState.RUNNING] * TASKS

    wait_until(all_run)

    # When there is no quorum for longer than their sessions last, and they end meanwhile
    gone = [ensemble.leader()]
    gone.append((gone[0] + 1) % 3)
    for index in gone:
        ensemble.kill(index)
    Event().wait(OUTAGE_S / 2)
    (tmp_path / "go").touch()
    Event().wait(OUTAGE_S / 2)
    for index in gone:
        ensemble.start(index)
    back_s = monotonic()

    # Then all of it counts, once, soon after it is back
    view = ci.builds.wait(build, 120)
    recovery_s = monotonic() - back_s
    assert view.result is Result.PASSED
    assert recovery_s < RECOVERY_MAX_S
    for task in view.tasks:
        assert paths.attempt_of(task.token) == 1
        assert b"".join(ci.builds.log(build, task.name)) == b"begun\n" + task.name.encode() + b"\n"
    wait_until(lambda: list(ci.tickets.list()) == [])
    print(f"{TASKS} tasks had ended {recovery_s:.1f} s after {OUTAGE_S:g} s without a quorum")


@pytest.mark.timeout(300 + 5 * BUILDS)
@pytest.mark.parametrize("who", ["the leader", "each in turn"])
def test_c18_builds_end_once_though_servers_are_killed(
    ci: DistCI, ensemble: ZooKeeperServers, tmp_path: Path, who: str
) -> None:
    # Given builds under way, of which none can have ended
    scripts = [f"until test -e {tmp_path}/go; do sleep 0.1; done; echo one", "echo two"]
    builds = [start(ci, f"team/job{number}", scripts) for number in range(BUILDS)]

    # When servers are killed and come back
    began_s = monotonic()
    for number in range(1 if who == "the leader" else 3):
        index = ensemble.leader() if who == "the leader" else number
        ensemble.kill(index)
        (tmp_path / "go").touch()
        builds.append(start_again(ci, f"team/job{number}"))
        ensemble.start(index)

    # Then each has ended once, with whole logs
    for build in builds:
        view = ci.builds.wait(build, 120)
        assert view.result is Result.PASSED
        assert [b"".join(ci.builds.log(build, name)) for name in ("t0", "t1")] == [b"one\n", b"two\n"]
    took_s = monotonic() - began_s
    assert [view.id.number for number in range(BUILDS) for view in ci.builds.list(f"team/job{number}")].count(
        1
    ) == BUILDS
    wait_until(lambda: list(ci.tickets.list()) == [])
    print(f"{len(builds)} builds had ended once each {took_s:.1f} s after the first kill of {who}")


def test_a_pulse_beats_as_long_as_anybody_can_commit(ci: DistCI, ensemble: ZooKeeperServers) -> None:
    with Pulse(ci.settings, ensemble) as pulse:

        def beats_since(time_s: float) -> bool:
            return any(began_s > time_s for began_s, _ in pulse.beats)

        wait_until(lambda: beats_since(0.0))
        ensemble.kill(0)
        one_gone_s = monotonic()
        wait_until(lambda: beats_since(one_gone_s))
        ensemble.kill(1)
        two_gone_s = monotonic()
        Event().wait(5 * BEAT_S)
        assert not beats_since(two_gone_s)
        ensemble.start(0)
        ensemble.start(1)
        wait_until(lambda: beats_since(two_gone_s))


def start_again(ci: DistCI, job: str) -> BuildId:
    """One more build of a job, asked for with one cause until there is an answer."""
    return outcomes.persist(partial(ci.builds.trigger, job, cause=uuid.uuid4().hex), Event())
