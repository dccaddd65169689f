"""Files that outlive the build."""

from __future__ import annotations

from collections.abc import Mapping

from distci.model import Json, Outcome, Task
from distci.work import TaskContext


class PublishArtifactsWorker:
    """Makes files of the workspace artifacts of the build.

    A pattern that matches no file fails the task, unless it says ``optional``.
    """

    kind = "publish-artifacts"

    def perform(self, task: Task, context: TaskContext) -> Outcome:
        publication = context.publish(task.arguments["paths"])
        published: Mapping[str, Json] = {
            "files": len(publication.artifacts),
            "bytes": sum(artifact.size_bytes for artifact in publication.artifacts),
        }
        for artifact in publication.artifacts:
            context.say(f"distci: published {artifact.name}, {artifact.size_bytes} bytes, sha256 {artifact.sha256}")
        if publication.unmatched and not task.arguments.get("optional", False):
            patterns = ", ".join(map(repr, publication.unmatched))
            return Outcome.failed(f"no file matches {patterns}", **published)
        return Outcome.passed(**published)
