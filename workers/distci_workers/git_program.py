"""Git as DistCI runs it: with no configuration but the one made here, for one remote, and no longer than that says something."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from distci.errors import Invalid
from distci.model import Outcome, Task, Verdict
from distci.work import Cause, Ended, TaskContext
from distci_workers.git_names import (
    CONTROL,
    LOCAL_TRANSPORT,
    host_of,
    transport_of,
    user_of,
)

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
"""Variables that a job may give git, in small or capital letters."""

TOKEN_USER = "x-access-token"
"""Who a bare token belongs to. GitHub, GitLab and Gitea look at the token alone."""

SILENCE_S = 60.0
"""How long git may print nothing while it waits for a server. It tells of its progress every second."""

OUTPUT_BYTES_MAX = 64 * 1024
"""How much of what git printed last is looked at; the log has it all."""

REASON_LENGTH_MAX = 300

_CONFIGURATION = """\
[core]
	hooksPath = /dev/null
[safe]
	directory = *
[maintenance]
	auto = false
[checkout]
	workers = 0
[fetch]
	unpackLimit = 1
	recurseSubmodules = false
[http]
	lowSpeedLimit = 1000
	lowSpeedTime = 60
[advice]
	detachedHead = false
"""
"""Of git while it checks out: no programs, the repositories of other users, no housekeeping, files written by all processors, what is fetched kept in packs, as mirrors want it,
no waiting for servers that fell silent."""

_LFS = """\
[filter "lfs"]
	process = git-lfs filter-process
	required = true
"""

_SSH = (
    *("ssh", "-F", "/dev/null", "-o", "BatchMode=yes", "-o", "ConnectTimeout=30", "-o", "ServerAliveInterval=15"),
    # What the task's host_keys and /etc/ssh/ssh_known_hosts say of a host holds, and no other host is spoken to.
    *("-o", "StrictHostKeyChecking=yes", "-o", "UpdateHostKeys=no", "-o", "IdentitiesOnly=yes"),
)

_EXPLANATIONS = (
    ("'lfs' is not a git command", "git-lfs is not installed on this worker"),
    (
        "Host key verification failed|No .* host key is known",
        "name the right key of that host in `host_keys`, as `ssh-keyscan HOST` prints it, once you know that it is the right one",
    ),
    (
        "could not read (Username|Password)|Authentication failed|[Pp]ermission denied",
        "does `credentials` name the right secret?",
    ),
    ("[Rr]epository .*not (found|exported)|[Nn]o such repository|does not appear to be a git", "no such repository"),
    ("not our ref|unable to read tree|not a tree|unadvertised object", "the repository has no such commit"),
    ("would be overwritten by checkout", "check out into a `directory` of its own"),
)
"""Lines of git that tell more than others do, and what they mean."""

_LISTED = re.compile(rb"([0-9a-f]{40}|[0-9a-f]{64})\t(\S+)")
"""A line of ``git ls-remote``."""

_PROGRESS = re.compile(rb"[^\r\n]*\r(?!\n)")
"""What the next word takes the place of on a terminal."""


class Reached(Protocol):
    """What git has to know of a remote."""

    @property
    def repository(self) -> str: ...
    @property
    def credentials(self) -> Mapping[str, str]:
        """Names of secrets, by the host that they are for."""

    @property
    def host_keys(self) -> Sequence[str]: ...
    @property
    def lfs(self) -> bool: ...


class GitFailed(Exception):
    """Git did not do what it was asked to; ``outcome`` is what that means for the task."""

    def __init__(self, outcome: Outcome, printed: bytes = b"") -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome
        self.printed = printed


class Listed:
    """What a remote lists of its refs: those that are asked for, and of all tags no more than a digest. However many it has, that is of bounded size."""

    TAGS = "refs/tags/"

    def __init__(self, names: Sequence[str]) -> None:
        self.patterns = [pattern for name in names for pattern in (name, f"{name}^{{}}")]
        self.found: dict[str, str] = {}
        """What the refs name that are asked for, with ``^{}`` behind the name: the commits that annotated tags name."""
        self._tags = hashlib.sha256()

    @property
    def tags(self) -> str:
        """The same for the same tags, whatever else the remote has."""
        return self._tags.hexdigest()

    def take(self, line: bytes) -> bool:
        """Take a line of git's; whether people should see it."""
        listed = _LISTED.fullmatch(line)
        if not listed:
            return True
        name = listed[2].decode(errors="replace")
        if name.startswith(self.TAGS):
            self._tags.update(line)
        if name in self.patterns:
            self.found[name] = listed[1].decode()
        return name in self.patterns


class Git:
    """Git in one directory, for one remote."""

    def __init__(self, context: TaskContext, directory: Path, remote: Reached, name: str) -> None:
        """``name`` is what files of this git are called by, unlike those of the attempt's others."""
        self._context = context
        self._directory = directory
        self._name = name
        self._remote = remote
        self._environment = self._make_environment()

    def ask(self, command: Sequence[str]) -> bytes:
        """What a command prints that only looks, and has not much to say. Exit status 1 is git's word for nothing."""
        printed = b""

        def output(data: bytes) -> None:
            nonlocal printed
            printed += data
            if len(printed) > OUTPUT_BYTES_MAX:
                raise Invalid(f"{shlex.join(command[:3])} has more than {OUTPUT_BYTES_MAX} bytes to say")

        script = f"{shlex.join(command)} 2>/dev/null"
        ended = self._context.run(["/bin/sh", "-c", script], self._directory, self._environment, output)
        if ended.exit_status != 1:
            self._end(ended, printed)
        return printed

    def list_refs(self, listed: Listed, silence_s: float) -> None:
        """Ask the remote which refs it has. Raises GitFailed."""
        printed = begun = b""

        def output(data: bytes) -> None:
            nonlocal printed, begun
            *lines, begun = (begun + data).split(b"\n")
            told = b"".join(line + b"\n" for line in lines if listed.take(line))
            printed = (printed + told)[-OUTPUT_BYTES_MAX:]
            self._context.write(told)

        command = ["git", "ls-remote", "--", self._remote.repository, *listed.patterns, f"{listed.TAGS}*"]
        script = shlex.join(command)
        ended = self._context.run(
            ["/bin/sh", "-exc", script], self._directory, self._environment, output, silence_s=silence_s
        )
        self._context.write(begun)
        self._end(ended, printed + begun, silence_s)

    def run(self, *commands: Sequence[str], silence_s: float | None = None) -> bytes:
        """Run commands up to the first that fails; the end of what they printed. Raises GitFailed.

        They share one run of the isolation, since starting that costs more than git does.
        """
        printed = begun = b""

        def output(data: bytes) -> None:
            nonlocal printed, begun
            printed = (printed + data)[-OUTPUT_BYTES_MAX:]
            whole, line, begun = (begun + data).rpartition(b"\n")
            self._context.write(_PROGRESS.sub(b"", whole) + line)
            begun = begun[begun.rfind(b"\r", 0, -1) + 1 :]

        script = "\n".join(map(shlex.join, commands))
        ended = self._context.run(
            ["/bin/sh", "-exc", script], self._directory, self._environment, output, silence_s=silence_s
        )
        self._context.write(begun)
        self._end(ended, printed, silence_s)
        return printed

    def _end(self, ended: Ended, printed: bytes, silence_s: float | None = None) -> None:
        outcome = self._context.outcome_of(ended)
        if ended.cause is Cause.SILENT:
            outcome = Outcome.failed(f"{self._remote.repository} said nothing for {silence_s:g} s")
        elif outcome.verdict is Verdict.FAILED:
            outcome = replace(outcome, reason=_reason(printed) or outcome.reason)
        if outcome.verdict is not Verdict.PASSED:
            raise GitFailed(outcome, printed)

    def _make_environment(self) -> Mapping[str, str]:
        """What git sees: a configuration of ours alone, nobody to ask, and of the task's variables but the proxies.

        Many others name programs, files or options to git, to what it calls, or to the linker.
        """
        context, remote = self._context, self._remote
        transport, host = transport_of(remote.repository), host_of(remote.repository)
        secret = remote.credentials.get(host, "")
        configuration = _CONFIGURATION + (_LFS if remote.lfs else "")
        known_hosts = context.private_file(f"{self._name}-known-hosts", "".join(f"{key}\n" for key in remote.host_keys))
        ssh = [*_SSH, "-o", f'UserKnownHostsFile="{known_hosts}"']
        if transport == "ssh" and secret:
            ssh += ["-i", str(context.secret_file(f"{self._name}-key", self._private_key(secret)))]
        else:
            ssh += ["-o", "IdentityFile=none"]
        if transport != "ssh" and secret:
            store = context.secret_file(f"{self._name}-credentials", self._login(secret, transport, host))
            configuration += f"[credential]\n\thelper = {_quoted(f'store --file={shlex.quote(str(store))}')}\n"
        return proxies_of(context.task) | {
            "GIT_ALLOW_PROTOCOL": "http:https" if transport in ("http", "https") else transport,
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(context.private_file(f"{self._name}-config", configuration)),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_SSH_COMMAND": shlex.join(ssh),
            "GIT_SSH_VARIANT": "ssh",
            "GIT_TEMPLATE_DIR": "",
            "GIT_TERMINAL_PROMPT": "0",
            "LC_ALL": "C",
        }

    def _private_key(self, secret: str) -> str:
        key = self._context.secret(secret).strip()
        if not key.startswith("-----BEGIN "):
            raise Invalid(f"secret {secret} is no private key, which {self._remote.repository} asks for")
        return f"{key}\n"

    def _login(self, secret: str, transport: str, host: str) -> str:
        """A line for git-credential-store(1): a secret is a token, or ``user:password``; for that host and no other."""
        if transport in (LOCAL_TRANSPORT, "git"):
            raise Invalid(f"{self._remote.repository} takes no credentials; name none")
        value = self._context.secret(secret).strip()
        if len(value.splitlines()) != 1:
            raise Invalid(f"secret {secret} is neither a token nor USER:PASSWORD")
        user, mark, password = value.rpartition(":")
        self._context.hide(password)
        named = user_of(self._remote.repository) or quote(user if mark else TOKEN_USER, safe="")
        return f"{transport}://{named}:{quote(password, safe='')}@{host}\n"


def proxies_of(task: Task) -> dict[str, str]:
    """The variables of a task that git sees."""
    return {name: value for name, value in task.environment.items() if name.lower() in PROXIES}


def _quoted(value: str) -> str:
    """A value as git-config(1) wants it."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _reason(printed: bytes) -> str:
    """The line that says best why git failed."""
    lines = [CONTROL.sub(" ", line) for line in printed.decode(errors="replace").splitlines()]
    told = [line.strip() for line in lines if line.strip() and not line.startswith("+ ")]
    for pattern, meaning in _EXPLANATIONS:
        for line in told:
            if re.search(pattern, line):
                return f"{line[:REASON_LENGTH_MAX]} ({meaning})"
    for line, following in zip(told, [*told[1:], ""], strict=True):
        if line.startswith(("fatal: ", "error: ")):
            return (f"{line} {following}" if line.endswith(":") else line)[:REASON_LENGTH_MAX]
    return told[-1][:REASON_LENGTH_MAX] if told else ""
