"""What a task asks for under its key ``isolation``."""

from __future__ import annotations

import re
from collections.abc import Mapping

from distci.errors import Invalid
from distci.isolation.port import Confinement, Limits
from distci.model import Json

UNITS_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


def asked(document: Mapping[str, Json]) -> Confinement:
    """The confinement that a document describes; one that is empty asks for nothing. Invalid for a size that is none."""
    limits = document.get("limits", {})
    memory, disk = (size_bytes(limits[name]) if name in limits else None for name in ("memory", "disk"))
    return Confinement(
        type=document.get("type", ""),
        image=document.get("image", ""),
        user=document.get("user", ""),
        network=document.get("network", True),
        read_only=document.get("read_only", False),
        limits=Limits(memory, limits.get("cpus"), limits.get("processes"), disk),
    )


def size_bytes(size: str) -> int:
    """Bytes of a size such as ``512MiB``; Invalid when it is none."""
    match = re.fullmatch(r"([1-9][0-9]{0,9})(B|KiB|MiB|GiB|TiB)", size)
    if not match:
        raise Invalid(f"{size!r} is not a size; write for example 512MiB, 4GiB")
    return int(match[1]) * UNITS_BYTES[match[2]]
