"""About when tokens were last used: noted once an hour for each, by whoever is first, and never at the cost of a request."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from queue import Full, Queue
from threading import Lock, Thread

from distci.documents.strict_json import read_json
from distci.errors import DistCIError, NoSuchObject
from distci.store import keys
from distci.store.port import Store

log = logging.getLogger(__name__)

HOUR_S = 3600
WAITING_MAX = 100
"""Uses that wait to be noted; more are forgotten, until their tokens are used again."""


class LastUses:
    """What is known of the uses of tokens. Any thread may use it."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._noted: dict[str, int] = {}
        """The hour in which each was noted last."""
        self._lock = Lock()
        self._waiting: Queue[tuple[str, bytes]] = Queue(WAITING_MAX)
        self._thread: Thread | None = None

    def note(self, token: str, origin: str = "") -> None:
        """That a token has been used just now. Returns at once; whether it is noted is not sure."""
        now_s = self._clock()
        hour = int(now_s // HOUR_S)
        with self._lock:
            if self._noted.get(token) == hour:
                return
            self._noted[token] = hour
            if self._thread is None:
                self._thread = Thread(target=self._write, name="token uses", daemon=True)
                self._thread.start()
        try:
            self._waiting.put_nowait((token, json.dumps({"format": 1, "used_s": now_s, "origin": origin}).encode()))
        except Full:
            self._forget(token)

    def all(self) -> dict[str, float]:
        """The last known use of each token, in seconds since 1970; of one that was never used, nothing."""
        found: dict[str, float] = {}
        position = ""
        while page := self._store.list(keys.ACCESS_USED, position):
            for info in page:
                try:
                    document = read_json(self._store.get(info.key), info.key)
                    found[keys.access_used_by(info.key)] = float(document["used_s"])
                except NoSuchObject:
                    continue
            position = page[-1].key
        return found

    def _write(self) -> None:
        while True:
            token, data = self._waiting.get()
            try:
                self._store.put(keys.access_used(token), data)
            except DistCIError as error:
                log.info("the last use of token %s was not noted: %s", token, error)
                self._forget(token)

    def _forget(self, token: str) -> None:
        """Have the next use noted."""
        with self._lock:
            self._noted.pop(token, None)
