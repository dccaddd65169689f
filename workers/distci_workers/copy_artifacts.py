"""Files that other builds made."""

from __future__ import annotations

from distci.errors import Damaged, NoSuchArtifact, NoSuchBuild
from distci.model import BuildId, Outcome, Result, Task
from distci.work import TaskContext

LAST_PASSED = "last-passed"
UPSTREAM = "upstream"


class CopyArtifactsWorker:
    """Puts artifacts of a build into the workspace, each compared with the digest that it was published under.

    ``build`` is a number, ``last-passed`` (of what is trusted, unless this build is not), or ``upstream``: the build of ``job`` that this one follows on, however many
    others lie between them.
    """

    kind = "copy-artifacts"

    def perform(self, task: Task, context: TaskContext) -> Outcome:
        directory = context.inside(task.arguments.get("directory", ""))
        paths = task.arguments.get("paths", ())
        context.check_use(task.arguments["job"])
        build = context.patiently(lambda: _source(task, context))
        try:
            copied = context.patiently(lambda: context.artifacts.download(build, directory, paths))
        except Damaged as error:
            return Outcome.failed(f"{build}: {error}", build=str(build))
        if not copied:
            raise NoSuchArtifact(f"{build} published no artifacts")
        for path in copied:
            context.say(f"distci: copied {path.relative_to(directory)} of {build}")
        return Outcome.passed(build=str(build), files=len(copied))


def _source(task: Task, context: TaskContext) -> BuildId:
    job: str = task.arguments["job"]
    which: int | str = task.arguments.get("build", LAST_PASSED)
    if which == LAST_PASSED:
        return _last_passed(job, context)
    if which == UPSTREAM:
        return _upstream(job, context)
    return BuildId.parse(f"{job}#{which}")


def _last_passed(job: str, context: TaskContext) -> BuildId:
    for view in context.builds.list(job):
        # What a stranger wrote must not get into builds that have secrets.
        if view.result is Result.PASSED and (context.plan.trigger.is_untrusted or not view.trigger.is_untrusted):
            return view.id
    raise NoSuchBuild(f"no build of {job} has passed")


def _upstream(job: str, context: TaskContext) -> BuildId:
    build = context.plan.trigger.upstream
    while build is not None and build.job != job:
        build = context.builds.get(build).trigger.upstream
    if build is None:
        raise NoSuchBuild(f"{context.build} does not follow on a build of {job}")
    return build
