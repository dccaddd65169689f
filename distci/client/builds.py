"""Builds through a front end."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from threading import Event

from distci.builds import BuildView, LogPiece, TaskView, check_request
from distci.client.address import build_of, of_build, of_job, of_task
from distci.client.link import Link
from distci.client.logs import RemoteLogs
from distci.client.watching import Watching
from distci.errors import Invalid
from distci.model import BuildId, Json, Result
from distci.views import from_json

PAGE = 50
CAUSE_CHARS_MAX = 256


class RemoteBuilds:
    """As :class:`distci.builds.Builds`. On record as who starts a build is who the token is of; ``actor`` is not sent.

    What starts a build may be repeated: each call has a cause of its own unless it is given one, printable ASCII of 256 characters at most.
    """

    def __init__(self, link: Link, new_cause: Callable[[], str] = lambda: uuid.uuid4().hex) -> None:
        self._link = link
        self._new_cause = new_cause
        self._logs = RemoteLogs(link)
        self._watching = Watching(link)

    def trigger(
        self,
        job: str,
        parameters: Mapping[str, str] | None = None,
        *,
        actor: str = "",
        commit: str = "",
        ref: str = "",
        cause: str = "",
    ) -> BuildId:
        check_request(job, parameters, commit=commit, ref=ref, cause=cause)
        given = {"parameters": dict(parameters or {}), "commit": commit, "ref": ref}
        return self._started(of_job(job, "builds"), {name: value for name, value in given.items() if value}, cause)

    def get(self, build: BuildId | str) -> BuildView:
        return from_json(BuildView, self._link.get(of_build(build_of(build))))

    def last_number(self, job: str) -> int:
        return next((view.id.number for view in self.list(job, limit=1)), 0)

    def list(self, job: str, limit: int | None = None, before: int | None = None) -> Iterator[BuildView]:
        page = min(limit or PAGE, PAGE)
        for item in islice(self._link.items(of_job(job, "builds"), cursor=before, limit=page), limit):
            yield from_json(BuildView, item)

    def wait(self, build: BuildId | str, timeout_s: float | None = None) -> BuildView:
        return self._watching.wait(build_of(build), timeout_s)

    def cancel(self, build: BuildId | str, reason: str = "") -> None:
        wanted = build_of(build)

        def look() -> Json:
            view = self.get(wanted)
            return (view.state == "cancelling" or view.result is Result.CANCELLED) or None

        body = {"reason": reason} if reason else None
        self._link.change("POST", of_build(wanted, "cancel"), body, look=look)

    def decide(
        self, build: BuildId | str, task: str, is_approved: bool, reason: str = "", *, actor: str = ""
    ) -> TaskView:
        path = of_task(build_of(build), task)

        def look() -> Json:
            found: Json = self._link.get(path)
            return found if found["state"] == ("passed" if is_approved else "failed") else None

        body = {"approve": is_approved} | ({"reason": reason} if reason else {})
        return from_json(TaskView, self._link.change("POST", f"{path}/decision", body, look=look))

    def retry(self, build: BuildId | str, *, only_failed: bool = False, actor: str = "", cause: str = "") -> BuildId:
        return self._started(of_build(build_of(build), "retry"), {"only_failed": only_failed}, cause)

    def log(self, build: BuildId | str, task: str, start: int = 0) -> Iterator[bytes]:
        return self._logs.open(build, task).read(start)

    def follow(self, build: BuildId | str, tasks: Sequence[str] = (), stop: Event | None = None) -> Iterator[LogPiece]:
        def printed(view: BuildView, task: TaskView, start: int) -> Iterator[bytes]:
            return self._logs.printed(view.id, task.name, task.token, start)

        return self._watching.follow(build_of(build), printed, tasks, stop or Event())

    def _started(self, path: str, body: Json, cause: str) -> BuildId:
        if len(cause) > CAUSE_CHARS_MAX or not (cause.isascii() and (cause.isprintable() or not cause)):
            raise Invalid(f"a cause is printable ASCII of {CAUSE_CHARS_MAX} characters at most, to go by HTTP")
        key = cause or self._new_cause()
        return BuildId.parse(self._link.change("POST", path, body, headers={"Idempotency-Key": key})["id"])
