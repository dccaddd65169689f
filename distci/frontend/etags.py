"""Entity tags: what tells one state of a thing from another (RFC 9110, 8.8.3), and what a request may make of it.

A reader that shows the tag of what it has gets 304 and no body; a writer that shows it is refused with 412 when somebody was first.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from distci.errors import NoSuchJob
from distci.frontend.problems import BadRequest, PreconditionFailed
from distci.jobs import Jobs

_TAG = re.compile(r'(W/)?"([!#-~\x80-\xff]*)"')
_LIST = re.compile(rf"\s*(?:{_TAG.pattern}\s*(?:,\s*|\Z))+")
ANY = "*"


def quoted(etag: str) -> str:
    """As it stands in a header."""
    return f'"{etag}"'


def digest(data: bytes) -> str:
    """A tag for these bytes."""
    return hashlib.sha256(data).hexdigest()[:32]


def tags(header: str, value: str, *, weak: bool) -> Sequence[str]:
    """The tags in a header, without quotes, ``*`` for any; weak ones only where they count. BadRequest for what is no list of tags."""
    if value.strip() == ANY:
        return [ANY]
    if not _LIST.fullmatch(value):
        raise BadRequest(f'{header} must be * or tags in quotes, such as "3"')
    return [tag for mark, tag in _TAG.findall(value) if weak or not mark]


def is_unchanged(if_none_match: str | None, etag: str) -> bool:
    """Whether a reader has this state already. Here a list that cannot be read is none: it costs no more than a body."""
    if if_none_match is None:
        return False
    try:
        known = tags("If-None-Match", if_none_match, weak=True)
    except BadRequest:
        return False
    return etag in known or ANY in known


def expected_version(jobs: Jobs, job: str, if_match: str | None, if_none_match: str | None) -> int | None:
    """The version of a job that a change was made on: 0 for none, None where the request does not say.

    Raises PreconditionFailed when another is in force, BadRequest when the request says what cannot be.
    """
    if if_none_match is not None:
        if tags("If-None-Match", if_none_match, weak=True) != [ANY] or if_match is not None:
            raise BadRequest(
                "If-None-Match can only be * here, which is: only if there is no such job; and not beside If-Match"
            )
        return 0
    if if_match is None:
        return None
    wanted = tags("If-Match", if_match, weak=False)
    try:
        version = jobs.get(job).version
    except NoSuchJob as error:
        raise PreconditionFailed(f"job {job} is not there (any more): {error}") from error
    if ANY not in wanted and str(version) not in wanted:
        raise PreconditionFailed(
            f"job {job} is at version {version} now, not {' or '.join(wanted) or 'a weak one'}; read it again"
        )
    return version
