"""How much of a disk folders take."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

BLOCK_BYTES = 512
"""What the kernel counts in, whatever the file system."""


def taken_bytes(folders: Iterable[Path]) -> int:
    """What is below these folders, files of several names once. What goes away meanwhile does not matter."""
    seen: set[tuple[int, int]] = set()
    return sum(_taken(os.fspath(folder), seen) for folder in folders)


def _taken(folder: str, seen: set[tuple[int, int]]) -> int:
    total, waiting = 0, [folder]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:
            continue
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            elif found.st_nlink > 1:
                if (found.st_dev, found.st_ino) in seen:
                    continue
                seen.add((found.st_dev, found.st_ino))
            total += found.st_blocks * BLOCK_BYTES
    return total
