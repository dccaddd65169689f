"""What DistCI writes for itself is as its schemas say, and what is damaged or of another format is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files

import pytest
from jsonschema import Draft202012Validator

from distci import plan
from distci.documents import stored
from distci.documents.jobs import job_from_json
from distci.errors import InvalidDocument
from distci.model import BuildId, BuildState, Delivery, Json, Outcome, Progress, TaskState, Trigger

JOB: Json = {
    "job": "team/hello",
    "parameters": {"LEVEL": {"choices": ["fast", "full"]}},
    "concurrency": {"group": "boards", "limit": 2},
    "tasks": [
        {"name": "test", "type": "shell", "script": "true", "matrix": {"v": ["1", "2"]}, "timeout": "5m"},
        {"name": "tell", "type": "shell", "script": "true", "when": "always", "resources": ["board"]},
    ],
}


@pytest.mark.parametrize("name", ["job", "plan", "outcome", "state"])
def test_each_schema_is_a_schema_that_says_what_it_is(name: str) -> None:
    schema = json.loads(files("distci.schemas").joinpath(f"{name}.json").read_text())
    Draft202012Validator.check_schema(schema)
    assert schema["$id"] == f"urn:distci:schema:{name}"
    assert schema["description"]


def valid(name: str, document: Json) -> None:
    schema = json.loads(files("distci.schemas").joinpath(f"{name}.json").read_text())
    Draft202012Validator(schema).validate(document)


def test_what_is_written_is_what_the_schemas_describe() -> None:
    trigger = Trigger(
        "retry",
        "me",
        {"LEVEL": "full"},
        upstream=BuildId("a", 1),
        retry_of=BuildId("b", 2),
        only=["tell"],
        is_untrusted=True,
        delivery=Delivery("d", "github", "pull_request", "org/hello", ("//github.com/org/hello",), "main", 7, True),
    )
    made = plan.expand(job_from_json(JOB), BuildId("team/hello", 1), 1, trigger)
    valid("plan", json.loads(stored.plan_to_bytes(made)))
    valid("outcome", stored.outcome_to_json(Outcome.failed("exit status 1", commit="abc")))
    taken = Progress(TaskState.REUSED, 2, "x.1", "team/hello#1")
    state = BuildState({"a": taken, "b": Progress()}, is_cancelled=True)
    valid("state", stored.state_to_json(state))


def test_what_a_forge_told_survives_being_stored() -> None:
    delivery = Delivery("d", "github", "pull_request", "org/hello", ("//github.com/org/hello",), "main", 7, True)
    for trigger in (
        Trigger("github", delivery=delivery, is_untrusted=True),
        Trigger("github", delivery=Delivery("d", "x", "push", "a/b")),
    ):
        assert stored.trigger_from_json(stored.trigger_to_json(trigger)) == trigger


@pytest.mark.parametrize(
    ("read", "document"),
    [
        (stored.trigger_from_json, {}),
        (stored.trigger_from_json, []),
        (stored.trigger_from_json, {"kind": 1}),
        (stored.trigger_from_json, {"kind": "m", "upstream": "nonsense"}),
        (stored.trigger_from_json, {"kind": "m", "only": "abc"}),
        (stored.trigger_from_json, {"kind": "m", "parameters": {"A": 1}}),
        (stored.state_from_json, {"tasks": []}),
        (stored.state_from_json, {"tasks": {"a": []}}),
        (stored.state_from_json, {"tasks": {"a": ["z"]}}),
        (stored.state_from_json, {"tasks": {"a": ["p", 1]}}),
        (stored.state_from_json, {"tasks": {"a": ["p", "x", 1, 0]}}),
        (stored.state_from_json, {"tasks": {"a": ["p", "x", 1, -1, 5]}}),
        (stored.plan_from_bytes, b"[]"),
        (stored.plan_from_bytes, b"{"),
        (stored.plan_from_bytes, b'{"format": 1}'),
    ],
)
def test_a_damaged_document_is_refused(read: Callable[[Json], object], document: Json) -> None:
    with pytest.raises(InvalidDocument):
        read(document)


@pytest.mark.parametrize(
    ("read", "document"),
    [
        (stored.trigger_from_json, {"format": 9}),
        (stored.state_from_json, {"format": 9}),
        (stored.plan_from_bytes, b'{"format": 9}'),
    ],
)
def test_another_format_is_refused_politely(read: Callable[[Json], object], document: Json) -> None:
    with pytest.raises(InvalidDocument, match="format 9; this version reads format 1"):
        read(document)


def test_the_state_of_a_task_takes_few_bytes() -> None:
    ended = Progress(TaskState.PASSED, 1, "0123456789abcdefghjk.1")
    document = stored.state_to_json(BuildState({f"task{number:03}": ended for number in range(200)}))
    assert len(json.dumps(document, separators=(",", ":"))) <= 200 * 44
