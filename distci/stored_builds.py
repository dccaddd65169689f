"""What the store has of builds that go on: it outlasts the tree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

from distci.documents import stored
from distci.documents.strict_json import read_json, texts
from distci.errors import Damaged, InvalidDocument, NoSuchObject
from distci.live import LiveBuild
from distci.model import BuildId, Json, Plan, Result, Trigger
from distci.store import keys
from distci.store.port import Store, objects

PLANS_KEPT = 256
OUTCOMES_KEPT = 1024

UNREADABLE = (Damaged, NoSuchObject, InvalidDocument)
"""What becomes of reading a plan that is not there any more as it was written."""


class StoredBuilds:
    """Reads it; what never changes is remembered. Any thread may use it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._plans: dict[str, Plan] = {}
        self._outcomes: dict[str, Mapping[str, Json]] = {}

    def accepted(self, build: BuildId) -> LiveBuild | None:
        """A build as it was when it was accepted, as the store knows it; None when it is archived, or there is none of that number."""
        try:
            return LiveBuild.from_bytes(build, self._store.get(keys.accepted(build)), -1)
        except NoSuchObject:
            return None

    def outcome_document(self, build: BuildId, task: str, token: str) -> Mapping[str, Json] | None:
        """What an attempt that counts left on record, or None when it left nothing. It never changes, so it is read once."""
        key = keys.attempt_outcome(build, task, token)
        known = self._outcomes.get(key)
        if known is not None:
            return known
        try:
            document: Mapping[str, Json] = read_json(self._store.get(key), key)
        except NoSuchObject:
            return None
        if len(self._outcomes) >= OUTCOMES_KEPT:
            self._outcomes.clear()
        return self._outcomes.setdefault(key, document)

    def plan_of(self, live: LiveBuild) -> Plan:
        """The plan that a live build runs by; the last few are remembered, since every attempt of a build needs the same one."""
        return self._plan(live.build, live.plan_digest)

    def archived_plan(self, build: BuildId) -> Plan | None:
        """The plan that an archived build ran by; None when there is none of that number, or it never had one."""
        record = self._record(build)
        return self._plan(build, record["plan"]) if record and record["plan"] else None

    def _plan(self, build: BuildId, digest: str) -> Plan:
        known = self._plans.get(digest)
        if known is not None:
            return known
        data = self._store.get(keys.build_plan(build))
        if stored.plan_digest(data) != digest:
            with suppress(NoSuchObject):
                data = self._store.get(keys.grown_plan(build, digest))
        if stored.plan_digest(data) != digest:
            raise Damaged(f"{keys.build_plan(build)}: not the plan that {build} runs by")
        if len(self._plans) >= PLANS_KEPT:
            self._plans.clear()
        return self._plans.setdefault(digest, stored.plan_from_bytes(data))

    def changed(self, trigger: Trigger) -> tuple[str, ...] | None:
        """The files whose change has started a build; None where nobody knows them all."""
        if trigger.delivery is None or not trigger.delivery.changes:
            return None
        key = keys.changes(trigger.delivery.changes)
        try:
            return texts(read_json(self._store.get(key), key), "paths")
        except NoSuchObject:
            return None

    def tokens(self, build: BuildId, task: str) -> Iterator[str]:
        """Tokens of the attempts at a task that have left anything in the store."""
        position = ""
        while page := self._store.list(keys.task(build, task), position, 1):
            token = keys.token_of(page[0].key)
            yield token
            position = keys.past_attempt(build, task, token)

    def attempts(self, build: BuildId, task: str, token: str) -> Sequence[dict[str, Json]]:
        """The records of a task's attempts, the oldest first: the one of ``token`` and those before it."""
        found: list[dict[str, Json]] = []
        while token:
            document = self.outcome_document(build, task, token)
            if document is None:
                break
            found.append({"token": token, **document})
            token = document.get("after", "")
        return found[::-1]

    def started_by(self, build: BuildId) -> Iterator[str]:
        """The builds that a build's end has started, as far as the store knows."""
        for info in objects(self._store, keys.started(build)):
            yield self._store.get(info.key).decode()

    def called(self, build: BuildId, ticket: str) -> BuildId | None:
        """The build that a task has started, by the id of the task's ticket; None when it has started none."""
        try:
            return BuildId.parse(self._store.get(keys.called_build(build, ticket)).decode())
        except NoSuchObject:
            return None

    def result(self, build: BuildId) -> Result | None:
        """How an archived build ended; None when there is none of that number."""
        record = self._record(build)
        return Result(record["result"]) if record else None

    def trigger(self, build: BuildId) -> Trigger | None:
        """What started an archived build; None when there is none of that number."""
        record = self._record(build)
        return stored.trigger_from_json(record["trigger"]) if record else None

    def archived_nonce(self, build: BuildId) -> str | None:
        """What tells an archived build from another of its number; None when none is archived."""
        record = self._record(build)
        return str(record["nonce"]) if record else None

    def _record(self, build: BuildId) -> Mapping[str, Json] | None:
        key = keys.build_record(build)
        try:
            record: Mapping[str, Json] = read_json(self._store.get(key), key)
        except NoSuchObject:
            return None
        return record

    def pin(self, live: LiveBuild, name: str, find: Callable[[], str]) -> str:
        """What the whole build goes by for ``name``: as the first who asked found it, or the build that this one runs again."""
        found = self.pinned(live, name) or find()
        if self._store.put_if_absent(keys.pin(live.build, name), found.encode()):
            return found
        return self._store.get(keys.pin(live.build, name)).decode()

    def pinned(self, live: LiveBuild, name: str) -> str | None:
        """The same, if anybody has found it."""
        for build in (live.build, live.trigger.retry_of):
            try:
                if build is not None:
                    return self._store.get(keys.pin(build, name)).decode()
            except NoSuchObject:
                continue
        return None
