"""What the RADOS store promises besides: every crash, every interleaving and every split of its index leaves it whole."""

from __future__ import annotations

import inspect
import io
import math
import os
import random
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import rados
from conformance.store_server import Address, SharedObjects, new_namespace
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from services.ceph import ANY_KEY, POOL, Ceph, admin, unreachable_ceph
from waiting import wait_until

from distci.errors import Damaged, Forbidden, Invalid, NoSuchObject, StoreUnavailable
from distci.store.index import LOOSE, ROOT, Index
from distci.store.port import Store
from distci.store.rados import ABANDONED_AFTER_S, INLINE_BYTES_MAX, PART_BYTES, RadosObjects, RadosStore, home_of

SMALL = b"few bytes"
LARGE = b"l" * (INLINE_BYTES_MAX * 3)
OTHER = b"o" * (INLINE_BYTES_MAX * 3 + 1)
SMALL_PART_BYTES = INLINE_BYTES_MAX * 3 // 2
STEPS_MAX = 200


class Killed(BaseException):
    """The process is no more: it does nothing on its way out either."""


class SteppedObjects(SharedObjects):
    """RADOS objects with something to happen before an operation, or after it."""

    step = 0
    before: Callable[[int], None] = staticmethod(lambda step: None)
    after: Callable[[int], None] = staticmethod(lambda step: None)
    rows_read = 0

    @contextmanager
    def operation(self, name: str) -> Iterator[Any]:
        self.step += 1
        step = self.step
        self.before(step)
        with super().operation(name) as context:
            yield context
        self.after(step)

    def page(self, *arguments: Any) -> dict[str, str]:
        rows = super().page(*arguments)
        self.rows_read += len(rows)
        return rows


@pytest.fixture
def address(ceph_configuration: Path) -> Address:
    return new_namespace(ceph_configuration)


@pytest.fixture
def store(address: Address) -> RadosStore:
    return address.open_namespace()


def stepped(address: Address, **options: Any) -> tuple[RadosStore, SteppedObjects]:
    """A store that has begun, with its steps counted from here."""
    objects = SteppedObjects(POOL, address.namespace, conf=address.place, name="client.admin")
    store = RadosStore(objects, **options)
    store.head("none")
    objects.step = 0
    return store, objects


def opened(address: Address, **options: Any) -> RadosStore:
    """A store with a connection of its own, and with these options for it."""
    usual = {"pool": POOL, "namespace": address.namespace, "conf": address.place, "name": "client.admin"}
    return RadosStore(RadosObjects(**(usual | options)))


def content(store: Store, key: str = "a/b") -> bytes | None:
    """What is under a key, which must be listed if and only if it is there."""
    info = store.head(key)
    listed = {each.key: each for each in store.list("")}
    assert listed.get(key) == info
    if info is None:
        with pytest.raises(NoSuchObject):
            store.get(key)
        return None
    data = store.get(key)
    assert len(data) == info.size_bytes
    with store.open(key) as stream:
        assert stream.read() == data
    return data


def sweep_all(address: Address, days: int) -> None:
    """What others do on each of some later days."""
    for day in range(1, days + 1):
        later = time.time() + day * (ABANDONED_AFTER_S + 60)
        store = address.open_namespace(clock=lambda later=later: later)
        key: str | None = " "
        while key is not None:
            key = store.sweep(key)


def leftovers(address: Address, live: int) -> list[str]:
    """Data that no object has, and rows that tell of it; ``live`` parts of data belong to objects."""
    data = address.rados_objects("data/")
    objects = address.objects()
    rows = [row for node in address.rados_objects(ROOT) for row in objects.page(node, "", LOOSE, 1000, [])]
    return rows + data[live:]


Action = tuple[bytes | None, bytes | None, Callable[[Store], object]]

ACTIONS: dict[str, Action] = {
    "few bytes": (None, SMALL, lambda store: store.put("a/b", SMALL)),
    "few bytes in place of many": (OTHER, SMALL, lambda store: store.put("a/b", SMALL)),
    "many bytes": (None, LARGE, lambda store: store.put("a/b", LARGE)),
    "many bytes in place of few": (SMALL, LARGE, lambda store: store.put("a/b", LARGE)),
    "many bytes in place of many": (OTHER, LARGE, lambda store: store.put("a/b", LARGE)),
    "many bytes if absent": (None, LARGE, lambda store: store.put_if_absent("a/b", LARGE)),
    "a delete of few bytes": (SMALL, None, lambda store: store.delete("a/b")),
    "a delete of many bytes": (OTHER, None, lambda store: store.delete("a/b")),
}
"""What is there before, what is there afterwards, and what is done."""


@pytest.fixture(params=ACTIONS)
def action(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Action:
    """One of them, with data in more parts than one."""
    monkeypatch.setattr("distci.store.rados.PART_BYTES", SMALL_PART_BYTES)
    return ACTIONS[request.param]


def parts(data: bytes | None) -> int:
    """How many parts such an object has then."""
    return math.ceil(len(data) / SMALL_PART_BYTES) if data and len(data) > INLINE_BYTES_MAX else 0


def test_a_writer_killed_before_any_step_leaves_the_old_object_or_the_new(
    ceph_configuration: Path, action: Action
) -> None:
    old, new, act = action
    for last in range(1, STEPS_MAX):
        address, store, objects = _written(ceph_configuration, old)
        objects.before = _killed_from(last)

        is_killed = False
        try:
            act(store)
        except Killed:
            is_killed = True

        _check_whole(address, (old, new) if is_killed else (new,), last)
        if not is_killed:
            return
    raise AssertionError("it never ends")


def _written(configuration: Path, data: bytes | None) -> tuple[Address, RadosStore, SteppedObjects]:
    """A namespace of its own with that object, if any, and a store on it with its steps counted from here."""
    address = new_namespace(configuration)
    store, objects = stepped(address)
    if data is not None:
        store.put("a/b", data)
    objects.step = 0
    return address, store, objects


def _check_whole(address: Address, allowed: Sequence[bytes | None], step: int) -> None:
    """The object is whole, one of these, and stays so when what was left beside it is swept away."""
    left = content(address.open_namespace())
    assert left in allowed, step
    sweep_all(address, days=2)
    assert content(address.open_namespace()) == left
    assert leftovers(address, live=parts(left)) == [], step


def _killed_from(step: int) -> Callable[[int], None]:
    def kill(now: int) -> None:
        if now >= step:
            raise Killed

    return kill


def test_an_answer_that_is_lost_after_any_step_leaves_the_old_object_or_the_new(
    ceph_configuration: Path, action: Action
) -> None:
    old, new, act = action
    for lost in range(1, STEPS_MAX):
        address, store, objects = _written(ceph_configuration, old)

        def lose(now: int, lost: int = lost) -> None:
            if now == lost:
                raise StoreUnavailable("the answer was lost")

        objects.after = lose
        is_told = False
        try:
            act(store)
        except StoreUnavailable:
            is_told = True

        _check_whole(address, (old, new) if is_told else (new,), lost)
        if objects.step < lost:
            return
    raise AssertionError("it never ends")


RIVALS: dict[str, tuple[bytes | None, Callable[[Store], object]]] = {
    "put": (b"rival" * 400, lambda store: store.put("a/b", b"rival" * 400)),
    "put few": (b"rival", lambda store: store.put("a/b", b"rival")),
    "put_if_absent": (b"rival" * 500, lambda store: store.put_if_absent("a/b", b"rival" * 500)),
    "delete": (None, lambda store: store.delete("a/b")),
}


@pytest.mark.parametrize("rival", RIVALS)
def test_of_two_writers_one_is_last_wherever_they_meet(ceph_configuration: Path, action: Action, rival: str) -> None:
    _, new, act = action
    theirs, interfere = RIVALS[rival]
    for meeting in range(1, STEPS_MAX):
        address, store, objects = _written(ceph_configuration, action[0])
        other = address.open_namespace()

        def meet(now: int, meeting: int = meeting, other: Store = other) -> None:
            if now == meeting:
                interfere(other)
                content(other)

        objects.before = meet
        act(store)

        left = content(address.open_namespace())
        # If theirs was not to replace, the object that was there stays until ours comes.
        assert left in (new, theirs)
        assert leftovers(address, live=parts(left)) == [], meeting
        if objects.step < meeting:
            assert left == new
            return
    raise AssertionError("it never ends")


def test_a_writer_that_slept_for_days_is_refused_or_was_done(ceph_configuration: Path, action: Action) -> None:
    old, new, act = action
    for nap in range(1, STEPS_MAX):
        address, store, objects = _written(ceph_configuration, old)

        def sleep(now: int, nap: int = nap, address: Address = address) -> None:
            if now == nap:
                sweep_all(address, days=2)

        objects.before = sleep
        is_refused = False
        try:
            act(store)
        except StoreUnavailable:
            is_refused = True

        assert content(address.open_namespace()) == (old if is_refused else new), nap
        if objects.step < nap:
            assert not is_refused
            return
    raise AssertionError("it never ends")


def test_a_sweeper_killed_before_any_step_is_followed_by_the_next(
    ceph_configuration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distci.store.rados.PART_BYTES", SMALL_PART_BYTES)
    for last in range(1, STEPS_MAX):
        address = new_namespace(ceph_configuration)
        _loose_data(address)
        is_killed = False
        for day in (1, 2):
            later = time.time() + day * (ABANDONED_AFTER_S + 60)
            store, objects = stepped(address, clock=lambda later=later: later)
            objects.before = _killed_from(last)
            try:
                store.sweep()
            except Killed:
                is_killed = True

        assert content(address.open_namespace()) == SMALL
        sweep_all(address, days=4)
        assert leftovers(address, live=0) == [], last
        if not is_killed:
            return
    raise AssertionError("it never ends")


def test_what_crashes_left_goes_in_days_while_others_write_elsewhere(address: Address) -> None:
    _loose_data(address)
    for key in KEYS:
        grown(address).put(key, b"")
    for day in (1, 2, 3):
        later = time.time() + day * (ABANDONED_AFTER_S + 60)
        store = grown(address, clock=lambda later=later: later)
        for number in range(20):
            store.put(f"z/{number}", b"")
    assert leftovers(address, live=0) == []


def _loose_data(address: Address) -> None:
    """What a writer leaves who is killed before its object, and one who is killed after it."""
    for last in (4, 5):
        store, objects = stepped(address)
        store.put("a/b", OTHER)
        objects.step = 0
        objects.before = _killed_from(last)
        with pytest.raises(Killed):
            store.put("a/b", LARGE)
    address.open_namespace().put("a/b", SMALL)


def test_a_part_of_a_large_object_lost_is_damage_and_never_a_shorter_object(
    store: RadosStore, address: Address
) -> None:
    store.put("a", io.BytesIO(bytes(PART_BYTES + 5)))
    address.objects().remove(address.rados_objects("data/")[1])
    with pytest.raises(Damaged, match="'a'"):
        store.get("a")
    with store.open("a") as stream, pytest.raises(Damaged, match="'a'"):
        stream.read()


def test_a_stream_never_joins_two_versions(store: RadosStore) -> None:
    store.put("a", io.BytesIO(bytes(PART_BYTES * 2)))
    with store.open("a") as stream:
        assert stream.read(1) == b"\0"
        store.put("a", io.BytesIO(b"b" * PART_BYTES * 2))
        with pytest.raises(StoreUnavailable, match="replaced while it was read"):
            stream.read()


# The index.


def grown(address: Address, **options: Any) -> RadosStore:
    """A store that looks after its index, whose leaves are tiny, at each put."""
    return address.open_namespace(rows_max=3, chance=lambda: 0.0, **options)


KEYS = [f"{folder}/{number:02}" for folder in "abc" for number in range(5)]


def test_a_split_that_stops_before_any_step_is_finished_by_the_next_who_writes(ceph_configuration: Path) -> None:
    for last in range(1, STEPS_MAX):
        address = new_namespace(ceph_configuration)
        first = address.open_namespace()
        for key in KEYS:
            first.put(key, key.encode())
        _loose_row(address)
        _, objects = stepped(address)
        objects.before = _killed_from(last)
        index = Index(objects, rows_max=3)

        is_killed = False
        try:
            index.split_if_large("b/01")
        except Killed:
            is_killed = True

        reader, writer = address.open_namespace(), address.open_namespace()
        assert [info.key for info in reader.list("")] == KEYS
        writer.put("b/99", b"new")
        writer.delete("a/00")
        assert [info.key for info in reader.list("")] == sorted({*KEYS, "b/99"} - {"a/00"})
        assert [first.get(key).decode() for key in KEYS[1:]] == KEYS[1:]
        sweep_all(address, days=2)
        assert leftovers(address, live=0) == []
        if not is_killed:
            return
    raise AssertionError("it never ends")


def _loose_row(address: Address) -> None:
    """What a writer leaves who is killed before it has written any data."""
    store, objects = stepped(address)
    objects.before = _killed_from(2)
    with suppress(Killed):
        store.put("b/03x", LARGE)


def test_a_split_may_be_done_by_many_at_any_pace(ceph_configuration: Path) -> None:
    for meeting in range(1, STEPS_MAX):
        address = new_namespace(ceph_configuration)
        first = address.open_namespace()
        for key in KEYS:
            first.put(key, b"")
        _, objects = stepped(address)
        expected = {*KEYS, "b/99"}

        def meet(now: int, meeting: int = meeting, first: Store = first, expected: set[str] = expected) -> None:
            if now == meeting:
                first.delete("a/00")
                first.put("c/99", LARGE)
                expected ^= {"a/00", "c/99"}

        objects.before = meet
        Index(objects, rows_max=3).split_if_large("b/01")

        first.put("b/99", b"")
        assert [info.key for info in address.open_namespace().list("")] == sorted(expected)
        if objects.step < meeting:
            return
    raise AssertionError("it never ends")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "put_if_absent", "delete", "list", "page"]),
            st.text("ab/", min_size=1, max_size=4).filter(lambda key: not {"", ".", ".."} & set(key.split("/"))),
            st.sampled_from([b"", SMALL, LARGE]),
        ),
        max_size=40,
    )
)
def test_a_store_of_many_splits_is_as_a_dictionary(
    ceph_configuration: Path, steps: list[tuple[str, str, bytes]]
) -> None:
    store = grown(new_namespace(ceph_configuration))
    model: dict[str, bytes] = {}
    for what, key, data in steps:
        if what == "put":
            store.put(key, data)
            model[key] = data
        elif what == "put_if_absent":
            assert store.put_if_absent(key, data) == (key not in model)
            model.setdefault(key, data)
        elif what == "delete":
            store.delete(key)
            model.pop(key, None)
        elif what == "list":
            assert [info.key for info in store.list(key)] == sorted(each for each in model if each.startswith(key))
        else:
            assert [info.key for info in store.list("", key, 2)] == sorted(each for each in model if each > key)[:2]
    assert {info.key: store.get(info.key) for info in store.list("")} == model


def test_what_stays_is_listed_while_others_write_delete_and_split(address: Address) -> None:
    first = grown(address)
    lasting = [f"lasting/{number:02}" for number in range(0, 20, 2)]
    for key in lasting:
        first.put(key, b"")
    done = Event()

    def churn(name: int) -> None:
        store, choice = grown(address), random.Random(name)
        for _ in range(25):
            key = f"lasting/{choice.randrange(10) * 2:02}-{name}"
            store.put(key, choice.choice([SMALL, LARGE]))
            assert store.head(key)
            store.delete(key)
            assert store.head(key) is None

    def watch() -> int:
        listings = 0
        while not done.is_set() or not listings:
            found, after = [], ""
            while page := first.list("", after, 3):
                found += [info.key for info in page]
                after = found[-1]
            assert found == sorted(set(found))
            assert [key for key in found if key in lasting] == lasting
            listings += 1
        return listings

    with ThreadPoolExecutor(4) as pool:
        watcher = pool.submit(watch)
        writers = [pool.submit(churn, name) for name in range(3)]
        try:
            for writer in writers:
                writer.result()
        finally:
            done.set()
        assert watcher.result()
    assert [info.key for info in first.list("")] == lasting
    assert leftovers(address, live=0) == []


def test_a_page_reads_no_more_of_the_index_than_it_has(address: Address) -> None:
    writer = address.open_namespace(rows_max=50, chance=iter([1.0] * 49 + [0.0]).__next__)
    for number in range(50):
        writer.put(f"a/{number:03}", b"")
    writer = address.open_namespace(rows_max=20, chance=lambda: 0.0)
    for number in range(50, 100):
        writer.put(f"a/{number:03}", b"")
    store, objects = stepped(address)
    objects.rows_read = 0

    assert [info.key for info in store.list("a/", "a/042", 10)] == [f"a/{number:03}" for number in range(43, 53)]

    nodes = len(address.rados_objects(ROOT))
    assert nodes > 5
    assert objects.rows_read <= 10 + 2 * nodes
    assert objects.step <= nodes + 2


# Who may, and who is not there.


@pytest.fixture
def user(ceph_configuration: Path, tmp_path: Path) -> Callable[..., Address]:
    """Makes a user with these rights on OSDs; gives the address of a namespace as that user reaches it."""

    def make(rights: str, namespace: str, key: str = "") -> Address:
        name = f"client.{uuid.uuid4().hex}"
        keyring = tmp_path / f"{name}.keyring"
        if key:
            keyring.write_text(f"[{name}]\nkey = {key}\n")
        elif rights:
            keyring.write_text(
                admin(ceph_configuration, "auth", "get-or-create", name, "mon", "allow r", "osd", rights)
            )
        configuration = tmp_path / f"{name}.conf"
        common = "\n".join(line for line in ceph_configuration.read_text().splitlines() if "keyring" not in line)
        configuration.write_text(f"{common}\n[{name}]\nkeyring = {keyring}\n")
        return Address(str(configuration), namespace=namespace)

    return make


def as_user(address: Address, **options: Any) -> RadosStore:
    return opened(address, name=Path(address.place).stem, **options)


def test_a_user_needs_no_more_than_its_namespace_of_its_pool(user: Callable[..., Address]) -> None:
    namespace = f"tests-{uuid.uuid4().hex}"
    address = user(f"allow rw pool={POOL} namespace={namespace}", namespace)
    assert as_user(address).probe() == ()
    with pytest.raises(Forbidden, match="elsewhere"):
        as_user(address._replace(namespace="elsewhere")).put("a", b"")
    with pytest.raises(Forbidden, match="elsewhere"):
        as_user(address._replace(namespace="elsewhere")).list("")


def test_a_user_who_may_only_read_reads(user: Callable[..., Address], store: RadosStore, address: Address) -> None:
    store.put("a", LARGE)
    reader = as_user(user(f"allow r pool={POOL} namespace={address.namespace}", address.namespace))
    assert content(reader, "a") == LARGE
    changes: list[Callable[[Store], None]] = [
        lambda store: store.put("a", b""),
        lambda store: store.put("b", LARGE),
        lambda store: store.delete("a"),
    ]
    for change in changes:
        with pytest.raises(Forbidden, match=address.namespace):
            change(reader)
    assert content(reader, "a") == LARGE


@pytest.mark.parametrize("key", ["", ANY_KEY], ids=["no key", "a wrong key"])
def test_a_stranger_is_forbidden(user: Callable[..., Address], key: str) -> None:
    address = user("", "strangers", key)
    with pytest.raises(Forbidden, match=Path(address.place).stem):
        as_user(address).get("a")


def test_a_configuration_that_is_not_there_is_invalid() -> None:
    with pytest.raises(Invalid, match=r"/nowhere/ceph\.conf cannot be read: No such file"):
        opened(Address("/nowhere/ceph.conf", namespace="tests")).get("a")


def test_monitors_that_are_not_there_are_unavailable_for_all_who_wait(tmp_path: Path) -> None:
    address = new_namespace(unreachable_ceph(tmp_path))
    store = opened(address, call_timeout_s=2)
    started = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        for asked in [pool.submit(store.get, "a") for _ in range(8)]:
            with pytest.raises(StoreUnavailable, match=address.place):
                asked.result()
    assert time.monotonic() - started < 2 * 8


def test_an_osd_that_stands_still_is_unavailable_in_time_and_nothing_is_lost(tmp_path: Path) -> None:
    ceph = Ceph(tmp_path)
    try:
        address = new_namespace(ceph.configuration)
        store = opened(address, call_timeout_s=2)
        store.put("a", LARGE)
        ceph.osd.pause()
        try:
            for call in (lambda: store.get("a"), lambda: store.head("b"), lambda: store.list("")):
                with pytest.raises(StoreUnavailable, match="timed out"):
                    call()
            with pytest.raises(StoreUnavailable, match="timed out"):
                store.put("b", SMALL)
        finally:
            ceph.osd.resume()
        patient = opened(address)
        assert content(patient, "a") == LARGE
        # What was under way when the OSD stood still may have been done afterwards.
        assert content(patient, "b") in (None, SMALL)
    finally:
        ceph.stop()


def test_an_osd_that_is_killed_and_comes_back_has_all_that_was_put(tmp_path: Path) -> None:
    ceph = Ceph(tmp_path, durable=True)
    try:
        address = new_namespace(ceph.configuration)
        written: dict[str, bytes] = {}
        is_over = Event()

        def write() -> None:
            store = opened(address, call_timeout_s=60)
            for number in count():
                key, data = f"a/{number:06}", (SMALL, LARGE)[number % 2]
                store.put(key, data)
                written[key] = data
                if is_over.is_set():
                    return

        def wait_for(keys: int) -> None:
            wait_until(lambda: len(written) >= keys or writer.done())

        with ThreadPoolExecutor(1) as pool:
            writer = pool.submit(write)
            try:
                for _ in range(2):
                    wait_for(len(written) + 20)
                    ceph.osd.kill()
                    ceph.start_osd()
            finally:
                is_over.set()
            writer.result()

        store = opened(address)
        assert [info.key for info in store.list("", limit=len(written) + 1)] == sorted(written)
        assert {key: store.get(key) for key in written} == written
    finally:
        ceph.stop()


def test_a_full_pool_is_unavailable_at_once_and_can_be_emptied(ceph_configuration: Path, address: Address) -> None:
    pool = f"tests-{uuid.uuid4().hex}"
    admin(ceph_configuration, "osd", "pool", "create", pool, "1")
    admin(ceph_configuration, "osd", "pool", "set-quota", pool, "max_objects", "2")
    store = opened(address, pool=pool)
    for key in ("a", "b"):
        store.put(key, LARGE)

    def is_full() -> bool:
        [line] = [
            line for line in admin(ceph_configuration, "osd", "pool", "ls", "detail").splitlines() if pool in line
        ]
        return "full_quota" in line

    wait_until(is_full)

    with pytest.raises(StoreUnavailable, match="Disk quota exceeded"):
        store.put("c", LARGE)
    assert content(store, "a") == LARGE
    store.delete("a")
    assert [info.key for info in store.list("")] == ["b"]


def test_a_row_that_cannot_be_read_is_damage(store: RadosStore, address: Address) -> None:
    store.put("a", SMALL)
    assert address.objects().change(ROOT, {}, {"a": "{spoilt"}, clear=False)
    for call in (store.get, store.head, store.list):
        with pytest.raises(Damaged, match="spoilt"):
            call("a")


def test_without_the_module_it_is_told_what_brings_it() -> None:
    program = "import sys; sys.modules['rados'] = None; import distci.store.rados"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "distci.errors.Invalid: store: rados:// takes the Python module rados" in ran.stderr
    assert "apt-get install python3-rados" in ran.stderr


NEVER_OF_A_STORE = {
    # Roots, which nothing is raised as.
    *("Error", "OSError"),
    # Of a kind of operation that is not used, and of mistakes in calling.
    *("ExtendMismatch", "LogicError"),
}


@pytest.mark.parametrize(
    "library_error",
    [member for _, member in inspect.getmembers(rados, inspect.isclass) if issubclass(member, rados.Error)],
)
def test_every_error_of_librados_has_a_home(library_error: type[Exception]) -> None:
    assert home_of(library_error) or library_error.__name__ in NEVER_OF_A_STORE


def test_the_probe_names_what_cannot_be_reached(address: Address) -> None:
    (problem,) = opened(address, pool="never-made").probe()
    assert "never-made" in problem


def test_bytes_beyond_what_one_rados_object_holds_come_back(store: RadosStore, address: Address) -> None:
    piece = os.urandom(PART_BYTES // 8)
    store.put("a", io.BytesIO(piece * 136))
    with store.open("a", start=3) as stream:
        assert stream.read(len(piece)) == piece[3:] + piece[:3]
    assert store.get("a", 135 * len(piece) + 1) == piece[1:]
    assert store.get("a", 128 * len(piece) - 5, 10) == piece[-5:] + piece[:5]
    assert len(address.rados_objects("data/")) == 17
    store.delete("a")
    assert address.rados_objects("data/") == []
