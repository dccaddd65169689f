"""Scripts."""

from __future__ import annotations

from distci.model import Outcome, Task
from distci.work import TaskContext

SHELL = ("/bin/sh", "-e")


class ShellWorker:
    """Runs a script in the workspace; its exit status is the outcome.

    The script runs under ``sh -e``, under the interpreter of its own ``#!`` line, or under what ``shell`` names.
    """

    kind = "shell"

    def perform(self, task: Task, context: TaskContext) -> Outcome:
        directory = context.inside(task.arguments.get("directory", ""))
        script: str = task.arguments["script"]
        path = context.script(script)
        shell: str = task.arguments.get("shell", "")
        if shell:
            argv = [*shell.split(), str(path)]
        elif script.startswith("#!"):
            argv = [str(path)]
        else:
            argv = [*SHELL, str(path)]
        return context.outcome_of(context.run(argv, directory))
