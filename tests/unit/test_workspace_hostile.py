"""Snapshots and packs that others made up or that were damaged: a clear error, nothing outside, no other tree."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from unit.trees import look

from distci.errors import Damaged, Invalid, InvalidDocument
from distci.store import keys
from distci.store.directory import DirectoryStore
from distci.workspaces import Restored, Workspaces

KEY = "snapshots/hostile"
CONTENTS = b"first" + b"second!"
PACKED = zstandard.ZstdCompressor().compress(CONTENTS)
ZERO_DIGEST = "0" * 64

Document = dict[str, Any]
Change = Callable[[Document], object]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def file(path: str, content: bytes, offset: int, **other: Any) -> Document:
    row = {"path": path, "origin": "t", "type": "file", "mode": 0o644, "mtime_ns": 0}
    return row | {"sha256": digest(content), "size_bytes": len(content), "pack": 0, "offset": offset} | other


def symlink(path: str, target: str) -> Document:
    return {"path": path, "origin": "t", "type": "symlink", "target": target}


def directory(path: str, mode: int = 0o755) -> Document:
    return {"path": path, "origin": "t", "type": "directory", "mode": mode}


def link(path: str, to: str) -> Document:
    return {"path": path, "origin": "t", "type": "link", "to": to}


GOOD: Document = {
    "format": 1,
    "task": "t",
    "history": ["s", "t"],
    "entries": [directory("d"), file("d/f", b"first", 0), file("g", b"second!", 5), link("h", "g"), symlink("l", "..")],
    "deleted": {"x": "s"},
    "packs": [{"digest": digest(PACKED), "packed_bytes": len(PACKED), "content_bytes": len(CONTENTS)}],
}


def entries(*rows: Any) -> Change:
    return lambda document: document.update(entries=list(rows))


def entry(number: int, **changes: Any) -> Change:
    return lambda document: document["entries"][number].update(changes)


def drop(number: int, name: str) -> Change:
    return lambda document: document["entries"][number].pop(name)


def pack(**changes: Any) -> Change:
    return lambda document: document["packs"][0].update(changes)


HOSTILE: dict[str, Change] = {
    "absolute path": entries(file("/tmp/evil", b"first", 0)),
    "path up": entries(file("../evil", b"first", 0)),
    "path up and down": entries(directory("d"), file("d/../../evil", b"first", 0)),
    "only dots": entries(directory("..")),
    "a dot": entries(directory(".")),
    "no path": entries(file("", b"first", 0)),
    "empty name": entries(directory("d"), file("d//f", b"first", 0)),
    "slash at the end": entries(directory("d/")),
    "NUL": entries(file("a\0b", b"first", 0)),
    "name too long": entries(file("n" * 256, b"first", 0)),
    "too deep": entries(*(directory("/".join(["d"] * depth)) for depth in range(1, 300))),
    "half a character": entries(file("\ud800", b"first", 0)),
    "UTF-8 as single bytes": entries(file("\udcc3\udca4", b"first", 0)),
    "path twice": entries(directory("d"), directory("d")),
    "link, then a file of its name": entries(symlink("a", "/etc"), file("a", b"first", 0)),
    "out of order": entries(directory("b"), directory("a")),
    "through a link": entries(symlink("a", "/tmp"), file("a/evil", b"first", 0)),
    "through a link upwards": entries(symlink("a", ".."), file("a/evil", b"first", 0)),
    "folder in a link": entries(symlink("a", "/tmp"), directory("a/evil")),
    "through a file": entries(file("a", b"first", 0), file("a/b", b"second!", 5)),
    "no parent": entries(file("a/b", b"first", 0)),
    "link in a link": entries(symlink("a", "/tmp"), symlink("a/b", "/tmp")),
    "hard link outside": entries(link("a", "../../etc/passwd")),
    "hard link to an absolute path": entries(link("a", "/etc/passwd")),
    "hard link to itself": entries(link("a", "a")),
    "hard link to a later file": entries(link("a", "b"), file("b", b"first", 0)),
    "hard link to a link": entries(symlink("a", "/etc/passwd"), link("b", "a")),
    "hard link to a folder": entries(directory("a"), link("b", "a")),
    "hard link to a hard link": entries(file("a", b"first", 0), link("b", "a"), link("c", "b")),
    "target with NUL": entries(symlink("a", "b\0c")),
    "empty target": entries(symlink("a", "")),
    "target too long": entries(symlink("a", "x" * 5000)),
    "target of no characters": entries(symlink("a", "\udfff")),
    "target of no text": entries({**symlink("a", ""), "target": 5}),
    "device": entry(0, type="device"),
    "type of no text": entry(0, type=["file"]),
    "path of no text": entry(0, path=7),
    "negative mode": entry(0, mode=-1),
    "mode of text": entry(0, mode="755"),
    "mode of truth": entry(0, mode=True),
    "mode of fractions": entry(0, mode=0.5),
    "negative size": entry(1, size_bytes=-1),
    "huge size": entry(1, size_bytes=2**63 - 1),
    "impossible size": entry(1, size_bytes=2**80),
    "size past the pack": entry(1, size_bytes=13),
    "size without end": entry(1, size_bytes=float("inf")),
    "negative offset": entry(1, offset=-1),
    "offset past the pack": entry(1, offset=8),
    "wrong offset": entry(1, offset=1),
    "overlapping": entry(2, offset=4),
    "one place twice": entry(2, offset=0),
    "no such pack": entry(1, pack=1),
    "the pack before the first": entry(1, pack=-1),
    "wrong digest": entry(1, sha256=ZERO_DIGEST),
    "digest in capitals": entry(1, sha256=digest(b"first").upper()),
    "digest that is a path": entry(1, sha256="../" * 21 + "x"),
    "size of another file": entry(1, size_bytes=4),
    "no bytes, but a digest": entry(1, size_bytes=0),
    "time of text": entry(1, mtime_ns="now"),
    "time beyond time": entry(1, mtime_ns=2**64),
    "no type": drop(0, "type"),
    "no origin": drop(0, "origin"),
    "no digest": drop(1, "sha256"),
    "origin that nobody knows": entry(0, origin="u"),
    "origin of no text": entry(0, origin=["t"]),
    "entry of no fields": entries(5),
    "entries of no list": lambda document: document.update(entries={"a": 1}),
    "no entries": lambda document: document.pop("entries"),
    "no packs": lambda document: document.pop("packs"),
    "no history": lambda document: document.pop("history"),
    "no format": lambda document: document.pop("format"),
    "history of numbers": lambda document: document.update(history=[1, "t", "s"]),
    "history of lists": lambda document: document.update(history=[["t"], "t", "s"]),
    "task without history": lambda document: document.update(task="u"),
    "deleted and there": lambda document: document.update(deleted={"d": "t"}),
    "deleted outside": lambda document: document.update(deleted={"../x": "t"}),
    "deleted by nobody": lambda document: document.update(deleted={"x": None}),
    "deleted of no fields": lambda document: document.update(deleted=["x"]),
    "pack of no fields": lambda document: document.update(packs=["x"]),
    "pack that is a path": pack(digest="../../../../etc/passwd"),
    "pack that is not there": pack(digest=ZERO_DIGEST),
    "pack that is larger": pack(packed_bytes=len(PACKED) + 1),
    "pack that is smaller": pack(packed_bytes=len(PACKED) - 1),
    "pack with a negative size": pack(packed_bytes=-1),
    "pack that holds less": pack(content_bytes=3),
}

NOT_DOCUMENTS = {
    "nothing": b"",
    "no compression": json.dumps(GOOD).encode(),
    "no JSON": zstandard.compress(b"{"),
    "no UTF-8": zstandard.compress(b'"\xff"'),
    "a list": zstandard.compress(b"[]"),
    "null": zstandard.compress(b"null"),
    "brackets without end": zstandard.compress(b"[" * 1_000_000),
    "braces without end": zstandard.compress(b'{"a":' * 1_000_000),
    "digits without end": zstandard.compress(b'{"format":' + b"9" * 1_000_000 + b"}"),
    "two frames": zstandard.compress(json.dumps(GOOD).encode()) * 2,
    "something behind": zstandard.compress(json.dumps(GOOD).encode()) + b"x",
    "size unknown": zstandard.ZstdCompressor(write_content_size=False).compress(json.dumps(GOOD).encode()),
}


class Trap:
    """A store with hostile objects, and a directory that they are to be kept in."""

    def __init__(self, folder: Path) -> None:
        self.store = DirectoryStore(folder / "store", durable=False)
        self.workspaces = Workspaces(self.store)
        self.directory = folder / "outer" / "directory"
        self.directory.parent.mkdir()
        (self.directory.parent / "mine").write_text("mine")
        self.store.put(keys.pack(digest(PACKED)), PACKED)

    def put(self, document: Document) -> None:
        self.store.put(KEY, zstandard.compress(json.dumps(document).encode()))

    def put_pack(self, data: bytes, content_bytes: int, *rows: Document) -> None:
        """A pack of any bytes, and a snapshot that uses it."""
        self.store.put(keys.pack(digest(data)), data)
        packs = [{"digest": digest(data), "packed_bytes": len(data), "content_bytes": content_bytes}]
        self.put(GOOD | {"entries": list(rows), "packs": packs})

    def spring(self) -> None:
        self.workspaces.restore([KEY], self.directory)

    def assert_untouched(self) -> None:
        assert {path.name: path.read_text() for path in self.directory.parent.iterdir()} == {"mine": "mine"}
        assert not os.path.lexists("/tmp/evil")


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    return Trap(tmp_path)


def test_the_snapshot_that_all_of_these_are_made_from_is_good(trap: Trap) -> None:
    trap.put(GOOD)
    trap.spring()
    assert look(trap.directory) == {
        b"d": ("directory", 0o755),
        b"d/f": ("file", 0o644, b"first"),
        b"g": ("file", 0o644, b"second!"),
        b"h": ("link", b"g"),
        b"l": ("symlink", b".."),
    }


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_snapshot_is_damage_and_leaves_nothing(trap: Trap, name: str) -> None:
    document = copy.deepcopy(GOOD)
    HOSTILE[name](document)
    trap.put(document)
    with pytest.raises(Damaged, match=f"{KEY}|packs/"):
        trap.spring()
    trap.assert_untouched()


@pytest.mark.parametrize("name", NOT_DOCUMENTS)
def test_what_is_no_snapshot_is_damage(trap: Trap, name: str) -> None:
    trap.store.put(KEY, NOT_DOCUMENTS[name])
    with pytest.raises(Damaged, match=KEY):
        trap.spring()
    trap.assert_untouched()


@pytest.mark.parametrize("found", [0, 2, "1", None, [], {}])
def test_a_format_of_another_time_is_said_to_be_one(trap: Trap, found: object) -> None:
    trap.put(GOOD | {"format": found})
    with pytest.raises(InvalidDocument, match=f"{KEY} has the format"):
        trap.spring()


def test_bits_that_lend_rights_are_dropped(trap: Trap) -> None:
    trap.put(GOOD | {"entries": [directory("d", 0o7777), file("f", b"first", 0, mode=0o6755)]})
    trap.spring()
    assert look(trap.directory) == {b"d": ("directory", 0o777), b"f": ("file", 0o755, b"first")}


def test_a_snapshot_that_swells_is_stopped_before_it_does(trap: Trap) -> None:
    swollen = zstandard.compress(bytes(512 * 1024 * 1024))
    for data in (swollen, _claiming(swollen, 1000)):
        trap.store.put(KEY, data)
        tracemalloc.start()
        with pytest.raises(Damaged, match=KEY):
            trap.spring()
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak_bytes < 10 * 1024 * 1024


def test_a_pack_that_swells_is_unpacked_no_further_than_its_files_go(trap: Trap) -> None:
    swollen = zstandard.compress(bytes(512 * 1024 * 1024))
    trap.put_pack(swollen, 10, file("f", bytes(10), 0))
    tracemalloc.start()
    trap.spring()
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 10 * 1024 * 1024
    assert look(trap.directory) == {b"f": ("file", 0o644, bytes(10))}


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"not compressed",
        PACKED[:-1],
        PACKED[:8],
        zstandard.compress(b"first"),
    ],
)
def test_a_pack_that_cannot_be_unpacked_is_damage(trap: Trap, packed: bytes) -> None:
    trap.put_pack(packed, len(CONTENTS), file("f", b"first", 0), file("g", b"second!", 5))
    with pytest.raises(Damaged, match="pack packs/"):
        trap.spring()
    trap.assert_untouched()


def test_a_pack_that_wants_too_much_memory_is_damage(trap: Trap) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    trap.put_pack(compressor.compress(CONTENTS) + compressor.flush(), len(CONTENTS), file("f", b"first", 0))
    with pytest.raises(Damaged, match="too much memory"):
        trap.spring()


def test_something_behind_a_pack_is_damage(trap: Trap) -> None:
    trap.put(GOOD)
    trap.store.put(keys.pack(digest(PACKED)), PACKED + b"x")
    with pytest.raises(Damaged, match="not as it was written"):
        trap.spring()
    trap.assert_untouched()


def test_a_file_that_many_claim_is_unpacked_once(trap: Trap) -> None:
    names = [f"{n:05}" for n in range(2000)]
    trap.put(GOOD | {"entries": [file(name, b"first", 0) for name in names]})
    trap.spring()
    assert look(trap.directory) == {name.encode(): ("file", 0o644, b"first") for name in names}


@pytest.mark.parametrize("seed", range(150))
def test_damage_anywhere_is_found(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    store = DirectoryStore(tmp_path / "store", durable=False)
    workspaces = Workspaces(store)
    source = tmp_path / "source"
    for n in range(20):
        path = source / f"{n % 3}" / f"{n}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(n).randbytes(n * 10))
    (source / "link").symlink_to("0/0")
    workspaces.save(source, Restored(), "t", KEY)

    victim = chance.choice([KEY, *(info.key for info in store.list("packs/"))])
    data = store.get(victim)
    harmed = _harmed(data, chance)
    store.put(victim, harmed)
    try:
        workspaces.restore([KEY], tmp_path / "restored")
    except (Damaged, InvalidDocument) as error:
        assert victim in str(error)
        assert not (tmp_path / "restored").exists()
    else:
        # Some bits of a frame mean nothing.
        assert look(tmp_path / "restored") == look(source)
        assert len(harmed) == len(data)


def test_a_snapshot_of_a_name_that_no_store_has_is_refused(trap: Trap) -> None:
    with pytest.raises(Invalid):
        trap.workspaces.restore(["../snapshots"], trap.directory)


def _harmed(data: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(data))
    match chance.choice(["bit", "byte", "cut", "gap", "more", "zeros"]):
        case "bit":
            return data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :]
        case "byte":
            return data[:place] + bytes([data[place] ^ chance.randrange(1, 256)]) + data[place + 1 :]
        case "cut":
            return data[:place]
        case "gap":
            return data[:place] + data[place + 1 :]
        case "more":
            return data[:place] + b"\0" + data[place:]
        case _:
            return data[:place] + bytes(len(data) - place)


def _claiming(frame: bytes, size_bytes: int) -> bytes:
    """The same frame with another size of its contents in its header."""
    claiming = frame[:6] + size_bytes.to_bytes(4, "little") + frame[10:]
    assert zstandard.get_frame_parameters(claiming).content_size == size_bytes
    return claiming
