"""The planner: what a job means for one build, and what follows from each thing that happens. Pure: no I/O, no clock.

``expand`` fills parameters and matrices in and spells out every task; ``begin`` and ``advance`` walk the plan. The order in
which tasks happen to end changes nothing in where they end.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter

from distci.errors import IllegalTransition, InvalidJob
from distci.model import (
    Advance,
    BuildId,
    BuildState,
    Job,
    Json,
    Plan,
    Progress,
    Result,
    Task,
    TaskDefinition,
    TaskState,
    Trigger,
    Verdict,
    When,
)

TASKS_MAX = 256
"""Tasks of one build, matrices expanded: their states must fit into one node of the tree."""

LABEL_AXIS = "label"
"""The matrix axis whose values are asked for as labels besides being filled in."""


@dataclass(frozen=True, slots=True)
class Finished:
    """An attempt at a task has ended with a verdict."""

    task: str
    token: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Lost:
    """A task's attempts are used up without any verdict."""

    task: str
    token: str


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The ticket of a cancelled build's task was taken back before anybody did it."""

    task: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Somebody wants the build to end."""


Event = Finished | Lost | Withdrawn | Cancelled


def expand(job: Job, build: BuildId, config: int, trigger: Trigger) -> Plan:
    """The plan of one build; InvalidJob names every parameter that is wrong, and whatever else keeps it from being made."""
    problems: list[str] = []
    parameters = dict(_parameters(job, trigger, problems))
    tasks, more = expand_tasks(job, parameters, trigger.parameters)
    problems += more
    if problems:
        raise InvalidJob(f"{build} cannot be planned:", problems)
    return Plan(build, config, trigger, parameters, tasks)


def expand_tasks(
    job: Job, parameters: Mapping[str, str], asked: Mapping[str, str] | None = None
) -> tuple[Sequence[Task], Sequence[str]]:
    """Every task of a job, needs first, and what is wrong with them.

    ``asked`` are the parameters that the event or the person gave: these alone win over a matrix.
    """
    problems: list[str] = []
    filled = {definition.name: list(variants(definition)) for definition in job.tasks}
    total = sum(len(found) for found in filled.values())
    if total > TASKS_MAX:
        return (), [f"tasks: {total} tasks with all matrices expanded; at most {TASKS_MAX} are allowed"]
    names = {
        definition.name: [_name(definition, values) for values in filled[definition.name]] for definition in job.tasks
    }
    tasks: dict[str, Task] = {}
    for position, definition in enumerate(job.tasks):
        where = f"tasks[{position}]"
        if not filled[definition.name]:
            problems.append(f"{where}.matrix: nothing is left of it")
        needs = _needs(job, position, names, where, problems)
        for values in filled[definition.name]:
            task = _task(job, definition, values, needs, parameters, asked or {})
            if task.name in tasks:
                problems.append(f"{where}: two tasks would be named {task.name!r}")
            tasks[task.name] = task
    if not tasks and not problems:
        problems.append("tasks: there is nothing to run")
    ordered = _ordered(tasks, problems)
    return ordered, problems


def begin(plan: Plan, taken: Mapping[str, Progress] | None = None) -> Advance:
    """The first tasks to post. ``taken`` are tasks whose end is taken over from another build."""
    known = taken or {}
    return _settle(plan, BuildState({task.name: known.get(task.name, Progress()) for task in plan.tasks}))


def advance(plan: Plan, state: BuildState, event: Event) -> Advance:
    """What follows from an event.

    Raises IllegalTransition when the event concerns a task that is not posted: then somebody else was first.
    """
    if isinstance(event, Cancelled):
        return _settle(plan, replace(state, is_cancelled=True))
    task, progress = plan.task(event.task), state.tasks[event.task]
    if progress.state is not TaskState.READY:
        raise IllegalTransition(f"task {task.name} is {progress.state}; it cannot end now")
    if isinstance(event, Withdrawn):
        return _settle(plan, _with(state, task, replace(progress, state=TaskState.CANCELLED)))
    if isinstance(event, Lost):
        return _settle(plan, _with(state, task, replace(progress, state=TaskState.LOST, token=event.token)))
    ended = replace(progress, state=TaskState(event.verdict), token=event.token)
    if ended.state.is_bad and progress.round <= task.retries and not state.is_cancelled:
        again = replace(progress, round=progress.round + 1, token=event.token)
        return Advance(_with(state, task, again), (task.name,))
    return _settle(plan, _with(state, task, ended))


def result(plan: Plan, state: BuildState) -> Result:
    """The result of a build all of whose tasks are final."""
    if state.is_cancelled:
        return Result.CANCELLED
    is_bad = any(state.tasks[task.name].state.is_bad and not task.allow_failure for task in plan.tasks)
    return Result.FAILED if is_bad else Result.PASSED


# Walking the plan


def _settle(plan: Plan, state: BuildState) -> Advance:
    """Decide every waiting task whose needs are final; needs come first in a plan, so one pass settles all."""
    ready: list[str] = []
    for task in plan.tasks:
        if state.tasks[task.name].state is TaskState.WAITING:
            decided = _decide(plan, state, task)
            state = _with(state, task, Progress(decided))
            if decided is TaskState.READY:
                ready.append(task.name)
    is_over = all(progress.state.is_final for progress in state.tasks.values())
    return Advance(state, tuple(ready), result(plan, state) if is_over else None)


def _decide(plan: Plan, state: BuildState, task: Task) -> TaskState:
    """The truth table of outcomes (``docs/jobs.rst``) for one waiting task."""
    if state.is_cancelled and not (task.when is When.ALWAYS and task.on_cancel):
        return TaskState.CANCELLED
    needs = [(plan.task(name), state.tasks[name].state) for name in task.needs]
    if not all(found.is_final for _, found in needs):
        return TaskState.WAITING
    if task.when is When.ALWAYS:
        return TaskState.READY
    has_failed = any(found.is_bad and not need.allow_failure for need, found in needs)
    has_skipped = any(found in (TaskState.SKIPPED, TaskState.CANCELLED) for _, found in needs)
    if task.when is When.FAILURE:
        return TaskState.READY if has_failed else TaskState.SKIPPED
    return TaskState.SKIPPED if has_failed or has_skipped else TaskState.READY


def _with(state: BuildState, task: Task, progress: Progress) -> BuildState:
    return replace(state, tasks={**state.tasks, task.name: progress})


# Expanding


def _parameters(job: Job, trigger: Trigger, problems: list[str]) -> Iterator[tuple[str, str]]:
    """Declared defaults under what the trigger gives."""
    given = {**trigger.presets, **trigger.parameters}
    for name in given:
        if name not in job.parameters:
            known = ", ".join(sorted(job.parameters)) or "none"
            problems.append(f"parameters.{name}: job {job.id} has no such parameter; it has: {known}")
    for name, parameter in job.parameters.items():
        if name not in given and parameter.required:
            problems.append(f"parameters.{name}: a value is required")
        value = given.get(name, parameter.default)
        if parameter.choices and value not in parameter.choices and not (parameter.required and not value):
            problems.append(f"parameters.{name}: {value!r} is not one of: {', '.join(parameter.choices)}")
        yield name, value


def variants(definition: TaskDefinition) -> Iterator[Mapping[str, str]]:
    """The values of each matrix axis, combination by combination; one empty combination without a matrix."""
    if not definition.matrix and not definition.include:
        yield {}
        return
    combinations = (
        [dict(zip(definition.matrix, values, strict=True)) for values in itertools.product(*definition.matrix.values())]
        if definition.matrix
        else []
    )
    for values in combinations:
        if not any(excluded.items() <= values.items() for excluded in definition.exclude):
            yield values
    yield from (dict(values) for values in definition.include)


def _name(definition: TaskDefinition, values: Mapping[str, str]) -> str:
    return f"{definition.name}[{','.join(values.values())}]" if values else definition.name


def _needs(
    job: Job, position: int, names: Mapping[str, Sequence[str]], where: str, problems: list[str]
) -> Sequence[str]:
    """The expanded names of what a task needs; without ``needs``, what stands before it."""
    definition = job.tasks[position]
    if definition.needs is None:
        earlier = job.tasks[:position]
        before = earlier if definition.when is not When.SUCCESS else earlier[-1:]
        return [name for task in before for name in names[task.name]]
    found: list[str] = []
    expanded = {name for variants in names.values() for name in variants}
    for need in definition.needs:
        if need in names:
            found += names[need]
        elif need in expanded:
            found.append(need)
        else:
            problems.append(f"{where}.needs: there is no task {need!r}")
    return list(dict.fromkeys(found))


def _task(
    job: Job,
    definition: TaskDefinition,
    values: Mapping[str, str],
    needs: Sequence[str],
    parameters: Mapping[str, str],
    asked: Mapping[str, str],
) -> Task:
    fill = _filler(values)
    axes = {name: value for name, value in values.items() if name.isidentifier()}
    environment = {**job.environment, **definition.environment, **parameters, **axes, **asked}
    labels = [*definition.labels, *([values[LABEL_AXIS]] if LABEL_AXIS in values else [])]
    return Task(
        name=_name(definition, values),
        type=definition.type,
        needs=tuple(needs),
        when=definition.when,
        on_cancel=definition.on_cancel,
        labels=tuple(fill(label) for label in labels),
        isolation=fill(definition.isolation),
        environment={name: fill(value) for name, value in environment.items()},
        secrets=tuple(definition.secrets),
        timeout_s=definition.timeout_s,
        attempts=definition.attempts,
        retries=definition.retries,
        allow_failure=definition.allow_failure,
        priority=definition.priority,
        arguments=fill(definition.arguments),
    )


def _filler(values: Mapping[str, str]) -> Callable[[Json], Json]:
    """Replaces ``{axis}`` in every string of a value. ``${axis}`` is the shell's own and stays, as do all other braces."""
    if not values:
        return lambda value: value
    names = "|".join(re.escape(name) for name in values)
    pattern = re.compile(rf"(?<!\$)\{{({names})\}}")

    def fill(value: Json) -> Json:
        if isinstance(value, str):
            return pattern.sub(lambda match: values[match[1]], value)
        if isinstance(value, Mapping):
            return {key: fill(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [fill(item) for item in value]
        return value

    return fill


def _ordered(tasks: Mapping[str, Task], problems: list[str]) -> Sequence[Task]:
    """The tasks with needs first, else in the job's order; a circle is a problem that names its members."""
    sorter = TopologicalSorter({name: [need for need in task.needs if need in tasks] for name, task in tasks.items()})
    try:
        sorter.prepare()
    except CycleError as error:
        problems.append(f"tasks: they need each other in a circle: {' -> '.join(error.args[1])}")
        return tuple(tasks.values())
    rank = {name: position for position, name in enumerate(tasks)}
    ordered: list[Task] = []
    waiting: list[str] = []
    while sorter.is_active():
        waiting += sorter.get_ready()
        waiting.sort(key=lambda name: rank[name])
        name = waiting.pop(0)
        ordered.append(tasks[name])
        sorter.done(name)
    return tuple(ordered)
