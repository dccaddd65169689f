"""Errors as they travel over HTTP: the problem details of RFC 9457, made by front ends and turned back into errors by their clients.

``error`` is the name of the class in :mod:`distci.errors`, by which a client knows what to do; ``problems`` are all that is wrong with
what was sent, each with its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus

from distci import errors
from distci.model import Json

STATUSES: Sequence[tuple[type[errors.DistCIError], int]] = (
    (errors.WrongFormat, 503),
    (errors.InvalidDocument, 500),
    (errors.Invalid, 422),
    (errors.NotAuthenticated, 401),
    (errors.Denied, 403),
    (errors.Missing, 404),
    (errors.Conflict, 409),
    (errors.ClaimLost, 409),
    (errors.Unavailable, 503),
    (errors.Damaged, 500),
)
"""By class, the more special ones first. A document that cannot be read is a stored one here: those that were sent are Invalid."""

CLASSES: Mapping[str, type[errors.DistCIError]] = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.DistCIError) and kind is not errors.WithProblems
}
"""By name: those that a client raises again as they were."""

OTHERWISE: Mapping[int, type[errors.DistCIError]] = {
    401: errors.NotAuthenticated,
    403: errors.Denied,
    404: errors.Missing,
    408: errors.Unavailable,
    409: errors.Conflict,
    412: errors.VersionConflict,
    429: errors.Unavailable,
    500: errors.DistCIError,
}
"""By status: what an answer means that names no class, or one of a later version, or that somebody between has given. Of others, below
500 it is the request that is wrong, above it is something that is away."""


def status_of(error: errors.DistCIError) -> int:
    """The status code that an error is answered with."""
    return next((status for kind, status in STATUSES if isinstance(error, kind)), 500)


def document(status: int, error: str, detail: str, problems: Sequence[str] = ()) -> dict[str, Json]:
    """The problem details of an error of that class."""
    return {
        "type": f"urn:distci:error:{error}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "error": error,
        "problems": [*problems],
    }


def error_of(status: int, told: Json, otherwise: str) -> errors.DistCIError:
    """The error that an answer stands for, as the library would have raised it; it says ``otherwise`` where these are no problem details."""
    found = told if isinstance(told, dict) else {}
    kind = CLASSES.get(str(found.get("error"))) or _by_status(status)
    subject = str(found.get("detail") or otherwise)
    listed = found.get("problems")
    problems = [str(item) for item in listed] if isinstance(listed, list) else []
    if issubclass(kind, errors.WithProblems):
        return kind(subject, problems)
    return kind(str(errors.WithProblems(subject, problems)))


def _by_status(status: int) -> type[errors.DistCIError]:
    return OTHERWISE.get(status, errors.Invalid if status < 500 else errors.Unavailable)
