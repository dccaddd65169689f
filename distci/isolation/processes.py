"""What /proc says of processes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def others() -> Sequence[int]:
    """All processes but this one."""
    own = os.getpid()
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != own]


def environment(pid: int) -> bytes:
    """What a process was given, each variable with a NUL; no more than that where nobody may look."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes() + b"\0"
    except OSError:
        return b""


def started(pid: int) -> str:
    """When a process was started, in the kernel's ticks; empty when there is none (any more)."""
    try:
        return stat(pid)[19].decode()
    except (OSError, IndexError):
        return ""


def stat(pid: int) -> list[bytes]:
    """The fields of ``/proc/PID/stat`` from the state on."""
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()


def own_name() -> str:
    """What this process is called, and no other one of this machine until it starts anew."""
    return f"{os.getpid()}-{started(os.getpid())}"


def is_there(name: str) -> bool:
    """Whether a process lives that is called so, whatever follows after another ``-``."""
    pid, _, rest = name.partition("-")
    return pid.isdigit() and started(int(pid)) == rest.partition("-")[0] != ""
