"""Whether a store does what the others rely on, found out by trying."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence

from distci.errors import DistCIError
from distci.store.port import Store


def probe(store: Store, place: str, new_id: Callable[[], str] = lambda: uuid.uuid4().hex) -> Sequence[str]:
    """What is wrong with a store or its settings, in sentences about ``place``; empty when it can be relied on.

    Writes a small object under a name of its own, and removes it.
    """
    try:
        return tuple(_problems(store, place, f"probe/{new_id()}"))
    except DistCIError as error:
        return (str(error),)


def _problems(store: Store, place: str, key: str) -> Iterator[str]:
    if store.head(key) is not None:
        yield f"{place} shows an object that was never written."
    try:
        if not store.put_if_absent(key, b"first"):
            yield f"{place} refused a conditional write although nothing was in its way."
        is_replaced = store.put_if_absent(key, b"second")
        if is_replaced:
            yield f"{place} ignores 'If-None-Match: *' and overwrites: two writers would both believe to be first."
        written = b"second" if is_replaced else b"first"
        if store.get(key) != written:
            yield f"{place} gives back something else than was written."
        if store.get(key, 1, 2) != written[1:3]:
            yield f"{place} does not honour byte ranges."
        if [info.key for info in store.list(key)] != [key]:
            yield f"{place} does not list what has just been written."
    finally:
        store.delete(key)
