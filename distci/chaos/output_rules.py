"""What must be true of what tasks leave behind: the store's bytes, the marks of scripts, and nothing else."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from distci.chaos.findings import Violation
from distci.chaos.history import Commit, History, Put
from distci.chaos.ticket_rules import claims, moves
from distci.model import Json
from distci.protocol import paths
from distci.recording import REFUSED

ATTEMPT = re.compile(r"builds/[^/]+/[0-9]+/tasks/[^/]+/([^/]+)/(.+)")

EMPTY = (
    paths.QUEUE,
    paths.RUNNING,
    paths.OWNERS,
    paths.PARKED,
    paths.DEAD,
    paths.PERMITS,
    paths.BUILDS,
    paths.IDLE,
    paths.WORKERS,
)
"""Folders in which nothing but empty folders is left when all builds have ended and all workers have."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A line that a script wrote about itself: ``start`` or ``end``, and its attempt."""

    word: str
    token: str


@dataclass(frozen=True, slots=True)
class TaskOutput:
    """What a task came to, by what the promises speak of; equal in every run with the same seed."""

    state: str
    log_bytes: int
    log_sha256: str
    artifacts: Mapping[str, str]
    """Digests of the published files, by name."""
    problem: str = ""
    """What of it could not be read back, or was not as it was published."""


@dataclass(frozen=True, slots=True)
class BuildOutput:
    """What a build came to."""

    build: str
    result: str
    tasks: Mapping[str, TaskOutput]
    record: Mapping[str, Json] = field(default_factory=dict, compare=False)


def check_outputs(calm: Mapping[str, BuildOutput], hit: Mapping[str, BuildOutput]) -> Iterator[Violation]:
    """Compare the builds of the run under faults with those of the calm run, by what caused them."""
    for cause, expected in calm.items():
        found = hit.get(cause)
        if found is None:
            yield Violation("output", f"there is no finished build for {cause}")
            continue
        if found.result != expected.result:
            yield Violation("output", f"{found.build} is {found.result}; {expected.result} is right")
        for name, task in expected.tasks.items():
            for what, right, now in _differences(task, found.tasks.get(name)):
                yield Violation("output", f"{what} of task {name} of {found.build}: {now}; right is {right}")


def check_puts(history: History) -> Iterator[Violation]:
    """Whoever writes below an attempt holds its claim, and no object of a build is ever given other bytes."""
    claimers = defaultdict(set)
    for token, commit in _claim_attempts(history):
        claimers[token].add(commit.process)
    written: dict[str, Put] = {}
    for put in history.puts:
        found = ATTEMPT.fullmatch(put.key)
        if found and found[2] != "outcome.json" and put.process not in claimers[unquote(found[1])]:
            yield Violation("output", f"{put.process} wrote below {unquote(found[1])}, which it never claimed", [put])
        if not put.key.startswith("builds/") or put.outcome == REFUSED or put.sha256 is None:
            continue
        first = written.setdefault(put.key, put)
        if first.sha256 != put.sha256:
            what = f"{put.key} was written twice with different bytes; a repeated write must be the same"
            yield Violation("output", what, [first, put])


def check_marks(history: History, marks: Sequence[Mark]) -> Iterator[Violation]:
    """Each attempt ran once at most, none that nobody claimed, and none after its ticket was completed."""
    started = [mark.token for mark in marks if mark.word == "start"]
    ended = {
        move.ticket: move
        for commit in history.commits
        for move in moves(commit)
        if move.whither is None and move.whence and move.whence.folder == paths.RUNNING
    }
    known = {token for token, _ in _claim_attempts(history)}
    for token in sorted({*started}):
        count = started.count(token)
        if count > 1:
            yield Violation("rerun", f"the script of {token} was started {count} times; an attempt runs once")
        if token not in known:
            yield Violation("rerun", f"the script of {token} ran, and nobody had claimed it")
        end = ended.get(paths.ticket_of(token))
        if end and end.whence and paths.attempt_of(token) > end.whence.attempt:
            what = f"{token} ran although {end.whence.token} had completed the task"
            yield Violation(
                "rerun", what, [end.commit, *(commit for other, commit in _claim_attempts(history) if other == token)]
            )


def check_left(tree: Mapping[str, bytes]) -> Iterator[Violation]:
    """Nothing may be left in the tree when all is over."""
    for folder in EMPTY:
        left = [path for path in tree if path.startswith(f"{folder}/") and _is_leaf(path)]
        if left:
            yield Violation("left", f"{len(left)} nodes are left below {folder}: {', '.join(sorted(left)[:3])}")


def rerun_tokens(marks: Sequence[Mark]) -> int:
    """How many scripts were started for tickets whose script had been started before."""
    started = {mark.token for mark in marks if mark.word == "start"}
    return len(started) - len({paths.ticket_of(token) for token in started})


def _differences(expected: TaskOutput, found: TaskOutput | None) -> Iterator[tuple[str, object, object]]:
    if found is None:
        yield "outcome", expected.state, "none"
        return
    if found.state != expected.state:
        yield "state", expected.state, found.state
    if found.problem:
        yield "output", "whole and as it was published", found.problem
    if (found.log_bytes, found.log_sha256) != (expected.log_bytes, expected.log_sha256):
        yield (
            "log",
            f"{expected.log_bytes} bytes {expected.log_sha256[:12]}",
            f"{found.log_bytes} bytes {found.log_sha256[:12]}",
        )
    if found.artifacts != expected.artifacts:
        yield "artifacts", dict(expected.artifacts), dict(found.artifacts)


def _claim_attempts(history: History) -> list[tuple[str, Commit]]:
    """Every claim that took effect or may have, by token."""
    return [(token, commit) for commit in history.commits if commit.may_stand for token in claims([commit])]


def _is_leaf(path: str) -> bool:
    """Whether it is a node that stands for something, not a folder."""
    depth = path.count("/")
    top = path.split("/")[1]
    return depth >= {"queue": 4, "dead": 2, "workers": 2}.get(top, 3)
