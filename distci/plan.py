"""The planner: what a job means for one build, and what follows from each thing that happens. Pure: no I/O, no clock.

``expand`` fills parameters and matrices in and spells out every task; ``begin`` and ``advance`` walk the plan. The
order in which tasks happen to end changes nothing in where they end.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter
from math import prod

from distci import filters
from distci.errors import IllegalTransition, InvalidJob
from distci.filters import Occasion
from distci.model import (
    APPROVAL,
    PASSING,
    Advance,
    BuildId,
    BuildState,
    Job,
    Json,
    Parameter,
    ParameterType,
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

COMBINATIONS_MAX = 4096
"""Combinations that the axes of one matrix may span before ``exclude`` takes some away."""

VALUES_BYTES_MAX = 2048
"""Parameter values that a trigger may give, all together: they share the build's node with the state of its tasks."""

PAUSE_MAX_S = 86_400.0
"""However often it was doubled, no pause between two rounds is longer than a day."""

APPROVAL_S = 7 * 86_400.0
"""How long somebody may take to decide, unless the task says."""

LABEL_AXIS = "label"
"""The matrix axis whose values are asked for as labels besides being filled in."""


@dataclass(frozen=True, slots=True)
class Finished:
    """An attempt at a task has ended with a verdict."""

    task: str
    token: str
    verdict: Verdict
    exit_status: int | None = None


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


def expand(job: Job, build: BuildId, config: int, trigger: Trigger, changed: Sequence[str] | None = None) -> Plan:
    """The plan of one build; InvalidJob names every wrong parameter, and all else that keeps it from being made.

    ``changed`` are the files that have changed, where they are known.
    """
    problems: list[str] = []
    parameters = dict(_parameters(job, trigger, problems))
    tasks, more = expand_tasks(job, parameters, trigger.parameters, Occasion.of(trigger, parameters, changed))
    problems += more
    names = {task.name for task in tasks}
    problems += [
        f"only: there is no task {name!r}{did_you_mean(name, names)}" for name in trigger.only if name not in names
    ]
    made = Plan(build, config, trigger, parameters, tasks, job.concurrency)
    if not problems and begin(made).result is not None:
        problems.append("tasks: there is nothing to run: " + "; ".join(dict.fromkeys(_left_out(tasks))))
    if problems:
        raise InvalidJob(f"a build of {build.job} cannot be planned:", problems)
    return made


def expand_tasks(
    job: Job,
    parameters: Mapping[str, str],
    asked: Mapping[str, str] | None = None,
    occasion: Occasion | None = None,
    root: str = "",
) -> tuple[Sequence[Task], Sequence[str]]:
    """Every task of a job, needs first, and what is wrong with them.

    ``asked`` are the parameters that the event or the person gave: these alone win over a matrix. Without an ``occasion`` no task is left out. A task that comes
    first needs ``root``, a task of the build that the job does not name, or nothing.
    """
    problems = [*_stage_problems(job)]
    if problems:
        return (), problems
    unfit = [filters.why_not(definition.filter, occasion) if occasion else "" for definition in job.tasks]
    filled = [
        _filled(definition, f"tasks[{position}].matrix", problems) for position, definition in enumerate(job.tasks)
    ]
    total = sum(map(len, filled))
    if total > TASKS_MAX:
        return (), [
            *problems,
            f"tasks: {total} tasks with all matrices expanded; at most {TASKS_MAX} are allowed",
        ]
    names = {
        definition.name: [_name(definition, values) for values in found]
        for definition, found in zip(job.tasks, filled, strict=True)
    }
    tasks: dict[str, Task] = {}
    for position, definition in enumerate(job.tasks):
        where = f"tasks[{position}]"
        if definition.name in (earlier.name for earlier in job.tasks[:position]):
            problems.append(f"{where}.name: {definition.name!r} is the name of another task already")
            continue
        needs = _needs(job, position, names, unfit, problems, root)
        problems += [*_reaction_problems(job, position), *_filter_problems(job, definition, where)]
        for values in filled[position]:
            task = replace(_task(job, definition, values, needs, parameters, asked or {}), unfit=unfit[position])
            if task.name in tasks:
                problems.append(f"{where}.matrix: two tasks would be named {task.name!r}")
            tasks[task.name] = task
    if not tasks and not problems:
        problems.append("tasks: there is nothing to run")
    return ordered(tasks, problems), problems


def begin(plan: Plan, taken: Mapping[str, Progress] | None = None) -> Advance:
    """The first tasks to post. ``taken`` are tasks whose end is taken over from another build.

    What hangs on a task that runs again runs again too, whatever came of it the last time.
    """
    known = taken or {}
    tasks: dict[str, Progress] = {}
    for task in plan.tasks:
        is_kept = task.name in known and all(tasks[need].state.is_final for need in task.needs)
        tasks[task.name] = known[task.name] if is_kept else Progress()
    return _settle(plan, BuildState(tasks))


def advance(plan: Plan, state: BuildState, event: Event) -> Advance:
    """What follows from an event.

    Raises IllegalTransition when the event cannot follow on the state: the task is not posted, its attempt has been
    counted already, or the build is over. Then somebody else was first.
    """
    if isinstance(event, Cancelled):
        if _is_over(state):
            raise IllegalTransition(f"{plan.build} has ended; there is nothing to cancel")
        return _settle(plan, replace(state, is_cancelled=True))
    task, progress = _posted(plan, state, event.task)
    if isinstance(event, Withdrawn):
        if not state.is_cancelled:
            raise IllegalTransition(f"{plan.build} is not cancelled; the ticket of task {task.name} must stay")
        return _settle(plan, _with(state, task, replace(progress, state=TaskState.CANCELLED)))
    if not event.token or event.token == progress.token:
        raise IllegalTransition(f"attempt {event.token!r} of task {task.name} is over or never was")
    if isinstance(event, Lost):
        return _settle(plan, _with(state, task, replace(progress, state=TaskState.LOST, token=event.token)))
    ended = replace(progress, state=TaskState(event.verdict), token=event.token)
    if (
        ended.state.is_bad
        and progress.round <= task.retries
        and _is_worth_another(task, event)
        and not state.is_cancelled
    ):
        again = replace(progress, round=progress.round + 1, token=event.token)
        return Advance(_with(state, task, again), (task.name,))
    return _settle(plan, _with(state, task, ended))


def is_carried_on(plan: Plan, task: Task) -> bool:
    """Whether the files that a task leaves are for others: those that need it, or that it may define."""
    return "emits" in task.arguments or any(task.name in other.needs for other in plan.tasks)


def givers(plan: Plan, task: Task) -> Sequence[str]:
    """The tasks whose files a task begins with: its needs, in their order; and in place of those that only wait, what these need."""
    by_name = {other.name: other for other in plan.tasks}
    seen: dict[str, None] = {}
    left = [*reversed(task.needs)]
    while left:
        name = left.pop()
        # Looked at once, however many ways lead to it: of tasks that only wait, a few rows make millions.
        if name not in seen:
            seen[name] = None
            left += reversed(by_name[name].needs) if by_name[name].type in PASSING else ()
    return tuple(name for name in seen if by_name[name].type not in PASSING)


def wait_s(task: Task, progress: Progress) -> float:
    """How long the ticket of a task that is to begin waits first: for its next round, or for somebody to decide."""
    if task.type == APPROVAL:
        return task.timeout_s or APPROVAL_S
    return pause_s(task, progress)


def pause_s(task: Task, progress: Progress) -> float:
    """How long the round that a task is in has to wait before it begins."""
    if progress.round == 1:
        return 0
    return min(task.retrying.pause_s * task.retrying.factor ** (progress.round - 2), PAUSE_MAX_S)


def result(plan: Plan, state: BuildState) -> Result:
    """The result of a build all of whose tasks are final.

    A task that ended as cancelled though nobody cancelled the build did not do its work: such a build has not passed.
    """
    ends = [(task, state.tasks[task.name].state) for task in plan.tasks]
    if state.is_cancelled:
        return Result.CANCELLED
    if any(end.is_bad and not task.allow_failure for task, end in ends):
        return Result.FAILED
    return Result.CANCELLED if any(end is TaskState.CANCELLED for _, end in ends) else Result.PASSED


def did_you_mean(word: str, known: Collection[str]) -> str:
    """``; did you mean 'script'?`` when something known resembles the word, else what is known."""
    return resembling(word, known) or (f"; known are: {', '.join(sorted(known))}" if known else "")


def resembling(word: str, known: Collection[str]) -> str:
    """``; did you mean 'script'?`` when something known resembles the word: for where all that is known is told anyway."""
    return "".join(f"; did you mean {close!r}?" for close in get_close_matches(word, sorted(known), 1, 0.6))


# Walking the plan


def _posted(plan: Plan, state: BuildState, name: str) -> tuple[Task, Progress]:
    """A task that has a ticket, and where it stands."""
    progress = state.tasks.get(name)
    if progress is None:
        raise IllegalTransition(f"{plan.build} has no task {name!r}")
    if progress.state is not TaskState.READY:
        raise IllegalTransition(f"task {name} is {progress.state}; it cannot end now")
    return plan.task(name), progress


def _is_worth_another(task: Task, event: Finished) -> bool:
    """Whether a failure is one of those after which its task is run again."""
    wanted = task.retrying.exit_statuses
    return not wanted or event.exit_status in wanted


def _settle(plan: Plan, state: BuildState) -> Advance:
    """Decide every waiting task whose needs are final; needs come first in a plan, so one pass settles all."""
    by_name = {task.name: task for task in plan.tasks}
    tasks = dict(state.tasks)
    ready: list[str] = []
    for task in plan.tasks:
        if tasks[task.name].state is TaskState.WAITING:
            decided = _decide(task, [(by_name[need], tasks[need].state) for need in task.needs], state.is_cancelled)
            tasks[task.name] = Progress(decided)
            if decided is TaskState.READY:
                ready.append(task.name)
    settled = replace(state, tasks=tasks)
    return Advance(settled, tuple(ready), result(plan, settled) if _is_over(settled) else None)


def _decide(task: Task, needs: Sequence[tuple[Task, TaskState]], is_cancelled: bool) -> TaskState:
    """The truth table of outcomes (``docs/builds.rst``) for one waiting task."""
    if task.unfit:
        return TaskState.SKIPPED
    if is_cancelled and not (task.when is When.ALWAYS and task.on_cancel):
        return TaskState.CANCELLED
    if not all(found.is_final for _, found in needs):
        return TaskState.WAITING
    if task.when is When.ALWAYS:
        return TaskState.READY
    has_failed = any(found.is_bad and not need.allow_failure for need, found in needs)
    has_skipped = any(found in (TaskState.SKIPPED, TaskState.CANCELLED) for _, found in needs)
    if task.when is When.FAILURE:
        return TaskState.READY if has_failed else TaskState.SKIPPED
    return TaskState.SKIPPED if has_failed or has_skipped else TaskState.READY


def _is_over(state: BuildState) -> bool:
    return all(progress.state.is_final for progress in state.tasks.values())


def _with(state: BuildState, task: Task, progress: Progress) -> BuildState:
    return replace(state, tasks={**state.tasks, task.name: progress})


# Expanding


def _parameters(job: Job, trigger: Trigger, problems: list[str]) -> Iterator[tuple[str, str]]:
    """Declared defaults under what the trigger gives."""
    given = {**trigger.presets, **trigger.parameters}
    for name, value in given.items():
        problem = value_problem(job, name, value)
        if problem:
            problems.append(f"parameters.{name}: {problem}")
    size = sum(len(f"{name}{value}".encode(errors="replace")) for name, value in given.items())
    if size > VALUES_BYTES_MAX:
        problems.append(f"parameters: {size} bytes of values; at most {VALUES_BYTES_MAX} can be given")
    for name, parameter in job.parameters.items():
        if name not in given and parameter.required:
            problems.append(f"parameters.{name}: a value is required")
        yield name, given.get(name, parameter.default)


def value_problem(job: Job, name: str, value: str) -> str:
    """What is wrong with a value given for a parameter; empty when nothing is."""
    if name not in job.parameters:
        return f"job {job.id} has no such parameter{did_you_mean(name, job.parameters)}"
    # Of what a program gives, which no schema has seen.
    if not isinstance(value, str):
        return f"{value!r} is not a text"
    if unprintable := text_problem(value):
        return unprintable
    return kind_problem(job.parameters[name], value)


def kind_problem(parameter: Parameter, value: str) -> str:
    """Why a text is none of the values that a parameter may have; empty when it is one."""
    if parameter.choices and value not in parameter.choices:
        return f"{value!r} is not one of: {', '.join(parameter.choices)}"
    if parameter.type is ParameterType.BOOLEAN and value not in ("true", "false"):
        return f"{value!r} is neither true nor false"
    if parameter.type is not ParameterType.INTEGER:
        return ""
    if not re.fullmatch(r"-?(0|[1-9][0-9]{0,17})", value):
        return f"{value!r} is not a whole number"
    if parameter.minimum is not None and int(value) < parameter.minimum:
        return f"{value} is less than {parameter.minimum}"
    if parameter.maximum is not None and int(value) > parameter.maximum:
        return f"{value} is more than {parameter.maximum}"
    return ""


def text_problem(text: str) -> str:
    """What keeps a text from being a variable of a script; empty when nothing does."""
    if "\0" in text:
        return "has a NUL in it"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "has half a surrogate pair in it"
    return ""


def _filled(definition: TaskDefinition, where: str, problems: list[str]) -> Sequence[Mapping[str, str]]:
    """The combinations of a definition's matrix; none when there is something wrong with it."""
    wrong = list(_matrix_problems(definition, where))
    found = [] if wrong else list(variants(definition))
    if not wrong and not found:
        wrong.append(f"{where}: nothing is left of it")
    problems += wrong
    return found


def _matrix_problems(definition: TaskDefinition, where: str) -> Iterator[str]:
    # Counted, not made: a few long axes span more combinations than there is memory.
    spanned = prod(map(len, definition.matrix.values()))
    if spanned > COMBINATIONS_MAX:
        yield f"{where}: spans {spanned} combinations; at most {COMBINATIONS_MAX} can be looked at"
    for number, unwanted in enumerate(definition.exclude):
        for axis, value in unwanted.items():
            place = f"{where}.exclude[{number}].{axis}"
            if axis not in definition.matrix:
                yield f"{place}: the matrix has no such axis{did_you_mean(axis, definition.matrix)}"
            elif value not in definition.matrix[axis]:
                values = definition.matrix[axis]
                yield f"{place}: {value!r} is no value of this axis{did_you_mean(value, values)}"
    axes = definition.matrix or (definition.include[0] if definition.include else {})
    for number, more in enumerate(definition.include):
        for axis in axes.keys() ^ more.keys():
            place = f"{where}.include[{number}].{axis}"
            if axis in axes:
                yield f"{place}: is missing; every combination names every axis"
            else:
                yield f"{place}: the matrix has no such axis{did_you_mean(axis, axes)}"


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
    axes = definition.matrix or definition.include[0] if definition.include else ()
    yield from ({axis: values[axis] for axis in axes} for values in definition.include)


def _name(definition: TaskDefinition, values: Mapping[str, str]) -> str:
    return f"{definition.name}[{','.join(values.values())}]" if values else definition.name


def _needs(
    job: Job,
    position: int,
    names: Mapping[str, Sequence[str]],
    unfit: Sequence[str],
    problems: list[str],
    root: str = "",
) -> Sequence[str]:
    """The expanded names of what a task needs; without ``needs``, what stands before it."""
    definition = job.tasks[position]
    if definition.needs is None:
        before = [name for task in _before(job, position, unfit) for name in names[task.name]]
        return before or ([root] if root else [])
    found: list[str] = []
    expanded = {name for variants in names.values() for name in variants}
    for number, need in enumerate(definition.needs):
        if need in names:
            found += names[need]
        elif need in expanded or (root and need == root):
            found.append(need)
        elif names.get(need.partition("[")[0]) != []:  # an empty one is a matrix that is wrong, and was said to be
            where = f"tasks[{position}].needs[{number}]"
            problems.append(f"{where}: there is no task {need!r}{did_you_mean(need, expanded | names.keys())}")
    return list(dict.fromkeys(found))


def _stage_problems(job: Job) -> Iterator[str]:
    for position, definition in enumerate(job.tasks):
        where = f"tasks[{position}].stage"
        if definition.stage and not job.stages:
            yield f"{where}: the job has no `stages`, which would say in what order they come"
        elif job.stages and not definition.stage:
            yield f"{where}: is missing; the job's stages are: {', '.join(job.stages)}"
        elif job.stages and definition.stage not in job.stages:
            yield f"{where}: there is no stage {definition.stage!r}{did_you_mean(definition.stage, job.stages)}"


def _before(job: Job, position: int, unfit: Sequence[str] = ()) -> Sequence[TaskDefinition]:
    """What a task without ``needs`` goes by: the task before it, or for a reaction all of them.

    With stages: the last stage before its own that has tasks, reactions apart; or for a reaction all that is in stages before its own. What its
    ``if`` leaves out of a build (``unfit`` says why, by position) is in no stage.
    """
    if job.stages:
        rank = {stage: number for number, stage in enumerate(job.stages)}
        own = job.tasks[position]
        reasons = unfit or [""] * len(job.tasks)
        fit = [definition for definition, reason in zip(job.tasks, reasons, strict=True) if not reason]
        before = [definition for definition in fit if rank[definition.stage] < rank[own.stage]]
        if own.when is not When.SUCCESS:
            return before
        before = [definition for definition in before if definition.when is When.SUCCESS]
        last = max((rank[definition.stage] for definition in before), default=0)
        return [definition for definition in before if rank[definition.stage] == last]
    earlier = job.tasks[:position]
    return earlier[-1:] if job.tasks[position].when is When.SUCCESS else earlier


def _reaction_problems(job: Job, position: int) -> Iterator[str]:
    definition = job.tasks[position]
    where = f"tasks[{position}]"
    before = _before(job, position) if definition.needs is None else definition.needs
    if definition.when is When.FAILURE and not before:
        yield f"{where}.when: it can never run: it waits for a failure, but there is no task that it needs"
    if definition.on_cancel and definition.when is not When.ALWAYS:
        yield f"{where}.on_cancel: goes with `when: always` only"
    if definition.needs is None and definition.when is When.SUCCESS:
        for reaction in _before(job, position):
            if reaction.when is not When.SUCCESS:
                # By default it would go by the reaction alone: run after a failure that the reaction has dealt with.
                yield (
                    f"{where}.needs: is missing: the task before it, {reaction.name!r}, "
                    f"runs after failures too; say what this one needs"
                )


def _filter_problems(job: Job, definition: TaskDefinition, where: str) -> Iterator[str]:
    for name, values in definition.filter.parameters.items():
        problems = [problem for value in values if (problem := value_problem(job, name, value))]
        yield from (f"{where}.if.parameters.{name}: {problem}" for problem in dict.fromkeys(problems))


def _left_out(tasks: Sequence[Task]) -> Iterator[str]:
    return (f"{task.name}: {task.unfit}" for task in tasks if task.unfit)


def _task(
    job: Job,
    definition: TaskDefinition,
    values: Mapping[str, str],
    needs: Sequence[str],
    parameters: Mapping[str, str],
    asked: Mapping[str, str],
) -> Task:
    fill = _filler(values)
    declared = {**job.environment, **definition.environment}
    # What people give is taken letter for letter: only what the job says has places to fill in.
    environment = {name: fill(value) for name, value in declared.items()} | {**parameters, **values, **asked}
    labels = [*definition.labels, *([values[LABEL_AXIS]] if LABEL_AXIS in values else [])]
    return Task(
        name=_name(definition, values),
        type=definition.type,
        needs=tuple(needs),
        when=definition.when,
        on_cancel=definition.on_cancel,
        labels=tuple(fill(label) for label in labels),
        isolation=fill(definition.isolation),
        environment=environment,
        secrets=tuple(definition.secrets),
        secret_files=tuple(definition.secret_files),
        timeout_s=definition.timeout_s,
        attempts=definition.attempts,
        retries=definition.retries,
        retrying=definition.retrying,
        allow_failure=definition.allow_failure,
        priority=definition.priority,
        resources=tuple(replace(resource, name=fill(resource.name)) for resource in definition.resources),
        arguments=fill(definition.arguments),
    )


def _filler(values: Mapping[str, str]) -> Callable[[Json], Json]:
    """Replaces ``{axis}`` in every string of a value. ``${axis}`` is the shell's own and stays; so do other braces."""
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


def ordered(tasks: Mapping[str, Task], problems: list[str]) -> Sequence[Task]:
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
