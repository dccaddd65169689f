"""Scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from distci.model import Outcome, Task, Verdict
from distci.work import TaskContext
from distci_workers.git_checkout import read_file
from distci_workers.git_program import GitFailed

SHELL = ("/bin/sh", "-e")


class ShellWorker:
    """Runs a script in the workspace; its exit status is the outcome.

    Where the task has ``reports``, what they tell is part of it. The script runs under ``sh -e``, under the interpreter of its own ``#!`` line, or under what ``shell`` names.
    """

    kind = "shell"

    def perform(self, task: Task, context: TaskContext) -> Outcome:
        directory = context.inside(task.arguments.get("directory", ""))
        named = task.arguments.get("script_from")
        try:
            script = _fetched(named, task, context) if named else str(task.arguments["script"])
        except GitFailed as failed:
            return failed.outcome
        path = context.script(script)
        shell: str = task.arguments.get("shell", "")
        if shell:
            argv = [*shell.split(), str(path)]
        elif script.startswith("#!"):
            argv = [*_interpreter(script), str(path)]
        else:
            argv = [*SHELL, str(path)]
        caches: Sequence[Mapping[str, Any]] = task.arguments.get("caches", ())
        for cache in caches:
            context.caches.lend(cache)
        outcome = context.reported(context.outcome_of(context.run(argv, directory)))
        if outcome.verdict is Verdict.PASSED:
            for cache in caches:
                context.caches.keep(cache)
        emits: str = task.arguments.get("emits", "")
        if not emits or outcome.verdict is not Verdict.PASSED:
            return outcome
        return replace(outcome, details={**outcome.details, "tasks": context.definition_in(emits), "tasks_of": emits})


def _fetched(named: Mapping[str, str], task: Task, context: TaskContext) -> str:
    """The script that another repository has at a pinned commit."""
    where = {**named, "ref": named["commit"]}
    credentials = {"credentials": task.arguments["credentials"]} if "credentials" in task.arguments else {}
    return read_file(context, where | credentials, named["path"])[2]


def _interpreter(script: str) -> Sequence[str]:
    """What a script's first line names: a program, and all that follows as one argument, as execve(2) has it.

    The kernel is not asked to do this: it refuses to run a file as long as any process has it open for writing, which a
    process that another thread is just starting may have.
    """
    return script.partition("\n")[0].removeprefix("#!").strip().split(maxsplit=1)
