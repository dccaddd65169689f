"""Any plan, any outcomes, any order in which they come: held against a plain model of the truth table."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from importlib.resources import files

from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from distci import plan
from distci.documents import stored
from distci.model import (
    BuildId,
    BuildState,
    Outcome,
    Plan,
    Progress,
    Result,
    Retrying,
    Task,
    TaskState,
    Trigger,
    Verdict,
    When,
)

LIMITS = settings(deadline=None, max_examples=150)

ENDS = ("passed", "failed", "failed 75", "timed-out", "lost")
"""How a round may end: with its verdict and, if there is one, an exit status."""


@dataclass(frozen=True)
class Case:
    """A plan, and how each round of each task ends."""

    plan: Plan
    ends: dict[str, list[str]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    names = [f"t{number}" for number in range(draw(st.integers(1, 7)))]
    tasks = []
    for position, name in enumerate(names):
        earlier = names[:position]
        needs = draw(st.lists(st.sampled_from(earlier), unique=True)) if earlier else []
        when = draw(st.sampled_from(When))
        tasks.append(
            Task(
                name,
                "shell",
                needs,
                when,
                on_cancel=when is When.ALWAYS and draw(st.booleans()),
                retries=draw(st.integers(0, 2)),
                allow_failure=draw(st.booleans()),
                retrying=Retrying(exit_statuses=draw(st.sampled_from([(), (75,)]))),
                unfit=draw(st.sampled_from(["", "", "", "branch x is none of: main"])),
            )
        )
    ends = {name: draw(st.lists(st.sampled_from(ENDS), min_size=3, max_size=3)) for name in names}
    return Case(Plan(BuildId("a", 1), 1, Trigger(), {}, tuple(tasks)), ends)


@dataclass
class Run:
    """One way through a plan."""

    state: BuildState
    posted: Counter[str]
    result: Result | None

    def ready(self) -> list[str]:
        return [name for name, progress in self.state.tasks.items() if progress.state is TaskState.READY]


def begin(case: Case) -> Run:
    begun = plan.begin(case.plan)
    return Run(begun.state, Counter(begun.ready), begun.result)


def follow(case: Case, run: Run, event: plan.Event) -> None:
    before = run.state
    advance = plan.advance(case.plan, run.state, event)
    for name in advance.ready:
        needs = case.plan.task(name).needs
        assert all(advance.state.tasks[need].state.is_final for need in needs)
    for name, progress in before.tasks.items():
        assert not progress.state.is_final or advance.state.tasks[name] == progress
    run.state, run.result = advance.state, advance.result
    run.posted.update(advance.ready)


def end(case: Case, run: Run, name: str) -> None:
    round_ = run.state.tasks[name].round
    how = case.ends[name][round_ - 1]
    token = f"{name}-{round_}.1"
    verdict, _, status = how.partition(" ")
    ended = plan.Finished(name, token, Verdict(verdict), int(status) if status else None) if how != "lost" else None
    follow(case, run, ended or plan.Lost(name, token))


def model(case: Case) -> dict[str, str]:
    """How each task ends, by the letter of the table, from the needs up."""
    ended: dict[str, str] = {}
    for task in case.plan.tasks:
        failed = skipped = False
        for need in task.needs:
            if ended[need] in ("failed", "timed-out", "lost"):
                failed = failed or not case.plan.task(need).allow_failure
            elif ended[need] == "skipped":
                skipped = True
        runs = {"success": not failed and not skipped, "failure": failed, "always": True}[task.when]
        runs = runs and not task.unfit
        ended[task.name] = last_round(case, task) if runs else "skipped"
    return ended


def last_round(case: Case, task: Task) -> str:
    for how in case.ends[task.name][: task.retries + 1]:
        verdict, _, status = how.partition(" ")
        is_asked_for = not task.retrying.exit_statuses or status == "75"
        if verdict in ("passed", "lost") or not is_asked_for:
            break
    return verdict


@LIMITS
@given(cases(), st.data())
def test_every_order_of_ends_leads_where_the_table_says(case: Case, data: st.DataObject) -> None:
    # Given a build, when its tasks end in some order
    run = begin(case)
    while ready := run.ready():
        assert run.result is None
        end(case, run, data.draw(st.sampled_from(ready)))
    # Then each stands where the table says, was posted as often as its retries allow, and the result follows
    expected = model(case)
    assert {name: progress.state.value for name, progress in run.state.tasks.items()} == expected
    assert all(run.posted[task.name] <= 1 + task.retries for task in case.plan.tasks)
    went_wrong = any(
        expected[task.name] in ("failed", "timed-out", "lost") and not task.allow_failure for task in case.plan.tasks
    )
    assert run.result is (Result.FAILED if went_wrong else Result.PASSED)


@LIMITS
@given(cases(), st.data())
def test_a_cancel_at_any_moment_ends_the_build_once_what_runs_is_over(case: Case, data: st.DataObject) -> None:
    # Given a build somewhere on its way
    run = begin(case)
    for _ in range(data.draw(st.integers(0, 10))):
        if ready := run.ready():
            end(case, run, data.draw(st.sampled_from(ready)))
    if run.result is not None:
        return
    # When it is cancelled, and what is posted is taken back or ends
    posted = run.posted.copy()
    follow(case, run, plan.Cancelled())
    while ready := run.ready():
        name = data.draw(st.sampled_from(ready))
        if data.draw(st.booleans()):
            follow(case, run, plan.Withdrawn(name))
        else:
            end(case, run, name)
    # Then all is final, and nothing was posted any more but what runs in cancelled builds
    assert not any(case.plan.task(name).unfit for name in run.posted)
    assert run.result is Result.CANCELLED
    assert all(progress.state.is_final for progress in run.state.tasks.values())
    assert all(case.plan.task(name).on_cancel for name in run.posted - posted)


# What is written reads as what it was

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.dictionaries(texts, texts, max_size=3)
builds = st.builds(BuildId, st.sampled_from(["a", "team/hello"]), st.integers(1, 999))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(texts, json_values, max_size=3)
triggers = st.builds(
    Trigger,
    kind=texts,
    actor=texts,
    parameters=values,
    presets=values,
    commit=texts,
    ref=texts,
    upstream=st.none() | builds,
    retry_of=st.none() | builds,
    only=st.lists(texts, max_size=3).map(tuple),
)
tasks = st.builds(
    Task,
    name=texts,
    type=texts,
    needs=st.lists(texts, max_size=3).map(tuple),
    when=st.sampled_from(When),
    on_cancel=st.booleans(),
    labels=st.lists(texts, max_size=3).map(tuple),
    isolation=objects,
    environment=values,
    secrets=st.lists(texts, max_size=3).map(tuple),
    timeout_s=st.none() | st.floats(0.001, 1e6),
    attempts=st.integers(1, 20),
    retries=st.integers(0, 10),
    allow_failure=st.booleans(),
    priority=st.integers(0, 9),
    arguments=objects,
    unfit=texts,
    retrying=st.builds(
        Retrying,
        pause_s=st.integers(0, 9) | st.floats(0, 1e6),
        factor=st.integers(1, 9),
        exit_statuses=st.lists(st.integers(1, 255), max_size=3).map(tuple),
    ),
)
plans = st.builds(
    Plan,
    build=builds,
    config=st.integers(0, 99),
    trigger=triggers,
    parameters=values,
    tasks=st.lists(tasks, max_size=3).map(tuple),
)
progress = st.builds(
    Progress,
    state=st.sampled_from([state for state in TaskState if state is not TaskState.RUNNING]),
    round=st.integers(1, 11),
    token=texts,
    origin=st.sampled_from(["", "a#1", "team/hello#12"]),
)
states = st.builds(BuildState, tasks=st.dictionaries(texts, progress, max_size=5), is_cancelled=st.booleans())
OUTCOME_SCHEMA = Draft202012Validator(json.loads(files("distci.schemas").joinpath("outcome.json").read_text()))

outcomes = st.builds(
    Outcome,
    verdict=st.sampled_from(Verdict),
    reason=texts,
    exit_status=st.none() | st.integers(0, 255),
    signal=st.none() | st.integers(1, 64),
    details=objects,
)


@LIMITS
@given(plans)
def test_a_plan_reads_as_it_was_written_and_is_written_the_same(made: Plan) -> None:
    data = stored.plan_to_bytes(made)
    assert stored.plan_from_bytes(data) == made
    assert stored.plan_to_bytes(stored.plan_from_bytes(data)) == data


@LIMITS
@given(triggers)
def test_a_trigger_reads_as_it_was_written(trigger: Trigger) -> None:
    assert stored.trigger_from_json(stored.trigger_to_json(trigger)) == trigger


@LIMITS
@given(outcomes)
def test_an_outcome_is_written_as_its_schema_says(outcome: Outcome) -> None:
    written = json.loads(json.dumps(stored.outcome_to_json(outcome)))
    OUTCOME_SCHEMA.validate(written)
    assert (written["verdict"], written["details"]) == (outcome.verdict, outcome.details)


@LIMITS
@given(states)
def test_a_state_reads_as_it_was_written(state: BuildState) -> None:
    assert stored.state_from_json(stored.state_to_json(state)) == state
