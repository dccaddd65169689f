"""What other systems say of test reports, as a task's ``reports`` has it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from distci.errors import Invalid
from distci.importing.source import Source
from distci.model import Json
from distci.patterns import Pattern

_SKIPPED = r"\\Q.*?(?:\\E|\Z)|\\.|\[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\]"
"""Of an expression: what is quoted, and classes, in which a bracket begins no group."""
_PART = re.compile(rf"{_SKIPPED}|(?P<group>\((?:\?P?<\w+>|(?!\?)))", re.DOTALL)


def coverage(source: Source) -> str:
    """GitLab's expression with a group ``percent`` where its number is looked for: in the last group, else in all that is matched. Empty, and told, where RE2 cannot match it."""
    text = source.text()
    if len(text) > 1 and text.startswith("/") and text.endswith("/"):
        text = text[1:-1]
    groups = [part for part in _PART.finditer(text) if part["group"]]
    if groups:
        last = groups[-1]
        text = f"{text[: last.start()]}(?P<percent>{text[last.end() :]}"
    else:
        text = f"(?P<percent>{text})"
    try:
        Pattern(text, ["percent"])
    except Invalid as error:
        source.note(f"(dropped: it {error})")
        return ""
    source.say(f"is `reports.coverage` here: {text}")
    return text


def paths(source: Source, texts: Sequence[str]) -> list[str]:
    """Those patterns of files with JUnit XML that lie within the workspace; the others are told."""
    found = []
    for text in texts:
        fit = text.strip().removeprefix("./")
        if not fit or fit.startswith(("/", "-", "!", "~")) or ".." in fit.split("/") or "$" in fit:
            source.say(f"{text.strip()!r} is no path within the workspace, or is computed; dropped: write it out")
        else:
            found.append(fit)
    if found:
        source.say("is `reports.junit` here: read however the script ends, and counted")
    return list(dict.fromkeys(found))


def is_reporter(step: Source) -> bool:
    """Whether a step of GitHub's does no more than tell of JUnit XML that those before it have written."""
    found = _REPORTER.fullmatch(str(step["uses"].value))
    if found is None:
        return False
    format_wanted = step["with"]["reporter"].value
    return format_wanted is None or _JUNIT.fullmatch(str(format_wanted)) is not None


def reports_of(step: Source) -> dict[str, Json]:
    """What such a step comes to; nothing, and told, where its files are not known."""
    uses, given = step["uses"], step["with"]
    action = _ACTIONS[_REPORTER.fullmatch(uses.text())[1].lower()]  # type: ignore[index]
    named = next((given[name] for name in action.files if name in given), None)
    junit = paths(named, re.split(r"[,\n]+", named.text().strip())) if named else paths(uses, [action.usual])
    given["reporter"].use()
    step["name"].note("(dropped: what is read has no name)")
    step["id"].note("(outputs of steps are not there)")
    step["timeout-minutes"].note("(only whole tasks have a time limit)")
    if _HOWEVER.fullmatch(str(step["if"].value)):
        step["if"].use()
    else:
        step["if"].note("(dropped: what is there is read whenever the script has run)")
    is_failing = given[action.failing].truth(action.fails) and not step["continue-on-error"].truth()
    # Where the script itself has passed, the tests decide.
    return {"junit": junit, **({"exit_statuses": [0]} if is_failing else {})} if junit else {}


@dataclass(frozen=True)
class _Action:
    """What an action calls its inputs."""

    files: Sequence[str]
    failing: str
    """What has a failed test fail the job."""
    fails: bool = False
    """Whether that is so by default."""
    usual: str = ""
    """Its files, by default."""


_ACTIONS = {
    "dorny/test-reporter": _Action(("path",), "fail-on-error", fails=True),
    "mikepenz/action-junit-report": _Action(("report_paths",), "fail_on_failure", usual="**/junit-reports/TEST-*.xml"),
    "enricomi/publish-unit-test-result-action": _Action(("junit_files", "files"), "action_fail"),
}
_REPORTER = re.compile(rf"({'|'.join(_ACTIONS)})(?:/[\w/-]+)?@.+", re.IGNORECASE)
_JUNIT = re.compile(r"[a-z]+-junit|python-xunit|swift-xunit")
"""Formats that are JUnit XML, as the first of them calls them."""
_HOWEVER = re.compile(r"(\$\{\{)?\s*(always\(\)|success\(\) \|\| failure\(\)|!\s*cancelled\(\))\s*(\}\})?")
"""Conditions of a step that is for all ends of those before it."""
