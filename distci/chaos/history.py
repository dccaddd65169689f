"""What the processes of a run did, read back from the files that :mod:`distci.recording` wrote.

A process knows of a commit whose answer was lost, or in the middle of which it was killed, only that it may have taken effect.
The history as a whole knows better: a node that was made once must have been removed once or be there at the end. :func:`settled`
weighs what is known against the final tree, and counts those in doubt that it takes to balance the books.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from distci.coordination.port import Check, Create, Delete, Operation, Write
from distci.protocol import paths
from distci.recording import COMMITTED, UNKNOWN

PASSING = (f"{paths.OWNERS}/", f"{paths.IDLE}/", f"{paths.WORKERS}/")
"""Below these are the nodes that end with the session of their process, which no history tells of."""

PENDING = "pending"
"""The process was killed before it knew."""


@dataclass(frozen=True, slots=True)
class Call:
    """One commit or one write to the store, as its process saw it. Times are seconds of one clock for all processes."""

    process: str
    number: int
    started_s: float
    ended_s: float
    """Infinite when the process never learned how it ended."""
    outcome: str


@dataclass(frozen=True, slots=True)
class Commit(Call):
    """A transaction on the tree."""

    operations: Sequence[Operation]

    @property
    def is_in_doubt(self) -> bool:
        return self.outcome in (UNKNOWN, PENDING)

    @property
    def may_stand(self) -> bool:
        """Whether it took effect, or may have."""
        return self.outcome == COMMITTED or self.is_in_doubt

    @property
    def lasting(self) -> Mapping[str, int]:
        """The lasting nodes that it makes (+1) and removes (-1); one that it makes and removes is neither."""
        changes: Counter[str] = Counter()
        for step in self.operations:
            if isinstance(step, Create | Delete) and not step.path.startswith(PASSING):
                changes[step.path] += 1 if isinstance(step, Create) else -1
        return {path: change for path, change in changes.items() if change}

    def creates(self, path: str) -> Create | None:
        """The operation that makes a node, if there is one."""
        return next((step for step in self.operations if isinstance(step, Create) and step.path == path), None)

    def deletes(self, path: str) -> bool:
        """Whether it removes a node, or proves that it is not there."""
        return any(isinstance(step, Delete) and step.path == path for step in self.operations)

    def checks(self, path: str) -> bool:
        """Whether it holds only if a node is there."""
        return any(isinstance(step, Check) and step.path == path for step in self.operations)


@dataclass(frozen=True, slots=True)
class Put(Call):
    """A write to the store. ``size`` and ``sha256`` are None where the bytes came from a stream."""

    key: str
    size: int | None
    sha256: str | None


@dataclass(frozen=True, slots=True)
class History:
    """All calls of all processes, in the order in which they began."""

    commits: Sequence[Commit]
    puts: Sequence[Put]


def read(files: Mapping[str, Iterable[str]]) -> History:
    """The history of processes by their names, from the lines of each one's file. A last line that was cut off is left out."""
    calls = [call for process, lines in files.items() for call in _calls(process, lines)]
    calls.sort(key=lambda call: call.started_s)
    return History(
        [call for call in calls if isinstance(call, Commit)], [call for call in calls if isinstance(call, Put)]
    )


def settled(commits: Sequence[Commit], final: Iterable[str]) -> Sequence[Commit]:
    """The commits that took effect, those in doubt included where it takes them to explain the nodes of the final tree."""
    missing: Counter[str] = Counter(dict.fromkeys(final, 1))
    took_effect = [commit for commit in commits if commit.outcome == COMMITTED]
    doubted = [commit for commit in commits if commit.is_in_doubt]
    for commit in took_effect:
        missing.subtract(commit.lasting)
    while (found := _most_missed(doubted, missing)) is not None:
        doubted.remove(found)
        missing.subtract(found.lasting)
        took_effect.append(replace(found, outcome=COMMITTED))
    return sorted(took_effect, key=lambda commit: commit.started_s)


def _most_missed(doubted: Sequence[Commit], missing: Mapping[str, int]) -> Commit | None:
    """The commit in doubt that explains most: first of all one whose every change is missed, and of these the one with most of them."""
    best, found = (0.0, 0), None
    for commit in doubted:
        changes = commit.lasting
        missed = sum(missing.get(path, 0) * change > 0 for path, change in changes.items())
        if missed and (missed / len(changes), missed) > best:
            best, found = (missed / len(changes), missed), commit
    return found


def _calls(process: str, lines: Iterable[str]) -> Iterator[Call]:
    begun: dict[int, dict[str, Any]] = {}
    for line in lines:
        try:
            told = json.loads(line)
        except ValueError:
            continue
        if "end" not in told:
            begun[told["n"]] = told
        elif told["n"] in begun:
            yield from _call(process, begun.pop(told["n"]), told["t"], told["end"])
    for told in begun.values():
        yield from _call(process, told, float("inf"), PENDING)


def _call(process: str, told: Mapping[str, Any], ended_s: float, outcome: str) -> Iterator[Call]:
    common = (process, told["n"], told["t"], ended_s, outcome)
    if "commit" in told:
        yield Commit(*common, tuple(_operation(*step) for step in told["commit"]))
    elif "put" in told:
        yield Put(*common, told["put"], told.get("size"), told.get("sha256"))


def _operation(word: str, path: str, *rest: Any) -> Operation:
    if word == "create":
        return Create(path, rest[0].encode(errors="surrogateescape"), rest[1])
    if word == "write":
        return Write(path, rest[0].encode(errors="surrogateescape"), rest[1])
    return Delete(path, rest[0]) if word == "delete" else Check(path, rest[0])
