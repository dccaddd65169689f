"""Names of repositories: when two of them mean the same one. Pure.

A repository has a full name on its forge, ``org/hello``, and URLs that it is fetched from. These differ by transport, user and ending while they lead to
the same place; :func:`address` is what they have in common.
"""

from __future__ import annotations

import re

LENGTH_MAX = 200
"""Characters of a name or URL: it becomes part of a key of the store, three times as long at worst."""

FULL_NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]+(/(?!\.)[A-Za-z0-9._-]+)+")
"""``owner/name``, or a longer path: groups of GitLab lie in each other."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?:[^/@]*@)?(?P<host>[^/:@]*)(?::[0-9]+)?(?P<path>/.*)")
_ADDRESS = re.compile(r"//(?P<host>[^/]*)(?P<path>/.+)")
_SCP = re.compile(r"(?:[^/:@]+@)(?P<host>[^/:@]+):(?P<path>(?!/).+)")
_NO_URL = re.compile(r"[^!-~]")


def is_full_name(text: str) -> bool:
    return len(text) <= LENGTH_MAX and FULL_NAME.fullmatch(text) is not None


def problem(repository: str) -> str:
    """What keeps a text from naming a repository; empty when nothing does."""
    if len(repository) > LENGTH_MAX:
        return f"is longer than {LENGTH_MAX} characters"
    if is_full_name(repository) or address(repository):
        return ""
    return f"{repository!r} is neither owner/name nor a URL"


def name(repository: str) -> str:
    """What two ways to write a repository have in common: the full name in lower case, or the :func:`address` of a URL."""
    return address(repository) or repository.lower().removesuffix(".git")


def address(url: str) -> str:
    """A URL without transport, user, port and ``.git``: ``//git.example.org/org/hello``; empty for what is no URL.

    Upper case is taken for lower case, as hosts and forges do; an absolute path is that of this machine. An address is its own.
    """
    match = _URL.fullmatch(url) or _ADDRESS.fullmatch(url) or _SCP.fullmatch(url)
    if _NO_URL.search(url) or len(url) > LENGTH_MAX:
        return ""
    if match:
        host, path = match["host"], match["path"]
    elif url.startswith("/"):
        host, path = "", url
    else:
        return ""
    way = path.strip("/").removesuffix(".git")
    return f"//{host}/{way}".lower() if way else ""
