"""Documents to model and back: all that is written as JSON is read here, and nothing is believed before it is checked.

Job documents are held to ``schemas/job.json`` and then to what no schema can say. All that is wrong is told at once,
each problem with its place and, where a key is unknown, with the one that was probably meant.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any

from distci import plan
from distci.errors import Invalid, InvalidDocument, InvalidJob
from distci.model import (
    BuildId,
    BuildState,
    Concurrency,
    Job,
    JobTrigger,
    Json,
    Outcome,
    Parameter,
    Permit,
    Plan,
    Policy,
    Progress,
    Task,
    TaskDefinition,
    TaskState,
    Trigger,
    Verdict,
    When,
    check_job_id,
)

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from jsonschema import ValidationError
    from jsonschema.protocols import Validator

FORMAT = 1
DOCUMENT_BYTES_MAX = 4 * 1024 * 1024
DEPTH_MAX = 64
TASK_NAME_LENGTH_MAX = 128
TOKEN_LENGTH = 24
"""Of an attempt: a ticket's 20 characters, a dot, and up to three digits."""

WORKERS = "distci.workers"
"""The entry points that bring kinds of workers; the class may have a ``schema`` for the keys of its tasks."""

UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

BUILT_IN = ("git-checkout", "shell", "publish-artifacts", "copy-artifacts")
"""Types of task whose keys ``schemas/job.json`` knows."""

COMMON_KEYS = frozenset(
    [
        "name",
        "type",
        "description",
        "needs",
        "when",
        "on_cancel",
        "if",
        "matrix",
        "labels",
        "isolation",
        "environment",
        "secrets",
        "timeout",
        "attempts",
        "retries",
        "allow_failure",
        "priority",
        "resources",
        "reuse",
        "reports",
    ]
)
NOT_YET = frozenset({"if", "reuse", "reports"})
NOT_YET_IN_JOB = frozenset({"definition", "retention"})
RESERVED = re.compile(r"CI|DISTCI.*")

PLAN_BYTES_MAX = 3 * 1024 * 1024
"""What the tasks of a plan may take: trigger and parameters come on top, and the whole must be readable again."""

STATE_BYTES_MAX = 13 * 1024
"""What the state of a build may take: it shares a node of 16 KiB with the trigger."""

_LETTERS = {
    TaskState.WAITING: "w",
    TaskState.BLOCKED: "b",
    TaskState.READY: "r",
    TaskState.PASSED: "p",
    TaskState.FAILED: "f",
    TaskState.TIMED_OUT: "t",
    TaskState.CANCELLED: "c",
    TaskState.SKIPPED: "s",
    TaskState.REUSED: "u",
    TaskState.LOST: "l",
}
"""The states that are stored, as a build's node has them."""

_STATES = {letter: state for state, letter in _LETTERS.items()}

_SHAPE = frozenset({"job", "tasks", "name", "type", "needs", "when", "matrix", "resources"})
"""Where these are wrong, it is no use to look at how the tasks hang together."""

_Path = tuple[str | int, ...]
_Problem = tuple[_Path, str]


def read_json(data: bytes | str, what: str) -> Any:
    """Strict JSON: UTF-8, no key twice, finite numbers, whole characters, at most 4 MiB and 64 levels.

    InvalidDocument, naming ``what``, otherwise.
    """
    if len(data) > DOCUMENT_BYTES_MAX:
        raise InvalidDocument(f"{what}: {len(data)} bytes are too many; at most {DOCUMENT_BYTES_MAX} are read")
    try:
        text = data if isinstance(data, str) else data.decode()
        document = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_finite, parse_float=_finite)
        if _depth(document) > DEPTH_MAX:
            raise ValueError(f"nested deeper than {DEPTH_MAX} levels")
        if "\\u" in text:
            json.dumps(document, ensure_ascii=False).encode()  # half a surrogate pair cannot be written again
    except json.JSONDecodeError as error:
        raise InvalidDocument(f"{what}: line {error.lineno}, column {error.colno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidDocument(f"{what}: {error}") from error
    return document


# Jobs


def job_from_json(document: Json) -> Job:
    """The job that a document describes; InvalidJob names all that is wrong with it, each problem with its place."""
    unfit = list(_unfit(document))
    if unfit:
        raise InvalidJob(_subject(document), _told(unfit))
    found = list(_schema_problems(document))
    problems = _told(found)
    sound = _without(document, [path for path, _ in found])
    if sound is not None:
        job = _job(sound)
        problems += [*_job_problems(job), *_task_problems(job, sound)]
    if problems:
        raise InvalidJob(_subject(document), dict.fromkeys(problems))
    return job


def warnings_for(document: Mapping[str, Json]) -> list[str]:
    """What a valid job document asks for that this version does not act on, each with its place."""
    found = [f"{key}: accepted, but not acted on yet" for key in sorted(NOT_YET_IN_JOB & document.keys())]
    for position, trigger in enumerate(document.get("triggers", ())):
        if trigger["type"] != "job":
            found.append(f"triggers[{position}]: triggers of type {trigger['type']} are accepted, but not acted on yet")
    for position, task in enumerate(document.get("tasks", ())):
        found += [f"tasks[{position}].{key}: accepted, but not acted on yet" for key in sorted(NOT_YET & task.keys())]
        if task.get("isolation", {}).get("type", "host") != "host":
            found.append(f"tasks[{position}].isolation: accepted, but not acted on yet; tasks run on the worker's host")
        if task["type"] not in BUILT_IN and not _installed(task["type"]):
            found.append(f"tasks[{position}].type: {task['type']} is not installed here; its own keys are not checked")
    return found


def problems_with(document: Json, part: str) -> list[str]:
    """All that is wrong with what was sent to a front end, by the definition of that name in ``schemas/api.json``."""
    return _told(list(_problems(_api_validator(part), document, ())))


def problems_of_value(value: Json, schema: Mapping[str, Json]) -> list[str]:
    """All that is wrong with one value by a schema of its own."""
    return [text for _, text in _problems(_validator_class()(schema), value, ())]


def seconds(duration: str) -> float:
    """Seconds of a duration such as ``90s``; Invalid when it is none."""
    match = re.fullmatch(r"([1-9][0-9]{0,5})(ms|s|m|h|d)", duration)
    if not match:
        raise Invalid(f"{duration!r} is not a duration; write for example 90s, 10m, 2h")
    return int(match[1]) * UNITS_S[match[2]]


def _job(document: Mapping[str, Json]) -> Job:
    return Job(
        id=document["job"],
        description=document.get("description", ""),
        parameters={name: _parameter(item) for name, item in document.get("parameters", {}).items()},
        environment=document.get("environment", {}),
        triggers=tuple(
            JobTrigger(item["job"], item.get("on", "passed"), item.get("parameters", {}))
            for item in document.get("triggers", ())
            if item["type"] == "job"
        ),
        tasks=tuple(_definition(item) for item in document["tasks"]),
        concurrency=_concurrency(document["job"], document["concurrency"]) if "concurrency" in document else None,
    )


def _concurrency(job: str, item: Mapping[str, Json]) -> Concurrency:
    """Without a group, it is the job's own: so many builds of the job run at once."""
    return Concurrency(item.get("group", job), item.get("limit", 1), Policy(item.get("policy", Policy.QUEUE)))


def _resource(item: Json) -> Permit:
    return Permit(item["name"], item.get("limit", 1)) if isinstance(item, Mapping) else Permit(item)


def _parameter(item: Mapping[str, Json]) -> Parameter:
    choices = tuple(item.get("choices", ()))
    is_required = item.get("required", False)
    first = choices[0] if choices and not is_required else ""
    return Parameter(item.get("default", first), choices, is_required, item.get("description", ""))


def _definition(item: Mapping[str, Json]) -> TaskDefinition:
    matrix = dict(item.get("matrix", {}))
    include, exclude = matrix.pop("include", ()), matrix.pop("exclude", ())
    matrix.pop("max", None)
    return TaskDefinition(
        name=item["name"],
        type=item["type"],
        needs=tuple(item["needs"]) if "needs" in item else None,
        when=When(item.get("when", When.SUCCESS)),
        on_cancel=item.get("on_cancel", False),
        matrix=matrix,
        include=tuple(include),
        exclude=tuple(exclude),
        labels=tuple(item.get("labels", ())),
        isolation=item.get("isolation", {}),
        environment=item.get("environment", {}),
        secrets=tuple(item.get("secrets", ())),
        timeout_s=seconds(item["timeout"]) if "timeout" in item else None,
        attempts=item.get("attempts", 3),
        retries=item.get("retries", 0),
        allow_failure=item.get("allow_failure", False),
        priority=item.get("priority", 5),
        resources=tuple(_resource(resource) for resource in item.get("resources", ())),
        arguments={key: value for key, value in item.items() if key not in COMMON_KEYS},
    )


# What is wrong with a job


def _subject(document: Json) -> str:
    name = document.get("job") if isinstance(document, dict) else None
    return f"job {name}:" if isinstance(name, str) else "the job:"


def _unfit(document: Json) -> Iterator[_Problem]:
    """What is no JSON, or could not be handed to a script, however deep it lies."""
    pending: list[tuple[_Path, Json]] = [((), document)]
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


def _without(document: Json, broken: Sequence[_Path]) -> dict[str, Json] | None:
    """The document without what is wrong in it, or None when what is left would mean something else."""
    if any(not path or path[0] == "job" or _is_shape(path) for path in broken):
        return None
    sound: dict[str, Json] = deepcopy(document)
    for path in broken:
        if path[0] == "triggers" and len(path) > 1:
            sound["triggers"][path[1]] = {"type": ""}
    for path in sorted(broken, key=lambda path: [str(part).zfill(9) for part in path], reverse=True):
        if path[0] != "triggers" or len(path) == 1:
            _remove(sound, path)
    return sound


def _is_shape(path: _Path) -> bool:
    return path[0] == "tasks" and (len(path) < 3 or path[2] in _SHAPE)


def _remove(document: Json, path: _Path) -> None:
    *way, last = path
    for part in way:
        try:
            document = document[part]
        except (KeyError, IndexError, TypeError):
            return
    if isinstance(document, dict):
        document.pop(last, None)
    elif isinstance(document, list) and isinstance(last, int) and last < len(document):
        del document[last]


def _told(problems: Sequence[_Problem]) -> list[str]:
    return [f"{_place(path)}: {text}" for path, text in problems]


def _schema_problems(document: Json) -> Iterator[_Problem]:
    yield from _problems(_validator(""), document, ())
    tasks = document.get("tasks") if isinstance(document, dict) else None
    for position, task in enumerate(tasks if isinstance(tasks, list) else ()):
        if isinstance(task, dict) and isinstance(kind := task.get("type"), str):
            yield from _typed_task_problems(kind, task, ("tasks", position))


def _typed_task_problems(kind: str, task: Mapping[str, Json], place: _Path) -> Iterator[_Problem]:
    """What is wrong with a task of that type.

    A name with a dot may be used where it is not installed: whoever plans a build need not be able to perform it.
    """
    if kind in BUILT_IN:
        yield from _problems(_validator(f"task-{kind}"), task, place)
        return
    point = _installed(kind)
    if point is None and "." not in kind:
        known = {point.name for point in _worker_points()} | set(BUILT_IN)
        yield (*place, "type"), f"there is no type of task {kind!r}{plan.did_you_mean(kind, known)}"
        return
    try:
        own = getattr(point.load(), "schema", None) if point else None
    except Exception as error:
        # Whatever a foreign package does when it is imported, it concerns this task alone.
        yield (*place, "type"), f"the package that brings {kind!r} cannot be loaded: {error}"
        return
    yield from _problems(_validator_with(own) if own else _validator("task-other"), task, place)


def _installed(kind: str) -> EntryPoint | None:
    """Where the worker of that kind is found, when a third party's package has brought one."""
    return next((point for point in _worker_points() if point.name == kind), None)


def _worker_points() -> Sequence[EntryPoint]:
    from importlib.metadata import entry_points

    return [point for point in entry_points(group=WORKERS) if point.name != "control"]


def _problems(validator: Validator, document: Json, place: _Path) -> Iterator[_Problem]:
    for error in sorted(validator.iter_errors(document), key=lambda error: [str(part) for part in error.path]):
        for meant in _meant(error):
            yield from _explain(meant, place)


def _meant(error: ValidationError) -> Sequence[ValidationError]:
    """Of alternatives that all failed, the errors of the one whose ``type`` fits: that is what was meant."""
    if error.validator != "oneOf" or not isinstance(error.instance, dict):
        return [error]
    branches: dict[Any, list[ValidationError]] = {}
    for inner in error.context or ():
        branches.setdefault(inner.schema_path[0], []).append(inner)
    for errors in branches.values():
        if "type" in error.instance and not any("type" in inner.path for inner in errors):
            return errors
    return [error]


def _explain(error: ValidationError, place: _Path) -> Iterator[_Problem]:
    schema: Any = error.schema
    wanted: Any = error.validator_value
    instance: Any = error.instance
    where = (*place, *error.absolute_path)
    value = json.dumps(instance, ensure_ascii=False)[:80]
    description = schema.get("description", "") if isinstance(schema, dict) else ""
    explained = f". {description}" if description else ""
    if "propertyNames" in error.absolute_schema_path:
        yield (*where, str(instance)), f"{value} cannot be a name here{explained}"
    elif error.validator == "additionalProperties" and isinstance(wanted, bool):
        for key in sorted(instance.keys() - schema["properties"].keys()):
            yield (*where, key), f"unknown key{plan.did_you_mean(key, schema['properties'])}"
    elif error.validator == "required":
        for key in wanted:
            if key not in instance:
                yield (*where, key), "is missing"
    elif error.validator == "pattern":
        yield where, f"{value} is not allowed here{explained}"
    elif error.validator == "oneOf":
        kind = instance.get("type") if isinstance(instance, dict) else None
        yield (*where, "type"), f"there is no type of trigger {kind!r}{plan.did_you_mean(str(kind), _trigger_types())}"
    elif error.validator in ("enum", "const"):
        allowed = [str(item) for item in (wanted if error.validator == "enum" else [wanted])]
        hint = plan.did_you_mean(str(instance), allowed) if len(allowed) > 1 else ""
        yield where, f"{value} is not one of: {', '.join(allowed)}{hint}"
    elif error.validator == "type":
        yield where, f"{value} is not of type {wanted if isinstance(wanted, str) else ' or '.join(wanted)}{explained}"
    else:
        yield where, f"{error.message[:200]}{explained}"


def _place(path: _Path) -> str:
    text = "".join(
        f".{part}" if isinstance(part, str) and re.fullmatch(r"[$\w-]+", part) else f"[{json.dumps(part)}]"
        for part in path
    )
    return text.lstrip(".") or "the document"


# What no schema can say


def _job_problems(job: Job) -> Iterator[str]:
    try:
        check_job_id(job.id)
    except Invalid as error:
        yield f"job: {error}"
    for name, parameter in job.parameters.items():
        if parameter.required and parameter.default:
            yield f"parameters.{name}.default: is never used, since a value is required"
        elif parameter.choices and not parameter.required and parameter.default not in parameter.choices:
            hint = plan.did_you_mean(parameter.default, parameter.choices)
            yield f"parameters.{name}.default: {parameter.default!r} is not one of its choices{hint}"
    for position, definition in enumerate(job.tasks):
        for name, times in Counter(resource.name for resource in definition.resources).items():
            if times > 1:
                yield f"tasks[{position}].resources: {name!r} is there twice"
    for where, variables in _variables(job):
        for name in variables:
            if RESERVED.fullmatch(name):
                yield f"{where}.{name}: this variable is set by DistCI itself"
            elif where.endswith("environment") and name in job.parameters:
                yield f"{where}.{name}: is a parameter of the job already"


def _trigger_problems(job: Job, document: Mapping[str, Json]) -> Iterator[str]:
    """Triggers by other jobs alone: where the others are served, they are checked too."""
    of_jobs = iter(job.triggers)
    for position, item in enumerate(document.get("triggers", ())):
        if item["type"] != "job":
            continue
        trigger = next(of_jobs)
        try:
            check_job_id(trigger.job)
        except Invalid as error:
            yield f"triggers[{position}].job: {error}"
        if trigger.job == job.id:
            yield f"triggers[{position}].job: the job would start itself for ever"
        for name, value in trigger.parameters.items():
            if problem := plan.value_problem(job, name, value):
                yield f"triggers[{position}].parameters.{name}: {problem}"


def _variables(job: Job) -> Iterator[tuple[str, Mapping[str, object]]]:
    yield "environment", job.environment
    yield "parameters", job.parameters
    for position, definition in enumerate(job.tasks):
        where = f"tasks[{position}]"
        yield f"{where}.environment", definition.environment
        yield f"{where}.secrets", dict.fromkeys(definition.secrets)
        yield f"{where}.matrix", definition.matrix or (definition.include[0] if definition.include else {})


def _task_problems(job: Job, document: Mapping[str, Json]) -> Iterator[str]:
    """What is wrong with how the tasks hang together, and with what comes of them when matrices are filled in."""
    yield from _trigger_problems(job, document)
    defaults = {name: parameter.default for name, parameter in job.parameters.items()}
    tasks, problems = plan.expand_tasks(job, defaults)
    yield from problems
    if not problems:
        yield from _matrix_problems(job, document, tasks)
        yield from _size_problems(tasks)


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
            filled: dict[str, Json] = {
                "name": _base(task.name),
                "type": task.type,
                "labels": list(dict.fromkeys(task.labels)),
            }
            filled |= {"isolation": task.isolation} if task.isolation else {}
            place = ("tasks", position)
            problems = _typed_task_problems(task.type, {**filled, **task.arguments}, place)
            yield from (f"{problem} (in {task.name})" for problem in _told(list(problems)))


def _size_problems(tasks: Sequence[Task]) -> Iterator[str]:
    """What could not be stored. Sizes are taken of what would be stored at worst, never guessed."""
    plan_bytes = len(_canonical([asdict(task) for task in tasks]))
    if plan_bytes > PLAN_BYTES_MAX:
        yield f"tasks: with all matrices expanded they take {plan_bytes} bytes; at most {PLAN_BYTES_MAX} are allowed"
    worst = Progress(TaskState.REUSED, 10, "x" * TOKEN_LENGTH, "x")
    state_bytes = len(_canonical(state_to_json(BuildState({task.name: worst for task in tasks}))))
    if state_bytes > STATE_BYTES_MAX:
        yield (
            f"tasks: the state of {len(tasks)} tasks with names this long takes {state_bytes} bytes; "
            f"at most {STATE_BYTES_MAX} fit: give them shorter names, or make them fewer"
        )


def _base(name: str) -> str:
    """The name of a task's definition."""
    return name.partition("[")[0]


def _trigger_types() -> Sequence[str]:
    types = [branch["properties"]["type"] for branch in _schema()["$defs"]["trigger"]["oneOf"]]
    return [name for found in types for name in found.get("enum", [found.get("const")])]


@cache
def _schema() -> Mapping[str, Any]:
    from importlib.resources import files

    document: Mapping[str, Any] = json.loads(files("distci.schemas").joinpath("job.json").read_text())
    return document


@cache
def _validator(part: str) -> Validator:
    schema = {"$ref": f"#/$defs/{part}", "$defs": _schema()["$defs"]} if part else _schema()
    return _validator_class()(schema)


@cache
def api_schemas() -> Mapping[str, Any]:
    """What front ends take and answer, by name; references are to ``#/$defs/NAME``."""
    from importlib.resources import files

    document: Mapping[str, Any] = json.loads(files("distci.schemas").joinpath("api.json").read_text())
    definitions: Mapping[str, Any] = document["$defs"]
    return definitions


@cache
def _api_validator(part: str) -> Validator:
    return _validator_class()({"$ref": f"#/$defs/{part}", "$defs": api_schemas()})


def _validator_with(own: Mapping[str, Any]) -> Validator:
    """For a third party's type of task: the keys of every task, and its own."""
    definitions = _schema()["$defs"]
    common = definitions["task-other"]
    return _validator_class()(
        {
            **own,
            "$defs": {**own.get("$defs", {}), **definitions},
            "type": "object",
            "required": [*common["required"], *own.get("required", ())],
            "properties": {**own.get("properties", {}), **common["properties"]},
            "additionalProperties": False,
        }
    )


@cache
def _validator_class() -> type[Validator]:
    from jsonschema import Draft202012Validator, ValidationError
    from jsonschema.validators import extend

    def pattern(validator: object, wanted: str, instance: object, schema: object) -> Iterator[ValidationError]:
        # In a JSON Schema ``$`` is the end of the text; in Python also the place before a last line break.
        python = re.sub(r"\$$", r"\\Z", wanted)
        if isinstance(instance, str) and not re.search(python, instance):
            yield ValidationError(f"{instance!r} does not match {wanted!r}")

    extended: type[Validator] = extend(Draft202012Validator, {"pattern": pattern})  # type: ignore[no-untyped-call]
    return extended


# Plans, triggers, outcomes, states


def plan_to_bytes(made: Plan) -> bytes:
    """The one form of a plan: equal plans are equal bytes."""
    document = {
        "format": FORMAT,
        "build": str(made.build),
        "config": made.config,
        "trigger": trigger_to_json(made.trigger),
        "parameters": dict(made.parameters),
        "tasks": [asdict(task) for task in made.tasks],
        "concurrency": asdict(made.concurrency) if made.concurrency else None,
    }
    return _canonical(document)


def plan_from_bytes(data: bytes) -> Plan:
    """A stored plan; InvalidDocument when it is of another format or no plan at all."""
    document = read_json(data, "plan")
    _check_format(document, "plan")
    try:
        return Plan(
            build=BuildId.parse(document["build"]),
            config=_number(document, "config") or 0,
            trigger=trigger_from_json(document["trigger"]),
            parameters=_values(document, "parameters"),
            tasks=tuple(_task(item) for item in document["tasks"]),
            concurrency=_stored_concurrency(document["concurrency"]),
        )
    except (KeyError, TypeError, ValueError, Invalid) as error:
        raise InvalidDocument(f"plan: not a plan: {error}") from error


def plan_digest(data: bytes) -> str:
    """What a plan is told apart by: the SHA-256 of its bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def trigger_to_json(trigger: Trigger) -> dict[str, Json]:
    """Only what differs from the default, so that a build's node stays small."""
    document: dict[str, Json] = {
        "actor": trigger.actor,
        "parameters": dict(trigger.parameters),
        "presets": dict(trigger.presets),
        "commit": trigger.commit,
        "ref": trigger.ref,
        "upstream": str(trigger.upstream) if trigger.upstream else "",
        "retry_of": str(trigger.retry_of) if trigger.retry_of else "",
        "only": list(trigger.only),
    }
    return {"kind": trigger.kind} | {key: value for key, value in document.items() if value}


def trigger_from_json(document: Mapping[str, Json]) -> Trigger:
    """The trigger that was stored; InvalidDocument when it is none."""
    _check_piece(document, "trigger")
    try:
        return Trigger(
            kind=_text(document, "kind"),
            actor=_text(document, "actor", ""),
            parameters=_values(document, "parameters"),
            presets=_values(document, "presets"),
            commit=_text(document, "commit", ""),
            ref=_text(document, "ref", ""),
            upstream=BuildId.parse(_text(document, "upstream")) if "upstream" in document else None,
            retry_of=BuildId.parse(_text(document, "retry_of")) if "retry_of" in document else None,
            only=_texts(document, "only"),
        )
    except (KeyError, TypeError, Invalid) as error:
        raise InvalidDocument(f"not a trigger: {error}") from error


def outcome_to_json(outcome: Outcome) -> dict[str, Json]:
    return {
        "verdict": outcome.verdict,
        "reason": outcome.reason,
        "exit_status": outcome.exit_status,
        "signal": outcome.signal,
        "details": dict(outcome.details),
    }


def outcome_from_json(document: Mapping[str, Json]) -> Outcome:
    """The outcome that was stored; InvalidDocument when it is none. Keys that are not an outcome's are left alone."""
    _check_piece(document, "outcome")
    try:
        return Outcome(
            Verdict(_text(document, "verdict")),
            _text(document, "reason"),
            _number(document, "exit_status"),
            _number(document, "signal"),
            _object(document, "details"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidDocument(f"not an outcome: {error}") from error


def state_to_json(state: BuildState) -> dict[str, Json]:
    """A build's state in some 35 bytes a task besides its name: it lives in a node of the tree."""
    origins = sorted({progress.origin for progress in state.tasks.values() if progress.origin})
    document: dict[str, Json] = {"tasks": {name: _trimmed(item, origins) for name, item in state.tasks.items()}}
    if origins:
        document["origins"] = origins
    if state.is_cancelled:
        document["cancelled"] = True
    return document


def state_from_json(document: Mapping[str, Json]) -> BuildState:
    """The state that was stored; InvalidDocument when it is none."""
    _check_piece(document, "the state of a build")
    try:
        origins = _texts(document, "origins")
        tasks = {name: _progress(item, origins) for name, item in document["tasks"].items()}
        return BuildState(tasks, _flag(document, "cancelled"))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidDocument(f"not the state of a build: {error}") from error


def _trimmed(progress: Progress, origins: list[str]) -> list[Json]:
    """A task's letter, attempt, round and place in ``origins``, without what is as usual at the end."""
    origin = origins.index(progress.origin) if progress.origin else -1
    item: list[Json] = [_LETTERS[progress.state], progress.token, progress.round, origin]
    for usual in (-1, 1, ""):
        if item[-1] != usual:
            break
        item.pop()
    return item


def _progress(item: Sequence[Json], origins: Sequence[str]) -> Progress:
    whole: list[Json] = [*item, *("", "", 1, -1)[len(item) :]]
    letter, token, round_, origin = whole
    if not isinstance(token, str) or not isinstance(round_, int) or not -1 <= origin < len(origins):
        raise TypeError(f"{item!r} is not where a task stands")
    return Progress(_STATES[letter], round_, token, origins[origin] if origin >= 0 else "")


def _task(item: Mapping[str, Json]) -> Task:
    timeout_s = item["timeout_s"]
    if not isinstance(timeout_s, int | float | None):
        raise TypeError(f"timeout_s: {timeout_s!r} is not a number")
    return Task(
        name=_text(item, "name"),
        type=_text(item, "type"),
        needs=_texts(item, "needs"),
        when=When(_text(item, "when")),
        on_cancel=_flag(item, "on_cancel"),
        labels=_texts(item, "labels"),
        isolation=_object(item, "isolation"),
        environment=_values(item, "environment"),
        secrets=_texts(item, "secrets"),
        timeout_s=timeout_s,
        attempts=_number(item, "attempts") or 1,
        retries=_number(item, "retries") or 0,
        allow_failure=_flag(item, "allow_failure"),
        priority=_number(item, "priority") or 0,
        resources=tuple(Permit(_text(permit, "name"), _number(permit, "limit") or 1) for permit in item["resources"]),
        arguments=_object(item, "arguments"),
    )


def _stored_concurrency(item: Json) -> Concurrency | None:
    if item is None:
        return None
    return Concurrency(_text(item, "group"), _number(item, "limit") or 1, Policy(_text(item, "policy")))


def _text(document: Mapping[str, Json], key: str, default: str | None = None) -> str:
    value = document[key] if default is None else document.get(key, default)
    if not isinstance(value, str):
        raise TypeError(f"{key}: {value!r} is not a text")
    return value


def _texts(document: Mapping[str, Json], key: str) -> tuple[str, ...]:
    value = document.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"{key}: {value!r} is not a list of texts")
    return tuple(value)


def _object(document: Mapping[str, Json], key: str) -> dict[str, Json]:
    value = document.get(key, {})
    if not isinstance(value, dict):
        raise TypeError(f"{key}: {value!r} is not an object")
    return value


def _values(document: Mapping[str, Json], key: str) -> dict[str, str]:
    value = _object(document, key)
    if not all(isinstance(item, str) for item in value.values()):
        raise TypeError(f"{key}: holds what is not a text")
    return value


def _number(document: Mapping[str, Json], key: str) -> int | None:
    value = document[key]
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise TypeError(f"{key}: {value!r} is not a number")
    return value


def _flag(document: Mapping[str, Json], key: str) -> bool:
    value = document.get(key, False)
    if not isinstance(value, bool):
        raise TypeError(f"{key}: {value!r} is neither true nor false")
    return value


def _canonical(document: Json) -> bytes:
    """Equal documents are equal bytes."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _check_piece(document: Json, what: str) -> None:
    """A piece of a larger document, which says the format; where the piece says one too, it must be ours."""
    if not isinstance(document, dict):
        raise InvalidDocument(f"{what}: not a JSON object")
    _check_format({"format": FORMAT, **document}, what)


def _check_format(document: Json, what: str) -> None:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else None
        raise InvalidDocument(f"{what}: format {found!r}; this version reads format {FORMAT}")


def _unique_keys(pairs: Sequence[tuple[str, Json]]) -> dict[str, Json]:
    document = dict(pairs)
    if len(document) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return document


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number} is not a number that JSON has")
    return value


def _depth(document: Json) -> int:
    if isinstance(document, dict):
        return 1 + max(map(_depth, document.values()), default=0)
    if isinstance(document, list):
        return 1 + max(map(_depth, document), default=0)
    return 0
