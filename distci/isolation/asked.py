"""What a task asks for under its key ``isolation``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from distci.documents.jobs import seconds
from distci.errors import Invalid
from distci.isolation.image_names import host_of
from distci.isolation.port import HEALTH_TIME_MAX_S, Confinement, Limits, Service
from distci.model import Json

UNITS_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


def asked(document: Mapping[str, Json], secret: Callable[[str], str]) -> Confinement:
    """The confinement that a document describes; one that is empty asks for nothing. ``secret`` gives the value of one.

    Invalid for a size that is none.
    """
    image, credentials = document.get("image", ""), document.get("credentials", {})
    names = {host_of(image): credentials} if isinstance(credentials, str) else credentials
    return Confinement(
        type=document.get("type", ""),
        image=image,
        user=document.get("user", ""),
        network=document.get("network", True),
        read_only=document.get("read_only", False),
        limits=_limits(document.get("limits", {})),
        services=tuple(map(_service, document.get("services", ()))),
        logins={host: secret(name) for host, name in names.items()},
    )


def _limits(limits: Mapping[str, Json]) -> Limits:
    memory, disk = (size_bytes(limits[name]) if name in limits else None for name in ("memory", "disk"))
    return Limits(memory, limits.get("cpus"), limits.get("processes"), disk)


def _service(item: Mapping[str, Json]) -> Service:
    health = item.get("health", {})
    return Service(
        name=item["name"],
        image=item["image"],
        arguments=tuple(item.get("arguments", ())),
        environment=item.get("environment", {}),
        health=("/bin/sh", "-c", health["command"]) if "command" in health else (),
        health_time_max_s=seconds(health["within"]) if "within" in health else HEALTH_TIME_MAX_S,
        limits=_limits(item.get("limits", {})),
    )


def size_bytes(size: str) -> int:
    """Bytes of a size such as ``512MiB``; Invalid when it is none."""
    match = re.fullmatch(r"([1-9][0-9]{0,9})(B|KiB|MiB|GiB|TiB)", size)
    if not match:
        raise Invalid(f"{size!r} is not a size; write for example 512MiB, 4GiB")
    return int(match[1]) * UNITS_BYTES[match[2]]
