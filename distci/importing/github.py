"""Workflow files of GitHub Actions: ``.github/workflows/*.yml``.

A job is one task with one script, made of its steps; before it comes the checkout, after it what it uploads, and the steps that are for
failures or for whatever has happened.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from itertools import product
from typing import Any

from distci.importing.conditions import Alternative, Condition, condition
from distci.importing.draft import Draft, Task, combinations_task, duration_of, file_or_folder, matrix_value, unique
from distci.importing.expressions import EXPRESSION, as_test, axis, filled
from distci.importing.reported import is_reporter, reports_of
from distci.importing.scripts import (
    DOLLAR,
    exports,
    in_a_file,
    joined,
    not_translated,
    own_variables,
    tell_filled_in,
    variables_used,
)
from distci.importing.source import Source
from distci.model import Json

VARIABLES = {
    "GITHUB_SHA": "$DISTCI_COMMIT",
    "GITHUB_REF": "$DISTCI_REF",
    "GITHUB_REF_NAME": "${DISTCI_REF#refs/*/}",
    "GITHUB_BASE_REF": "$DISTCI_BRANCH",
    "GITHUB_EVENT_NAME": '$(case "$DISTCI_EVENT" in "") echo workflow_dispatch ;; tag) echo push ;; *) echo "$DISTCI_EVENT" ;; esac)',
    "GITHUB_RUN_ID": "$DISTCI_BUILD",
    "GITHUB_RUN_NUMBER": "$DISTCI_BUILD",
    "GITHUB_RUN_ATTEMPT": "$DISTCI_ATTEMPT",
    "GITHUB_JOB": "$DISTCI_TASK",
    "GITHUB_WORKSPACE": "$DISTCI_WORKSPACE",
    "RUNNER_OS": "Linux",
    "RUNNER_TEMP": "/tmp",
}
"""Variables of GitHub by ours."""

SHELLS = {"bash": "bash -e -o pipefail", "sh": "sh -e"}
USUAL_SHELL = "bash -e"

HARMLESS = re.compile(r"actions/(cache|setup-[a-z-]+|download-artifact)(/[a-z]+)?@.*")
"""Actions without which a script may do, where its worker or image has what they bring."""

CHECKOUT = {"ref": "ref", "path": "directory", "repository": "repository"}

STATUS = re.compile(r"(success|failure|always|cancelled)\(\)")

WHENS = {"failure": "failure", "always": "always"}

ANNOTATING = re.compile(r"::(error|warning|notice) [^\n]*?file=")
ANNOTATION = r"^::(?P<level>error|warning|notice) (?:[^:]*,)?file=(?P<file>[^,:]+)(?:[^:]*,line=(?P<line>\d+))?[^:]*::(?P<text>.+)"
"""Lines that speak of a file, as workflows print them."""

MATRIX_MAX = 200


def translate(draft: Draft) -> None:
    """Have the draft say what the file says."""
    _File(draft).translate()


class _File:
    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.ends: dict[str, list[str]] = {}
        """What each job needs to have ended: its tasks."""
        self.checkouts: dict[str, Task] = {}

    def translate(self) -> None:
        draft, root = self.draft, self.draft.root
        draft.description = root["name"].text() if "name" in root else ""
        self._triggers(root["on"])
        env = dict(self._environment(root["env"]))
        draft.environment, _ = self._split(env)
        self.env = {name: value for name, value in env.items() if "$" in value}
        if root["concurrency"].is_there:
            draft.concurrency = self._concurrency(root["concurrency"])
        root["permissions"].note("(nobody gets a token of the repository here)")
        jobs = dict(root["jobs"].items())
        names = {name: draft.task_name(name, job) for name, job in jobs.items()}
        for name in self._in_order(jobs):
            self._job(name, names[name], jobs[name], root["defaults"]["run"])
        if any("needs" in job for job in jobs.values()):
            root["jobs"].say(
                "a task begins with all files that its needs have left, where jobs began with none: "
                "two that wrote one path differently cannot both be needed"
            )

    def _in_order(self, jobs: Mapping[str, Source]) -> list[str]:
        """Jobs behind those that they need; those of a circle as they stand."""
        left = list(jobs)
        order: list[str] = []
        while left:
            free = [
                name
                for name in left
                if not {item.value for item in jobs[name]["needs"].each() if item.is_text} & {*left}
            ]
            order += free or left
            left = [name for name in left if name not in order]
        return order

    # What starts a build

    def _triggers(self, on: Source) -> None:
        entries = (
            [(item.text(), Source(item.file, item.notes, item.place, None)) for item in on.each()]
            if not on.is_object
            else list(on.items())
        )
        for name, item in entries:
            if name in ("push", "pull_request"):
                self._trigger(name, item)
            elif name == "schedule":
                for entry in item.each():
                    self.draft.triggers.append({"type": "cron", "schedule": entry["cron"].text()})
                    entry["timezone"].note("(dropped)")
            elif name in ("workflow_dispatch", "workflow_call"):
                self._inputs(item["inputs"])
                if not item.is_there:
                    item.use()
            else:
                item.note("(dropped: nothing here starts a build for it)")

    def _trigger(self, event: str, item: Source) -> None:
        more: dict[str, Any] = {}
        for key, part in item.items():
            if key in ("branches", "tags"):
                more[key] = [_branch(glob) for glob in part.each()]
            elif key == "paths":
                more[key] = [_path_glob(glob.text()) for glob in part.each()]
            elif key == "types" and event == "pull_request":
                part.note("(builds are made when one is opened, reopened, or gets commits)")
            else:
                part.note("(dropped: triggers say for what a build is made, not for what none is)")
        negative = [glob for globs in more.values() for glob in globs if glob.startswith("!")]
        if negative:
            item.say(f"{', '.join(negative)}: dropped: triggers say for what a build is made, not for what none is")
            more = {key: [glob for glob in globs if not glob.startswith("!")] for key, globs in more.items()}
        if not item.is_there:
            item.use()
        if event == "pull_request":
            self.draft.triggers.append(self.draft.trigger("github", events=["pull_request"], **more))
            return
        branches, tags, paths = (more.get(key, []) for key in ("branches", "tags", "paths"))
        if branches or not tags:
            self.draft.triggers.append(self.draft.trigger("github", events=["push"], branches=branches, paths=paths))
        if tags or not branches:
            self.draft.triggers.append(self.draft.trigger("github", events=["tag"], tags=tags))

    def _inputs(self, inputs: Source) -> None:
        for name, item in inputs.items():
            if axis(name) != name:
                item.say(f"the parameter is called {axis(name)} here")
            kind = item["type"].text()
            options = item["options"].texts()
            found: dict[str, Any] = {
                "description": item["description"].text(),
                "default": item["default"].text(),
                "choices": options,
            }
            if kind == "boolean":
                found["type"] = "boolean"
            elif kind == "number":
                item["type"].say("a number may be any text here")
            elif kind not in ("", "string", "choice"):
                item["type"].say("is a text here")
            if item["required"].truth() and not found["default"]:
                found["required"] = True
            if found["default"] and options and found["default"] not in options:
                item["default"].say("is none of its options; dropped")
                found["default"] = ""
            self.draft.parameters[axis(name)] = {key: value for key, value in found.items() if value}

    def _concurrency(self, source: Source) -> dict[str, Any]:
        group = source["group"] if source.is_object else source
        text = group.text()
        found: dict[str, Any] = {}
        if EXPRESSION.search(text):
            group.note("(groups have no expressions: the job's own group in its place, whatever the branch)")
        else:
            found["group"] = text[:100]
        cancels = (
            source["cancel-in-progress"] if source.is_object else Source(source.file, source.notes, source.place, None)
        )
        if EXPRESSION.search(str(cancels.value)):
            cancels.note("(taken as true)")
            return {**found, "policy": "cancel-old"}
        return {**found, "policy": "cancel-old" if cancels.is_there and cancels.truth() else "keep-latest"}

    # One job

    def _job(self, name: str, task_name: str, job: Source, defaults: Source) -> None:
        draft = self.draft
        task: Task = {"name": task_name, "type": "shell"}
        if job["name"].is_there:
            task["description"] = " ".join(filled(job["name"].text(), str)[0].split())
        needs = self._needs(job)
        matrix = self._matrix(job["strategy"], task)
        task["labels"] = self._labels(job["runs-on"], matrix)
        container = job["container"]
        image = container["image"] if container.is_object else container
        if image.is_there:
            task["isolation"] = draft.isolation(self._text(image), image)
        own = {**self.env, **dict(self._environment(job["env"])), **dict(self._environment(container["env"]))}
        secrets: list[str] = []
        task["environment"], lines = self._split(own)
        job["permissions"].note("(nobody gets a token of the repository here)")
        for _, service in job["services"].items():
            service.note("(not started: start it in the script, or have the worker offer it)")
        self._limits(job, task)
        steps = [step for step in job["steps"].each() if not is_reporter(step)]
        if "uses" in job:
            job["uses"].note("(a workflow elsewhere, is not run: the task fails until a script does what it did)")
            job["with"].note("(dropped with it)")
            job["secrets"].note("(dropped with it)")
        checkouts = [
            self._checkout(step, number)
            for number, step in enumerate(steps)
            if str(step["uses"].value).startswith("actions/checkout@")
        ]
        run_defaults = {**dict(defaults.items()), **dict(job["defaults"]["run"].items())}
        inner = [step for step in steps if not self._is_after(step, bool(matrix))]
        script, shell = self._script(inner, run_defaults, task, secrets)
        if "uses" in job:
            script = not_translated(f"the workflow {job['uses'].value}")
        if not script:
            job.say("has no step that runs anything")
            script = "true\n"
        task["script"] = self._with_variables(lines + script)
        task["reports"] = self._reports(job)
        if shell not in ("sh -e", ""):
            task["shell"] = shell
        secrets += self._secrets_of(own)
        has_source = self._brought(needs)
        task["needs"] = unique([*needs, *(checkout for checkout in checkouts if checkout not in has_source)])
        self._condition(job["if"], task)
        task["secrets"] = unique(secrets)
        draft.tasks.append(task)
        self.ends[name] = [task_name, *self._after(steps, task, lines, run_defaults, secrets)]

    def _reports(self, job: Source) -> dict[str, Json]:
        """What is read of what the steps have printed and written."""
        found: dict[str, Json] = {}
        junit: list[str] = []
        for step in filter(is_reporter, job["steps"].each()):
            told = reports_of(step)
            junit = unique([*junit, *told.get("junit", [])])
            found |= {**told, "junit": junit} if junit else {}
        annotating = [step["run"] for step in job["steps"].each() if ANNOTATING.search(str(step["run"].value))]
        for run in annotating:
            run.say("what it prints as ::error file=...:: and the like is `reports.annotations` here")
        return {**found, **({"annotations": ANNOTATION} if annotating else {})}

    def _needs(self, job: Source) -> list[str]:
        needs = []
        for item in job["needs"].each():
            name = item.text()
            if name not in self.ends:
                item.say(f"there is no job {name!r}, or it needs this one; dropped")
            needs += self.ends.get(name, [])[:1]
        return needs

    def _brought(self, needs: list[str]) -> set[str]:
        """Tasks whose files come along with those of the needs."""
        by_name = {task["name"]: task for task in self.draft.tasks}
        found: set[str] = set()
        pending = list(needs)
        while pending:
            name = pending.pop()
            if name not in found:
                found.add(name)
                pending += by_name[name].get("needs", [])
        return found

    def _matrix(self, strategy: Source, task: Task) -> list[dict[str, str]]:
        strategy["fail-fast"].note("(all combinations run to their end)")
        most = strategy["max-parallel"].number()
        if most:
            task["resources"] = [{"name": task["name"], "limit": max(1, most)}]
        matrix = strategy["matrix"]
        if not matrix.is_there:
            return []
        if not matrix.is_object:
            matrix.note("(dropped: a matrix that is computed; let a task define the others, see `emits`)")
            return []
        axes: dict[str, list[Source]] = {}
        for name, part in matrix.items():
            if name in ("include", "exclude"):
                continue
            if part.is_list:
                axes[name] = part.each()
            else:
                part.note("(dropped: values that are computed; let a task define the others, see `emits`)")
        found = [dict(zip(axes, chosen, strict=True)) for chosen in product(*axes.values())] if axes else []
        combinations = [self._values(item) for item in found]
        for unwanted in matrix["exclude"].each():
            values = self._values(dict(unwanted.items()))
            combinations = [item for item in combinations if not values.items() <= item.items()]
        _include(combinations, {*axes}, [self._values(dict(more.items())) for more in matrix["include"].each()])
        every = unique(name for item in combinations for name in item)
        whole = [{axis(name): item.get(name, "-") for name in every} for item in combinations][:MATRIX_MAX]
        if any(name not in item for item in combinations for name in every):
            matrix.say("where a combination has no value for a name it is '-' here, and was empty")
        if len(combinations) > MATRIX_MAX:
            matrix.say(f"has more than {MATRIX_MAX} combinations; the others are dropped")
        whole = [dict(pairs) for pairs in dict.fromkeys(tuple(item.items()) for item in whole)]
        if whole:
            task["matrix"] = combinations_task(whole, matrix)
        return whole

    def _values(self, parts: Mapping[str, Source]) -> dict[str, str]:
        return {name: self._value(part) for name, part in parts.items()}

    def _value(self, item: Source) -> str:
        if item.is_object or item.is_list:
            item.say("is one text here")
            item.use()
            return matrix_value(re.sub(r"[^A-Za-z0-9._:-]+", "-", str(item.plain())), item)
        return matrix_value(item.text(), item)

    def _labels(self, source: Source, matrix: list[dict[str, str]]) -> list[str]:
        labels = []
        for item in (source["labels"] if source.is_object else source).each():
            text = self._text(item)
            if re.fullmatch(r"ubuntu-[a-z0-9.-]+|self-hosted|linux", text, re.IGNORECASE):
                item.note("(any worker takes it: say in `labels` which it needs)")
                continue
            label = re.sub(r"[\s,~]+", "-", text) or "none"
            item.say(f"workers have to offer it: distci worker run shell --label {label}")
            labels.append(label)
        return unique(labels)

    def _limits(self, job: Source, task: Task) -> None:
        minutes = job["timeout-minutes"]
        if minutes.is_there:
            number = minutes.number()
            task["timeout"] = duration_of(number * 60) if number else ""
        allowed = job["continue-on-error"]
        if EXPRESSION.search(str(allowed.value)):
            allowed.note("(dropped: a failure fails the build)")
        elif allowed.is_there:
            task["allow_failure"] = allowed.truth() or None
        if job["concurrency"].is_there:
            group = job["concurrency"]["group"] if job["concurrency"].is_object else job["concurrency"]
            text = group.text()
            if EXPRESSION.search(text):
                group.note("(names of resources have no expressions: the task's name in its place)")
                text = task["name"]
            task.setdefault("resources", []).append(text)

    # Conditions

    def _condition(self, source: Source, task: Task) -> None:
        if not source.is_there:
            return
        text = _bare(source.text())
        status = STATUS.findall(text)
        if status and re.fullmatch(r"!?\s*\w+\(\)", text):
            task["when"] = WHENS.get(status[0]) if not text.startswith("!") else "always"
            if task["when"] is None and status[0] == "cancelled":
                source.say("nothing runs only when a build is cancelled; it runs when all has passed")
            return
        text = re.sub(r"(?:always\(\)|success\(\)|!\s*cancelled\(\))\s*&&\s*", "", text)
        if status and text != _bare(str(source.value)):
            task["when"] = "always" if status[0] in ("always", "cancelled") else None
        found = _kept_to(text)
        if found.filter is not None:
            task["if"] = found.filter
            return
        test = as_test(text)
        if test is None:
            self.draft.undecided(task, source)
        else:
            script = f"if ! {{ {test}; }}; then echo 'Not for this build.'; exit 0; fi\n{task['script']}"
            task["script"] = self._with_variables(script)
            source.say("no `if` says this: in other builds the script ends at once, and the task has passed")

    # Steps

    def _is_after(self, step: Source, has_matrix: bool) -> bool:
        """Whether a step has a task of its own, since it runs after failures, or keeps files."""
        return (
            str(step["uses"].value).startswith(("actions/upload-artifact@", "actions/checkout@"))
            or _status_of(step) in WHENS
        )

    def _script(
        self, steps: list[Source], defaults: Mapping[str, Source], task: Task, secrets: list[str]
    ) -> tuple[str, str]:
        """One script for all steps, and the shell that runs it."""
        matrix = task.get("matrix", {})
        axes = {name for item in [matrix, *matrix.get("include", ())] for name in item}
        pieces: list[tuple[Source, str, str]] = []
        for step in steps:
            piece = self._step(step, defaults, axes, secrets)
            if piece is not None:
                pieces.append((step, *piece))
        shells = unique(shell for _, _, shell in pieces if shell)
        shell = shells[0] if shells else ""
        for step, _, other in pieces:
            if other and other != shell:
                step.say(f"runs in `{shell}`, not in `{other}`: all steps of a job are one script here")
        return joined(*(text for _, text, _ in pieces)), shell

    def _step(
        self, step: Source, defaults: Mapping[str, Source], axes: Collection[str], secrets: list[str]
    ) -> tuple[str, str] | None:
        """What a step is in a script, and the shell that it asks for."""
        title = " ".join(self._text(step["name"]).split()) if step["name"].is_there else ""
        head = f"# {title}\n" if title else ""
        if step["id"].is_there:
            step["id"].note("(outputs of steps are not there)")
        uses = step["uses"].text() if "uses" in step else ""
        if uses:
            return self._action(step, uses, head), ""
        if "run" not in step:
            step.say("runs nothing; dropped")
            return None
        env = dict(self._environment(step["env"]))
        secrets += self._secrets_of(env)
        body = exports(env) if env else ""
        directory = step["working-directory"] if "working-directory" in step else defaults.get("working-directory")
        if directory is not None and (where := self._text(directory)) not in ("", "."):
            body += f"cd {_shell_word(where)}\n"
        tell_filled_in(step["run"].text(), axes, step["run"])
        run = joined(self._text(step["run"], secrets))
        minutes = step["timeout-minutes"]
        minutes.note("(only whole tasks have a time limit)")
        shell = step["shell"] if "shell" in step else defaults.get("shell")
        wanted = shell.text() if shell is not None else ""
        own_variables(run, VARIABLES, step["run"], "GITHUB_", "RUNNER_", "ACTIONS_")
        command = SHELLS.get(wanted, USUAL_SHELL if not wanted else "")
        if not command:
            run = in_a_file({"python": "python3"}.get(wanted, wanted.replace("{0}", "").strip()), run)
        return self._guarded(step, f"{head}(\n{body}{run})\n"), command

    def _guarded(self, step: Source, text: str) -> str:
        """A step that runs under a condition, or may fail."""
        allowed = step["continue-on-error"]
        if allowed.is_there and allowed.truth():
            # Behind `||` no shell would stop at the first failure in the step.
            stopping = text.replace("(\n", "(\nset -e\n", 1)
            text = f"set +e\n{stopping}set -e\n"
        found = step["if"]
        if not found.is_there:
            return text
        if _status_of(step) in WHENS:
            # Its task says so itself.
            found.use()
            return text
        if re.search(r"always\(\)\s*&&", found.text()):
            found.say("always() is left out: the step runs when all before it in its job have passed")
        condition_text = re.sub(r"(?:success\(\)|always\(\))\s*&&\s*", "", _bare(found.text()))
        if condition_text in ("success()",):
            return text
        test = as_test(condition_text)
        if test is None:
            found.say(f"{found.shown()}(no test of a shell says this: the script fails there until you write one)")
            return text.rstrip() and f"{not_translated(f'the condition {condition_text}')}{text}"
        return f"if {test}; then\n{text}fi\n"

    def _action(self, step: Source, uses: str, head: str) -> str:
        given = step["with"]
        if HARMLESS.fullmatch(uses):
            why = (
                "files come along from tasks that are needed"
                if "download-artifact" in uses
                else "the worker, or its image, has to have what it brings"
            )
            step["uses"].note(f"(not run: {why})")
            given.note("(dropped with it)")
            step["env"].note("(dropped with it)")
            step["if"].note("(dropped with it)")
            for key in ("continue-on-error", "timeout-minutes"):
                step[key].note("(dropped with it)")
            return f"{head}# was: {uses}\n"
        step["uses"].note("(actions are not run: the script fails there until it does itself what this did)")
        given.note("(dropped with it)")
        step["env"].note("(dropped with it)")
        return self._guarded(step, f"{head}(\n{not_translated(f'the action {uses}')})\n")

    def _checkout(self, step: Source, number: int) -> str:
        """The task that checks out what a step does; one for all steps that say the same."""
        step["uses"].use()
        step["name"].use()
        step["id"].note("(outputs of steps are not there)")
        for key in ("if", "env", "continue-on-error", "timeout-minutes"):
            step[key].note("(dropped: all that is checked out is, always)")
        more: dict[str, Any] = {}
        for key, item in step["with"].items():
            text = item.text()
            if EXPRESSION.search(text):
                item.note("(dropped: the build's own commit is checked out)")
            elif key == "repository" and re.fullmatch(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+", text):
                more["repository"] = f"https://github.com/{text}.git"
            elif key == "fetch-depth" and text.isdecimal():
                more |= {"depth": int(text)} if int(text) else {}
            elif key in ("submodules", "lfs") and text in ("true", "recursive", "false"):
                more |= {key: True} if text != "false" else {}
            elif key == "ref" and text and not text.startswith("-") and " " not in text:
                more["ref"] = text
            elif key == "path" and text and not text.startswith(("/", "-")) and ".." not in text.split("/"):
                more["directory"] = text
            else:
                item.note("(dropped)")
        known = str(sorted(more.items()))
        if known not in self.checkouts:
            self.checkouts[known] = self.draft.checkout(self.draft.task_name("checkout", step), **more)
        return str(self.checkouts[known]["name"])

    def _after(
        self,
        steps: list[Source],
        task: Task,
        lines: str,
        defaults: Mapping[str, Source],
        secrets: list[str],
    ) -> list[str]:
        """Tasks for the steps of a job that come after its script, whose names are told."""
        names = []
        for step in steps:
            uses = str(step["uses"].value)
            status = _status_of(step)
            if uses.startswith("actions/upload-artifact@"):
                made = self._upload(step, task, status)
            elif status in WHENS and not uses.startswith("actions/checkout@"):
                own: list[str] = []
                script, shell = self._script([step], defaults, task, own)
                step["if"].use()
                made = {
                    "type": "shell",
                    "script": self._with_variables(lines + (script or "true\n")),
                    "secrets": unique([*secrets, *own]),
                    "environment": dict(task["environment"]),
                }
                made |= {"shell": shell} if shell not in ("", "sh -e") else {}
                made["name"] = self.draft.task_name(f"{task['name']} {step['name'].text() or status}", step)
            else:
                continue
            if "matrix" in task:
                step.say(
                    "runs once, behind all combinations, with the files of all: have each write to paths of its own"
                )
            made |= {"needs": [task["name"]], **({"if": task["if"]} if "if" in task else {})}
            made |= {"when": WHENS[status]} if status in WHENS else {}
            self.draft.tasks.append(made)
            names.append(made["name"])
        return names

    def _upload(self, step: Source, task: Task, status: str) -> Task:
        step["uses"].use()
        given = step["with"]
        paths = []
        for line in given["path"].text().splitlines():
            fit = self._artifact_path(line.strip(), given["path"])
            paths += file_or_folder(fit) if fit else []
        name = given["name"].text() or (step["name"].text() if "name" in step else "")
        if step["name"].is_there:
            step["name"].use()
        if EXPRESSION.search(name):
            given["name"].say("names of artifacts are their paths here")
        if "if" in step and status not in WHENS:
            step["if"].note("(dropped: they are kept whenever the task has passed)")
        elif "if" in step:
            step["if"].use()
        fallback = given["if-no-files-found"].text()
        made: Task = {
            "name": self.draft.task_name(f"{task['name']} {EXPRESSION.sub('', name) or 'artifacts'}", step),
            "type": "publish-artifacts",
            "paths": unique(paths) or ["nothing"],
        }
        if fallback != "error":
            made["optional"] = True
        return made

    def _artifact_path(self, text: str, source: Source) -> str:
        if not text:
            return ""
        fit = text.removeprefix("./")
        if fit.startswith(("/", "-", "!", "~")) or ".." in fit.split("/") or "$" in fit:
            source.say(f"{text!r} is no path within the workspace, or is computed; dropped: write it out")
            return ""
        return fit

    # Texts

    def _environment(self, source: Source) -> Iterator[tuple[str, str]]:
        """Variables, with what their expressions stand for."""
        for name, item in source.items():
            if self.draft.variable(name, item):
                # What is no expression is no variable either.
                own = "".join(
                    part if EXPRESSION.fullmatch(part) else part.replace("$", DOLLAR)
                    for part in re.split(r"(\$\{\{.*?\}\})", item.text(), flags=re.DOTALL)
                )
                text, left = filled(own, lambda secret, item=item: self.draft.secret(secret, item))  # type: ignore[misc]
                self._tell_left(left, item)
                yield name, text

    def _with_variables(self, script: str) -> str:
        """A script behind the variables of GitHub that it uses; which of them are not there has been told of each step."""
        missing = [name for name in variables_used(script) if f"export {name}=" not in script]
        return own_variables(" ".join(f"${name}" for name in missing), VARIABLES, self.draft.root) + script

    def _split(self, variables: Mapping[str, str]) -> tuple[dict[str, str], str]:
        """What goes into a task's environment, and lines for what names other variables."""
        plain = {name: value.replace(DOLLAR, "$") for name, value in variables.items() if "$" not in value}
        lines = {name: value for name, value in variables.items() if "$" in value and value != f"${{{name}}}"}
        return plain, exports(lines)

    def _secrets_of(self, variables: Mapping[str, str]) -> list[str]:
        named = {name for value in variables.values() for name in re.findall(r"\$\{(\w+)\}", value)}
        return [name for name in sorted(named) if name in self._secrets]

    @property
    def _secrets(self) -> set[str]:
        """Names that an expression `secrets.NAME` stands for anywhere in the file."""
        text = str(self.draft.root.plain())
        found = set()
        for name in re.findall(r"secrets\.(\w+)", text):
            fit = re.sub(r"[^A-Za-z0-9_]", "_", name)
            found |= {fit, f"SECRET_{fit}"}
        return found

    def _text(self, source: Source, secrets: list[str] | None = None) -> str:
        """A text with its expressions translated; those that cannot be are told and stay."""

        def secret(name: str) -> str:
            fit = self.draft.secret(name, source)
            if secrets is not None:
                secrets.append(fit)
            return fit

        text, left = filled(source.text(), secret)
        self._tell_left(left, source)
        return text

    def _tell_left(self, left: list[str], source: Source) -> None:
        for expression in unique(left):
            source.say(
                f"{' '.join(expression.split())} has no counterpart here, and stays as it is: write what it stands for"
            )


def _include(combinations: list[dict[str, str]], axes: set[str], further: list[dict[str, str]]) -> None:
    """As GitHub has it: what contradicts no axis of a combination is added to it; what fits none is a combination of its own."""
    spanned = [*combinations]
    for values in further:
        fitting = [item for item in spanned if all(item[name] == values[name] for name in axes & {*values})]
        for item in fitting:
            item |= values
        if values and not fitting:
            combinations.append(values)


def _bare(text: str) -> str:
    """A condition without the ``${{ }}`` that it may stand in."""
    match = EXPRESSION.fullmatch(text.strip())
    return " ".join((match[1] if match else text).split())


def _status_of(step: Source) -> str:
    found = re.fullmatch(r"(\w+)\(\)", _bare(str(step["if"].value or "")))
    return found[1] if found else ""


def _kept_to(text: str) -> Condition:
    """The filter that says the same as a condition; none where there is none."""
    alternatives = []
    for part in re.split(r"\s*\|\|\s*", text):
        found = _alternative(part)
        if found is None:
            return Condition()
        alternatives.append(found)
    made = condition(alternatives)
    return made if made.filter is not None else Condition()


def _alternative(text: str) -> Alternative | None:
    events: tuple[str, ...] = ()
    branches: tuple[str, ...] = ()
    for part in re.split(r"\s*&&\s*", text):
        if match := re.fullmatch(r"github\.ref(_name)? == '(?:refs/heads/)?([^']+)'", part):
            if (not match[1] and "refs/heads/" not in part) or branches:
                return None
            branches = (match[2],)
        elif match := re.fullmatch(r"github\.event_name == '(push|pull_request|workflow_dispatch)'", part):
            events = {"push": ("push", "tag"), "workflow_dispatch": ("manual",)}.get(match[1], (match[1],))
        elif re.fullmatch(r"startsWith\(github\.ref, ?'refs/tags/'\)", part):
            events = ("tag",)
        elif match := re.fullmatch(r"startsWith\(github\.ref, ?'refs/heads/([^']*)'\)", part):
            branches = (f"{match[1]}*",)
        else:
            return None
    # A tag that is pushed is a push there, and an event of its own here.
    return Alternative(events or (("push", "manual", "cron") if branches else ()), branches)


def _branch(item: Source) -> str:
    text = item.text()
    return text.replace("**", "*")


def _path_glob(text: str) -> str:
    return text.replace("**/*", "*").replace("**", "*")


def _shell_word(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z0-9._/${}-]+", text) else "'" + text.replace("'", "'\\''") + "'"
