"""Files that other builds made."""

from __future__ import annotations

from distci.errors import Damaged, NoSuchArtifact
from distci.model import Outcome, Task
from distci.work import TaskContext


class CopyArtifactsWorker:
    """Puts artifacts of a build into the workspace, each compared with the digest that it was published under.

    ``build`` is a number, ``last-passed`` (of what is trusted, unless this build is not), or ``upstream``: the build of ``job`` that this one follows on, however many
    others lie between them.
    """

    kind = "copy-artifacts"

    def perform(self, task: Task, context: TaskContext) -> Outcome:
        directory = context.inside(task.arguments.get("directory", ""))
        paths = task.arguments.get("paths", ())
        build = context.source()
        try:
            copied = context.download(build, directory, paths)
        except Damaged as error:
            return Outcome.failed(f"{build}: {error}", build=str(build))
        if not copied:
            raise NoSuchArtifact(f"{build} published no artifacts")
        for path in copied:
            context.say(f"distci: copied {path.relative_to(directory)} of {build}")
        return Outcome.passed(build=str(build), files=len(copied))
