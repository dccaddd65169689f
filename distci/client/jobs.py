"""Jobs through a front end."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import islice

from distci.client.address import of_job
from distci.client.link import Link
from distci.documents.jobs import job_from_json
from distci.errors import Invalid
from distci.jobs import JobVersion
from distci.model import Json, check_job_id
from distci.views import from_json

PAGE = 200


class RemoteJobs:
    """As :class:`distci.jobs.Jobs`. On record as who changes a job is who the token is of; ``actor`` is not sent."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def put(
        self, document: Mapping[str, Json], *, expected: int | None = None, actor: str = "", reason: str = ""
    ) -> JobVersion:
        job = _id_in(document)

        def look() -> Json:
            """Ours, if it is in force: saving that once more would change nothing."""
            found = self._get(job)
            is_next = expected is None or found["version"] == expected + 1
            return found if is_next and json.dumps(found["document"]) == json.dumps(document) else None

        saved = self._link.change(
            "PUT",
            of_job(job),
            document,
            headers=_on_version(expected),
            # Without a version it would undo what somebody else did meanwhile.
            is_repeatable=expected is not None,
            look=look,
            reason=reason or None,
        )
        return from_json(JobVersion, saved)

    def get(self, job: str, version: int | None = None) -> JobVersion:
        return from_json(JobVersion, self._get(job, version))

    def list(
        self, prefix: str = "", after: str = "", limit: int | None = None, *, tag: str = "", text: str = ""
    ) -> Iterator[str]:
        wanted = {"prefix": prefix or None, "tag": tag or None, "text": text or None, "cursor": after or None}
        for item in islice(self._link.items("/jobs", **wanted, limit=min(limit or PAGE, PAGE)), limit):
            yield item["job"]

    def history(self, job: str, before: int | None = None) -> Iterator[JobVersion]:
        for item in self._link.items(of_job(job, "history"), cursor=before, limit=PAGE):
            yield from_json(JobVersion, item)

    def diff(self, job: str, old: int, new: int) -> str:
        return str(self._link.get(of_job(job, "diff"), old=old, new=new)["diff"])

    def rollback(self, job: str, version: int, *, actor: str = "", reason: str = "") -> JobVersion:
        def look() -> Json:
            found = self._get(job)
            return found if json.dumps(found["document"]) == json.dumps(self._get(job, version)["document"]) else None

        body = {"version": version, **({"reason": reason} if reason else {})}
        saved = self._link.change("POST", of_job(job, "rollback"), body, is_repeatable=False, look=look)
        return from_json(JobVersion, saved)

    def delete(self, job: str, *, expected: int | None = None, actor: str = "", reason: str = "") -> None:
        def look() -> Json:
            last = next(self.history(job))
            return (last.is_deleted and (expected is None or last.version == expected + 1)) or None

        self._link.change("DELETE", of_job(job), headers=_on_version(expected), look=look, reason=reason or None)

    def _get(self, job: str, version: int | None = None) -> Json:
        return self._link.get(of_job(job), version=version)


def _id_in(document: Mapping[str, Json]) -> str:
    """The job that a document is of; InvalidJob, with all that is wrong, where it says none."""
    try:
        return check_job_id(document["job"])
    except (KeyError, TypeError, AttributeError, Invalid):
        job_from_json(document)
        raise


def _on_version(expected: int | None) -> Mapping[str, str]:
    if expected is None:
        return {}
    return {"If-Match": f'"{expected}"'} if expected else {"If-None-Match": "*"}
