"""Artifacts: the files that an attempt at a task publishes, kept after the build and never changed.

Each file is an object of its own, and the index that names them all is written last: an attempt has published
everything or nothing. Which attempt counts is for the state of the build to say, hence all of this speaks of one
attempt, by build, task and token.

Besides, clients upload files to a build as a whole, whether it runs or is over. An upload writes its bytes under their
digest, then the note that makes them the artifact of that name, unless there is one: of several at once one wins. A
process that dies in between leaves bytes that belong to nothing; they become the artifact when the upload is repeated,
and are removed when their name has gone to others, or by the first upload to the build after a day.

Names are the paths that the files had in the workspace. They come from scripts; whoever writes a file under one checks
it again.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import Path
from typing import BinaryIO, cast
from uuid import uuid4

from distci.errors import Damaged, Invalid, InvalidDocument, InvalidPath, NoSuchArtifact, NoSuchObject
from distci.model import BuildId, Json
from distci.safepath import Tree, check_path, encode
from distci.store import keys
from distci.store.port import Store, objects

FORMAT = 1

FILES_MAX = 10_000
"""Files that one attempt may publish."""

UPLOADS_MAX = 1000
"""Files that clients may upload to one build: each is a note of its own, and a list of them reads them all."""

LEFT_BEHIND_S = 24 * 3600.0
"""Bytes without a note are taken for what a broken upload has left when they are that old."""

INDEX_BYTES_MAX = 64 * 1024 * 1024

CHUNK_BYTES = 1024 * 1024
_UPLOADS_AT_ONCE = 8
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MAGIC = frozenset("*?[")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Artifact:
    """One published file."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Publication:
    """What came of publishing."""

    artifacts: Sequence[Artifact]
    unmatched: Sequence[str]
    """The patterns that no file matched."""


class Artifacts:
    """Publishes and reads artifacts. Any thread may use it."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock

    def publish(self, build: BuildId, task: str, token: str, root: Path, patterns: Sequence[str]) -> Publication:
        """Publish the files beneath ``root`` that match any of the patterns, and nothing else.

        In a pattern ``*``, ``?`` and ``[...]`` stand for characters of one name, ``**`` for any number of folders; a
        dot at the beginning of a name is nothing special. A symbolic link to a file in the workspace is published as
        that file. Raises :class:`~distci.errors.Invalid` naming the path for a link that leads outside, a name that no
        artifact can have, a file that cannot be read, and for more than ``FILES_MAX`` files. May be repeated.
        """

        def keep(key: str, file: Upload) -> None:
            is_small = file.left_bytes <= CHUNK_BYTES
            self._store.put(key, file.read() if is_small else cast(BinaryIO, file))

        published = publish(root, patterns, lambda name: keys.artifact(build, task, token, name), keep)
        self._store.put(keys.artifact_index(build, task, token), _written_index(published.artifacts))
        return published

    def put(self, build: BuildId, task: str, token: str, name: str, stream: BinaryIO) -> Artifact:
        """Take in one file, and note it for :meth:`gather`. The stream can be read from its beginning twice. May be repeated.

        Raises :class:`~distci.errors.Invalid` for a name that no artifact can have.
        """
        artifact = measured(name, stream)
        self._store.put(keys.artifact(build, task, token, name), stream)
        self._store.put(keys.artifact_note(build, task, token, name), _written_index([artifact]))
        return artifact

    def gather(self, build: BuildId, task: str, token: str) -> Sequence[Artifact]:
        """Publish all files that were put one by one, and nothing else. Invalid for more than ``FILES_MAX``. May be repeated."""
        notes = [info.key for info in objects(self._store, keys.artifact_notes(build, task, token))]
        if len(notes) > FILES_MAX:
            raise Invalid(f"{len(notes)} files are too many to be published; at most {FILES_MAX}")
        artifacts = self._noted(notes)
        if artifacts:
            self._store.put(keys.artifact_index(build, task, token), _written_index(artifacts))
        return artifacts

    def upload(self, build: BuildId, artifact: Artifact, stream: BinaryIO) -> Artifact:
        """Make a file an artifact of a build, unless there is one of that name; the one that is there then. May be repeated.

        ``artifact`` is what :func:`measured` says of the stream. Raises Invalid for more than ``UPLOADS_MAX`` files.
        """
        self._remove_what_was_left(build)
        key, note = keys.upload(build, artifact.name, artifact.sha256), keys.upload_note(build, artifact.name)
        there = self.uploaded(build, artifact.name)
        if there is None:
            if len([*objects(self._store, keys.upload_notes(build))]) >= UPLOADS_MAX:
                raise Invalid(f"{build} has {UPLOADS_MAX} uploaded files, and takes no more")
            self._store.put(key, stream)
            self._store.put_if_absent(note, _written_index([artifact]))
            # Whoever wrote it, it counts.
            there = self._note(note)
        if there != artifact:
            # The name is another's for good, so nothing can ever refer to these bytes.
            self._store.delete(key)
        elif self._store.head(key) is None:
            # We slept for so long between bytes and note that they were taken for what was left behind. Now they cannot be.
            stream.seek(0)
            self._store.put(key, stream)
        return there

    def uploaded(self, build: BuildId, name: str) -> Artifact | None:
        """The uploaded artifact of that name; None where there is none."""
        try:
            return self._note(keys.upload_note(build, name))
        except NoSuchObject:
            return None

    def uploads(self, build: BuildId) -> Sequence[Artifact]:
        """All artifacts that were uploaded to a build, by name."""
        return self._noted([info.key for info in objects(self._store, keys.upload_notes(build))])

    def open_upload(self, build: BuildId, artifact: Artifact, start: int = 0) -> BinaryIO:
        """As :meth:`open`, of one that was uploaded."""
        try:
            return self._store.open(keys.upload(build, artifact.name, artifact.sha256), start)
        except NoSuchObject as error:
            raise NoSuchArtifact(f"the bytes of {artifact.name!r} of {build} are gone; upload them again") from error

    def index(self, build: BuildId, task: str, token: str) -> Sequence[Artifact]:
        """What an attempt published, by name; nothing if it never came to that.

        Raises :class:`~distci.errors.Damaged` or :class:`~distci.errors.InvalidDocument` when it cannot be read.
        """
        key = keys.artifact_index(build, task, token)
        try:
            return _read_index(self._store.get(key, 0, INDEX_BYTES_MAX + 1), key)
        except NoSuchObject:
            return ()

    def open(self, build: BuildId, task: str, token: str, name: str, start: int = 0) -> BinaryIO:
        """A stream of an artifact's bytes from ``start`` on, as they are stored. The caller closes it.

        Raises :class:`~distci.errors.NoSuchArtifact` where there is none. Digests are for the reader to compare.
        """
        try:
            return self._store.open(keys.artifact(build, task, token, name), start)
        except NoSuchObject as error:
            raise NoSuchArtifact(f"{build}, task {task}, published no artifact {name!r}") from error

    def _noted(self, notes: Sequence[str]) -> Sequence[Artifact]:
        """What these notes say, by name."""
        with ThreadPoolExecutor(_UPLOADS_AT_ONCE, thread_name_prefix="notes") as pool:
            return tuple(sorted(pool.map(self._note, notes), key=lambda artifact: artifact.name))

    def _note(self, key: str) -> Artifact:
        return _read_index(self._store.get(key), key)[0]

    def _remove_what_was_left(self, build: BuildId) -> None:
        """Bytes that an upload has left which broke off long ago."""
        until_s = self._clock() - LEFT_BEHIND_S
        for info in objects(self._store, keys.uploads(build)):
            if info.modified_s < until_s and self._store.head(keys.note_of_upload(info.key)) is None:
                self._store.delete(info.key)


def publish(
    root: Path, patterns: Sequence[str], place: Callable[[str], str], keep: Callable[[str, Upload], object]
) -> Publication:
    """Have the files beneath ``root`` that match any of the patterns kept by ``keep``, several at once, where ``place`` says for their names.

    Where all of them go is asked before the first is kept. Raises as :meth:`Artifacts.publish`.
    """
    sources, unmatched = find(root, patterns)
    uploads = [(name, source, place(_check_name(name))) for name, source in sources]

    def upload(name: str, source: str, where: str) -> Artifact:
        with opened(root, name, source) as file:
            keep(where, file)
            return Artifact(name, file.read_bytes, file.sha256)

    with ThreadPoolExecutor(_UPLOADS_AT_ONCE, thread_name_prefix="upload") as pool:
        futures = [pool.submit(upload, *each) for each in uploads]
        try:
            return Publication(tuple(future.result() for future in futures), unmatched)
        finally:
            pool.shutdown(cancel_futures=True)


def check_name(name: str) -> str:
    """The name itself when an artifact can have it; Invalid otherwise."""
    return _check_name(check_path(name))


def measured(name: str, stream: BinaryIO, sha256: str = "") -> Artifact:
    """What a stream would be as an artifact; it is at its beginning before and after.

    Raises Invalid for a name that no artifact can have, and for other bytes than those with the digest ``sha256``, if that is given.
    """
    check_name(name)
    digest = hashlib.file_digest(cast(io.BufferedIOBase, stream), "sha256").hexdigest()
    # The digest of what is in memory moves nothing.
    stream.seek(0, os.SEEK_END)
    artifact = Artifact(name, stream.tell(), digest)
    if sha256 and sha256 != digest:
        raise Invalid(
            f"the {artifact.size_bytes} bytes for {name!r} have the SHA-256 {digest}, not {sha256} as was said; send them again"
        )
    stream.seek(0)
    return artifact


def save(stream: BinaryIO, artifact: Artifact, destination: Path) -> Path:
    """Write the bytes of an artifact below a directory, under its name, and give back where they are.

    The file is there whole and as it was published, or not at all: :class:`~distci.errors.Damaged` when the bytes
    are others. A name that leads out of the directory, be it through a symbolic link, raises
    :class:`~distci.errors.InvalidPath`. A file of that name is replaced.
    """
    parent, _, name = check_path(artifact.name).rpartition("/")
    path = destination / os.fsdecode(encode(artifact.name))
    destination.mkdir(parents=True, exist_ok=True)
    try:
        with Tree(destination.resolve()) as tree:
            folder = tree.make_folder(parent)
            with _replacing(folder, encode(name)) as file:
                _copy_checked(stream, file, artifact)
    except OSError as error:
        # What the system names is a file with a name of ours, or none at all.
        raise OSError(error.errno, error.strerror, str(path)) from error
    return path


def is_match(name: str, pattern: str) -> bool:
    """Whether a plain name, or a pattern as :meth:`Artifacts.publish` takes them, asks for that artifact."""
    return name == pattern or _fits(name.split("/"), pattern.removeprefix("./").split("/"))


class Upload:
    """A file on its way to the store: no more of it than there was at first, and the digest of exactly that."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.rewind()

    def rewind(self) -> None:
        """Begin anew, with as much as there is then."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        self._digest = hashlib.sha256()
        self.left_bytes = os.fstat(self._descriptor).st_size
        self.read_bytes = 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def read(self, size: int = -1) -> bytes:
        wanted = self.left_bytes if size < 0 else min(size, self.left_bytes)
        data = os.read(self._descriptor, wanted)
        self._digest.update(data)
        self.left_bytes -= len(data)
        self.read_bytes += len(data)
        return data


@contextmanager
def opened(root: Path, name: str, source: str) -> Iterator[Upload]:
    """One of the files that :func:`find` found. Invalid for one that may not be read."""
    try:
        with Tree(root) as tree:
            descriptor = tree.open(source)
    except PermissionError as error:
        raise Invalid(f"{name!r} cannot be read: {error.strerror}") from error
    try:
        yield Upload(descriptor)
    finally:
        os.close(descriptor)


def find(root: Path, patterns: Sequence[str]) -> tuple[Sequence[tuple[str, str]], Sequence[str]]:
    """The names of all files that match and the paths that they are read from; and the patterns without any."""
    sources: dict[str, str] = {}
    unmatched = []
    with Tree(root) as tree:
        for pattern in patterns:
            matches = dict(_matches(tree, pattern))
            sources |= matches
            if not matches:
                unmatched.append(pattern)
            if len(sources) > FILES_MAX:
                raise Invalid(f"{pattern!r} makes it more than {FILES_MAX} files")
    return sorted(sources.items()), unmatched


def _matches(tree: Tree, pattern: str) -> Iterator[tuple[str, str]]:
    names = check_path(pattern.removeprefix("./")).split("/")
    plain = list(takewhile(_MAGIC.isdisjoint, names[:-1]))
    start, rest = "/".join(plain), names[len(plain) :]
    depth = None if "**" in rest else len(rest)
    # The walk comes to its end first: resolving links needs the tree too.
    for found in [found for found in tree.walk(start, depth) if _fits(found.path.split("/")[len(plain) :], rest)]:
        file = tree.resolve(found.path) if stat.S_ISLNK(found.stat.st_mode) else found
        if file is not None and stat.S_ISREG(file.stat.st_mode):
            yield found.path, file.path


def _fits(names: Sequence[str], patterns: Sequence[str]) -> bool:
    if not names or not patterns:
        return not names and not patterns
    if patterns[0] != "**":
        return fnmatchcase(names[0], patterns[0]) and _fits(names[1:], patterns[1:])
    # At the end it stands for all files there are, elsewhere for folders only.
    return len(patterns) == 1 or _fits(names, patterns[1:]) or _fits(names[1:], patterns)


def _check_name(name: str) -> str:
    if _CONTROL.search(name):
        raise Invalid(f"{name!r} cannot be published: there are control characters in its name")
    return name


def _written_index(artifacts: Sequence[Artifact]) -> bytes:
    return json.dumps({"format": FORMAT, "artifacts": [asdict(artifact) for artifact in artifacts]}).encode()


def _read_index(data: bytes, key: str) -> Sequence[Artifact]:
    try:
        if len(data) > INDEX_BYTES_MAX:
            raise ValueError(f"it has more than {INDEX_BYTES_MAX} bytes")
        document = json.loads(data)
        if document["format"] == FORMAT:
            return _distinct(tuple(_artifact(row) for row in document["artifacts"]))
    except (ValueError, KeyError, TypeError, RecursionError, InvalidPath) as error:
        raise Damaged(f"index {key} is damaged: {error!r}") from error
    raise InvalidDocument(f"index {key} has a format that is not known here")


def _artifact(row: Json) -> Artifact:
    name, size_bytes, sha256 = row["name"], row["size_bytes"], row["sha256"]
    if type(name) is not str or type(size_bytes) is not int or type(sha256) is not str:
        raise ValueError("an entry has something of a wrong type")
    if size_bytes < 0 or not _SHA256.fullmatch(sha256):
        raise ValueError(f"{name!r} has an impossible size or digest")
    return Artifact(check_path(name), size_bytes, sha256)


def _distinct(artifacts: Sequence[Artifact]) -> Sequence[Artifact]:
    if len({artifact.name for artifact in artifacts}) < len(artifacts):
        raise ValueError("a name is there twice")
    return artifacts


@contextmanager
def _replacing(folder: int, name: bytes) -> Iterator[BinaryIO]:
    """A new file that takes that name when all went well, and is gone otherwise."""
    temporary = f".{uuid4().hex}.partial"
    descriptor = os.open(temporary, _CREATE, 0o666, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise


def _copy_checked(stream: BinaryIO, file: BinaryIO, artifact: Artifact) -> None:
    digest, left_bytes = hashlib.sha256(), artifact.size_bytes
    while chunk := stream.read(min(CHUNK_BYTES, left_bytes + 1)):
        left_bytes -= len(chunk)
        if left_bytes < 0:
            break
        digest.update(chunk)
        file.write(chunk)
    if left_bytes or digest.hexdigest() != artifact.sha256:
        raise Damaged(f"artifact {artifact.name!r} is not as it was published")
