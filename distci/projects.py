"""Projects: the prefixes of job ids, to which rights, quotas and turns belong."""

from __future__ import annotations

from collections.abc import Sequence

SYSTEM = ""
"""The project that all others are within."""


def called(project: str) -> str:
    """A project's name for people."""
    return project or "the whole system"


def project_of(job: str) -> str:
    """The prefix of a job id that carries rights and takes turns: all but the last segment."""
    return job.rpartition("/")[0]


def lineage(project: str) -> Sequence[str]:
    """A project and all that it is within, the whole system first."""
    segments = project.split("/") if project else []
    return [SYSTEM, *("/".join(segments[: length + 1]) for length in range(len(segments)))]


def is_within(project: str, outer: str) -> bool:
    """Whether a project, or a job, is another one, or lies within it."""
    return outer == SYSTEM or project == outer or project.startswith(f"{outer}/")
