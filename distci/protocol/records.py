"""What the nodes of the tree hold: tickets, offers, claims on record; and their JSON forms.

A ticket is the offer of one piece of work of a *kind*; an offer is what a worker can do. Which ticket a worker may
claim is decided here and nowhere else: :meth:`Offer.accepts`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from distci.coordination.port import Node, check_path
from distci.errors import Invalid, InvalidDocument
from distci.model import Hold, Json, Permit
from distci.projects import SYSTEM, lineage
from distci.protocol import paths

FORMAT = 1
"""Format of every node that this version writes."""


@dataclass(frozen=True, slots=True)
class Formats:
    """The formats of trees that a version speaks, from the oldest to the newest."""

    oldest: int = FORMAT
    newest: int = FORMAT

    def __str__(self) -> str:
        return str(self.newest) if self.oldest == self.newest else f"{self.oldest} to {self.newest}"


TICKET_ID = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9._:,=+\[\]-]{0,99}")
KIND = re.compile(r"[a-z0-9][a-z0-9.-]{0,39}")
BODY_BYTES_MAX = 8 * 1024
WEIGHT_MIN, WEIGHT_MAX = 0.01, 100.0
PERMIT_LIMIT_MAX = 1000
"""Parking a ticket checks every slot of its permit, in one transaction."""
QUOTA = "quota"
"""What the names of the permits begin with that quotas are kept by."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """The offer of one piece of work; the only thing that is ever claimed.

    Raises :class:`~distci.errors.Invalid` when made with an id, kind, priority, guard, permit or body that the tree cannot carry.
    """

    id: str
    """Chosen by whoever posts, so that posting twice is refused and not doubled. Letters, digits, ``._:,=+[]-``."""
    kind: str
    body: Mapping[str, Json] = field(default_factory=dict)
    """What the worker is told: JSON, at most 8 KiB."""
    labels: Sequence[str] = ()
    """All of these must be offered: a word, or ``key=glob``."""
    priority: int = 5
    """0 (first) to 9 (last)."""
    project: str = ""
    """Tickets of different projects take turns."""
    guard: str = ""
    """Path of a node without which the ticket is void; empty for none."""
    attempts: int = 3
    """Claims after which it is set aside if every one of them was lost."""
    permits: Sequence[Permit] = ()
    uses_quota: bool = True
    """Whether its claims count against the quotas of its project."""
    limit_s: float = 0
    """Seconds, by the tree's own times, after which a claim that nobody has renewed is taken over though its worker's heart beats; 0: never."""
    attempt: int = 1
    posted_ms: int = 0
    """When it was first posted, by the clock of who posted it; kept when it is claimed again."""
    traceparent: str = ""
    """The trace that it is part of (:mod:`distci.tracing`); by default that of whoever posts it."""
    declined_by: str = ""
    """The worker that has just given it back unworked, and so leaves it to others for a moment; empty for none."""

    def __post_init__(self) -> None:
        if not TICKET_ID.fullmatch(self.id):
            raise Invalid(f"ticket id {self.id!r} must be 1 to 100 letters, digits or '._:,=+[]-'")
        if not KIND.fullmatch(self.kind):
            raise Invalid(f"ticket {self.id}: kind {self.kind!r} must be lower-case letters, digits, '.' or '-'")
        if not 0 <= self.priority <= 9:
            raise Invalid(f"ticket {self.id}: priority {self.priority} is not between 0 and 9")
        if self.attempts < 1:
            raise Invalid(f"ticket {self.id}: attempts must be at least 1")
        if self.guard:
            check_path(self.guard)
        for permit in self.permits:
            check_path(paths.permit(permit.name, 0))
            if not 1 <= permit.limit <= PERMIT_LIMIT_MAX:
                raise Invalid(
                    f"ticket {self.id}: the limit of permit {permit.name!r} is not between 1 and {PERMIT_LIMIT_MAX}"
                )

    @property
    def token(self) -> str:
        """The fencing token of the attempt that claims it next, or that holds it: ``<id>.<attempt>``."""
        return paths.token(self.id, self.attempt)

    def name(self, reserved: str = "") -> str:
        """Its node's name in the queue; ``reserved`` says whose it is for a moment, or whose it is not (:class:`~distci.protocol.paths.Name`)."""
        tag = paths.project_tag(self.project)
        return str(paths.Name(self.priority, tag, self.posted_ms, self.id, self.attempt, reserved))

    @property
    def pool(self) -> str:
        return paths.pool(self.kind, self.labels)

    def again(self) -> Ticket:
        """The same ticket for its next attempt."""
        return replace(self, attempt=self.attempt + 1, declined_by="")

    def spared(self, claims_max: float = math.inf) -> Ticket:
        """The same ticket with one attempt more, in place of the present one; as it is once it has been claimed that often, lest it go round for ever."""
        return replace(self, attempts=self.attempts + 1) if self.tries < claims_max else self

    @property
    def tries(self) -> int:
        """How many claims there have been of it, this one counted, since it was posted in the present tree."""
        return (self.attempt - 1) % paths.EPOCH_ATTEMPTS + 1

    @property
    def is_exhausted(self) -> bool:
        """Whether the present attempt is the last one allowed."""
        return self.attempt >= self.attempts

    def to_bytes(self) -> bytes:
        document: dict[str, Json] = {
            "f": FORMAT,
            "id": self.id,
            "kind": self.kind,
            "attempt": self.attempt,
            "posted_ms": self.posted_ms,
        }
        optional = {
            "body": dict(self.body),
            "labels": list(self.labels),
            "project": self.project,
            "guard": self.guard,
            "permits": [[permit.name, permit.limit] for permit in self.permits],
            "limit_s": self.limit_s,
            "traceparent": self.traceparent,
            "declined_by": self.declined_by,
        }
        document.update({key: value for key, value in optional.items() if value})
        if self.priority != 5:
            document["priority"] = self.priority
        if self.attempts != 3:
            document["attempts"] = self.attempts
        if not self.uses_quota:
            document["uses_quota"] = False
        data = to_bytes(document)
        if len(data) > BODY_BYTES_MAX:
            raise Invalid(f"ticket {self.id} is {len(data)} bytes long; at most {BODY_BYTES_MAX} fit into the tree")
        return data

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Ticket:
        """Read a ticket; :class:`~distci.errors.InvalidDocument`, naming ``where``, when it is not one."""
        return cls._from_json(from_bytes(data, where), where)

    @classmethod
    def waiting(cls, data: bytes, path: str) -> Ticket:
        """Read a ticket that waits at a path; InvalidDocument when there is none, or one that stands under another's name."""
        ticket = cls.from_bytes(data, path)
        if not path.rpartition("/")[2].partition("~")[0].endswith(ticket.name()):
            raise InvalidDocument(f"{path}: the ticket in it is {ticket.token}")
        return ticket

    @classmethod
    def _from_json(cls, document: Mapping[str, Json], where: str) -> Ticket:
        try:
            return cls(
                id=_text(document["id"]),
                kind=_text(document["kind"]),
                body=_mapping(document.get("body", {})),
                labels=tuple(_text(label) for label in document.get("labels", ())),
                priority=int(document.get("priority", 5)),
                project=_text(document.get("project", "")),
                guard=_text(document.get("guard", "")),
                attempts=int(document.get("attempts", 3)),
                permits=tuple(Permit(_text(name), int(limit)) for name, limit in document.get("permits", ())),
                uses_quota=document.get("uses_quota") is not False,
                limit_s=float(document.get("limit_s", 0)),
                attempt=int(document["attempt"]),
                posted_ms=int(document["posted_ms"]),
                traceparent=_text(document.get("traceparent", "")),
                declined_by=_text(document.get("declined_by", "")),
            )
        except (KeyError, TypeError, ValueError, Invalid) as error:
            raise InvalidDocument(f"{where}: not a ticket: {error}") from error


@dataclass(frozen=True, slots=True)
class Running:
    """A claimed ticket as the tree records it."""

    ticket: Ticket
    worker: str
    nonce: str
    """Tells one claim from another after a lost answer."""
    slots: Sequence[tuple[str, int]] = ()
    """The permit slots that this claim holds: (permit name, slot)."""
    lease_s: float = 0
    """Of a worker without a session: for how long the claim stands, by the tree's own times, unless it is renewed; 0: as long as a session lives."""
    progress: int | None = None
    """How far the work says that it is, in percents; None where it does not say."""
    hold: Hold | None = None
    """What became of the work, where it is over and held; None otherwise."""

    @property
    def limit_s(self) -> float:
        """How long the claim may stand without being renewed; 0: for ever, as long as its heart beats."""
        return self.lease_s or self.ticket.limit_s

    def told(self, progress: int | None, hold: Hold | None) -> Running:
        """The same with what is told of its work; where that says no more how far it is, what it said last stands."""
        return replace(self, progress=self.progress if progress is None else progress, hold=hold)

    def to_bytes(self) -> bytes:
        document = {
            "f": FORMAT,
            "worker": self.worker,
            "nonce": self.nonce,
            "ticket": from_bytes(self.ticket.to_bytes(), "ticket"),
        }
        if self.slots:
            document["slots"] = [list(slot) for slot in self.slots]
        if self.lease_s:
            document["lease_s"] = self.lease_s
        if self.progress is not None:
            document["progress"] = self.progress
        if self.hold is not None:
            document["hold"] = {"until_ms": self.hold.until_ms, "reason": self.hold.reason}
        return to_bytes(document)

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Running:
        """Read it back; :class:`~distci.errors.InvalidDocument`, naming ``where``, when it is something else."""
        document = from_bytes(data, where)
        try:
            ticket = Ticket._from_json(_mapping(document["ticket"]), where)
            slots = tuple((_text(name), int(slot)) for name, slot in document.get("slots", ()))
            for slot in slots:
                check_path(paths.permit(*slot))
            lease_s = float(document.get("lease_s", 0))
            progress = int(document["progress"]) if "progress" in document else None
            told = _mapping(document["hold"]) if "hold" in document else None
            hold = Hold(int(told["until_ms"]), _text(told["reason"])) if told else None
            return cls(ticket, _text(document["worker"]), _text(document["nonce"]), slots, lease_s, progress, hold)
        except (KeyError, TypeError, ValueError, Invalid) as error:
            raise InvalidDocument(f"{where}: not a claimed ticket: {error}") from error


@dataclass(frozen=True, slots=True)
class Offer:
    """What a worker can do."""

    kinds: Sequence[str]
    labels: Sequence[str] = ()
    """Words and ``key=value`` pairs that tickets may ask for."""
    only: Sequence[str] = ()
    """Take no ticket that does not ask for one of these labels."""

    def accepts(self, kind: str, labels: Sequence[str]) -> bool:
        """Whether a ticket of that kind, asking for these labels, may be claimed under this offer."""
        if kind not in self.kinds:
            return False
        if not all(map(self.offers, labels)):
            return False
        return not self.only or any(label_matches(asked, kept) for asked in labels for kept in self.only)

    def offers(self, asked: str) -> bool:
        """Whether a ticket may ask for this label."""
        return any(label_matches(asked, offered) for offered in self.labels)

    @property
    def name(self) -> str:
        """A node name that equal offers share: workers of one offer go idle in one folder."""
        return ";".join(paths.words(sorted(part)) for part in (self.kinds, self.labels, self.only))

    @classmethod
    def parse(cls, name: str) -> Offer:
        """The offer that such a name stands for; :class:`~distci.errors.Invalid` when it stands for none."""
        parts = name.split(";")
        if len(parts) != 3:
            raise Invalid(f"{name!r} is not an offer")
        kinds, labels, only = (tuple(paths.unwords(part)) if part else () for part in parts)
        return cls(kinds, labels, only)


@dataclass(frozen=True, slots=True)
class Control:
    """What every claim goes by: it checks the version, so a change holds for all claims from then on."""

    version: int
    paused: Sequence[str]
    """The kinds that nobody may claim tickets of; ``*`` is all."""
    weights: Mapping[str, float]
    """By project; 1 for those not named."""
    quotas: Mapping[str, int]
    """How many tickets of a project, and of all within it, may be claimed at once; no bound for those not named."""

    def pauses(self, kind: str) -> bool:
        return kind in self.paused or "*" in self.paused

    @property
    def weight_by_tag(self) -> Mapping[str, float]:
        """The weights, by the tags that names of tickets carry."""
        return {paths.project_tag(project): weight for project, weight in self.weights.items()}

    def permits(self, ticket: Ticket) -> Sequence[Permit]:
        """All that a claim of the ticket takes: what it asks for itself, and a place in each quota that it falls under."""
        names = quota_permits(ticket) if self.quotas else {}
        quotas = [Permit(name, self.quotas[project]) for project, name in names.items() if project in self.quotas]
        return [*ticket.permits, *quotas]

    @classmethod
    def from_node(cls, node: Node, where: str) -> Control:
        """Read it; :class:`~distci.errors.InvalidDocument`, naming ``where``, when it is something else."""
        document = from_bytes(node.data, where)
        try:
            paused = tuple(_text(kind) for kind in document.get("paused", ()))
            weights = {
                project: check_weight(project, weight)
                for project, weight in _mapping(document.get("weights", {})).items()
            }
            quotas = {
                project: check_quota(project, quota) for project, quota in _mapping(document.get("quotas", {})).items()
            }
        except (TypeError, ValueError, Invalid) as error:
            raise InvalidDocument(f"{where}: {error}") from error
        return cls(node.stat.version, paused, weights, quotas)


def quota_permits(ticket: Ticket) -> Mapping[str, str]:
    """The names of the permits that quotas are kept by, by project: that of the ticket, and those it lies within."""
    projects = lineage(ticket.project) if ticket.uses_quota else ()
    return {project: quota_permit(project) for project in projects if project != SYSTEM}


def quota_permit(project: str) -> str:
    """The name of the permit that the quota of a project is kept by."""
    return f"{QUOTA}:{project}"


def check_quota(project: str, quota: Json) -> int:
    """The quota of a project, between 1 and 1,000; :class:`~distci.errors.Invalid` when it is none."""
    if isinstance(quota, bool) or not isinstance(quota, int) or not 1 <= quota <= PERMIT_LIMIT_MAX:
        raise Invalid(f"quota {quota!r} of project {project!r} is not a whole number between 1 and {PERMIT_LIMIT_MAX}")
    return quota


def check_weight(project: str, weight: Json) -> float:
    """The weight of a project, between 0.01 and 100; :class:`~distci.errors.Invalid` when it is none."""
    if not isinstance(weight, int | float) or not WEIGHT_MIN <= weight <= WEIGHT_MAX:
        raise Invalid(f"weight {weight!r} of project {project!r} is not between {WEIGHT_MIN:g} and {WEIGHT_MAX:g}")
    return float(weight)


def label_matches(asked: str, offered: str) -> bool:
    """``key=glob`` against ``key=value``, or a word against the same word."""
    asked_key, asked_mark, glob = asked.partition("=")
    offered_key, offered_mark, value = offered.partition("=")
    return asked_key == offered_key and asked_mark == offered_mark and fnmatchcase(value, glob)


def to_bytes(document: Mapping[str, Json]) -> bytes:
    """Compact JSON in a fixed order, so that equal documents are equal bytes."""
    text = json.dumps(document, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    # Half a surrogate pair, as in the name of a file that is not UTF-8, becomes JSON's own escape for it.
    return text.encode(errors="backslashreplace")


def from_bytes(data: bytes, where: str) -> dict[str, Any]:
    """Read a node's JSON object; :class:`~distci.errors.InvalidDocument`, naming ``where``, when it is none."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidDocument(f"{where}: not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidDocument(f"{where}: not a JSON object")
    if document.get("f") != FORMAT:
        raise InvalidDocument(f"{where}: format {document.get('f')!r}; this version reads {FORMAT}")
    return document


def _text(value: Json) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _mapping(value: Json) -> Mapping[str, Json]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is not an object")
    return value
