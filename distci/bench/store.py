"""What objects cost in the store, beside its bare client on the same server in the same run."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from distci.bench.measuring import percentile
from distci.store.port import Store

Call = Callable[[str], object]


@runtime_checkable
class Measurable(Protocol):
    """A store that lets its bare client be measured."""

    def bare(self) -> tuple[Callable[[str, bytes], object], Callable[[str], bytes]]:
        """To write and to read an object as the client library by itself would."""


@dataclass(frozen=True, slots=True)
class Objects:
    """One operation on objects of one size. Times are in milliseconds; raw ones are 0 where the store has no bare client."""

    operation: str
    size_bytes: int
    p50_ms: float
    p99_ms: float
    raw_p50_ms: float
    raw_p99_ms: float

    @property
    def ratio(self) -> float:
        """The bare client's time by ours: 1 is as fast; 0 where there is none."""
        return self.raw_p50_ms / self.p50_ms


def objects(store: Store, size_bytes: int, count: int) -> list[Objects]:
    """Writing and reading objects of a size, one at a time, ours and raw ones in turns."""
    data = os.urandom(size_bytes)
    ours: dict[str, Call] = {"put": lambda key: store.put(key, data), "get": store.get}
    raw: Mapping[str, Call] = {}
    if isinstance(store, Measurable):
        write, read = store.bare()
        raw = {"put": lambda key: write(key, data), "get": read}
    figures = []
    for operation, call in ours.items():
        times: dict[str, list[float]] = {"ours": [], "raw": []}
        for number in range(count):
            times["ours"].append(_ms(call, f"ours/{size_bytes}/{number}"))
            if raw:
                times["raw"].append(_ms(raw[operation], f"raw/{size_bytes}/{number}"))
        of_raw = times["raw"] or [0.0]
        figures.append(
            Objects(
                operation,
                size_bytes,
                statistics.median(times["ours"]),
                percentile(times["ours"], 99),
                statistics.median(of_raw),
                percentile(of_raw, 99),
            )
        )
    for operation in ("ours", "raw"):
        for number in range(count):
            store.delete(f"{operation}/{size_bytes}/{number}")
    return figures


def _ms(call: Call, key: str) -> float:
    started = time.perf_counter()
    call(key)
    return 1000 * (time.perf_counter() - started)
