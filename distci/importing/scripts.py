"""Scripts as other systems have them, made into one that needs nothing of these."""

from __future__ import annotations

import re
from collections.abc import Mapping
from shlex import quote

from distci.importing.source import Source

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
OWN = re.compile(r"CI|DISTCI.*")
"""Variables that DistCI sets itself."""

_USED = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)")


def variables_used(text: str) -> list[str]:
    """Names of the variables that a script mentions, each once."""
    return list(dict.fromkeys(_USED.findall(text)))


def exports(variables: Mapping[str, str]) -> str:
    """Lines that set variables whose values name others."""
    return "".join(f"export {name}={in_double_quotes(value)}\n" for name, value in variables.items())


def in_double_quotes(value: str) -> str:
    """A text in which ``$NAME`` and ``${NAME}`` are variables, and nothing else means anything to a shell."""
    escaped = re.sub(r"[\\\"`]", lambda found: f"\\{found[0]}", value)
    return '"' + re.sub(r"\$(?![A-Za-z_{])", r"\\$", escaped) + '"'


def own_variables(script: str, known: Mapping[str, str], prefixes: tuple[str, ...], source: Source) -> str:
    """Lines that give a script those variables of the other system that it uses and that have a counterpart; the others are told."""
    lines = {}
    for name in variables_used(script):
        if name in known:
            lines[name] = known[name]
        elif name.startswith(prefixes) and name not in ("CI",):
            source.say(f"the script uses ${name}, which is not set here: say it in `environment`, or leave it out")
    return exports(lines)


def not_translated(what: str) -> str:
    """Lines that fail a task which does less than it should: better than one that passes."""
    return f"echo {quote(f'Not translated: {what}. Put in its place what it did.')} >&2\nexit 1\n"


def joined(*parts: str) -> str:
    """The parts of a script, each on lines of its own."""
    return "".join(part if part.endswith("\n") else f"{part}\n" for part in parts if part)
