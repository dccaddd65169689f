"""Workflows of Woodpecker: ``.woodpecker.yaml``, ``.woodpecker/*.yaml``; of Drone what they have in common."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import product

from distci.importing.conditions import Alternative
from distci.importing.draft import Draft, Task, unique
from distci.importing.scripts import DOLLAR, exports, joined, not_translated, own_variables, variables_used
from distci.importing.source import Source

VARIABLES = {
    "CI_COMMIT_SHA": "$DISTCI_COMMIT",
    "CI_COMMIT_REF": "$DISTCI_REF",
    "CI_COMMIT_BRANCH": "$DISTCI_BRANCH",
    "CI_COMMIT_TARGET_BRANCH": "$DISTCI_BRANCH",
    "CI_COMMIT_TAG": '$(case "$DISTCI_REF" in refs/tags/*) echo "${DISTCI_REF#refs/tags/}" ;; esac)',
    "CI_COMMIT_PULL_REQUEST": "$DISTCI_PULL_REQUEST",
    "CI_PIPELINE_EVENT": "${DISTCI_EVENT:-manual}",
    "CI_PIPELINE_NUMBER": "$DISTCI_BUILD",
    "CI_PIPELINE_URL": "$DISTCI_URL",
    "CI_STEP_NAME": "$DISTCI_TASK",
    "CI_WORKSPACE": "$DISTCI_WORKSPACE",
}
"""Variables of Woodpecker by ours."""

EVENTS = {"push": "push", "pull_request": "pull_request", "tag": "tag", "manual": "manual", "cron": "cron"}

FORGE_EVENTS = ("push", "tag", "pull_request")

MATRIX_MAX = 32


def translate(draft: Draft) -> None:
    """Have the draft say what the file says."""
    root = draft.root
    _triggers(draft, root["when"])
    for _, service in _named(root["services"]):
        service.note("(not started: start it in the script, or have the worker offer it)")
    labels = [_label(name, item) for name, item in root["labels"].items()]
    if root["platform"].is_there:
        labels.append(_label("platform", root["platform"]))
    checkout = (
        None
        if root["skip_clone"].truth()
        else draft.checkout(draft.task_name("clone", root.get("clone", root)), **_depth(root["clone"]))
    )
    listed = root["steps"] if "steps" in root else root["pipeline"]
    combinations = [*_combinations(root["matrix"])]
    for values in combinations or [{}]:
        _steps(draft, listed, values, labels, checkout["name"] if checkout else "")
    if not draft.stages and checkout and len(draft.tasks) == 1:
        draft.tasks.clear()


# The workflow


def _triggers(draft: Draft, when: Source) -> None:
    if not when.is_there:
        draft.triggers.append(draft.trigger(events=[*FORGE_EVENTS]))
    for item in when.each():
        found = _alternatives(item)
        for alternative in found or ():
            events = [name for name in alternative.events or FORGE_EVENTS if name in FORGE_EVENTS]
            if events:
                draft.triggers.append(
                    draft.trigger(events=events, branches=[*alternative.branches], paths=[*alternative.paths])
                )
            if set(alternative.events) - set(FORGE_EVENTS):
                item.say("is about builds that start otherwise: `distci build trigger` starts them")
        if found is None:
            item.note("(dropped: no trigger says this; write one)")


def _depth(clone: Source) -> dict[str, int]:
    depth = clone["git"]["settings"]["depth"]
    return {"depth": number} if (number := depth.number()) else {}


def _combinations(matrix: Source) -> Iterator[dict[str, str]]:
    """The values of each combination, of which each has tasks of its own: what is of one is no need of another's."""
    axes = {name: values.texts() for name, values in matrix.items() if name != "include"}
    found = [dict(zip(axes, chosen, strict=True)) for chosen in product(*axes.values())] if axes else []
    found += [{name: value.text() for name, value in item.items()} for item in matrix["include"].each()]
    if len(found) > MATRIX_MAX:
        matrix.say(f"has more than {MATRIX_MAX} combinations; the others are dropped")
    yield from found[:MATRIX_MAX]


# Steps


def _steps(draft: Draft, listed: Source, values: Mapping[str, str], labels: list[str], checkout: str) -> None:
    steps = _named(listed)
    has_graph = any("depends_on" in step for _, step in steps)
    suffix = f" {' '.join(values.values())}" if values else ""
    names = {name: draft.task_name(f"{name}{suffix}", step) for name, step in steps}
    in_stages = not has_graph and not values and len(steps) < 60 and any("when" in step for _, step in steps)
    last = checkout
    for name, step in steps:
        task = _step(draft, step, names[name], values)
        task["labels"] = labels
        _environment(draft, step, task, values)
        _kept_to(draft, step, task)
        if has_graph:
            needs = [names[need] for item in step["depends_on"].each() if (need := _known(item, names))]
            task["needs"] = unique(needs) or ([checkout] if checkout else [])
        elif in_stages:
            # What its `if` leaves out holds nobody up: each step is a stage.
            draft.stages = draft.stages or ([checkout] if checkout else [])
            draft.stages.append(task["name"])
            task["stage"] = task["name"]
        else:
            task["needs"] = [last] if last else []
            last = task["name"]
        draft.tasks.append(task)
    if in_stages and checkout:
        draft.tasks[0]["stage"] = checkout
    if has_graph:
        listed.say(
            "a step whose `if` leaves it out leaves out what needs it; and one that needs several begins with the files of all: where two wrote one path "
            "differently, it fails"
        )


def _named(listed: Source) -> list[tuple[str, Source]]:
    """Steps or services by name, be they a list or an object."""
    if listed.is_list:
        return [(item["name"].text() or f"step {number}", item) for number, item in enumerate(listed.each(), 1)]
    return [*listed.items()]


def _known(item: Source, names: Mapping[str, str]) -> str:
    name = item.text()
    if name not in names:
        item.say(f"there is no step {name!r}; dropped")
    return name if name in names else ""


def _step(draft: Draft, step: Source, name: str, values: Mapping[str, str]) -> Task:
    image = step["image"]
    filled = _filled(image.text(), values) if image.is_there else ""
    task: Task = {"name": name, "type": "shell"}
    directory = step["directory"].text().strip("/") if "directory" in step else ""
    if directory and ".." not in directory.split("/"):
        task["directory"] = directory
    if step["failure"].text() == "ignore":
        task["allow_failure"] = True
    elif step["failure"].is_there and step["failure"].value != "fail":
        step["failure"].say("is not known; dropped")
    commands = [*_lines(step["commands"])]
    if not commands:
        step.say("is a plugin, which is not run: the task fails until a script does what it did")
        task["script"] = not_translated(f"the plugin {filled}")
        return task
    task["isolation"] = draft.isolation(filled, image)
    script = _filled(joined(*commands), values).replace("$${", "${")
    task["script"] = script
    return task


def _lines(source: Source) -> Iterator[str]:
    for item in source.each():
        if item.is_list:
            yield from _lines(item)
        else:
            yield item.text()


def _filled(text: str, values: Mapping[str, str]) -> str:
    """A text with the values of the matrix, as they are filled in before anything else."""
    return re.sub(r"(?<!\$)\$\{(\w+)\}", lambda found: values.get(found[1], found[0]), text)


def _environment(draft: Draft, step: Source, task: Task, values: Mapping[str, str]) -> None:
    plain: dict[str, str] = {
        name: value for name, value in values.items() if draft.variable(name, draft.root["matrix"])
    }
    lines: dict[str, str] = {}
    secrets: list[str] = []
    for name, item in _pairs(step["environment"]):
        if not draft.variable(name, item):
            continue
        if "from_secret" in item:
            secret = draft.secret(item["from_secret"].text(), item)
            secrets.append(secret)
            if secret != name:
                lines[name] = f"${secret}"
        elif item.is_object or item.is_list:
            item.note("(dropped: it is no text)")
        else:
            value = _filled(item.text(), values).replace("$$", "$")
            if any(used in VARIABLES for used in variables_used(value)):
                # Only these are filled in there, and only in braces.
                lines[name] = re.sub(r"\$(?!\{(CI_\w+)\})", DOLLAR, value)
            else:
                plain[name] = value
    for item in step["secrets"].each():
        source = item["source"] if item.is_object else item
        secret = draft.secret(source.text(), source)
        secrets.append(secret)
        target = (item["target"].text() if item.is_object else source.text()).upper()
        if target and target != secret and draft.variable(target, source):
            lines[target] = f"${secret}"
    task["environment"] = plain
    task["secrets"] = unique(secrets)
    script = exports(lines) + task["script"]
    task["script"] = own_variables(script, VARIABLES, step, "CI_", "DRONE_") + script


def _pairs(environment: Source) -> Iterator[tuple[str, Source]]:
    if environment.is_list:
        for item in environment.each():
            name, _, value = item.text().partition("=")
            yield name, Source(item.file, item.notes, item.place, value)
    else:
        yield from environment.items()


# When a step runs


def _kept_to(draft: Draft, step: Source, task: Task) -> None:
    when = step["when"]
    found: list[Alternative] | None = []
    statuses: set[str] = set()
    for item in when.each():
        statuses |= set(item["status"].texts())
        more = _alternatives(item)
        if more is None:
            item.note("(cannot be translated)")
            found = None
        elif found is not None:
            found += more
    if statuses:
        task["when"] = {("failure",): "failure", ("failure", "success"): "always"}.get(tuple(sorted(statuses)))
    if found is None:
        draft.undecided(task, when)
    else:
        draft.kept_to(task, found, when)


def _alternatives(item: Source) -> list[Alternative] | None:
    """What an entry of ``when`` is about; None where it says what no filter says."""
    if not item.is_object:
        return None
    known = {"event", "branch", "path", "status", "ref"}
    if {key for key, _ in item.items()} - known:
        return None
    events = []
    for event in item["event"].texts():
        if event not in EVENTS:
            return None
        events.append(EVENTS[event])
    branch, path = item["branch"], item["path"]
    if (branch.is_object and "exclude" in branch) or (
        path.is_object and {key for key, _ in path.items()} - {"include", "on_empty"}
    ):
        return None
    if path.is_object and "on_empty" in path:
        path["on_empty"].note("(where nobody knows what has changed, it runs)")
    branches = [_branch(part) for part in (branch["include"] if branch.is_object else branch).each()]
    paths = [
        part.text().replace("**/*", "*").replace("**", "*")
        for part in (path["include"] if path.is_object else path).each()
    ]
    if "ref" in item:
        refs = item["ref"].texts()
        if not all(ref.startswith(("refs/heads/", "refs/tags/")) for ref in refs) or branches:
            return None
        tags = [ref for ref in refs if ref.startswith("refs/tags/")]
        if tags and (len(tags) < len(refs) or any(ref != "refs/tags/*" and ref != "refs/tags/**" for ref in tags)):
            return None
        events, branches = (["tag"], []) if tags else (events, [ref.removeprefix("refs/heads/") for ref in refs])
    return [Alternative(tuple(events), tuple(unique(branches)), tuple(unique(paths)))]


def _branch(item: Source) -> str:
    text = item.text()
    if text in ("${CI_REPO_DEFAULT_BRANCH}", "$CI_REPO_DEFAULT_BRANCH"):
        item.say("the default branch is taken to be 'main'")
        return "main"
    return text.replace("**", "*")


def _label(name: str, item: Source) -> str:
    label = re.sub(r"[\s,~=]+", "-", name) + "=" + re.sub(r"[\s,~]+", "-", item.text())
    item.say(f"workers have to offer it: distci worker run shell --label {label}")
    return label
