"""Where a run happens: back ends of its own, or a corner of somebody's that is made for it and removed after."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from distci.app import ROOT, open_coordination, open_store
from distci.coordination.port import Coordination, Delete
from distci.errors import Unavailable
from distci.settings import Settings
from distci.store.port import Store


def embedded(settings: Settings, folder: Path) -> Settings:
    """Embedded back ends in a folder."""
    return replace(settings, coordination="", store="", data=str(folder))


def below(settings: Settings, name: str, folder: Path) -> Settings:
    """A fresh root and a fresh prefix below what is configured; an embedded tree is made anew in ``folder``."""
    fresh = embedded(settings, folder)
    if settings.coordination_address.scheme == "zookeeper":
        fresh = replace(fresh, coordination=_below(settings.coordination, name, ROOT))
    if settings.store:
        fresh = replace(fresh, store=_below(settings.store, name))
    return fresh


def remove(settings: Settings) -> None:
    """Remove all that is in a sandbox. What cannot be reached is left."""
    if settings.store_address.scheme == "file":
        shutil.rmtree(settings.store_address.path, ignore_errors=True)
    else:
        store = open_store(settings)
        with suppress(Unavailable):
            for key in keys(store):
                store.delete(key)
    if settings.coordination_address.scheme == "zookeeper":
        above, _, name = settings.coordination.rpartition("/")
        with suppress(Unavailable):
            coordination = open_coordination(replace(settings, coordination=above))
            try:
                for path in sorted(nodes(coordination, f"/{name}"), key=len, reverse=True):
                    coordination.commit(Delete(path))
                coordination.commit(Delete(f"/{name}"))
            finally:
                coordination.close()
    shutil.rmtree(settings.data_folder, ignore_errors=True)


def nodes(coordination: Coordination, folder: str) -> Iterator[str]:
    """The paths of all nodes below one."""
    for name in coordination.children(folder):
        yield f"{folder}/{name}"
        yield from nodes(coordination, f"{folder}/{name}")


def keys(store: Store) -> Iterator[str]:
    """All keys of a store."""
    after = ""
    while page := store.list("", after):
        yield from (info.key for info in page)
        after = page[-1].key


def _below(url: str, name: str, otherwise: str = "") -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/') or otherwise}/{name}"))
