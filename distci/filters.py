"""For which occasions a task runs: the branch, event, changed files and parameters that its ``if`` asks for. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from distci.model import Filter, Trigger

BRANCH = "refs/heads/"


@dataclass(frozen=True, slots=True)
class Occasion:
    """What a build is made for, as far as filters go by it."""

    event: str
    """``push``, ``tag`` or ``pull_request`` where a forge told of it; else ``manual``, ``job`` ..."""
    branch: str
    """That has moved, or that a pull request is to be merged into; empty where the trigger names none."""
    paths: Sequence[str] | None
    """The files that have changed; None where nobody knows them all."""
    parameters: Mapping[str, str]

    @classmethod
    def of(cls, trigger: Trigger, parameters: Mapping[str, str], paths: Sequence[str] | None) -> Occasion:
        """That of a build with this trigger; one that is run again has the occasion of the first."""
        delivery = trigger.delivery
        event = delivery.event if delivery else ("job" if trigger.upstream else "manual")
        branch = (delivery.branch if delivery else "") or (
            trigger.ref.removeprefix(BRANCH) if trigger.ref.startswith(BRANCH) else ""
        )
        return cls(event, branch, paths, parameters)


def why_not(wanted: Filter, occasion: Occasion) -> str:
    """Why a filter does not fit an occasion; empty when it does. Where nobody knows which files have changed, any may have."""
    if wanted.events and not fits(wanted.events, occasion.event):
        return f"event {occasion.event} is none of: {', '.join(wanted.events)}"
    if wanted.branches and not fits(wanted.branches, occasion.branch):
        named = f"branch {occasion.branch}" if occasion.branch else "the trigger names no branch, so it"
        return f"{named} is none of: {', '.join(wanted.branches)}"
    for name, values in wanted.parameters.items():
        if (value := occasion.parameters.get(name, "")) not in values:
            return f"parameter {name} is {value!r}, none of: {', '.join(map(repr, values))}"
    if wanted.paths and occasion.paths is not None and not any(fits(wanted.paths, path) for path in occasion.paths):
        return f"nothing has changed in: {', '.join(wanted.paths)}"
    return ""


def fits(globs: Sequence[str], text: str) -> bool:
    """Whether one of the globs matches; ``*`` stands for slashes too."""
    return any(fnmatchcase(text, glob) for glob in globs)
