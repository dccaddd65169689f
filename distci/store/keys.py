"""The map of the store: every key as a function, every key taken apart where it is put together.

::

    jobs/<job>                                        marker of a job that exists
    job-versions/<job>/<version>                      one version of a job's document, kept for ever
    downstream/<upstream>/<downstream>                marker: an end of the first starts the second
    hooks/<receiver>/<repository>/<job>               marker: a change of that repository, as that receiver is told of it, may start the job
    held/<id>                                         a change that waits for somebody's approval
    changes/<digest>                                  the files that a change has touched, for the builds that it started
    statuses/<receiver>/<repository>/<commit>/<job>/  what a forge was told of that commit's builds of the job:
                             <number>-<0 or 1>        of one build, that it began and that it ended
    accepted/<job>/<number>                           a build as it was accepted, until its record is there
    builds/<job>/<number>/plan.json                   the job expanded for it
                         /plans/<digest>          the same with tasks that tasks of it have defined
                         /record.json                 how it ended
                         /pins/<name>                 what was looked up once for the whole build
                         /downstream/<job>            which build of that job its end has started
                         /called/<ticket>         which build that task of it has started
                         /upload-notes/<name>         size and digest of a file that was uploaded: it is there when this is
                         /uploads/<name>/<digest>     its bytes; others than those of the note belong to nothing
                         /tasks/<task>/<token>/       all that one attempt wrote:
                             outcome.json
                             log/<offset>             console bytes from that offset on
                             artifacts.json           names, sizes and digests of
                             artifacts/<name>         the files it published
                             artifact-notes/<name>    size and digest of one, until all are in the index
                             workspace.json           the workspace it left, as packs and the files in them
                             report                   the tests and annotations that it has told of
                             hold/<name>              what goes to and from a terminal in its task while that is held
                         /late-reports/<task>/<source>    the same, told by another system once the task was over
    packs/<two digits>/<digest>                       packed files, named by their SHA-256
    epochs/<number>                                   marker: that many trees have been made on this store
    access/changes/<number>                           one change of who may do what: tokens, roles, visibilities
    access/used/<token id>                            about when a token was last used
    audit/<time>-<nonce>/begun.json                   who was about to change what, from where and why
                        /ended.json                   what became of it
    secrets/<project>/<name>                          a secret, sealed with
    secret-keys/<project>                             the data key of its project, sealed with a key that no store has; "-" is the whole system
    quarantine/<job>/<digest>                         a test whose failure counts for nothing for now
    events/<thousands>/<rest>                         what happened, numbered from 1 without gaps

No two names share a key, and the prefix of one never covers another:

* A job id is one segment, with ``:`` for its ``/`` (job ids hold no ``:``). ``builds/team:a/`` therefore covers
  neither the builds of ``team/ab`` nor those of ``team/a/b``.
* Any other name is one segment, percent-encoded, with ``%2F`` for its ``/``.
* Numbers have leading zeros, so that they sort as numbers do: 9 digits of versions and builds, 16 of offsets.

What does not fit into a key raises :class:`~distci.errors.Invalid`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote, unquote

from distci.errors import Invalid
from distci.model import BuildId, check_job_id

KEY_LENGTH_MAX = 900
"""Bytes. S3 takes 1,024; the rest is left to the prefix that a store may put before its keys."""

_NUMBER_DIGITS = 9
_OFFSET_DIGITS = 16
_TIME_DIGITS = 15

_PLAIN = "[],="
"""What names carry as it is besides letters, digits and ``_.-~``: matrix names stay readable."""

_WHOLE_SYSTEM = "-"

_PRINTABLE = re.compile(r"[ -~]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")

JOBS = "jobs/"
JOB_VERSIONS = "job-versions/"
DOWNSTREAM = "downstream/"
BUILDS = "builds/"
PACKS = "packs/"
ACCEPTED = "accepted/"
EPOCHS = "epochs/"
ACCESS_CHANGES = "access/changes/"
ACCESS_USED = "access/used/"
AUDIT = "audit/"
EVENTS = "events/"
HOOKS = "hooks/"
TAGS = "tags/"
HELD = "held/"
CHANGES = "changes/"
STATUSES = "statuses/"
SECRETS = "secrets/"
SECRET_KEYS = "secret-keys/"
QUARANTINE = "quarantine/"


def job_marker(job: str) -> str:
    return check_key(f"{JOBS}{_job(job)}")


def job_of_marker(key: str) -> str:
    """The job that a key below :data:`JOBS` stands for."""
    (job,) = _parts("jobs/([^/]+)", key)
    return _job_of(job, key)


def job_versions(job: str) -> str:
    """What the keys of all versions of a job start with."""
    return f"{JOB_VERSIONS}{_job(job)}/"


def job_version(job: str, version: int) -> str:
    return check_key(f"{job_versions(job)}{_digits(version, _NUMBER_DIGITS)}")


def version_of(key: str) -> int:
    """The version that a key below :func:`job_versions` stands for."""
    (version,) = _parts("job-versions/[^/]+/([0-9]{9})", key)
    return int(version)


def downstreams(upstream: str) -> str:
    """What the keys of all that a job starts begin with."""
    return f"{DOWNSTREAM}{_job(upstream)}/"


def downstream(upstream: str, downstream_job: str) -> str:
    return check_key(f"{downstreams(upstream)}{_job(downstream_job)}")


def downstream_of(key: str) -> str:
    """The job that is started, from a key below :func:`downstreams`."""
    (job,) = _parts("downstream/[^/]+/([^/]+)", key)
    return _job_of(job, key)


def hooks(receiver: str, repository: str) -> str:
    """What the keys of all jobs that a repository's changes may start begin with; ``repository`` as repositories.name() gives it."""
    return f"{HOOKS}{_segment(receiver)}/{_segment(repository)}/"


def hook(receiver: str, repository: str, job: str) -> str:
    return check_key(f"{hooks(receiver, repository)}{_job(job)}")


def job_of_hook(key: str) -> str:
    """The job that may be started, from a key below :func:`hooks`."""
    (job,) = _parts("hooks/[^/]+/[^/]+/([^/]+)", key)
    return _job_of(job, key)


def tagged(tag: str) -> str:
    """What the keys of all jobs that have ever had a tag begin with."""
    return f"{TAGS}{_segment(tag)}/"


def job_of_tag(tag: str, job: str) -> str:
    return check_key(f"{tagged(tag)}{_job(job)}")


def tagged_job(key: str) -> str:
    """The job, from a key below :func:`tagged`."""
    (job,) = _parts("tags/[^/]+/([^/]+)", key)
    return _job_of(job, key)


def changes(digest: str) -> str:
    return check_key(f"{CHANGES}{_segment(digest)}")


def held(change: str) -> str:
    return check_key(f"{HELD}{_segment(change)}")


def held_of(key: str) -> str:
    """The change that a key below :data:`HELD` stands for."""
    (change,) = _parts("held/([^/]+)", key)
    return unquote(change)


def statuses(receiver: str, repository: str, commit: str, job: str) -> str:
    """What the keys of all that a forge was told of a commit's builds of a job begin with; the last of them is the latest."""
    return f"{STATUSES}{_segment(receiver)}/{_segment(repository)}/{_segment(commit)}/{_job(job)}/"


def status(receiver: str, repository: str, commit: str, build_id: BuildId, is_over: bool) -> str:
    number = _digits(build_id.number, _NUMBER_DIGITS)
    return check_key(f"{statuses(receiver, repository, commit, build_id.job)}{number}-{int(is_over)}")


def secrets(project: str) -> str:
    """What the keys of all secrets of just that project begin with."""
    return f"{SECRETS}{_project(project)}/"


def secret(project: str, name: str) -> str:
    return check_key(f"{secrets(project)}{_segment(name)}")


def secret_of(key: str) -> tuple[str, str]:
    """The project and the name of the secret that a key below :data:`SECRETS` stands for."""
    project, name = _parts("secrets/([^/]+)/([^/]+)", key)
    return _project_of(project, key), unquote(name)


def secret_key(project: str) -> str:
    """Where the data key of a project's secrets is, sealed."""
    return check_key(f"{SECRET_KEYS}{_project(project)}")


def project_of_secret_key(key: str) -> str:
    """The project, from a key below :data:`SECRET_KEYS`."""
    (project,) = _parts("secret-keys/([^/]+)", key)
    return _project_of(project, key)


def builds(job: str) -> str:
    """What the keys of all builds of a job start with."""
    return f"{BUILDS}{_job(job)}/"


def build(build_id: BuildId) -> str:
    """What all keys of a build start with."""
    return f"{builds(build_id.job)}{_digits(build_id.number, _NUMBER_DIGITS)}/"


def past_build(build_id: BuildId) -> str:
    """Sorts after all keys of a build: list ``after`` this to go on with the next one, however much this one wrote."""
    return f"{build(build_id)}~"


def build_of(key: str) -> BuildId:
    """The build that a key below :func:`builds` belongs to."""
    job, number = _parts("builds/([^/]+)/([0-9]{9})/.+", key)
    return BuildId(_job_of(job, key), int(number))


def accepted_builds(job: str) -> str:
    """What the keys of all builds of a job that are accepted and not archived start with."""
    return f"{ACCEPTED}{_job(job)}/"


def accepted(build_id: BuildId) -> str:
    return check_key(f"{accepted_builds(build_id.job)}{_digits(build_id.number, _NUMBER_DIGITS)}")


def accepted_build(key: str) -> BuildId:
    """The build that a key below :data:`ACCEPTED` stands for."""
    job, number = _parts("accepted/([^/]+)/([0-9]{9})", key)
    return BuildId(_job_of(job, key), int(number))


def build_plan(build_id: BuildId) -> str:
    return check_key(f"{build(build_id)}plan.json")


def build_record(build_id: BuildId) -> str:
    return check_key(f"{build(build_id)}record.json")


def started(build_id: BuildId) -> str:
    """What the keys that name the builds that this one's end has started begin with."""
    return f"{build(build_id)}downstream/"


def started_build(build_id: BuildId, job: str) -> str:
    return check_key(f"{started(build_id)}{_job(job)}")


def called(build_id: BuildId) -> str:
    """What the keys that name the builds that tasks of this one have started begin with."""
    return f"{build(build_id)}called/"


def called_build(build_id: BuildId, ticket: str) -> str:
    """Where it stands which build a task of this one has started, by the id of the task's ticket."""
    return check_key(f"{called(build_id)}{_segment(ticket)}")


def grown_plan(build_id: BuildId, digest: str) -> str:
    """Where a plan is that has grown while its build ran."""
    return check_key(f"{build(build_id)}plans/{_segment(digest)}")


def pins(build_id: BuildId) -> str:
    """What the keys of all that was looked up once for a whole build start with."""
    return f"{build(build_id)}pins/"


def pin(build_id: BuildId, name: str) -> str:
    """Where the whole build reads what one of its tasks looked up first, such as the commit of a ref."""
    return check_key(f"{pins(build_id)}{_segment(name)}")


def pinned(key: str) -> str:
    """What was looked up whose key this is."""
    return unquote(key.rpartition("/")[2])


def upload_notes(build_id: BuildId) -> str:
    """What the keys of all notes of uploads to a build start with; they sort before the bytes, which are written before them."""
    return f"{build(build_id)}upload-notes/"


def upload_note(build_id: BuildId, name: str) -> str:
    return check_key(f"{upload_notes(build_id)}{_segment(name)}")


def uploads(build_id: BuildId) -> str:
    """What the keys of the bytes of all uploads to a build start with."""
    return f"{build(build_id)}uploads/"


def upload(build_id: BuildId, name: str, digest: str) -> str:
    """Where the bytes of that SHA-256 are that were uploaded under a name."""
    return check_key(f"{uploads(build_id)}{_segment(name)}/{_sha256(digest)}")


def note_of_upload(key: str) -> str:
    """The key of the note that says whether the bytes of a key below :func:`uploads` count."""
    start, name = _parts("(builds/[^/]+/[0-9]{9}/)uploads/([^/]+)/[0-9a-f]{64}", key)
    return f"{start}upload-notes/{name}"


def epoch(number: int) -> str:
    return check_key(f"{EPOCHS}{_digits(number, _NUMBER_DIGITS)}")


def epoch_of(key: str) -> int:
    """The number that a key below :data:`EPOCHS` stands for."""
    (number,) = _parts("epochs/([0-9]{9})", key)
    return int(number)


def access_change(number: int) -> str:
    return check_key(f"{ACCESS_CHANGES}{_digits(number, _NUMBER_DIGITS)}")


def access_change_of(key: str) -> int:
    """The number that a key below :data:`ACCESS_CHANGES` stands for."""
    (number,) = _parts("access/changes/([0-9]{9})", key)
    return int(number)


def access_used(token: str) -> str:
    return check_key(f"{ACCESS_USED}{_segment(token)}")


def access_used_by(key: str) -> str:
    """The token that a key below :data:`ACCESS_USED` stands for."""
    (token,) = _parts("access/used/([^/]+)", key)
    return unquote(token)


def audit_since(time_ms: int) -> str:
    """Sorts before all that was put down at that time, in milliseconds since 1970, or later."""
    return f"{AUDIT}{_digits(max(0, time_ms), _TIME_DIGITS)}"


def audit_begun(time_ms: int, nonce: str) -> str:
    return check_key(f"{audit_since(time_ms)}-{_segment(nonce)}/begun.json")


def audit_ended(time_ms: int, nonce: str) -> str:
    return check_key(f"{audit_since(time_ms)}-{_segment(nonce)}/ended.json")


def audit_entry_of(key: str) -> tuple[int, str, bool]:
    """Time and nonce of the entry that a key below :data:`AUDIT` belongs to, and whether it is how that ended."""
    time_ms, nonce, what = _parts("audit/([0-9]{15})-([^/]+)/(begun|ended)[.]json", key)
    return int(time_ms), unquote(nonce), what == "ended"


def event(number: int) -> str:
    """Where an event is. A thousand share a folder, so that no folder of a directory holds them all."""
    return check_key(f"{EVENTS}{_digits(number // 1000, _NUMBER_DIGITS)}/{number % 1000:03}")


def event_of(key: str) -> int:
    """The number that a key below :data:`EVENTS` stands for."""
    thousands, rest = _parts("events/([0-9]{9})/([0-9]{3})", key)
    return int(thousands) * 1000 + int(rest)


def task(build_id: BuildId, task_name: str) -> str:
    """What the keys of all attempts at a task start with."""
    return f"{build(build_id)}tasks/{_segment(task_name)}/"


def attempt(build_id: BuildId, task_name: str, token: str) -> str:
    """What the keys of one attempt start with."""
    return f"{task(build_id, task_name)}{_segment(token)}/"


def past_attempt(build_id: BuildId, task_name: str, token: str) -> str:
    """Sorts after all keys of an attempt."""
    return f"{attempt(build_id, task_name, token)}~"


def token_of(key: str) -> str:
    """The attempt that a key below :func:`task` belongs to."""
    (token,) = _parts("builds/[^/]+/[0-9]{9}/tasks/[^/]+/([^/]+)/.+", key)
    return unquote(token)


def attempt_outcome(build_id: BuildId, task_name: str, token: str) -> str:
    return check_key(f"{attempt(build_id, task_name, token)}outcome.json")


def log(build_id: BuildId, task_name: str, token: str) -> str:
    """What the keys of an attempt's log start with; they sort by offset."""
    return f"{attempt(build_id, task_name, token)}log/"


def log_chunk(build_id: BuildId, task_name: str, token: str, offset: int) -> str:
    """Where the bytes of the log from ``offset`` on are."""
    return check_key(f"{log(build_id, task_name, token)}{_digits(offset, _OFFSET_DIGITS)}")


def at_offset(log_prefix: str, offset: int) -> str:
    """Where a chunk that begins at that offset is, in the log whose keys start with ``log_prefix``."""
    return f"{log_prefix}{_digits(offset, _OFFSET_DIGITS)}"


def offset_of_chunk(key: str) -> int:
    """The offset that a key below :func:`log` stands for."""
    (offset,) = _parts("builds/[^/]+/[0-9]{9}/tasks/[^/]+/[^/]+/log/([0-9]{16})", key)
    return int(offset)


def artifact_index(build_id: BuildId, task_name: str, token: str) -> str:
    return check_key(f"{attempt(build_id, task_name, token)}artifacts.json")


def artifact(build_id: BuildId, task_name: str, token: str, name: str) -> str:
    return check_key(f"{attempt(build_id, task_name, token)}artifacts/{_segment(name)}")


def artifact_notes(build_id: BuildId, task_name: str, token: str) -> str:
    """What the keys of all notes of an attempt start with."""
    return f"{attempt(build_id, task_name, token)}artifact-notes/"


def artifact_note(build_id: BuildId, task_name: str, token: str, name: str) -> str:
    return check_key(f"{artifact_notes(build_id, task_name, token)}{_segment(name)}")


def workspace(build_id: BuildId, task_name: str, token: str) -> str:
    return check_key(f"{attempt(build_id, task_name, token)}workspace.json")


def report(build_id: BuildId, task_name: str, token: str) -> str:
    return check_key(f"{attempt(build_id, task_name, token)}report")


def hold(build_id: BuildId, task_name: str, token: str) -> str:
    """What the keys of all that goes to and from a held task start with."""
    return f"{attempt(build_id, task_name, token)}hold/"


def late_reports(build_id: BuildId) -> str:
    """What the keys of all that other systems have told of a build's tasks start with."""
    return f"{build(build_id)}late-reports/"


def late_report(build_id: BuildId, task_name: str, source: str) -> str:
    return check_key(f"{late_reports(build_id)}{_segment(task_name)}/{_segment(source)}")


def late_report_of(key: str) -> tuple[str, str]:
    """The task and the source that a key below :func:`late_reports` stands for."""
    task_name, source = _parts("builds/[^/]+/[0-9]{9}/late-reports/([^/]+)/([^/]+)", key)
    return unquote(task_name), unquote(source)


def quarantined(job: str) -> str:
    """What the keys of all tests of a job that are in quarantine start with."""
    return f"{QUARANTINE}{_job(job)}/"


def quarantine(job: str, digest: str) -> str:
    """Where one is, by the SHA-256 of its name, which may be longer than a key."""
    return check_key(f"{quarantined(job)}{_sha256(digest)}")


def pack(digest: str) -> str:
    """Where a pack is; ``digest`` is the SHA-256 of its bytes in hexadecimal."""
    return f"{PACKS}{_sha256(digest)[:2]}/{digest}"


def check_key(key: str) -> str:
    """The key itself when every store can hold it; :class:`~distci.errors.Invalid` otherwise.

    Adapters call it before they touch anything.
    """
    if not key:
        raise Invalid("a key cannot be empty")
    return _check(key, key.split("/"))


def is_key(key: str) -> bool:
    """Whether :func:`check_key` takes it. Listings leave out what else lies about in a bucket."""
    try:
        check_key(key)
    except Invalid:
        return False
    return True


def check_prefix(prefix: str) -> str:
    """The prefix itself when keys can start with it; :class:`~distci.errors.Invalid` otherwise."""
    return _check(prefix, prefix.split("/")[:-1])


def check_range(start: int, length: int | None) -> None:
    """Hold a read to numbers that are not negative; :class:`~distci.errors.Invalid` otherwise."""
    if start < 0 or (length is not None and length < 0):
        raise Invalid(f"cannot read {length} bytes from offset {start}: neither may be negative")


def _check(key: str, whole_segments: list[str]) -> str:
    if len(key) > KEY_LENGTH_MAX:
        raise Invalid(
            f"key {_shortened(key)} has {len(key)} characters; at most {KEY_LENGTH_MAX} fit: use shorter names"
        )
    if not _PRINTABLE.fullmatch(key):
        raise Invalid(f"key {key!r} holds something else than printable ASCII")
    if not {"", ".", ".."}.isdisjoint(whole_segments):
        raise Invalid(f"key {key!r} has an empty, '.' or '..' segment")
    return key


def _shortened(key: str) -> str:
    return repr(f"{key[:100]}...{key[-40:]}")


def _sha256(digest: str) -> str:
    if not _SHA256.fullmatch(digest):
        raise Invalid(f"{digest!r} is not a SHA-256 in 64 lower-case hexadecimal digits")
    return digest


def _job(job: str) -> str:
    return check_job_id(job).replace("/", ":")


def _job_of(segment: str, key: str) -> str:
    try:
        return check_job_id(segment.replace(":", "/"))
    except Invalid as error:
        raise Invalid(f"key {key!r}: {error}") from error


def _project(project: str) -> str:
    """A project as one segment. No job's id begins as that of the whole system does."""
    return _job(project) if project else _WHOLE_SYSTEM


def _project_of(segment: str, key: str) -> str:
    return "" if segment == _WHOLE_SYSTEM else _job_of(segment, key)


def _segment(name: str) -> str:
    """Any name as one segment."""
    if not name:
        raise Invalid("an empty name cannot be part of a key")
    try:
        encoded = quote(name, safe=_PLAIN)
    except UnicodeEncodeError as error:
        raise Invalid(f"name {name!r} is not valid Unicode: {error}") from error
    is_dots = not encoded.strip(".")
    return encoded.replace(".", "%2E") if is_dots else encoded


def _digits(number: int, digits: int) -> str:
    if not 0 <= number < 10**digits:
        raise Invalid(f"{number} is not a number of at most {digits} digits")
    return f"{number:0{digits}}"


def _parts(pattern: str, key: str) -> Sequence[str]:
    """The groups of a pattern that the whole key must match."""
    match = re.fullmatch(pattern, key)
    if not match:
        raise Invalid(f"key {key!r} is not of the form {pattern}")
    return match.groups()
