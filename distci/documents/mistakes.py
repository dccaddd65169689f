"""What a valid job says that is surely a mistake: each with its place, and with what was probably meant."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from distci.model import APPROVAL, Json
from distci.plan import resembling

EVENTS = ("push", "tag", "pull_request", "job", "manual", "cron")
"""What a build may be made for, as filters know it."""

HOOK_EVENTS = ("push", "tag", "pull_request")

BRACES = re.compile(r"(?<!\$)\{([A-Za-z_][A-Za-z0-9_]*)\}")
FOREIGN = re.compile(r"\$\{\{.*?\}\}", re.DOTALL)
SECRET_NAME = re.compile(r"(?:.*_)?(?:TOKEN|PASSWORD|PASSWD|SECRET|API_?KEY|PRIVATE_KEY)")
MENTION = re.compile(r"\s*\$\{?\w+\}?\s*|.*[{].*")


def mistakes(document: Mapping[str, Json]) -> list[str]:
    """What to look at again in a valid job document: ``tasks[0].if.events[0]: there is no event 'merge'``."""
    tasks: Sequence[Mapping[str, Json]] = document.get("tasks", ())
    return [
        *_of_triggers(document),
        *_of_variables("environment", document),
        *_of_stages(document),
        *_of_labels(tasks),
        *_of_tasks(tasks),
    ]


def _of_triggers(document: Mapping[str, Json]) -> Iterator[str]:
    triggers = document.get("triggers", [])
    for position, trigger in enumerate(triggers):
        where = f"triggers[{position}]"
        if trigger in triggers[:position]:
            yield f"{where}: is there twice"
        if trigger["type"] in ("job", "cron", "git-poll"):
            continue
        events = trigger.get("events", ["push"])
        for number, event in enumerate(events):
            yield from _unknown_event(f"{where}.events[{number}]", event, HOOK_EVENTS)
        if "tags" in trigger and not any(_may_be(event, "tag") for event in events):
            yield f"{where}.tags: says which tags, but its events have no `tag`"
        yield from _full_refs(f"{where}.branches", trigger.get("branches", ()))
        yield from _full_refs(f"{where}.tags", trigger.get("tags", ()))


def _of_stages(document: Mapping[str, Json]) -> Iterator[str]:
    used = {task.get("stage") for task in document.get("tasks", ())}
    for position, stage in enumerate(document.get("stages", ())):
        if used and stage not in used:
            yield f"stages[{position}]: no task is in stage {stage!r}"


def _of_labels(tasks: Sequence[Mapping[str, Json]]) -> Iterator[str]:
    """A label that one task alone asks for and that looks like one that several do."""
    keys = Counter(key for task in tasks for key in {label.partition("=")[0] for label in task.get("labels", ())})
    usual = [key for key, count in keys.items() if count > 1]
    for position, task in enumerate(tasks):
        for number, label in enumerate(task.get("labels", ())):
            key = label.partition("=")[0]
            if keys[key] == 1 and (hint := resembling(key, [other for other in usual if len(other) > 1])):
                yield f"tasks[{position}].labels[{number}]: no other task asks for {key!r}{hint}"


def _of_tasks(tasks: Sequence[Mapping[str, Json]]) -> Iterator[str]:
    needed = {need for task in tasks for need in task.get("needs", ())}
    for position, task in enumerate(tasks):
        where = f"tasks[{position}]"
        yield from _of_filter(f"{where}.if", task.get("if", {}))
        yield from _of_variables(f"{where}.environment", task)
        yield from _of_texts(where, task)
        if len(set(task.get("needs", ()))) < len(task.get("needs", ())):
            yield f"{where}.needs: names a task twice"
        if task["type"] == "publish-artifacts" and (task.get("needs") == [] or ("needs" not in task and position == 0)):
            yield f"{where}: needs no task, so there are no files to publish"
        following = tasks[position + 1] if position + 1 < len(tasks) else {"needs": []}
        if task["type"] == APPROVAL and task["name"] not in needed and "needs" in following and "stage" not in task:
            yield f"{where}: no task needs this approval, so it holds nothing up"
        if "shell" in task and str(task.get("script", "")).startswith("#!"):
            yield f"{where}.shell: the script has a #! line of its own"


def _of_filter(where: str, wanted: Mapping[str, Json]) -> Iterator[str]:
    for number, event in enumerate(wanted.get("events", ())):
        yield from _unknown_event(f"{where}.events[{number}]", event, EVENTS)
    yield from _full_refs(f"{where}.branches", wanted.get("branches", ()))


def _of_texts(where: str, task: Mapping[str, Json]) -> Iterator[str]:
    axes = {axis for item in [task.get("matrix", {}), *task.get("matrix", {}).get("include", ())] for axis in item}
    axes -= {"include", "exclude", "max"}
    for place, text in _texts(where, {key: value for key, value in task.items() if key != "matrix"}):
        if found := FOREIGN.search(text):
            yield f"{place}: {found[0]} is an expression of another system; nothing is filled in for it"
        for name in dict.fromkeys(BRACES.findall(text)):
            if axes and name not in axes and (hint := resembling(name, axes)):
                yield f"{place}: the matrix has no axis {name!r}{hint}"


def _texts(place: str, value: Json) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(f"{place}.{key}", item)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _texts(f"{place}[{number}]", item)


def _of_variables(where: str, holder: Mapping[str, Json]) -> Iterator[str]:
    for name, value in holder.get("environment", {}).items():
        if SECRET_NAME.fullmatch(name.upper()) and len(value) > 3 and not MENTION.fullmatch(value):
            yield f"{where}.{name}: looks like a secret, and all who may read the job read it; `distci secret set {name}` keeps it, `secrets` names it"


def _unknown_event(place: str, event: str, known: Sequence[str]) -> Iterator[str]:
    if not any(_may_be(event, name) for name in known):
        yield f"{place}: there is no event {event!r}{resembling(event, known) or '; there are: ' + ', '.join(known)}"


def _may_be(glob: str, word: str) -> bool:
    return fnmatchcase(word, glob)


def _full_refs(place: str, globs: Sequence[str]) -> Iterator[str]:
    for number, glob in enumerate(globs):
        if glob.startswith("refs/"):
            name = glob.split("/", 2)[-1]
            yield f"{place}[{number}]: {glob!r} fits nothing, since names have no refs/ in front; did you mean {name!r}?"
