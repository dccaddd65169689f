"""Every error as a response: the problem details that :mod:`distci.documents.problems` has, with the status code of its class."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from distci import errors
from distci.documents.problems import document, status_of
from distci.views import to_bytes

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 2

WITHOUT_MARK = re.compile(
    r"(/api/v1/jobs/(?:(?!/-/).)+?)/((?:builds|history|diff|rollback|badge\.svg)(?:/(?:(?!/-/).)*)?)"
)

log = logging.getLogger(__name__)


class BadRequest(errors.WithProblems):
    """A request that cannot be understood, or is not as the description of the API has it."""

    def __init__(
        self,
        subject: str,
        problems: Sequence[str] = (),
        *,
        status: int = 400,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(subject, problems)
        self.status = status
        self.headers = headers


class TooOften(errors.DistCIError):
    """A request of somebody who has asked too often. In ``wait_s`` seconds it may be repeated."""

    def __init__(self, detail: str, wait_s: float) -> None:
        super().__init__(detail)
        self.wait_s = wait_s


class PreconditionFailed(errors.VersionConflict):
    """What a request was meant for is not there any more: it has changed."""


def problem(
    status: int,
    error: str,
    detail: str,
    problems: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A response that says what is wrong."""
    extra = {"Cache-Control": "no-store", **(headers or {})}
    if status == 503:
        extra.setdefault("Retry-After", str(RETRY_AFTER_S))
    if status == 401:
        extra.setdefault("WWW-Authenticate", "Bearer")
    return Response(to_bytes(document(status, error, detail, problems)), status, extra, MEDIA_TYPE)


def of(error: Exception, path: str = "") -> Response:
    """The response to a request of that path that came to this."""
    if isinstance(error, BadRequest):
        return problem(error.status, "Invalid", error.subject, error.problems, error.headers)
    if isinstance(error, TooOften):
        return problem(429, "TooOften", str(error), headers={"Retry-After": str(math.ceil(error.wait_s))})
    if isinstance(error, PreconditionFailed):
        return problem(412, "VersionConflict", str(error))
    if isinstance(error, errors.DistCIError):
        return _of_ours(error, misplaced(path))
    log.error("a request came to an unexpected error", exc_info=error)
    return problem(500, "Unexpected", f"unexpected {type(error).__name__}; the log of the front end has more")


def _of_ours(error: errors.DistCIError, hint: str) -> Response:
    status = status_of(error)
    if status == 500:
        log.error("a request came to stored bytes that cannot be read: %s", error)
    name = type(error).__name__
    if isinstance(error, errors.WithProblems):
        return problem(status, name, error.subject, error.problems)
    return problem(status, name, str(error) + (hint if status in (400, 404, 422) else ""))


def misplaced(path: str) -> str:
    """What was probably meant by a path of a job's builds or history that lacks what ends the job's id; empty where it was not that."""
    found = WITHOUT_MARK.fullmatch(path)
    return "; did you mean {}/-/{}? A job's id ends at /-/".format(*found.groups()) if found else ""


async def not_routed(request: Request, error: Exception) -> Response:
    """For what no endpoint took."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return problem(
            404,
            "Missing",
            f"there is nothing at {request.url.path}{misplaced(request.url.path) or '; /api/v1/openapi.json names all there is'}",
        )
    if error.status_code == 405:
        taken = (error.headers or {}).get("Allow", "")
        return problem(
            405,
            "Invalid",
            f"{request.url.path} takes no {request.method}, but {taken}{misplaced(request.url.path)}",
            headers=error.headers,
        )
    return problem(error.status_code, "Invalid", error.detail, headers=error.headers)


async def unexpected(request: Request, error: Exception) -> Response:
    return of(error)
