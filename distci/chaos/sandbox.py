"""Where a run happens: back ends of its own, or a corner of somebody's that is made for it and removed after."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from distci.app import ROOT, open_coordination, open_store
from distci.coordination.port import Delete, leaves_first
from distci.errors import Unavailable
from distci.settings import Settings, with_path
from distci.store.port import objects


def embedded(settings: Settings, folder: Path) -> Settings:
    """Embedded back ends in a folder."""
    return replace(settings, coordination="", store="", data=str(folder))


def below(settings: Settings, name: str, folder: Path) -> Settings:
    """A fresh root and a fresh prefix below what is configured; an embedded tree is made anew in ``folder``."""
    fresh = embedded(settings, folder)
    if settings.coordination_address.scheme == "zookeeper":
        fresh = replace(fresh, coordination=with_path(settings.coordination, f"/{name}", ROOT))
    if settings.store:
        fresh = replace(fresh, store=with_path(settings.store, f"/{name}"))
    return fresh


def remove(settings: Settings) -> None:
    """Remove all that is in a sandbox. What cannot be reached is left."""
    if settings.store_address.scheme == "file":
        shutil.rmtree(settings.store_address.path, ignore_errors=True)
    else:
        store = open_store(settings)
        with suppress(Unavailable):
            for info in objects(store, ""):
                store.delete(info.key)
    if settings.coordination_address.scheme == "zookeeper":
        above, _, name = settings.coordination.rpartition("/")
        with suppress(Unavailable):
            coordination = open_coordination(replace(settings, coordination=above))
            try:
                for path in leaves_first(coordination, f"/{name}"):
                    coordination.commit(Delete(path))
            finally:
                coordination.close()
    shutil.rmtree(settings.data_folder, ignore_errors=True)
