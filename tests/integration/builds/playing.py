"""What the tests of builds play with: jobs, gates, workers by hand, lines that lose answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from distci.app import DistCI
from distci.builds import BuildView
from distci.coordination.port import Create, Delete, Operation, Write
from distci.lifecycle import Lifecycle
from distci.model import BuildId, TaskState
from distci.protocol import Claim, Member, Offer, Sweeper, Tickets, paths
from distci.store.directory import DirectoryStore
from distci.testing import CutCoordination, LossyCoordination

KINDS = ("control", "shell", "publish-artifacts", "copy-artifacts")

UNSERVED = "acme.robot"
"""A type of task that no worker of these tests is there for, unless a test makes one by hand."""

PASSED, FAILED, SKIPPED = TaskState.PASSED, TaskState.FAILED, TaskState.SKIPPED

CANCELLED, REUSED = TaskState.CANCELLED, TaskState.REUSED


class Gate:
    """Holds scripts up until it is opened."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "open"
        self.script = f"until test -e {self._file}; do sleep 0.02; done"

    def open(self) -> None:
        self._file.touch()


def shell(name: str, script: str = "true", **keys: Any) -> dict[str, Any]:
    return {"name": name, "type": "shell", "script": script, **keys}


def job_of(*tasks: Mapping[str, Any], job: str = "team/job", **keys: Any) -> dict[str, Any]:
    return {"job": job, "tasks": [*tasks], **keys}


def after(job: str, **keys: Any) -> list[dict[str, Any]]:
    return [{"type": "job", "job": job, **keys}]


def states(view: BuildView) -> dict[str, TaskState]:
    return {task.name: task.state for task in view.tasks}


def is_task(ci: DistCI, build: BuildId, name: str, state: TaskState) -> bool:
    return states(ci.builds.get(build)).get(name) is state


def ids(views: Iterator[BuildView]) -> list[str]:
    return [str(view.id) for view in views]


def live_tickets(ci: DistCI) -> list[tuple[str, str]]:
    return [(view.place, view.token) for view in ci.tickets.list()]


def running(ci: DistCI, token: str) -> bool:
    return token in ci.tickets.running_tokens()


def end(ci: DistCI, build: BuildId | str) -> BuildView:
    """The build once it is archived."""
    view = ci.builds.wait(build, 30)
    assert view.is_archived, f"{build} is still {view.state}: {states(view)}"
    return view


def reclaim(ci: DistCI) -> int:
    """Take over what has no heartbeat any more, without the grace that a real sweeper gives."""
    return Sweeper(ci.tickets, "hand", lambda: ["hand"], grace_s=0).sweep()


def supersede(ci: DistCI, claim: Claim) -> None:
    """Another takes the claim for lost though its worker lives, which gives it a heartbeat again where it is the first to look."""
    while ci.coordination.exists(paths.running(claim.token)):
        ci.coordination.commit(Delete(paths.owner(claim.token)))
        reclaim(ci)


@contextmanager
def by_hand(tickets: Tickets, *kinds: str) -> Iterator[Callable[[], Claim]]:
    """A worker whose claims a test serves itself."""
    with Member(tickets, Offer(kinds), f"hand of {'+'.join(kinds)}", slots=8) as member:
        claims = member.claims()
        yield lambda: next(claims)


def over_a_lossy_line(ci: DistCI) -> tuple[LossyCoordination, Lifecycle]:
    line = LossyCoordination(ci.coordination)
    return line, Lifecycle(Tickets(line), ci.store, ci.jobs)


def makes_build_of(job: str) -> Callable[[Sequence[Operation]], bool]:
    """Picks the transactions that would make a build of the job."""
    folded = job.replace("/", ":")

    def makes(operations: Sequence[Operation]) -> bool:
        return any(
            isinstance(step, Create) and step.path.startswith(f"{paths.BUILDS}/") and f"/{folded}:" in step.path
            for step in operations
        )

    return makes


def writes(build: BuildId) -> Callable[[Sequence[Operation]], bool]:
    """Picks the transactions that would change the build's node."""
    return lambda operations: any(isinstance(step, Write) and step.path == paths.build(build) for step in operations)


def cut_at(line: CutCoordination, picks: Callable[[Sequence[Operation]], bool], *, committed: bool) -> None:
    """Cut the line with the answer to the next transaction that ``picks`` picks; ``committed``: after it took effect, else before."""

    def cut(operations: Sequence[Operation]) -> bool:
        line.is_cut = picks(operations)
        return line.is_cut

    line.lose_answer(committed=committed, when=cut)


def before(line: LossyCoordination, picks: Callable[[Sequence[Operation]], bool], act: Callable[[], object]) -> Event:
    """Act right before the first transaction over the line that ``picks`` picks; set when that has been done."""
    is_done = Event()

    def look(operations: Sequence[Operation]) -> bool:
        if not is_done.is_set() and picks(operations):
            is_done.set()
            act()
        return False

    line.lose_answer(committed=True, when=look)
    return is_done


def break_writes(monkeypatch: pytest.MonkeyPatch, pattern: str, times: int, error: Exception) -> Iterator[int]:
    """Let the store fail at the first few writes of keys that have the pattern in them; what is left of these failures."""
    left = iter(range(times))

    def breaking(write: Callable[..., Any]) -> Callable[..., Any]:
        def broken(store: DirectoryStore, key: str, data: Any) -> Any:
            if fnmatch(key, f"*{pattern}*") and next(left, None) is not None:
                raise error
            return write(store, key, data)

        return broken

    for name in ("put", "put_if_absent"):
        monkeypatch.setattr(DirectoryStore, name, breaking(getattr(DirectoryStore, name)))
    return left
