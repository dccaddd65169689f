"""What one attempt at a task is lent of a machine's caches, and what is kept of that when it has passed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from distci.caches import Caches, Lent, key_of
from distci.errors import Invalid
from distci.safepath import Tree, check_path, directory_beneath

TOLD = {
    Lent.SAME: "is here",
    Lent.OTHER: "is here, as another key has it",
    Lent.NOTHING: "is empty: nothing of it is kept here",
}


class TaskCaches:
    """The folders of one task that a machine keeps. One thread uses it at a time."""

    def __init__(
        self,
        caches: Caches | None,
        owner: str,
        workspace: Path,
        home: Path,
        say: Callable[[str], None],
        checkpoint: Callable[[], None],
        *,
        is_kept: bool,
    ) -> None:
        """``caches`` are the machine's, None where it keeps none, and ``owner`` whose they are for this task; ``say`` puts a line into its log.

        Without ``is_kept``, nothing that the task leaves is kept: somebody without rights to the repository wrote what it ran.
        """
        self._caches = caches
        self._owner = owner
        self._workspace = workspace
        self._home = home
        self._say = say
        self._checkpoint = checkpoint
        self._is_kept = is_kept
        self._lent: dict[str, tuple[Lent, str]] = {}
        """What each begins with, and under which key it is kept; by name."""

    def lend(self, cache: Mapping[str, Any]) -> None:
        """Put into a folder of the task what this machine has kept of it; ``cache`` is one of the task's ``caches``.

        InvalidPath for a folder outside, Invalid where a file of its key cannot be read.
        """
        name = cache["name"]
        root, path = self._place(cache["path"])
        folder = directory_beneath(root, check_path(path))
        key = self._key(cache)
        if self._caches is None:
            self._say(f"distci: cache {name} is left out: this machine keeps none")
        elif any(folder.iterdir()):
            self._say(f"distci: cache {name} is left out: there is something in {cache['path']} already")
        else:
            lent = self._caches.lend(self._owner, name, key, folder, self._checkpoint)
            self._lent[name] = lent, key
            self._say(f"distci: cache {name} {TOLD[lent]}")

    def keep(self, cache: Mapping[str, Any]) -> None:
        """Keep that folder, now that the task has passed; what a key has stays as it is. Nothing of this can fail the task."""
        name, is_keyed = cache["name"], bool(cache.keys() & {"key", "files"})
        lent, key = self._lent.get(name, (None, ""))
        if self._caches is None or lent is None or (lent is Lent.SAME and is_keyed):
            return
        if not self._is_kept:
            self._say(f"distci: cache {name} is not kept: somebody without rights to the repository wrote what ran")
            return
        root, path = self._place(cache["path"])
        try:
            with Tree(root) as tree:
                size = self._caches.keep(self._owner, name, key, tree, path, self._checkpoint)
        except Invalid as error:
            self._say(f"distci: cache {name} is not kept: {error}")
        else:
            self._say(f"distci: cache {name} is kept: {size} bytes")

    def _place(self, path: str) -> tuple[Path, str]:
        """The folder that the path of a cache is below, and the path in there."""
        return (self._home, path.removeprefix("~/")) if path.startswith("~/") else (self._workspace, path)

    def _key(self, cache: Mapping[str, Any]) -> str:
        with Tree(self._workspace) as tree:
            return key_of(cache.get("key", ""), [_digest(tree, path) for path in cache.get("files", ())])


def _digest(tree: Tree, path: str) -> str:
    try:
        with open(tree.open(check_path(path)), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Invalid(f"{path}, which the key of a cache is made of, cannot be read: {error.strerror}") from error
