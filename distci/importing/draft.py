"""A job while it is made of another system's file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from distci.importing.conditions import Alternative, condition
from distci.importing.scripts import NAME, OWN
from distci.importing.source import Notes, Source
from distci.model import Json

OWN_NAME_LENGTH_MAX = 64

PLACEHOLDER = "https://git.example.org/team/repository.git"

Task = dict[str, Any]

FORGES = {"github": "github", "gitlab": "gitlab"}
"""Types of triggers, by a word in the host's name."""


@dataclass(frozen=True)
class Wishes:
    """What whoever imports wants, as the file does not say it."""

    job: str
    repository: str = ""
    """Where the file comes from; a placeholder stands in its place, and is told, where nobody says it."""
    with_images: bool = True
    """Whether tasks run in the images that the file names, or on the workers' own systems."""


@dataclass
class Draft:
    """The job so far."""

    wishes: Wishes
    root: Source
    notes: Notes
    triggers: list[Json] = field(default_factory=list)
    parameters: dict[str, Json] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    stages: list[str] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    concurrency: Json = None
    description: str = ""
    _names: set[str] = field(default_factory=set)

    @property
    def repository(self) -> str:
        return self.wishes.repository or PLACEHOLDER

    def document(self) -> dict[str, Json]:
        """The job's document, without what is empty."""
        if not self.tasks:
            self.root.say("there is nothing in it that could be a task; one that fails stands in its place")
            self.tasks.append({"name": "nothing", "type": "shell", "script": "exit 1"})
        for number, task in enumerate(self.tasks):
            if task.get("when") == "failure" and (task.get("needs") == [] or (number == 0 and "needs" not in task)):
                del task["when"]
                self.root.say(f"task {task['name']} was for failures, and comes after nothing that could fail: it runs")
        made = [
            {
                key: value
                for key, value in task.items()
                # No needs at all are something else than the usual ones.
                if value not in ({}, [], "", None) or (key == "needs" and value == [])
            }
            for task in self.tasks
        ]
        document: dict[str, Json] = {
            "job": self.wishes.job,
            "description": self.description,
            "parameters": self.parameters,
            "environment": self.environment,
            "triggers": [item for number, item in enumerate(self.triggers) if item not in self.triggers[:number]],
            "stages": self.stages,
            "tasks": made,
        }
        more = {"concurrency": self.concurrency} if self.concurrency is not None else {}
        return {**{key: value for key, value in document.items() if value}, **more}

    # Names

    def task_name(self, wanted: str, source: Source) -> str:
        """A name that no other task has, like the one that is wanted."""
        fit = re.sub(r"[^A-Za-z0-9 ._-]+", "-", wanted).strip(" -._")[:OWN_NAME_LENGTH_MAX].strip() or "task"
        name = next(name for number in count(1) if (name := _numbered(fit, number)) not in self._names)
        self._names.add(name)
        if name != wanted:
            source.say(f"the task is called {name!r} here")
        return name

    def stage_name(self, wanted: str, source: Source) -> str:
        fit = re.sub(r"[^A-Za-z0-9 ._-]+", "-", wanted).strip(" -._")[:OWN_NAME_LENGTH_MAX].strip() or "stage"
        if fit != wanted:
            source.say(f"the stage is called {fit!r} here")
        return fit

    # Parts of tasks

    def checkout(self, name: str, **more: Json) -> Task:
        """A task that checks the repository out."""
        if not self.wishes.repository and not any(task.get("repository") == PLACEHOLDER for task in self.tasks):
            self.root.say(
                f"the file does not say where its repository is: put it in the place of {PLACEHOLDER}, or import with --repository URL"
            )
        task = {"name": name, "type": "git-checkout", "repository": self.repository, "needs": [], **more}
        self.tasks.append(task)
        return task

    def trigger(self, kind: str = "", **more: Json) -> Json:
        """A trigger by the forge, whose kind the repository's host tells where nobody else does."""
        host = self.repository.partition("//")[2].partition("/")[0]
        guessed = next((forge for word, forge in FORGES.items() if word in host), "gitea")
        return {
            "type": kind or guessed,
            "repository": self.repository,
            **{key: value for key, value in more.items() if value},
        }

    def isolation(self, image: str, source: Source) -> dict[str, Json]:
        """Where a task runs that wants to run in an image."""
        if not image:
            return {}
        if not self.wishes.with_images:
            source.note("(the image is left out, as you asked: the task runs on its worker's own system)")
            return {}
        return {"type": "container", "image": image}

    def kept_to(self, task: Task, alternatives: Sequence[Alternative], source: Source) -> None:
        """Have a task run in the builds alone that the alternatives are about."""
        found = condition(alternatives)
        if found.filter is not None:
            task["if"] = {**task.get("if", {}), **found.filter}
        elif found.guard and "script" in task:
            task["script"] = found.guard + task["script"]
            source.say("no `if` says this: in other builds the script ends at once, and the task has passed")
        elif found.guard or not found.is_translated:
            self.undecided(task, source)

    def undecided(self, task: Task, source: Source) -> None:
        """Have a task run only when somebody says so, since nobody can tell when it should."""
        name = f"RUN_{re.sub('[^A-Za-z0-9]+', '_', task['name']).strip('_').upper()}"
        self.parameters[name] = {"type": "boolean", "description": f"Whether task {task['name']} runs."}
        task["if"] = {"parameters": {name: "true"}}
        source.say(
            f"{source.shown()}(no `if` says this: the task runs where parameter {name} is true, and by itself never; write an `if`)"
        )

    def variable(self, name: str, source: Source) -> str:
        """The name itself, where a variable may be called so; else empty, and told."""
        if not NAME.fullmatch(name) or OWN.fullmatch(name):
            source.note("(dropped: no variable can be called so here)")
            return ""
        return name

    def secret(self, name: str, source: Source) -> str:
        """The secret of DistCI that stands for another system's."""
        fit = re.sub(r"[^A-Za-z0-9_]", "_", name)
        fit = fit if NAME.fullmatch(fit) and not OWN.fullmatch(fit) else f"SECRET_{fit}"
        source.say(f"set the secret: distci secret set {fit} --project PROJECT")
        return fit


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name[: OWN_NAME_LENGTH_MAX - 4]} {number}"


DURATION = re.compile(r"(\d+)\s*(seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d|weeks?|w)?\b")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def duration(text: str) -> str:
    """``1h 30m``, ``90 minutes`` as DistCI writes it; empty where it is none."""
    found = DURATION.findall(text.replace(" and ", " "))
    if not found or DURATION.sub("", text.replace(" and ", " ")).strip():
        return ""
    return duration_of(sum(int(number) * SECONDS[unit[:1] or "s"] for number, unit in found))


def duration_of(seconds: int) -> str:
    for unit in "dhm":
        if seconds % SECONDS[unit] == 0 and seconds:
            return f"{seconds // SECONDS[unit]}{unit}"
    return f"{seconds}s" if 0 < seconds < 1_000_000 else ""


def combinations_task(combinations: Sequence[Mapping[str, str]], source: Source) -> dict[str, Json]:
    """A matrix of exactly these combinations: by axes where they are all that the axes span."""
    axes = {name: list(dict.fromkeys(item[name] for item in combinations)) for name in combinations[0]}
    spanned = 1
    for values in axes.values():
        spanned *= len(values)
    return {**axes} if spanned == len(combinations) else {"include": [dict(item) for item in combinations]}


def matrix_value(text: str, source: Source) -> str:
    """A value as matrices may have it."""
    fit = re.sub(r"[,\[\]\x00-\x1f]+", "-", text)[:100] or "-"
    if fit != text:
        source.say(f"the value is {fit!r} here: it becomes part of the task's name")
    return fit


def file_or_folder(path: str) -> list[str]:
    """Globs for a path that may be a file or a folder, of which all that is in it is meant."""
    if path.endswith("/"):
        return [f"{path}**"]
    last = path.rpartition("/")[2]
    if "." in last or re.search(r"[*?\[]", last):
        return [path]
    # In brackets: a folder that is looked for, where without them it would have to be one.
    return [path, f"{path[:-1]}[{path[-1]}]/**"]


def unique(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))
