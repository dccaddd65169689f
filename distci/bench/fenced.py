"""A part of the system's own back ends where only the benchmark is, gone when it ends."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from urllib.parse import quote

from distci.app import ROOT, open_coordination, open_store
from distci.coordination.port import Coordination, Delete
from distci.settings import Settings, with_path

DELETED_AT_ONCE = 500


@contextmanager
def fenced(settings: Settings) -> Iterator[Settings]:
    """Settings of an empty system on the same back ends: a root and a prefix of its own, of which nothing is left."""
    name = f"bench-{uuid.uuid4().hex[:8]}"
    folder = settings.data_folder
    coordination = settings.coordination or f"sqlite://{quote(str(folder / 'coordination.sqlite'))}"
    is_file = settings.coordination_address.scheme == "sqlite"
    own = replace(
        settings,
        coordination=with_path(coordination, f"-{name}" if is_file else f"/{name}", ROOT),
        store=with_path(settings.store or f"file://{quote(str(folder / 'store'))}", f"/{name}"),
    )
    try:
        yield own
    finally:
        _remove_objects(own)
        if is_file:
            for end in ("", "-wal", "-shm"):
                Path(own.coordination_address.path + end).unlink(missing_ok=True)
        else:
            with closing(open_coordination(settings)) as parent:
                _remove_nodes(parent, f"/{name}")


def _remove_nodes(coordination: Coordination, path: str) -> None:
    leaves = []
    for name in coordination.children(path):
        below = f"{path}/{name}"
        stat = coordination.exists(below)
        if stat and stat.children:
            _remove_nodes(coordination, below)
        elif stat:
            leaves.append(Delete(below))
    for start in range(0, len(leaves), DELETED_AT_ONCE):
        coordination.commit(*leaves[start : start + DELETED_AT_ONCE])
    coordination.commit(Delete(path))


def _remove_objects(settings: Settings) -> None:
    if settings.store_address.scheme == "file":
        rmtree(settings.store_address.path, ignore_errors=True)
        return
    store = open_store(settings)
    while page := store.list(""):
        for info in page:
            store.delete(info.key)
