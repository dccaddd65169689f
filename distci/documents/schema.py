"""What ``schemas/job.json``, the schemas that third parties bring for their types of task, and ``schemas/api.json`` find wrong with a document.

Each problem comes with its place and, where a key or a word is unknown, with the one that was probably meant.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from distci import plan
from distci.model import Json

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from jsonschema import ValidationError
    from jsonschema.protocols import Validator


WORKERS = "distci.workers"
"""The entry points that bring kinds of workers; the class may have a ``schema`` for the keys of its tasks."""

BUILT_IN = ("git-checkout", "shell", "publish-artifacts", "copy-artifacts", "approval", "build", "definition")
"""Types of task whose keys ``schemas/job.json`` knows."""

NO_TASKS = frozenset({"control", "status"})
"""Kinds of workers whose tickets are no tasks."""

Place = tuple[str | int, ...]
"""Keys and positions from the top of a document down."""

Problem = tuple[Place, str]


def schema_problems(document: Json) -> Iterator[Problem]:
    """What is wrong with a job document by its schema, and with each of its tasks by that of its type."""
    yield from _problems(_validator(""), document, ())
    tasks = document.get("tasks") if isinstance(document, dict) else None
    for position, task in enumerate(tasks if isinstance(tasks, list) else ()):
        if isinstance(task, dict) and isinstance(kind := task.get("type"), str):
            yield from typed_task_problems(kind, task, ("tasks", position))


def typed_task_problems(kind: str, task: Mapping[str, Json], place: Place) -> Iterator[Problem]:
    """What is wrong with a task of that type.

    A name with a dot may be used where it is not installed: whoever plans a build need not be able to perform it.
    """
    if kind in BUILT_IN:
        yield from _problems(_validator(f"task-{kind}"), task, place)
        return
    point = installed(kind)
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


def api_problems(document: Json, part: str) -> list[str]:
    """What is wrong with what a front end was sent, by the definition of that name in ``schemas/api.json``."""
    return told(list(_problems(_api_validator(part), document, ())))


def value_problems(value: Json, schema: Mapping[str, Json]) -> list[str]:
    """What is wrong with one value by a schema of its own."""
    return [text for _, text in _problems(_validator_class()(schema), value, ())]


@cache
def api_schemas() -> Mapping[str, Any]:
    """What front ends take and answer, by name; references are to ``#/$defs/NAME``."""
    definitions: Mapping[str, Any] = _read("api.json")["$defs"]
    return definitions


def installed(kind: str) -> EntryPoint | None:
    """Where the worker of that kind is found, when a third party's package has brought one."""
    return next((point for point in _worker_points() if point.name == kind), None)


def told(problems: Sequence[Problem]) -> list[str]:
    """The problems as a person reads them: ``tasks[0].script: is missing``."""
    return [f"{place_text(path)}: {text}" for path, text in problems]


def place_text(path: Place) -> str:
    """A place as problems tell it: ``tasks[0].script``."""
    text = "".join(
        f".{part}" if isinstance(part, str) and re.fullmatch(r"[$\w-]+", part) else f"[{json.dumps(part)}]"
        for part in path
    )
    return text.lstrip(".") or "the document"


def _worker_points() -> Sequence[EntryPoint]:
    from importlib.metadata import entry_points

    return [point for point in entry_points(group=WORKERS) if point.name not in NO_TASKS]


# Problems in words


def _problems(validator: Validator, document: Json, place: Place) -> Iterator[Problem]:
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


def _explain(error: ValidationError, place: Place) -> Iterator[Problem]:
    schema: Any = error.schema
    wanted: Any = error.validator_value
    instance: Any = error.instance
    where = (*place, *error.absolute_path)
    said = schema if isinstance(schema, dict) else {}
    # What is only ever written is a secret.
    value = "what is given" if said.get("writeOnly") else json.dumps(instance, ensure_ascii=False)[:80]
    description = said.get("description", "")
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
        hint = plan.resembling(str(instance), allowed) if len(allowed) > 1 else ""
        yield where, f"{value} is not one of: {', '.join(allowed)}{hint}"
    elif error.validator == "type":
        yield where, f"{value} is not of type {wanted if isinstance(wanted, str) else ' or '.join(wanted)}{explained}"
    else:
        yield where, f"{error.message[:200]}{explained}"


def _trigger_types() -> Sequence[str]:
    types = [branch["properties"]["type"] for branch in _schema()["$defs"]["trigger"]["oneOf"]]
    return [name for found in types for name in [*found.get("enum", ()), found.get("const")] if name]


# Schemas


@cache
def _schema() -> Mapping[str, Any]:
    return _read("job.json")


def _read(name: str) -> Mapping[str, Any]:
    from importlib.resources import files

    document: Mapping[str, Any] = json.loads(files("distci.schemas").joinpath(name).read_text())
    return document


@cache
def _api_validator(part: str) -> Validator:
    return _validator_class()({"$ref": f"#/$defs/{part}", "$defs": api_schemas()})


@cache
def _validator(part: str) -> Validator:
    schema = {"$ref": f"#/$defs/{part}", "$defs": _schema()["$defs"]} if part else _schema()
    return _validator_class()(schema)


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
