"""What follows from each thing that happens to a build: the truth table of ``docs/jobs.rst``, row by row."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from distci import plan
from distci.errors import IllegalTransition
from distci.model import (
    APPROVAL,
    CALL,
    Advance,
    BuildId,
    BuildState,
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
from distci.plan import Cancelled, Finished, Lost, Withdrawn

PAUSES = Retrying(pause_s=10, factor=3)

GOOD = (TaskState.PASSED, TaskState.REUSED)
BAD = (TaskState.FAILED, TaskState.TIMED_OUT, TaskState.LOST)


def planned(*tasks: Task) -> Plan:
    return Plan(BuildId("a", 1), 1, Trigger(), {}, tasks)


def task(name: str, *needs: str, **keys: object) -> Task:
    return Task(name, "shell", needs, **keys)  # type: ignore[arg-type]


def states(advance: Advance) -> dict[str, TaskState]:
    return {name: progress.state for name, progress in advance.state.tasks.items()}


def outcome(made: Plan, advance: Advance, ends: Mapping[str, Verdict]) -> Advance:
    for name, verdict in ends.items():
        advance = plan.advance(made, advance.state, Finished(name, f"{name}.1", verdict))
    return advance


def after(need: TaskState, other: TaskState, when: When, *, allow: bool = False) -> TaskState:
    """Where a task stands whose two needs ended like this."""
    made = planned(task("x", allow_failure=allow), task("y"), task("z"), task("t", "x", "y", when=when))
    state = BuildState({"x": Progress(need), "y": Progress(other), "z": Progress(TaskState.READY), "t": Progress()})
    return states(plan.advance(made, state, Finished("z", "z.1", Verdict.PASSED)))["t"]


READY, SKIPPED = TaskState.READY, TaskState.SKIPPED


@pytest.mark.parametrize("good", GOOD)
@pytest.mark.parametrize(("when", "then"), [("success", READY), ("failure", SKIPPED), ("always", READY)])
def test_when_all_needs_passed(good: TaskState, when: str, then: TaskState) -> None:
    assert after(good, TaskState.PASSED, When(when)) is then


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize(("when", "then"), [("success", READY), ("failure", SKIPPED), ("always", READY)])
def test_a_need_that_may_fail_counts_as_passed(bad: TaskState, when: str, then: TaskState) -> None:
    assert after(bad, TaskState.PASSED, When(when), allow=True) is then


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("other", [TaskState.PASSED, TaskState.SKIPPED, TaskState.FAILED])
@pytest.mark.parametrize(("when", "then"), [("success", SKIPPED), ("failure", READY), ("always", READY)])
def test_when_some_need_failed(bad: TaskState, other: TaskState, when: str, then: TaskState) -> None:
    assert after(bad, other, When(when)) is then


@pytest.mark.parametrize("skipped", [TaskState.SKIPPED, TaskState.CANCELLED])
@pytest.mark.parametrize(("when", "then"), [("success", SKIPPED), ("failure", SKIPPED), ("always", READY)])
def test_when_some_need_was_skipped_and_none_failed(skipped: TaskState, when: str, then: TaskState) -> None:
    assert after(skipped, TaskState.PASSED, When(when)) is then


@pytest.mark.parametrize("when", When)
def test_nothing_is_decided_before_all_needs_are_final(when: When) -> None:
    assert after(TaskState.FAILED, TaskState.READY, when) is TaskState.WAITING


@pytest.mark.parametrize("when", When)
def test_of_a_cancelled_build_what_waits_is_cancelled(when: When) -> None:
    made = planned(task("a"), task("t", "a", when=when))
    assert states(plan.advance(made, plan.begin(made).state, Cancelled()))["t"] is TaskState.CANCELLED


def test_of_a_cancelled_build_a_task_that_says_so_runs_once_its_needs_are_final() -> None:
    made = planned(task("a"), task("t", "a", when=When.ALWAYS, on_cancel=True))
    # Given a build that is cancelled while its first task runs
    cancelled = plan.advance(made, plan.begin(made).state, Cancelled())
    assert states(cancelled) == {"a": TaskState.READY, "t": TaskState.WAITING}
    # When that task is over, then the other is posted, and the build has been cancelled all the same
    ended = plan.advance(made, cancelled.state, Withdrawn("a"))
    assert ended.ready == ("t",)
    assert outcome(made, ended, {"t": Verdict.PASSED}).result is Result.CANCELLED


def test_skipping_cascades_in_one_step() -> None:
    made = planned(task("a"), task("b", "a"), task("c", "b"), task("d", "c"))
    ended = outcome(made, plan.begin(made), {"a": Verdict.FAILED})
    assert states(ended) == {"a": TaskState.FAILED, "b": SKIPPED, "c": SKIPPED, "d": SKIPPED}
    assert ended.result is Result.FAILED


@pytest.mark.parametrize("verdict", [Verdict.FAILED, Verdict.TIMED_OUT])
def test_a_task_with_retries_left_is_posted_again_in_the_next_round(verdict: Verdict) -> None:
    made = planned(task("a", retries=1))
    again = plan.advance(made, plan.begin(made).state, Finished("a", "one.1", verdict))
    assert again.ready == ("a",)
    assert again.state.tasks["a"] == Progress(TaskState.READY, 2, "one.1")
    assert plan.advance(made, again.state, Finished("a", "two.1", verdict)).result is Result.FAILED


def test_a_lost_task_is_not_tried_again() -> None:
    made = planned(task("a", retries=5))
    ended = plan.advance(made, plan.begin(made).state, Lost("a", "a.3"))
    assert ended.state.tasks["a"] == Progress(TaskState.LOST, 1, "a.3")
    assert ended.result is Result.FAILED


def test_after_a_cancel_nothing_is_tried_again() -> None:
    made = planned(task("a", retries=5))
    cancelled = plan.advance(made, plan.begin(made).state, Cancelled())
    assert outcome(made, cancelled, {"a": Verdict.FAILED}).result is Result.CANCELLED


def test_a_task_that_passed_stays_passed_when_the_build_is_cancelled() -> None:
    made = planned(task("a"), task("b"))
    one = outcome(made, plan.begin(made), {"a": Verdict.PASSED})
    cancelled = plan.advance(made, one.state, Cancelled())
    ended = outcome(made, cancelled, {"b": Verdict.PASSED})
    assert states(ended) == {"a": TaskState.PASSED, "b": TaskState.PASSED}
    assert ended.result is Result.CANCELLED


@pytest.mark.parametrize(
    ("verdict", "allow", "then"),
    [
        (Verdict.PASSED, False, Result.PASSED),
        (Verdict.FAILED, False, Result.FAILED),
        (Verdict.TIMED_OUT, False, Result.FAILED),
        (Verdict.FAILED, True, Result.PASSED),
        (Verdict.CANCELLED, False, Result.CANCELLED),
        (Verdict.CANCELLED, True, Result.CANCELLED),
    ],
)
def test_the_result_of_a_build(verdict: Verdict, allow: bool, then: Result) -> None:
    made = planned(task("a", allow_failure=allow), task("b"))
    assert outcome(made, plan.begin(made), {"a": verdict, "b": Verdict.PASSED}).result is then


def test_there_is_no_result_while_anything_runs() -> None:
    made = planned(task("a"), task("b"))
    assert outcome(made, plan.begin(made), {"a": Verdict.FAILED}).result is None


def test_what_is_taken_over_is_not_run_again() -> None:
    made = planned(task("a"), task("b", "a"))
    taken = Progress(TaskState.REUSED, 1, "old.1", "a#1")
    begun = plan.begin(made, {"a": taken})
    assert begun.ready == ("b",)
    assert begun.state.tasks["a"] == taken


def test_what_hangs_on_a_task_that_runs_again_runs_again_too() -> None:
    made = planned(task("a"), task("b", "a"), task("c"))
    begun = plan.begin(made, dict.fromkeys(("b", "c"), Progress(TaskState.REUSED, 1, "old.1", "a#1")))
    assert states(begun) == {"a": TaskState.READY, "b": TaskState.WAITING, "c": TaskState.REUSED}


def test_a_build_that_took_over_everything_has_its_result_at_once() -> None:
    made = planned(task("a"))
    assert plan.begin(made, {"a": Progress(TaskState.REUSED)}).result is Result.PASSED


def test_a_second_cancel_changes_nothing() -> None:
    made = planned(task("a"), task("b", "a"))
    once = plan.advance(made, plan.begin(made).state, Cancelled())
    assert plan.advance(made, once.state, Cancelled()).state == once.state


@pytest.mark.parametrize(
    "event",
    [
        Finished("a", "a.1", Verdict.PASSED),
        Lost("a", "a.1"),
        Withdrawn("a"),
        Finished("b", "b.1", Verdict.PASSED),
        Finished("nobody", "n.1", Verdict.PASSED),
        Finished("c", "", Verdict.PASSED),
        Withdrawn("c"),
    ],
    ids=str,
)
def test_what_cannot_follow_is_refused(event: plan.Event) -> None:
    # Given a build in which a is over, b waits for c, and nobody has cancelled anything
    made = planned(task("a"), task("c"), task("b", "c"))
    state = outcome(made, plan.begin(made), {"a": Verdict.PASSED}).state
    with pytest.raises(IllegalTransition):
        plan.advance(made, state, event)


def test_an_attempt_counts_once_even_if_its_task_is_tried_again() -> None:
    made = planned(task("a", retries=1))
    again = plan.advance(made, plan.begin(made).state, Finished("a", "one.1", Verdict.FAILED))
    with pytest.raises(IllegalTransition, match=r"one\.1"):
        plan.advance(made, again.state, Finished("a", "one.1", Verdict.PASSED))


def test_a_build_that_is_over_cannot_be_cancelled() -> None:
    made = planned(task("a"))
    with pytest.raises(IllegalTransition, match="has ended"):
        plan.advance(made, outcome(made, plan.begin(made), {"a": Verdict.PASSED}).state, Cancelled())


@pytest.mark.parametrize(
    ("round_", "pause_s"), [(1, 0), (2, 10), (3, 30), (4, 90), (10, 65_610), (11, plan.PAUSE_MAX_S)]
)
def test_each_pause_between_rounds_is_longer_up_to_a_day(round_: int, pause_s: float) -> None:
    assert plan.pause_s(task("a", retries=10, retrying=PAUSES), Progress(round=round_)) == pause_s


@pytest.mark.parametrize(("exit_status", "state"), [(75, READY), (1, TaskState.FAILED), (None, TaskState.FAILED)])
def test_a_task_that_names_exit_statuses_is_run_again_after_these_alone(
    exit_status: int | None, state: TaskState
) -> None:
    made = planned(task("a", retries=1, retrying=Retrying(exit_statuses=(74, 75))))
    begun = plan.begin(made)
    ended = plan.advance(made, begun.state, Finished("a", "a.1", Verdict.FAILED, exit_status))
    assert states(ended) == {"a": state}


def test_files_come_through_any_web_of_tasks_that_only_wait() -> None:
    # Given rows of tasks that wait, of which each needs both of the row before it: more ways than anybody could go
    tasks = [Task("source", "shell"), Task("other", "shell")]
    for row in range(60):
        needs = ("source", "other") if row == 0 else (f"left{row - 1}", f"right{row - 1}")
        tasks += [Task(f"left{row}", APPROVAL, needs), Task(f"right{row}", CALL, tuple(reversed(needs)))]
    last = Task("last", "shell", ("right59", "source", "left59"))

    assert plan.givers(Plan(BuildId("a", 1), 1, Trigger(), {}, (*tasks, last)), last) == ("other", "source")
