"""Images of virtual machines, made as operators make them: a small one, and one of this machine's own packages, for scripts that need more."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

from distci.isolation.machine_images import MachineImage, images_of
from distci.settings import Settings
from services.containers import files_of

SMALL = "busybox"
"""What the small one is called, as in the documentation."""

PROGRAM = Path(__file__).parents[2] / "deploy" / "vm-image"
NEEDED = (
    "coreutils",
    "dash",
    "debianutils",
    "grep",
    "hostname",
    "libc-bin",
    "mawk",
    "procps",
    "python3",
    "sed",
    "util-linux",
)
"""What the scripts of tests run."""

USERS = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/sh\n",
    "group": "root:x:0:\ndaemon:x:1:\n",
}


class Made:
    """An image in a folder."""

    pids: list[int] = []  # noqa: RUF012 - nothing of it runs

    def __init__(self, folder: Path, packages: Iterable[str] = ()) -> None:
        """Of these packages, or the small one."""
        arguments = [str(folder / ("debian" if packages else SMALL))]
        if packages:
            arguments.append(str(folder / "root.tar"))
            _pack(folder / "root.tar", packages)
        made = subprocess.run([str(PROGRAM), *arguments], check=True, capture_output=True, text=True)
        self.address = made.stdout.partition('"')[2].partition('"')[0]


def image_of(address: str) -> MachineImage:
    """The image, as a worker has it that is told of it."""
    [image] = images_of(Settings(vm_images=address).machine_images).values()
    return image


def _pack(archive: Path, packages: Iterable[str]) -> None:
    """The files of packages and of what they depend on, as a root."""
    files = "".join(f"{path.lstrip('/')}\n" for path in files_of(packages))
    subprocess.run(
        ["tar", "-C", "/", "--no-recursion", "--files-from=-", "-cf", str(archive)], input=files, text=True, check=True
    )
    with tarfile.open(archive, "a") as added:
        for name, text in USERS.items():
            member = tarfile.TarInfo(f"etc/{name}")
            member.size = len(text)
            added.addfile(member, BytesIO(text.encode()))
        folder = tarfile.TarInfo("opt")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        added.addfile(folder)
