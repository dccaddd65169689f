"""Scripts as other systems have them, made into one that needs nothing of these."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from shlex import quote

from distci.importing.source import Source

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
DOLLAR = "\0"
"""Stands for a ``$`` that is none of a variable's, in texts that have variables."""

BASH = re.compile(
    r"\[\[ |<\(|<<<|\bpipefail\b|\bshopt\b|^\s*(source|declare|local -|function) |=\(|\$\{\w+(\[|,,|\^\^|//)",
    re.MULTILINE,
)
"""What bash knows and sh does not."""

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
    return '"' + re.sub(r"\$(?![A-Za-z_{])", r"\\$", escaped).replace(DOLLAR, "\\$") + '"'


def own_variables(script: str, known: Mapping[str, str], source: Source, *prefixes: str) -> str:
    """Lines that give a script those variables of the other system that it uses and that have a counterpart; the others are told."""
    lines = ""
    for name in variables_used(script):
        if name in known:
            lines += f'export {name}="{known[name]}"\n'
        elif name.startswith(prefixes):
            source.say(f"the script uses ${name}, which is not set here: say it in `environment`, or leave it out")
    return lines


def tell_filled_in(text: str, axes: Collection[str], source: Source) -> None:
    """Tell of what was a text of the script alone, and is a value of the matrix here."""
    for name in sorted(axes):
        if re.search(rf"(?<!\$)\{{{re.escape(name)}\}}", text):
            source.say(f"{{{name}}} in it is the matrix's value here: write it otherwise")


def shell_of(script: str) -> str:
    """The shell of a script that may run in any: empty for the usual one, where nothing in it wants another."""
    return "bash -e" if BASH.search(script) else ""


def in_a_file(command: str, body: str) -> str:
    """Lines that have a program run what is not for a shell."""
    end = "END_OF_STEP"
    while end in body:
        end += "_"
    return f'step=$(mktemp)\ncat > "$step" << \'{end}\'\n{joined(body)}{end}\n{command} "$step"\n'


def not_translated(what: str) -> str:
    """Lines that fail a task which does less than it should: better than one that passes."""
    return f"echo {quote(f'Not translated: {what}. Put in its place what it did.')} >&2\nexit 1\n"


def joined(*parts: str) -> str:
    """The parts of a script, each on lines of its own."""
    return "".join(part if part.endswith("\n") else f"{part}\n" for part in parts if part)
