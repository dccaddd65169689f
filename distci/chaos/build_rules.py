"""What must be true of every build: I3, I4, I6, I8 and I9, from the versions of its node, one after the other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from distci.build_tickets import CONTROL_KIND, build_of, control_ticket, task_ticket_id
from distci.chaos.findings import Violation
from distci.chaos.history import Commit
from distci.chaos.ticket_rules import claims, moves
from distci.coordination.port import Create, Delete, Write
from distci.live import LiveBuild
from distci.model import BuildId, Json, Progress, TaskState
from distci.protocol import paths
from distci.protocol.records import Running


@dataclass(slots=True)
class Life:
    """The transactions that made, changed and removed one build's node."""

    build: str
    created: list[Commit] = field(default_factory=list)
    written: list[tuple[int, Commit, LiveBuild]] = field(default_factory=list)
    """With the version that each was based on, in the order of these."""
    removed: list[Commit] = field(default_factory=list)
    first: LiveBuild | None = None

    @property
    def last(self) -> LiveBuild | None:
        return self.written[-1][2] if self.written else self.first

    @property
    def story(self) -> list[Commit]:
        return [*self.created, *(commit for _, commit, _ in self.written), *self.removed]


def lives(commits: Sequence[Commit]) -> Mapping[str, Life]:
    """All builds by their ids, from the transactions that took effect."""
    found: dict[str, Life] = {}
    for commit in commits:
        for step in commit.operations:
            folder, _, name = step.path.rpartition("/")
            if not folder.startswith(f"{paths.BUILDS}/"):
                continue
            build = paths.build_of(name)
            life = found.setdefault(str(build), Life(str(build)))
            if isinstance(step, Create):
                life.created.append(commit)
                life.first = LiveBuild.from_bytes(build, step.data, 0)
            elif isinstance(step, Write):
                life.written.append((step.version, commit, LiveBuild.from_bytes(build, step.data, step.version + 1)))
            elif isinstance(step, Delete):
                life.removed.append(commit)
    for life in found.values():
        life.written.sort(key=lambda change: change[0])
    return found


def check_builds(commits: Sequence[Commit], triggered: Sequence[str]) -> Iterator[Violation]:
    """``triggered`` are the builds that were promised to whoever asked for them."""
    found = lives(commits)
    for life in found.values():
        yield from _check_life(life)
    yield from _check_numbers(found, triggered)
    yield from _check_ends(commits)


def check_records(commits: Sequence[Commit], records: Mapping[str, Mapping[str, Json]]) -> Iterator[Violation]:
    """Compare archived records with the last states of their builds, and what follows on them with what was started."""
    found = lives(commits)
    started = defaultdict(list)
    for life in found.values():
        if life.first and life.first.trigger.upstream:
            started[str(life.first.trigger.upstream)].append(life)
    for build, record in records.items():
        if build not in found or (last := found[build].last) is None:
            continue
        life = found[build]
        if _digest(record) != _digest_of(last):
            yield Violation("I8", f"the record of {build} is not the state that it ended in", life.story[-3:])
        followers = sorted(follower.build for follower in started[build])
        if followers != sorted(record["downstream"]):
            what = f"{build} notes that it started {record['downstream']}; started were {followers}"
            yield Violation("I9", what, [commit for follower in started[build] for commit in follower.created])


def _digest(record: Mapping[str, Json]) -> object:
    return record["result"], {task["name"]: (task["state"], task["token"]) for task in record["tasks"]}


def _digest_of(live: LiveBuild) -> object:
    tasks = live.state.tasks if live.state else {}
    return live.result, {name: (progress.state, progress.token) for name, progress in tasks.items()}


def _check_life(life: Life) -> Iterator[Violation]:
    if len(life.created) > 1:
        yield Violation("I6", f"{life.build} was created {len(life.created)} times", life.created)
    before = life.first
    for version, commit, after in life.written:
        if version < 0:
            yield Violation(
                "I4", f"{life.build} was written whatever its version; a finish must name the one it read", [commit]
            )
        elif before is not None:
            yield from _check_change(before, commit, after, life)
        before = after
    for commit in life.removed:
        archive = _control(life.build, "archive")
        if not _ends(commit, archive):
            what = f"{life.build} was taken off the tree by a transaction that does not end its ticket {archive}"
            yield Violation("I4", what, [*life.story[-2:], commit])


def _check_change(before: LiveBuild, commit: Commit, after: LiveBuild, life: Life) -> Iterator[Violation]:
    tasks_before = before.state.tasks if before.state else {}
    tasks_after = after.state.tasks if after.state else {}
    if before.state is None and (after.state or after.result) and not _ends(commit, _control(life.build, "plan")):
        yield Violation("I4", f"{life.build} was planned by a transaction that does not end its ticket", [commit])
    yield from _check_group(before, commit, after, life)
    for name, now in tasks_after.items():
        then = tasks_before.get(name, Progress())
        if now.token and now.token != then.token and not now.origin and not commit.deletes(paths.running(now.token)):
            what = (
                f"task {name} of {life.build} was settled by {now.token} without the fence: "
                f"the transaction must remove {paths.running(now.token)}"
            )
            yield Violation("I4", what, [commit, *_about(life, name, now.token)])
        if then.state.is_final and now != then:
            yield Violation(
                "I4",
                f"task {name} of {life.build} was {then.state} and became {now.state}",
                [*_about(life, name, then.token), commit],
            )
        if now.state is TaskState.READY and (now.state, now.round) != (then.state, then.round):
            yield from _check_posted(commit, task_ticket_id(after.build, name, now), f"task {name} of {life.build}")
    if after.result and not before.result:
        yield from _check_posted(commit, _control(life.build, "archive"), f"the end of {life.build}")


def _check_group(before: LiveBuild, commit: Commit, after: LiveBuild, life: Life) -> Iterator[Violation]:
    """A build takes its place in a group when it begins and gives it back with its result."""
    for name, slot in {*after.slots} - {*before.slots}:
        if not commit.creates(paths.permit(name, slot)):
            yield Violation(
                "I7", f"{life.build} began without its place in {name!r}, {paths.permit(name, slot)}", [commit]
            )
    for name, slot in {*before.slots} if after.result else ():
        if not commit.deletes(paths.permit(name, slot)):
            what = (
                f"{life.build} ended and kept its place in {name!r}; {paths.permit(name, slot)} must go with its result"
            )
            yield Violation("I7", what, [commit])


def _about(life: Life, task: str, token: str) -> Sequence[Commit]:
    """The change of a build that let an attempt count for a task."""
    changes = (commit for _, commit, live in life.written if live.state and live.state.tasks[task].token == token)
    return list(islice(changes, 1))


def _check_posted(commit: Commit, ticket: str, what_for: str) -> Iterator[Violation]:
    if not any(move.ticket == ticket and move.whence is None for move in moves(commit)):
        yield Violation(
            "I3", f"{what_for} needs ticket {ticket}, which must be posted in the same transaction", [commit]
        )


def _check_numbers(found: Mapping[str, Life], triggered: Sequence[str]) -> Iterator[Violation]:
    numbers = defaultdict(list)
    for build in found:
        job, _, number = build.rpartition("#")
        numbers[job].append(int(number))
    for job, taken in numbers.items():
        if sorted(taken) != [*range(1, len(taken) + 1)]:
            yield Violation("I6", f"the builds of {job} have numbers {sorted(taken)}; 1 to {len(taken)} is right")
    own = sorted(build for build, life in found.items() if life.first and not life.first.trigger.upstream)
    if own != sorted(triggered):
        lost, more = sorted({*triggered} - {*own}), sorted({*own} - {*triggered})
        yield Violation("I6", f"accepted and not built: {lost}; built and not asked for: {more}")


def _check_ends(commits: Sequence[Commit]) -> Iterator[Violation]:
    """A ticket of a build ends only in the transaction that moves its build on."""
    held = claims(commits)
    for commit in commits:
        for move in moves(commit):
            if move.whence is None or move.whither is not None or move.whence.token not in held:
                continue
            begun, running = held[move.whence.token]
            if not _moves_on(commit, move.whence.token, running):
                what = f"{move.whence.token} was finished by a transaction that does not move its build on; both must be one"
                yield Violation("I3", what, [begun, commit])


def _moves_on(commit: Commit, token: str, running: Running) -> bool:
    body = running.ticket.body
    if "build" not in body:
        return True
    changes = [step for step in commit.operations if step.path == running.ticket.guard]
    if running.ticket.kind == CONTROL_KIND and body.get("action") == "archive":
        return any(isinstance(step, Delete) for step in changes)
    return any(
        "task" not in body
        or _settles(LiveBuild.from_bytes(build_of(running.ticket), step.data, 0), body["task"], token)
        for step in changes
        if isinstance(step, Write)
    )


def _settles(live: LiveBuild, task: str, token: str) -> bool:
    return live.state is not None and live.state.tasks[task].token == token


def _ends(commit: Commit, ticket: str) -> bool:
    return any(move.ticket == ticket and move.whither is None for move in moves(commit))


def _control(build: str, action: str) -> str:
    return control_ticket(BuildId.parse(build), action).id
