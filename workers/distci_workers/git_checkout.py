"""Sources from git: one exact commit in the workspace, with what belongs to it.

What is asked for is a :class:`Source`; :mod:`~distci_workers.git_names` has what names may look like, :mod:`~distci_workers.git_program` how git is
run, :mod:`~distci_workers.git_mirrors` what a machine keeps of earlier checkouts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from distci.errors import Invalid
from distci.model import DEFINITION, Json, Outcome, Plan, Task
from distci.safepath import check_path
from distci.work import TaskContext, project_of, repository_address, tidy_up
from distci_workers.git_mirrors import PACKS_MAX, Mirror
from distci_workers.git_names import (
    COMMIT,
    LOCAL_TRANSPORT,
    check_commit,
    check_ref,
    full_names,
    host_of,
    is_same_ref,
    plain,
    transport_of,
)
from distci_workers.git_program import SILENCE_S, Git, GitFailed, Listed, proxies_of

COMMIT_REF = "refs/distci/commit"
"""The name of the commit that was checked out, for git to follow tags by."""

KNOWN_REFS = "refs/distci/known"
"""Where git finds, for as long as it fetches, what was there already."""

SUBMODULES_MAX = 256
"""Of one checkout, those within others included."""

READING = ".distci-reading"
"""Where in the workspace a repository is for a moment of which one file is read."""

ORIGIN = "origin"
SHA1_DIGITS = 40

_GITLINK = re.compile(r"160000 commit ([0-9a-f]+)\t(.+)", re.DOTALL)
_FORGET = ("/bin/sh", "-c", f"git for-each-ref --format='delete %(refname)' {KNOWN_REFS}/ | git update-ref --stdin")
_MODULE = r"^submodule\..*\.{}$"


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
        try:
            checkout = Checkout(context, source, "git")
            commits = checkout.find_commits()
            checkout.make(commits)
            if source.submodules is not None:
                checkout.add_submodules()
        except GitFailed as failed:
            return failed.outcome
        others = {name: commit for name, commit in commits.items() if name != ORIGIN}
        more = {"remotes": others} if others else {}
        reason = f"{source.ref} is {commits[ORIGIN]}"
        return Outcome.passed(reason, repository=source.repository, ref=source.ref, commit=commits[ORIGIN], **more)


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
    try:
        checkout = Checkout(context, source, "reading")
        commits = checkout.find_commits()
        checkout.make(commits)
        return source, commits[ORIGIN], context.text_of(f"{READING}/{path}", path)
    finally:
        tidy_up(directory)
        context.forget_secret_files()


@dataclass(frozen=True, slots=True)
class Source:
    """What to check out, as far as the job and the trigger say."""

    repository: str
    ref: str
    commit: str = ""
    """Empty when the remote has to be asked."""
    directory: str = ""
    depth: int = 0
    """Commits of history; 0 for all."""
    filter: str = ""
    """Which objects to leave at the remote until somebody asks for them."""
    sparse: Sequence[str] = ()
    """The only folders to put into the workspace; empty: all."""
    submodules: Sequence[str] | None = None
    """Hosts that submodules may be on besides the repository's own; None: no submodules."""
    lfs: bool = False
    credentials: Mapping[str, str] = field(default_factory=dict)
    """Names of secrets, by the host that they are for."""
    host_keys: Sequence[str] = ()
    """Lines as of ssh's file known_hosts."""
    remotes: Mapping[str, Source] = field(default_factory=dict)
    """Further remotes, by name, each with the ref to fetch."""

    @classmethod
    def of(cls, arguments: Mapping[str, Json], plan: Plan) -> Source:
        """Raises Invalid for what no repository, ref or commit looks like."""
        repository: str = arguments["repository"]
        transport_of(repository)
        ref, commit = _asked(repository, arguments.get("ref", ""), plan)
        credentials = arguments.get("credentials", {})
        submodules = arguments.get("submodules", False)
        source = cls(
            repository=repository,
            ref=check_ref(ref),
            commit=check_commit(commit) if commit else "",
            directory=plain(arguments.get("directory", ""), "directory"),
            depth=arguments.get("depth", 0),
            filter=plain(arguments.get("filter", ""), "filter"),
            sparse=[check_path(plain(path, "path").removesuffix("/")) for path in arguments.get("sparse", ())],
            submodules=None if submodules is False else [] if submodules is True else submodules,
            lfs=arguments.get("lfs", False),
            credentials={host_of(repository): credentials} if isinstance(credentials, str) else credentials,
            host_keys=[plain(key, "host key") for key in arguments.get("host_keys", ())],
        )
        return replace(source, remotes=dict(source._others(arguments.get("remotes", {}))))

    def _others(self, remotes: Mapping[str, Json]) -> Iterator[tuple[str, Source]]:
        for name, remote in remotes.items():
            repository, ref = remote["repository"], check_ref(remote.get("ref", "HEAD"))
            transport_of(repository)
            commit = ref if COMMIT.fullmatch(ref) else ""
            yield name, replace(self, repository=repository, ref=ref, commit=commit)

    def submodule(self, repository: str, commit: str, path: str) -> Source:
        """The source of a submodule, which may lie on the repository's own host and those that the job allows, and nowhere else; else Invalid."""
        try:
            transport, host = transport_of(repository), host_of(repository)
        except Invalid as error:
            raise Invalid(f"submodule {path!r}: {error}") from error
        is_here = transport == transport_of(self.repository) == LOCAL_TRANSPORT
        if not (is_here or (host and host in (host_of(self.repository), *(self.submodules or ())))):
            where = f"host {host!r}" if host else "this machine"
            hint = f'; `"submodules": ["{host}"]` allows that' if host else ""
            raise Invalid(f"submodule {path!r} leads to {where}, where it may not{hint}")
        within = f"{self.directory}/{path}" if self.directory not in ("", ".") else path
        allowed = {*(self.submodules or ()), *filter(None, [host_of(self.repository)])}
        return replace(
            self,
            repository=repository,
            ref=commit,
            commit=commit,
            directory=within,
            sparse=(),
            submodules=sorted(allowed),
            remotes={},
        )


class Checkout:
    """One repository in one directory of the workspace."""

    def __init__(self, context: TaskContext, source: Source, name: str) -> None:
        """``name`` is of the files that it keeps outside the workspace. GitFailed where the directory has a repository."""
        self._context = context
        self._source = source
        self._name = name
        self._directory = context.inside(source.directory)
        if os.path.lexists(self._directory / ".git"):
            # Its configuration is a script's work, and would run as ours.
            raise GitFailed(Outcome.failed(f"there is a repository in {source.directory or 'the workspace'!r} already"))
        self._remotes = {ORIGIN: source, **source.remotes}
        self._gits = {
            remote: Git(context, self._directory, source, f"{name}-{remote}")
            for remote, source in self._remotes.items()
        }
        self._told = ""
        """What the origin has told of its tags, where it was asked for a ref."""

    def find_commits(self) -> Mapping[str, str]:
        """The commits to fetch, by the name of the remote: what each ref was when a task of the build first asked."""
        # Any worker that holds a ticket of this build may have said it, from another machine.
        return {
            remote: source.commit
            or check_commit(self._context.pin(f"{source.repository} {source.ref}", partial(self._find, remote, source)))
            for remote, source in self._remotes.items()
        }

    def _find(self, remote: str, source: Source) -> str:
        """The commit that a remote's ref names now."""
        listed = Listed(full_names(source.ref))
        self._gits[remote].list_refs(listed, SILENCE_S)
        if remote == ORIGIN:
            self._told = listed.tags
        return _commit_of(source, listed.found)

    def make(self, commits: Mapping[str, str]) -> None:
        """Make the directory a repository that has these commits, and put that of the origin into it."""
        source, git, commit = self._source, self._gits[ORIGIN], commits[ORIGIN]
        begin = [["git", "init", "--quiet", "--template=", f"--object-format={_format(commit)}"]]
        if source.lfs:
            begin.insert(0, ["git", "lfs", "version"])
        begin += [["git", "remote", "add", "--", name, other.repository] for name, other in self._remotes.items()]
        if source.sparse:
            begin.append(["git", "sparse-checkout", "set", "--cone", *source.sparse])
        finish: list[Sequence[str]] = [["git", "checkout", "--progress", "--detach", commit]]
        mirror = self._mirror(_format(commit))
        folder = self._directory / ".git"
        if mirror:
            git.run(*begin)
            begin = []
            known = mirror.lend(folder)
            if not source.remotes and not source.filter and mirror.is_all(commit, self._told):
                mirror.lend_refs(folder)
                git.run(*finish, silence_s=None if source.lfs else SILENCE_S)
                return
            # So that they are in one file, for the mirror to keep.
            finish.append(["git", "pack-refs", "--all"])
            if known:
                lines = [f"{tip} {KNOWN_REFS}/{number}\n" for number, tip in enumerate(known)]
                (folder / "packed-refs").write_text("".join(lines))
                finish.insert(0, _FORGET)
        refs = {name: f"refs/remotes/{name}/{_short(other.ref)}" for name, other in source.remotes.items()}
        for name in source.remotes:
            self._fetch(name, commits[name], refs[name], begin, [])
            begin = []
        # Kept under a name, so that git fetches the tags on the way to it too.
        self._fetch(ORIGIN, commit, COMMIT_REF, begin, finish)
        if mirror:
            is_many = len([*folder.glob("objects/pack/*.pack")]) > PACKS_MAX
            if is_many:
                git.run(["git", "repack", "--quiet", "-a", "-d"])
            mirror.keep(folder, [*commits.values()], is_repacked=is_many, told=self._told)

    def add_submodules(self) -> None:
        """Check out the submodules, and theirs, each as a repository of its own; then put these where git has them."""
        pending = [self]
        count = 0
        while pending:
            for source in pending.pop()._submodules():
                count += 1
                if count > SUBMODULES_MAX:
                    raise Invalid(f"there are more than {SUBMODULES_MAX} submodules")
                inner = Checkout(self._context, source, f"{self._name}.{count}")
                inner.make({ORIGIN: source.commit})
                pending.append(inner)
        if count:
            self._gits[ORIGIN].run(["git", "submodule", "--quiet", "absorbgitdirs"])

    def _submodules(self) -> Iterator[Source]:
        git = self._gits[ORIGIN]
        if not (self._directory / ".gitmodules").is_file():
            return
        # What is relative to the repository, git makes whole.
        git.run(["git", "submodule", "--quiet", "init"])
        paths = _settings(git, "--blob=HEAD:.gitmodules", "path")
        urls = _settings(git, "--local", "url")
        # Of a sparse checkout, some are not there.
        there = {name: path for name, path in paths.items() if name in urls and (self._directory / path).is_dir()}
        if not there:
            return
        listed = git.ask(["git", "ls-tree", "-z", "HEAD", "--", *there.values()]).decode(errors="surrogateescape")
        commits = {match[2]: match[1] for match in map(_GITLINK.fullmatch, listed.split("\0")) if match}
        for name, path in there.items():
            if path in commits:
                yield self._source.submodule(urls[name], commits[path], path)

    def _fetch(
        self, remote: str, commit: str, ref: str, begin: Sequence[Sequence[str]], finish: Sequence[Sequence[str]]
    ) -> None:
        """Fetch a commit from a remote under a name, between what comes before and what comes after that."""
        source, git = self._source, self._gits[remote]
        depth = [f"--depth={source.depth}"] if source.depth else []
        filters = [f"--filter={source.filter}"] if source.filter else []
        fetch = ["git", "fetch", "--progress", *depth, *filters, remote, f"+{commit}:{ref}"]
        try:
            self._run(git, [*begin, fetch], finish)
        except GitFailed as failed:
            if b"unadvertised object" not in failed.printed:
                raise
            # An old server, which gives no commit that is not the tip of a ref: it may be on the way to one.
            self._run(git, [["git", "fetch", "--progress", remote, f"+refs/*:refs/distci/{remote}/*"]], finish)

    def _run(self, git: Git, fetch: Sequence[Sequence[str]], finish: Sequence[Sequence[str]]) -> None:
        if self._source.lfs or self._source.filter:
            # What is fetched only in the end is fetched in silence.
            git.run(*fetch, silence_s=SILENCE_S)
            git.run(*finish)
        else:
            git.run(*fetch, *finish, silence_s=SILENCE_S)

    def _mirror(self, object_format: str) -> Mirror | None:
        """What this machine keeps of the repository, for those alone who reach it in the same way; None where that is worth nothing."""
        context, source = self._context, self._source
        repositories = [remote.repository for remote in self._remotes.values()]
        if context.cache is None or all(transport_of(repository) == LOCAL_TRANSPORT for repository in repositories):
            return None
        names = [source.credentials.get(host_of(repository), "") for repository in repositories]
        # Jobs of one project may each have a secret of that name; it is not kept, only a digest of all this is.
        secrets = [context.secret(name) if name else "" for name in names]
        key = {
            "repositories": repositories,
            "depth": source.depth,
            "filter": source.filter,
            "format": object_format,
            "secrets": [project_of(context.build.job), *secrets] if any(secrets) else [],
            "proxies": proxies_of(context.task),
        }
        return Mirror(context.cache, key, context.checkpoint)


def _asked(repository: str, named: str, plan: Plan) -> tuple[str, str]:
    """The ref that is meant, and its commit where the job or the trigger says which; see :class:`GitCheckoutWorker`."""
    trigger = plan.trigger
    is_meant = _is_meant(repository, plan)
    ref, commit = named or "HEAD", ""
    if is_meant and not COMMIT.fullmatch(named):
        # What has moved may be another branch than the one that the task names for other days.
        ref, commit = trigger.ref, trigger.commit
    elif is_meant is None:
        ref = named or trigger.ref or "HEAD"
        commit = trigger.commit if not named or is_same_ref(named, trigger.ref) else ""
    return ref, ref if COMMIT.fullmatch(ref) else commit


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


def _commit_of(source: Source, found: Mapping[str, str]) -> str:
    """The commit that the source's ref names, of the refs that there are."""
    repository, ref = source.repository, source.ref
    present = [name for name in full_names(ref) if name in found]
    if not present:
        looks_like_commit = re.fullmatch(r"[0-9a-fA-F]{7,63}", ref)
        hint = "; a commit is named by all of its digits" if looks_like_commit else ""
        raise GitFailed(Outcome.failed(f"{repository} has no ref {ref!r}{hint}"))
    if len(present) > 1:
        raise GitFailed(Outcome.failed(f"{ref!r} is ambiguous in {repository}; write {' or '.join(present)}"))
    # An annotated tag is an object of its own; the commit that it names comes with ^{}.
    return found.get(f"{present[0]}^{{}}", found[present[0]])


def _settings(git: Git, where: str, what: str) -> dict[str, str]:
    """What a configuration says of each submodule, by its name."""
    listed = git.ask(["git", "config", where, "-z", "--get-regexp", _MODULE.format(what)])
    pairs = (item.partition("\n") for item in listed.decode(errors="surrogateescape").split("\0") if item)
    return {key.removeprefix("submodule.").removesuffix(f".{what}"): value for key, _, value in pairs}


def _short(ref: str) -> str:
    return ref.removeprefix("refs/").removeprefix("heads/")


def _format(commit: str) -> str:
    return "sha1" if len(commit) == SHA1_DIGITS else "sha256"
