"""What commands and options are called by those who come from other tools, and what is meant by it here."""

from __future__ import annotations

from collections.abc import Collection

from distci.plan import did_you_mean, resembling

COMMANDS = {
    "abort": "build cancel",
    "access add": "access grant",
    "access remove": "access revoke",
    "agent": "worker run",
    "agents": "worker list",
    "apply": "job put",
    "artifacts": "artifact list",
    "build rebuild": "build retry",
    "build results": "test list",
    "build run": "build trigger",
    "build start": "build trigger",
    "build status": "build show",
    "builds": "build list",
    "cancel": "build cancel",
    "console": "build log",
    "convert": "job import",
    "create": "job put",
    "download": "artifact get",
    "help": "--help",
    "import": "job import",
    "job add": "job put",
    "job build": "build trigger",
    "job check": "job lint",
    "job convert": "job import",
    "job migrate": "job import",
    "job run": "build trigger",
    "job save": "job put",
    "job show": "job get",
    "job start": "build trigger",
    "job update": "job put",
    "job validate": "job lint",
    "jobs": "job list",
    "lint": "job lint",
    "list": "job list",
    "log": "build log",
    "logs": "build log",
    "migrate": "job import",
    "pause": "cluster pause",
    "pipeline": "job list",
    "pipelines": "job list",
    "ps": "build list",
    "queue": "ticket list",
    "rerun": "build retry",
    "restart": "build retry",
    "results": "test list",
    "resume": "cluster resume",
    "retry": "build retry",
    "runner": "worker run",
    "runners": "worker list",
    "runs": "build list",
    "serve": "frontend",
    "server": "up",
    "start": "build trigger",
    "status": "cluster status",
    "stop": "build cancel",
    "submit": "build trigger",
    "tail": "build log",
    "tests": "test list",
    "token add": "token create",
    "token delete": "token revoke",
    "trigger": "build trigger",
    "validate": "job lint",
    "version": "--version",
    "webhook": "hook list",
    "webhooks": "hook list",
    "worker start": "worker run",
    "worker stop": "worker drain",
    "workers": "worker list",
}
"""By the word, or by the group and the word where that means something else there."""

BUILDING = ("job", "build")
"""The groups in which a word alone means what it means without them."""

OPTIONS = {
    "--address": "--listen",
    "--bind": "--listen",
    "--concurrency": "--slots",
    "--env": "--parameter",
    "--executors": "--slots",
    "--host": "--listen",
    "--message": "--reason",
    "--port": "--listen",
    "--tail": "--follow",
    "--tags": "--label",
}


def meant(group: str, word: str, known: Collection[str]) -> str:
    """What to add to a message on a command that is not there; empty when nobody can tell. ``group`` is empty for the program itself."""
    found = COMMANDS.get(f"{group} {word}".strip())
    if not found and group in BUILDING and not resembling(word, known):
        found = COMMANDS.get(word)
    return f"; did you mean `distci {found}`?" if found else did_you_mean(word, known)
