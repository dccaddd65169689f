"""What repositories, refs and commits look like.

What a job, a trigger or a remote says is only ever an argument to git, never an option or a program: that is seen to here, before git sees it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from distci.errors import Invalid

REMOTE_TRANSPORTS = ("git", "http", "https", "ssh")
LOCAL_TRANSPORT = "file"

COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")

_HOST = r"(?:[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\])"
_USER = r"[A-Za-z0-9._~%+][A-Za-z0-9._~%+-]*"
_URL = re.compile(rf"(?P<transport>git|https?|ssh)://(?:(?P<user>{_USER})@)?(?P<host>{_HOST}(?::[0-9]{{1,5}})?)/.+")
_SCP = re.compile(rf"(?:{_USER}@)?(?P<host>{_HOST}):(?![-:]|//).+")
_LOCAL = re.compile(r"(?:file://)?/.+")
_NO_REF = re.compile(r"[ ~^:?*\[\\]|\.\.|@\{|//|(^|/)\.|\.lock(/|$)|[./]$|^/|^@$")
"""What is in no name of a ref: see git-check-ref-format(1)."""


def transport_of(repository: str) -> str:
    """How a repository is reached; Invalid when it is not what a repository looks like."""
    plain(repository, "repository")
    url = _URL.fullmatch(repository)
    if url:
        return str(url["transport"])
    if _LOCAL.fullmatch(repository):
        return LOCAL_TRANSPORT
    if _SCP.fullmatch(repository):
        return "ssh"
    shown = re.sub("//[^/]*@", "//***@", repository)
    raise Invalid(
        f"repository {shown!r} is neither an absolute path nor USER@HOST:PATH nor a URL of git, http, https, ssh or "
        "file (a password does not belong in it, but in a secret that `credentials` names)"
    )


def host_of(repository: str) -> str:
    """The host that a repository is on, in small letters, with the port where one is named; empty for one of this machine."""
    match = _URL.fullmatch(repository) or (None if _LOCAL.fullmatch(repository) else _SCP.fullmatch(repository))
    return str(match["host"]).lower() if match else ""


def user_of(repository: str) -> str:
    """Whom a URL names; empty when nobody."""
    url = _URL.fullmatch(repository)
    return (url["user"] or "") if url else ""


def check_ref(ref: str) -> str:
    """The ref itself; Invalid when it is no name of a ref."""
    if _NO_REF.search(plain(ref, "ref")):
        raise Invalid(f"ref {ref!r} is neither a branch, a tag, a ref nor a commit")
    return ref


def check_commit(commit: str) -> str:
    """The commit itself; Invalid when it is not spelt out in full."""
    if not COMMIT.fullmatch(commit):
        raise Invalid(f"{commit!r} is not a commit with all of its digits")
    return commit


def plain(text: str, what: str) -> str:
    """The text itself; Invalid when git could take it for an option, or would print it strangely."""
    if text.startswith("-"):
        raise Invalid(f"{what} {text!r} begins with '-'")
    if CONTROL.search(text):
        raise Invalid(f"{what} {text!r} holds control characters")
    return text


def full_names(ref: str) -> Sequence[str]:
    """The refs that a name may stand for."""
    is_full = ref == "HEAD" or ref.startswith("refs/")
    return [ref] if is_full else [f"refs/heads/{ref}", f"refs/tags/{ref}"]


def is_same_ref(one: str, other: str) -> bool:
    """Whether two names may stand for one ref."""
    return not set(full_names(one)).isdisjoint(full_names(other))
