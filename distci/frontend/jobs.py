"""Jobs: their definitions and versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from distci.access import Action
from distci.documents.jobs import job_from_json, warnings_for
from distci.errors import NoSuchJob, VersionConflict
from distci.frontend import etags
from distci.frontend.endpoint import CURSOR, REASON, Answer, Call, Endpoint, Parameter, Returns, limit
from distci.frontend.paging import number_of, page, page_through
from distci.frontend.problems import BadRequest, PreconditionFailed
from distci.jobs import JobVersion
from distci.model import Json

LISTED = 100
LOOKED_THROUGH_MAX = 5000
"""How many jobs one request looks through for those whose ids hold a text."""
VERSIONS_LISTED = 20
VERSION: Mapping[str, Json] = {"type": "integer", "minimum": 1, "maximum": 999_999_999}
TAG: Mapping[str, Json] = {"type": "string"}

OF_TAG = Parameter(
    "tag",
    {"type": "string", "default": "", "maxLength": 40, "pattern": "^([A-Za-z0-9][A-Za-z0-9._-]*)?$"},
    "Only those that have this tag.",
)

IF_MATCH = Parameter(
    "If-Match", TAG, 'Only if this version is in force: its ETag, such as `"3"`; `*` for any.', place="header"
)
IF_NONE_MATCH = Parameter("If-None-Match", TAG, "`*`: only if there is no such job.", place="header")


def list_jobs(call: Call) -> Answer:
    return page_of_jobs(call, lambda name: {"job": name})


def page_of_jobs(call: Call, shown: Callable[[str], Json]) -> Answer:
    """The next of the jobs that the query asks for, by ``prefix``, ``tag`` and ``text``."""
    text, may_read = call.query["text"].lower(), call.may_read
    names = call.system.jobs.list(call.query["prefix"], call.query["cursor"] or "", tag=call.query["tag"])
    # What may not be read is left out first: a page that ends there would name it.
    visible = (name for name in names if may_read(name))
    return page_through(call, visible, str, lambda name: text in name.lower(), LOOKED_THROUGH_MAX, shown)


def get_job(call: Call) -> Answer:
    return _shown(call.system.jobs.get(call.job, call.query["version"]))


def put_job(call: Call) -> Answer:
    job = call.job
    if call.body["job"] != job:
        raise BadRequest("the body is not as it should be:", [f"job: must be {job}, as in the path"], status=422)
    headers = call.headers
    expected = etags.expected_version(call.system.jobs, job, headers.get("if-match"), headers.get("if-none-match"))
    try:
        saved = call.system.jobs.put(call.body, expected=expected, actor=call.actor, reason=call.query["reason"])
    except VersionConflict as error:
        raise _conflict(error, expected) from error
    return _shown(saved, 201 if saved.version == 1 else 200)


def delete_job(call: Call) -> Answer:
    job = call.job
    expected = etags.expected_version(call.system.jobs, job, call.headers.get("if-match"), None)
    try:
        call.system.jobs.delete(job, expected=expected, actor=call.actor, reason=call.query["reason"])
    except (VersionConflict, NoSuchJob) as error:
        raise _conflict(error, expected) from error
    return Answer({"job": job, "is_deleted": True})


def list_versions(call: Call) -> Answer:
    before = number_of(call.query["cursor"])
    return page(call, call.system.jobs.history(call.job, before), lambda version: str(version.version))


def diff_job(call: Call) -> Answer:
    job = call.job
    to = call.query["new"] or next(call.system.jobs.history(job)).version
    since = call.query["old"] or max(1, to - 1)
    return Answer({"job": job, "old": since, "new": to, "diff": call.system.jobs.diff(job, since, to)})


def rollback_job(call: Call) -> Answer:
    reason = call.body.get("reason", "")
    return _shown(call.system.jobs.rollback(call.job, call.body["version"], actor=call.actor, reason=reason))


def lint_job(call: Call) -> Answer:
    definition = job_from_json(call.body)
    return Answer({"job": definition.id, "warnings": warnings_for(call.body)})


def _shown(version: JobVersion, status: int = 200) -> Answer:
    return Answer(version, status, etag=str(version.version))


def _conflict(error: VersionConflict | NoSuchJob, expected: int | None) -> Exception:
    """Who said which version they mean was refused for that; who did not was only beaten to it."""
    return error if expected is None else PreconditionFailed(str(error))


ENDPOINTS: Sequence[Endpoint] = (
    Endpoint(
        "GET",
        "/jobs",
        "list_jobs",
        "List jobs by id",
        list_jobs,
        None,
        {200: Returns("A page of jobs; it may be empty and have a next one.", "job-page", headers=("ETag", "Link"))},
        (
            Parameter("prefix", {"type": "string", "default": "", "maxLength": 128}, "Only those whose id begins so."),
            OF_TAG,
            Parameter("text", {"type": "string", "default": "", "maxLength": 128}, "Only those whose id holds this."),
            limit(LISTED),
            CURSOR,
        ),
        is_filtered=True,
        needs_tree=False,
    ),
    Endpoint(
        "GET",
        "/jobs/{job}",
        "get_job",
        "Read a job",
        get_job,
        Action.READ,
        {200: Returns("The version that is in force, or the one asked for.", "job-version", headers=("ETag",))},
        (Parameter("version", VERSION, "An earlier version."),),
        needs_tree=False,
        is_verbatim=True,
    ),
    Endpoint(
        "PUT",
        "/jobs/{job}",
        "put_job",
        "Save a job as its next version",
        put_job,
        Action.WRITE,
        {
            200: Returns("What is in force now.", "job-version", headers=("ETag",)),
            201: Returns("Its first version.", "job-version", headers=("ETag",)),
        },
        (REASON, IF_MATCH, IF_NONE_MATCH),
        body="job",
        description="Saving what is in force already changes nothing.",
        needs_tree=False,
        is_verbatim=True,
        makes_job=True,
    ),
    Endpoint(
        "DELETE",
        "/jobs/{job}",
        "delete_job",
        "Take a job out of force",
        delete_job,
        Action.WRITE,
        {200: Returns("It is out of force. Its history, its builds and their numbers stay.", "job-deleted")},
        (REASON, IF_MATCH),
        needs_tree=False,
    ),
    Endpoint(
        "GET",
        "/jobs/{job}/-/history",
        "list_versions",
        "List a job's versions, the newest first",
        list_versions,
        Action.READ,
        {200: Returns("A page of versions.", "job-version-page", headers=("ETag", "Link"))},
        (limit(VERSIONS_LISTED), CURSOR),
        needs_tree=False,
        is_verbatim=True,
    ),
    Endpoint(
        "GET",
        "/jobs/{job}/-/diff",
        "diff_job",
        "Compare two versions of a job",
        diff_job,
        Action.READ,
        {200: Returns("What changed, as a unified diff of their JSON.", "job-diff", headers=("ETag",))},
        (
            Parameter("old", VERSION, "The version to compare; the one before the other by default."),
            Parameter("new", VERSION, "The version to compare it with; the latest by default."),
        ),
        needs_tree=False,
        is_verbatim=True,
    ),
    Endpoint(
        "POST",
        "/jobs/{job}/-/rollback",
        "rollback_job",
        "Save an old version of a job as its next one",
        rollback_job,
        Action.WRITE,
        {200: Returns("What is in force now.", "job-version", headers=("ETag",))},
        body="rollback",
        needs_tree=False,
        is_verbatim=True,
    ),
    Endpoint(
        "POST",
        "/lint",
        "lint_job",
        "Check a job without saving it",
        lint_job,
        None,
        {200: Returns("It is valid.", "job-lint")},
        body="job",
        needs_tree=False,
    ),
)
