"""The documents that people write: jobs.

They are held to their schema and then to what no schema can say. All that is wrong is told at once, each problem with its place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy

from distci.documents.schema import BUILT_IN, Place, installed, schema_problems, told
from distci.documents.validation import NOT_YET_TRIGGERS, is_hook, job_problems, task_problems, unfit
from distci.errors import Invalid, InvalidJob
from distci.model import (
    Concurrency,
    Filter,
    HookTrigger,
    Job,
    JobTrigger,
    Json,
    Parameter,
    ParameterType,
    Permit,
    Policy,
    Retrying,
    TaskDefinition,
    When,
)

UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

COMMON_KEYS = frozenset(
    [
        "name",
        "type",
        "description",
        "needs",
        "stage",
        "when",
        "on_cancel",
        "if",
        "matrix",
        "labels",
        "isolation",
        "environment",
        "secrets",
        "secret_files",
        "timeout",
        "attempts",
        "retries",
        "allow_failure",
        "priority",
        "resources",
        "reuse",
    ]
)

NOT_YET = frozenset({"reuse"})

NOT_YET_IN_JOB = frozenset({"retention"})

_SHAPE = frozenset(
    {"job", "tasks", "stages", "name", "type", "needs", "stage", "when", "if", "matrix", "retries", "resources"}
)
"""Where these are wrong, it is no use to look at how the tasks hang together."""


def job_from_json(document: Json, root: str = "") -> Job:
    """The job that a document describes; InvalidJob names all that is wrong with it, each problem with its place.

    Its tasks may need ``root``, which is of another job.
    """
    strange = list(unfit(document))
    if strange:
        raise InvalidJob(_subject(document), told(strange))
    if isinstance(document, dict) and isinstance(document.get("definition"), dict):
        return _of_definition(document)
    found = list(schema_problems(document))
    problems = told(found)
    sound = _without(document, [path for path, _ in found])
    if sound is not None:
        job = _job(sound)
        problems += [*job_problems(job), *task_problems(job, sound, root)]
    if problems:
        raise InvalidJob(_subject(document), dict.fromkeys(problems))
    return job


def _of_definition(document: dict[str, Json]) -> Job:
    """The job of which a file in a repository says the tasks: it has one, which reads that file."""
    if "tasks" in document:
        raise InvalidJob(_subject(document), ["definition: stands in place of `tasks`; leave one of them out"])
    named: dict[str, Json] = document["definition"]
    triggers = document.get("triggers")
    fetched = (
        [item.get("repository") for item in triggers if isinstance(item, dict)] if isinstance(triggers, list) else []
    )
    usual = next((url for url in fetched if isinstance(url, str) and ":" in url), None)
    reads = {"name": "definition", "type": "definition", **({"repository": usual} if usual else {}), **named}
    rest = {key: value for key, value in document.items() if key != "definition"}
    try:
        return job_from_json({**rest, "tasks": [reads]})
    except InvalidJob as error:
        problems = [re.sub(r"^tasks\[0\]", "definition", problem) for problem in error.problems]
        raise InvalidJob(error.subject, problems) from error


def warnings_for(document: Mapping[str, Json]) -> list[str]:
    """What a valid job document asks for that this version does not act on, each with its place."""
    found = [f"{key}: accepted, but not acted on yet" for key in sorted(NOT_YET_IN_JOB & document.keys())]
    for position, trigger in enumerate(document.get("triggers", ())):
        if trigger["type"] in NOT_YET_TRIGGERS:
            found.append(f"triggers[{position}]: triggers of type {trigger['type']} are accepted, but not acted on yet")
    for position, task in enumerate(document.get("tasks", ())):
        found += [f"tasks[{position}].{key}: accepted, but not acted on yet" for key in sorted(NOT_YET & task.keys())]
        if task["type"] not in BUILT_IN and not installed(task["type"]):
            found.append(f"tasks[{position}].type: {task['type']} is not installed here; its own keys are not checked")
    return found


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
        hooks=tuple(_hook(item) for item in document.get("triggers", ()) if is_hook(item)),
        tasks=tuple(_definition(item) for item in document["tasks"]),
        tags=tuple(document.get("tags", ())),
        stages=tuple(document.get("stages", ())),
        concurrency=_concurrency(document["job"], document["concurrency"]) if "concurrency" in document else None,
    )


def _hook(item: Mapping[str, Json]) -> HookTrigger:
    return HookTrigger(
        receiver=item["type"],
        repository=item["repository"],
        events=tuple(item.get("events", ("push",))),
        branches=tuple(item.get("branches", ())),
        tags=tuple(item.get("tags", ())),
        paths=tuple(item.get("paths", ())),
        parameters=item.get("parameters", {}),
    )


def _concurrency(job: str, item: Mapping[str, Json]) -> Concurrency:
    """Without a group, it is the job's own: so many builds of the job run at once."""
    return Concurrency(item.get("group", job), item.get("limit", 1), Policy(item.get("policy", Policy.QUEUE)))


def _resource(item: Json) -> Permit:
    return Permit(item["name"], item.get("limit", 1)) if isinstance(item, Mapping) else Permit(item)


def _times(retries: Json) -> int:
    return int(retries["times"] if isinstance(retries, Mapping) else retries)


def _retrying(retries: Json) -> Retrying:
    if not isinstance(retries, Mapping):
        return Retrying()
    pause_s = seconds(retries["pause"]) if "pause" in retries else 0
    return Retrying(pause_s, retries.get("factor", 2), tuple(retries.get("exit_statuses", ())))


def _parameter(item: Mapping[str, Json]) -> Parameter:
    choices = tuple(item.get("choices", ()))
    is_required = item.get("required", False)
    first = choices[0] if choices and not is_required else ""
    usual = {"integer": "0", "boolean": "false"}.get(item.get("type", ""), "")
    return Parameter(
        default=item.get("default", first or ("" if is_required else usual)),
        choices=choices,
        required=is_required,
        description=item.get("description", ""),
        type=ParameterType(item.get("type", ParameterType.TEXT)),
        minimum=item.get("minimum"),
        maximum=item.get("maximum"),
    )


def _filter(item: Mapping[str, Json]) -> Filter:
    parameters = {
        name: (values,) if isinstance(values, str) else tuple(values)
        for name, values in item.get("parameters", {}).items()
    }
    globs = {name: tuple(item.get(name, ())) for name in ("events", "branches", "paths")}
    return Filter(**globs, parameters=parameters)


def _definition(item: Mapping[str, Json]) -> TaskDefinition:
    matrix = dict(item.get("matrix", {}))
    include, exclude = matrix.pop("include", ()), matrix.pop("exclude", ())
    matrix.pop("max", None)
    return TaskDefinition(
        name=item["name"],
        type=item["type"],
        needs=tuple(item["needs"]) if "needs" in item else None,
        stage=item.get("stage", ""),
        when=When(item.get("when", When.SUCCESS)),
        on_cancel=item.get("on_cancel", False),
        filter=_filter(item.get("if", {})),
        matrix=matrix,
        include=tuple(include),
        exclude=tuple(exclude),
        labels=tuple(item.get("labels", ())),
        isolation=item.get("isolation", {}),
        environment=item.get("environment", {}),
        secrets=tuple(item.get("secrets", ())),
        secret_files=tuple(item.get("secret_files", ())),
        timeout_s=seconds(item["timeout"]) if "timeout" in item else None,
        attempts=item.get("attempts", 3),
        retries=_times(item.get("retries", 0)),
        retrying=_retrying(item.get("retries", 0)),
        allow_failure=item.get("allow_failure", False),
        priority=item.get("priority", 5),
        resources=tuple(_resource(resource) for resource in item.get("resources", ())),
        arguments={key: value for key, value in item.items() if key not in COMMON_KEYS},
    )


# What is wrong with a document


def _subject(document: Json) -> str:
    name = document.get("job") if isinstance(document, dict) else None
    return f"job {name}:" if isinstance(name, str) else "the job:"


def _without(document: Json, broken: Sequence[Place]) -> dict[str, Json] | None:
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


def _is_shape(path: Place) -> bool:
    return path[0] == "tasks" and (len(path) < 3 or path[2] in _SHAPE)


def _remove(document: Json, path: Place) -> None:
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
