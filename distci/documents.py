"""Documents to model and back: everything that is written as JSON is read here, and nothing is believed before it is checked.

Job documents are held to ``schemas/job.json`` and then to what no schema can say; all that is wrong is told at once, each problem with its
place and, where a key is unknown, with the one that was probably meant.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from functools import cache
from importlib.metadata import entry_points
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from distci import plan
from distci.errors import Invalid, InvalidDocument, InvalidJob
from distci.model import (
    BuildId,
    BuildState,
    Job,
    JobTrigger,
    Json,
    Outcome,
    Parameter,
    Plan,
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
    from jsonschema import Draft202012Validator, ValidationError

FORMAT = 1
DOCUMENT_BYTES_MAX = 4 * 1024 * 1024
DEPTH_MAX = 64
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
NOT_YET = frozenset({"if", "resources", "reuse", "reports"})
NOT_YET_IN_JOB = frozenset({"concurrency", "retention"})
RESERVED = re.compile(r"CI|DISTCI(_.*)?")


def read_json(data: bytes | str, what: str) -> Any:
    """Strict JSON: UTF-8, no key twice, no NaN, at most 4 MiB and 64 levels; InvalidDocument, naming ``what``, otherwise."""
    if len(data) > DOCUMENT_BYTES_MAX:
        raise InvalidDocument(f"{what}: {len(data)} bytes are too many; at most {DOCUMENT_BYTES_MAX} are read")
    try:
        text = data if isinstance(data, str) else data.decode()
        document = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
        if _depth(document) > DEPTH_MAX:
            raise ValueError(f"nested deeper than {DEPTH_MAX} levels")
    except json.JSONDecodeError as error:
        raise InvalidDocument(f"{what}: line {error.lineno}, column {error.colno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidDocument(f"{what}: {error}") from error
    return document


# Jobs


def job_from_json(document: Json) -> Job:
    """The job that a document describes; InvalidJob names all that is wrong with it, each problem with its place."""
    problems = list(dict.fromkeys(_schema_problems(document)))
    if problems:
        raise InvalidJob(_subject(document), problems)
    job = _job(document)
    problems = [*_job_problems(job, document), *_task_problems(job)]
    if problems:
        raise InvalidJob(_subject(document), problems)
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
            found.append(f"tasks[{position}].isolation: only type host is there yet")
    return found


def seconds(duration: str) -> float:
    """Seconds of a duration such as ``90s``; Invalid when it is none."""
    match = re.fullmatch(r"([0-9]+)(ms|s|m|h|d)", duration)
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
    )


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
        arguments={key: value for key, value in item.items() if key not in COMMON_KEYS},
    )


# What is wrong with a job


def _subject(document: Json) -> str:
    name = document.get("job") if isinstance(document, dict) else None
    return f"job {name}:" if isinstance(name, str) else "the job:"


def _schema_problems(document: Json) -> Iterator[str]:
    yield from _problems(_validator(""), document, ())
    tasks = document.get("tasks") if isinstance(document, dict) else None
    for position, task in enumerate(tasks if isinstance(tasks, list) else ()):
        if isinstance(task, dict) and isinstance(kind := task.get("type"), str):
            yield from _typed_task_problems(kind, task, ("tasks", position))


def _typed_task_problems(kind: str, task: Mapping[str, Json], place: tuple[str | int, ...]) -> Iterator[str]:
    if kind in BUILT_IN:
        yield from _problems(_validator(f"task-{kind}"), task, place)
        return
    installed = {point.name for point in entry_points(group="distci.workers")} - {"control"}
    if kind not in installed:
        known = sorted(installed | set(BUILT_IN))
        yield f"{_place((*place, 'type'))}: there is no type of task {kind!r}{_did_you_mean(kind, known)}"
        return
    yield from _problems(_validator("task-other"), task, place)


def _problems(validator: Draft202012Validator, document: Json, place: tuple[str | int, ...]) -> Iterator[str]:
    for error in sorted(validator.iter_errors(document), key=lambda error: [str(part) for part in error.path]):
        yield from _explain(_deepest(error), place)


def _deepest(error: ValidationError) -> ValidationError:
    """Of alternatives that all failed, the one whose ``type`` fits: that is what was meant."""
    if error.validator != "oneOf" or not isinstance(error.instance, dict):
        return error
    for alternative in error.context or ():
        if alternative.absolute_path and alternative.absolute_path[-1] == "type":
            continue
        branch = alternative.schema_path[0]
        wrong_type = any(
            other.schema_path[0] == branch and other.path and other.path[-1] == "type" for other in error.context or ()
        )
        if not wrong_type:
            return alternative
    return error


def _explain(error: ValidationError, place: tuple[str | int, ...]) -> Iterator[str]:
    schema: Any = error.schema
    wanted: Any = error.validator_value
    instance: Any = error.instance
    where = (*place, *error.absolute_path)
    value = json.dumps(error.instance, ensure_ascii=False)[:80]
    if error.validator == "additionalProperties" and isinstance(wanted, bool):
        known = sorted(schema["properties"])
        for key in sorted(instance.keys() - schema["properties"].keys()):
            yield f"{_place((*where, key))}: unknown key{_did_you_mean(key, known)}"
    elif error.validator == "required":
        for key in wanted:
            if key not in instance:
                yield f"{_place((*where, key))}: is missing"
    elif error.validator == "pattern":
        description = schema.get("description", "")
        yield f"{_place(where)}: {value} is not allowed here{f'. {description}' if description else ''}"
    elif error.validator == "oneOf":
        kinds = ["job", "github", "gitlab", "gitea", "git-poll", "cron"]
        kind = error.instance.get("type") if isinstance(error.instance, dict) else None
        yield f"{_place((*where, 'type'))}: there is no type of trigger {kind!r}{_did_you_mean(str(kind), kinds)}"
    elif error.validator in ("enum", "const"):
        allowed = wanted if error.validator == "enum" else [wanted]
        hint = _did_you_mean(str(error.instance), [str(item) for item in allowed])
        yield f"{_place(where)}: {value} is not one of: {', '.join(str(item) for item in allowed)}{hint}"
    else:
        yield f"{_place(where)}: {error.message[:200]}"


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    close = get_close_matches(word, known, 1, 0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; known are: {', '.join(known)}"


def _place(path: Sequence[str | int]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.lstrip(".") or "the document"


def _job_problems(job: Job, document: Mapping[str, Json]) -> Iterator[str]:
    try:
        check_job_id(job.id)
    except Invalid as error:
        yield f"job: {error}"
    for name, parameter in job.parameters.items():
        if parameter.choices and not parameter.required and parameter.default not in parameter.choices:
            yield f"parameters.{name}.default: {parameter.default!r} is not one of its choices"
    names = [definition.name for definition in job.tasks]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"tasks: {name!r} is the name of more than one task"
    for where, variables in _variables(job):
        for name in variables:
            if RESERVED.fullmatch(name):
                yield f"{where}.{name}: this variable is set by DistCI itself"
    for position, trigger in enumerate(job.triggers):
        try:
            check_job_id(trigger.job)
        except Invalid as error:
            yield f"triggers[{position}].job: {error}"
    for position, item in enumerate(document["tasks"]):
        most = item.get("matrix", {}).get("max")
        count = len(list(plan.variants(job.tasks[position])))
        if most is not None and count > most:
            yield f"tasks[{position}].matrix: {count} combinations; at most {most} are allowed by its max"


def _variables(job: Job) -> Iterator[tuple[str, Mapping[str, object]]]:
    yield "environment", job.environment
    yield "parameters", job.parameters
    for position, definition in enumerate(job.tasks):
        yield f"tasks[{position}].environment", definition.environment
        yield f"tasks[{position}].matrix", definition.matrix


def _task_problems(job: Job) -> Sequence[str]:
    if len({definition.name for definition in job.tasks}) < len(job.tasks):
        return ()
    defaults = {name: parameter.default for name, parameter in job.parameters.items()}
    _, problems = plan.expand_tasks(job, defaults)
    return problems


@cache
def _validator(part: str) -> Draft202012Validator:
    from jsonschema import Draft202012Validator

    schema = json.loads(files("distci.schemas").joinpath("job.json").read_text())
    if part:
        schema = {"$ref": f"#/$defs/{part}", "$defs": schema["$defs"]}
    return Draft202012Validator(schema)


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
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def plan_from_bytes(data: bytes) -> Plan:
    """A stored plan; InvalidDocument when it is of another format or no plan at all."""
    document = read_json(data, "plan")
    _check_format(document, "plan")
    try:
        return Plan(
            build=BuildId.parse(document["build"]),
            config=document["config"],
            trigger=trigger_from_json(document["trigger"]),
            parameters=document["parameters"],
            tasks=tuple(_task(item) for item in document["tasks"]),
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
    try:
        return Trigger(
            kind=document["kind"],
            actor=document.get("actor", ""),
            parameters=document.get("parameters", {}),
            presets=document.get("presets", {}),
            commit=document.get("commit", ""),
            ref=document.get("ref", ""),
            upstream=BuildId.parse(document["upstream"]) if "upstream" in document else None,
            retry_of=BuildId.parse(document["retry_of"]) if "retry_of" in document else None,
            only=tuple(document.get("only", ())),
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
    """The outcome that was stored; InvalidDocument when it is none."""
    try:
        return Outcome(
            Verdict(document["verdict"]),
            document["reason"],
            document["exit_status"],
            document["signal"],
            document["details"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidDocument(f"not an outcome: {error}") from error


def state_to_json(state: BuildState) -> dict[str, Json]:
    """A build's state in a few bytes a task: it lives in a node of the tree."""
    tasks = {name: _trimmed(progress) for name, progress in state.tasks.items()}
    return {"tasks": tasks, **({"cancelled": True} if state.is_cancelled else {})}


def state_from_json(document: Mapping[str, Json]) -> BuildState:
    """The state that was stored; InvalidDocument when it is none."""
    try:
        tasks = {name: Progress(TaskState(item[0]), *item[1:]) for name, item in document["tasks"].items()}
        return BuildState(tasks, document.get("cancelled", False))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InvalidDocument(f"not the state of a build: {error}") from error


def _trimmed(progress: Progress) -> list[Json]:
    item = [progress.state, progress.round, progress.token, progress.origin]
    for default in ("", "", 1):
        if item[-1] != default:
            break
        item.pop()
    return item


def _task(item: Mapping[str, Json]) -> Task:
    lists = {key: tuple(item[key]) for key in ("needs", "labels", "secrets")}
    return Task(**{**item, **lists, "when": When(item["when"])})


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


def _no_constant(name: str) -> Json:
    raise ValueError(f"{name} is not JSON")


def _depth(document: Json) -> int:
    if isinstance(document, dict):
        return 1 + max(map(_depth, document.values()), default=0)
    if isinstance(document, list):
        return 1 + max(map(_depth, document), default=0)
    return 0
