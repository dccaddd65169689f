"""Jobs beside their last builds: what somebody who looks after many jobs wants to see at once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Lock

from distci.app import DistCI
from distci.builds import BuildView
from distci.errors import Missing
from distci.frontend.endpoint import CURSOR, Answer, Call, Endpoint, Parameter, Returns, limit
from distci.frontend.jobs import OF_TAG, page_of_jobs
from distci.model import BuildId, Json

LISTED, LISTED_MAX = 50, 200
BUILDS, BUILDS_MAX = 10, 50

REMEMBERED_MAX = 20_000
"""How many builds that are over are remembered, some 300 bytes each."""


class Endings:
    """Builds that are over do not change: they are read once. From many threads."""

    def __init__(self, most: int = REMEMBERED_MAX) -> None:
        self._most = most
        self._known: OrderedDict[BuildId, Json] = OrderedDict()
        self._lock = Lock()

    def summary(self, build: BuildId, read: Callable[[BuildId], BuildView]) -> Json:
        """What a list says of a build; Missing where there is none."""
        with self._lock:
            if build in self._known:
                self._known.move_to_end(build)
                return self._known[build]
        view = read(build)
        summary = _summary(view)
        if view.is_archived:
            with self._lock:
                self._known[build] = summary
                while len(self._known) > self._most:
                    self._known.popitem(last=False)
        return summary


class Overview:
    """The jobs of one system with their last builds."""

    def __init__(self, endings: Endings | None = None) -> None:
        self._endings = endings or Endings()

    def list(self, call: Call) -> Answer:
        builds = call.query["builds"]
        return page_of_jobs(call, lambda job: {"job": job, "builds": [*self._last(call.system, job, builds)]})

    def _last(self, system: DistCI, job: str, count: int) -> Iterator[Json]:
        """The last builds of a job, the newest first."""
        last = system.lifecycle.last_number(job)
        for number in range(last, max(0, last - count), -1):
            try:
                yield self._endings.summary(BuildId(job, number), system.builds.get)
            except Missing:
                continue


def _summary(view: BuildView) -> Mapping[str, Json]:
    return {
        "id": str(view.id),
        "state": view.state,
        "reason": view.reason,
        "created_ms": view.created_ms,
        "finished_ms": view.finished_ms,
    }


def endpoints(overview: Overview) -> Sequence[Endpoint]:
    """What shows it."""
    return (
        Endpoint(
            "GET",
            "/overview",
            "list_overview",
            "List jobs with their last builds",
            overview.list,
            None,
            {
                200: Returns(
                    "A page of jobs; it may be empty and have a next one.", "overview-page", headers=("ETag", "Link")
                )
            },
            (
                Parameter(
                    "prefix", {"type": "string", "default": "", "maxLength": 128}, "Only those whose id begins so."
                ),
                Parameter(
                    "text", {"type": "string", "default": "", "maxLength": 128}, "Only those whose id holds this."
                ),
                OF_TAG,
                Parameter(
                    "builds",
                    {"type": "integer", "minimum": 0, "maximum": BUILDS_MAX, "default": BUILDS},
                    "How many builds of each.",
                ),
                limit(LISTED, LISTED_MAX),
                CURSOR,
            ),
            is_filtered=True,
            tag="jobs",
        ),
    )
