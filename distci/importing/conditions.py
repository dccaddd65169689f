"""For which builds a task runs, as other systems say it: alternatives in their order, of which the first that fits decides."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from shlex import quote

from distci.model import Json

PARTS = ("events", "branches", "paths")


@dataclass(frozen=True, slots=True)
class Alternative:
    """Builds that one of several rules is about: globs, one of which must match in each part; an empty part fits all."""

    events: tuple[str, ...] = ()
    branches: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    runs: bool = True
    """Whether the task runs in these builds, or not."""

    def parts(self) -> dict[str, list[str]]:
        return {name: [*globs] for name in PARTS if (globs := getattr(self, name))}


@dataclass(frozen=True, slots=True)
class Condition:
    """How a task is kept to its builds: by its ``if``, or by the first lines of its script; or in a way that DistCI has not."""

    filter: dict[str, Json] | None = None
    guard: str = ""
    """Lines that end the script at once in other builds."""
    is_translated: bool = True


def condition(alternatives: Sequence[Alternative]) -> Condition:
    """What keeps a task to the builds of one of the alternatives; nothing where there are none."""
    if not alternatives:
        return Condition()
    while alternatives and not alternatives[-1].runs:
        # What no rule is about does not run anyway.
        alternatives = alternatives[:-1]
    if not alternatives:
        return Condition(is_translated=False)
    if all(item.runs for item in alternatives):
        if any(not item.parts() for item in alternatives):
            return Condition()
        if (united := _united(alternatives)) is not None:
            return Condition(filter=united)
    if any(item.paths for item in alternatives):
        return Condition(is_translated=False)
    return Condition(guard=_guard(alternatives))


def _united(alternatives: Sequence[Alternative]) -> dict[str, list[str]] | None:
    """One filter for all of them: where they differ in one part at most."""
    found = [item.parts() for item in alternatives]
    differing = [name for name in PARTS if any(parts.get(name) != found[0].get(name) for parts in found)]
    if len(differing) > 1 or any(name not in parts for name in differing for parts in found):
        return None
    union = {name: list(dict.fromkeys(glob for parts in found for glob in parts[name])) for name in differing}
    return {name: union.get(name, found[0].get(name, [])) for name in PARTS if name in union or name in found[0]}


def _guard(alternatives: Sequence[Alternative]) -> str:
    lines = ['case "$DISTCI_EVENT:$DISTCI_BRANCH" in']
    for item in alternatives:
        events = ["" if event == "manual" else event for event in item.events] or ["*"]
        patterns = [f"{_word(event)}:{_word(branch)}" for event in events for branch in item.branches or ("*",)]
        lines.append(f"  {'|'.join(patterns)}) {'' if item.runs else LEAVE + ' '};;".replace(") ;;", ") ;;"))
    if alternatives[-1].parts() or not alternatives[-1].runs:
        lines.append(f"  *) {LEAVE} ;;")
    return "\n".join([*lines, "esac", ""])


LEAVE = "echo 'Not for this build.'; exit 0"


def _word(glob: str) -> str:
    """A glob as a pattern of ``case``, in which nothing else means anything."""
    return "".join(part if part in "*?" else quote(part) for part in re.split(r"([*?])", glob) if part)


BRANCH_LETTERS = re.compile(r"[A-Za-z0-9._/@-]")


def glob_of(expression: str) -> str | None:
    """The glob that means what a simple regular expression does: ``^release\\/.*$`` is ``release/*``; None where there is none."""
    text = expression.replace("\\/", "/")
    start, end = text.startswith("^"), text.endswith("$") and not text.endswith("\\$")
    text = text.removeprefix("^")
    text = text[:-1] if end else text
    glob = ""
    position = 0
    while position < len(text):
        rest = text[position:]
        if rest.startswith((".*", ".+")):
            glob, position = f"{glob}*", position + 2
        elif rest[0] == "\\" and len(rest) > 1 and rest[1] in ".-_/+":
            glob, position = glob + rest[1], position + 2
        elif BRANCH_LETTERS.fullmatch(rest[0]) and rest[0] != "." and rest[1:2] not in ("*", "+", "?", "{"):
            glob, position = glob + rest[0], position + 1
        else:
            return None
    glob = glob if start else f"*{glob}"
    return (glob if end else f"{glob}*").replace("**", "*")
