"""Plans, triggers, outcomes and states as they are stored: what one version writes, every other of the same format reads."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from distci.documents.strict_json import canonical, flag, mapping, number, read_json, text, texts, values
from distci.errors import Invalid, InvalidDocument
from distci.model import (
    BuildId,
    BuildState,
    Concurrency,
    Delivery,
    Json,
    Outcome,
    Permit,
    Plan,
    Policy,
    Progress,
    Retrying,
    Task,
    TaskState,
    Trigger,
    When,
)

FORMAT = 1

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


def plan_to_bytes(made: Plan) -> bytes:
    """The one form of a plan: equal plans are equal bytes."""
    document = {
        "format": FORMAT,
        "build": str(made.build),
        "config": made.config,
        "trigger": trigger_to_json(made.trigger),
        "parameters": dict(made.parameters),
        "tasks": [_task_to_json(task) for task in made.tasks],
        "concurrency": asdict(made.concurrency) if made.concurrency else None,
    }
    return canonical(document)


def plan_from_bytes(data: bytes) -> Plan:
    """A stored plan; InvalidDocument when it is of another format or no plan at all."""
    document = read_json(data, "plan")
    _check_format(document, "plan")
    try:
        return Plan(
            build=BuildId.parse(document["build"]),
            config=number(document, "config") or 0,
            trigger=trigger_from_json(document["trigger"]),
            parameters=values(document, "parameters"),
            tasks=tuple(_task(item) for item in document["tasks"]),
            concurrency=_concurrency(document["concurrency"]),
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
        "caller": trigger.caller,
        "retry_of": str(trigger.retry_of) if trigger.retry_of else "",
        "only": list(trigger.only),
        "untrusted": trigger.is_untrusted,
        "delivery": _delivery_to_json(trigger.delivery) if trigger.delivery else None,
    }
    return {"kind": trigger.kind} | {key: value for key, value in document.items() if value}


def trigger_from_json(document: Mapping[str, Json]) -> Trigger:
    """The trigger that was stored; InvalidDocument when it is none."""
    _check_piece(document, "trigger")
    try:
        return Trigger(
            kind=text(document, "kind"),
            actor=text(document, "actor", ""),
            parameters=values(document, "parameters"),
            presets=values(document, "presets"),
            commit=text(document, "commit", ""),
            ref=text(document, "ref", ""),
            upstream=BuildId.parse(text(document, "upstream")) if "upstream" in document else None,
            caller=text(document, "caller", ""),
            retry_of=BuildId.parse(text(document, "retry_of")) if "retry_of" in document else None,
            only=texts(document, "only"),
            is_untrusted=flag(document, "untrusted"),
            delivery=_delivery_from_json(mapping(document, "delivery")) if "delivery" in document else None,
        )
    except (KeyError, TypeError, Invalid) as error:
        raise InvalidDocument(f"not a trigger: {error}") from error


def outcome_to_json(outcome: Outcome) -> dict[str, Json]:
    """What an attempt leaves on record of its outcome."""
    return {
        "verdict": outcome.verdict,
        "reason": outcome.reason,
        "exit_status": outcome.exit_status,
        "signal": outcome.signal,
        "details": dict(outcome.details),
    } | ({"usage": asdict(outcome.usage)} if outcome.usage else {})


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
        origins = texts(document, "origins")
        tasks = {name: _progress(item, origins) for name, item in document["tasks"].items()}
        return BuildState(tasks, flag(document, "cancelled"))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidDocument(f"not the state of a build: {error}") from error


def _delivery_to_json(delivery: Delivery) -> dict[str, Json]:
    """Only what differs from the default, as above."""
    document = {
        "addresses": list(delivery.addresses),
        "branch": delivery.branch,
        "pull_request": delivery.pull_request,
        "wants_status": delivery.wants_status,
        "changes": delivery.changes,
    }
    required = {name: getattr(delivery, name) for name in ("id", "receiver", "event", "repository")}
    return required | {key: value for key, value in document.items() if value}


def _delivery_from_json(document: Mapping[str, Json]) -> Delivery:
    return Delivery(
        id=text(document, "id"),
        receiver=text(document, "receiver"),
        event=text(document, "event"),
        repository=text(document, "repository"),
        addresses=texts(document, "addresses"),
        branch=text(document, "branch", ""),
        pull_request=(number(document, "pull_request") or 0) if "pull_request" in document else 0,
        wants_status=flag(document, "wants_status"),
        changes=text(document, "changes", ""),
    )


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


def _task_to_json(task: Task) -> dict[str, Json]:
    """All of its keys but those that few tasks have: what they do without is as it always was."""
    seldom = {"unfit": task.unfit, "emitter": task.emitter, "retrying": task.retrying != Retrying()}
    return {key: value for key, value in asdict(task).items() if seldom.get(key, True)}


def _retrying(item: Mapping[str, Json]) -> Retrying:
    for key in ("pause_s", "factor"):
        if not isinstance(item[key], int | float):
            raise TypeError(f"{key}: {item[key]!r} is not a number")
    return Retrying(item["pause_s"], item["factor"], tuple(map(int, item["exit_statuses"])))


def _task(item: Mapping[str, Json]) -> Task:
    timeout_s = item["timeout_s"]
    if not isinstance(timeout_s, int | float | None):
        raise TypeError(f"timeout_s: {timeout_s!r} is not a number")
    return Task(
        name=text(item, "name"),
        type=text(item, "type"),
        needs=texts(item, "needs"),
        when=When(text(item, "when")),
        on_cancel=flag(item, "on_cancel"),
        labels=texts(item, "labels"),
        isolation=mapping(item, "isolation"),
        environment=values(item, "environment"),
        secrets=texts(item, "secrets"),
        # Plans that older versions made have none.
        secret_files=texts(item, "secret_files") if "secret_files" in item else (),
        timeout_s=timeout_s,
        attempts=number(item, "attempts") or 1,
        retries=number(item, "retries") or 0,
        allow_failure=flag(item, "allow_failure"),
        priority=number(item, "priority") or 0,
        resources=tuple(Permit(text(permit, "name"), number(permit, "limit") or 1) for permit in item["resources"]),
        arguments=mapping(item, "arguments"),
        unfit=text(item, "unfit", ""),
        emitter=text(item, "emitter", ""),
        retrying=_retrying(item["retrying"]) if "retrying" in item else Retrying(),
    )


def _concurrency(item: Json) -> Concurrency | None:
    if item is None:
        return None
    return Concurrency(text(item, "group"), number(item, "limit") or 1, Policy(text(item, "policy")))


def _check_piece(document: Json, what: str) -> None:
    """A piece of a larger document, which says the format; where the piece says one too, it must be ours."""
    if not isinstance(document, dict):
        raise InvalidDocument(f"{what}: not a JSON object")
    _check_format({"format": FORMAT, **document}, what)


def _check_format(document: Json, what: str) -> None:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else None
        raise InvalidDocument(f"{what}: format {found!r}; this version reads format {FORMAT}")
