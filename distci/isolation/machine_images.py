"""Images of virtual machines: folders that the operator names, each with the checksum of what is in it.

The checksum is that of the file ``SHA256SUMS`` in there, as ``sha256sum`` writes and prints it, which has those of the files: ``kernel`` and ``initramfs``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from distci.errors import Invalid, Unavailable

SUMS, KERNEL, INITRAMFS = "SHA256SUMS", "kernel", "initramfs"
BY_CHECKSUM = "@sha256:"
PIECE_BYTES = 1 << 20
SUMS_BYTES_MAX = 1 << 16
LINE = re.compile(r"([0-9a-f]{64}) [ *](\S+)")


@dataclass(frozen=True, slots=True)
class MachineImage:
    """One that the operator names."""

    name: str
    folder: Path
    checksum: str

    @property
    def digest(self) -> str:
        """By what a whole build goes."""
        return f"{self.name}{BY_CHECKSUM}{self.checksum}"

    def problem(self) -> str:
        """What is wrong with it, for all that can be seen without reading it all, and what to do; empty for nothing."""
        try:
            self._sums()
        except (Invalid, Unavailable) as error:
            return str(error)
        return ""

    def copy(self, into: Path) -> None:
        """Copy its files. Unavailable when they cannot be read, or are not what the operator has named."""
        for name, expected in self._sums().items():
            found = hashlib.sha256()
            try:
                with (self.folder / name).open("rb") as source, (into / name).open("xb") as copy:
                    while data := source.read(PIECE_BYTES):
                        found.update(data)
                        copy.write(data)
            except OSError as error:
                raise Unavailable(
                    f"image {self.name} cannot be read: {self.folder / name}: {error.strerror}"
                ) from error
            if found.hexdigest() != expected:
                raise Unavailable(
                    f"image {self.name}: {self.folder / name} is not what its checksum says; put back what it was"
                )

    def _sums(self) -> Mapping[str, str]:
        """The checksums of its files."""
        path = self.folder / SUMS
        try:
            with path.open("rb") as file:
                data = file.read(SUMS_BYTES_MAX)
        except OSError as error:
            raise Unavailable(
                f"image {self.name} cannot be read, {path}, {error.strerror}: make one with deploy/vm-image"
            ) from error
        found = hashlib.sha256(data).hexdigest()
        if found != self.checksum:
            raise Unavailable(
                f"image {self.name} is not what the setting vm_images says, {path} has the checksum {found}: put back what it was, or name what it is now"
            )
        sums = {
            match[2]: match[1] for match in map(LINE.fullmatch, data.decode(errors="replace").splitlines()) if match
        }
        if missing := [name for name in (KERNEL, INITRAMFS) if name not in sums]:
            raise Unavailable(
                f"image {self.name} has no {' and no '.join(missing)} in {path}: make one with deploy/vm-image"
            )
        return {name: sums[name] for name in (KERNEL, INITRAMFS)}


def images_of(named: Mapping[str, tuple[str, str]]) -> Mapping[str, MachineImage]:
    """By their names, of which the operator says the folder and the checksum."""
    return {name: MachineImage(name, Path(folder), checksum) for name, (folder, checksum) in named.items()}


def find_image(images: Mapping[str, MachineImage], wanted: str) -> MachineImage:
    """The image of a name, or of that with a checksum. Invalid for a name that the operator has not named, Unavailable for another checksum."""
    name, _, checksum = wanted.partition(BY_CHECKSUM)
    if name not in images:
        raise Invalid(
            f"there is no image {name!r} for virtual machines here; the setting vm_images names {' '.join(sorted(images))}"
        )
    image = images[name]
    if checksum not in ("", image.checksum):
        raise Unavailable(f"image {wanted} cannot be had: here {name} is another one, {image.digest}")
    return image
