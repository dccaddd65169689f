"""Sources from git.

What a job, a trigger or a remote says is only ever an argument to git, never an option or a program: repositories and
refs are checked against what they may look like, git sees no configuration but the one made here, and a commit is
fetched by its full id.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from distci.errors import Invalid
from distci.model import DEFINITION, Json, Outcome, Plan, Task, Verdict
from distci.work import TaskContext, repository_address, tidy_up

REMOTE_TRANSPORTS = ("git", "http", "https", "ssh")
LOCAL_TRANSPORT = "file"

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
"""Variables that a job may give git, in small or capital letters."""

TOKEN_USER = "x-access-token"
"""Who a bare token belongs to. GitHub, GitLab and Gitea look at the token alone."""

COMMIT_REF = "refs/distci/commit"
"""The name of the commit that was checked out, for git to follow tags by."""

READING = ".distci-reading"
"""Where in the workspace a repository is for a moment of which one file is read."""

KEY, LOGIN = "git-key", "git-credentials"
"""Files in memory by which git identifies itself."""

OUTPUT_BYTES_MAX = 64 * 1024
"""How much of what git printed last is looked at; the log has it all."""

REASON_LENGTH_MAX = 300

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_HOST = r"(?:[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\])"
_USER = r"[A-Za-z0-9._~%+][A-Za-z0-9._~%+-]*"
_URL = re.compile(rf"(?P<transport>git|https?|ssh)://(?:(?P<user>{_USER})@)?(?P<host>{_HOST}(?::[0-9]{{1,5}})?)/.+")
_SCP = re.compile(rf"(?:{_USER}@)?{_HOST}:(?![-:]|//).+")
_LOCAL = re.compile(r"(?:file://)?/.+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_NO_REF = re.compile(r"[ ~^:?*\[\\]|\.\.|@\{|//|(^|/)\.|\.lock(/|$)|[./]$|^/|^@$")
"""What is in no name of a ref: see git-check-ref-format(1)."""

_REMOTE_REF = re.compile(rb"^([0-9a-f]{40}|[0-9a-f]{64})\t(\S+)$", re.MULTILINE)

_CONFIGURATION = """\
[core]
	hooksPath = /dev/null
[safe]
	directory = *
[maintenance]
	auto = false
[http]
	lowSpeedLimit = 1000
	lowSpeedTime = 60
"""
"""Of git while it checks out, submodules included: no programs, the repositories of other users, no housekeeping, no
waiting for servers that fell silent."""

_LFS = """\
[filter "lfs"]
	process = git-lfs filter-process
	required = true
"""

_SSH = (
    *("ssh", "-F", "/dev/null", "-o", "BatchMode=yes", "-o", "ConnectTimeout=30", "-o", "ServerAliveInterval=15"),
    # What /etc/ssh/ssh_known_hosts says of a host holds; of others the first key that is seen.
    *("-o", "StrictHostKeyChecking=accept-new", "-o", "IdentitiesOnly=yes"),
)

_EXPLANATIONS = (
    ("'lfs' is not a git command", "git-lfs is not installed on this worker"),
    (
        "could not read (Username|Password)|Authentication failed|[Pp]ermission denied",
        "does `credentials` name the right secret?",
    ),
    ("[Rr]epository .*not (found|exported)|[Nn]o such repository|does not appear to be a git", "no such repository"),
    ("not our ref|unable to read tree|not a tree|unadvertised object", "the repository has no such commit"),
    ("transport .* not allowed", "a submodule may not lead there"),
    ("would be overwritten by checkout", "check out into a `directory` of its own"),
)
"""Lines of git that tell more than others do, and what they mean."""


class GitCheckoutWorker:
    """Puts one exact commit into the workspace, its ``.git`` beside it and its HEAD detached.

    Which commit: the one that ``ref`` spells out in full; or the trigger's, when that is one of this repository, whatever ``ref`` says; or,
    when the trigger does not say of which it is, or of one that the job does not check out, the task names no ``ref`` or the one that the trigger saw the commit on; else what ``ref`` (by default the trigger's ref, or the remote's HEAD) was when
    a task of the build first asked, so that all checkouts of a build that name the same repository and ref get the same
    commit.
    """

    kind = "git-checkout"

    def perform(self, task: Task, context: TaskContext) -> Outcome:
        if task.type == DEFINITION:
            return _define(task, context)
        source = Source.of(task.arguments, context.plan)
        directory = context.inside(source.directory)
        if os.path.lexists(directory / ".git"):
            # Its configuration is a script's work, and would run as ours.
            return Outcome.failed(f"there is a repository in {source.directory or 'the workspace'!r} already")
        git = Git(context, directory, source)
        try:
            # Any worker that holds a ticket of this build may have said it, from another machine.
            commit = source.commit or check_commit(context.pin(f"{source.repository} {source.ref}", git.find_commit))
            git.check_out(commit)
        except GitFailed as failed:
            return failed.outcome
        return Outcome.passed(f"{source.ref} is {commit}", repository=source.repository, ref=source.ref, commit=commit)


def _define(task: Task, context: TaskContext) -> Outcome:
    """Read the tasks that a file of the repository defines, at the commit that a checkout of it would take. The workspace stays empty."""
    path: str = task.arguments["path"]
    try:
        source, commit, text = read_file(context, task.arguments, path)
    except GitFailed as failed:
        return failed.outcome
    named = {"repository": source.repository, "ref": source.ref, "commit": commit}
    return Outcome.passed(f"{path} of {commit}", **named, tasks=text, tasks_of=path)


def read_file(context: TaskContext, arguments: Mapping[str, Json], path: str) -> tuple[Source, str, str]:
    """What a repository has in one file, at the commit that a checkout of it would take; nothing of it stays in the workspace.

    Raises GitFailed, and Invalid when there is no such file or it is no text.
    """
    source = Source.of({**arguments, "directory": READING, "depth": 1}, context.plan)
    if os.path.lexists(context.inside("") / READING):
        # A repository that a script has made there would have its configuration run as ours.
        raise Invalid(f"there is a {READING} in the workspace already")
    directory = context.inside(READING)
    git = Git(context, directory, source)
    try:
        commit = source.commit or check_commit(context.pin(f"{source.repository} {source.ref}", git.find_commit))
        git.check_out(commit)
        return source, commit, context.text_of(f"{READING}/{path}", path)
    finally:
        tidy_up(directory)
        for name in (KEY, LOGIN):
            context.forget(name)


@dataclass(frozen=True, slots=True)
class Source:
    """What to check out, as far as the job and the trigger say."""

    repository: str
    transport: str
    ref: str
    commit: str
    """Empty when the remote has to be asked."""
    directory: str
    depth: int
    """Commits of history; 0 for all."""
    submodules: bool
    lfs: bool
    credentials: str

    @classmethod
    def of(cls, arguments: Mapping[str, Json], plan: Plan) -> Source:
        """Raises Invalid for what no repository, ref or commit looks like."""
        named: str = arguments.get("ref", "")
        repository: str = arguments["repository"]
        trigger = plan.trigger
        is_meant = _is_meant(repository, plan)
        ref, commit = named or "HEAD", ""
        if is_meant and not _COMMIT.fullmatch(named):
            # What has moved may be another branch than the one that the task names for other days.
            ref, commit = trigger.ref, trigger.commit
        elif is_meant is None:
            ref = named or trigger.ref or "HEAD"
            commit = trigger.commit if not named or _is_same_ref(named, trigger.ref) else ""
        commit = ref if _COMMIT.fullmatch(ref) else commit
        return cls(
            repository=repository,
            transport=transport_of(repository),
            ref=check_ref(ref),
            commit=check_commit(commit) if commit else "",
            directory=_plain(arguments.get("directory", ""), "directory"),
            depth=arguments.get("depth", 0),
            submodules=arguments.get("submodules", False),
            lfs=arguments.get("lfs", False),
            credentials=arguments.get("credentials", ""),
        )


class GitFailed(Exception):
    """Git did not do what it was asked to; ``outcome`` is what that means for the task."""

    def __init__(self, outcome: Outcome, printed: bytes = b"") -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome
        self.printed = printed


class Git:
    """Git in one directory, for one source."""

    def __init__(self, context: TaskContext, directory: Path, source: Source) -> None:
        self._context = context
        self._directory = directory
        self._source = source
        self._environment = _environment(context, source)

    def find_commit(self) -> str:
        """The commit that the source's ref names now."""
        repository, ref = self._source.repository, self._source.ref
        names = _full_names(ref)
        asked = [pattern for name in names for pattern in (name, f"{name}^{{}}")]
        printed = self._run(["git", "ls-remote", "--", repository, *asked])
        listed: list[tuple[bytes, bytes]] = _REMOTE_REF.findall(printed)
        found = {name.decode(errors="replace"): commit.decode() for commit, name in listed}
        present = [name for name in names if name in found]
        if not present:
            looks_like_commit = re.fullmatch(r"[0-9a-fA-F]{7,63}", ref)
            hint = "; a commit is named by all of its digits" if looks_like_commit else ""
            raise GitFailed(Outcome.failed(f"{repository} has no ref {ref!r}{hint}"))
        if len(present) > 1:
            raise GitFailed(Outcome.failed(f"{ref!r} is ambiguous in {repository}; write {' or '.join(present)}"))
        # An annotated tag is an object of its own; the commit that it names comes with ^{}.
        return found.get(f"{present[0]}^{{}}", found[present[0]])

    def check_out(self, commit: str) -> None:
        """Make the directory a repository and put the commit into it."""
        source = self._source
        depth = [f"--depth={source.depth}"] if source.depth else []
        fetch = ["git", "fetch", "--quiet", *depth, "origin"]
        begin = [
            ["git", "init", "--quiet", "--template=", f"--object-format={'sha1' if len(commit) == 40 else 'sha256'}"],
            ["git", "remote", "add", "--", "origin", source.repository],
        ]
        finish = [["git", "checkout", "--quiet", "--detach", commit]]
        if source.lfs:
            begin.insert(0, ["git", "lfs", "version"])
        if source.submodules:
            finish.append(["git", "submodule", "--quiet", "update", "--init", "--recursive", *depth])
        try:
            # Kept under a name, so that git fetches the tags on the way to it too.
            self._run(*begin, [*fetch, f"{commit}:{COMMIT_REF}"], *finish)
        except GitFailed as failed:
            if b"unadvertised object" not in failed.printed:
                raise
            # An old server, which gives no commit that is not the tip of a ref: it may be on the way to one.
            self._run(["git", "fetch", "--quiet", "origin", "+refs/*:refs/distci/*"], *finish)

    def _run(self, *commands: Sequence[str]) -> bytes:
        """Run commands up to the first that fails; the end of what they printed.

        They share one run of the isolation, since starting that costs more than git does.
        """
        printed = b""

        def output(data: bytes) -> None:
            nonlocal printed
            printed = (printed + data)[-OUTPUT_BYTES_MAX:]
            self._context.write(data)

        script = "\n".join(map(shlex.join, commands))
        ended = self._context.run(["/bin/sh", "-exc", script], self._directory, self._environment, output)
        outcome = self._context.outcome_of(ended)
        if outcome.verdict is Verdict.FAILED:
            raise GitFailed(replace(outcome, reason=_reason(printed) or outcome.reason), printed)
        if outcome.verdict is not Verdict.PASSED:
            raise GitFailed(outcome)
        return printed


def transport_of(repository: str) -> str:
    """How a repository is reached; Invalid when it is not what a repository looks like."""
    _plain(repository, "repository")
    url = _URL.fullmatch(repository)
    if url:
        return str(url["transport"])
    if _LOCAL.fullmatch(repository):
        return LOCAL_TRANSPORT
    if _SCP.fullmatch(repository):
        return "ssh"
    shown = re.sub("//[^/]*@", "//***@", repository)
    raise Invalid(
        f"repository {shown!r} is neither an absolute path nor USER@HOST:PATH nor a URL of git, http, https, ssh or "
        "file (a password does not belong in it, but in a secret that `credentials` names)"
    )


def check_ref(ref: str) -> str:
    """The ref itself; Invalid when it is no name of a ref."""
    if _NO_REF.search(_plain(ref, "ref")):
        raise Invalid(f"ref {ref!r} is neither a branch, a tag, a ref nor a commit")
    return ref


def check_commit(commit: str) -> str:
    """The commit itself; Invalid when it is not spelt out in full."""
    if not _COMMIT.fullmatch(commit):
        raise Invalid(f"{commit!r} is not a commit with all of its digits")
    return commit


def _plain(text: str, what: str) -> str:
    if text.startswith("-"):
        raise Invalid(f"{what} {text!r} begins with '-'")
    if _CONTROL.search(text):
        raise Invalid(f"{what} {text!r} holds control characters")
    return text


def _full_names(ref: str) -> Sequence[str]:
    """The refs that a name may stand for."""
    is_full = ref == "HEAD" or ref.startswith("refs/")
    return [ref] if is_full else [f"refs/heads/{ref}", f"refs/tags/{ref}"]


def _is_meant(repository: str, plan: Plan) -> bool | None:
    """Whether the trigger's commit is one of this repository; None when it names none that the job checks out: a mirror, say."""
    delivery = plan.trigger.delivery
    places = delivery.addresses if delivery else ()
    asked = (
        str(task.arguments.get("repository", ""))
        for task in plan.tasks
        if task.type in (GitCheckoutWorker.kind, DEFINITION)
    )
    if not any(repository_address(other) in places for other in asked):
        return None
    return repository_address(repository) in places


def _is_same_ref(one: str, other: str) -> bool:
    return not set(_full_names(one)).isdisjoint(_full_names(other))


def _environment(context: TaskContext, source: Source) -> Mapping[str, str]:
    """What git sees: a configuration of ours alone, nobody to ask, and of the task's variables but the proxies.

    Many others name programs, files or options to git, to what it calls, or to the linker.
    """
    configuration = _CONFIGURATION + (_LFS if source.lfs else "")
    known_hosts = context.private_file("git-known-hosts", "")
    ssh = [*_SSH, "-o", f'UserKnownHostsFile="{known_hosts}"']
    if not source.credentials:
        ssh += ["-o", "IdentityFile=none"]
    elif source.transport == "ssh":
        ssh += ["-i", str(context.secret_file(KEY, _private_key(context, source)))]
    else:
        store = context.secret_file(LOGIN, _login(context, source))
        configuration += f"[credential]\n\thelper = {_quoted(f'store --file={shlex.quote(str(store))}')}\n"
    # A repository elsewhere must not lead, by its submodules, to one on this machine.
    transports = [*REMOTE_TRANSPORTS, *([LOCAL_TRANSPORT] if source.transport == LOCAL_TRANSPORT else [])]
    proxies = {name: value for name, value in context.task.environment.items() if name.lower() in PROXIES}
    return proxies | {
        "GIT_ALLOW_PROTOCOL": ":".join(transports),
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": str(context.private_file("git-config", configuration)),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_SSH_COMMAND": shlex.join(ssh),
        "GIT_SSH_VARIANT": "ssh",
        "GIT_TEMPLATE_DIR": "",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }


def _private_key(context: TaskContext, source: Source) -> str:
    key = context.secret(source.credentials).strip()
    if not key.startswith("-----BEGIN "):
        raise Invalid(f"secret {source.credentials} is no private key, which {source.repository} asks for")
    return f"{key}\n"


def _login(context: TaskContext, source: Source) -> str:
    """A line for git-credential-store(1): a secret is a token, or ``user:password``; for that host and no other."""
    url = _URL.fullmatch(source.repository)
    if not url or not source.transport.startswith("http"):
        raise Invalid(f"{source.repository} takes no credentials; name none")
    secret = context.secret(source.credentials).strip()
    if len(secret.splitlines()) != 1:
        raise Invalid(f"secret {source.credentials} is neither a token nor USER:PASSWORD")
    user, mark, password = secret.rpartition(":")
    context.hide(password)
    login = f"{url['user'] or quote(user if mark else TOKEN_USER, safe='')}:{quote(password, safe='')}"
    return f"{source.transport}://{login}@{url['host']}\n"


def _quoted(value: str) -> str:
    """A value as git-config(1) wants it."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _reason(printed: bytes) -> str:
    """The line that says best why git failed."""
    lines = [_CONTROL.sub(" ", line) for line in printed.decode(errors="replace").splitlines()]
    told = [line.strip() for line in lines if line.strip() and not line.startswith("+ ")]
    for pattern, meaning in _EXPLANATIONS:
        for line in told:
            if re.search(pattern, line):
                return f"{line[:REASON_LENGTH_MAX]} ({meaning})"
    for line, following in zip(told, [*told[1:], ""], strict=True):
        if line.startswith(("fatal: ", "error: ")):
            return (f"{line} {following}" if line.endswith(":") else line)[:REASON_LENGTH_MAX]
    return told[-1][:REASON_LENGTH_MAX] if told else ""
