"""All that must last is copied to another store, and comes back from there."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from integration.conftest import System
from integration.test_rebuild import Marks, end, in_second_task, marks, put, shell
from program import Home
from wiping import wipe

from distci import backup
from distci.app import open_coordination
from distci.errors import Damaged
from distci.model import BuildId
from distci.store import keys
from distci.store.directory import DirectoryStore
from distci.store.port import Store, objects

__all__ = ["marks"]

MIB = 1024 * 1024


@pytest.fixture
def other_store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "copy")


def contents(store: Store) -> dict[str, bytes]:
    return {info.key: store.get(info.key) for info in objects(store, "")}


def empty(store: Store) -> None:
    for info in list(objects(store, "")):
        store.delete(info.key)


def test_s09_a_copy_alone_brings_everything_back(system: System, marks: Marks, other_store: DirectoryStore) -> None:
    # Given a build that is over, one in its second task, and a copy that was taken meanwhile
    over = system.run_tasks(shell("only", "echo over"), job="team/over")
    build = in_second_task(system, marks)
    copied = backup.copy(system.ci.store, other_store)

    # When store and tree are lost, and the copy is brought back
    other = open_coordination(system.ci.settings)
    system.ci.tickets.pause("*")
    # That this was done is written afterwards, and is not to come into the new store.
    system.ci.audit.close()
    wipe(other)
    empty(system.ci.store)
    backup.check_empty(system.ci.store)
    backup.copy(other_store, system.ci.store)
    system.ci.rebuild.run()
    other.close()

    # Then what was over is there, and what was not goes on
    assert copied.in_flight == [build]
    assert system.ci.builds.get(over.id) == over
    assert system.log(over, "only") == "over\n"
    marks.open("go")
    view = end(system, build)
    assert (view.state, marks.count("first"), system.log(view, "second")) == ("passed", 1, "kept\n")
    assert system.ci.builds.trigger("team/over") == BuildId("team/over", 2)


def test_a_copy_that_is_taken_while_builds_run_is_whole(system: System, other_store: DirectoryStore) -> None:
    """Each build of it is over or in flight, and nothing is referred to that is not there."""
    put(system, "team/job", shell("a", "echo a >a"), shell("b", "cat a"))
    put(system, "team/after", shell("only", "true"), triggers=[{"type": "job", "job": "team/job"}])
    builds = [system.ci.builds.trigger("team/job") for _ in range(8)]

    copied = backup.copy(system.ci.store, other_store)

    numbered = {keys.build_of(info.key) for info in objects(other_store, keys.BUILDS)}
    over = {build for build in numbered if other_store.head(keys.build_record(build))}
    assert numbered <= over | {*copied.in_flight}
    assert {*builds} <= over | {*copied.in_flight}
    started = [info.key for info in objects(other_store, keys.BUILDS) if "/downstream/" in info.key]
    assert {BuildId.parse(other_store.get(key).decode()) for key in started} <= over | {*copied.in_flight}
    for build in builds:
        end(system, build)


def test_a_copy_that_was_broken_off_is_begun_again(
    system: System, other_store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a copy that was broken off, with one object of it spoilt
    system.run_tasks(shell("only", "echo hello"))

    class BrokenOffError(Exception):
        pass

    def break_off(copied: backup.Copied) -> None:
        if copied.objects == 4:
            raise BrokenOffError

    with pytest.raises(BrokenOffError):
        backup.copy(system.ci.store, other_store, break_off)
    first = other_store.list("")[0]
    other_store.put(first.key, b"x" * first.size_bytes)

    # When it is begun again
    copied = backup.copy(system.ci.store, other_store)

    # Then all is there as it should be, and what was there is not copied again
    assert contents(other_store) == contents(system.ci.store)
    assert copied.kept >= 3


def test_bytes_that_come_back_other_than_they_were_written_are_told(
    system: System, other_store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    system.run_tasks(shell("only", "true"))
    put_rightly: Callable[..., None] = other_store.put
    monkeypatch.setattr(other_store, "put", lambda key, data: put_rightly(key, data[:-1] + b"?"))

    with pytest.raises(Damaged, match="came back other than it was written"):
        backup.copy(system.ci.store, other_store)


def test_a_large_object_is_copied_in_little_memory(tmp_path: Path, other_store: DirectoryStore) -> None:
    source = DirectoryStore(tmp_path / "source")
    key = keys.pack("0" * 64)
    source.put(key, bytes(100 * MIB))

    tracemalloc.start()
    copied = backup.copy(source, other_store)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert copied.size_bytes == 100 * MIB
    assert peak < 20 * MIB


def test_the_commands(tmp_path: Path) -> None:
    # Given a system with a build that waits
    home = Home(tmp_path)
    copy = f"file://{tmp_path}/copy"
    home.ask("job", "put", home.file({"job": "team/job", "tasks": [shell("only", "true")]}))
    home.ask("build", "trigger", "team/job")

    # When it is copied, and brought back into an empty one
    (copied,) = home.json("backup", copy)
    new = ("--data", str(tmp_path / "new"))
    (restored,) = home.json("restore", copy, *new)

    # Then the build is there again
    assert (copied["in_flight"], restored["objects"]) == (["team/job#1"], copied["objects"])
    assert home.json("cluster", "rebuild", *new)[0]["builds"] == ["team/job#1"]
    assert home.json("cluster", "rebuild", *new)[0]["builds"] == []

    # And a store that is not empty is left as it is
    refused = home.ask("restore", copy, *new)
    assert (refused.exit_code, "the store is not empty" in refused.stderr) == (7, True)
    assert home.ask("restore", copy, "--force", *new).exit_code == 0
    assert home.ask("backup", "rsync://elsewhere").exit_code == 2


def test_a_slip_in_the_url_of_a_copy_is_told(tmp_path: Path) -> None:
    # Given a system, and a place where no copy was ever made
    home = Home(tmp_path)
    home.ask("job", "put", home.file({"job": "team/job", "tasks": [shell("only", "true")]}))
    new = ("--data", str(tmp_path / "new"))

    # When that place is restored, or the system copied onto itself
    nothing = home.ask("restore", f"file://{tmp_path}/copie", *new)
    itself = home.ask("backup", f"file://{tmp_path}/.local/../.local/share/distci/store/")

    # Then neither passes for done
    assert (nothing.exit_code, "there is no backup at that URL" in nothing.stderr) == (5, True)
    assert (itself.exit_code, "the system's own store" in itself.stderr) == (2, True)
