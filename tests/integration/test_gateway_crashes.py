"""A front end that dies within a call of the gateway, at each point where something is left: the next one goes on from there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Event

import pytest
from waiting import wait_until

from distci.app import DistCI, connect
from distci.brokers.direct import Direct
from distci.coordination.port import Check, Coordination, Delete, Operation
from distci.errors import CoordinationUnavailable, StoreUnavailable
from distci.gateway import Attempt, Caller
from distci.isolation.host import HostIsolation
from distci.model import BuildId, Outcome
from distci.process import Post, WorkerProcess
from distci.protocol import leases, paths
from distci.protocol.records import Offer
from distci.settings import Settings
from distci.store.port import Store
from distci.testing import CutCoordination, LossyStore

CALLER = Caller("1a2b", "lab-7")


class Front:
    """What a front end is to the gateway: a system on a line that can be cut, for good."""

    def __init__(self, settings: Settings, stack: ExitStack) -> None:
        def around(coordination: Coordination, store: Store) -> tuple[Coordination, Store]:
            self.line, self.store = CutCoordination(coordination), LossyStore(store)
            return self.line, self.store

        self.ci = stack.enter_context(DistCI(settings, around))

    def dies_in(self, is_it: Callable[[Sequence[Operation]], bool], *, committed: bool) -> None:
        """At the next such transaction: its answer is lost, and nothing is heard from then on."""

        def die(operations: Sequence[Operation]) -> bool:
            self.line.is_cut = is_it(operations)
            return self.line.is_cut

        self.line.lose_answer(committed=committed, when=die)

    def ask(self, key: str) -> Attempt | None:
        asking = self.ci.gateway.ask(CALLER, Offer(("shell",)), key, "", Event())
        return asking.begin() or asking.look()[0]

    def attempt(self, attempt: Attempt) -> Attempt:
        return self.ci.gateway.attempt(CALLER.id, attempt.build, attempt.name, attempt.token)

    def complete(self, attempt: Attempt, outcome: Outcome) -> str:
        recorded = self.ci.gateway.complete(CALLER.id, attempt.build, attempt.name, attempt.token, outcome)
        return str(recorded["verdict"])


class Lab:
    """A system that plans and archives, and as many front ends as a test asks for."""

    def __init__(self, folder: Path, stack: ExitStack, coordination: str) -> None:
        self.settings = Settings(data=str(folder / "data"), coordination=coordination)
        self._stack = stack
        self.ci = stack.enter_context(connect(settings=self.settings))
        posts = [Post(("control",), slots=2)]
        isolation = HostIsolation()
        process = WorkerProcess(
            Direct(self.ci.lifecycle, self.ci.store),
            isolation,
            folder / "scratch",
            posts,
            search_path=os.defpath,
            name="c",
        )
        stack.enter_context(process)

    def front(self) -> Front:
        return Front(self.settings, self._stack)

    def start(self) -> BuildId:
        self.ci.jobs.put({"job": "team/hello", "tasks": [{"name": "say", "type": "shell", "script": "true"}]})
        build = self.ci.builds.trigger("team/hello")
        wait_until(lambda: any(queued.kind == "shell" for queued in self.ci.tickets.queue()))
        return build

    def end(self, build: BuildId) -> str:
        view = self.ci.builds.wait(build, 60)
        assert view.is_archived
        assert [attempt["attempt"] for attempt in view.task("say").attempts] == [1]
        return str(view.result)


@pytest.fixture
def lab(tmp_path: Path, tree_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setattr(leases, "PATIENCE_S", 0.5)
    with ExitStack() as stack:
        yield Lab(tmp_path, stack, tree_url)


def claims(operations: Sequence[Operation]) -> bool:
    return isinstance(operations[0], Check) and operations[0].path == paths.CONTROL


def ends(operations: Sequence[Operation]) -> bool:
    return isinstance(operations[0], Delete) and operations[0].path.startswith(paths.RUNNING)


@pytest.mark.parametrize("committed", [True, False])
def test_it_dies_with_the_claims_transaction(lab: Lab, committed: bool) -> None:
    one, other = lab.front(), lab.front()
    build = lab.start()
    one.dies_in(claims, committed=committed)
    with pytest.raises(CoordinationUnavailable):
        one.ask("k")
    attempt = other.ask("k")
    assert attempt
    assert attempt.ticket.attempt == 1
    assert other.complete(attempt, Outcome.passed()) == "passed"
    assert lab.end(build) == "passed"


@pytest.mark.parametrize("committed", [True, False])
def test_it_dies_with_the_transaction_that_completes(lab: Lab, committed: bool) -> None:
    """The outcome is on record by then: whatever is said next, it is that one."""
    one, other = lab.front(), lab.front()
    build = lab.start()
    attempt = one.ask("k")
    assert attempt
    one.dies_in(ends, committed=committed)
    with pytest.raises(CoordinationUnavailable):
        one.complete(attempt, Outcome.failed("exit status 3"))
    assert other.complete(attempt, Outcome.passed()) == "failed"
    assert lab.end(build) == "failed"


@pytest.mark.parametrize("failure", ["before", "after"])
def test_it_dies_with_an_upload(lab: Lab, failure: str, tmp_path: Path) -> None:
    one, other = lab.front(), lab.front()
    build = lab.start()
    attempt = one.ask("k")
    assert attempt
    one.store.fails = lambda: failure
    file = tmp_path / "file"
    file.write_bytes(b"bytes")
    with file.open("rb") as stream, pytest.raises(StoreUnavailable):
        one.attempt(attempt).put_artifact("a", stream)
    with file.open("rb") as stream:
        other.attempt(attempt).put_artifact("a", stream)
    other.complete(attempt, Outcome.passed())
    assert lab.end(build) == "passed"
    assert [artifact.name for artifact in lab.ci.artifacts.list(build)] == ["a"]


def test_it_dies_with_what_it_knew(lab: Lab) -> None:
    """Nothing that it holds is missed: all of its session goes, and the claim stays."""
    one, other = lab.front(), lab.front()
    build = lab.start()
    attempt = one.ask("k")
    assert attempt
    one.line.real.close()
    assert other.attempt(attempt).keep() is None
    assert other.attempt(attempt).write_log(0, b"on\n") == 3
    assert other.complete(attempt, Outcome.passed()) == "passed"
    assert lab.end(build) == "passed"
