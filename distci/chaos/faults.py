"""Doing what the schedule says, at its time, and undoing it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event, Thread
from time import monotonic
from typing import Self

from distci.chaos.daemon import ServiceFailed
from distci.chaos.ensemble import ZooKeeperServers
from distci.chaos.relay import Relay
from distci.chaos.schedule import AIMS, MEMBER_KINDS, Fault, Kind
from distci.chaos.workers import Fleet

AIM_S = 1.0
"""How long a worker that shall be hit in a call is waited for; then it is hit anyway."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hit:
    """A fault as it was done: from when to when, by the clock of the history, and to whom."""

    fault: Fault
    process: str
    """The worker's process, ``zookeeper`` and an index, or ``store``."""
    began_s: float
    ended_s: float


class Faults:
    """Does the faults of a schedule in a thread of its own; a context manager, which undoes what it did when it is left."""

    def __init__(self, planned: Sequence[Fault], fleet: Fleet, ensemble: ZooKeeperServers | None) -> None:
        self.hits: list[Hit] = []
        """What has been done, and is over."""
        self._planned = planned
        self._fleet = fleet
        self._ensemble = ensemble
        self._stop = Event()
        self._thread = Thread(target=self._run, name="faults", daemon=True)
        self._error: Exception | None = None

    @property
    def are_over(self) -> bool:
        """Whether all have been done and undone; raises what kept one from being done."""
        if self._error is not None:
            raise self._error
        return not self._thread.is_alive()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        began_s = monotonic()
        under_way: list[tuple[float, Fault, Callable[[], None]]] = []
        waiting = list(self._planned)
        try:
            while (waiting or under_way) and not self._stop.is_set():
                # What takes longer than it was planned to holds up who would be hit twice at once.
                is_next = waiting and not any(waiting[0].meets(fault) for _, fault, _ in under_way)
                next_s = min([end_s for end_s, _, _ in under_way] + ([waiting[0].at_s] if is_next else []))
                self._stop.wait(max(0.0, began_s + next_s - monotonic()))
                now_s = monotonic() - began_s
                for item in [item for item in under_way if item[0] <= now_s]:
                    under_way.remove(item)
                    item[2]()
                if is_next and waiting[0].at_s <= now_s and not self._stop.is_set():
                    fault = waiting.pop(0)
                    undo = self._do(fault)
                    under_way.append((monotonic() - began_s + fault.length_s, fault, undo))
        except Exception as error:
            self._error = error
        finally:
            for _, _, undo in under_way:
                undo()

    def _do(self, fault: Fault) -> Callable[[], None]:
        """Do it; how to undo it."""
        if fault.kind in MEMBER_KINDS:
            index = self._leader(fault.victim) if fault.kind is Kind.LEADER_KILL else fault.victim
            process, undo = f"zookeeper{index}", self._to_member(fault.kind, index)
        elif fault.kind is Kind.STORE_AWAY:
            process, undo = "store", _cut(*(links.store for links in self._fleet.links))
        else:
            process, undo = self._fleet.name(fault.victim), self._to_worker(fault.kind, fault.victim)
        began_s = monotonic()

        def over() -> None:
            undo()
            self.hits.append(Hit(fault, process, began_s, monotonic()))

        return over

    def _to_worker(self, kind: Kind, index: int) -> Callable[[], None]:
        fleet = self._fleet
        if kind in AIMS:
            fleet.wait_for_call(index, AIMS[kind], AIM_S)
        match kind:
            case Kind.KILL | Kind.KILL_IN_COMMIT | Kind.KILL_IN_WRITE:
                fleet.kill(index)
                return lambda: fleet.start(index)
            case Kind.PAUSE | Kind.LONG_PAUSE:
                fleet.pause(index)
                return lambda: fleet.resume(index)
            case Kind.CUT:
                return _cut(fleet.links[index].coordination)
            case Kind.SILENCE:
                return _silence(fleet.links[index].coordination)
            case Kind.STORE_CUT:
                return _cut(fleet.links[index].store)
            case Kind.STORE_SILENCE:
                return _silence(fleet.links[index].store)
            case _:
                fleet.replace(index)
                return lambda: None

    def _to_member(self, kind: Kind, index: int) -> Callable[[], None]:
        ensemble = self._ensemble
        assert ensemble is not None
        if kind in (Kind.MEMBER_PAUSE, Kind.QUORUM_PAUSE):
            paused = [index, (index + 1) % len(ensemble.ports)] if kind is Kind.QUORUM_PAUSE else [index]
            ensemble.pause(*paused)
            return lambda: ensemble.resume(*paused)
        ensemble.kill(index)
        return lambda: ensemble.launch(index)

    def _leader(self, otherwise: int) -> int:
        """Who leads now; any of them while nobody does."""
        assert self._ensemble is not None
        try:
            return self._ensemble.leader()
        except ServiceFailed:
            return otherwise


def _cut(*relays: Relay) -> Callable[[], None]:
    """Cut lines; how to mend them."""
    for relay in relays:
        relay.cut()

    def mend() -> None:
        for relay in relays:
            relay.restore()

    return mend


def _silence(relay: Relay) -> Callable[[], None]:
    relay.silence()
    return relay.restore
