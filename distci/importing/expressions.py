"""``${{ ... }}`` of GitHub's workflows: the simple ones, in words of DistCI."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)

NAMES: Mapping[str, str] = {
    "github.sha": "${DISTCI_COMMIT}",
    "github.ref": "${DISTCI_REF}",
    "github.ref_name": "${DISTCI_REF#refs/*/}",
    "github.base_ref": "${DISTCI_BRANCH}",
    "github.event_name": "${GITHUB_EVENT_NAME}",
    "github.event.number": "${DISTCI_PULL_REQUEST}",
    "github.event.pull_request.number": "${DISTCI_PULL_REQUEST}",
    "github.run_id": "${DISTCI_BUILD}",
    "github.run_number": "${DISTCI_BUILD}",
    "github.run_attempt": "${DISTCI_ATTEMPT}",
    "github.job": "${DISTCI_TASK}",
    "github.workspace": "${DISTCI_WORKSPACE}",
    "runner.os": "Linux",
    "runner.temp": "/tmp",
}

REFERENCE = re.compile(r"(matrix|env|inputs|secrets|github\.event\.inputs)\.([A-Za-z_][A-Za-z0-9_-]*)")
LITERAL = re.compile(r"'((?:[^']|'')*)'|(-?\d+(?:\.\d+)?)|(true|false)")
CALL = re.compile(r"format\((.*)\)", re.DOTALL)


def axis(name: str) -> str:
    """A name as parameters, variables and axes may have it."""
    fit = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return fit if not fit[:1].isdigit() and not re.fullmatch(r"CI|DISTCI.*", fit) else f"x_{fit}"


def translated(expression: str, secret: Callable[[str], str]) -> str | None:
    """What stands for an expression in a script: a variable, a value of the matrix, a literal; None where nothing does."""
    text = expression.strip()
    if text in NAMES:
        return NAMES[text]
    if match := REFERENCE.fullmatch(text):
        if match[1] == "matrix":
            return f"{{{axis(match[2])}}}"
        return f"${{{secret(match[2]) if match[1] == 'secrets' else axis(match[2])}}}"
    if match := LITERAL.fullmatch(text):
        return match[1].replace("''", "'") if match[1] is not None else match[0]
    if match := CALL.fullmatch(text):
        pattern, *values = [translated(part, secret) for part in _arguments(match[1])]
        if pattern is not None and None not in values:
            return re.sub(
                r"\{(\d)\}",
                lambda found: str(values[int(found[1])]) if int(found[1]) < len(values) else found[0],
                pattern,
            )
    return None


def _arguments(text: str) -> list[str]:
    return [part.strip() for part in re.findall(r"(?:'(?:[^']|'')*'|[^,'])+", text)]


def filled(text: str, secret: Callable[[str], str]) -> tuple[str, list[str]]:
    """A text with its expressions translated, and those that cannot be, which stay as they are."""
    left: list[str] = []

    def replace(found: re.Match[str]) -> str:
        value = translated(found[1], secret)
        if value is None:
            left.append(found[0])
        return found[0] if value is None else value

    return EXPRESSION.sub(replace, text), left


def as_test(expression: str) -> str | None:
    """The same question as a command of a shell; None where it is more than comparisons, ``&&``, ``||`` and ``!``."""
    text = expression.strip()
    if match := EXPRESSION.fullmatch(text):
        text = match[1].strip()
    tokens = re.findall(r"&&|\|\||==|!=|!|\(|\)|,|'(?:[^']|'')*'|[A-Za-z0-9_.-]+|\S", text)
    position = 0

    def peek() -> str:
        return tokens[position] if position < len(tokens) else ""

    def take() -> str:
        nonlocal position
        position += 1
        return tokens[position - 1] if position <= len(tokens) else ""

    def either() -> str | None:
        parts = [both()]
        while peek() == "||":
            take()
            parts.append(both())
        return None if None in parts else parts[0] if len(parts) == 1 else "{ " + " || ".join(map(str, parts)) + "; }"

    def both() -> str | None:
        parts = [single()]
        while peek() == "&&":
            take()
            parts.append(single())
        return None if None in parts else parts[0] if len(parts) == 1 else "{ " + " && ".join(map(str, parts)) + "; }"

    def single() -> str | None:
        if peek() == "!":
            take()
            found = single()
            return None if found is None else f"! {found}"
        if peek() == "(":
            take()
            found = either()
            return found if take() == ")" else None
        word = take()
        if word == "startsWith" and take() == "(":
            value, comma, start, end = take(), take(), take(), take()
            left, right = _word(value), _word(start)
            return (
                f'case "{left}" in "{right}"*) true ;; *) false ;; esac'
                if (comma, end) == (",", ")") and left and right is not None
                else None
            )
        left = _word(word)
        if left is None:
            return None
        if peek() in ("==", "!="):
            operator = take()
            right = _word(take())
            return None if right is None else f'[ "{left}" {"=" if operator == "==" else "!="} "{right}" ]'
        return (
            f'[ "{left}" = true ]' if word.startswith(("inputs.", "matrix.", "github.event.inputs.", "env.")) else None
        )

    found = either()
    return found if position == len(tokens) else None


def _word(token: str) -> str | None:
    """One side of a comparison, as it stands in double quotes; None where it has no counterpart, or is none of what a test needs."""
    if token.startswith("secrets."):
        return None
    found = translated(token, str)
    return None if found is None else re.sub(r"[\"`\\]", lambda match: f"\\{match[0]}", found)
