"""Where things are on a front end: quoted paths below the root of its API."""

from __future__ import annotations

from urllib.parse import quote

from distci.model import BuildId, check_job_id


def of_job(job: str, rest: str = "") -> str:
    """Invalid when it cannot be the id of one."""
    return f"/jobs/{check_job_id(job)}{f'/-/{rest}' if rest else ''}"


def of_build(build: BuildId, rest: str = "") -> str:
    return of_job(build.job, f"builds/{build.number}{f'/{rest}' if rest else ''}")


def of_task(build: BuildId, task: str, rest: str = "") -> str:
    return of_build(build, f"tasks/{segment(task)}{f'/{rest}' if rest else ''}")


def of_artifact(build: BuildId, name: str) -> str:
    return of_build(build, f"artifacts/{quote(name, errors='surrogateescape')}")


def segment(text: str) -> str:
    """Any text as one segment of a path."""
    return quote(text, safe="")


def build_of(build: BuildId | str) -> BuildId:
    """The build that is meant; Invalid when it is none."""
    return build if isinstance(build, BuildId) else BuildId.parse(build)
