"""The receiver port: what :mod:`distci.hooks` may rely on, whoever the sender is.

A receiver is pure: it does no I/O, keeps nothing, and any thread may call it at any time. Headers come with their names in lower case.
What the sender says is believed no further than its form: names, refs and commits are held to what they may look like before anything is
made of them (:class:`Change` refuses the rest), and an error names the place in the body.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from distci import repositories
from distci.errors import InvalidDocument
from distci.model import Json, Result

BODY_BYTES_MAX = 25 * 1024 * 1024
"""What GitHub sends at most; others send less."""

TEXT_LENGTH_MAX = 255
"""Characters of a ref, a branch, a delivery's id, a person's name: they share the build's node with much else."""

MESSAGE_LENGTH_MAX = 2000
PATHS_MAX = 10_000
ADDRESSES_MAX = 4

EVENTS = ("push", "tag", "pull_request")

Headers = Mapping[str, str]

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_NO_REF = re.compile(r"[\x00-\x20\x7f\ud800-\udfff~^:?*\[\\]|\.\.|@\{|//|(^|/)[.-]|\.lock(/|$)|[./]$|^/|^@$|^$")
_LOGIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}(\[bot\])?")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Change:
    """A commit that somebody wants to have built. InvalidDocument, naming the field, when made with what cannot be meant.

    What is merely for people is cut to size instead.
    """

    delivery: str
    """The sender's own name for this message, the same when it is sent again."""
    event: str
    """``push`` (a branch has moved), ``tag`` (one was made) or ``pull_request``."""
    repository: str
    """Full name on the forge."""
    urls: Sequence[str]
    """That it is fetched from."""
    ref: str
    """A ref in full, from which the commit can be fetched: ``refs/heads/main``."""
    commit: str
    branch: str = ""
    """That has moved, or that a pull request is to be merged into."""
    tag: str = ""
    before: str = ""
    """The commit that the branch was at; empty for a new one."""
    paths: Sequence[str] | None = None
    """The files that have changed; None where the message does not tell all of them."""
    actor: str = ""
    pull_request: int = 0
    message: str = ""
    """Of the commit, or the title of a pull request."""
    is_trusted: bool = True
    """False when the commit is of another repository, whose owners have no rights in this one."""

    def __post_init__(self) -> None:
        problems = [
            (self.event not in EVENTS, "event", f"is none of {', '.join(EVENTS)}"),
            (not repositories.is_full_name(self.repository), "repository", "is not owner/name"),
            (not _COMMIT.fullmatch(self.commit), "commit", "is not a commit with all of its digits"),
            (bool(self.before) and not _COMMIT.fullmatch(self.before), "before", "is not a commit"),
            (not self.ref.startswith("refs/"), "ref", "is not a ref in full"),
            (not self.delivery or _UNPRINTABLE.search(self.delivery) is not None, "delivery", "is no id"),
            (self.pull_request < 0, "pull_request", "is not a number of one"),
            (self.event != "tag" and not self.branch, "branch", "is missing"),
            (self.event == "tag" and not self.tag, "tag", "is missing"),
        ]
        problems += [
            (bool(_NO_REF.search(name)), field_name, "is no name that git allows")
            for field_name, name in (("ref", self.ref), ("branch", self.branch), ("tag", self.tag))
            if name
        ]
        problems += [
            (len(getattr(self, name)) > TEXT_LENGTH_MAX, name, f"is longer than {TEXT_LENGTH_MAX} characters")
            for name in ("delivery", "repository", "ref", "branch", "tag")
        ]
        for is_wrong, name, problem in problems:
            if is_wrong:
                raise InvalidDocument(f"{name}: {str(getattr(self, name))[:80]!r} {problem}")
        urls = dict.fromkeys(url for url in self.urls if repositories.address(url))
        object.__setattr__(self, "urls", tuple(urls)[:ADDRESSES_MAX])
        object.__setattr__(self, "actor", _UNPRINTABLE.sub(" ", self.actor)[:TEXT_LENGTH_MAX])
        object.__setattr__(self, "message", self.message[:MESSAGE_LENGTH_MAX])
        if self.paths is not None and len(self.paths) > PATHS_MAX:
            object.__setattr__(self, "paths", None)

    @property
    def addresses(self) -> Sequence[str]:
        """Where it is fetched from, each place once."""
        return tuple(dict.fromkeys(map(repositories.address, self.urls)))


@dataclass(frozen=True, slots=True)
class Command:
    """What somebody asks for in a comment of a pull request. InvalidDocument, naming the field, when made with what cannot be meant."""

    delivery: str
    """As of a change."""
    repository: str
    urls: Sequence[str]
    pull_request: int
    author: str
    """Who wrote it, as the forge calls them when they log in there."""
    word: str
    """One of :data:`distci.receivers.commands.WORDS`."""
    commit: str = ""
    """The beginning of the one that is meant; empty where it is not said."""

    def __post_init__(self) -> None:
        problems = [
            (not repositories.is_full_name(self.repository), "repository", "is not owner/name"),
            (not self.delivery or _UNPRINTABLE.search(self.delivery) is not None, "delivery", "is no id"),
            (len(self.delivery) > TEXT_LENGTH_MAX, "delivery", f"is longer than {TEXT_LENGTH_MAX} characters"),
            (self.pull_request < 1, "pull_request", "is not a number of one"),
            (not _LOGIN.fullmatch(self.author), "author", "is no name that people log in by"),
        ]
        for is_wrong, name, problem in problems:
            if is_wrong:
                raise InvalidDocument(f"{name}: {str(getattr(self, name))[:80]!r} {problem}")

    @property
    def names(self) -> Sequence[str]:
        """The repository's, and where it is fetched from, each once."""
        return tuple(dict.fromkeys((self.repository, *filter(None, map(repositories.address, self.urls)))))


@dataclass(frozen=True, slots=True)
class Ignored:
    """A message that starts nothing, whatever jobs there are."""

    delivery: str
    event: str
    reason: str


@dataclass(frozen=True, slots=True)
class Status:
    """How a build of a commit stands, for the forge."""

    repository: str
    commit: str
    result: Result | None
    """None while it is not over."""
    context: str
    """What the forge tells statuses of one commit apart by."""
    description: str
    url: str
    """Where people find the build; empty when there is no such place."""


@dataclass(frozen=True, slots=True)
class Call:
    """An HTTP request that tells a forge of a status, and how to see whether the forge knows it already."""

    url: str
    headers: Mapping[str, str]
    body: Mapping[str, Json]
    shown_at: str
    """The address at which the forge shows, to who asks with the same headers, what it knows of the commit."""
    is_shown_by: Callable[[Json], bool]
    """Whether what it shows there has this status as the latest of its context; False, too, for what cannot be read."""
    is_done_by: Sequence[tuple[int, str]] = ()
    """Answers besides 2xx that say that the forge knows already: a code, and what the body has in it."""


class Receiver(Protocol):
    """One sort of sender."""

    name: str
    """By which jobs, settings and URLs name it."""
    api_url: str
    """Where statuses are told to unless the settings say otherwise; empty when only they can say."""
    has_sealed_bodies: bool
    """Whether what proves the sender covers the body, and no two messages that mean something else have the same one. A body that
    comes again under another id, which no seal covers, then starts nothing."""

    def verify(self, headers: Headers, body: bytes, secrets: Sequence[str]) -> bool:
        """Whether the sender knows one of the secrets, found out in a time that tells nothing of them. There is one secret at least."""

    def read(self, headers: Headers, body: bytes) -> Change | Command | Ignored:
        """What the message says; InvalidDocument naming the place where it is not what it should be."""

    def call(self, api_url: str, token: str, status: Status) -> Call | None:
        """How the forge is told of a status; None for a sender who takes none."""
