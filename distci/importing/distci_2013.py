"""Jobs of the DistCI of 2013: ``job_id``, and tasks with ``params``."""

from __future__ import annotations

import re

from distci.importing.draft import Draft, Task
from distci.importing.scripts import not_translated
from distci.importing.source import Source

VERSION = "2013-02-26"


def translate(draft: Draft) -> None:
    """Have the draft say what the file says."""
    root = draft.root
    if root["job_id"].is_there:
        root["job_id"].use()
    version = root["configuration-version"]
    if version.is_there and version.text() != VERSION:
        version.note(f"(another version than {VERSION}, which is what is read here)")
    for item in root["tasks"].each():
        draft.tasks.append(_task(draft, item))


def _task(draft: Draft, item: Source) -> Task:
    kind = item["type"].text()
    parameters = item["params"]
    task: Task = {"name": draft.task_name(kind or "task", item["type"])}
    if kind == "git-checkout":
        task |= {
            "type": kind,
            "repository": parameters["repository"].text() or draft.repository,
            "ref": parameters["ref"].text(),
        }
        task["directory"] = _directory(parameters["checkout-dir"])
    elif kind == "execute-shell":
        task |= {
            "type": "shell",
            "directory": _directory(parameters["working_directory"]),
            "script": parameters["script"].text() or "true\n",
        }
    elif kind == "publish-artifacts":
        task |= {"type": kind, "paths": [_directory(path) or "*" for path in parameters["artifacts"].each()] or ["*"]}
    else:
        item["type"].say("is no type of task here: the task fails until a script does what it did")
        task |= {"type": "shell", "script": not_translated(f"a task of type {kind}")}
    return task


def _directory(item: Source) -> str:
    text = item.text()
    fit = re.sub(r"^[/-]+", "", text)
    fit = "/".join(part for part in fit.split("/") if part != "..")
    if fit != text:
        item.say(f"is {fit!r} here: paths stay within the workspace")
    return fit
