"""Where secrets lie that tasks get as files: in memory, in a folder that is for whoever the task runs as alone, gone with the attempt.

All worker processes of a user share one, whatever they work for: what one that was killed has left is removed by the next that starts.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from distci.errors import Invalid

IN_MEMORY = ("tmpfs", "ramfs")
MOUNTS = Path("/proc/self/mountinfo")
REMEDY = "mount a tmpfs there, or name another folder with secret_folder (DISTCI_SECRET_FOLDER)"


def folder_in(place: Path) -> Path:
    """The folder of this user below a place in memory."""
    return place / f"distci-{os.geteuid()}"


def name_for(name: str, scratch: Path) -> str:
    """What a process of that name is called there, which works in that scratch space: others may have processes of that name, too."""
    return f"{name}-{hashlib.sha256(os.fsencode(scratch.absolute())).hexdigest()[:16]}"


def problem(place: Path) -> str:
    """Why nothing that is secret can be put there; empty where it can."""
    if not place.is_dir():
        return f"there is no folder {place}; {REMEDY}"
    kind = _file_system(place)
    if kind not in IN_MEMORY:
        return f"{place} is not in memory, but on {kind or 'something unknown'}; {REMEDY}"
    return "" if os.access(place, os.W_OK | os.X_OK) else f"{place} cannot be written to; {REMEDY}"


def make(folder: Path) -> None:
    """Make the folder if need be. Invalid where it cannot be ours alone: others can make folders there, too."""
    if reason := problem(folder.parent):
        raise Invalid(f"secrets cannot be handed over as files: {reason}")
    try:
        folder.mkdir(mode=0o711)
    except FileExistsError:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o066:
            raise Invalid(
                f"secrets cannot be handed over as files: {folder} is somebody else's, or open to them; remove it"
            ) from None


def _file_system(place: Path) -> str:
    """The type of the file system that a folder is on, of those mounted over one another the last."""
    device = os.stat(place).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    kind = ""
    for line in MOUNTS.read_text(errors="surrogateescape").splitlines():
        mount, _, rest = line.partition(" - ")
        if mount.split()[2] == wanted:
            kind = rest.split()[0]
    return kind
