"""Any job that can be written, any occasion, any outcomes in any order: held against a plain reading of ``docs/builds.rst``, from the document to the result."""

from __future__ import annotations

from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from distci import plan
from distci.documents.jobs import job_from_json
from distci.errors import InvalidJob
from distci.model import BuildId, Plan, Result, TaskState, Trigger, Verdict

STAGES = ["1", "2", "3"]
BAD = ("failed", "timed-out", "lost")

Entry = dict[str, Any]

kinds: st.SearchStrategy[Entry] = st.sampled_from(
    [
        {"type": "shell", "script": "true"},
        {"type": "approval"},
        {"type": "build", "job": "team/other"},
    ]
)
filters: st.SearchStrategy[Entry] = st.sampled_from(
    [
        *({}, {}, {}),
        {"parameters": {"LEVEL": "full"}},
        {"parameters": {"LEVEL": ["fast", "full"]}},
        {"branches": ["main"]},
        {"events": ["manual"], "branches": ["*"]},
    ]
)


@st.composite
def documents(draw: st.DrawFn) -> Entry:
    """A job as somebody may write it, with stages or without; some of them are refused."""
    is_staged = draw(st.booleans())
    names = [f"t{number}" for number in range(draw(st.integers(1, 7)))]
    tasks: list[Entry] = []
    for name in names:
        when = draw(st.sampled_from(["success", "success", "failure", "always"]))
        task = {"name": name, "when": when, "allow_failure": draw(st.booleans()), **draw(kinds)}
        if is_staged:
            task["stage"] = draw(st.sampled_from(STAGES))
        if draw(st.booleans()):
            # Of tasks of a later stage, which may need it by themselves, there would be circles.
            others = [other["name"] for other in tasks if not is_staged or other["stage"] <= task["stage"]]
            task["needs"] = draw(st.lists(st.sampled_from(others), unique=True)) if others else []
        if when == "always":
            task["on_cancel"] = draw(st.booleans())
        if task["type"] == "shell":
            task["retries"] = draw(st.integers(0, 2))
            task["attempts"] = draw(st.integers(1, 3))
        if wanted := draw(filters):
            task["if"] = wanted
        tasks.append(task)
    stages = {"stages": STAGES} if is_staged else {}
    return {"job": "team/job", "parameters": {"LEVEL": {"choices": ["fast", "full"]}}, "tasks": tasks, **stages}


occasions = st.builds(
    Trigger,
    kind=st.just("manual"),
    ref=st.sampled_from(["", "refs/heads/main", "refs/heads/old", "refs/tags/main"]),
    parameters=st.sampled_from([{}, {"LEVEL": "fast"}, {"LEVEL": "full"}]),
)


# The table, as it is read


def is_fit(task: Entry, trigger: Trigger) -> bool:
    wanted = task.get("if", {})
    level = trigger.parameters.get("LEVEL", "fast")
    branch = trigger.ref.removeprefix("refs/heads/") if trigger.ref.startswith("refs/heads/") else ""
    return level in wanted.get("parameters", {}).get("LEVEL", level) and (
        "branches" not in wanted or branch in (["main", "old", ""] if wanted["branches"] == ["*"] else ["main"])
    )


def needs_of(document: Entry, position: int, trigger: Trigger) -> list[str]:
    """What a task goes by: what it names, or what its place says."""
    tasks, task = document["tasks"], document["tasks"][position]
    if "needs" in task:
        return list(task["needs"])
    if "stages" not in document:
        before = tasks[:position]
        return [other["name"] for other in (before[-1:] if task["when"] == "success" else before)]
    earlier = STAGES[: STAGES.index(task["stage"])]
    before = [other for other in tasks if other["stage"] in earlier and is_fit(other, trigger)]
    if task["when"] == "success":
        for stage in reversed(earlier):
            if found := [other for other in before if other["stage"] == stage and other["when"] == "success"]:
                return [other["name"] for other in found]
        return []
    return [other["name"] for other in before]


def where_it_ends(document: Entry, trigger: Trigger, ends: dict[str, list[str]]) -> dict[str, str]:
    """How each task ends, where nobody cancels the build."""
    by_name = {task["name"]: (position, task) for position, task in enumerate(document["tasks"])}
    ended: dict[str, str] = {}

    def end_of(name: str) -> str:
        if name not in ended:
            ended[name] = found(name)
        return ended[name]

    def found(name: str) -> str:
        position, task = by_name[name]
        if not is_fit(task, trigger):
            return "skipped"
        came = [(end_of(need), by_name[need][1]["allow_failure"]) for need in needs_of(document, position, trigger)]
        failed = any(end in BAD and not is_allowed for end, is_allowed in came)
        skipped = any(end == "skipped" for end, _ in came)
        if not {"success": not failed and not skipped, "failure": failed, "always": True}[task["when"]]:
            return "skipped"
        for end in ends[name][: task.get("retries", 0) + 1]:
            if end not in ("failed", "timed-out"):
                break
        return end

    return {name: end_of(name) for name in by_name}


# What is said is so


def planned(document: Entry, trigger: Trigger) -> Plan:
    """The plan, unless the job is one that is refused or has nothing to run on that occasion."""
    try:
        return plan.expand(job_from_json(document), BuildId("team/job", 1), 1, trigger)
    except InvalidJob as error:
        meant = ["it can never run", "nothing to run", *([] if "stages" in document else ["runs after failures too"])]
        assume(not all(any(words in problem for words in meant) for problem in error.problems))
        raise


def event_of(name: str, round_: int, end: str) -> plan.Event:
    token = f"{name}-{round_}.1"
    return plan.Lost(name, token) if end == "lost" else plan.Finished(name, token, Verdict(end))


@settings(deadline=None, max_examples=100)
@given(documents(), occasions, st.data())
def test_j10_whatever_is_written_ends_where_the_table_says(
    document: Entry, trigger: Trigger, data: st.DataObject
) -> None:
    # Given a build, and how each round of each task ends: somebody approves (passed), refuses (failed) or does not decide (timed out)
    made = planned(document, trigger)
    ways = st.lists(st.sampled_from(["passed", "passed", *BAD]), min_size=3, max_size=3)
    ends = {task["name"]: data.draw(ways) for task in document["tasks"]}
    step = plan.begin(made)

    # When its tasks end in some order
    while step.result is None:
        ready = [name for name, progress in step.state.tasks.items() if progress.state is TaskState.READY]
        name = data.draw(st.sampled_from(ready))
        round_ = step.state.tasks[name].round
        step = plan.advance(made, step.state, event_of(name, round_, ends[name][round_ - 1]))

    # Then each stands where the table says, and so does the build
    expected = where_it_ends(document, trigger, ends)
    assert {name: progress.state.value for name, progress in step.state.tasks.items()} == expected
    went_wrong = any(expected[task["name"]] in BAD and not task["allow_failure"] for task in document["tasks"])
    assert step.result is (Result.FAILED if went_wrong else Result.PASSED)


@settings(deadline=None, max_examples=50)
@given(documents(), occasions, st.data())
def test_j10_what_is_cancelled_runs_no_more_but_what_runs_then(
    document: Entry, trigger: Trigger, data: st.DataObject
) -> None:
    # Given a build that has just begun
    made = planned(document, trigger)
    begun = plan.begin(made)
    first = {name: progress.state for name, progress in begun.state.tasks.items()}

    # When it is cancelled, and what waits is taken back, a task that waits for somebody's decision too
    step = plan.advance(made, begun.state, plan.Cancelled())
    later: set[str] = {*step.ready}
    while step.result is None:
        ready = [name for name, progress in step.state.tasks.items() if progress.state is TaskState.READY]
        name = data.draw(st.sampled_from(ready))
        step = plan.advance(made, step.state, event_of(name, 1, "passed") if name in later else plan.Withdrawn(name))
        later |= {*step.ready}

    # Then what runs in cancelled builds has run, and nothing else; what was decided before stays so
    by_name = {task["name"]: task for task in document["tasks"]}
    assert step.result is Result.CANCELLED
    for name, progress in step.state.tasks.items():
        task = by_name[name]
        runs = task["when"] == "always" and task["on_cancel"] and first[name] is TaskState.WAITING
        came_to = "passed" if runs else "cancelled"
        assert progress.state.value == ("skipped" if first[name] is TaskState.SKIPPED else came_to)
        assert is_fit(task, trigger) or first[name] is TaskState.SKIPPED
