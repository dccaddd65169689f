"""Tests whose failures count for nothing for now: each with somebody who sees to it, and an end.

One is an object of its own, so that those who add and those who take away are never in each other's way, and each call may be repeated. Once its time is over it
counts for nothing itself, whether anybody takes it away or not.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from distci.documents.strict_json import canonical, read_json
from distci.errors import Invalid, InvalidDocument, NoSuchObject, NoSuchTest
from distci.model import check_job_id
from distci.reports.results import NAME_CHARS_MAX, line_of
from distci.store import keys
from distci.store.port import Store, objects
from distci.views import from_json, to_json

FORMAT = 1
DAYS = 14
DAYS_MAX = 90
"""For how long somebody may put off what a test says."""
TESTS_MAX = 1000
"""Of one job."""
TEXT_CHARS_MAX = 300
DAY_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A test of a job that is in quarantine, or was."""

    job: str
    test: str
    """Its name; or the beginning of the names of several, and ``*``."""
    owner: str
    """Who sees to it."""
    until_ms: int
    """When it counts again, in milliseconds since 1970."""
    reason: str = ""
    set_ms: int = 0
    set_by: str = ""
    is_over: bool = False
    """Whether its time is up, by the clock of who tells."""


class Quarantine:
    """The quarantine of one system. Any thread may use it."""

    def __init__(
        self,
        store: Store,
        check_job: Callable[[str], object] = check_job_id,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``check_job`` raises for what is no job."""
        self._store = store
        self._check_job = check_job
        self._clock = clock

    def put(
        self, job: str, test: str, *, owner: str, days: int = DAYS, reason: str = "", actor: str = ""
    ) -> Quarantined:
        """Let the failures of a test count for nothing for so many days from now, in place of what was said of it before.

        Raises NoSuchJob, and Invalid for what cannot be meant.

        >>> put = ci.quarantine.put("docs/hello", "tests::test_slow", owner="ada@example.org", days=7)
        >>> [each.test for each in ci.quarantine.list("docs/hello")]
        ['tests::test_slow']
        """
        for what, text in (("the name of a test", test), ("its owner", owner)):
            if not isinstance(text, str) or not text.strip() or text != line_of(text, NAME_CHARS_MAX):
                raise Invalid(f"{text!r} cannot be {what}: it is a line of at most {NAME_CHARS_MAX} characters")
        if test == "*":
            raise Invalid("'*' would be all tests; `allow_failure` of their task does that")
        if not isinstance(days, int) or not 1 <= days <= DAYS_MAX:
            raise Invalid(f"days: {days!r} is not from 1 to {DAYS_MAX}")
        key, now_ms = _key(job, test), self._now_ms()
        self._check_job(job)
        if self._store.head(key) is None and len([*objects(self._store, keys.quarantined(job))]) >= TESTS_MAX:
            raise Invalid(f"{job} has {TESTS_MAX} tests in quarantine, and can have no more")
        told = Quarantined(job, test, owner, now_ms + days * DAY_MS, line_of(reason, TEXT_CHARS_MAX), now_ms, actor)
        self._store.put(key, canonical({"format": FORMAT, **_json(told)}))
        return told

    def list(self, job: str) -> Sequence[Quarantined]:
        """The tests of a job that are in quarantine or were, by name; NoSuchJob.

        >>> ci.quarantine.list("docs/hello")
        []
        """
        self._check_job(job)
        return sorted(self._read(job), key=lambda each: each.test)

    def remove(self, job: str, test: str, *, reason: str = "", actor: str = "") -> None:
        """Let a test count again; NoSuchTest where just that is not in quarantine.

        >>> ci.quarantine.remove("docs/hello", "tests::test_slow")
        """
        key = _key(job, test)
        if self._store.head(key) is None:
            raise NoSuchTest(
                f"{job} has no test {test!r} in quarantine; `distci test quarantined {job}` shows those there are"
            )
        self._store.delete(key)

    def in_force(self, job: str) -> Sequence[Quarantined]:
        """Those that count now."""
        return [each for each in self._read(job) if not each.is_over]

    def _read(self, job: str) -> Iterator[Quarantined]:
        now_ms = self._now_ms()
        for info in objects(self._store, keys.quarantined(check_job_id(job))):
            try:
                document = read_json(self._store.get(info.key), info.key)
            except NoSuchObject:
                continue  # taken away just now
            if not isinstance(document, dict) or document.get("format") != FORMAT:
                raise InvalidDocument(f"{info.key}: not of format {FORMAT}, which this version reads")
            told = from_json(Quarantined, document)
            yield replace(told, is_over=told.until_ms <= now_ms)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def matcher(found: Iterable[Quarantined]) -> Callable[[str], bool]:
    """Whether a test is one of these."""
    names = {each.test for each in found}
    beginnings = tuple(name[:-1] for name in names if name.endswith("*"))
    return lambda name: name in names or name.startswith(beginnings)


def _json(told: Quarantined) -> dict[str, object]:
    document = to_json(told)
    del document["is_over"]
    return {**document}


def _key(job: str, test: str) -> str:
    return keys.quarantine(check_job_id(job), hashlib.sha256(test.encode(errors="replace")).hexdigest())
