"""Tests of builds, and those in quarantine, through a front end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distci.build_reports import BUILDS_LOOKED_AT, Flaky, Told, ToldCase, check_outcome
from distci.client.address import build_of, of_build, of_job, of_task, segment
from distci.client.link import UPLOADED_S, Link
from distci.model import BuildId, Json
from distci.quarantine import DAYS, Quarantined
from distci.reports.results import Annotation
from distci.views import from_json

PAGE = 1000


class RemoteReports:
    """As :class:`distci.build_reports.Reports`."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def list(self, build: BuildId | str) -> Sequence[Told]:
        path = of_build(build_of(build), "reports")
        return [from_json(Told, item) for item in self._link.items(path, limit=PAGE)]

    def cases(self, build: BuildId | str, *, outcome: str = "", task: str = "", after: int = 0) -> Iterator[ToldCase]:
        check_outcome(outcome)
        query: dict[str, Json] = {
            "outcome": outcome or None,
            "task": task or None,
            "cursor": str(after) if after else None,
        }
        items = self._link.items(of_build(build_of(build), "tests"), limit=PAGE, **query)
        return (from_json(ToldCase, item) for item in items)

    def annotations(self, build: BuildId | str) -> Iterator[tuple[str, Annotation]]:
        for item in self._link.items(of_build(build_of(build), "annotations"), limit=PAGE):
            yield item["task"], from_json(Annotation, item["annotation"])

    def put(self, build: BuildId | str, task: str, source: str, data: bytes) -> Told:
        path = of_task(build_of(build), task, f"reports/{segment(source)}")
        return from_json(Told, self._link.upload(path, lambda: data, answer_s=UPLOADED_S))

    def flaky(self, job: str, builds: int = BUILDS_LOOKED_AT) -> Sequence[Flaky]:
        items = self._link.items(of_job(job, "flaky-tests"), builds=builds, limit=PAGE)
        return [from_json(Flaky, item) for item in items]


class RemoteQuarantine:
    """As :class:`distci.quarantine.Quarantine`. On record as who says so is who the token is of; ``actor`` is not sent."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def put(
        self, job: str, test: str, *, owner: str, days: int = DAYS, reason: str = "", actor: str = ""
    ) -> Quarantined:
        body = {"test": test, "owner": owner, "days": days, "reason": reason}
        return from_json(Quarantined, self._link.change("PUT", of_job(job, "quarantine"), body))

    def list(self, job: str) -> Sequence[Quarantined]:
        return [from_json(Quarantined, item) for item in self._link.items(of_job(job, "quarantine"), limit=PAGE)]

    def remove(self, job: str, test: str, *, reason: str = "", actor: str = "") -> None:
        def look() -> Json:
            return all(each.test != test for each in self.list(job)) or None

        self._link.change("DELETE", of_job(job, "quarantine"), look=look, test=test, reason=reason)
