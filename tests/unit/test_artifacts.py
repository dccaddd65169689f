"""Artifacts are exactly the files that were meant, come back as they were, and go nowhere else."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pytest
from unit.trees import NOBODY, nobody

from distci import artifacts as module
from distci.artifacts import FILES_MAX, LEFT_BEHIND_S, Artifact, Artifacts, is_match, measured, save
from distci.errors import Damaged, DistCIError, Invalid, InvalidDocument, InvalidPath, NoSuchArtifact, StoreUnavailable
from distci.model import BuildId
from distci.store import keys
from distci.store.directory import DirectoryStore
from distci.store.passing import PassingStore

BUILD = BuildId("team/hello", 12)
ATTEMPT = (BUILD, "publish", "team:hello:12:publish.1")
INDEX = keys.artifact_index(*ATTEMPT)

FILES = [
    "README",
    ".hidden",
    "hello/dist/hello-1.0.whl",
    "hello/dist/hello-1.1.whl",
    "hello/dist/notes.txt",
    "hello/dist/old/hello-0.9.whl",
    "hello/.cache/file",
    "other/dist/other.whl",
    "naïve [1].txt",
    "100%.txt",
]


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store", durable=False)


@pytest.fixture
def artifacts(store: DirectoryStore) -> Artifacts:
    return Artifacts(store)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "workspace"
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"content of {name}")
    return root


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    return secret


def published(artifacts: Artifacts, root: Path, *patterns: str) -> list[str]:
    publication = artifacts.publish(*ATTEMPT, root, patterns)
    assert publication.artifacts == artifacts.index(*ATTEMPT)
    return [artifact.name for artifact in publication.artifacts]


# Publishing


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("README", ["README"]),
        ("./README", ["README"]),
        ("*", [".hidden", "100%.txt", "README", "naïve [1].txt"]),
        ("hello/dist/*.whl", ["hello/dist/hello-1.0.whl", "hello/dist/hello-1.1.whl"]),
        ("hello/dist/hello-1.[0-0].whl", ["hello/dist/hello-1.0.whl"]),
        ("hello/dist/hello-1.[!0].whl", ["hello/dist/hello-1.1.whl"]),
        ("hello/dist/hello-1.?.whl", ["hello/dist/hello-1.0.whl", "hello/dist/hello-1.1.whl"]),
        ("*/dist/*.whl", ["hello/dist/hello-1.0.whl", "hello/dist/hello-1.1.whl", "other/dist/other.whl"]),
        ("**/*-0.9.whl", ["hello/dist/old/hello-0.9.whl"]),
        ("hello/**/hello-*.whl", [name for name in FILES if name.startswith("hello/dist") and name.endswith(".whl")]),
        ("hello/.cache/**", ["hello/.cache/file"]),
        ("**", sorted(FILES)),
        ("**/README", ["README"]),
        ("naïve [[]1].txt", ["naïve [1].txt"]),
        ("100%.txt", ["100%.txt"]),
    ],
)
def test_a_pattern_publishes_the_files_that_it_matches(
    artifacts: Artifacts, root: Path, pattern: str, names: list[str]
) -> None:
    assert published(artifacts, root, pattern) == names
    assert sorted(name for name in FILES if is_match(name, pattern)) == names


def test_a_plain_name_asks_for_its_artifact_though_it_looks_like_a_pattern() -> None:
    assert is_match("naïve [1].txt", "naïve [1].txt")


@pytest.mark.parametrize("pattern", ["nothing", "hello", "hello/dist", "dist/*.whl", "*.WHL", "nothing/*/x", "no/**"])
def test_a_pattern_without_files_is_reported(artifacts: Artifacts, root: Path, pattern: str) -> None:
    publication = artifacts.publish(*ATTEMPT, root, ["README", pattern])
    assert [artifact.name for artifact in publication.artifacts] == ["README"]
    assert publication.unmatched == [pattern]


def test_a_file_that_several_patterns_match_is_published_once(artifacts: Artifacts, root: Path) -> None:
    assert published(artifacts, root, "README", "R*", "**/README") == ["README"]


def test_sizes_and_digests_are_those_of_the_bytes_that_were_stored(
    artifacts: Artifacts, store: DirectoryStore, tmp_path: Path
) -> None:
    contents = {"empty": b"", "small": b"small", "large": random.Random(1).randbytes(3_500_000)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    found = artifacts.publish(*ATTEMPT, tmp_path, list(contents)).artifacts
    assert found == tuple(_artifact(name, contents[name]) for name in sorted(contents))
    assert {name: store.get(keys.artifact(*ATTEMPT, name)) for name in contents} == contents


@pytest.mark.parametrize(
    "pattern", ["", "/", "/etc/passwd", "..", "../secret", "hello/../../secret", "a//b", "a/", ".", "a\0"]
)
def test_a_pattern_that_may_lead_outside_is_refused(
    artifacts: Artifacts, root: Path, secret: Path, pattern: str
) -> None:
    with pytest.raises(InvalidPath):
        artifacts.publish(*ATTEMPT, root, [pattern])


@pytest.mark.parametrize("target", ["../secret", "/etc/passwd", "hello/../../secret", "up/../secret", "out/secret"])
def test_a_link_that_leads_outside_is_refused_by_name(
    artifacts: Artifacts, store: DirectoryStore, root: Path, secret: Path, target: str
) -> None:
    (root / "up").symlink_to(".")
    (root / "out").symlink_to("..")
    (root / "key.txt").symlink_to(target)
    with pytest.raises(InvalidPath, match=r"'key\.txt' leads outside through"):
        artifacts.publish(*ATTEMPT, root, ["*.txt"])
    assert store.list("builds/") == ()


def test_a_link_to_a_file_in_the_workspace_is_published_as_that_file(artifacts: Artifacts, root: Path) -> None:
    (root / "latest").symlink_to("hello/dist/hello-1.1.whl")
    assert published(artifacts, root, "latest") == ["latest"]
    with artifacts.open(*ATTEMPT, "latest") as stream:
        assert stream.read() == b"content of hello/dist/hello-1.1.whl"


def test_links_to_folders_or_nothing_match_no_pattern(artifacts: Artifacts, root: Path) -> None:
    (root / "folder.link").symlink_to("hello")
    (root / "nowhere.link").symlink_to("nowhere")
    assert artifacts.publish(*ATTEMPT, root, ["*.link"]).unmatched == ["*.link"]


@pytest.mark.parametrize("pattern", ["folder/secret", "folder/*", "README/*"])
def test_no_pattern_leads_through_a_link_or_a_file(
    artifacts: Artifacts, root: Path, secret: Path, pattern: str
) -> None:
    (root / "folder").symlink_to("..")
    with pytest.raises(InvalidPath, match="which is not a directory"):
        artifacts.publish(*ATTEMPT, root, [pattern])
    assert artifacts.publish(*ATTEMPT, root, ["*/secret", "**/secret"]).artifacts == ()


def test_pipes_are_neither_published_nor_waited_for(artifacts: Artifacts, root: Path) -> None:
    os.mkfifo(root / "pipe")
    assert artifacts.publish(*ATTEMPT, root, ["pipe"]).unmatched == ["pipe"]


@pytest.mark.parametrize(
    "name", [b"line\nbreak", b"\x1b[31mred", b"\xff\xfe", b"n" * 255 + b"/" + b"m" * 255, b"%" * 250]
)
def test_a_name_that_no_artifact_can_have_is_refused_before_anything_is_stored(
    artifacts: Artifacts, store: DirectoryStore, root: Path, name: bytes
) -> None:
    path = os.path.join(os.fsencode(root), *[name] * 3)
    os.makedirs(os.path.dirname(path))
    Path(os.fsdecode(path)).touch()
    with pytest.raises(Invalid):
        artifacts.publish(*ATTEMPT, root, ["**"])
    assert store.list("builds/") == ()


def test_a_file_that_cannot_be_read_is_named() -> None:
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        with nobody():
            artifacts = Artifacts(DirectoryStore(Path(folder) / "store", durable=False))
            (Path(folder) / "locked").touch(mode=0)
            with pytest.raises(Invalid, match="'locked' cannot be read: Permission denied"):
                artifacts.publish(*ATTEMPT, Path(folder), ["locked"])


def test_more_files_than_one_attempt_may_publish_are_refused(artifacts: Artifacts, tmp_path: Path) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for n in range(FILES_MAX + 1):
        (many / f"{n}").touch()
    with pytest.raises(Invalid, match="more than 10000 files"):
        artifacts.publish(*ATTEMPT, many, ["*"])


class Failing(DirectoryStore):
    """A store that refuses one key."""

    refused = ""

    def put(self, key: str, data: bytes | BinaryIO) -> None:
        if key == self.refused:
            raise StoreUnavailable("away")
        super().put(key, data)


def test_what_was_not_published_whole_was_not_published(tmp_path: Path, root: Path) -> None:
    store = Failing(tmp_path / "failing", durable=False)
    artifacts = Artifacts(store)
    for store.refused in (keys.artifact(*ATTEMPT, "README"), INDEX):
        with pytest.raises(StoreUnavailable):
            artifacts.publish(*ATTEMPT, root, ["**"])
        assert artifacts.index(*ATTEMPT) == ()
    store.refused = ""
    assert published(artifacts, root, "**") == sorted(FILES)


# Reading


def test_an_attempt_that_published_nothing_has_an_empty_index(artifacts: Artifacts) -> None:
    assert artifacts.index(*ATTEMPT) == ()


def test_attempts_keep_their_artifacts_apart(artifacts: Artifacts, root: Path) -> None:
    published(artifacts, root, "README")
    assert artifacts.index(BUILD, "publish", "team:hello:12:publish.2") == ()


@pytest.mark.parametrize("start", [0, 3, 17, 1000])
def test_an_artifact_can_be_read_from_anywhere(artifacts: Artifacts, root: Path, start: int) -> None:
    published(artifacts, root, "README")
    with artifacts.open(*ATTEMPT, "README", start) as stream:
        assert stream.read() == b"content of README"[start:]


@pytest.mark.parametrize("name", ["nothing", "../artifacts.json", "/etc/passwd", "a\0b"])
def test_an_artifact_that_is_not_there_is_missing(artifacts: Artifacts, name: str) -> None:
    with pytest.raises(NoSuchArtifact):
        artifacts.open(*ATTEMPT, name)


def test_artifacts_are_downloaded_under_their_names(artifacts: Artifacts, root: Path, tmp_path: Path) -> None:
    published(artifacts, root, "**")
    for artifact in artifacts.index(*ATTEMPT):
        path = downloaded(artifacts, artifact, tmp_path / "new" / "folder")
        assert path == tmp_path / "new" / "folder" / artifact.name
        assert path.read_text() == f"content of {artifact.name}"
    found = {str(path.relative_to(tmp_path / "new/folder")) for path in (tmp_path / "new").rglob("*") if path.is_file()}
    assert found == set(FILES)


def test_a_download_replaces_a_file_and_a_link_but_not_what_the_link_points_to(
    artifacts: Artifacts, root: Path, secret: Path, tmp_path: Path
) -> None:
    (artifact,) = artifacts.publish(*ATTEMPT, root, ["README"]).artifacts
    destination = tmp_path / "destination"
    destination.mkdir()
    (destination / "README").symlink_to(secret)
    for _ in range(2):
        downloaded(artifacts, artifact, destination)
    assert (destination / "README").read_text() == "content of README"
    assert not (destination / "README").is_symlink()
    assert secret.read_text() == "secret"


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "..", "", "a/../../evil", "link/evil", "a\0", "n" * 300])
def test_a_download_never_leaves_its_destination(tmp_path: Path, name: str) -> None:
    destination = tmp_path / "outer" / "destination"
    destination.mkdir(parents=True)
    (destination / "link").symlink_to("..")
    with pytest.raises(InvalidPath):
        save(io.BytesIO(b"evil"), _artifact(name, b"evil"), destination)
    assert os.listdir(destination.parent) == ["destination"]
    assert os.listdir(destination) == ["link"]


@pytest.mark.parametrize("stored", [b"", b"othe", b"other", b"right!", b"rightright" * 1_000_000])
def test_a_download_of_other_bytes_is_damage_and_leaves_what_was_there(
    artifacts: Artifacts, store: DirectoryStore, tmp_path: Path, stored: bytes
) -> None:
    store.put(keys.artifact(*ATTEMPT, "file"), stored)
    destination = tmp_path / "destination"
    destination.mkdir()
    (destination / "file").write_text("mine")
    with pytest.raises(Damaged, match="'file' is not as it was published"):
        downloaded(artifacts, _artifact("file", b"right"), destination)
    assert [(path.name, path.read_text()) for path in destination.iterdir()] == [("file", "mine")]


HOSTILE_INDEXES: dict[str, object] = {
    "a list": [],
    "null": None,
    "a number": 5,
    "no format": {"artifacts": []},
    "no artifacts": {"format": 1},
    "artifacts of no list": {"format": 1, "artifacts": 5},
    "an artifact of no fields": {"format": 1, "artifacts": [5]},
    "a name of no text": {"format": 1, "artifacts": [{"name": 5, "size_bytes": 0, "sha256": "0" * 64}]},
    "a name outside": {"format": 1, "artifacts": [{"name": "../x", "size_bytes": 0, "sha256": "0" * 64}]},
    "an absolute name": {"format": 1, "artifacts": [{"name": "/x", "size_bytes": 0, "sha256": "0" * 64}]},
    "a name with NUL": {"format": 1, "artifacts": [{"name": "a\0", "size_bytes": 0, "sha256": "0" * 64}]},
    "a negative size": {"format": 1, "artifacts": [{"name": "a", "size_bytes": -1, "sha256": "0" * 64}]},
    "a size of truth": {"format": 1, "artifacts": [{"name": "a", "size_bytes": True, "sha256": "0" * 64}]},
    "no digest": {"format": 1, "artifacts": [{"name": "a", "size_bytes": 0}]},
    "half a digest": {"format": 1, "artifacts": [{"name": "a", "size_bytes": 0, "sha256": "0" * 32}]},
    "a name twice": {"format": 1, "artifacts": [{"name": "a", "size_bytes": 0, "sha256": "0" * 64}] * 2},
}


@pytest.mark.parametrize("name", HOSTILE_INDEXES)
def test_a_hostile_index_is_damage(artifacts: Artifacts, store: DirectoryStore, name: str) -> None:
    store.put(INDEX, json.dumps(HOSTILE_INDEXES[name]).encode())
    with pytest.raises(Damaged, match="index builds/"):
        artifacts.index(*ATTEMPT)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 100_000, b"9" * 5000])
def test_what_is_no_index_is_damage(artifacts: Artifacts, store: DirectoryStore, data: bytes) -> None:
    store.put(INDEX, data)
    with pytest.raises(Damaged, match="index builds/"):
        artifacts.index(*ATTEMPT)


def test_an_index_of_another_time_is_said_to_be_one(artifacts: Artifacts, store: DirectoryStore) -> None:
    store.put(INDEX, b'{"format": 2}')
    with pytest.raises(InvalidDocument, match="format"):
        artifacts.index(*ATTEMPT)


@pytest.fixture
def harmed_indexes(artifacts: Artifacts, store: DirectoryStore, root: Path) -> Iterator[bytes]:
    artifacts.publish(*ATTEMPT, root, ["**"])
    data = store.get(INDEX)
    chance = random.Random(1)
    return (
        data[:place] + bytes([data[place] ^ chance.randrange(1, 256)]) + data[place + 1 :]
        for place in chance.sample(range(len(data)), 200)
    )


def test_damage_to_an_index_raises_nothing_unexpected_and_never_brings_other_bytes(
    artifacts: Artifacts, store: DirectoryStore, harmed_indexes: Iterator[bytes], tmp_path: Path
) -> None:
    for harmed in harmed_indexes:
        store.put(INDEX, harmed)
        try:
            for artifact in artifacts.index(*ATTEMPT):
                path = downloaded(artifacts, artifact, tmp_path / "destination")
                assert path.read_text() == f"content of {artifact.name}"
        except DistCIError:
            continue


def downloaded(artifacts: Artifacts, artifact: Artifact, destination: Path) -> Path:
    with artifacts.open(*ATTEMPT, artifact.name) as stream:
        return save(stream, artifact, destination)


def _artifact(name: str, content: bytes) -> Artifact:
    return Artifact(name, len(content), hashlib.sha256(content).hexdigest())


# Uploads


class Dies(Exception):
    """What a process that is killed does not come back from."""


class Deadly(PassingStore):
    """Dies before, or after, the n-th change."""

    def __init__(self, store: DirectoryStore, changes: int, *, is_done: bool) -> None:
        super().__init__(store)
        self._left = changes
        self._is_done = is_done

    def put(self, key: str, data: bytes | BinaryIO) -> None:
        self._change(lambda: super(Deadly, self).put(key, data))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self._change(lambda: super(Deadly, self).put_if_absent(key, data))
        return True

    def _change(self, change: Callable[[], object]) -> None:
        self._left -= 1
        if self._left or self._is_done:
            change()
        if not self._left:
            raise Dies


def uploaded(artifacts: Artifacts, name: str, data: bytes) -> Artifact:
    stream = io.BytesIO(data)
    return artifacts.upload(BUILD, measured(name, stream), stream)


def bytes_of(artifacts: Artifacts, artifact: Artifact) -> bytes:
    with artifacts.open_upload(BUILD, artifact) as stream:
        return stream.read()


def kept(store: DirectoryStore) -> list[str]:
    return [info.key for info in store.list(keys.uploads(BUILD))]


@pytest.mark.parametrize("is_done", [False, True])
@pytest.mark.parametrize("changes", [1, 2])
def test_an_upload_that_dies_is_there_as_a_whole_or_not_and_repeated_it_is(
    artifacts: Artifacts, store: DirectoryStore, changes: int, is_done: bool
) -> None:
    with pytest.raises(Dies):
        uploaded(Artifacts(Deadly(store, changes, is_done=is_done)), "dist/a", b"hello")

    is_there = (changes, is_done) == (2, True)
    assert [bytes_of(artifacts, artifact) for artifact in artifacts.uploads(BUILD)] == [b"hello"] * is_there
    for _ in range(2):
        assert uploaded(artifacts, "dist/a", b"hello") == _artifact("dist/a", b"hello")
    assert [bytes_of(artifacts, artifact) for artifact in artifacts.uploads(BUILD)] == [b"hello"]
    assert len(kept(store)) == 1


def test_of_uploads_at_once_one_wins_and_all_are_told_which(artifacts: Artifacts, store: DirectoryStore) -> None:
    offers = [bytes([number]) * 1000 for number in range(8)]
    with ThreadPoolExecutor(len(offers)) as pool:
        told = set(pool.map(lambda data: uploaded(artifacts, "a", data), offers))
    assert told == {*artifacts.uploads(BUILD)}
    [won] = told
    assert bytes_of(artifacts, won) in offers
    assert kept(store) == [keys.upload(BUILD, "a", won.sha256)]


def test_what_a_broken_upload_left_goes_after_a_day_and_nothing_else_does(store: DirectoryStore) -> None:
    uploaded(Artifacts(store), "kept", b"kept")
    with pytest.raises(Dies):
        uploaded(Artifacts(Deadly(store, 2, is_done=False)), "broken", b"half")
    assert len(kept(store)) == 2

    uploaded(Artifacts(store), "soon", b"soon")
    assert len(kept(store)) == 3
    late = Artifacts(store, clock=lambda: time.time() + LEFT_BEHIND_S + 60)
    uploaded(late, "late", b"late")

    assert [artifact.name for artifact in late.uploads(BUILD)] == ["kept", "late", "soon"]
    assert kept(store) == [keys.upload(BUILD, artifact.name, artifact.sha256) for artifact in late.uploads(BUILD)]


def test_one_that_slept_until_its_bytes_were_swept_puts_them_again(artifacts: Artifacts, store: DirectoryStore) -> None:
    class Slept(PassingStore):
        def put_if_absent(self, key: str, data: bytes) -> bool:
            late = Artifacts(store, clock=lambda: time.time() + LEFT_BEHIND_S + 60)
            uploaded(late, "other", b"other")
            assert len(kept(store)) == 1
            return super().put_if_absent(key, data)

    uploaded(Artifacts(Slept(store)), "a", b"hello")
    assert bytes_of(artifacts, _artifact("a", b"hello")) == b"hello"


def test_a_build_takes_so_many_uploads_and_no_more(
    artifacts: Artifacts, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UPLOADS_MAX", 2)
    for name in ("a", "b"):
        uploaded(artifacts, name, b"")
    with pytest.raises(Invalid, match="takes no more"):
        uploaded(artifacts, "c", b"")
    assert uploaded(artifacts, "a", b"") == _artifact("a", b"")


@pytest.mark.parametrize("name", ["", "../a", "/a", "a//b", "a\0", "a\n", "n" * 300, "/".join(["n" * 200] * 6)])
def test_an_upload_has_a_name_that_files_can_have(artifacts: Artifacts, store: DirectoryStore, name: str) -> None:
    with pytest.raises(Invalid):
        uploaded(artifacts, name, b"x")
    assert store.list(keys.BUILDS) == ()


def test_an_upload_with_another_digest_than_was_said_is_refused() -> None:
    with pytest.raises(Invalid, match=r"'a' have the SHA-256 2cf24.*, not 0000.* as was said"):
        measured("a", io.BytesIO(b"hello"), "0" * 64)
