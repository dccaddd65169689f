"""What checkouts have fetched, kept on this machine so that the next one fetches only what is new.

A mirror is a folder of git's packs and a manifest that says which they are and which commits they are complete for. Git itself never works in
it: a checkout copies the packs into its own repository, where git then fetches what is missing from the remote, as the task may; and what was new
is copied back. So the remote is always asked, a mirror is only ever worth time, and whatever is wrong with one, it is dropped and made anew.

Where the remote, when it was asked which commit a ref is, has told of the very commit and the very tags that it told of when the mirror was left, another fetch would
come to the repository that is there already: its refs are copied, too, and nothing is fetched. That saves one connection of two, which is most of what a
second checkout by ssh waits for.

* Packs do not change, and each is compared with the checksum at its own end whenever it is copied.
* The manifest is replaced last, in one step: who is killed leaves files that it does not name, which the next one removes.
* Readers share a lock that dies with its holder, whoever writes has it alone, and nobody waits long: without a mirror a checkout takes longer.
* Who has begun with another manifest than there is now keeps nothing: somebody was faster, and the next checkout will find more.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO

from distci.work import Cache, tidy_up

PACKS_MAX = 20
"""A repository with more of them is packed anew, without what no ref leads to any more."""

TIPS_MAX = 20

WAIT_S = 10.0
"""How long whoever comes waits for others; to read or write all packs of a mirror takes seconds at most."""

POLL_S = 0.05
GONE = "-"
"""In the name of a folder: that it is being removed, or was when somebody died."""

REFS_BYTES_MAX = 1024 * 1024
"""Of the refs that a mirror keeps; a repository with more of them is fetched from each time."""

COPY_BYTES = 1024 * 1024
SUFFIXES = (".pack", ".idx", ".rev")
"""Files of a pack that end with a checksum of themselves."""

MARK = ".promisor"
"""What an empty file with this ending says of a pack: it is part of a repository that lacks things on purpose."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a mirror holds."""

    packs: Sequence[str] = ()
    """Names of files, sorted."""
    tips: Sequence[str] = ()
    """Commits that are there with all that they lead to, the latest last."""
    shallow: str = ""
    """Where history ends on purpose, as git's own file ``shallow`` has it."""
    told: str = ""
    """What the remote told of its tags when all this was so; empty where it was not asked."""
    refs: str = ""
    """The refs of a repository that had fetched the latest tip then, as git's own file ``packed-refs`` has them."""

    def to_text(self) -> str:
        body = json.dumps(asdict(self))
        return f"{_digest(body)}\n{body}"

    @classmethod
    def from_text(cls, text: str) -> Manifest:
        """Raises ValueError for what is none, or has changed since it was written."""
        digest, _, body = text.partition("\n")
        if digest != _digest(body):
            raise ValueError("the manifest is damaged")
        told = json.loads(body)
        return cls(
            tuple(told["packs"]), tuple(told["tips"]), told["shallow"], told.get("told", ""), told.get("refs", "")
        )


class Mirror:
    """One repository's mirror, for those who reach it in the same way. One thread uses it at a time."""

    def __init__(self, cache: Cache, key: Mapping[str, object], checkpoint: Callable[[], None]) -> None:
        """``key`` is all that a mirror must not be shared across; ``checkpoint`` is called now and then by what takes long."""
        self._cache = cache
        self._folder = cache.folder / _digest(json.dumps(key, sort_keys=True))[:32]
        self._checkpoint = checkpoint
        self._hash = "sha256" if key.get("format") == "sha256" else "sha1"
        self._found = Manifest()

    def lend(self, repository: Path) -> Sequence[str]:
        """Copy all there is into a new repository (its ``.git``); the commits that it now has."""
        try:
            with self._locked(fcntl.LOCK_SH) as is_ours:
                if not is_ours:
                    return ()
                found = self._read()
                if found.packs:
                    self._copy(found.packs, self._folder, _packs(repository))
                    if found.shallow:
                        (repository / "shallow").write_text(found.shallow)
        except (OSError, ValueError) as error:
            log.warning("mirror %s is made anew: %s", self._folder.name, error)
            self._take_back(repository)
            self.drop()
            return ()
        self._found = found
        return found.tips

    def is_all(self, commit: str, told: str) -> bool:
        """Whether what has been lent is what a fetch of that commit would come to, the remote having told this of its tags; empty: nothing."""
        found = self._found
        return bool(told and found.refs) and found.told == told and found.tips[-1:] == (commit,)

    def lend_refs(self, repository: Path) -> None:
        """Give a repository the refs, too, that one had which had fetched all this."""
        (repository / "packed-refs").write_text(self._found.refs, errors="surrogateescape")

    def keep(self, repository: Path, commits: Sequence[str], *, is_repacked: bool, told: str = "") -> None:
        """Take over what a repository has more, now that it has these commits; then see to the size of all mirrors.

        ``told`` is what the remote told of its tags before they were fetched; empty where it was not asked.
        """
        tips = [] if is_repacked else [tip for tip in self._found.tips if tip not in commits]
        shallow = repository / "shallow"
        try:
            names = sorted(name for name in os.listdir(_packs(repository)) if _is_of_pack(name))
            size = sum((_packs(repository) / name).stat().st_size for name in names)
            ends = shallow.read_text() if shallow.exists() else ""
            wanted = Manifest(tuple(names), (*tips, *commits)[-TIPS_MAX:], ends, told, _refs(repository))
            is_known = wanted == self._found if told else wanted == replace(self._found, told="")
            if is_known or size > self._cache.bytes_max:
                return
            with self._locked(fcntl.LOCK_EX) as is_ours:
                if is_ours and self._read() == self._found:
                    self._write(wanted, repository)
            trim(self._cache)
        except (OSError, ValueError) as error:
            log.warning("mirror %s is dropped: %s", self._folder.name, error)
            self.drop()

    def drop(self) -> None:
        """Remove the mirror, unless somebody uses it: then that is left to who finds the damage next."""
        _remove_if_free(self._folder)

    def _read(self) -> Manifest:
        try:
            return Manifest.from_text((self._folder / "manifest").read_text())
        except FileNotFoundError:
            return Manifest()

    def _write(self, wanted: Manifest, repository: Path) -> None:
        there = {*self._found.packs}
        for name in os.listdir(self._folder):
            if name not in (*there, "lock", "manifest"):
                (self._folder / name).unlink()
        self._copy([name for name in wanted.packs if name not in there], _packs(repository), self._folder)
        new = self._folder / "manifest.new"
        new.write_text(wanted.to_text())
        new.replace(self._folder / "manifest")
        for name in there - {*wanted.packs}:
            (self._folder / name).unlink(missing_ok=True)

    def _copy(self, names: Sequence[str], source: Path, target: Path) -> None:
        target.mkdir(parents=True, exist_ok=True)
        for name in names:
            with open(source / name, "rb") as file, open(target / name, "xb") as copy:
                if name.endswith(SUFFIXES):
                    self._copy_checked(file, copy)
                os.fchmod(copy.fileno(), 0o444)

    def _copy_checked(self, file: BinaryIO, copy: BinaryIO) -> None:
        """Copy a file; ValueError when it is not what the checksum at its end is of."""
        digest = hashlib.new(self._hash, usedforsecurity=False)
        left = os.fstat(file.fileno()).st_size - digest.digest_size
        while left > 0:
            self._checkpoint()
            piece = file.read(min(left, COPY_BYTES))
            if not piece:
                raise ValueError(f"{file.name} is cut off")
            digest.update(piece)
            copy.write(piece)
            left -= len(piece)
        checksum = file.read()
        if checksum != digest.digest():
            raise ValueError(f"{file.name} is damaged")
        copy.write(checksum)

    def _take_back(self, repository: Path) -> None:
        tidy_up(_packs(repository))
        _packs(repository).mkdir()
        (repository / "shallow").unlink(missing_ok=True)

    @contextmanager
    def _locked(self, how: int) -> Iterator[bool]:
        """Hold the mirror; False when others did all the while."""
        # What mirrors are called is a digest of secrets, too.
        self._cache.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder.mkdir(exist_ok=True, mode=0o700)
        until = time.monotonic() + WAIT_S
        while True:
            with _lock(self._folder, how) as is_ours:
                if is_ours or time.monotonic() >= until:
                    yield is_ours
                    return
            self._checkpoint()
            time.sleep(POLL_S)


def trim(cache: Cache) -> None:
    """Remove the mirrors that were used longest ago, until all together are no larger than they may be. One in use stays."""
    found: list[tuple[float, int, Path]] = []
    for folder in cache.folder.iterdir():
        if GONE in folder.name:
            tidy_up(folder)
            continue
        with suppress(OSError):
            size = sum(path.stat().st_size for path in folder.iterdir())
            found.append(((folder / "lock").stat().st_mtime, size, folder))
    cache.make_room(found, _remove_if_free)


@contextmanager
def _lock(folder: Path, how: int) -> Iterator[bool]:
    """Whether the folder's lock is ours for now. Its file is as old as its last use."""
    with open(folder / "lock", "a") as lock:
        try:
            fcntl.flock(lock, how | fcntl.LOCK_NB)
            # Whoever held it last may have removed the folder.
            is_ours = os.path.samestat(os.fstat(lock.fileno()), os.stat(folder / "lock"))
        except (BlockingIOError, FileNotFoundError):
            is_ours = False
        if is_ours:
            os.utime(lock.fileno())
        yield is_ours


def _remove_if_free(folder: Path) -> bool:
    """Whether a mirror was removed, which nobody used. At once: who comes meanwhile begins a new one."""
    with suppress(OSError), _lock(folder, fcntl.LOCK_EX) as is_ours:
        if is_ours:
            tidy_up(folder.rename(f"{folder}{GONE}{uuid.uuid4().hex[:8]}"))
        return is_ours
    return False


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _packs(repository: Path) -> Path:
    return repository / "objects" / "pack"


def _refs(repository: Path) -> str:
    """All refs of a repository whose refs are packed; nothing where these are too many to be kept."""
    path = repository / "packed-refs"
    if not path.exists() or path.stat().st_size > REFS_BYTES_MAX:
        return ""
    return path.read_text(errors="surrogateescape")


def _is_of_pack(name: str) -> bool:
    stem, dot, suffix = name.partition(".")
    return stem.startswith("pack-") and stem.removeprefix("pack-").isalnum() and f"{dot}{suffix}" in (*SUFFIXES, MARK)
