"""Answers without the names of jobs that who asks may not read.

A build names others: those that its end started, those whose place it waits for, the one that it follows on. Whoever may read it may know how
many there are, but of what is hidden from them no more than :data:`HIDDEN`. All that is answered goes through here, so that an
endpoint cannot forget to; what people wrote and programs printed, word for word, is left as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from distci.documents.strict_json import read_json
from distci.model import BUILD_IN_TEXT, Json
from distci.protocol.records import QUOTA
from distci.protocol.tickets import TicketView
from distci.views import to_bytes, to_json
from distci.why import NOT_STARTED

HIDDEN = "a job that you may not see"

MayRead = Callable[[str], bool]
"""Whether somebody may read a job, or a project."""

_GIVEN = frozenset({"parameters", "presets", "name", "needs", "only", "task"})
"""What people gave, and goes by just that."""


def hidden(value: object, may_read: MayRead) -> Json:
    """The JSON form of what is answered, as who may read that is told."""
    return _hidden(to_json(value), may_read)


def hidden_document(document: bytes, may_read: MayRead) -> bytes:
    """The same of JSON that is written already; most has nothing to be hidden, and is not read."""
    named = {found[1] for found in BUILD_IN_TEXT.finditer(document.decode(errors="replace"))}
    if all(map(may_read, named)) and b'_downstream": {"' not in document:
        return document
    return to_bytes(_hidden(read_json(document, "what is told"), may_read))


def is_shown(view: TicketView, may_read: MayRead) -> bool:
    """Whether a ticket is of a job that who asks may read, or of none: others are not there."""
    ticket = view.ticket
    return ticket is None or may_read(str(ticket.body.get("build", "")).rpartition("#")[0] or ticket.project)


def lines(waiting: Mapping[str, int], may_read: MayRead) -> Mapping[str, int]:
    """How many wait for each permit, where a group may go by the name of a job that is hidden, and a quota by that of a project."""
    told: Counter[str] = Counter()
    for permit, number in waiting.items():
        sort, _, name = permit.partition(":")
        told[permit if may_read(name if sort in ("group", QUOTA) else permit) else HIDDEN] += number
    return told


def _hidden(value: Json, may_read: MayRead) -> Json:
    if isinstance(value, str):
        return (
            BUILD_IN_TEXT.sub(lambda found: found[0] if may_read(found[1]) else HIDDEN, value)
            if "#" in value
            else value
        )
    if isinstance(value, list):
        return [_hidden(item, may_read) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("state") == NOT_STARTED and not may_read(value["subject"]):
        return value | {"subject": HIDDEN, "because": f"{HIDDEN} would have followed on it", "remedy": ""}
    return {key: _member(key, item, may_read) for key, item in value.items()}


def _member(key: str, value: Json, may_read: MayRead) -> Json:
    if key in _GIVEN:
        return value
    if key == "upstream" and isinstance(value, str):
        return value if _hidden(value, may_read) == value else None
    if key in ("unreadable_downstream", "refused_downstream"):
        told = {job: why for job, why in value.items() if may_read(job)}
        return told | {f"{HIDDEN} ({number})": HIDDEN for number in range(1, len(value) - len(told) + 1)}
    if key in ("weights", "quotas"):
        return {project: its for project, its in value.items() if may_read(project)}
    if key == "waiting_for_permits":
        return dict(lines(value, may_read))
    return _hidden(value, may_read)
