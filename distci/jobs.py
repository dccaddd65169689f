"""Job definitions in the store: every version kept for ever, changed by compare-and-swap.

A version is an object of its own, written only if there is none of that number, so that of two people who change version
3 at once exactly one makes version 4. Deleting writes a last version that says so: history and build numbers go on
from there if the job ever comes back.
"""

from __future__ import annotations

import difflib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from distci import repositories
from distci.documents.jobs import job_from_json
from distci.documents.strict_json import read_json
from distci.errors import Invalid, InvalidDocument, InvalidJob, NoSuchJob, NoSuchObject, VersionConflict
from distci.model import HookTrigger, Job, Json, check_job_id
from distci.store import keys
from distci.store.port import ObjectInfo, Store, objects

FORMAT = 1
UPSTREAM_DEPTH_MAX = 32
"""How long a chain of jobs that start each other may be."""

VERSIONS_KEPT = 256
"""Versions in force that a process remembers: they never change, and to read a document and hold it to its schema is most of a trigger's work."""


@dataclass(frozen=True)
class JobVersion:
    """One version of a job's document: what it says, and who changed it when and why."""

    job: str
    version: int
    document: Mapping[str, Json]
    actor: str
    reason: str
    changed_s: float
    """Seconds since 1970 by the clock of who changed it."""
    is_deleted: bool = False

    def definition(self) -> Job:
        """The document as a :class:`~distci.model.Job`; InvalidJob when this version of DistCI cannot read it."""
        return self._definition

    @cached_property
    def _definition(self) -> Job:
        return job_from_json(self.document)


class UnfitChain(InvalidJob):
    """A job that cannot follow on those that it names, since they would start each other as they must not."""

    def __init__(self, job: str, what: str, chain: Sequence[str]) -> None:
        """``chain`` are the jobs that it is about, each of which starts the next."""
        super().__init__(f"job {job}", [f"triggers: {what}: {' -> '.join(chain)}"])
        self._what = what
        self._chain = chain

    def told(self, name: Callable[[str], str]) -> InvalidJob:
        """The same for somebody to whom jobs go by other names."""
        return InvalidJob(self.subject, [f"triggers: {self._what}: {' -> '.join(map(name, self._chain))}"])


class Jobs:
    """The jobs of one store. Any thread may use it."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._known: dict[ObjectInfo, JobVersion] = {}

    def put(
        self, document: Mapping[str, Json], *, expected: int | None = None, actor: str = "", reason: str = ""
    ) -> JobVersion:
        """Save a job as its next version; saving what is in force already changes nothing.

        ``expected`` is the version that the change was made on (0: there is none yet); VersionConflict when another is in force.
        InvalidJob names all that is wrong with the document.

        >>> ci.jobs.put({"job": "docs/hello", "tasks": [{"name": "say", "type": "shell", "script": "echo hello"}]}).version
        1
        """
        definition = job_from_json(document)
        self._check_upstream(definition)
        latest = self._latest(definition.id)
        version = latest.version if latest else 0
        if expected is not None and expected != (0 if latest and latest.is_deleted else version):
            raise VersionConflict(f"job {definition.id} is at version {version} now, not {expected}; read it again")
        # Also of what is in force already: a version that knew of fewer marks may have saved it.
        self._index(definition)
        # As text, since order says something: that of a matrix's axes is in the names of tasks.
        if latest and not latest.is_deleted and json.dumps(latest.document) == json.dumps(document):
            return latest
        return self._write(JobVersion(definition.id, version + 1, document, actor, reason, self._clock()))

    def get(self, job: str, version: int | None = None) -> JobVersion:
        """The version in force, or the one asked for; NoSuchJob when there is none.

        >>> ci.jobs.get("docs/hello").document["tasks"][0]["script"]
        'echo hello'
        """
        check_job_id(job)
        found = self._latest(job) if version is None else self._read(job, version)
        if found is None or (version is None and found.is_deleted):
            if found is None and version is None:
                raise NoSuchJob(f"there is no job {job!r}; `distci job list` shows all there are")
            what = f"job {job!r} has been deleted" if found else f"there is no version {version} of job {job!r}"
            raise NoSuchJob(f"{what}; `distci job history {job}` shows all versions")
        return found

    def list(
        self, prefix: str = "", after: str = "", limit: int | None = None, *, tag: str = "", text: str = ""
    ) -> Iterator[str]:
        """Ids of the jobs that start with ``prefix`` and come after the id ``after``: ``limit`` of them at most.

        ``tag``: only those that have it; ``text``: only those whose id holds it, in letters of any case.

        >>> list(ci.jobs.list("docs/"))
        ['docs/hello']
        """
        if not tag and not text:
            yield from self._named(prefix, after, limit)
            return
        names = self._tagged(tag, prefix, after) if tag else self._named(prefix, after)
        yield from islice((name for name in names if text.lower() in name.lower()), limit)

    def history(self, job: str, before: int | None = None) -> Iterator[JobVersion]:
        """Every version of a job, the newest first, or those below ``before``; NoSuchJob when there has never been one.

        >>> [(change.version, change.reason) for change in ci.jobs.history("docs/hello")]
        [(1, '')]
        """
        latest = self._latest(check_job_id(job))
        if latest is None:
            raise NoSuchJob(f"there is no job {job!r}; `distci job list` shows all there are")
        if before is None:
            yield latest
        for version in range(min(latest.version, before or latest.version) - 1, 0, -1):
            found = self._read(job, version)
            if found is not None:
                yield found

    def diff(self, job: str, old: int, new: int) -> str:
        """What changed between two versions, as a unified diff of their JSON.

        >>> ci.jobs.diff("docs/hello", 1, 1)
        ''
        """
        before, after = (_pretty(self.get(job, version).document) for version in (old, new))
        changes = difflib.unified_diff(before, after, f"{job} version {old}", f"{job} version {new}", lineterm="")
        return "\n".join(changes)

    def rollback(self, job: str, version: int, *, actor: str = "", reason: str = "") -> JobVersion:
        """Save an old version's document as the next one."""
        old = self.get(job, version)
        if old.is_deleted:
            raise NoSuchJob(f"version {version} of job {job!r} is its deletion; there is nothing to go back to")
        return self.put(old.document, actor=actor, reason=reason or f"back to version {version}")

    def delete(self, job: str, *, expected: int | None = None, actor: str = "", reason: str = "") -> None:
        """Take a job out of force. Its history, its builds and their numbers stay."""
        latest = self.get(job)
        if expected is not None and expected != latest.version:
            raise VersionConflict(f"job {job} is at version {latest.version} now, not {expected}; read it again")
        self._write(JobVersion(job, latest.version + 1, {}, actor, reason, self._clock(), is_deleted=True))
        self._store.delete(keys.job_marker(job))

    def downstream(self, job: str, unreadable: Callable[[str, Invalid], None]) -> Iterator[JobVersion]:
        """The jobs that some end of this one's builds starts, by id, each as it is in force.

        ``unreadable`` is called with each that may be one of them and cannot be read here, and with what is wrong.
        """
        for info in objects(self._store, keys.downstreams(job)):
            name = keys.downstream_of(info.key)
            try:
                found = self._latest(name)
                is_started = found and not found.is_deleted and _is_upstream(job, found.definition())
            except (InvalidJob, InvalidDocument) as error:
                # Of a type of task that is not installed here, say.
                unreadable(name, error)
                continue
            if found and is_started:
                yield found

    def concerned(
        self, receiver: str, repository: str, unreadable: Callable[[str, Invalid], None]
    ) -> Iterator[tuple[JobVersion, Sequence[HookTrigger]]]:
        """The jobs that changes of a repository may start, each as it is in force, with its triggers that are about that.

        ``repository`` is a full name or a URL. However many jobs there are, only those that have ever named it are read.
        ``unreadable`` as for :meth:`downstream`.
        """
        name = repositories.name(repository)
        for info in objects(self._store, keys.hooks(receiver, name)):
            job = keys.job_of_hook(info.key)
            try:
                found = self._latest(job)
                hooks = found.definition().hooks if found and not found.is_deleted else ()
            except (InvalidJob, InvalidDocument) as error:
                unreadable(job, error)
                continue
            mine = [hook for hook in hooks if hook.receiver == receiver and repositories.name(hook.repository) == name]
            if found and mine:
                yield found, mine

    def _named(self, prefix: str, after: str, limit: int | None = None) -> Iterator[str]:
        position = keys.job_marker(after) if after else ""
        start = f"{keys.JOBS}{prefix.replace('/', ':')}"
        for info in objects(self._store, start, position, limit):
            yield keys.job_of_marker(info.key)

    def _tagged(self, tag: str, prefix: str, after: str) -> Iterator[str]:
        """The jobs that have a tag: those are read that have ever had it."""
        for info in objects(self._store, keys.tagged(tag), keys.job_of_tag(tag, after) if after else ""):
            name = keys.tagged_job(info.key)
            found = self._latest(name) if name.startswith(prefix) else None
            if found and not found.is_deleted and tag in found.document.get("tags", ()):
                yield name

    def _index(self, definition: Job) -> None:
        """Leave the marks that listings go by, before the version itself: a mark without a version is overlooked."""
        self._store.put(keys.job_marker(definition.id), b"")
        for tag in definition.tags:
            self._store.put(keys.job_of_tag(tag, definition.id), b"")
        for trigger in definition.triggers:
            self._store.put(keys.downstream(trigger.job, definition.id), b"")
        for hook in definition.hooks:
            self._store.put(keys.hook(hook.receiver, repositories.name(hook.repository), definition.id), b"")

    def _write(self, change: JobVersion) -> JobVersion:
        document = {
            "format": FORMAT,
            "job": change.job,
            "version": change.version,
            "document": change.document,
            "actor": change.actor,
            "reason": change.reason,
            "changed_s": change.changed_s,
            "deleted": change.is_deleted,
        }
        data = json.dumps(document, ensure_ascii=False).encode()
        if not self._store.put_if_absent(keys.job_version(change.job, change.version), data):
            raise VersionConflict(f"somebody else made version {change.version} of job {change.job}; read it again")
        return change

    def _latest(self, job: str) -> JobVersion | None:
        infos = objects(self._store, keys.job_versions(job))
        newest = max(infos, key=lambda info: keys.version_of(info.key), default=None)
        if newest is None:
            return None
        known = self._known.get(newest)
        if known is None and (known := self._read(job, keys.version_of(newest.key))):
            if len(self._known) >= VERSIONS_KEPT:
                self._known.clear()
            self._known[newest] = known
        return known

    def _read(self, job: str, version: int) -> JobVersion | None:
        key = keys.job_version(job, version)
        try:
            data = self._store.get(key)
        except NoSuchObject:
            return None
        stored = read_json(data, key)
        try:
            return JobVersion(
                job,
                version,
                stored["document"],
                stored["actor"],
                stored["reason"],
                stored["changed_s"],
                stored["deleted"],
            )
        except (KeyError, TypeError) as error:
            raise InvalidDocument(f"{key}: not a version of a job: {error!r}") from error

    def _check_upstream(self, definition: Job) -> None:
        """Refuse a job whose end would start itself again, over however many others."""
        chains: list[tuple[str, ...]] = [(definition.id, trigger.job) for trigger in definition.triggers]
        while chains:
            chain = chains.pop()
            if chain[-1] == definition.id:
                raise UnfitChain(definition.id, "jobs start each other in a circle", chain[::-1])
            if len(chain) > UPSTREAM_DEPTH_MAX:
                raise InvalidJob(f"job {definition.id}", [f"triggers: more than {UPSTREAM_DEPTH_MAX} jobs in a row"])
            upstream = self._latest(chain[-1])
            if upstream and not upstream.is_deleted:
                try:
                    triggers = upstream.definition().triggers
                except InvalidJob as error:
                    what = "the first of these cannot be read here, so that nobody knows whether they start each other in a circle"
                    raise UnfitChain(definition.id, what, chain[::-1]) from error
                chains += [(*chain, trigger.job) for trigger in triggers]


def _is_upstream(job: str, definition: Job) -> bool:
    return any(trigger.job == job for trigger in definition.triggers)


def _pretty(document: Mapping[str, Json]) -> list[str]:
    return json.dumps(document, indent=2, ensure_ascii=False).splitlines()
