"""Workspaces come back as they were, several become one, and what did not change is not stored again."""

from __future__ import annotations

import hashlib
import os
import random
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.trees import NOBODY, Node, look, make, nobody, trees

from distci.errors import Damaged, Invalid, NoSuchObject, StoreUnavailable
from distci.packs import PACK_BYTES_MAX, Packer, Unpacker
from distci.snapshots import Content, Directory, File, Snapshot, decode, encode, overlay
from distci.store.directory import DirectoryStore
from distci.workspaces import Restored, Saved, Workspaces, remove

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

Edit = Mapping[str, bytes | None]
"""New contents by path; None removes."""


class Site:
    """A store, and tasks that work on its workspaces one after the other or side by side."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = DirectoryStore(folder / "store", durable=False)
        self.workspaces = Workspaces(self.store)
        self._count = 0

    def restore(self, *tasks: str) -> tuple[Path, Restored]:
        self._count += 1
        directory = self.folder / f"workspace {self._count}"
        return directory, self.workspaces.restore([f"snapshots/{task}" for task in tasks], directory)

    def perform(self, task: str, needs: Sequence[str], work: Callable[[Path], object]) -> Saved:
        directory, restored = self.restore(*needs)
        work(directory)
        saved = self.workspaces.save(directory, restored, task, f"snapshots/{task}")
        remove(directory)
        return saved

    def edit(self, task: str, needs: Sequence[str], changes: Edit) -> Saved:
        return self.perform(task, needs, lambda directory: apply(directory, changes))

    def outcome(self, *tasks: str) -> Mapping[bytes, Node]:
        directory, _ = self.restore(*tasks)
        found = look(directory)
        remove(directory)
        return found

    def files(self, *tasks: str) -> Mapping[str, bytes]:
        found = self.outcome(*tasks)
        return {path.decode(): bytes(node[2]) for path, node in found.items() if len(node) == 3}  # type: ignore[call-overload]


def apply(directory: Path, changes: Edit) -> None:
    for path, content in changes.items():
        if content is None:
            remove(directory / path)
        else:
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_bytes(content)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def fresh_site() -> Iterator[Callable[[], Site]]:
    """Sites for tests that need many."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        yield lambda: Site(Path(tempfile.mkdtemp(dir=root)))


# One snapshot


@QUICK
@given(nodes=trees())
def test_what_was_saved_comes_back(fresh_site: Callable[[], Site], nodes: Mapping[bytes, Node]) -> None:
    site = fresh_site()
    site.perform("one", [], lambda directory: make(directory, nodes))
    assert site.outcome("one") == nodes


@QUICK
@given(before=trees(), after=trees())
def test_what_a_later_task_left_comes_back(
    fresh_site: Callable[[], Site], before: Mapping[bytes, Node], after: Mapping[bytes, Node]
) -> None:
    site = fresh_site()
    site.perform("one", [], lambda directory: make(directory, before))

    def start_over(directory: Path) -> None:
        for child in directory.iterdir():
            remove(child)
        make(directory, after)

    site.perform("two", ["one"], start_over)
    assert site.outcome("two") == after


@QUICK
@given(nodes=trees())
def test_a_task_that_does_nothing_changes_nothing(fresh_site: Callable[[], Site], nodes: Mapping[bytes, Node]) -> None:
    site = fresh_site()
    site.perform("one", [], lambda directory: make(directory, nodes))
    saved = site.perform("two", ["one"], lambda directory: None)
    assert (saved.changed, saved.deleted) == (0, 0)
    assert site.outcome("two") == site.outcome("one", "two") == nodes


def test_a_task_without_needs_starts_from_nothing(site: Site) -> None:
    directory, restored = site.restore()
    assert list(directory.iterdir()) == []
    assert restored == Restored()


def test_times_of_files_come_back_to_the_nanosecond(site: Site) -> None:
    times = {"old": -1_000_000_001, "then": 1_500_000_000_123_456_700, "far": 4_000_000_000_000_000_000}

    def work(directory: Path) -> None:
        for name, mtime_ns in times.items():
            _write(directory / name, b"x", mtime_ns)

    site.perform("one", [], work)
    directory, _ = site.restore("one")
    assert {path.name: path.stat().st_mtime_ns for path in directory.iterdir()} == times


def test_bits_that_lend_rights_are_dropped(site: Site) -> None:
    def work(directory: Path) -> None:
        for path, mode in ((directory / "tool", 0o6755), (directory / "shared", 0o3777)):
            (path.mkdir if path.name == "shared" else path.touch)()
            path.chmod(mode)

    site.perform("one", [], work)
    assert site.outcome("one") == {b"tool": ("file", 0o755, b""), b"shared": ("directory", 0o777)}


def test_sockets_and_pipes_are_left_out_and_named(site: Site) -> None:
    def work(directory: Path) -> None:
        os.mkfifo(directory / "pipe")
        (directory / "in").mkdir()
        os.mknod(directory / "in" / "socket", stat.S_IFSOCK)

    saved = site.perform("one", [], work)
    assert saved.left_out == ["pipe", "in/socket"]
    assert site.outcome("one") == {b"in": ("directory", 0o755)}


def test_links_are_carried_and_never_followed(site: Site, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_bytes(b"a secret that nobody else has")

    def work(directory: Path) -> None:
        (directory / "folder").symlink_to(secret)
        (directory / "file").symlink_to(secret / "key")

    assert site.perform("one", [], work).files == 0
    assert site.outcome("one")[b"folder"] == ("symlink", os.fsencode(secret))


def test_a_workspace_that_became_a_link_is_refused(site: Site, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()

    def work(directory: Path) -> None:
        directory.rmdir()
        directory.symlink_to(tmp_path / "secret")

    with pytest.raises(Invalid, match="not a directory"):
        site.perform("one", [], work)


def test_a_workspace_that_its_task_removed_is_refused(site: Site) -> None:
    with pytest.raises(Invalid, match="not a directory"):
        site.perform("one", [], remove)


def test_a_file_larger_than_a_pack_comes_back(site: Site) -> None:
    large = random.Random(1).randbytes(1000) * (PACK_BYTES_MAX // 1000 + 5000)
    site.edit("one", [], {"a": b"small", "b": large, "c": b"too", "copy": large})
    assert site.files("one") == {"a": b"small", "b": large, "c": b"too", "copy": large}


@pytest.mark.parametrize("name", ["file", "folder"])
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        with nobody():
            site = Site(Path(folder))
            directory, restored = site.restore()
            (directory / "in" / "folder").mkdir(parents=True)
            (directory / "in" / "file").touch()
            (directory / "in" / name).chmod(0)
            with pytest.raises(Invalid, match=f"'in/{name}' in the workspace cannot be read: Permission denied"):
                site.workspaces.save(directory, restored, "one", "snapshots/one")
            remove(directory)


def test_what_its_owner_may_not_write_is_restored_without_further_rights() -> None:
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        with nobody():
            site = Site(Path(folder))
            nodes: dict[bytes, Node] = {
                b"in": ("directory", 0o555),
                b"in/deep": ("directory", 0o555),
                b"in/deep/file": ("file", 0o400, b"x"),
                b"in/deep/same": ("file", 0o400, b"x"),
                b"in/link": ("link", b"in/deep/file"),
            }
            site.perform("one", [], lambda directory: make(directory, nodes))
            assert site.outcome("one") == nodes


# What is stored


def test_a_few_changes_cost_a_small_part_of_the_first_snapshot(site: Site) -> None:
    chance = random.Random(1)
    files = {f"src/{n % 20}/{n}.py": _text(chance) for n in range(1000)}
    first = site.edit("one", [], files)
    changes = {path: _text(chance) for path in list(files)[::100]}
    second = site.edit("two", ["one"], changes)
    assert (second.files, second.changed, second.deleted) == (1000, 10, 0)
    assert second.moved_bytes < first.moved_bytes / 10
    assert site.files("two") == files | changes


def test_contents_that_are_there_already_are_not_stored_again(site: Site) -> None:
    data = random.Random(1).randbytes(3_000_000)
    first = site.edit("one", [], {"a": data, "copy": data})
    assert first.moved_bytes < 3_100_000
    second = site.edit("two", ["one"], {"a": None, "moved": data, "copy": data})
    assert second.moved_bytes < 2_000


def test_a_file_that_cannot_have_changed_is_not_read(site: Site) -> None:
    site.edit("one", [], {"file": b"before"})
    directory, restored = site.restore("one")
    (directory / "file").write_bytes(b"after!")
    status = (directory / "file").stat()
    identity = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    saved = site.workspaces.save(directory, replace(restored, identities={"file": identity}), "two", "snapshots/two")
    assert saved.changed == 0
    assert site.files("two") == {"file": b"before"}


def test_a_change_is_seen_however_fast_and_well_hidden(site: Site) -> None:
    names = [f"{n}" for n in range(200)]
    site.edit("one", [], dict.fromkeys(names, b"before"))
    directory, _ = restored = site.restore("one")
    for name in names:
        mtime_ns = (directory / name).stat().st_mtime_ns
        with open(directory / name, "r+b") as file:
            file.write(b"after!")
        os.utime(directory / name, ns=(mtime_ns, mtime_ns))
    assert site.workspaces.save(*restored, "two", "snapshots/two").changed == 200
    assert site.files("two") == dict.fromkeys(names, b"after!")


def test_no_time_is_trusted_that_a_write_right_after_could_share(site: Site) -> None:
    site.edit("one", [], {f"{n}": b"" for n in range(500)})
    directory, restored = site.restore("one")
    restored_ns = directory.stat().st_ctime_ns
    assert all(changed_ns + 10_000_000 < restored_ns for _, _, _, changed_ns in restored.identities.values())
    assert len(restored.identities) < 500


def test_a_file_that_was_only_touched_has_not_changed(site: Site) -> None:
    site.edit("one", [], {"file": b"x"})
    saved = site.perform("two", ["one"], lambda directory: os.utime(directory / "file", (1, 1)))
    assert saved.changed == 0
    assert (site.restore("two")[0] / "file").stat().st_mtime == 1


def test_many_small_steps_do_not_add_up_to_many_packs(site: Site) -> None:
    files: dict[str, bytes] = {}
    for n in range(40):
        site.edit(f"{n}", [f"{n - 1}"] if n else [], {f"file {n}": b"%d" % n})
        files[f"file {n}"] = b"%d" % n
    assert len(_packs(site, "39")) <= 10
    assert site.files("39") == files


def test_restoring_reads_no_pack_for_a_small_part_of_it(site: Site) -> None:
    chance = random.Random(1)
    files = {f"{n}": chance.randbytes(100_000) for n in range(10)}
    site.edit("one", [], files)
    site.edit("two", ["one"], dict.fromkeys(list(files)[1:]))
    directory, restored = site.restore("two")
    site.workspaces.save(directory, restored, "three", "snapshots/three")
    _, restored = site.restore("three")
    assert restored.moved_bytes < 110_000
    assert site.files("three") == {"0": files["0"]}


@pytest.mark.parametrize("claimed", [0, 3, 100])
@pytest.mark.parametrize("size", [6, 3_000_000])
def test_a_file_that_grows_or_shrinks_under_the_reader_is_kept_as_it_was_read(
    site: Site, tmp_path: Path, size: int, claimed: int
) -> None:
    data = random.Random(1).randbytes(size)
    (tmp_path / "file").write_bytes(data)
    with open(tmp_path / "file", "rb") as file, Packer(site.store, tmp_path, []) as packer:
        number = packer.add(file.fileno(), size * claimed // 3)
        content = packer.finish()[number]
    read = data[: size * claimed // 3]
    assert (content.size_bytes, content.sha256) == (len(read), hashlib.sha256(read).hexdigest())
    assert _unpacked(site, content) == read


# Several snapshots


def test_workspaces_of_several_needs_are_laid_over_each_other(site: Site) -> None:
    site.edit("source", [], {"src/a": b"a", "src/b": b"b", "src/c": b"c"})
    site.edit("left", ["source"], {"src/a": b"A", "left/out": b"l"})
    site.edit("right", ["source"], {"src/b": None, "right/out": b"r"})
    merged = {"src/a": b"A", "src/c": b"c", "left/out": b"l", "right/out": b"r"}
    assert site.files("left", "right") == site.files("right", "left") == merged
    assert site.files("source", "left", "right") == site.files("right", "left", "source") == merged


@pytest.mark.parametrize(
    ("left", "right", "path"),
    [
        ({"a": b"1"}, {"a": b"2"}, "a"),
        ({"a": None}, {"a": b"2"}, "a"),
        ({"new": b"1"}, {"new": b"2"}, "new"),
        ({"new": b"1"}, {"new/in": b"2"}, "new"),
        ({"d": None}, {"d/x": b"2"}, "d/x"),
        ({"d/x": b"1"}, {"d/x": None}, "d/x"),
    ],
)
def test_a_path_that_two_tasks_changed_differently_is_an_error_that_names_both(
    site: Site, left: Edit, right: Edit, path: str
) -> None:
    site.edit("source", [], {"a": b"a", "d/x": b"x"})
    site.edit("left", ["source"], left)
    site.edit("right", ["source"], right)
    for needs in (("left", "right"), ("right", "left"), ("source", "left", "right")):
        with pytest.raises(Invalid, match=f"path '{path}' was changed differently by left and right"):
            site.restore(*needs)


def test_a_folder_that_became_a_file_does_not_fit_a_new_file_in_it(site: Site) -> None:
    site.edit("source", [], {"d/x": b"x"})
    site.edit("left", ["source"], {"d": None})
    site.edit("left2", ["left"], {"d": b"a file"})
    site.edit("right", ["source"], {"d/new": b"n"})
    with pytest.raises(Invalid, match="path 'd' was changed differently by left2 and right"):
        site.restore("left2", "right")


def test_a_conflict_between_modes_is_one(site: Site) -> None:
    site.edit("source", [], {"run": b""})
    site.perform("left", ["source"], lambda directory: (directory / "run").chmod(0o755))
    site.perform("right", ["source"], lambda directory: (directory / "run").chmod(0o600))
    with pytest.raises(Invalid, match="'run'"):
        site.restore("left", "right")


def test_equal_changes_do_not_conflict_and_neither_do_times(site: Site) -> None:
    site.edit("source", [], {"a": b"a", "gone": b""})
    for task, mtime_ns in (("left", 10**18), ("right", 2 * 10**18)):

        def work(directory: Path, mtime_ns: int = mtime_ns) -> None:
            _write(directory / "a", b"changed", mtime_ns)
            (directory / "gone").unlink()

        site.perform(task, ["source"], work)
    assert site.files("left", "right") == {"a": b"changed"}


def test_folders_are_merged_whatever_their_modes(site: Site) -> None:
    for task, mode in (("left", 0o755), ("right", 0o700)):

        def work(directory: Path, mode: int = mode, task: str = task) -> None:
            apply(directory, {f"out/{task}": b""})
            (directory / "out").chmod(mode)

        site.perform(task, [], work)
    assert site.outcome("left", "right")[b"out"] == ("directory", 0o700)


def test_the_newer_state_wins_over_the_one_that_it_was_made_from(site: Site) -> None:
    site.edit("source", [], {"a": b"1", "b": b"1", "c": b"1"})
    site.edit("later", ["source"], {"a": b"2", "b": None})
    site.edit("latest", ["later"], {"b": b"3", "c": None})
    for needs in (("source", "latest"), ("latest", "source", "later"), ("later", "latest")):
        assert site.files(*needs) == {"a": b"2", "b": b"3"}


def test_a_folder_that_one_removed_stays_for_what_another_put_there(site: Site) -> None:
    site.edit("source", [], {"out/deep/old": b"old"})
    site.edit("left", ["source"], {"out": None})
    site.edit("right", ["source"], {"out/deep/new": b"new"})
    assert site.files("left", "right") == site.files("right", "left") == {"out/deep/new": b"new"}


def test_a_removal_lasts_through_later_tasks(site: Site) -> None:
    site.edit("source", [], {"a": b"a", "b": b"b"})
    site.edit("remover", ["source"], {"a": None})
    site.edit("next", ["remover"], {"c": b"c"})
    site.edit("other", ["source"], {"d": b"d"})
    assert set(site.files("next", "other")) == {"b", "c", "d"}


def test_files_that_are_one_stay_one_when_workspaces_are_merged(site: Site) -> None:
    nodes: dict[bytes, Node] = {b"a": ("file", 0o644, b"x"), b"b": ("link", b"a"), b"c": ("link", b"a")}
    site.perform("source", [], lambda directory: make(directory, nodes))
    site.edit("left", ["source"], {"new": b"n"})
    site.perform("right", ["source"], lambda directory: (directory / "a").unlink())
    assert site.outcome("left", "right") == {
        b"b": ("file", 0o644, b"x"),
        b"c": ("link", b"b"),
        b"new": ("file", 0o644, b"n"),
    }


def test_a_change_through_one_name_of_a_file_is_a_change_of_all(site: Site) -> None:
    nodes: dict[bytes, Node] = {b"a": ("file", 0o644, b"x"), b"b": ("link", b"a")}
    site.perform("source", [], lambda directory: make(directory, nodes))
    site.perform("left", ["source"], lambda directory: (directory / "a").write_bytes(b"changed"))
    site.edit("right", ["source"], {"b": b"differently"})
    with pytest.raises(Invalid, match="path 'b' was changed differently by left and right"):
        site.restore("left", "right")


EDITS = st.dictionaries(st.sampled_from("abcdef"), st.none() | st.sampled_from([b"", b"1", b"2"]))


@QUICK
@given(source=EDITS, left=EDITS, right=EDITS)
def test_a_merge_takes_what_either_changed_and_refuses_what_both_did(
    fresh_site: Callable[[], Site], source: Edit, left: Edit, right: Edit
) -> None:
    site = fresh_site()
    site.edit("source", [], source)
    for task, changes in (("left", left), ("right", right)):
        site.edit(task, ["source"], changes)
    base = {path: content for path, content in source.items() if content is not None}
    expected = [_expected(base.get(path), left, right, path) for path in "abcdef"]
    if Conflicting in expected:
        for needs in (("left", "right"), ("right", "left")):
            with pytest.raises(Invalid, match="changed differently by left and right"):
                site.restore(*needs)
    else:
        merged = {path: content for path, content in zip("abcdef", expected, strict=True) if content is not None}
        assert site.files("left", "right") == site.files("right", "left") == merged
        site.edit("end", ["left", "right"], {})
        assert site.files("source", "end", "left") == merged


class Conflicting:
    """What becomes of a path that both changed differently."""


def _expected(base: bytes | None, left: Edit, right: Edit, path: str) -> object:
    one, other = left.get(path, base), right.get(path, base)
    if one == other or other == base:
        return one
    return other if one == base else Conflicting


def test_many_conflicts_are_counted_and_not_all_listed(site: Site) -> None:
    for task in ("left", "right"):
        site.edit(task, [], {f"{n}": task.encode() for n in range(100)})
    with pytest.raises(Invalid, match="and 80 more"):
        site.restore("left", "right")


def test_two_attempts_at_one_task_conflict_where_they_differ() -> None:
    one, other = (
        Snapshot(frozenset({"t"}), {"a": File("a", "t", 0o644, 0, Content(digit * 64, 0, None, 0))}) for digit in "01"
    )
    with pytest.raises(Invalid, match="path 'a' was changed differently by t"):
        overlay([one, other])


# When things go wrong


def test_a_snapshot_that_is_not_there_is_missing(site: Site) -> None:
    with pytest.raises(NoSuchObject):
        site.restore("nothing")


def test_a_workspace_is_only_restored_into_an_empty_directory(site: Site, tmp_path: Path) -> None:
    site.edit("one", [], {"a": b""})
    directory = tmp_path / "full"
    apply(directory, {"mine": b"mine"})
    with pytest.raises(Invalid, match="not empty"):
        site.workspaces.restore(["snapshots/one"], directory)
    assert look(directory) == {b"mine": ("file", 0o644, b"mine")}


class Away(DirectoryStore):
    """A store that leaves one call unanswered."""

    calls_before = -1

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self._answer()
        return super().get(key, start, length)

    def open(self, key: str, start: int = 0) -> BinaryIO:
        self._answer()
        return super().open(key, start)

    def put(self, key: str, data: bytes | BinaryIO) -> None:
        self._answer()
        super().put(key, data)

    def _answer(self) -> None:
        self.calls_before -= 1
        if self.calls_before == -1:
            raise StoreUnavailable("away")


@pytest.mark.parametrize("calls_before", [0, 1])
def test_an_outage_passes_and_the_same_call_may_be_repeated(site: Site, tmp_path: Path, calls_before: int) -> None:
    store = Away(tmp_path / "away", durable=False)
    workspaces = Workspaces(store)
    directory, restored = site.restore()
    apply(directory, {"a": b"a", "d/b": b"b"})
    again = tmp_path / "again"

    store.calls_before = calls_before
    with pytest.raises(StoreUnavailable):
        workspaces.save(directory, restored, "one", "snapshots/one")
    workspaces.save(directory, restored, "one", "snapshots/one")

    store.calls_before = calls_before
    with pytest.raises(StoreUnavailable):
        workspaces.restore(["snapshots/one"], again)
    assert not again.exists()
    workspaces.restore(["snapshots/one"], again)
    assert look(again) == look(directory)


def test_nothing_lies_about_after_saving_and_restoring(site: Site) -> None:
    site.edit("one", [], {"large": os.urandom(6_000_000), "small": b""})
    assert sorted(path.name for path in site.folder.iterdir()) == ["store"]


def test_a_written_snapshot_reads_as_it_was() -> None:
    snapshot = Snapshot(
        frozenset({"one", "two"}),
        {"d": Directory("d", "one", 0o700), "d/\udcff": File("d/\udcff", "two", 0o600, -5, _empty())},
        {"x": "one"},
    )
    assert decode(encode(snapshot, "two"), "it") == snapshot


def test_a_pack_that_is_gone_is_damage(site: Site) -> None:
    site.edit("one", [], {"a": b"a"})
    (pack,) = site.store.list("packs/")
    site.store.delete(pack.key)
    with pytest.raises(Damaged, match=pack.key):
        site.restore("one")


def _empty() -> Content:
    return Content(hashlib.sha256().hexdigest(), 0, None, 0)


def _text(chance: random.Random) -> bytes:
    """Some 5 kB that look like a source file to a compressor."""
    words = [chance.randbytes(3).hex() for _ in range(100)]
    return " ".join(chance.choices(words, k=700)).encode()


def _write(path: Path, content: bytes, mtime_ns: int) -> None:
    path.write_bytes(content)
    os.utime(path, ns=(mtime_ns, mtime_ns))


def _packs(site: Site, task: str) -> set[str]:
    snapshot = decode(site.store.get(f"snapshots/{task}"), task)
    return {
        entry.content.pack.digest
        for entry in snapshot.entries.values()
        if isinstance(entry, File) and entry.content.pack
    }


def _unpacked(site: Site, content: Content) -> bytes:
    data = BytesIO()
    if content.pack is not None:
        with Unpacker(site.store, content.pack) as unpacker:
            unpacker.copy(content, data.write)
            unpacker.finish()
    return data.getvalue()
