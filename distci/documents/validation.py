"""What no schema can say of a job: text that no script could be given, tasks that do not hang together, what could not be stored."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from distci import plan, repositories
from distci.documents.schema import Place, Problem, told, typed_task_problems
from distci.documents.stored import state_to_json
from distci.documents.strict_json import DEPTH_MAX, canonical
from distci.errors import Invalid
from distci.listening import pattern_of
from distci.model import (
    TASK_NAME_LENGTH_MAX,
    BuildState,
    Job,
    Json,
    Parameter,
    ParameterType,
    Progress,
    Task,
    TaskDefinition,
    TaskState,
    check_job_id,
)
from distci.reports import asked

TOKEN_LENGTH = 24
"""Of an attempt: a ticket's 20 characters, a dot, and up to three digits."""

NOT_YET_TRIGGERS = frozenset({"git-poll", "cron"})
"""Types of triggers that nothing acts on yet."""

CONTAINER = "container"
LXC_IMAGE = re.compile(r"[A-Za-z0-9{][A-Za-z0-9._{}-]*")
"""A folder's name, of which a matrix may fill in parts."""

RESERVED = re.compile(r"CI|DISTCI.*")

PLAN_BYTES_MAX = 3 * 1024 * 1024
"""What the tasks of a plan may take: trigger and parameters come on top, and the whole must be readable again."""

STATE_BYTES_MAX = 12 * 1024
"""What the state of a build may take: it shares a node of 16 KiB with the trigger."""


def unfit(document: Json) -> Iterator[Problem]:
    """What is no JSON, or could not be handed to a script, however deep it lies."""
    pending: list[tuple[Place, Json]] = [((), document)]
    while pending:
        path, value = pending.pop()
        if len(path) > DEPTH_MAX:
            yield path[:4], f"nested deeper than {DEPTH_MAX} levels"
            return
        if isinstance(value, dict):
            for key, item in value.items():
                problem = plan.text_problem(key) if isinstance(key, str) else "is no text"
                if problem:
                    yield path, f"the key {key!r} {problem}"
                else:
                    pending.append(((*path, key), item))
        elif isinstance(value, list):
            pending += [((*path, position), item) for position, item in enumerate(value)]
        elif isinstance(value, str):
            if problem := plan.text_problem(value):
                yield path, problem
        elif isinstance(value, float) and not math.isfinite(value):
            yield path, f"{value} is not JSON"
        elif not isinstance(value, int | float | None):
            yield path, f"{type(value).__name__} is not JSON"


def job_problems(job: Job) -> Iterator[str]:
    """What is wrong with the job itself, its parameters, and the variables and resources that it names."""
    try:
        check_job_id(job.id)
    except Invalid as error:
        yield f"job: {error}"
    for name, parameter in job.parameters.items():
        if parameter.required and parameter.default:
            yield f"parameters.{name}.default: is never used, since a value is required"
            continue
        yield from _kind_problems(name, parameter)
        if parameter.required:
            continue
        if parameter.choices and parameter.default not in parameter.choices:
            hint = plan.did_you_mean(parameter.default, parameter.choices)
            yield f"parameters.{name}.default: {parameter.default!r} is not one of its choices{hint}"
        elif problem := plan.kind_problem(parameter, parameter.default):
            yield f"parameters.{name}.default: {problem}"
    for position, definition in enumerate(job.tasks):
        if {"script", "script_from"} <= definition.arguments.keys() and definition.type == "shell":
            yield f"tasks[{position}].script_from: stands in place of `script`; leave one of them out"
        yield from (f"tasks[{position}].{problem}" for problem in _beside_problems(definition))
        yield from _report_problems(definition, f"tasks[{position}].reports")
        for name, times in Counter(resource.name for resource in definition.resources).items():
            if times > 1:
                yield f"tasks[{position}].resources: {name!r} is there twice"
    for where, variables in _variables(job):
        for name in variables:
            if RESERVED.fullmatch(name):
                yield f"{where}.{name}: this variable is set by DistCI itself"
            elif where.endswith("environment") and name in job.parameters:
                yield f"{where}.{name}: is a parameter of the job already"


def _beside_problems(definition: TaskDefinition) -> Iterator[str]:
    """What is wrong with what a task has beside itself: services and caches."""
    isolation = definition.isolation
    for key in ("services", "credentials"):
        if key in isolation and isolation.get("type") != CONTAINER:
            yield f'isolation.{key}: is for containers alone; say "type": "container"'
    yield from _isolation_problems(isolation)
    caches: Sequence[Json] = definition.arguments.get("caches", ()) if definition.type == "shell" else ()
    for where, items in (("isolation.services", isolation.get("services", ())), ("caches", caches)):
        for name, times in Counter(item.get("name") for item in items).items():
            if times > 1:
                yield f"{where}: {name!r} is there twice"


def _isolation_problems(isolation: Mapping[str, Json]) -> Iterator[str]:
    """What no worker can give, whatever it has."""
    type_, image = isolation.get("type"), isolation.get("image", "")
    if type_ in (CONTAINER, "vm") and not image:
        yield f"isolation.image: is missing; {type_} takes one"
    if type_ in ("host", "sandbox") and image:
        yield f"isolation.image: {type_} has the machine's own files, and no image; leave it out, or name another type"
    if type_ == "lxc" and image and not LXC_IMAGE.fullmatch(image):
        yield f"isolation.image: {image!r} is no name of a folder among the worker's lxc_images; write for example debian-12"
    if type_ == "host" and isolation.get("network") is False:
        yield "isolation.network: cannot be taken from commands on the host; name another type"
    if type_ == "host" and isolation.get("read_only"):
        yield "isolation.read_only: the host's root is not read-only; name another type"


def _report_problems(definition: TaskDefinition, where: str) -> Iterator[str]:
    reports = definition.arguments.get("reports")
    if isinstance(reports, dict):
        yield from (f"{where}.{place}: {problem}" for place, problem in asked.problems(reports))


def _kind_problems(name: str, parameter: Parameter) -> Iterator[str]:
    """What its type does not go with."""
    for key, bound in (("minimum", parameter.minimum), ("maximum", parameter.maximum)):
        if bound is not None and parameter.type is not ParameterType.INTEGER:
            yield f"parameters.{name}.{key}: is for type integer, not for {parameter.type}"
    for position, choice in enumerate(parameter.choices):
        if problem := plan.kind_problem(parameter, choice):
            yield f"parameters.{name}.choices[{position}]: {problem}"


def task_problems(job: Job, document: Mapping[str, Json], root: str = "") -> Iterator[str]:
    """What is wrong with how the tasks hang together, and with what comes of them when matrices are filled in."""
    yield from _secret_problems(job)
    yield from _progress_problems(job)
    yield from _trigger_problems(job, document)
    defaults = {name: parameter.default for name, parameter in job.parameters.items()}
    tasks, problems = plan.expand_tasks(job, defaults, root=root)
    yield from problems
    if not problems:
        yield from _matrix_problems(job, document, tasks)
        yield from size_problems(tasks)


def is_hook(item: Mapping[str, Json]) -> bool:
    """Whether a trigger is one of a receiver's; what is left of one that is wrong has no type."""
    return bool(item["type"]) and item["type"] != "job" and item["type"] not in NOT_YET_TRIGGERS


def _progress_problems(job: Job) -> Iterator[str]:
    for position, task in enumerate(job.tasks):
        if "progress" in task.arguments:
            try:
                pattern_of(str(task.arguments["progress"]))
            except Invalid as error:
                yield f"tasks[{position}].{error}"


def _trigger_problems(job: Job, document: Mapping[str, Json]) -> Iterator[str]:
    """Of the types that something acts on: where the others are served, they are checked too."""
    of_jobs, of_hooks = iter(job.triggers), iter(job.hooks)
    for position, item in enumerate(document.get("triggers", ())):
        parameters: Mapping[str, str] = {}
        if item["type"] == "job":
            trigger = next(of_jobs)
            parameters = trigger.parameters
            try:
                check_job_id(trigger.job)
            except Invalid as error:
                yield f"triggers[{position}].job: {error}"
            if trigger.job == job.id:
                yield f"triggers[{position}].job: the job would start itself for ever"
        elif is_hook(item):
            hook = next(of_hooks)
            parameters = hook.parameters
            if problem := repositories.problem(hook.repository):
                yield f"triggers[{position}].repository: {problem}"
        for name, value in parameters.items():
            if problem := plan.value_problem(job, name, value):
                yield f"triggers[{position}].parameters.{name}: {problem}"


def _variables(job: Job) -> Iterator[tuple[str, Mapping[str, object]]]:
    yield "environment", job.environment
    yield "parameters", job.parameters
    for position, definition in enumerate(job.tasks):
        where = f"tasks[{position}]"
        yield f"{where}.environment", definition.environment
        yield f"{where}.secrets", dict.fromkeys(definition.secrets)
        yield f"{where}.secret_files", dict.fromkeys(definition.secret_files)
        yield f"{where}.matrix", definition.matrix or (definition.include[0] if definition.include else {})


def _secret_problems(job: Job) -> Iterator[str]:
    for position, definition in enumerate(job.tasks):
        for name in sorted({*definition.secrets} & {*definition.secret_files}):
            yield f"tasks[{position}].secret_files: {name} is among its secrets, too: one variable cannot be both its value and its file's path"


def _matrix_problems(job: Job, document: Mapping[str, Json], tasks: Sequence[Task]) -> Iterator[str]:
    positions = {definition.name: position for position, definition in enumerate(job.tasks)}
    found = Counter(_base(task.name) for task in tasks)
    for name, position in positions.items():
        most = document["tasks"][position].get("matrix", {}).get("max")
        if most is not None and found[name] > most:
            yield f"tasks[{position}].matrix: {found[name]} combinations; at most {most} are allowed by its max"
    for task in tasks:
        position = positions[_base(task.name)]
        if len(task.name) > TASK_NAME_LENGTH_MAX:
            yield f"tasks[{position}].matrix: the name {task.name!r} is longer than {TASK_NAME_LENGTH_MAX} characters"
        if _base(task.name) != task.name:
            # A value that is filled in can turn a harmless path into one that leaves the workspace.
            filled: dict[str, Json] = {"name": _base(task.name), "type": task.type}
            filled |= {"labels": list(dict.fromkeys(task.labels))} if task.labels else {}
            filled |= {"isolation": task.isolation} if task.isolation else {}
            place = ("tasks", position)
            problems = typed_task_problems(task.type, {**filled, **task.arguments}, place)
            yield from (f"{problem} (in {task.name})" for problem in told(list(problems)))


def size_problems(tasks: Sequence[Task]) -> Iterator[str]:
    """What could not be stored. Sizes are taken of what would be stored at worst, never guessed."""
    plan_bytes = len(canonical([asdict(task) for task in tasks]))
    if plan_bytes > PLAN_BYTES_MAX:
        yield f"tasks: with all matrices expanded they take {plan_bytes} bytes; at most {PLAN_BYTES_MAX} are allowed"
    worst = Progress(TaskState.REUSED, 10, "x" * TOKEN_LENGTH, "x")
    state_bytes = len(canonical(state_to_json(BuildState({task.name: worst for task in tasks}))))
    if state_bytes > STATE_BYTES_MAX:
        yield (
            f"tasks: the state of {len(tasks)} tasks with names this long takes {state_bytes} bytes; "
            f"at most {STATE_BYTES_MAX} fit: give them shorter names, or make them fewer"
        )


def _base(name: str) -> str:
    """The name of a task's definition."""
    return name.partition("[")[0]
