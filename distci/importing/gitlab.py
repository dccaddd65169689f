"""``.gitlab-ci.yml``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any

from distci.importing.conditions import Alternative, glob_of
from distci.importing.draft import Draft, Task, combinations_task, duration, file_or_folder, matrix_value, unique
from distci.importing.reported import coverage, paths
from distci.importing.scripts import (
    DOLLAR,
    exports,
    joined,
    not_translated,
    own_variables,
    shell_of,
    tell_filled_in,
    variables_used,
)
from distci.importing.source import Source
from distci.model import Json

REFERENCE = "!reference"

DEFAULTS = (
    "after_script",
    "artifacts",
    "before_script",
    "cache",
    "hooks",
    "id_tokens",
    "image",
    "interruptible",
    "retry",
    "services",
    "tags",
    "timeout",
)
"""What ``default`` may say for all jobs; most of it may also stand at the top."""

GLOBAL = frozenset({"stages", "variables", "default", "include", "workflow", "spec", *DEFAULTS})
STAGES = ("build", "test", "deploy")

VARIABLES = {
    "CI_COMMIT_SHA": "$DISTCI_COMMIT",
    "CI_COMMIT_SHORT_SHA": "${DISTCI_COMMIT%${DISTCI_COMMIT#????????}}",
    "CI_COMMIT_BRANCH": '$(case "$DISTCI_REF" in refs/heads/*) echo "${DISTCI_REF#refs/heads/}" ;; esac)',
    "CI_COMMIT_REF_NAME": "${DISTCI_REF#refs/*/}",
    "CI_COMMIT_TAG": '$(case "$DISTCI_REF" in refs/tags/*) echo "${DISTCI_REF#refs/tags/}" ;; esac)',
    "CI_JOB_NAME": "$DISTCI_TASK",
    "CI_PIPELINE_ID": "$DISTCI_BUILD",
    "CI_PIPELINE_IID": "$DISTCI_BUILD",
    "CI_PIPELINE_SOURCE": '$(case "$DISTCI_EVENT" in "") echo web ;; tag) echo push ;; pull_request) echo merge_request_event ;; *) echo "$DISTCI_EVENT" ;; esac)',
    "CI_PIPELINE_URL": "$DISTCI_URL",
    "CI_PROJECT_DIR": "$DISTCI_WORKSPACE",
    "CI_BUILDS_DIR": "$DISTCI_WORKSPACE",
    "CI_MERGE_REQUEST_IID": "$DISTCI_PULL_REQUEST",
    "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": '$(test "$DISTCI_EVENT" != pull_request || echo "$DISTCI_BRANCH")',
}
"""Variables of GitLab by ours. A shell makes what it must of them, so not all are plain."""

SOURCES = {
    "push": "push",
    "merge_request_event": "pull_request",
    "web": "manual",
    "api": "manual",
    "trigger": "manual",
    "pipeline": "job",
    "schedule": "cron",
}
"""What starts a pipeline, as ``rules`` call it."""

ONLY = {
    "branches": "push",
    "pushes": "push",
    "tags": "tag",
    "merge_requests": "pull_request",
    "web": "manual",
    "api": "manual",
    "schedules": "cron",
    "triggers": "manual",
    "pipelines": "job",
}
"""The same, as ``only`` and ``except`` call it."""

COMPARED = re.compile(r"\$(\w+)\s*(==|!=|=~|!~)\s*(\"[^\"]*\"|'[^']*'|/(?:[^/\\]|\\.)*/|\$CI_DEFAULT_BRANCH|null)")
LIKE_A_SECRET = re.compile(r"(?:[A-Z0-9]+_)*(?:TOKEN|PASSWORD|PASSWD|SECRET|KEY|CREDENTIALS)")

SET = re.compile(r"\$(\w+)(?:\s*!=\s*(?:null|\"\"|''))?")


def translate(draft: Draft, include: Callable[[str], Source | None]) -> None:
    """Have the draft say what the file says. ``include`` reads a file of the same folder; None where there is none."""
    _File(draft, include).translate()


class _File:
    def __init__(self, draft: Draft, include: Callable[[str], Source | None]) -> None:
        self.draft = draft
        self._include = include
        self.parts = self._with_included(draft.root)
        self.tasks: dict[str, list[str]] = {}
        """What became of each job: the tasks that whoever needs it has to need."""
        self.expanded: dict[str, str] = {}
        self.events: set[str] = {"push", "tag"}

    def translate(self) -> None:
        draft, parts = self.draft, self.parts
        declared = parts["stages"].each() if "stages" in parts else []
        stages = {item.text(): draft.stage_name(item.text(), item) for item in declared} or {
            name: name for name in STAGES
        }
        self.stages = {".pre": "before", **stages, ".post": "after"}
        self._variables()
        checkout = draft.checkout(draft.task_name("checkout", draft.root), stage="checkout")
        jobs = {
            name: self._extended(job, (name,))
            for name, job in parts.items()
            if name not in GLOBAL and not name.startswith(".") and job.is_object
        }
        for name, job in jobs.items():
            self._job(name, job)
        self._not_of_merge_requests(jobs)
        self._workflow()
        used = {task["stage"] for task in draft.tasks}
        draft.stages = ["checkout", *(name for name in unique(self.stages.values()) if name in used)]
        for name, job in jobs.items():
            self._needs(name, job, checkout["name"])
        draft.tasks = [
            task
            for task in draft.tasks
            if not (task is checkout and all(other.get("needs") == [] for other in draft.tasks))
        ]
        self._global_notes()

    # The file as a whole

    def _with_included(self, root: Source, depth: int = 0) -> dict[str, Source]:
        found: dict[str, Source] = {}
        for item in root["include"].each():
            local = item["local"] if item.is_object else item
            if not local.is_text or (item.is_object and "local" not in item) or "://" in local.value:
                item.note("(dropped: nothing is fetched from elsewhere: put it into the file)")
                continue
            other = self._include(local.value) if depth < 10 else None
            if other is None:
                local.note(
                    "(dropped: there is no such file beside this one, or none that can be read: put it into this file)"
                )
                continue
            local.use()
            found = _merged(found, self._with_included(other, depth + 1))
        return _merged(found, dict(root.items()))

    def _extended(self, job: Source, names: tuple[str, ...]) -> Source:
        """A job over those that it extends."""
        base: dict[str, Source] = {}
        for parent in job["extends"].each():
            name = parent.text()
            if name not in self.parts or name in names:
                parent.say(f"there is no job {name!r} to extend, or it extends itself; dropped")
            else:
                base = _merged(base, dict(self._extended(self.parts[name], (*names, name)).items()))
        own = {key: part for key, part in job.items() if key != "extends"}
        return job.with_parts(_merged(base, own))

    def _variables(self) -> None:
        self.expanded = {}
        for name, item in self.parts["variables"].items() if "variables" in self.parts else ():
            if not self.draft.variable(name, item):
                continue
            if item.is_object and "description" in item:
                options = item["options"].texts()
                usual = item["value"].text()
                self.draft.parameters[name] = {
                    "default": usual,
                    "description": item["description"].text(),
                    **({"choices": options} if options else {}),
                }
                if options and usual not in options:
                    self.draft.parameters[name].pop("default")
                    item["value"].say("is none of its options: the first of them counts")
                continue
            self._variable(name, item, self.draft.environment, self.expanded)
        for name in ("GIT_DEPTH", "GIT_SUBMODULE_STRATEGY", "GIT_STRATEGY"):
            self.draft.environment.pop(name, None)

    def _variable(self, name: str, item: Source, plain: dict[str, str], expanded: dict[str, str]) -> None:
        """One variable: of the environment, or set by the script where its value names others."""
        value_of = item["value"] if item.is_object and "value" in item else item
        value = value_of.text()
        expands = item["expand"].truth(True) if item.is_object and "expand" in item else True
        computed = value.replace("$$", DOLLAR)
        if expands and variables_used(computed):
            expanded[name] = computed
        else:
            plain[name] = value.replace("$$", "$") if expands else value

    def _workflow(self) -> None:
        rules = self.parts["workflow"]["rules"] if "workflow" in self.parts else None
        if rules is None or not rules.is_there:
            events: list[str] = [name for name in ("push", "tag", "pull_request") if name in self.events]
            self.draft.triggers.append(self.draft.trigger("gitlab", events=events))
            return
        for rule in rules.each():
            found = self._rule(rule)
            if found is None:
                rule.note("(dropped: no trigger says this; write one)")
            for item in found or ():
                self._trigger(item, rule)

    def _trigger(self, wanted: Alternative, rule: Source) -> None:
        if not wanted.runs:
            rule.note("(dropped: triggers say when a build is made, not when none is)")
            return
        events = [event for event in wanted.events or ("push", "tag") if event in ("push", "tag", "pull_request")]
        if len(events) < len(wanted.events):
            rule.say("is about builds that start otherwise, too; `distci build trigger` starts them")
        if events:
            trigger = self.draft.trigger("gitlab", events=events, branches=[*wanted.branches], paths=[*wanted.paths])
            self.draft.triggers.append(trigger)

    def _global_notes(self) -> None:
        if len(self.draft.tasks) > 2:
            self.draft.root.say(
                "a task begins with all files that its needs have left, not with their artifacts alone: "
                "where two of them wrote one path differently, it fails; have them write to different ones"
            )

    # One job

    def _job(self, name: str, job: Source) -> None:
        draft = self.draft
        parts = self._with_defaults(job)
        job = job.with_parts(parts)
        stage = job["stage"].text() or "test"
        if stage not in self.stages:
            job["stage"].say(f"there is no stage {stage!r}; {[*self.stages][1]!r} in its place")
            stage = [*self.stages][1]
        task: Task = {"name": draft.task_name(name, job), "type": "shell", "stage": self.stages[stage]}
        plain, expanded = self._own_variables(job)
        self._checkout(job, plain)
        self._matrix(job, task, plain)
        self._image(job, task, plain)
        task["labels"] = [self._label(item) for item in job["tags"].each()]
        task["environment"] = plain
        task["secrets"] = [draft.secret(key, item) for key, item in job["secrets"].items()]
        self._limits(job, task)
        if "trigger" in job:
            task = self._call(job["trigger"], task)
        else:
            outer = {key: value for key, value in self.expanded.items() if key not in plain}
            task["script"] = self._script(job, {**outer, **expanded})
            task["shell"] = shell_of(task["script"])
            if task["shell"]:
                job["script"].say(f"runs in `{task['shell']}`, since sh does not know all that is in it")
            tell_filled_in(task["script"], _axes(task), job["script"])
            task["secrets"] += self._settings(task["script"], job, {*self.draft.environment, *plain, *outer, *expanded})
            self._reports(job, task)
        first = task["name"]
        when = self._when(job, task)
        if when == "manual":
            first = self._approval(job, task)
        draft.tasks.append(task)
        self.tasks[name] = [first, task["name"]]
        self._publish(job, task)

    def _with_defaults(self, job: Source) -> dict[str, Source]:
        parts = dict(job.items())
        inherit = job["inherit"]["default"]
        wanted = inherit.texts() if inherit.is_list else [] if inherit.value is False else [*DEFAULTS]
        if inherit.is_there:
            inherit.use()
        default = self.parts.get("default")
        for key in wanted:
            if key in DEFAULTS and key not in parts:
                if default is not None and key in default:
                    parts[key] = default[key]
                elif key in self.parts:
                    parts[key] = self.parts[key]
        return parts

    def _own_variables(self, job: Source) -> tuple[dict[str, str], dict[str, str]]:
        plain: dict[str, str] = {}
        expanded: dict[str, str] = {}
        for name, item in job["variables"].items():
            if name in self.draft.parameters:
                item.note("(dropped: it is a parameter of the job here)")
            elif self.draft.variable(name, item):
                self._variable(name, item, plain, expanded)
        return plain, expanded

    def _checkout(self, job: Source, plain: dict[str, str]) -> None:
        """What variables say of the checkout, of which the job has one."""
        task = self.draft.tasks[0]
        for name, item in [
            *(self.parts["variables"].items() if "variables" in self.parts else ()),
            *job["variables"].items(),
        ]:
            value = item.text() if name.startswith("GIT_") and not item.is_object else ""
            if name == "GIT_DEPTH" and value.isdecimal() and int(value):
                task["depth"] = max(int(value), task.get("depth", 0))
            elif name == "GIT_SUBMODULE_STRATEGY" and value in ("normal", "recursive"):
                task["submodules"] = True
            elif name in ("GIT_STRATEGY", "GIT_SUBMODULE_STRATEGY", "GIT_DEPTH"):
                item.note("(dropped: all tasks share one checkout)")
            else:
                continue
            plain.pop(name, None)

    def _label(self, item: Source) -> str:
        text = item.text()
        fit = re.sub(r"[\s,~]+", "-", text)
        item.say(f"workers have to offer it: distci worker run shell --label {fit}")
        return fit or "none"

    def _image(self, job: Source, task: Task, plain: Mapping[str, str]) -> None:
        image = job["image"]
        name = image["name"] if image.is_object else image
        if not name.is_there:
            return
        text = name.text()
        values = {**self.draft.environment, **plain, **{axis: f"{{{axis}}}" for axis in _axes(task)}}
        text = re.sub(r"\$\{?(\w+)\}?", lambda found: values.get(found[1], found[0]), text)
        if "$" in text:
            name.say("no variables are filled in in images; write it out")
        task["isolation"] = self.draft.isolation(text, name)

    def _limits(self, job: Source, task: Task) -> None:
        timeout = job["timeout"]
        if timeout.is_there:
            task["timeout"] = duration(timeout.text())
            if not task["timeout"]:
                timeout.note("(dropped: it is no duration)")
        retry = job["retry"]
        times = retry["max"] if retry.is_object else retry
        task["retries"] = times.number() or None
        statuses = [number for item in retry["exit_codes"].each() if (number := item.number()) is not None]
        if statuses:
            task["retries"] = {"times": task["retries"] or 1, "exit_statuses": unique_numbers(statuses)}
        allowed = job["allow_failure"]
        if allowed.is_object:
            allowed["exit_codes"].note("(any exit status is allowed here)")
            task["allow_failure"] = True
        elif allowed.is_there:
            task["allow_failure"] = allowed.truth() or None
        group = job["resource_group"]
        if group.is_there:
            task["resources"] = [group.text()]

    def _matrix(self, job: Source, task: Task, plain: dict[str, str]) -> None:
        parallel = job["parallel"]
        if parallel.is_object:
            combinations = []
            for item in parallel["matrix"].each():
                axes = {
                    name: [matrix_value(value.text(), value) for value in values.each()]
                    for name, values in item.items()
                    if self.draft.variable(name, values)
                }
                combinations += [dict(zip(axes, chosen, strict=True)) for chosen in product(*axes.values()) if axes]
            every = unique(name for item in combinations for name in item)
            filled = [{name: item.get(name, "-") for name in every} for item in combinations]
            if filled != combinations:
                parallel.say("where a combination has no value for a variable it is '-' here, and was empty")
            if filled:
                task["matrix"] = combinations_task(
                    [dict(pairs) for pairs in dict.fromkeys(tuple(item.items()) for item in filled)], parallel
                )
        elif parallel.is_there:
            count = parallel.number() or 1
            task["matrix"] = {"CI_NODE_INDEX": [str(number) for number in range(1, min(count, 200) + 1)]}
            plain["CI_NODE_TOTAL"] = str(count)
        for name in task.get("matrix", {}):
            plain.pop(name, None)

    def _script(self, job: Source, expanded: Mapping[str, str]) -> str:
        lines = [*self._lines(job["before_script"]), *self._lines(job["script"])]
        after = list(self._lines(job["after_script"]))
        text = joined(*lines)
        if not lines:
            job.say("has no script")
            text = "true\n"
        if after:
            job["after_script"].say(
                "runs when the script has ended, however; not when its time was up, and without variables that the script has set"
            )
            # What comes of it changes nothing, as there.
            text = f"after() {{ (\nset +e\n{joined(*after)}) || true; }}\ntrap after EXIT\n{text}"
        known = own_variables(exports(expanded) + text, VARIABLES, job, "CI_", "GITLAB_")
        return known + exports(expanded) + text

    def _settings(self, script: str, job: Source, known: set[str]) -> list[str]:
        """Secrets that a script uses and that the file does not define: they are in the settings of its project."""
        found = []
        for name in variables_used(script):
            if name not in known and not name.startswith("CI_") and LIKE_A_SECRET.fullmatch(name):
                found.append(self.draft.secret(name, job["script"]))
        return found

    def _lines(self, source: Source, names: tuple[tuple[str, ...], ...] = ()) -> Iterator[str]:
        """The lines of a script, with those that it refers to."""
        if REFERENCE in source:
            path = source[REFERENCE].texts()
            found = self._at(path)
            if found is None or tuple(path) in names or len(names) > 20:
                source.say(f"there is nothing at {' '.join(path)}; dropped")
            else:
                yield from self._lines(found, (*names, tuple(path)))
        elif source.is_list:
            for item in source.each():
                yield from self._lines(item, names)
        elif source.is_there:
            yield source.text()

    def _at(self, path: list[str]) -> Source | None:
        found: Any = self.parts.get(path[0]) if path else None
        if found is not None and found.is_object:
            found = self._extended(found, (path[0],))
        for name in path[1:]:
            found = found[name] if found is not None and name in found else None
        part: Source | None = found
        return part

    def _call(self, source: Source, task: Task) -> Task:
        """A task that starts another project's pipeline."""
        project = source["project"] if source.is_object else source
        kept: Task = {key: task[key] for key in ("name", "stage", "matrix", "allow_failure") if key in task}
        if not project.is_text:
            source.note("(a pipeline of another file is not started: the task fails in its place)")
            return {**kept, "type": "shell", "script": not_translated("a child pipeline")}
        name = re.sub(r"[^A-Za-z0-9/._-]+", "-", project.text()).strip("/")
        strategy = source["strategy"].text()
        source.say(f"starts a build of the job {name} here, which may have to name this job's project in `started_by`")
        return {**kept, "type": "build", "job": name, **({} if strategy == "depend" else {"wait": False})}

    def _approval(self, job: Source, task: Task) -> str:
        """A task before the task, that waits for somebody."""
        name = self.draft.task_name(f"{task['name']} go", job.get("when", job))
        job["when"].say(
            "somebody has to let it pass, within 7 days: distci build approve; the build is not over until then"
        )
        self.draft.tasks.append(
            {
                "name": name,
                "type": "approval",
                "stage": task["stage"],
                "allow_failure": None,
                **({"if": task["if"]} if "if" in task else {}),
            }
        )
        return name

    def _reports(self, job: Source, task: Task) -> None:
        """What is read of what the script has printed and written."""
        wanted, junit = job["coverage"], job["artifacts"]["reports"]["junit"]
        found: dict[str, Json] = {}
        if wanted.is_there and (expression := coverage(wanted)):
            found["coverage"] = expression
        if junit.is_there and (globs := paths(junit, junit.texts())):
            found["junit"] = globs
        task["reports"] = found

    def _publish(self, job: Source, task: Task) -> None:
        artifacts = job["artifacts"]
        globs = unique(glob for item in artifacts["paths"].each() for glob in _path(item))
        if not globs:
            return
        name = self.draft.task_name(f"{task['name']} artifacts", artifacts)
        when = artifacts["when"].text() or "on_success"
        whens = {"on_success": "success", "on_failure": "failure", "always": "always"}
        if when not in whens:
            artifacts["when"].say(f"{when!r} is not known; always")
        found = {
            "name": name,
            "type": "publish-artifacts",
            "stage": task["stage"],
            "needs": [task["name"]],
            "when": whens.get(when, "always"),
            "paths": globs,
        }
        if found["when"] == "success":
            del found["when"]
        if "if" in task:
            found["if"] = task["if"]
        if "matrix" in task:
            artifacts.say("are published once, of all combinations together: have each write to paths of its own")
        found["allow_failure"] = task.get("allow_failure")
        self.draft.tasks.append({**found, "optional": True})
        artifacts["paths"].say("a path that matches nothing fails no task")

    # When a job runs

    def _when(self, job: Source, task: Task) -> str:
        rules = job["rules"]
        when = job["when"].text() or "on_success"
        if rules.is_there:
            when = self._rules(rules, task, when)
        elif "only" in job or "except" in job:
            self._only(job, task)
        whens = {"on_success": "", "on_failure": "failure", "always": "always", "manual": ""}
        if when == "delayed":
            job["when"].say("begins at once")
        elif when == "never":
            self.draft.undecided(task, job.get("when", rules))
        elif when not in whens:
            job["when"].note("(dropped: not known)")
        if whens.get(when):
            task["when"] = whens[when]
        return when

    def _rules(self, rules: Source, task: Task, usual: str) -> str:
        alternatives: list[Alternative] | None = []
        whens = []
        for rule in rules.each():
            for flat in rule.each() if rule.is_list else [rule]:
                if REFERENCE in flat:
                    flat.note("(rules of another job are not taken over)")
                    alternatives = None
                    continue
                found = self._rule(flat)
                when = flat["when"].text()
                if when and when != "never":
                    whens.append(when)
                if flat["allow_failure"].is_there:
                    task["allow_failure"] = flat["allow_failure"].truth() or None
                    flat["allow_failure"].say("is so in all builds here")
                if found is None:
                    flat.note("(cannot be translated)")
                    alternatives = None
                elif alternatives is not None:
                    alternatives += found
        when = whens[0] if whens else usual
        if len(set(whens)) > 1:
            rules.say(f"differ in `when`; {when!r} counts for all builds")
        if alternatives is None:
            self.draft.undecided(task, rules)
        else:
            for item in alternatives:
                self.events |= {*item.events} & {"pull_request"}
            self.draft.kept_to(task, alternatives, rules)
        return when

    def _rule(self, rule: Source) -> list[Alternative] | None:
        """What a rule is about; None where it says what no filter says."""
        found: list[tuple[tuple[str, ...], tuple[str, ...]]] = [((), ())]
        if "if" in rule:
            parts = [self._expression(part) for part in rule["if"].text().split("||")]
            if None in parts:
                return None
            found = [part for part in parts if part is not None]
        changes = rule["changes"]
        paths = changes["paths"] if changes.is_object else changes
        globs = tuple(_glob(item.text()) for item in paths.each())
        if "exists" in rule:
            return None
        runs = rule["when"].text() != "never"
        return [Alternative(events, branches, globs, runs) for events, branches in found]

    def _expression(self, text: str) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        """Events and branches of comparisons that all have to hold; None where they say more."""
        events: list[str] | None = None
        branches: list[str] = []
        for part in text.split("&&"):
            found = self._comparison(part.strip(" ()"))
            if found is None or (found[1] and branches):
                return None
            both = found[0] if events is None else [name for name in events if name in found[0]]
            if not both:
                return None
            events, branches = both, branches or found[1]
        return tuple(events or ()), tuple(branches)

    def _comparison(self, text: str) -> tuple[list[str], list[str]] | None:
        if (match := SET.fullmatch(text)) is not None:
            known = {
                "CI_COMMIT_BRANCH": ["push", "manual", "cron"],
                "CI_COMMIT_TAG": ["tag"],
                "CI_MERGE_REQUEST_ID": ["pull_request"],
                "CI_MERGE_REQUEST_IID": ["pull_request"],
            }
            return (known[match[1]], []) if match[1] in known else None
        match = COMPARED.fullmatch(text)
        if match is None:
            return None
        name, operator, wanted = match.groups()
        value = wanted[1:-1]
        if name == "CI_PIPELINE_SOURCE" and operator == "==" and value in SOURCES:
            return [SOURCES[value]], []
        if name in ("CI_COMMIT_BRANCH", "CI_COMMIT_REF_NAME", "CI_MERGE_REQUEST_TARGET_BRANCH_NAME"):
            events = ["pull_request"] if name.startswith("CI_MERGE") else ["push", "manual", "cron"]
            if operator == "==" and wanted == "$CI_DEFAULT_BRANCH":
                self.draft.root.say("the default branch is taken to be 'main'")
                return events, ["main"]
            if operator == "==" and wanted != "null":
                return events, [value]
            if operator == "=~" and (glob := glob_of(value)) is not None:
                return events, [glob]
        return None

    def _only(self, job: Source, task: Task) -> None:
        only, unwanted = job["only"], job["except"]
        alternatives: list[Alternative] = []
        for source, runs in ((unwanted, False), (only, True)):
            refs = source["refs"] if source.is_object else source
            paths = tuple(_glob(item.text()) for item in source["changes"].each())
            for key in ("variables", "kubernetes"):
                if key in source:
                    source[key].note("(no `if` says this)")
                    self.draft.undecided(task, source)
                    return
            found = [self._ref(item, paths, runs) for item in refs.each()]
            if not found and paths:
                found = [Alternative(paths=paths, runs=runs)]
            if None in found:
                self.draft.undecided(task, source)
                return
            alternatives += [item for item in found if item is not None]
        if not only.is_there:
            alternatives.append(Alternative(events=("push", "tag", "manual", "cron")))
        for item in alternatives:
            self.events |= {*item.events} & {"pull_request"}
        self.draft.kept_to(task, alternatives, only if only.is_there else unwanted)

    def _ref(self, item: Source, paths: tuple[str, ...], runs: bool) -> Alternative | None:
        text = item.text()
        if text in ONLY:
            return Alternative(events=(ONLY[text],), paths=paths, runs=runs)
        if text.startswith("/"):
            glob = glob_of(text.strip("/").removesuffix("/i"))
            return Alternative(events=("push", "manual"), branches=(glob,), paths=paths, runs=runs) if glob else None
        return (
            Alternative(events=("push", "manual"), branches=(text,), paths=paths, runs=runs)
            if "@" not in text
            else None
        )

    def _not_of_merge_requests(self, jobs: Mapping[str, Source]) -> None:
        """Jobs without rules are for branches and tags alone, where others have pipelines made for merge requests."""
        if "pull_request" not in self.events or "workflow" in self.parts:
            return
        for name, job in jobs.items():
            if not {"rules", "only", "except"} & dict(job.items()).keys():
                for task in map(self._by_name, unique(self.tasks[name])):
                    task["if"] = {"events": ["push", "tag", "manual", "cron"]}

    # What a job needs

    def _needs(self, name: str, job: Source, checkout: str) -> None:
        if "needs" not in job:
            if (
                self._by_name(self.tasks[name][1]).get("type") != "approval"
                and self.tasks[name][0] != self.tasks[name][1]
            ):
                self._by_name(self.tasks[name][1])["needs"] = [self.tasks[name][0]]
            return
        needs = []
        for item in job["needs"].each():
            other = item["job"] if item.is_object else item
            wanted = other.text()
            if item.is_object and "optional" in item:
                item["optional"].note("(a need that is left out leaves this task out, too, here)")
            if item.is_object and item["artifacts"].value is not None and not item["artifacts"].truth(True):
                item["artifacts"].say("the files come along all the same")
            if wanted in self.tasks:
                needs.append(self.tasks[wanted][1])
            elif wanted:
                other.say(f"there is no job {wanted!r} in this file; dropped")
        first, last = self.tasks[name]
        self._by_name(first)["needs"] = unique(needs) or [checkout]
        if first != last:
            self._by_name(last)["needs"] = [first]

    def _by_name(self, name: str) -> Task:
        return next(task for task in self.draft.tasks if task["name"] == name)


def unique_numbers(numbers: list[int]) -> list[int]:
    return list(dict.fromkeys(number for number in numbers if 0 < number < 256)) or [1]


def _merged(base: Mapping[str, Source], over: Mapping[str, Source]) -> dict[str, Source]:
    """Objects within each other are merged, too; lists are not."""
    found = dict(base)
    for key, part in over.items():
        before = found.get(key)
        if before is not None and before.is_object and part.is_object and REFERENCE not in part:
            part = part.with_parts(_merged(dict(before.items()), dict(part.items())))
        found[key] = part
    return found


def _axes(task: Task) -> set[str]:
    matrix = task.get("matrix", {})
    return {axis for item in [matrix, *matrix.get("include", ())] for axis in item} - {"include"}


def _path(item: Source) -> list[str]:
    """Globs for a path of artifacts."""
    text = item.text()
    fit = text.removeprefix("./")
    if fit.startswith(("/", "-")) or ".." in fit.split("/") or "$" in fit or not fit:
        item.say("is no path within the workspace, or has variables, which are not filled in: write it out")
        fit = re.sub(r"[^A-Za-z0-9._*/-]+", "-", fit).strip("/-").replace("..", "-") or "nothing"
    return file_or_folder(fit)


def _glob(text: str) -> str:
    """A glob in which ``*`` stands for slashes too."""
    return text.replace("**/*", "*").replace("**", "*")
