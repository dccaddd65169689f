"""What somebody is told who has named a build of a job that is not there: no list of that job's builds leads any further."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

from distci.errors import NoSuchBuild, NoSuchJob
from distci.model import BuildId
from distci.plan import resembling

if TYPE_CHECKING:
    from distci.cli.command import System

LOOKED_AT = 1000
"""How many jobs are looked at for one that was meant."""


@contextmanager
def looking_for(system: System, build: str) -> Iterator[None]:
    """Raises NoSuchJob instead of NoSuchBuild where there is no such job either, with the one that was meant if there is one like it."""
    try:
        yield
    except NoSuchBuild as error:
        job = BuildId.parse(build).job
        try:
            system.jobs.get(job)
        except NoSuchJob as missing:
            meant = resembling(job, [*islice(system.jobs.list(), LOOKED_AT)])
            raise (NoSuchJob(f"there is no job {job!r}{meant}") if meant else missing) from error
        raise
